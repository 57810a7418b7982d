//! The reader of a lagging target or lane: its offset, and whether it reads in this round.

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
    /// Room of its queue in this round; none once a record was refused or the page is over.
    pub(super) space: Space,
    pub(super) pause: Pause,
    /// The growth barrier that its first record waits for.
    pub(super) wait: Option<Wait>,
}

/// The wait after failed reads.
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

    /// Returns whether it takes its records in this round.
    pub(super) fn reads(&self) -> bool {
        self.space > Space::None
    }

    /// Stops at a refused record; returns whether it has moved.
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
    /// Begins a wait after a failed read; each is twice as long, up to 30 s.
    pub(in crate::dispatch) fn failed(&mut self, now: Instant) {
        self.until = Some(now + self.next);
        self.next = (self.next * 2).min(READ_AGAIN_MAX);
    }

    /// Returns whether it is time to read, and clears the wait then.
    pub(in crate::dispatch) fn is_over(&mut self, now: Instant) -> bool {
        let over = self.until.is_none_or(|until| until <= now);
        if over {
            self.until = None;
        }
        over
    }

    /// Returns the end of the wait, if there is one.
    pub(in crate::dispatch) fn until(&self) -> Option<Instant> {
        self.until
    }
}
