//! The part of a pass that gives records to the queues, as far as its bounds allow.

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
        queue::job::{Errand, Retried, Start},
    },
    model::{ids::PartitionId, record::StoredRecord},
    storage::{Epoch, ReadError},
};

/// After so many bytes of records that were looked at others have their turn: reading them takes less than a millisecond.
const TURN_BYTES: usize = 256 << 10;
/// Offsets remembered that are done behind one that is not.
const AHEAD_LEN_MAX: usize = 65_536;
/// How long after the last call may begin the log has to take an end.
const COMMIT_PATIENCE: Duration = Duration::from_secs(10);
/// How long a pass that has left records looks for one of another target.
const SEARCH_MAX: Duration = Duration::from_secs(2);

/// Why a pass gives out no more records of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::retry) enum LeftOff {
    /// There is nothing more to call.
    Done,
    /// The cap, the time, or the gateway stops.
    Bound,
}

/// What became of a record that was to be given to its queue.
enum Given {
    Taken,
    /// Its target is shut.
    Shut,
    /// There was no room in time.
    Late,
}

impl Pass {
    /// Gives records to the queues until there is nothing more to call, or a bound of the pass.
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
                tokio::task::yield_now().await;
                // One slow record must not let the list of what is done behind it grow with the stream.
                while progress.ahead_len() >= AHEAD_LEN_MAX && !in_flight.is_empty() {
                    if !self.collect(progress, in_flight).await? {
                        return Ok(LeftOff::Bound);
                    }
                }
                if self.is_over() {
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
            let stored = match reader.read(&self.shared, at).await {
                Ok(Read::Record(stored)) => stored,
                Ok(Read::Lost(until)) => {
                    while at < until.min(reader.tail) {
                        self.report.skipped += 1;
                        progress.done(at);
                        at = at.next();
                    }
                    continue;
                }
                Err(ReadError::Trimmed { earliest, .. }) if earliest > at => {
                    progress.trimmed += earliest.0.min(reader.tail.0) - at.0;
                    while at < earliest.min(reader.tail) {
                        progress.done(at);
                        at = at.next();
                    }
                    continue;
                }
                Err(error) => return Err(unread(error)),
            };
            #[cfg(test)]
            crate::runtime::tasks::provoke(
                crate::runtime::tasks::Part::Retry,
                &stored.record.value,
            );
            let is_met = self.filter.is_met_by(&stored.record);
            if looks {
                // A long stretch of such records is no reason to keep others waiting.
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
            if !self.is_shut(target.as_ref()) {
                while in_flight.len() >= self.in_flight_max
                    || self.is_on_trial(target.as_ref(), in_flight)
                {
                    if !self.collect(progress, in_flight).await? {
                        return Ok(LeftOff::Bound);
                    }
                }
                if !self.has_slot(progress, in_flight).await? {
                    return Ok(LeftOff::Bound);
                }
                if self.calls_again() && in_flight.outlasts(Instant::now(), self.by) {
                    return Ok(LeftOff::Bound);
                }
                // One before it may have been left meanwhile.
                if self.calls_again() && progress.has_left() {
                    break;
                }
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
            // A long stretch of records that are left is no reason to keep others waiting.
            consume_budget().await;
        }
        Ok(LeftOff::Done)
    }

    /// Waits for a slot of the rate; `false` if the pass is over before there is one.
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

    /// Gives a record to its queue, which may be full for as long as the pass lasts.
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
            // While it waits for room its target may turn out to be open.
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

    /// Returns whether a target has as many calls under way as may still fail alike before the pass ends: one more would be
    /// moved for nothing.
    fn is_on_trial(&self, target: Option<&TargetId>, in_flight: &InFlight) -> bool {
        let Some(target) = target else { return false };
        let Some(room) = self.failing.room(target) else {
            return false;
        };
        in_flight.len() >= room && in_flight.len_of(target) >= room
    }

    /// A record that waits for its first dispatch is left to it; one that is settled is called again only if asked for.
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
