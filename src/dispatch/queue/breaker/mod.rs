//! The breaker decides whether a target may be called now, and how many calls may be in flight. It goes by the last 20
//! calls, not by one answer. Pure: the time is given.
//!
//! ```text
//!             half of the last 20 calls, and at least 5, were unavailable
//!   closed ─────────────────────────────────────────────────────────────► open: no call begins
//!     ▲  slots 2, 4, 8 … with successes                                   │   ▲
//!     └───────────── the probe was answered ◄──── one call probes ◄───────┘   │ the probe was
//!                                                        └────────────────────┘ unavailable: for longer
//! ```
//!
//! - *Open* lasts for the longest of our own pause and every `Retry-After` among the evidence. Our pause grows with the
//!   openings in a row. An answered probe closes the breaker and resets that count.
//! - A call without an answer on an open connection may be the record's fault, so it is no evidence for opening. A
//!   probe that ends so opens the breaker again, because it has not shown that the target answers.
//! - A call that began before the breaker opened or closed is no evidence afterwards. Its `Retry-After` still makes the
//!   wait longer.
//! - *Slots* bound the calls in flight, at most `slots_max`. A 429 or 503 halves them, at most once a second, and only
//!   if its call began after the last halving. A success adds one slot. While a quarter of the last calls were
//!   unavailable, it adds only 1/slots, so that the slots of a rate-limited target grow slowly.

#[cfg(test)]
mod tests;

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::dispatch::outcome::Verdict;

/// Calls that count as evidence.
const WINDOW_LEN: usize = 20;
/// Fewer unavailable calls never open the breaker; this many in the evidence slow the growth of slots.
const UNAVAILABLE_MIN: usize = WINDOW_LEN / 4;
/// Shortest time between two halvings of the slots.
const HALVING: Duration = Duration::from_secs(1);

/// The breaker of one target.
#[derive(Debug)]
pub(crate) struct Breaker {
    slots: usize,
    slots_max: usize,
    /// Credit of successes towards the next slot.
    credit: usize,
    /// Calls under way that began in this phase.
    calls: usize,
    /// Counts openings and closings.
    phase: u32,
    /// Counts halvings.
    round: u32,
    halved_at: Option<Instant>,
    window: Window,
    open: Option<Open>,
    /// When it closed, or opened for the first time in a row; `None` if it never opened.
    since: Option<Instant>,
    /// Openings in a row.
    openings: u32,
}

/// Whether calls may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stand {
    /// They may.
    Closed,
    /// No call begins before `until`.
    Open {
        /// When one call may probe.
        until: Instant,
        /// The end comes from the target's `Retry-After`.
        is_asked: bool,
    },
    /// A probe is under way, or the next call is one.
    HalfOpen,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    /// End of our own pause.
    own_until: Instant,
    /// End of the wait that the target asked for.
    asked_until: Option<Instant>,
    /// A probe is under way.
    probing: bool,
}

impl Open {
    fn until(&self) -> Instant {
        self.asked_until
            .map_or(self.own_until, |asked| asked.max(self.own_until))
    }
}

/// A call that has begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun {
    phase: u32,
    round: u32,
    probes: bool,
}

/// A change of the breaker by a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The breaker opened: no call begins before `until`.
    Opened {
        /// When one call may probe.
        until: Instant,
        /// It was open before, and a probe failed.
        again: bool,
    },
    /// The target answers again.
    Closed,
}

/// The last calls that have finished, the newest at the back.
#[derive(Debug, Default)]
struct Window {
    calls: VecDeque<Finished>,
    unavailable_len: usize,
}

#[derive(Clone, Copy, Debug)]
enum Finished {
    Available,
    /// The target was unavailable, with the end of the wait that it asked for.
    Unavailable(Option<Instant>),
}

impl Window {
    fn push(&mut self, call: Finished) {
        if self.calls.len() == WINDOW_LEN
            && let Some(Finished::Unavailable(_)) = self.calls.pop_front()
        {
            self.unavailable_len -= 1;
        }
        self.unavailable_len += usize::from(matches!(call, Finished::Unavailable(_)));
        self.calls.push_back(call);
    }

    fn speaks_for_opening(&self) -> bool {
        self.unavailable_len >= UNAVAILABLE_MIN && self.unavailable_len * 2 >= self.calls.len()
    }

    fn asked_until(&self) -> Option<Instant> {
        let asked = self.calls.iter().filter_map(|call| match call {
            Finished::Available => None,
            Finished::Unavailable(asked) => *asked,
        });
        asked.max()
    }

    fn clear(&mut self) {
        self.calls.clear();
        self.unavailable_len = 0;
    }
}

impl Breaker {
    /// A closed breaker with at least one slot.
    pub(crate) fn new(slots_max: usize) -> Self {
        let slots_max = slots_max.max(1);
        Self {
            slots: slots_max,
            slots_max,
            credit: 0,
            calls: 0,
            phase: 0,
            round: 0,
            halved_at: None,
            window: Window::default(),
            open: None,
            since: None,
            openings: 0,
        }
    }

    /// Changes the largest number of slots, at least one. Calls under way go on.
    pub(crate) fn set_slots_max(&mut self, slots_max: usize) {
        let slots_max = slots_max.max(1);
        let had_all = self.slots == self.slots_max && self.open.is_none();
        self.slots_max = slots_max;
        self.slots = match had_all {
            true => slots_max,
            false => self.slots.min(slots_max),
        };
    }

    /// Cuts the two waits of an open breaker to their latest ends under new settings.
    pub(crate) fn cut(&mut self, own_latest: Instant, asked_latest: Instant) {
        if let Some(open) = &mut self.open {
            open.own_until = open.own_until.min(own_latest);
            open.asked_until = open.asked_until.map(|asked| asked.min(asked_latest));
        }
    }

