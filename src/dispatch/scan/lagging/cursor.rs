//! A cursor of someone who is lagging: where it stands, and whether it reads in this round.

use std::time::Duration;

use tokio::time::Instant;

use super::super::growth_barrier::Wait;
use crate::dispatch::queue::lane::Space;
use crate::model::ids::Offset;

/// First wait after a read has failed.
const READ_AGAIN_FIRST: Duration = Duration::from_millis(100);
/// Longest such wait.
const READ_AGAIN_MAX: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct LaggingReader {
    /// The first of its records that may not be on a queue.
    pub(super) at: Offset,
    /// What there is room for in this round, until it is refused or has had its page.
    pub(super) space: Space,
    pub(super) pause: Pause,
    /// What its first record waits for.
    pub(super) wait: Option<Wait>,
}

/// The wait after reads that have failed.
#[derive(Debug)]
pub(in crate::dispatch) struct Pause {
    until: Option<Instant>,
    next: Duration,
}

impl LaggingReader {
    pub(super) fn new(at: Offset) -> Self {
        Self {
            at,
            space: Space::None,
            pause: Pause::default(),
            wait: None,
        }
    }

    /// Returns whether it takes what it finds.
    pub(super) fn reads(&self) -> bool {
        self.space > Space::None
    }

    /// It was refused there; returns whether it has come further.
    pub(super) fn stop(&mut self, at: Offset) -> bool {
        self.space = Space::None;
        self.go_to(at)
    }

    pub(super) fn ends_page(&mut self, reached: Offset) -> bool {
        let has_read = self.reads() && self.at < reached;
        if has_read {
            self.space = Space::None;
            self.go_to(reached);
        }
        has_read
    }

    fn go_to(&mut self, at: Offset) -> bool {
        let moves = at > self.at;
        if moves {
            self.at = at;
            self.pause = Pause::default();
        }
        moves
    }
}

impl Default for Pause {
    fn default() -> Self {
        Self {
            until: None,
            next: READ_AGAIN_FIRST,
        }
    }
}

impl Pause {
    /// Notes that a read has failed.
    pub(in crate::dispatch) fn failed(&mut self, now: Instant) {
        self.until = Some(now + self.next);
        self.next = (self.next * 2).min(READ_AGAIN_MAX);
    }

    /// Returns whether it is time to read; says so once.
    pub(in crate::dispatch) fn is_over(&mut self, now: Instant) -> bool {
        let over = self.until.is_none_or(|until| until <= now);
        if over {
            self.until = None;
        }
        over
    }

    /// Returns when it is over, if it is not.
    pub(in crate::dispatch) fn until(&self) -> Option<Instant> {
        self.until
    }
}
