//! What is done beside the writer, on a thread of its own: making the next file ready, indexing sealed ones.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{lock, spare::Spares};

/// Pause after each MiB of zeros: the disk is there for commits.
const STEP_WAIT: Duration = Duration::from_millis(2);
/// A disk that was full is not filled to the brim again and again.
const FAILURE_WAIT: Duration = Duration::from_secs(10);

/// What is to be done.
#[derive(Debug)]
pub(super) struct Housekeeper {
    jobs: Mutex<Jobs>,
    wake: Condvar,
    spares: Arc<Spares>,
}

#[derive(Debug, Default)]
struct Jobs {
    spare: Option<u64>,
    spare_failed: Option<Instant>,
    stop: bool,
}

impl Housekeeper {
    pub(super) fn new(spares: Arc<Spares>) -> Self {
        Self {
            jobs: Mutex::default(),
            wake: Condvar::new(),
            spares,
        }
    }

    /// Asks for a file to be made ready, if there is none of that length.
    pub(super) fn want_spare(&self, len: u64) {
        if self.spares.is_ready(len) {
            return;
        }
        let mut jobs = lock::mutex(&self.jobs);
        let failed = jobs.spare_failed;
        if jobs.spare.is_none() && failed.is_none_or(|at| at.elapsed() > FAILURE_WAIT) {
            jobs.spare = Some(len);
            self.wake.notify_all();
        }
    }

    /// Says that a file takes no more frames.
    pub(super) fn sealed(&self, _number: u64) {}

    /// Lets [`Housekeeper::run`] return soon.
    pub(super) fn stop(&self) {
        lock::mutex(&self.jobs).stop = true;
        self.wake.notify_all();
    }

    pub(super) fn run(&self) {
        let mut jobs = lock::mutex(&self.jobs);
        while !jobs.stop {
            let Some(len) = jobs.spare else {
                jobs = self.wake.wait(jobs).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(jobs);
            let prepared = self.spares.prepare(len, || self.step());
            if let Err(error) = &prepared {
                // The writer makes one itself when it needs it, and says what then fails.
                tracing::warn!(%error, "cannot make a journal file ready ahead");
            }
            jobs = lock::mutex(&self.jobs);
            jobs.spare = None;
            jobs.spare_failed = prepared.is_err().then(Instant::now);
        }
    }

    fn step(&self) -> bool {
        let jobs = lock::mutex(&self.jobs);
        let waited = self
            .wake
            .wait_timeout_while(jobs, STEP_WAIT, |jobs| !jobs.stop);
        !waited.unwrap_or_else(PoisonError::into_inner).0.stop
    }
}
