//! What the log says of itself: whether it takes appends, and if not, why.
//!
//! The writer says what it meets. What it cannot say is that the disk does not answer, because then it waits in there:
//! it leaves a note before each step, and a thread of its own looks whether the note has become old.

use std::{
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;

use crate::storage::Health;

use crate::storage::local::lock;

/// How long the writer may be in one step (a frame written and synced, a MiB of a new file) before the disk counts as
/// one that does not answer. Disks that are merely slow take seconds.
pub(in crate::storage) const STALL: Duration = Duration::from_secs(10);
/// How often the note is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The condition of a log.
#[derive(Debug)]
pub(in crate::storage) struct Condition {
    signs: Mutex<Signs>,
    wake: Condvar,
    health: watch::Sender<Health>,
    /// As in the signs, for callers that come often.
    stalled: AtomicBool,
    low: AtomicBool,
}

#[derive(Debug, Default)]
struct Signs {
    stopped: Option<Arc<str>>,
    full: bool,
    /// There is less space than is to stay free.
    low: bool,
    /// There was no space for another file.
    no_file: bool,
    stalled: bool,
    /// When the writer's step began.
    since: Option<Instant>,
    ended: bool,
}

impl Condition {
    pub(in crate::storage) fn new() -> Self {
        Self {
            signs: Mutex::default(),
            wake: Condvar::new(),
            health: watch::Sender::new(Health::Running),
            stalled: AtomicBool::new(false),
            low: AtomicBool::new(false),
        }
    }

    pub(in crate::storage) fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// Returns whether the disk does not answer.
    pub(in crate::storage) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    /// Nothing more will be stored; the first reason stays.
    pub(in crate::storage) fn stopped(&self, reason: &Arc<str>) {
        self.change(|signs| {
            signs.stopped.get_or_insert_with(|| reason.clone());
        });
    }

    /// Notes whether the disk is full.
    pub(in crate::storage) fn disk_full(&self, full: bool) {
        self.change(|signs| signs.full = full);
    }

    /// Notes whether there was space for another file; without, what is left is kept for ends and copies.
    pub(in crate::storage) fn no_file(&self, no_file: bool) {
        self.change(|signs| signs.no_file = no_file);
    }

    /// Notes how many bytes are free; what comes from outside is refused below `min`, until there is an eighth more.
    pub(in crate::storage) fn free_bytes(&self, free: u64, min: u64) {
        let was_low = lock::mutex(&self.signs).low;
        let enough = match was_low {
            true => min.saturating_add(min / 8),
            false => min,
        };
        let low = free < enough;
        if low == was_low {
            return;
        }
        if low {
            tracing::error!(
                free,
                min,
                "the disk is almost full; records from outside are refused"
            );
        } else {
            tracing::info!(free, min, "the disk has space again; records are taken");
        }
        self.change(|signs| signs.low = low);
    }

    /// Returns whether what comes from outside is refused.
    pub(in crate::storage) fn is_low(&self) -> bool {
        self.low.load(Ordering::Relaxed)
    }

    /// The writer begins a step with the disk.
    pub(in crate::storage) fn step(&self) {
        self.answered(Some(Instant::now()));
    }

    /// The writer is through with the disk for now.
    pub(in crate::storage) fn rest(&self) {
        self.answered(None);
    }

    fn answered(&self, since: Option<Instant>) {
        let stalled = {
            let mut signs = lock::mutex(&self.signs);
            signs.since = since;
            signs.stalled
        };
        if stalled {
            tracing::info!("the disk answers again");
            self.change(|signs| signs.stalled = false);
        }
    }

    /// Looks whether the writer's step takes too long.
    pub(in crate::storage) fn look(&self, now: Instant) {
        let mut news = false;
        self.change(|signs| {
            let late = signs
                .since
                .is_some_and(|since| now.saturating_duration_since(since) >= STALL);
            news = late && !signs.stalled;
            signs.stalled |= late;
        });
        if news {
            tracing::error!(
                stall_seconds = STALL.as_secs(),
                "the disk does not answer; what is to be stored waits for it"
            );
        }
    }

    /// Looks again and again, until [`Condition::end`].
    pub(in crate::storage) fn watch(&self) {
        let mut signs = lock::mutex(&self.signs);
        while !signs.ended {
            let waited = self.wake.wait_timeout(signs, LOOK);
            drop(waited.unwrap_or_else(PoisonError::into_inner).0);
            self.look(Instant::now());
            signs = lock::mutex(&self.signs);
        }
    }

    /// Lets [`Condition::watch`] return.
    pub(in crate::storage) fn end(&self) {
        lock::mutex(&self.signs).ended = true;
        self.wake.notify_all();
    }

    fn change(&self, change: impl FnOnce(&mut Signs)) {
        let mut signs = lock::mutex(&self.signs);
        change(&mut signs);
        self.stalled.store(signs.stalled, Ordering::Relaxed);
        let low = signs.low || signs.no_file;
        self.low.store(low, Ordering::Relaxed);
        // Under the lock, so that two changes are not told in the wrong order.
        self.health.send_if_modified(|health| {
            let now = signs.health();
            let news = *health != now;
            *health = now;
            news
        });
    }
}

impl Signs {
    fn health(&self) -> Health {
        match self {
            Self {
                stopped: Some(reason),
                ..
            } => Health::Stopped(reason.clone()),
            Self { stalled: true, .. } => Health::DiskStalled,
            Self { full: true, .. } => Health::DiskFull,
            Self { low: true, .. } | Self { no_file: true, .. } => Health::SpaceLow,
            Self { .. } => Health::Running,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(condition: &Condition, expected: &Health) {
        assert_eq!(*condition.health().borrow(), *expected);
    }

    #[test]
    fn only_a_step_that_takes_too_long_is_a_stall() {
        let condition = Condition::new();
        let later = || Instant::now() + STALL;
        condition.look(later());
        check(&condition, &Health::Running);
        condition.step();
        condition.look(Instant::now());
        check(&condition, &Health::Running);
        condition.look(later());
        check(&condition, &Health::DiskStalled);
        condition.step();
        check(&condition, &Health::Running);
        condition.look(later());
        check(&condition, &Health::DiskStalled);
        condition.rest();
        condition.look(later());
        check(&condition, &Health::Running);
    }

    #[test]
    fn what_was_low_is_enough_when_there_is_an_eighth_more() {
        let condition = Condition::new();
        for (free, low) in [
            (800, false),
            (799, true),
            (899, true),
            (900, false),
            (850, false),
        ] {
            condition.free_bytes(free, 800);
            let expected = match low {
                true => Health::SpaceLow,
                false => Health::Running,
            };
            check(&condition, &expected);
            assert_eq!(condition.is_low(), low, "{free}");
        }
        condition.free_bytes(0, 0);
        check(&condition, &Health::Running);
    }

    #[test]
    fn the_worst_is_told_and_what_is_behind_it_comes_back() {
        let condition = Condition::new();
        condition.disk_full(true);
        condition.step();
        condition.look(Instant::now() + STALL);
        check(&condition, &Health::DiskStalled);
        condition.rest();
        check(&condition, &Health::DiskFull);
        for reason in ["first", "second"] {
            condition.stopped(&reason.into());
            check(&condition, &Health::Stopped("first".into()));
        }
        condition.disk_full(false);
        check(&condition, &Health::Stopped("first".into()));
    }
}
