//! Background work on a thread of its own: makes the next file ahead, indexes sealed files, frees space.

use std::{
    collections::VecDeque,
    io,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{runtime::clock::Clock, storage::Space};

use super::{reclaim::Reclaimer, spare::Spares};
use crate::storage::local::{disk::Disk, lock, read::lookup, shared::EngineState};

/// Pause after each MiB of zeros, so that commits keep the disk.
pub(in crate::storage) const STEP_WAIT: Duration = Duration::from_millis(2);
/// Time between two tries to make a file on a full disk.
pub(in crate::storage) const FAILURE_WAIT: Duration = Duration::from_secs(10);

/// How often expired entries are checked, which free space without a trim.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// How often free space is checked.
const SPACE_EVERY: Duration = Duration::from_secs(1);

/// Number of files whose blocks stay in memory without an index. Older files are searched.
const UNINDEXED_LEN_MAX: usize = 8;

/// Requested work.
#[derive(Debug)]
pub(in crate::storage) struct Housekeeper {
    jobs: Mutex<Jobs>,
    wake: Condvar,
    spares: Arc<Spares>,
    shared: Arc<EngineState>,
    clock: Clock,
    segment_bytes: u64,
    space: FreeSpace,
    step_wait: Duration,
}

/// What is to stay free, and where.
#[derive(Debug)]
pub(in crate::storage) struct FreeSpace {
    pub(in crate::storage) disk: Arc<dyn Disk>,
    pub(in crate::storage) dir: PathBuf,
    /// Bytes; 0 = nothing.
    pub(in crate::storage) min: u64,
}

#[derive(Debug, Default)]
struct Jobs {
    spare: Option<u64>,
    spare_failed: Option<Instant>,
    reserve: bool,
    reserve_failed: Option<Instant>,
    /// Numbers of files that take no more frames and are not indexed.
    sealed: VecDeque<u64>,
    /// There may be space to give back.
    tidy: bool,
    /// Something is being done.
    busy: bool,
    stop: bool,
}

/// What its thread knows from one thing to the next.
pub(in crate::storage) struct Memory {
    reclaimer: Reclaimer,
    /// Files that are not in the index, but in memory.
    unindexed: VecDeque<u64>,
}

impl Jobs {
    fn reserve_is_due(&self) -> bool {
        let is_over = |at: Instant| at.elapsed() > FAILURE_WAIT;
        self.reserve && self.reserve_failed.is_none_or(is_over)
    }

    /// Returns whether there is something to do now.
    fn is_waited_for(&self) -> bool {
        let ready = self.spare.is_some() || self.reserve_is_due();
        ready || !self.sealed.is_empty() || self.tidy
    }
}

impl Housekeeper {
    pub(in crate::storage) fn new(
        spares: Arc<Spares>,
        shared: Arc<EngineState>,
        clock: Clock,
        segment_bytes: u64,
        space: FreeSpace,
        step_wait: Duration,
    ) -> Self {
        Self {
            jobs: Mutex::default(),
            wake: Condvar::new(),
            spares,
            shared,
            clock,
            segment_bytes,
            space,
            step_wait,
        }
    }

    /// Asks for a file to be made ready, if there is none of that length.
    pub(in crate::storage) fn want_spare(&self, len: u64) {
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

    /// Asks for the reserve to be made, if there is none.
    pub(in crate::storage) fn want_reserve(&self) {
        lock::mutex(&self.jobs).reserve = !self.spares.has_reserve();
        self.wake.notify_all();
    }

    /// Checks the free space.
    pub(in crate::storage) fn look_at_space(&self) {
        let FreeSpace { disk, dir, min } = &self.space;
        if *min == 0 {
            return;
        }
        match disk.free_bytes(dir) {
            Ok(free) => self.shared.condition.free_bytes(free, *min),
            // The writer finds out when it is full.
            Err(error) => tracing::debug!(%error, "cannot see how much space is free"),
        }
    }

    /// Returns what the journal takes of the disk.
    pub(in crate::storage) fn space(&self) -> io::Result<Space> {
        let FreeSpace { disk, dir, min } = &self.space;
        let files = &self.shared.files;
        let numbers = files.all();
        let mut files_bytes = 0;
        for (number, _life) in &numbers {
            match disk.file_bytes(&files.path(*number)) {
                Ok(bytes) => files_bytes += bytes,
                // It was given back just now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Space {
            free_bytes: disk.free_bytes(dir)?,
            free_bytes_min: *min,
            reserve_bytes: match self.spares.has_reserve() {
                true => self.spares.reserve_bytes(),
                false => 0,
            },
            files_len: numbers.len(),
            files_bytes,
        })
    }

    /// Says that a file takes no more frames.
    pub(in crate::storage) fn sealed(&self, number: u64) {
        lock::mutex(&self.jobs).sealed.push_back(number);
        self.wake.notify_all();
    }

    /// Says that records are gone.
    pub(in crate::storage) fn trimmed(&self) {
        lock::mutex(&self.jobs).tidy = true;
        self.wake.notify_all();
    }

    /// Returns whether everything is done that was asked for.
    #[cfg(test)]
    pub(in crate::storage) fn is_idle(&self) -> bool {
        let jobs = lock::mutex(&self.jobs);
        !jobs.busy && !jobs.tidy && !jobs.reserve && jobs.sealed.is_empty() && jobs.spare.is_none()
    }

    /// Lets [`Housekeeper::run`] return soon.
    pub(in crate::storage) fn stop(&self) {
        lock::mutex(&self.jobs).stop = true;
        self.wake.notify_all();
    }

    pub(in crate::storage) fn run(&self) {
        let mut memory = self.begin();
        let (mut looked, mut space_looked) = (Instant::now(), Instant::now());
        while !lock::mutex(&self.jobs).stop {
            // Not only when nothing else is to be done: work may come more often than that.
            if space_looked.elapsed() >= SPACE_EVERY {
                space_looked = Instant::now();
                self.look_at_space();
            }
            if self.work(&mut memory) {
                continue;
            }
            let jobs = lock::mutex(&self.jobs);
            if jobs.stop || jobs.is_waited_for() {
                continue;
            }
            let waited = self.wake.wait_timeout(jobs, SPACE_EVERY);
            let mut jobs = waited.unwrap_or_else(PoisonError::into_inner).0;
            if looked.elapsed() > LOOK_EVERY {
                looked = Instant::now();
                jobs.tidy = true;
            }
        }
    }

    pub(in crate::storage) fn begin(&self) -> Memory {
        let reclaimer = Reclaimer::new(
            self.shared.clone(),
            self.spares.clone(),
            self.clock.clone(),
            self.segment_bytes,
        );
        Memory {
            reclaimer,
            unindexed: VecDeque::new(),
        }
    }

    /// Does one thing that was asked for; returns whether there was any.
    pub(in crate::storage) fn work(&self, memory: &mut Memory) -> bool {
        let mut jobs = lock::mutex(&self.jobs);
        if !jobs.is_waited_for() {
            return false;
        }
        jobs.busy = true;
        // The next file comes first, because the writer may soon need it.
        if let Some(len) = jobs.spare {
            drop(jobs);
            let failed = self.make_spare(len);
            jobs = lock::mutex(&self.jobs);
            jobs.spare = None;
            jobs.spare_failed = failed.then(Instant::now);
        } else if jobs.reserve_is_due() {
            drop(jobs);
            let prepared = self.spares.prepare_reserve(|| self.step());
            if let Err(error) = &prepared {
                tracing::warn!(%error, "cannot make the reserve for a full disk");
            }
            jobs = lock::mutex(&self.jobs);
            jobs.reserve = prepared.is_err();
            jobs.reserve_failed = prepared.is_err().then(Instant::now);
        } else if let Some(number) = jobs.sealed.pop_front() {
            drop(jobs);
            self.index(number, memory);
            jobs = lock::mutex(&self.jobs);
            jobs.tidy = true;
        } else {
            jobs.tidy = false;
            drop(jobs);
            let more = memory.reclaimer.work(&mut || self.step());
            jobs = lock::mutex(&self.jobs);
            jobs.tidy |= more;
        }
        jobs.busy = false;
        true
    }

    fn make_spare(&self, len: u64) -> bool {
        let prepared = self.spares.prepare(len, || self.step());
        if let Err(error) = &prepared {
            // The writer makes one itself when it needs it, and says what then fails.
            tracing::warn!(%error, "cannot make a journal file ready ahead");
        }
        prepared.is_err()
    }

    /// Puts a file's blocks into the index, and then out of memory.
    fn index(&self, number: u64, memory: &mut Memory) {
        let Memory {
            reclaimer,
            unindexed,
        } = memory;
        let EngineState {
            files, index, view, ..
        } = &*self.shared;
        let indexed = lookup::scan(files, number).and_then(|scan| {
            reclaimer.sealed(number, &scan);
            Ok(index.add(number, files.get(number)?.0, &scan))
        });
        let forget = match indexed {
            Ok(true) => Some(number),
            failed => {
                if let Err(error) = failed {
                    tracing::error!(file = %files.path(number).display(), %error, "cannot index a journal file");
                }
                unindexed.push_back(number);
                let full = unindexed.len() > UNINDEXED_LEN_MAX;
                full.then(|| unindexed.pop_front()).flatten()
            }
        };
        if let Some(number) = forget {
            lock::write(view).blocks.remove_up_to(number);
        }
    }

    fn step(&self) -> bool {
        self.look_at_space();
        let jobs = lock::mutex(&self.jobs);
        let waited = self
            .wake
            .wait_timeout_while(jobs, self.step_wait, |jobs| !jobs.stop);
        !waited.unwrap_or_else(PoisonError::into_inner).0.stop
    }
}
