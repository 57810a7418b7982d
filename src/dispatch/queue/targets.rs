//! The queues of all targets. Each target has a queue of its own, up to `targets_max`; the rest share one.
//!
//! A target never has jobs of one lane on two queues, because that would lose their order. It stays on the shared queue
//! while one of its lanes is busy there, and its own queue is removed only when empty. Both are decided under the lock
//! of each push.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::RandomState,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;

use super::{
    budget::Budget,
    lane::Space,
    past::Past,
    state::{Moment, TargetState},
    target_queue::{LeaveOut, TargetQueue, Wake},
    waiting::Search,
};
use crate::dispatch::{
    job::{Job, Lane},
    outcome::Cause,
    settings::Settings,
    stats::TargetStatus,
    target_id::{Prefixes, TargetId},
};
use crate::model::{
    ids::{Offset, PartitionId},
    record::Record,
};

/// All queues.
#[derive(Debug)]
pub(crate) struct Targets {
    pub(crate) budget: Arc<Budget>,
    lanes: RandomState,
    /// The prefixes of the start, which a reload does not change: see `target_id`.
    pub(crate) prefixes: Prefixes,
    queues: Mutex<Queues>,
}

#[derive(Debug)]
struct Queues {
    settings: Arc<Settings>,
    own: HashMap<TargetId, Arc<TargetQueue>>,
    /// Queues of `own` that are kept only for their open breaker. They give way to others first.
    resting: HashSet<TargetId>,
    /// Targets that had a queue of their own within the last hour.
    past: Past,
    /// The queue of targets beyond the bound, and of records without a target.
    shared: Arc<TargetQueue>,
}

impl Targets {
    /// No targets yet.
    pub(crate) fn new(settings: Arc<Settings>) -> Self {
        let budget = Arc::new(Budget::new(settings.queues_bytes_max));
        let shared = settings.other_targets.clone();
        let shared = TargetQueue::new(None, shared, settings.limits, budget.clone());
        Self {
            budget,
            lanes: RandomState::new(),
            prefixes: Prefixes::of(settings.targets.keys()),
            queues: Mutex::new(Queues {
                settings,
                own: HashMap::new(),
                resting: HashSet::new(),
                past: Past::default(),
                shared: Arc::new(shared),
            }),
        }
    }

    /// Returns the target of a record; `None` if it names none that can be called.
    pub(crate) fn of(&self, record: &Record) -> Option<TargetId> {
        self.prefixes.target(record)
    }

    /// Returns the lane of a record.
    pub(crate) fn lane(&self, origin: Option<&TargetId>, key: &[u8]) -> Option<Lane> {
        let target = origin.filter(|_| !key.is_empty())?;
        Some(Lane::new(&self.lanes, target, key))
    }

    /// Moves jobs of one target to its queue, as [`TargetQueue::push`]; returns the queue and a worker to wake.
    pub(crate) fn push(
        &self,
        jobs: &mut VecDeque<Box<Job>>,
        leave_out: Option<LeaveOut<'_>>,
    ) -> Option<(Arc<TargetQueue>, Option<Wake>)> {
        let origin = &jobs.front()?.origin;
        let mut queues = self.lock();
        let queue = match origin {
            Some(origin) => queues.of(origin, &self.budget),
            None => queues.shared.clone(),
        };
        let wake = queue.push(jobs, leave_out);
        Some((queue, wake))
    }

    /// Returns the room of the queue that a target has or would get, and of a lane in it if one is given.
    pub(crate) fn space(&self, origin: Option<&TargetId>, lane: Option<Lane>) -> Space {
        let queue = {
            let queues = self.lock();
            let own = origin.and_then(|origin| queues.own.get(origin));
            if own.is_none() && origin.is_some_and(|origin| queues.may_own(origin)) {
                return Space::Enough;
            }
            own.unwrap_or(&queues.shared).clone()
        };
        queue.space(lane)
    }

