//! The records that a pass has queued: which can be withdrawn, and when to queue no more.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{sync::oneshot, time::Instant};

use crate::{
    dispatch::{
        DispatchContext, TargetId,
        job::{Redone, Start},
    },
    model::ids::Offset,
};

/// An offset with its result; `None` if a stop has cut the call.
pub(in crate::retry) type Answered = (Offset, Option<Redone>);

/// Queued records of a pass.
#[derive(Default)]
pub(in crate::retry) struct InFlight {
    /// The dispatcher whose queues are swept; `None` in tests.
    shared: Option<Arc<DispatchContext>>,
    answers: FuturesUnordered<BoxFuture<'static, Answered>>,
    /// Records without an answer yet.
    given: BTreeMap<Offset, Given>,
    /// The greatest offset whose call was answered.
    called: Option<Offset>,
    /// The longest wait for an answer.
    slowest: Duration,
}

/// A queued record.
pub(in crate::retry) struct Given {
    /// Its target; `None` if it names none that can be called.
    pub(in crate::retry) target: Option<TargetId>,
    pub(in crate::retry) start: Start,
    at: Instant,
}

impl InFlight {
    /// No records yet.
    pub(in crate::retry) fn new(shared: Arc<DispatchContext>) -> Self {
        Self {
            shared: Some(shared),
            answers: FuturesUnordered::new(),
            given: BTreeMap::new(),
            called: None,
            slowest: Duration::ZERO,
        }
    }

    /// Adds a record with the highest offset.
    pub(in crate::retry) fn add(
        &mut self,
        offset: Offset,
        target: Option<TargetId>,
        start: Start,
        answered: oneshot::Receiver<Redone>,
    ) {
        let at = Instant::now();
        let given = Given { target, start, at };
        self.given.insert(offset, given);
        let answered = answered.map(move |answer| (offset, answer.ok()));
        self.answers.push(answered.boxed());
    }

    pub(in crate::retry) fn len(&self) -> usize {
        self.given.len()
    }

    /// Returns how many records are for a target.
    pub(in crate::retry) fn len_of(&self, target: &TargetId) -> usize {
        let of_target = |given: &&Given| given.target.as_ref() == Some(target);
        self.given.values().filter(of_target).count()
    }

    pub(in crate::retry) fn is_empty(&self) -> bool {
        self.given.is_empty()
    }

    /// Waits for an answer, possibly of a withdrawn record.
    ///
    /// # Cancel safety
    /// No answer is lost.
    pub(in crate::retry) async fn next(&mut self) -> Option<Answered> {
        self.answers.next().await
    }

    /// Removes an answered record; `None` if it was withdrawn.
    pub(in crate::retry) fn end(&mut self, offset: Offset, called: bool) -> Option<Given> {
        let given = self.given.remove(&offset)?;
        self.slowest = self.slowest.max(given.at.elapsed());
        if called {
            self.called = self.called.max(Some(offset));
        }
        Some(given)
    }

    /// Withdraws records whose call has not begun, the newest first; returns how many. `keeps_holes` stops at the first
    /// record whose call has begun.
    pub(in crate::retry) fn withdraw(&mut self, keeps_holes: bool) -> u64 {
        let mut taken = Vec::new();
        for (offset, given) in self.given.iter().rev() {
            if keeps_holes && Some(*offset) < self.called {
                break;
            }
            if given.start.withdraw() {
                taken.push(*offset);
            } else if keeps_holes {
                break;
            }
        }
        let mut targets = HashSet::new();
        for offset in &taken {
            let given = self.given.remove(offset);
            targets.extend(given.and_then(|given| given.target));
        }
        self.sweep(&targets);
        taken.len() as u64
    }

    /// Returns the targets of records whose call has not begun.
    pub(in crate::retry) fn waited_for(&self) -> HashSet<TargetId> {
        let waiting = self.given.values().filter(|given| given.start.is_waiting());
        waiting.filter_map(|given| given.target.clone()).collect()
    }

