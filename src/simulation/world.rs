//! The world, which outlives a crash of the gateway: disk, targets, time, random numbers, and the witness.

use std::{
    sync::{Arc, Mutex, MutexGuard, TryLockError},
    time::Duration,
};

use tokio::time::Instant;

use super::{target::Manner, witness::Witness};
use crate::{
    runtime::clock::{Clock, Timestamp},
    storage::local::proofs::{Dice, FaultyDisk},
};

/// How many targets there are.
pub(super) const TARGETS_LEN: usize = 4;

/// Handle to the world. Clones share it.
#[derive(Clone)]
pub(super) struct World {
    pub(super) disk: FaultyDisk,
    pub(super) clock: Clock,
    inner: Arc<Mutex<Inner>>,
}

pub(super) struct Inner {
    pub(super) dice: Dice,
    pub(super) manners: [Manner; TARGETS_LEN],
    pub(super) witness: Witness,
    /// Partitions that the source stream should have.
    pub(super) partitions: u16,
    /// When this life began, on both clocks.
    began: Option<(Instant, Timestamp)>,
    told: Option<Vec<String>>,
}

impl World {
    pub(super) fn new(seed: u64, tells: bool) -> Self {
        let inner = Inner {
            dice: Dice(seed),
            manners: [Manner::Good; TARGETS_LEN],
            witness: Witness::default(),
            partitions: 1,
            began: None,
            told: tells.then(Vec::new),
        };
        Self {
            disk: FaultyDisk::new(),
            clock: Clock::manual(Timestamp(1_767_323_045_000_000)),
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        match self.inner.try_lock() {
            Ok(inner) => inner,
            // The panic under the lock is reported already.
            Err(TryLockError::Poisoned(inner)) => inner.into_inner(),
            Err(TryLockError::WouldBlock) => panic!("one thread, and nobody holds it for long"),
        }
    }

    /// Begins a life: the time continues.
    pub(super) fn begin_life(&self) {
        self.lock().began = Some((Instant::now(), self.clock.now()));
    }

    /// Ends a life: the time stands until the next one.
    pub(super) fn end_life(&self) {
        self.tick();
        let mut inner = self.lock();
        inner.began = None;
        inner.witness.end_life();
    }

    /// Brings the wall clock to where the time is.
    pub(super) fn tick(&self) {
        if let Some((began, then)) = self.lock().began {
            let passed = u64::try_from(began.elapsed().as_micros()).unwrap();
            self.clock.set(then.plus_micros(passed));
        }
    }

    /// Sets the wall clock, and only that.
    pub(super) fn jump(&self, micros: i64) {
        if let Some((_, then)) = &mut self.lock().began {
            then.0 = then.0.saturating_add_signed(micros);
        }
        self.tick();
    }

    pub(super) fn below(&self, bound: usize) -> usize {
        self.lock().dice.below(bound)
    }

    /// Returns `true` in the given percentage of cases.
    pub(super) fn percent(&self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(super) fn micros_below(&self, bound: usize) -> Duration {
        Duration::from_micros(self.below(bound) as u64)
    }

    /// Records a step, for a run with `SYNCGATE_TEST_SEED`.
    pub(super) fn tell(&self, what: impl FnOnce() -> String) {
        let mut inner = self.lock();
        let at = inner.began.map(|(began, _)| began.elapsed());
        if let Some(told) = &mut inner.told {
            let at = at.unwrap_or_default().as_micros();
            told.push(format!("{at:>12} {}", what()));
        }
    }

    pub(super) fn told(&self) -> Vec<String> {
        self.lock().told.take().unwrap_or_default()
    }
}
