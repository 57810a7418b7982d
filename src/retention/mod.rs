//! Retention: trims records beyond the age or the size that their stream retains.
//!
//! A stream's own bounds win over those of its kind (`[retention]`). Clock jumps do not age records (`ages`). The readers of a
//! stream decide which records are held back:
//!
//! | reader | class | |
//! |---|---|---|
//! | dispatch | must | a record of the source stream stays until it is settled |
//! | retries, cursors | may | hold nothing back; a trimmed position is reported to the reader |
//!
//! An open record that is trimmed from an error stream counts as expired in the ledger, and the log names it. A trim is only
//! a durable mark; the engine frees the space later (`storage::local::space::reclaim`).
//!
//! `gateway` runs it.

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

/// State key of the known wall clock.
const AGES_KEY: &str = "retention/ages";
/// How often the known wall clock is stored; also after each jump.
const NOTE_EVERY: Duration = Duration::from_secs(6 * 3_600);

/// Trims streams to their bounds.
#[derive(Debug)]
pub struct Retention {
    streams: Streams,
    source: StreamName,
    settings: Followed<config::Retention>,
    clock: Clock,
    ages: Option<Ages>,
    /// The wall clock at that time.
    noted: Timestamp,
}

/// Why a pass stopped early; the next pass continues.
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

    /// Checks all streams periodically, until `stop` fires.
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

    /// Checks all streams once, `passed` after the last check of this run.
    async fn pass(&mut self, passed: Option<Duration>) -> Result<(), PassError> {
        // A full disk still takes trims, because they free space. A stopped log takes nothing.
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

    /// Reads the clock and stores what is known of it.
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
                // A disk without space for this may still have space for trims.
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
