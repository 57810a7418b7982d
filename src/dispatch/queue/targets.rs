//! Targets: each has a board of its own, up to a bound; the rest share one.
//!
//! A target never has jobs of one lane on two boards: it stays on the shared board for as long as a lane of it is busy
//! there, and its own board goes away only when nothing is on it. Both are decided under the same lock as each push.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::RandomState,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;

use super::{
    budget::Budget,
    job::Job,
    lane::{Lane, Space},
    state::{Moment, TargetState},
    target_queue::{Board, LeaveOut, Wake},
    waiting::Search,
};
use crate::dispatch::{
    outcome::Cause,
    past::Past,
    settings::Settings,
    stats::TargetStatus,
    target_id::{Prefixes, TargetId},
};
use crate::model::{
    ids::{Offset, PartitionId},
    record::Record,
};

/// All boards.
#[derive(Debug)]
pub(crate) struct Targets {
    pub(crate) budget: Arc<Budget>,
    lanes: RandomState,
    /// Those of the start, whatever the settings say by now: see `target_id`.
    pub(crate) prefixes: Prefixes,
    boards: Mutex<Boards>,
}

#[derive(Debug)]
struct Boards {
    settings: Arc<Settings>,
    own: HashMap<TargetId, Arc<Board>>,
    /// Those of `own` that were seen to be kept only for their open breaker. They give way first.
    resting: HashSet<TargetId>,
    /// Those that had a board of their own not long ago.
    past: Past,
    /// Of targets beyond the bound, and of records that name no target at all.
    shared: Arc<Board>,
}

