//! The queue of one target: its waiting jobs in lanes, the jobs that may start, and its workers.
//!
//! One short lock holds all of it, because a worker ends its job and takes the next one in one step. A worker is a slot
//! of the target. It is started for a job, sleeps when there is none, and ends after an idle time. No more workers are
//! woken than jobs may start. Files: `locked` has the rules under the lock, `workers` the calls of workers, `report`
//! the numbers for operators.
//!
//! Jobs in backoff wait outside the lanes, their lanes stay busy. One sleeping worker, the *timekeeper*, wakes when the
//! first of them is due.

mod locked;
mod report;
#[cfg(test)]
mod tests;
mod workers;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
};

use tokio::{sync::Notify, time::Instant};

use super::{
    breaker::{Begun, Breaker},
    budget::Budget,
    lane::{Lanes, Space},
    state::LastFailure,
    waiting::{Calls, WaitsFor},
};
use crate::dispatch::{
    job::{Job, Lane, Wait},
    pace::Slots,
    settings::{Limits, TargetSettings},
    target_id::TargetId,
};
use crate::{
    model::ids::{Offset, PartitionId},
    runtime::clock::Timestamp,
};

/// Called with a lane that has filled its share and its first record that did not fit. Returns whether the records of
/// the lane may be left out from there on.
pub(crate) type LeaveOut<'a> = &'a mut dyn FnMut(Lane, Offset) -> bool;

/// The queue of one target, or of all targets without one of their own.
pub(crate) struct TargetQueue {
    /// The target; `None` for the shared queue.
    pub(crate) origin: Option<TargetId>,
    /// Whether a success changes the breaker. Changed under the lock and read without it, so that the calls of a
    /// healthy target need not take the lock once more.
    answers_matter: AtomicBool,
    /// Shared by all queues.
    budget: Arc<Budget>,
    /// Under a lock of its own, so that failed calls do not contend for the other one.
    last_failure: Mutex<Option<LastFailure>>,
    state: Mutex<State>,
}

impl From<Wait> for WaitsFor {
    fn from(wait: Wait) -> Self {
        match wait {
            Wait::Backoff => Self::Backoff,
            Wait::Asked => Self::RetryAfter,
            Wait::Paced => Self::Rate,
        }
    }
}

/// A job in backoff, outside its lane.
struct Delayed {
    job: Box<Job>,
    wait: Wait,
}

struct State {
    /// Settings of the target.
    settings: Arc<TargetSettings>,
    limits: Limits,
    lanes: Lanes<Box<Job>>,
    /// On the shared queue, how many jobs each target has in lanes.
    sharing: HashMap<TargetId, usize>,
    /// Jobs in backoff, by the time at which they are due.
    delayed: BTreeMap<(Instant, u64), Delayed>,
    delayed_count: u64,
    /// Jobs that only offer their settlement to the log again. They wait for a worker, but not for the breaker or the
    /// rate.
    ends: VecDeque<Box<Job>>,
    /// Waiting, ready or in backoff.
    queued_len: usize,
    queued_bytes: usize,
    /// Bounds the calls that may begin.
    breaker: Breaker,
    /// The rate of the target, if it has one.
    rate: Option<Slots>,
    /// Live workers, each with a connection, at most as many as the target may have calls in flight.
    workers_len: usize,
    workers: Vec<Worker>,
    /// Sleeping workers. The last one to sleep is woken first, so that the idle time of the others runs out.
    idle: Vec<usize>,
    /// Workers that were woken or started and have not asked for a job yet.
    waking: usize,
    timekeeper: Option<usize>,
    /// The queue has given way to that of another target; its sleeping workers end.
    is_gone: bool,
    /// A caller was refused because this queue is full, and waits for room.
    space_wanted: bool,
    /// A caller was refused because all queues together are full. It is woken when this queue is empty, because an
    /// empty queue always takes one job. The budget does not report that.
    empty_wanted: bool,
}

#[derive(Debug, Default)]
struct Worker {
    wake: Arc<Notify>,
    state: WorkerState,
    /// Its call, as the breaker counts it.
    call: Option<Begun>,
    /// The rate slot that its job has taken: the slots before it was taken, and its end.
    rate_slot: Option<(Slots, Instant)>,
    /// The open record of its job.
    open: Option<Open>,
}