    /// Withdraws the records of a target whose call has not begun; returns their offsets.
    pub(in crate::retry) fn withdraw_of(&mut self, target: &TargetId) -> Vec<Offset> {
        let mut taken = Vec::new();
        self.given.retain(|offset, given| {
            let is_taken = given.target.as_ref() == Some(target) && given.start.withdraw();
            if is_taken {
                taken.push(*offset);
            }
            !is_taken
        });
        if !taken.is_empty() {
            self.sweep([target]);
        }
        taken
    }

    /// Removes withdrawn records from the queues at once. Otherwise they would hold up records of a later pass until
    /// the breaker and the rate let them start.
    fn sweep<'a>(&self, targets: impl IntoIterator<Item = &'a TargetId>) {
        let Some(shared) = &self.shared else { return };
        for target in targets {
            shared.sweep(target);
        }
    }

    /// Returns whether a call takes, or took, longer than the time left. Then a record queued now may be answered
    /// before an earlier one has begun at the end of the time.
    pub(in crate::retry) fn outlasts(&self, now: Instant, by: Instant) -> bool {
        let oldest = self.given.values().next();
        let waits = oldest.map(|given| now.saturating_duration_since(given.at));
        self.slowest.max(waits.unwrap_or_default()) > by.saturating_duration_since(now)
    }
}

/// After a panic of its pass, no withdrawn record begins.
impl Drop for InFlight {
    fn drop(&mut self) {
        let _taken_back = self.withdraw(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(len: u64) -> InFlight {
        let mut in_flight = InFlight::default();
        for offset in 0..len {
            let (_, answered) = oneshot::channel();
            in_flight.add(Offset(offset), None, Start::default(), answered);
        }
        in_flight
    }

    fn begin(in_flight: &InFlight, offset: u64) {
        assert!(in_flight.given[&Offset(offset)].start.begin());
    }

    #[track_caller]
    fn check_left(in_flight: &mut InFlight, keeps_holes: bool, expected: &[u64]) {
        let len = in_flight.len();
        let taken = in_flight.withdraw(keeps_holes);
        let left: Vec<_> = in_flight.given.keys().map(|at| at.0).collect();
        assert_eq!(left, expected);
        assert_eq!(taken, (len - left.len()) as u64);
    }

    #[test]
    fn a_record_before_a_called_one_is_kept_if_holes_are_kept() {
        let in_flight = || {
            let in_flight = of(5);
            begin(&in_flight, 0);
            begin(&in_flight, 2);
            in_flight
        };
        check_left(&mut in_flight(), false, &[0, 2]);
        check_left(&mut in_flight(), true, &[0, 1, 2]);
        // The answer changes nothing.
        let mut answered = in_flight();
        assert!(answered.end(Offset(2), true).is_some());
        check_left(&mut answered, true, &[0, 1]);
        check_left(&mut answered, false, &[0]);
        // One that a stop has cut was not called.
        let mut cut = in_flight();
        assert!(cut.end(Offset(2), false).is_some());
        check_left(&mut cut, true, &[0]);
        assert!(cut.end(Offset(1), true).is_none(), "it was taken back");
    }

    #[test]
    fn records_not_begun_are_withdrawn_when_their_pass_is_gone() {
        let in_flight = of(2);
        let starts = [0, 1].map(|offset| in_flight.given[&Offset(offset)].start.clone());
        begin(&in_flight, 0);
        drop(in_flight);
        assert!(!starts[1].begin());
    }

    #[test]
    fn no_more_is_given_out_when_one_takes_longer_than_there_is_time() {
        let mut in_flight = of(2);
        let at = in_flight.given[&Offset(0)].at;
        let by = at + Duration::from_secs(60);
        let after = |secs| at + Duration::from_secs(secs);
        assert!(!in_flight.outlasts(after(29), by));
        assert!(in_flight.outlasts(after(31), by));
        for offset in 0..2 {
            assert!(in_flight.end(Offset(offset), true).is_some());
        }
        assert!(!in_flight.outlasts(after(31), by));
        in_flight.slowest = Duration::from_secs(20);
        assert!(!in_flight.outlasts(after(39), by));
        assert!(in_flight.outlasts(after(41), by));
    }
}