impl Targets {
    /// No targets yet.
    pub(crate) fn new(settings: Arc<Settings>) -> Self {
        let budget = Arc::new(Budget::new(settings.queues_bytes_max));
        let shared = settings.other_targets.clone();
        let shared = Board::new(None, shared, settings.limits, budget.clone());
        Self {
            budget,
            lanes: RandomState::new(),
            prefixes: Prefixes::of(settings.targets.keys()),
            boards: Mutex::new(Boards {
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

    /// Moves jobs of one target to its board, as [`Board::push`], and returns the board with someone to wake.
    pub(crate) fn push(
        &self,
        jobs: &mut VecDeque<Box<Job>>,
        leave_out: Option<LeaveOut<'_>>,
    ) -> Option<(Arc<Board>, Option<Wake>)> {
        let origin = &jobs.front()?.origin;
        let mut boards = self.lock();
        let board = match origin {
            Some(origin) => boards.of(origin, &self.budget),
            None => boards.shared.clone(),
        };
        let wake = board.push(jobs, leave_out);
        Some((board, wake))
    }

    /// Returns how much room the board has that a target has or would get, and the lane there, if one is named.
    pub(crate) fn space(&self, origin: Option<&TargetId>, lane: Option<Lane>) -> Space {
        let board = {
            let boards = self.lock();
            let own = origin.and_then(|origin| boards.own.get(origin));
            if own.is_none() && origin.is_some_and(|origin| boards.may_own(origin)) {
                return Space::Enough;
            }
            own.unwrap_or(&boards.shared).clone()
        };
        board.space(lane)
    }

    /// Returns until when no call of a target begins since its breaker is open. An instant that is over means that a probe
    /// is under way; `None`, that a call may begin now, be it the probe.
    pub(crate) fn open_until(&self, origin: &TargetId) -> Option<Instant> {
        let own = self.lock().own.get(origin).cloned();
        own?.open_until()
    }

    /// Lets go of what retries have taken back of a target: see [`Board::sweep`].
    pub(crate) fn sweep(&self, origin: &TargetId) -> (Arc<Board>, Option<Wake>) {
        let board = {
            let boards = self.lock();
            boards.own.get(origin).unwrap_or(&boards.shared).clone()
        };
        let wake = board.sweep(Job::is_withdrawn);
        (board, wake)
    }

    /// Lets go of what is over, on every board: see [`Board::sweep`].
    pub(crate) fn sweep_all(
        &self,
        is_over: impl Fn(&Job) -> bool,
    ) -> Vec<(Arc<Board>, Option<Wake>)> {
        let sweep = |board: Arc<Board>| {
            let wake = board.sweep(&is_over);
            (board, wake)
        };
        self.all().into_iter().map(sweep).collect()
    }

    /// Names each open record of a partition that is on a board: see [`Board::for_each_open`].
    pub(crate) fn for_each_open(
        &self,
        of: PartitionId,
        name: &mut dyn FnMut(&Option<TargetId>, Offset),
    ) {
        for board in self.all() {
            board.for_each_open(of, name);
        }
    }

    /// Looks at every board for open records: see [`Board::search`].
    pub(crate) fn search(&self, search: &mut Search<'_>) {
        for board in self.all() {
            board.search(search);
        }
    }

    /// Returns the cause of each record that was called in vain and waits to be called again.
    pub(crate) fn waiting_causes(&self) -> HashMap<(PartitionId, Offset), Cause> {
        let mut causes = HashMap::new();
        for board in self.all() {
            board.add_causes(&mut causes);
        }
        causes
    }

    /// Takes other settings for every board, and returns the boards that are left: each may have use for more workers.
    pub(crate) fn adjust(&self, settings: Arc<Settings>) -> Vec<Arc<Board>> {
        self.budget.set_bytes_max(settings.queues_bytes_max);
        let mut boards = self.lock();
        let boards = &mut *boards;
        // A target that is configured no more keeps no board that nothing is on: nobody would come to tidy it up.
        let now = Instant::now();
        let past = &mut boards.past;
        boards.own.retain(|origin, board| {
            let stays = settings.targets.contains_key(origin) || !board.is_deserted();
            if !stays {
                past.keep(origin.clone(), board.stood(now), now);
            }
            stays
        });
        boards
            .resting
            .retain(|origin| boards.own.contains_key(origin));
        let own = boards.own.values().cloned();
        let all: Vec<_> = own.chain([boards.shared.clone()]).collect();
        for board in &all {
            let own = board.origin.as_ref().map(|origin| settings.target(origin));
            let own = own.unwrap_or(&settings.other_targets).clone();
            board.adjust(own, settings.limits);
        }
        boards.settings = settings;
        all
    }

    /// Removes a board on which nothing has happened for long; a configured target keeps its own.
    pub(crate) fn tidy(&self, board: &Board) {
        let Some(origin) = &board.origin else { return };
        let mut boards = self.lock();
        if boards.may_go(origin, board) && board.is_deserted() {
            boards.remove(origin);
            boards.resting.remove(origin);
        }
    }

    /// Notes that a board is kept only for its open breaker, until one of its workers tidies it up or it gives way.
    pub(crate) fn rest(&self, board: &Board) {
        let Some(origin) = &board.origin else { return };
        let mut boards = self.lock();
        if boards.may_go(origin, board) {
            boards.resting.insert(origin.clone());
        }
    }

    /// Returns how every target stands that has a board of its own, had one within the last hour, or has an entry in the
    /// configuration.
    pub(in crate::dispatch) fn states(&self, now: Moment) -> Vec<TargetState> {
        let (own, mut others, failures) = {
            let mut boards = self.lock();
            boards.past.forget(now.instant);
            let others = boards.past.states(now);
            let mut others: HashMap<_, _> = others.map(|state| (state.id.clone(), state)).collect();
            for id in boards.settings.targets.keys() {
                let idle = || TargetState::idle(id.clone());
                others.entry(id.clone()).or_insert_with(idle);
            }
            let failed = |id: &TargetId| Some((id.clone(), boards.past.last_failure(id)?.clone()));
            let failures: HashMap<_, _> = boards.own.keys().filter_map(failed).collect();
            let own: Vec<_> = boards.own.values().cloned().collect();
            (own, others, failures)
        };
        let mut states: Vec<_> = own.iter().filter_map(|board| board.state(now)).collect();
        for state in &mut states {
            others.remove(&state.id);
            // A board that is new has not seen what the one before it did.
            if state.last_failure.is_none() {
                state.last_failure = failures.get(&state.id).cloned();
            }
        }
        states.extend(others.into_values());
        states
    }

    /// Returns every target in numbers.
    pub(crate) fn status(&self) -> Vec<TargetStatus> {
        self.all().iter().map(|board| board.status()).collect()
    }

    fn all(&self) -> Vec<Arc<Board>> {
        let boards = self.lock();
        let own = boards.own.values().cloned();
        own.chain([boards.shared.clone()]).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Boards> {
        // No code in here panics half way through a change.
        self.boards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Boards {
    /// Returns the board of a target; makes it, if it gets one of its own.
    fn of(&mut self, origin: &TargetId, budget: &Arc<Budget>) -> Arc<Board> {
        if let Some(board) = self.own.get(origin) {
            return board.clone();
        }
        if !self.may_own(origin) || !self.make_room(origin) {
            return self.shared.clone();
        }
        let settings = self.settings.target(origin).clone();
        let limits = self.settings.limits;
        let board = Board::new(Some(origin.clone()), settings, limits, budget.clone());
        let board = Arc::new(board);
        self.own.insert(origin.clone(), board.clone());
        board
    }

    /// Returns whether a target without a board gets one of its own. One that is configured gets it in any case, but not
    /// before its last lane has left the shared one: it can have been configured since.
    fn may_own(&self, origin: &TargetId) -> bool {
        let may_be_room = || self.own.len() < self.settings.targets_max || !self.resting.is_empty();
        let configured = self.settings.targets.contains_key(origin);
        (configured || may_be_room()) && !self.shared.holds(origin)
    }

    /// Makes room for one more board, if there has to be; `false` if no other gives way. Each that is asked in vain is not
    /// asked again before it rests once more.
    fn make_room(&mut self, origin: &TargetId) -> bool {
        if self.settings.targets.contains_key(origin) {
            return true;
        }
        while self.own.len() >= self.settings.targets_max {
            let Some(first) = self.resting.iter().next().cloned() else {
                return false;
            };
            self.resting.remove(&first);
            if self.own.get(&first).is_some_and(|board| board.give_way()) {
                self.remove(&first);
            }
        }
        true
    }

    /// Removes a board, and remembers how its target stood.
    fn remove(&mut self, origin: &TargetId) {
        if let Some(board) = self.own.remove(origin) {
            let now = Instant::now();
            self.past.keep(origin.clone(), board.stood(now), now);
        }
    }

    /// Returns whether a board is that of its target, which has it not by its settings.
    fn may_go(&self, origin: &TargetId, board: &Board) -> bool {
        let own = self.own.get(origin);
        let is_own = own.is_some_and(|own| std::ptr::eq(&**own, board));
        is_own && !self.settings.targets.contains_key(origin)
    }
}
