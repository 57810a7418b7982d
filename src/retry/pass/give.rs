//! The part of a pass that queues records, as far as its bounds allow.

use std::{pin::pin, time::Duration};

use futures_util::FutureExt;
use tokio::{
    sync::oneshot,
    task::{coop::consume_budget, yield_now},
    time::{Instant, sleep, sleep_until},
};

use super::{
    HOLES_PATIENCE, Pass,
    collect::LOOK_EVERY,
    in_flight::InFlight,
    progress::Progress,
    reader::{PassReader, Read, unread},
};
use crate::retry::Error;
use crate::{
    dispatch::{
        TargetId,
        job::{Errand, Retried, Start},
    },
    model::{
        ids::{Offset, PartitionId},
        record::StoredRecord,
    },
    storage::{Epoch, ReadError},
};

/// The pass yields after checking this many bytes of records, which takes less than a millisecond.
const TURN_BYTES: usize = 256 << 10;
/// Offsets kept that are done after one that is not.
const AHEAD_LEN_MAX: usize = 65_536;
/// How long after the last possible call the log may take to accept a settlement.
const COMMIT_PATIENCE: Duration = Duration::from_secs(10);
/// How long a pass that has left records searches for one of another target.
const SEARCH_MAX: Duration = Duration::from_secs(2);

/// Why a pass queues no more records of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::retry) enum LeftOff {
    /// No record is left to call.
    Done,
    /// A bound of records or time, or a stop of the gateway.
    Bound,
}

/// The result of queueing a record.
enum Given {
    Taken,
    /// Its target is shut.
    Shut,
    /// The queue had no room in time.
    Late,
}

impl Pass {
    /// Queues records up to the end of the partition, or a bound of the pass.
    pub(in crate::retry) async fn give(
        &mut self,
        reader: &mut PassReader,
        epoch: Option<Epoch>,
        progress: &mut Progress,
        in_flight: &mut InFlight,
    ) -> Result<LeftOff, Error> {
        let mut at = progress.next;
        let mut useful_at = Instant::now();
        let mut looked_at = 0;
        while at < reader.tail {
            if progress.has_left() && (self.calls_again() || useful_at.elapsed() > SEARCH_MAX) {
                break;
            }
            if reader.wants_ends(at) {
                reader.look_up_ends(&self.shared, at)?;
                if !self.has_room_ahead(progress, in_flight).await? {
                    return Ok(LeftOff::Bound);
                }
            }
            let settled = reader.has_ended(at);
            if self.skips(settled) {
                self.report.skipped += 1;
                progress.done(at);
                at = at.next();
                continue;
            }
            let looks = self.filter.looks_at_records();
            if self.is_over() || !looks && self.is_full() {
                return Ok(LeftOff::Bound);
            }
            if self.dry_run && !looks {
                self.report.attempted += 1;
                progress.done(at);
                at = at.next();
                continue;
            }
            let Some(stored) = self.record_at(&mut at, reader, progress).await? else {
                continue;
            };
            #[cfg(test)]
            crate::runtime::tasks::provoke(
                crate::runtime::tasks::Part::Retry,
                &stored.record.value,
            );
            let is_met = self.filter.is_met_by(&stored.record);
            if looks {
                // Yield now and then, because many records in a row may not match.
                looked_at += stored.record.bytes_len();
                if looked_at >= TURN_BYTES {
                    looked_at = 0;
                    yield_now().await;
                }
                consume_budget().await;
            }
            if !is_met {
                self.report.unmatched += 1;
                progress.done(at);
                at = at.next();
                continue;
            }
            if self.is_full() {
                return Ok(LeftOff::Bound);
            }
            if self.dry_run {
                self.report.attempted += 1;
                progress.done(at);
                at = at.next();
                continue;
            }
            let target = self.shared.target_of(&stored.record);
            if !self.is_shut(target.as_ref())
                && let Some(left_off) = self.hold_back(target.as_ref(), progress, in_flight).await?
            {
                return Ok(left_off);
            }
            let given = match self.is_shut(target.as_ref()) {
                true => Given::Shut,
                false => {
                    let ends = epoch.filter(|_| !settled);
                    let target = target.clone();
                    self.give_one(reader.of, &stored, target, ends, in_flight)
                        .await
                }
            };
            match given {
                Given::Taken => useful_at = Instant::now(),
                Given::Shut => self.leave(at, target.as_ref(), progress),
                Given::Late => return Ok(LeftOff::Bound),
            }
            at = at.next();
            while let Some(Some(answered)) = in_flight.next().now_or_never() {
                self.count(answered, progress, in_flight)?;
            }
            // Yield now and then, because many records in a row may be left.
            consume_budget().await;
        }
        Ok(LeftOff::Done)
    }