    /// Returns until when an open breaker keeps calls of a target back; see [`TargetQueue::open_until`].
    pub(crate) fn open_until(&self, origin: &TargetId) -> Option<Instant> {
        let own = self.lock().own.get(origin).cloned();
        own?.open_until()
    }

    /// Drops the jobs of a target that retries have taken back: see [`TargetQueue::sweep`].
    pub(crate) fn sweep(&self, origin: &TargetId) -> (Arc<TargetQueue>, Option<Wake>) {
        let queue = {
            let queues = self.lock();
            queues.own.get(origin).unwrap_or(&queues.shared).clone()
        };
        let wake = queue.sweep(Job::is_withdrawn);
        (queue, wake)
    }

    /// Drops the jobs of every queue that are over: see [`TargetQueue::sweep`].
    pub(crate) fn sweep_all(
        &self,
        is_over: impl Fn(&Job) -> bool,
    ) -> Vec<(Arc<TargetQueue>, Option<Wake>)> {
        let sweep = |queue: Arc<TargetQueue>| {
            let wake = queue.sweep(&is_over);
            (queue, wake)
        };
        self.all().into_iter().map(sweep).collect()
    }

    /// Names each open record of a partition that is on a queue: see [`TargetQueue::for_each_open`].
    pub(crate) fn for_each_open(
        &self,
        of: PartitionId,
        name: &mut dyn FnMut(&Option<TargetId>, Offset),
    ) {
        for queue in self.all() {
            queue.for_each_open(of, name);
        }
    }

    /// Searches every queue for open records: see [`TargetQueue::search`].
    pub(crate) fn search(&self, search: &mut Search<'_>) {
        for queue in self.all() {
            queue.search(search);
        }
    }

    /// Returns the cause of the last failure of each record that waits for its next call.
    pub(crate) fn waiting_causes(&self) -> HashMap<(PartitionId, Offset), Cause> {
        let mut causes = HashMap::new();
        for queue in self.all() {
            queue.add_causes(&mut causes);
        }
        causes
    }

    /// Replaces the settings of every queue; returns the remaining queues, which may need more workers.
    pub(crate) fn adjust(&self, settings: Arc<Settings>) -> Vec<Arc<TargetQueue>> {
        self.budget.set_bytes_max(settings.queues_bytes_max);
        let mut queues = self.lock();
        let queues = &mut *queues;
        // Remove empty queues of targets that lost their entry, because no worker is left to remove them.
        let now = Instant::now();
        let past = &mut queues.past;
        queues.own.retain(|origin, queue| {
            let stays = settings.targets.contains_key(origin) || !queue.is_deserted();
            if !stays {
                past.keep(origin.clone(), queue.stood(now), now);
            }
            stays
        });
        queues
            .resting
            .retain(|origin| queues.own.contains_key(origin));
        let own = queues.own.values().cloned();
        let all: Vec<_> = own.chain([queues.shared.clone()]).collect();
        for queue in &all {
            let own = queue.origin.as_ref().map(|origin| settings.target(origin));
            let own = own.unwrap_or(&settings.other_targets).clone();
            queue.adjust(own, settings.limits);
        }
        queues.settings = settings;
        all
    }

    /// Removes an idle queue; a configured target keeps its own.
    pub(crate) fn tidy(&self, queue: &TargetQueue) {
        let Some(origin) = &queue.origin else { return };
        let mut queues = self.lock();
        if queues.may_go(origin, queue) && queue.is_deserted() {
            queues.remove(origin);
            queues.resting.remove(origin);
        }
    }

    /// Notes that a queue is kept only for its open breaker.
    pub(crate) fn rest(&self, queue: &TargetQueue) {
        let Some(origin) = &queue.origin else { return };
        let mut queues = self.lock();
        if queues.may_go(origin, queue) {
            queues.resting.insert(origin.clone());
        }
    }

