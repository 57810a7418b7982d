//! The part of a pass that waits: it collects the answers of calls, and withdraws records that should not be called.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{
    HOLES_PATIENCE, Pass,
    in_flight::{Answered, InFlight},
    progress::Progress,
};
use crate::retry::{Error, Stopped, Waiting};
use crate::{
    dispatch::{TargetId, job::Redone},
    model::ids::Offset,
    runtime::clock::Timestamp,
};

/// How often a waiting pass checks the breakers of its targets, because other calls may have opened them.
pub(in crate::retry) const LOOK_EVERY: Duration = Duration::from_millis(100);

impl Pass {
    /// Waits for an answer or the next check of breakers; `false` if the time is over or the pass has to stop.
    ///
    /// # Cancel safety
    /// No answer is lost.
    pub(in crate::retry) async fn collect(
        &mut self,
        progress: &mut Progress,
        in_flight: &mut InFlight,
    ) -> Result<bool, Error> {
        tokio::select! {
            biased;
            Some(answered) = in_flight.next() => self.count(answered, progress, in_flight)?,
            () = sleep_until(self.look_at.min(self.deadline())) => self.look(progress, in_flight),
            () = self.stop.cancelled() => {}
        }
        Ok(!self.is_over())
    }

    /// Withdraws records whose call has not begun once the time is over, and waits for the rest.
    ///
    /// Where a retry settles its records, any record can be withdrawn, because the next pass skips the settled ones
    /// after it. Where the next pass repeats calls, only records after the last called one are withdrawn at once.
    /// Earlier ones have [`HOLES_PATIENCE`] to be called.
    pub(in crate::retry) async fn collect_rest(
        &mut self,
        progress: &mut Progress,
        in_flight: &mut InFlight,
    ) -> Result<(), Error> {
        let mut result = Ok(());
        let holes_by = self.by.max(self.least_by) + HOLES_PATIENCE;
        while !in_flight.is_empty() {
            let over = self.is_over();
            let stopped = self.stop.is_cancelled();
            // At a stop the queues start no job, and no record is called for a caller that went away.
            let fills =
                self.calls_again() && !stopped && result.is_ok() && Instant::now() < holes_by;
            if over || result.is_err() {
                let taken_len = in_flight.withdraw(fills);
                self.report.attempted -= taken_len;
                self.is_cut |= taken_len > 0;
                if in_flight.is_empty() {
                    break;
                }
            }
            // Calls in flight are always waited for; their own timeouts bound them.
            let until = match (over, fills) {
                (false, _) => Some(self.deadline()),
                (true, true) => Some(holes_by),
                (true, false) => None,
            };
            tokio::select! {
                biased;
                answered = in_flight.next() => {
                    let Some(answered) = answered else { break };
                    result = result.and(self.count(answered, progress, in_flight));
                }
                () = sleep_until(until.map_or(self.look_at, |until| until.min(self.look_at))), if until.is_some() => {
                    self.look(progress, in_flight);
                }
                () = self.stop.cancelled(), if !stopped => {}
            }
        }
        result
    }