/// A record without a settlement.
#[derive(Debug)]
struct Open {
    of: PartitionId,
    offset: Offset,
    /// Its target, on the shared queue.
    origin: Option<TargetId>,
    /// Its calls so far.
    calls: Calls,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum WorkerState {
    #[default]
    Absent,
    Waking,
    Idle,
    /// Busy with a job whose record was stored at this time.
    Busy(Timestamp),
}

/// How a worker returns a job.
#[derive(Debug)]
pub(crate) enum Done {
    /// The record is settled or dropped; its lane goes on.
    Ended(Taken),
    /// The job waits and comes back.
    Later {
        /// The job.
        job: Box<Job>,
        /// End of the wait.
        until: Instant,
        /// Reason of the wait.
        wait: Wait,
    },
}

/// The lane that a job keeps busy until it ends.
#[derive(Debug)]
pub(crate) struct Taken {
    lane: Option<Lane>,
    /// The target of the lane, on the shared queue.
    sharing: Option<TargetId>,
}

/// The next step of a worker.
#[derive(Debug)]
pub(crate) enum Next {
    /// Handle this job.
    Job(Box<Job>),
    /// Sleep until woken, or until then.
    Sleep {
        /// When the first job in backoff is due, if this worker is the timekeeper.
        until: Option<Instant>,
        /// Whether it may keep its connection while it sleeps.
        keep_connection: bool,
    },
    /// End, because the target has more workers than slots.
    End,
}

/// Whether a worker ends after its idle time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retirement {
    /// It ends.
    Over,
    /// It is needed.
    Needed,
    /// It stays as the last worker to keep the open breaker of an empty queue.
    Rests,
}

/// The bound that refused a job.
enum Full {
    /// The bound of the queue, or of all queues together.
    TargetQueue(Box<Job>),
    /// The share of the job's lane.
    Lane(Lane, Box<Job>),
}

/// A worker to wake or to start.
pub(crate) enum Wake {
    /// A sleeping worker.
    Sleeping(Arc<Notify>),
    /// A new worker for this slot.
    New(usize),
}

impl TargetQueue {
    /// An empty queue.
    pub(crate) fn new(
        origin: Option<TargetId>,
        settings: Arc<TargetSettings>,
        limits: Limits,
        budget: Arc<Budget>,
    ) -> Self {
        let state = State {
            breaker: Breaker::new(settings.in_flight_max),
            rate: new_rate(None, &settings),
            workers_len: 0,
            settings,
            limits,
            lanes: Lanes::default(),
            sharing: HashMap::new(),
            delayed: BTreeMap::new(),
            delayed_count: 0,
            ends: VecDeque::new(),
            queued_len: 0,
            queued_bytes: 0,
            workers: Vec::new(),
            idle: Vec::new(),
            waking: 0,
            timekeeper: None,
            is_gone: false,
            space_wanted: false,
            empty_wanted: false,
        };
        Self {
            origin,
            answers_matter: AtomicBool::new(true),
            budget,
            last_failure: Mutex::default(),
            state: Mutex::new(state),
        }
    }

    /// Replaces the settings. Waiting jobs stay, even if they are more than the new bounds, but their waits are cut to
    /// the new maxima. More workers may be needed then: see [`TargetQueue::wake`].
    pub(crate) fn adjust(&self, settings: Arc<TargetSettings>, limits: Limits) {
        let mut state = self.lock();
        state.breaker.set_slots_max(settings.in_flight_max);
        state.rate = new_rate(state.rate.take(), &settings);
        state.settings = settings;
        state.limits = limits;
        state.cut_waits();
        self.tell_space(&mut state);
        // Wake every worker: each asks again how long it may sleep and whether it is one too many. One becomes the
        // timekeeper.
        state.timekeeper = None;
        for slot in &state.idle {
            state.workers[*slot].wake.notify_one();
        }
    }

    /// Moves jobs from the front of `jobs` to the end of the queue; returns a worker to wake for them. If not all fit,
    /// [`Budget::freed`] fires once there is room. An empty queue always takes one job.
    ///
    /// With `leave_out` a lane is bounded by its share. Jobs past the share are dropped if their lane may be left out.
    /// Otherwise the first such job stays at the front of `jobs`, as if the queue were full.
    pub(crate) fn push(
        &self,
        jobs: &mut VecDeque<Box<Job>>,
        mut leave_out: Option<LeaveOut<'_>>,
    ) -> Option<Wake> {
        let mut left_out = Vec::new();
        let mut state = self.lock();
        while let Some(job) = jobs.pop_front() {
            if job.lane.is_some_and(|lane| left_out.contains(&lane)) {
                continue;
            }
            let full = match self.add(&mut state, job, leave_out.is_some()) {
                Ok(()) => continue,
                Err(full) => full,
            };
            if let (Full::Lane(lane, job), Some(leave_out)) = (&full, &mut leave_out)
                && leave_out(*lane, job.offset)
            {
                left_out.push(*lane);
                continue;
            }
            let (Full::TargetQueue(job) | Full::Lane(_, job)) = full;
            jobs.push_front(job);
            break;
        }
        state.wake()
    }

