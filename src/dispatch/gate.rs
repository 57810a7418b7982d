//! May a target be called now? Pure: the time is given.
//!
//! A gate has as many slots as calls may be in flight at the same time. It closes when the target cannot be reached or
//! asks for a pause, so that a backlog is not spent on it; when the pause is over it lets one call in, the *probe*, and
//! opens when the target answers that.

use std::time::Duration;

use tokio::time::Instant;

/// Slots of one target.
#[derive(Debug)]
pub(crate) struct Gate {
    in_flight: usize,
    in_flight_max: usize,
    closed: Option<Closed>,
    /// Closings in a row.
    failures: u32,
}

#[derive(Clone, Copy, Debug)]
struct Closed {
    until: Instant,
    /// A call is under way that will tell.
    probing: bool,
}

impl Gate {
    /// A gate with at least one slot.
    pub(crate) fn new(in_flight_max: usize) -> Self {
        Self {
            in_flight: 0,
            in_flight_max: in_flight_max.max(1),
            closed: None,
            failures: 0,
        }
    }

    /// Takes a slot, if one is free.
    pub(crate) fn enter(&mut self) -> bool {
        let free = self.in_flight < self.in_flight_max;
        self.in_flight += usize::from(free);
        free
    }

    /// Changes how many slots there are, at least one. Those that are taken stay taken.
    pub(crate) fn set_slots(&mut self, in_flight_max: usize) {
        self.in_flight_max = in_flight_max.max(1);
    }

    /// Returns whether more slots are taken than there are.
    pub(crate) fn is_overfull(&self) -> bool {
        self.in_flight > self.in_flight_max
    }

    /// Cuts a pause that lasts beyond `latest`.
    pub(crate) fn open_by(&mut self, latest: Instant) {
        if let Some(closed) = &mut self.closed {
            closed.until = closed.until.min(latest);
        }
    }