    /// Returns the state of every target that has a queue of its own, had one within the last hour, or has a
    /// configuration entry.
    pub(in crate::dispatch) fn states(&self, now: Moment) -> Vec<TargetState> {
        let (own, mut others, failures) = {
            let mut queues = self.lock();
            queues.past.forget(now.instant);
            let others = queues.past.states(now);
            let mut others: HashMap<_, _> = others.map(|state| (state.id.clone(), state)).collect();
            for id in queues.settings.targets.keys() {
                let idle = || TargetState::idle(id.clone());
                others.entry(id.clone()).or_insert_with(idle);
            }
            let failed = |id: &TargetId| Some((id.clone(), queues.past.last_failure(id)?.clone()));
            let failures: HashMap<_, _> = queues.own.keys().filter_map(failed).collect();
            let own: Vec<_> = queues.own.values().cloned().collect();
            (own, others, failures)
        };
        let mut states: Vec<_> = own.iter().filter_map(|queue| queue.state(now)).collect();
        for state in &mut states {
            others.remove(&state.id);
            // A new queue does not know the last failure of the queue before it.
            if state.last_failure.is_none() {
                state.last_failure = failures.get(&state.id).cloned();
            }
        }
        states.extend(others.into_values());
        states
    }

    /// Returns the numbers of every queue.
    pub(crate) fn status(&self) -> Vec<TargetStatus> {
        self.all().iter().map(|queue| queue.status()).collect()
    }

    fn all(&self) -> Vec<Arc<TargetQueue>> {
        let queues = self.lock();
        let own = queues.own.values().cloned();
        own.chain([queues.shared.clone()]).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        // No code in here panics half way through a change.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queues {
    /// Returns the queue of a target, and creates it if the target gets one of its own.
    fn of(&mut self, origin: &TargetId, budget: &Arc<Budget>) -> Arc<TargetQueue> {
        if let Some(queue) = self.own.get(origin) {
            return queue.clone();
        }
        if !self.may_own(origin) || !self.make_room(origin) {
            return self.shared.clone();
        }
        let settings = self.settings.target(origin).clone();
        let limits = self.settings.limits;
        let queue = TargetQueue::new(Some(origin.clone()), settings, limits, budget.clone());
        let queue = Arc::new(queue);
        self.own.insert(origin.clone(), queue.clone());
        queue
    }

    /// Returns whether a target without a queue gets one of its own. A configured target gets it in any case, once its
    /// last lane has left the shared queue; its entry may be newer than its jobs.
    fn may_own(&self, origin: &TargetId) -> bool {
        let may_be_room = || self.own.len() < self.settings.targets_max || !self.resting.is_empty();
        let configured = self.settings.targets.contains_key(origin);
        (configured || may_be_room()) && !self.shared.holds(origin)
    }

    /// Makes room for one more queue; `false` if no other gives way. A queue that refuses is not asked again before it
    /// rests again.
    fn make_room(&mut self, origin: &TargetId) -> bool {
        if self.settings.targets.contains_key(origin) {
            return true;
        }
        while self.own.len() >= self.settings.targets_max {
            let Some(first) = self.resting.iter().next().cloned() else {
                return false;
            };
            self.resting.remove(&first);
            if self.own.get(&first).is_some_and(|queue| queue.give_way()) {
                self.remove(&first);
            }
        }
        true
    }

    /// Removes a queue and keeps the state of its target in `past`.
    fn remove(&mut self, origin: &TargetId) {
        if let Some(queue) = self.own.remove(origin) {
            let now = Instant::now();
            self.past.keep(origin.clone(), queue.stood(now), now);
        }
    }

    /// Returns whether a queue is the current one of its target and the target has no configuration entry.
    fn may_go(&self, origin: &TargetId, queue: &TargetQueue) -> bool {
        let own = self.own.get(origin);
        let is_own = own.is_some_and(|own| std::ptr::eq(&**own, queue));
        is_own && !self.settings.targets.contains_key(origin)
    }
}
