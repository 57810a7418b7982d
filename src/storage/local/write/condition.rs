//! The health of a log: whether it takes appends, and the reason if not.
//!
//! The writer reports errors and free space. It cannot report a disk that hangs, because it then waits in a system call.
//! So it notes the time before each step, and a watcher thread reports a step that takes too long.

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

/// How long one step of the writer may take before the disk counts as hanging. A step writes and syncs a frame, or writes
/// 1 MiB of a new file. Slow disks take seconds, so the bound is well above that.
pub(in crate::storage) const STALL: Duration = Duration::from_secs(10);
/// How often the watcher checks the writer's step.
const LOOK: Duration = Duration::from_secs(1);

/// The condition of a log.
#[derive(Debug)]
pub(in crate::storage) struct Condition {
    signs: Mutex<Signs>,
    wake: Condvar,
    health: watch::Sender<Health>,
    /// Copies of two signs, for calls that must not take the lock.
    stalled: AtomicBool,
    low: AtomicBool,
}

#[derive(Debug, Default)]
struct Signs {
    stopped: Option<Arc<str>>,
    full: bool,
    /// Free space is below the bound.
    low: bool,
    /// The disk had no space for another journal file.
    no_file: bool,
    stalled: bool,
    /// Start of the writer's present step.
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

    /// Returns whether the disk hangs.
    pub(in crate::storage) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    /// Notes that the log has stopped. The first reason is kept.
    pub(in crate::storage) fn stopped(&self, reason: &Arc<str>) {
        self.change(|signs| {
            signs.stopped.get_or_insert_with(|| reason.clone());
        });
    }

    /// Notes whether the disk is full.
    pub(in crate::storage) fn disk_full(&self, full: bool) {
        self.change(|signs| signs.full = full);
    }

    /// Notes whether there was space for another file. If not, the remaining space is for settlements and copies.
    pub(in crate::storage) fn no_file(&self, no_file: bool) {
        self.change(|signs| signs.no_file = no_file);
    }

    /// Notes the free bytes. Below `min` records from outside are refused, until 1/8 more than `min` is free.
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
                "free disk space is below log.disk_free_bytes_min; records from outside are refused"
            );
        } else {
            tracing::info!(
                free,
                min,
                "free disk space is above log.disk_free_bytes_min again; records from outside are accepted"
            );
        }
        self.change(|signs| signs.low = low);
    }

    /// Returns whether records from outside are refused.
    pub(in crate::storage) fn is_low(&self) -> bool {
        self.low.load(Ordering::Relaxed)
    }

    /// The writer begins a step on the disk.
    pub(in crate::storage) fn step(&self) {
        self.answered(Some(Instant::now()));
    }

    /// The writer has ended its work on the disk.
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

    /// Checks whether the writer's step takes too long.
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
                "the disk does not answer; commits wait"
            );
        }
    }

    /// Checks once a second, until [`Condition::end`].
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