    /// Gives a slot back.
    pub(crate) fn leave(&mut self) {
        debug_assert!(self.in_flight > 0, "a slot is given back once");
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Returns how many slots are taken.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Returns whether it is closed; a probe may be due all the same.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// Returns how many calls may begin, of those that are ready. The time is asked for only if it matters.
    pub(crate) fn admits(&self, ready_len: usize, now: impl FnOnce() -> Instant) -> usize {
        match &self.closed {
            None => ready_len,
            Some(closed) if closed.probing || now() < closed.until => 0,
            Some(_) => ready_len.min(1),
        }
    }

    /// Returns when a probe may begin, if that is what the gate waits for.
    pub(crate) fn opens_at(&self) -> Option<Instant> {
        let closed = self.closed.filter(|closed| !closed.probing);
        closed.map(|closed| closed.until)
    }

    /// Notes that a call begins; returns whether it is a probe.
    pub(crate) fn begin(&mut self) -> bool {
        if let Some(closed) = &mut self.closed {
            closed.probing = true;
        }
        self.closed.is_some()
    }

    /// Notes that the probe is over, whatever came of it: if the gate is still closed, another one may begin.
    pub(crate) fn end_probe(&mut self) {
        if let Some(closed) = &mut self.closed {
            closed.probing = false;
        }
    }

    /// Closes for as long as the target asks for, else for `wait` of the closings in a row. Returns whether that is news.
    ///
    /// Calls that began before it closed say nothing new, unless the target asks for more.
    pub(crate) fn close(
        &mut self,
        now: Instant,
        began: Instant,
        asked: Option<Duration>,
        wait: impl FnOnce(u32) -> Duration,
    ) -> bool {
        if let Some(closed) = &mut self.closed
            && began < closed.until
        {
            if let Some(asked) = asked {
                closed.until = closed.until.max(now + asked);
            }
            return false;
        }
        self.failures = self.failures.saturating_add(1);
        let wait = asked.unwrap_or_else(|| wait(self.failures));
        self.closed = Some(Closed {
            until: now + wait,
            probing: false,
        });
        true
    }

    /// Notes that the target has answered a call; returns whether the gate was opened by that.
    ///
    /// The answer to a call that began before the gate was closed does not open it.
    pub(crate) fn answered(&mut self, began: Instant) -> bool {
        match self.closed {
            Some(closed) if began < closed.until => false,
            Some(_) => {
                self.closed = None;
                self.failures = 0;
                true
            }
            None => {
                self.failures = 0;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_taken_up_to_the_greatest_and_given_back() {
        let mut gate = Gate::new(2);
        assert!(gate.enter() && gate.enter());
        assert!(!gate.enter(), "no third slot");
        gate.leave();
        assert_eq!(gate.in_flight(), 1);
        assert!(gate.enter());
        assert!(Gate::new(0).enter(), "no slot at all would stop a target");
    }

    #[test]
    fn slots_become_more_or_fewer_and_what_is_taken_stays_taken() {
        let mut gate = Gate::new(1);
        assert!(gate.enter() && !gate.enter());
        gate.set_slots(3);
        assert!(gate.enter() && gate.enter() && !gate.enter());
        gate.set_slots(0);
        assert!(gate.is_overfull());
        gate.leave();
        assert!(gate.is_overfull() && !gate.enter());
        gate.leave();
        assert!(!gate.is_overfull() && !gate.enter(), "one slot is left");
        gate.leave();
        assert!(gate.enter());
    }

    #[test]
    fn a_pause_can_be_cut_but_not_made_longer() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut gate = Gate::new(1);
        gate.open_by(at(1));
        assert_eq!(gate.opens_at(), None, "an open gate stays open");
        assert!(gate.close(at(0), start, Some(Duration::from_secs(60)), WAIT));
        gate.open_by(at(500));
        assert_eq!(gate.opens_at(), Some(at(500)));
        gate.open_by(at(900));
        assert_eq!(gate.opens_at(), Some(at(500)));
        assert!(!gate.answered(start), "a call from before tells nothing");
        assert_eq!(gate.admits(5, || at(500)), 1);
    }

    const WAIT: fn(u32) -> Duration = |failures| Duration::from_secs(failures.into());

    #[test]
    fn it_closes_lets_one_probe_in_and_opens_when_that_is_answered() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut gate = Gate::new(8);
        assert!(!gate.begin(), "no probe while it is open");
        assert!(gate.close(at(1), start, None, WAIT));
        assert!(!gate.close(at(2), start, None, WAIT), "closed already");
        assert_eq!(gate.admits(5, || at(1000)), 0);
        assert!(!gate.answered(start), "a call from before tells nothing");
        assert_eq!(gate.admits(5, || at(1001)), 1);
        assert!(gate.begin());
        assert_eq!(gate.admits(5, || at(1002)), 0);
        assert_eq!(gate.opens_at(), None);
        gate.end_probe();
        let again = gate.admits(5, || at(1003));
        assert_eq!(again, 1, "a probe without an answer is repeated");
        assert!(gate.begin());
        assert!(gate.close(at(1010), at(1003), None, WAIT));
        let longer = gate.admits(5, || at(3009));
        assert_eq!(longer, 0, "the second time it closes for longer");
        assert_eq!(gate.admits(5, || at(3010)), 1);
        assert!(gate.begin() && gate.answered(at(3010)));
        assert_eq!(gate.admits(5, || at(3011)), 5);
        assert!(gate.close(at(4000), at(3999), None, WAIT));
        assert_eq!(gate.opens_at(), Some(at(5000)), "it counts from one again");
    }

    #[test]
    fn what_the_target_asks_for_wins_and_the_longest_of_it() {
        let mut gate = Gate::new(8);
        let now = Instant::now();
        let secs = Duration::from_secs;
        assert!(gate.close(now, now, Some(secs(10)), WAIT));
        assert!(!gate.close(now, now, Some(secs(30)), WAIT));
        assert!(!gate.close(now, now, Some(secs(20)), WAIT));
        assert_eq!(gate.opens_at(), Some(now + secs(30)));
    }
}
