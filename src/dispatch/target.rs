//! Targets: each has a board of its own, up to a bound; the rest share one.
//!
//! A target never has jobs of one lane on two boards: it stays on the shared board for as long as a lane of it is busy
//! there, and its own board goes away only when nothing is on it. Both are decided under the same lock as each push.

use std::{
    collections::{HashMap, VecDeque},
    hash::RandomState,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    board::{Board, LeaveOut, Limits, Wake},
    budget::Budget,
    job::Job,
    lane::{Lane, Space},
    settings::Settings,
    stats::TargetStatus,
};
use crate::{
    place::{Offset, PartitionId},
    target::Origin,
};

/// All boards.
#[derive(Debug)]
pub(crate) struct Targets {
    settings: Arc<Settings>,
    pub(crate) budget: Arc<Budget>,
    lanes: RandomState,
    boards: Mutex<Boards>,
}

#[derive(Debug)]
struct Boards {
    own: HashMap<Origin, Arc<Board>>,
    /// Of targets beyond the bound, and of records that name no target at all.
    shared: Arc<Board>,
}

impl Targets {
    /// No targets yet.
    pub(crate) fn new(settings: Arc<Settings>) -> Self {
        let budget = Arc::new(Budget::new(settings.queues_bytes_max));
        let shared = settings.other_targets.clone();
        let shared = Board::new(None, shared, limits(&settings), budget.clone());
        Self {
            settings,
            budget,
            lanes: RandomState::new(),
            boards: Mutex::new(Boards {
                own: HashMap::new(),
                shared: Arc::new(shared),
            }),
        }
    }

    /// Returns the lane of a record.
    pub(crate) fn lane(&self, origin: Option<&Origin>, key: &[u8]) -> Option<Lane> {
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
            Some(origin) => self.board(&mut boards, origin),
            None => boards.shared.clone(),
        };
        let wake = board.push(jobs, leave_out);
        Some((board, wake))
    }

    /// Returns how much room the board has that a target has or would get, and the lane there, if one is named.
    pub(crate) fn space(&self, origin: Option<&Origin>, lane: Option<Lane>) -> Space {
        let board = {
            let boards = self.lock();
            let own = origin.and_then(|origin| boards.own.get(origin));
            if own.is_none() && origin.is_some_and(|origin| self.may_own(&boards, origin)) {
                return Space::Enough;
            }
            own.unwrap_or(&boards.shared).clone()
        };
        board.space(lane)
    }

    /// Names each open record of a partition that is on a board: see [`Board::for_each_open`].
    pub(crate) fn for_each_open(
        &self,
        of: PartitionId,
        name: &mut dyn FnMut(&Option<Origin>, Offset),
    ) {
        for board in self.all() {
            board.for_each_open(of, name);
        }
    }

    /// Removes a board on which nothing has happened for long; a configured target keeps its own.
    pub(crate) fn tidy(&self, board: &Board) {
        let Some(origin) = &board.origin else { return };
        if self.settings.targets.contains_key(origin) {
            return;
        }
        let mut boards = self.lock();
        if board.is_deserted() {
            boards.own.remove(origin);
        }
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

    fn board(&self, boards: &mut Boards, origin: &Origin) -> Arc<Board> {
        if let Some(board) = boards.own.get(origin) {
            return board.clone();
        }
        if !self.may_own(boards, origin) {
            return boards.shared.clone();
        }
        let settings = self.settings.targets.get(origin);
        let settings = settings.unwrap_or(&self.settings.other_targets).clone();
        let limits = limits(&self.settings);
        let board = Board::new(Some(origin.clone()), settings, limits, self.budget.clone());
        let board = Arc::new(board);
        boards.own.insert(origin.clone(), board.clone());
        board
    }

    /// Returns whether a target without a board gets one of its own.
    fn may_own(&self, boards: &Boards, origin: &Origin) -> bool {
        let room = boards.own.len() < self.settings.targets_max && !boards.shared.holds(origin);
        room || self.settings.targets.contains_key(origin)
    }

    fn lock(&self) -> MutexGuard<'_, Boards> {
        // No code in here panics half way through a change.
        self.boards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn limits(settings: &Settings) -> Limits {
    Limits {
        queue_len_max: settings.queue_len_max,
        queue_bytes_max: settings.queue_bytes_max,
        idle_connections_max: settings.idle_connections_max,
    }
}
