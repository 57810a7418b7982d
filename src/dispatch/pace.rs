//! Rates: calls begin evenly, at most a number per second, in slots by the monotonic clock. Pure.
//!
//! A target may have a rate for all its calls, and a retry for its own.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// Resolution of timers. A slot may be taken this much early, because late wake-ups would slow a fast rate down. Other
/// unused time is lost.
const GRAIN: Duration = Duration::from_millis(1);

/// Successive slots of one rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slots {
    interval: Duration,
    /// Start of the next slot.
    next: Instant,
}

impl Slots {
    /// One slot in each interval; the first begins now.
    pub(crate) fn new(interval: Duration, now: Instant) -> Self {
        Self {
            interval,
            next: now,
        }
    }

    /// Takes the next slot, or says when it can be taken.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let opens_at = self.opens_at();
        if now < opens_at {
            return Err(opens_at);
        }
        self.next = self.next.max(now) + self.interval;
        Ok(())
    }

    /// Gives the slot of a call back that did not begin. `before` are the slots before it was taken. If a later slot
    /// was taken since, the slot is lost, because two calls would begin too close to each other.
    pub(crate) fn give_back(&mut self, before: Self, taken: Instant) {
        if self.next == taken && self.interval == before.interval {
            self.next = before.next;
        }
    }

    /// Returns the end of the last taken slot, which identifies it.
    pub(crate) fn last_taken(&self) -> Instant {
        self.next
    }

    /// Returns when the next slot can be taken.
    pub(crate) fn opens_at(&self) -> Instant {
        self.next - GRAIN
    }

    /// Returns when the slot can be taken that is `behind` slots after the next one, if all before it are taken in
    /// time.
    pub(crate) fn opens_at_behind(&self, behind: usize) -> Option<Instant> {
        let wait = self.interval.checked_mul(u32::try_from(behind).ok()?)?;
        self.opens_at().checked_add(wait)
    }

    /// Changes the interval; the next slot is at most one new interval away.
    pub(crate) fn set_interval(&mut self, interval: Duration, now: Instant) {
        self.next = self.next.min(now + interval);
        self.interval = interval;
    }
}

/// The rate of all calls of a retry.
#[derive(Debug)]
pub(crate) struct Pace {
    slots: Mutex<Slots>,
    waiting_len: AtomicUsize,
}

/// A call that only waits for the rate; counted while it lives.
#[derive(Debug)]
pub(crate) struct Waiting(Arc<Pace>);

impl Pace {
    pub(crate) fn new(slots: Slots) -> Arc<Self> {
        Arc::new(Self {
            slots: Mutex::new(slots),
            waiting_len: AtomicUsize::new(0),
        })
    }

    /// Takes the slot of a call that is about to begin, or says when to try again.
    pub(crate) fn begin(
        self: &Arc<Self>,
        now: Instant,
        waiting: &mut Option<Waiting>,
    ) -> Result<(), Instant> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = slots.take(now);
        match taken {
            Ok(()) => *waiting = None,
            Err(_) if waiting.is_some() => {}
            Err(_) => {
                self.waiting_len.fetch_add(1, Ordering::Relaxed);
                *waiting = Some(Waiting(self.clone()));
            }
        }
        taken
    }

    /// Returns whether calls wait for their slot: more would only wait with them.
    pub(crate) fn is_behind(&self) -> bool {
        self.waiting_len.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting_len.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes slots whenever one is there, as timers that are up to `late` late would; returns how long `len` of them
    /// took, and the most that were taken within one interval.
    fn run(per_second: u32, len: u32, late: Duration) -> (Duration, usize) {
        let start = Instant::now();
        let interval = Duration::from_secs(1) / per_second;
        let mut slots = Slots::new(interval, start);
        let (mut now, mut taken) = (start, Vec::new());
        while taken.len() < len as usize {
            match slots.take(now) {
                Ok(()) => taken.push(now),
                Err(at) => now = at + late,
            }
        }
        let same = |(first, at): (usize, &Instant)| {
            let behind = taken[first..].iter();
            behind.take_while(|other| **other < *at + interval).count()
        };
        let burst = taken.iter().enumerate().map(same).max();
        (now - start, burst.unwrap_or(0))
    }

    #[test]
    fn slots_keep_their_rate_without_bursts() {
        for late in [Duration::ZERO, GRAIN / 2, GRAIN] {
            for per_second in [1, 7, 100, 1_000, 10_000, 100_000] {
                let len = per_second * 3;
                let (took, burst) = run(per_second, len, late);
                let shortest = Duration::from_secs(3) * (len - 1) / len - GRAIN * 2;
                assert!(took >= shortest, "{per_second}/s took {took:?}");
                assert!(
                    took <= Duration::from_secs(4),
                    "{per_second}/s took {took:?}"
                );
                // More than one is there at once only where timers cannot tell slots apart.
                let grain_len = usize::try_from(per_second / 1_000).unwrap();
                assert!(
                    burst <= 2 + 2 * grain_len,
                    "{burst} at once of {per_second}/s"
                );
            }
        }
    }

    #[test]
    fn time_that_was_not_used_is_lost() {
        let start = Instant::now();
        let mut slots = Slots::new(Duration::from_millis(100), start);
        assert_eq!(slots.take(start), Ok(()));
        let later = start + Duration::from_secs(60);
        assert_eq!(slots.take(later), Ok(()));
        let opens_at = later + Duration::from_millis(99);
        assert_eq!(slots.take(later), Err(opens_at));
        assert_eq!(slots.take(opens_at), Ok(()));
    }

    #[test]
    fn a_new_interval_counts_from_the_next_slot_on() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut slots = Slots::new(Duration::from_secs(60), start);
        assert_eq!(slots.take(start), Ok(()));
        slots.set_interval(Duration::from_secs(2), at(1));
        assert_eq!(slots.opens_at(), at(3) - GRAIN);
        assert_eq!(slots.take(at(3)), Ok(()));
        slots.set_interval(Duration::from_secs(60), at(4));
        assert_eq!(slots.opens_at(), at(5) - GRAIN, "it was promised");
        assert_eq!(slots.take(at(5)), Ok(()));
        assert_eq!(slots.opens_at(), at(65) - GRAIN);
    }

    #[test]
    fn a_slot_that_is_given_back_is_there_again_unless_another_was_taken_behind_it() {
        let start = Instant::now();
        let later = start + Duration::from_secs(1);
        let mut slots = Slots::new(Duration::from_secs(1), start);
        let before = slots;
        assert_eq!(slots.take(start), Ok(()));
        let taken = slots.last_taken();
        assert_eq!(slots.take(start), Err(later - GRAIN));
        slots.give_back(before, taken);
        assert_eq!(slots.take(start), Ok(()));
        assert_eq!(slots.take(later), Ok(()));
        slots.give_back(before, taken);
        assert!(slots.take(later).is_err());
    }

    #[test]
    fn calls_that_wait_for_their_slot_are_counted_until_they_begin_or_are_gone() {
        let start = Instant::now();
        let pace = Pace::new(Slots::new(Duration::from_secs(1), start));
        let (mut first, mut second, mut third) = (None, None, None);
        assert!(pace.begin(start, &mut first).is_ok());
        assert!(first.is_none() && !pace.is_behind());
        for _ in 0..2 {
            assert!(pace.begin(start, &mut second).is_err());
        }
        assert!(pace.begin(start, &mut third).is_err());
        let next = start + Duration::from_secs(1);
        assert!(pace.begin(next, &mut second).is_ok());
        assert!(second.is_none() && pace.is_behind());
        drop(third);
        assert!(!pace.is_behind());
    }
}
