//! The records that a pass has given to the queues: which of them can be taken back, and when to give out no more.

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
        queue::job::{Redone, Start},
    },
    model::ids::Offset,
};

/// What became of a record; `None` if a stop has cut it.
pub(in crate::retry) type Answered = (Offset, Option<Redone>);

/// Records given to the queues.
#[derive(Default)]
pub(in crate::retry) struct InFlight {
    /// Whose queues they are on. Without it nothing is swept, which a test may want.
    shared: Option<Arc<DispatchContext>>,
    answers: FuturesUnordered<BoxFuture<'static, Answered>>,
    /// Those whose answer is waited for.
    given: BTreeMap<Offset, Given>,
    /// The greatest offset whose call was answered.
    called: Option<Offset>,
    /// The longest that an answer took.
    slowest: Duration,
}

/// A record that was given out.
pub(in crate::retry) struct Given {
    /// Whom it is for; `None` if no target can be called for it.
    pub(in crate::retry) target: Option<TargetId>,
    pub(in crate::retry) start: Start,
    at: Instant,
}

impl InFlight {
    /// Nothing yet.
    pub(in crate::retry) fn new(shared: Arc<DispatchContext>) -> Self {
        Self {
            shared: Some(shared),
            answers: FuturesUnordered::new(),
            given: BTreeMap::new(),
            called: None,
            slowest: Duration::ZERO,
        }
    }

    /// Adds a record behind all others.
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

    /// Returns how many are for a target.
    pub(in crate::retry) fn len_of(&self, target: &TargetId) -> usize {
        let of_target = |given: &&Given| given.target.as_ref() == Some(target);
        self.given.values().filter(of_target).count()
    }

    pub(in crate::retry) fn is_empty(&self) -> bool {
        self.given.is_empty()
    }

    /// Waits for an answer, perhaps to what was taken back.
    ///
    /// # Cancel safety
    /// No answer is lost.
    pub(in crate::retry) async fn next(&mut self) -> Option<Answered> {
        self.answers.next().await
    }

    /// A record has its answer; `None` if it was taken back.
    pub(in crate::retry) fn end(&mut self, offset: Offset, called: bool) -> Option<Given> {
        let given = self.given.remove(&offset)?;
        self.slowest = self.slowest.max(given.at.elapsed());
        if called {
            self.called = self.called.max(Some(offset));
        }
        Some(given)
    }

    /// Takes back what has not begun, from the newest on; returns how many. `keeps_holes` stops at the first that has.
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

    /// Takes back what has not begun for a target; returns which records.
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

    /// What was taken back leaves the queues at once. It would hold up there what a later pass gives out: for the breaker,
    /// and for the target's rate.
    fn sweep<'a>(&self, targets: impl IntoIterator<Item = &'a TargetId>) {
        let Some(shared) = &self.shared else { return };
        for target in targets {
            shared.sweep(target);
        }
    }

    /// Returns whether a record takes, or took, longer than there is time: one that is given out now may be answered
    /// while one before it has not even begun when the time is over.
    pub(in crate::retry) fn outlasts(&self, now: Instant, by: Instant) -> bool {
        let oldest = self.given.values().next();
        let waits = oldest.map(|given| now.saturating_duration_since(given.at));
        self.slowest.max(waits.unwrap_or_default()) > by.saturating_duration_since(now)
    }
}

/// A pass that ends in a panic lets nothing begin behind its back.
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
    fn what_was_called_behind_a_record_keeps_it_if_holes_are_kept() {
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
    fn what_has_not_begun_is_taken_back_when_its_pass_is_gone() {
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