    /// Returns whether it is open; a probe may be due.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Returns whether a success changes nothing: `slots` is at `slots_max`, and the evidence is complete and good.
    pub(crate) fn is_calm(&self) -> bool {
        self.open.is_none()
            && self.slots == self.slots_max
            && self.window.calls.len() == WINDOW_LEN
            && self.window.unavailable_len == 0
    }

    /// Returns how many of the ready calls may begin. `now` is called only while the breaker is open, because reading
    /// the clock costs time.
    pub(crate) fn admits(&self, ready_len: usize, now: impl FnOnce() -> Instant) -> usize {
        match &self.open {
            None => ready_len.min(self.slots.saturating_sub(self.calls)),
            Some(open) if open.probing || now() < open.until() => 0,
            Some(_) => ready_len.min(1),
        }
    }

    /// Returns when a probe may begin, if the breaker is open and none is under way.
    pub(crate) fn opens_at(&self) -> Option<Instant> {
        let open = self.open.filter(|open| !open.probing);
        open.map(|open| open.until())
    }

    /// Returns until when no call begins; a past instant means that a probe is under way. `None` if a call may begin
    /// now, possibly the probe.
    pub(crate) fn open_until(&self, now: Instant) -> Option<Instant> {
        let open = self.open?;
        (open.probing || now < open.until()).then(|| open.until())
    }

    /// Returns the state of the breaker, and since when; `None` if it never opened.
    pub(crate) fn stand(&self, now: Instant) -> (Stand, Option<Instant>) {
        let stand = match &self.open {
            None => Stand::Closed,
            Some(open) if open.probing || now >= open.until() => Stand::HalfOpen,
            Some(open) => Stand::Open {
                until: open.until(),
                is_asked: open.asked_until.is_some_and(|asked| asked > open.own_until),
            },
        };
        (stand, self.since)
    }

    /// Notes that a call begins.
    pub(crate) fn begin(&mut self) -> Begun {
        self.calls += 1;
        if let Some(open) = &mut self.open {
            open.probing = true;
        }
        Begun {
            phase: self.phase,
            round: self.round,
            probes: self.open.is_some(),
        }
    }

    /// Notes the end of a call. After a probe without a verdict another one may begin.
    pub(crate) fn end(&mut self, begun: Begun) {
        if begun.phase != self.phase {
            return;
        }
        debug_assert!(self.calls > 0, "a call ends once");
        self.calls = self.calls.saturating_sub(1);
        if begun.probes
            && let Some(open) = &mut self.open
        {
            open.probing = false;
        }
    }

    /// Takes the verdict of a call, before its [`Breaker::end`]. `at_once` opens the breaker without further evidence.
    /// `pause` returns our own pause after a number of openings in a row.
    pub(crate) fn judge(
        &mut self,
        begun: Begun,
        verdict: Verdict,
        at_once: bool,
        now: Instant,
        pause: impl FnOnce(u32) -> Duration,
    ) -> Option<Change> {
        let is_evidence = begun.phase == self.phase;
        let verdict = match verdict {
            // A probe that is not answered has shown that the target is still down.
            Verdict::Silent if self.open.is_some() => Verdict::Unavailable {
                overloaded: false,
                asked: None,
            },
            verdict => verdict,
        };
        match verdict {
            Verdict::Answers if is_evidence => {
                let closes = self.open.take().is_some();
                if closes {
                    self.begin_phase();
                    self.since = Some(now);
                    self.openings = 0;
                }
                self.window.push(Finished::Available);
                self.grow();
                closes.then_some(Change::Closed)
            }
            Verdict::Silent if is_evidence => {
                self.window.push(Finished::Available);
                None
            }
            Verdict::Unavailable { overloaded, asked } => {
                let asked_until = asked.map(|asked| now + asked);
                if !is_evidence {
                    if let Some(open) = &mut self.open {
                        open.asked_until = open.asked_until.max(asked_until);
                    }
                    return None;
                }
                self.window.push(Finished::Unavailable(asked_until));
                let again = self.open.is_some();
                if again || at_once || self.window.speaks_for_opening() {
                    let until = self.open(now, pause);
                    return Some(Change::Opened { until, again });
                }
                if overloaded {
                    self.halve(begun, now);
                }
                None
            }
            Verdict::Answers | Verdict::Silent | Verdict::Unknown => None,
        }
    }

    fn open(&mut self, now: Instant, pause: impl FnOnce(u32) -> Duration) -> Instant {
        self.openings = self.openings.saturating_add(1);
        if self.open.is_none() {
            self.since = Some(now);
        }
        let open = Open {
            own_until: now + pause(self.openings),
            asked_until: self.window.asked_until(),
            probing: false,
        };
        self.begin_phase();
        self.open = Some(open);
        open.until()
    }

    fn begin_phase(&mut self) {
        self.phase = self.phase.wrapping_add(1);
        self.window.clear();
        self.calls = 0;
        self.slots = 1;
        self.credit = 0;
    }

    fn grow(&mut self) {
        if self.slots == self.slots_max {
            return;
        }
        self.credit += match self.window.unavailable_len >= UNAVAILABLE_MIN {
            true => 1,
            false => self.slots,
        };
        if self.credit >= self.slots {
            self.credit = 0;
            self.slots += 1;
        }
    }

    fn halve(&mut self, begun: Begun, now: Instant) {
        let lately = |at: Instant| now.saturating_duration_since(at) < HALVING;
        if begun.round == self.round && !self.halved_at.is_some_and(lately) {
            self.slots = (self.slots / 2).max(1);
            self.credit = 0;
            self.round = self.round.wrapping_add(1);
            self.halved_at = Some(now);
        }
    }
}