    fn add(&self, state: &mut State, job: Box<Job>, shares: bool) -> Result<(), Full> {
        let bytes = job.record.bytes_len();
        let fits = state.queued_len < state.limits.queue_len_max
            && state.queued_bytes + bytes <= state.limits.queue_bytes_max;
        if state.queued_len == 0 {
            self.budget.enter_anyhow(bytes);
        } else {
            if fits
                && shares
                && let Some(lane) = job.lane
                && state.lane_is_full(lane, bytes)
            {
                return Err(Full::Lane(lane, job));
            }
            if !fits {
                state.space_wanted = true;
                return Err(Full::TargetQueue(job));
            }
            if !self.budget.enter(bytes) {
                // This queue may be empty before the budget has room.
                state.empty_wanted = true;
                return Err(Full::TargetQueue(job));
            }
        }
        state.queued_len += 1;
        state.queued_bytes += bytes;
        if let Some(target) = self.taken(&job).sharing {
            *state.sharing.entry(target).or_default() += 1;
        }
        state.lanes.push(job.lane, job, bytes);
        Ok(())
    }

    /// Returns the lane that a job keeps busy.
    pub(crate) fn taken(&self, job: &Job) -> Taken {
        let sharing = match (&self.origin, job.lane) {
            (None, Some(_)) => job.origin.clone(),
            _ => None,
        };
        Taken {
            lane: job.lane,
            sharing,
        }
    }

    fn open(&self, job: &Job) -> Option<Open> {
        job.is_first().then(|| Open {
            of: job.of,
            offset: job.offset,
            origin: match self.origin {
                Some(_) => None,
                None => job.origin.clone(),
            },
            calls: Calls::of(job),
        })
    }

    /// Returns until when an open breaker keeps calls back: see [`Breaker::open_until`].
    pub(crate) fn open_until(&self) -> Option<Instant> {
        let state = self.lock();
        let is_open = state.breaker.is_open();
        is_open.then(|| state.breaker.open_until(Instant::now()))?
    }

    /// Drops waiting jobs that are over, such as those that a retry has taken back; returns a worker to wake. Without
    /// this they would keep their lanes busy until the breaker, the rate or their backoff lets them start.
    ///
    /// Looks at every waiting job, so it is too slow for each call.
    pub(crate) fn sweep(&self, is_over: impl Fn(&Job) -> bool) -> Option<Wake> {
        let mut state = self.lock();
        let (over, has_room) = state.take_over(is_over);
        for job in &over {
            self.budget.leave(job.record.bytes_len());
            if let Some(target) = self.taken(job).sharing {
                state.unshare(target);
            }
        }
        if has_room {
            self.budget.freed.notify_waiters();
        }
        self.tell_space(&mut state);
        let wake = state.wake();
        drop(state);
        // Dropped outside the lock, because the drop wakes other tasks.
        drop(over);
        wake
    }

    /// Returns the room for more jobs, of a lane if one is given. If there is none, [`Budget::freed`] fires once there
    /// is.
    pub(crate) fn space(&self, lane: Option<Lane>) -> Space {
        let mut state = self.lock();
        if state.queued_len == 0 {
            return Space::Enough;
        }
        if !state.has_space() {
            state.space_wanted = true;
            return Space::None;
        }
        if !self.budget.is_worth_it() {
            // This queue may be empty before the budget has room.
            state.empty_wanted = true;
            return Space::None;
        }
        lane.map_or(Space::Enough, |lane| state.lanes.space(lane))
    }

    /// Returns whether there is neither a job nor a worker.
    pub(crate) fn is_deserted(&self) -> bool {
        let state = self.lock();
        state.queued_len == 0 && state.workers_len == 0
    }

    /// Returns whether a lane of this target is busy on this (shared) queue.
    pub(crate) fn holds(&self, origin: &TargetId) -> bool {
        self.lock().sharing.contains_key(origin)
    }

    /// Keeps the last failure.
    pub(in crate::dispatch) fn note_failure(&self, failure: LastFailure) {
        let last = self.last_failure.lock();
        *last.unwrap_or_else(PoisonError::into_inner) = Some(failure);
    }

    fn tell_space(&self, state: &mut State) {
        let has_space = state.space_wanted && state.has_space();
        let is_empty = state.empty_wanted && state.queued_len == 0;
        if has_space || is_empty {
            state.space_wanted &= !has_space;
            state.empty_wanted &= !is_empty;
            self.budget.freed.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code under the lock panics half way through a change, so a poisoned lock is still consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the rate that the settings say; slots that were taken stay taken.
fn new_rate(rate: Option<Slots>, settings: &TargetSettings) -> Option<Slots> {
    let (interval, now) = (settings.interval?, Instant::now());
    let mut rate = rate.unwrap_or_else(|| Slots::new(interval, now));
    rate.set_interval(interval, now);
    Some(rate)
}

impl fmt::Debug for TargetQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TargetQueue")
            .field("target", &self.name())
            .finish()
    }
}