    /// Waits while too many later offsets are done, because one slow record would let their list grow with the stream.
    /// Returns `false` if the pass is over first.
    async fn has_room_ahead(
        &mut self,
        progress: &mut Progress,
        in_flight: &mut InFlight,
    ) -> Result<bool, Error> {
        yield_now().await;
        while progress.ahead_len() >= AHEAD_LEN_MAX && !in_flight.is_empty() {
            if !self.collect(progress, in_flight).await? {
                return Ok(false);
            }
        }
        Ok(!self.is_over())
    }

    /// Returns the record at an offset. If it is lost or trimmed, counts the gap, moves `at` past it and returns `None`.
    async fn record_at(
        &mut self,
        at: &mut Offset,
        reader: &mut PassReader,
        progress: &mut Progress,
    ) -> Result<Option<StoredRecord>, Error> {
        let until = match reader.read(&self.shared, *at).await {
            Ok(Read::Record(stored)) => return Ok(Some(stored)),
            Ok(Read::Lost(until)) => {
                let until = until.min(reader.tail);
                self.report.skipped += until.0.saturating_sub(at.0);
                until
            }
            Err(ReadError::Trimmed { earliest, .. }) if earliest > *at => {
                let until = earliest.min(reader.tail);
                progress.trimmed += until.0 - at.0;
                until
            }
            Err(error) => return Err(unread(error)),
        };
        while *at < until {
            progress.done(*at);
            *at = at.next();
        }
        Ok(None)
    }

    /// Waits until the bounds of the pass allow one more call of a target; returns why the pass ends, if it does.
    async fn hold_back(
        &mut self,
        target: Option<&TargetId>,
        progress: &mut Progress,
        in_flight: &mut InFlight,
    ) -> Result<Option<LeftOff>, Error> {
        while in_flight.len() >= self.in_flight_max || self.is_on_trial(target, in_flight) {
            if !self.collect(progress, in_flight).await? {
                return Ok(Some(LeftOff::Bound));
            }
        }
        if !self.has_slot(progress, in_flight).await? {
            return Ok(Some(LeftOff::Bound));
        }
        if self.calls_again() && in_flight.outlasts(Instant::now(), self.by) {
            return Ok(Some(LeftOff::Bound));
        }
        // An earlier record may have been left meanwhile.
        let is_blocked = self.calls_again() && progress.has_left();
        Ok(is_blocked.then_some(LeftOff::Done))
    }

    /// Waits for a slot of the rate; `false` if the pass is over first.
    async fn has_slot(
        &mut self,
        progress: &mut Progress,
        in_flight: &mut InFlight,
    ) -> Result<bool, Error> {
        while let Some(rate) = &mut self.rate
            && let Err(at) = rate.take(Instant::now())
        {
            let slot = sleep_until(at);
            tokio::select! {
                biased;
                collected = self.collect(progress, in_flight) => {
                    if !collected? {
                        return Ok(false);
                    }
                }
                () = slot => {}
            }
            if self.is_over() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Queues a record; its queue may be full for as long as the pass lasts.
    async fn give_one(
        &mut self,
        of: PartitionId,
        stored: &StoredRecord,
        target: Option<TargetId>,
        ends: Option<Epoch>,
        in_flight: &mut InFlight,
    ) -> Given {
        let (answer, answered) = oneshot::channel();
        let start = Start::default();
        let errand = Errand::Retry(Retried {
            stream: self.stream.clone(),
            mapping: self.mapping.clone(),
            ends,
            start: start.clone(),
            pace: self.rate.as_ref().map(|rate| rate.pace.clone()),
            waiting: None,
            commit_by: self.by + HOLES_PATIENCE + COMMIT_PATIENCE,
            answer,
        });
        let job = self.shared.job(of, stored, target.clone(), errand);
        let shared = self.shared.clone();
        let mut taken = pin!(shared.enqueue(Box::new(job)));
        loop {
            // The target may be shut while the record waits for room.
            tokio::select! {
                biased;
                () = &mut taken => break,
                () = sleep_until(self.deadline()) => return Given::Late,
                () = self.stop.cancelled() => return Given::Late,
                () = sleep(LOOK_EVERY) => {}
            }
            if self.is_shut(target.as_ref()) {
                return Given::Shut;
            }
        }
        self.report.attempted += 1;
        in_flight.add(stored.offset, target, start, answered);
        Given::Taken
    }

    /// Returns whether a target has as many calls in flight as may still fail before the pass ends. One more failed
    /// call would move a record for nothing.
    fn is_on_trial(&self, target: Option<&TargetId>, in_flight: &InFlight) -> bool {
        let Some(target) = target else { return false };
        let Some(room) = self.failing.room(target) else {
            return false;
        };
        in_flight.len() >= room && in_flight.len_of(target) >= room
    }

    /// A replay skips open records, which wait for their first dispatch. Other passes skip settled records unless
    /// `redeliver` is set.
    fn skips(&self, settled: bool) -> bool {
        if self.replay {
            !settled
        } else {
            settled && !self.redeliver
        }
    }

    fn is_full(&self) -> bool {
        self.report.attempted >= self.records_max
    }
}