    pub(in crate::retry) fn count(
        &mut self,
        (offset, answer): Answered,
        progress: &mut Progress,
        in_flight: &mut InFlight,
    ) -> Result<(), Error> {
        let called = matches!(
            answer,
            Some(
                Redone::Delivered { .. }
                    | Redone::Failed { .. }
                    | Redone::LeftOpen { .. }
                    | Redone::Removed { .. }
            )
        );
        let Some(given) = in_flight.end(offset, called) else {
            // It was withdrawn.
            return Ok(());
        };
        let target = given.target.as_ref();
        let (mut failed, mut left) = (None, false);
        let report = &mut self.report;
        let by_status = match answer {
            Some(Redone::Delivered { status }) => {
                report.processed += 1;
                status.to_string()
            }
            Some(Redone::Failed { cause, moved_to }) => {
                report.failed += 1;
                if let Some(stream) = moved_to {
                    report.moved += 1;
                    *report.moved_to.entry(stream).or_default() += 1;
                }
                failed = Some(cause);
                cause.to_string()
            }
            Some(Redone::LeftOpen { cause }) => {
                failed = Some(cause);
                left = true;
                cause.to_string()
            }
            Some(Redone::Removed { cause }) => {
                report.failed += 1;
                progress.trimmed += 1;
                failed = Some(cause);
                cause.to_string()
            }
            Some(Redone::NotStored(error)) => {
                report.attempted -= 1;
                return Err(Error::NotStored(error));
            }
            // An earlier record of its lane was left, or a stop cut the call.
            None => {
                report.attempted -= 1;
                if given.start.is_withdrawn() {
                    self.leave(offset, target, progress);
                }
                return Ok(());
            }
        };
        *report.by_status.entry(by_status).or_default() += 1;
        if let Some(target) = target
            && failed.is_some()
        {
            // A target that asks for later counts as open, even if its breaker closed again at once.
            let open_until = self.shared.open_until(target);
            let open_until = open_until.or(left.then(Instant::now));
            self.look_at(target, open_until, true, progress, in_flight);
        }
        if left {
            self.leave(offset, target, progress);
        } else {
            progress.done(offset);
            if let Some(here) = &self.here {
                here.settled();
            }
        }
        // A record left open has not failed, so it does not count towards the end of the pass.
        let judged = target.filter(|_| !left);
        if let Some(failing) = judged.and_then(|target| self.failing.note(target, failed)) {
            let stopped = Stopped::Failing(failing);
            self.report.stopped.get_or_insert(stopped);
            self.by = self.by.min(Instant::now());
        }
        Ok(())
    }

    /// Checks the breakers of waiting records, and withdraws the records of targets that are shut.
    fn look(&mut self, progress: &mut Progress, in_flight: &mut InFlight) {
        let now = Instant::now();
        if now < self.look_at {
            return;
        }
        self.look_at = now + LOOK_EVERY;
        for target in in_flight.waited_for() {
            let open_until = self.shared.open_until(&target);
            self.look_at(&target, open_until, false, progress, in_flight);
        }
    }

    fn look_at(
        &mut self,
        target: &TargetId,
        open_until: Option<Instant>,
        found: bool,
        progress: &mut Progress,
        in_flight: &mut InFlight,
    ) {
        if !self.open.note(target, open_until, found, Instant::now()) {
            return;
        }
        let withdrawn = in_flight.withdraw_of(target);
        if withdrawn.is_empty() {
            return;
        }
        for offset in withdrawn {
            self.report.attempted -= 1;
            self.leave(offset, Some(target), progress);
        }
    }

    /// Returns whether a target is shut.
    pub(in crate::retry) fn is_shut(&mut self, target: Option<&TargetId>) -> bool {
        target.is_some_and(|target| {
            let open_until = self.shared.open_until(target);
            self.open.note(target, open_until, false, Instant::now())
        })
    }

    /// Leaves a record open for a later pass because of its target.
    pub(in crate::retry) fn leave(
        &mut self,
        offset: Offset,
        target: Option<&TargetId>,
        progress: &mut Progress,
    ) {
        progress.leave(offset);
        if let Some(target) = target {
            self.open.leave(target);
        }
    }

    /// Reports the targets with records left, and whether they ended the pass. If a bound ended it, a loop of passes
    /// goes on with other targets; but a pass that has settled no record ends such a loop.
    pub(in crate::retry) fn tell_open_targets(&mut self) {
        let (time, now) = (self.shared.clock.now(), Instant::now());
        let until = |target: &TargetId, seen: Option<Instant>| -> Timestamp {
            let until = self.shared.open_until(target).or(seen).unwrap_or(now);
            let wait = until.saturating_duration_since(now).as_micros();
            time.plus_micros(u64::try_from(wait).unwrap_or(u64::MAX))
        };
        let waiting = self.open.left().map(|left| Waiting {
            until: left.target.as_ref().map(|target| until(target, left.until)),
            target: left.target,
            count: left.len,
        });
        let waiting: Vec<_> = waiting.collect();
        let settled = self.report.processed + self.report.failed;
        if let Some(target) = self.open.first()
            && (!self.is_cut || settled == 0)
        {
            let named = waiting
                .iter()
                .find(|one| one.target.as_ref() == Some(target));
            let until = named
                .and_then(|one| one.until)
                .unwrap_or_else(|| until(target, None));
            let target = target.clone();
            self.report
                .stopped
                .get_or_insert(Stopped::Open { target, until });
        }
        self.report.waiting = waiting;
    }
}
