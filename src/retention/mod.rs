//! Retention: removes records that are older, or more, than their stream keeps.
//!
//! A stream's own bounds win over those of its kind (`[retention]`). Age is time that has really passed, whatever the
//! wall clock does (`ages`). Who reads a stream decides what holds records back:
//!
//! | reader | class | |
//! |---|---|---|
//! | dispatch | must | a record of the source stream stays until it has an end |
//! | retries, cursors | may | hold nothing back; a position that is gone is told |
//!
//! A record that is removed from an error stream without an end counts as expired in the ledger, and is told in the log.
//! The log gives the space back (`storage::local::space::reclaim`), so removal is a mark, made durable first.
//!
//! Who calls it: `gateway` runs it.

mod ages;

use std::{sync::Arc, time::Duration};

use serde_json::from_slice;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::ages::Ages;
use crate::{
    config,
    log::Streams,
    model::ids::{Offset, PartitionId, StreamName},
    runtime::{
        clock::{Clock, Timestamp},
        live::{Followed, Live},
    },
    storage::{Commit, CommitError, Health, Keep, ReadError, StateChange, StateEntry, Stream},
};

/// Where the state has what is known of the wall clock.
const AGES_KEY: &str = "retention/ages";
/// What is known of the wall clock is stored this often, and whenever it jumps.
const NOTE_EVERY: Duration = Duration::from_secs(6 * 3_600);

/// Removes what is too old or too much.
#[derive(Debug)]
pub struct Retention {
    streams: Streams,
    source: StreamName,
    settings: Followed<config::Retention>,
    clock: Clock,
    ages: Option<Ages>,
    /// What the clock said when that was stored.
    noted: Timestamp,
}

/// Why a pass ended before its end; the next one goes on.
#[derive(Debug, thiserror::Error)]
enum PassError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Retention {
    /// Keeps the records of all streams within bounds.
    #[must_use]
    pub fn new(
        streams: Streams,
        source: StreamName,
        settings: &Live<config::Retention>,
        clock: Clock,
    ) -> Self {
        Self {
            streams,
            source,
            settings: settings.follow(),
            clock,
            ages: None,
            noted: Timestamp::default(),
        }
    }

    /// Looks at all streams, again and again, until `stop` fires.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut looked: Option<Instant> = None;
        loop {
            let passed = looked.map(|looked| looked.elapsed());
            looked = Some(Instant::now());
            if let Err(error) = self.pass(passed).await {
                tracing::warn!(%error, "retention goes on at its next pass");
            }
            let every = Duration::from_secs(self.settings.get().interval_seconds);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.settings.changed() => {}
                () = tokio::time::sleep(every) => {}
            }
        }
    }

    /// Looks at all streams once, `passed` after the time before in this run.
    async fn pass(&mut self, passed: Option<Duration>) -> Result<(), PassError> {
        // A full disk takes a trim, for that is what gives space back; a stopped log takes nothing.
        if let Health::Stopped(_) = &*self.streams.engine().health().borrow() {
            return Ok(());
        }
        let ages = self.look(self.clock.now(), passed).await?;
        for stream in self.streams.engine().streams() {
            match self.trim(&stream, &ages).await {
                // Deleted meanwhile.
                Err(
                    PassError::Read(ReadError::PartitionUnknown(_))
                    | PassError::Commit(CommitError::PartitionUnknown(_)),
                ) => {}
                Err(PassError::Read(error)) => {
                    tracing::warn!(stream = %stream.name, %error, "cannot find what is too old");
                }
                trimmed => trimmed?,
            }
        }
        Ok(())
    }

    /// Looks at the clock and remembers what it says.
    async fn look(
        &mut self,
        now: Timestamp,
        passed: Option<Duration>,
    ) -> Result<Ages, CommitError> {
        let engine = self.streams.engine();
        let stored = engine.get(AGES_KEY).await;
        let known = self.ages.take().or_else(|| read(stored.as_ref()?));
        let (mut ages, is_new) = match known {
            Some(ages) => (ages, false),
            None => (Ages::begin(now), true),
        };
        let jumped = ages.look(now, passed);
        if jumped {
            tracing::warn!(%now, "the clock has jumped; records grow no older by that");
        }
        self.ages = Some(ages.clone());
        if is_new || jumped || now.since(self.noted) >= NOTE_EVERY {
            let value = serde_json::to_vec(&ages).unwrap_or_default();
            let note = StateChange {
                key: AGES_KEY.into(),
                value: Some(value.into()),
                expected: None,
            };
            let note = Commit {
                state: vec![note],
                ..Commit::default()
            };
            match engine.commit(note).await {
                Ok(_) => self.noted = now,
                // Without space for it there is still one for trims.
                Err(CommitError::DiskFull | CommitError::StateFull { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(ages)
    }

    async fn trim(&self, stream: &Arc<Stream>, ages: &Ages) -> Result<(), PassError> {
        let engine = self.streams.engine();
        let is_source = stream.name == self.source;
        let (hours, bytes_max) = self.bounds(stream);
        let keep = Keep {
            since: hours.map(|hours| ages.before(Duration::from_secs(hours * 3_600))),
            now: ages.noted(),
            bytes_max,
        };
        if keep.since.is_none() && keep.bytes_max.is_none() {
            return Ok(());
        }
        let kept = engine.first_kept(stream.id, keep).await?;
        for (of, begin) in stream.all_partitions().zip(kept) {
            let before = engine.status(of)?;
            let begin = match is_source {
                true => begin.min(before.low_mark),
                false => begin,
            };
            if begin <= before.bounds.earliest {
                continue;
            }
            engine.trim(of, begin).await?;
            let expired = engine.status(of)?.counts.expired - before.counts.expired;
            tell(stream, of, (before.bounds.earliest, begin), expired);
        }
        Ok(())
    }

    /// Returns hours and bytes that a stream keeps.
    fn bounds(&self, stream: &Stream) -> (Option<u64>, Option<u64>) {
        let settings = self.settings.get();
        let (hours, bytes) = match stream.name == self.source {
            true => (settings.source_hours, settings.source_bytes),
            false => (settings.error_hours, settings.error_bytes),
        };
        let hours = stream.config.retention_hours.map_or(hours, u64::from);
        let bytes = stream.config.retention_bytes.unwrap_or(bytes);
        let bound = |bound| (bound > 0).then_some(bound);
        (bound(hours), bound(bytes))
    }
}

fn tell(stream: &Stream, of: PartitionId, (from, to): (Offset, Offset), expired: u64) {
    let (name, partition, removed) = (&stream.name, of.partition, to.0 - from.0);
    match expired {
        0 => {
            tracing::info!(stream = %name, %partition, removed, earliest = to.0, "removed old records")
        }
        _ => {
            tracing::warn!(stream = %name, %partition, removed, expired, earliest = to.0, "removed old records, some without an end")
        }
    }
}

fn read(entry: &StateEntry) -> Option<Ages> {
    let ages = from_slice(&entry.value);
    ages.map_err(|error| tracing::error!(%error, "what was noted of the clock is malformed; ages count from now"))
        .ok()
}

#[cfg(test)]
mod tests;
