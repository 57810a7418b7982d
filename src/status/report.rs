//! A report: its parts, as values.

use std::{cmp::Reverse, path::PathBuf, sync::Arc};

use super::{
    census::{Counted, Group},
    problems::Problem,
};
use crate::{
    dispatch::{BreakerState, Cause, LastFailure, TargetId},
    model::ids::{Partition, StreamName},
    runtime::clock::Timestamp,
    storage::{Health, Space, Stream, ledger::Balance},
};

/// How the gateway is at one moment.
#[derive(Clone, Debug)]
pub struct Report {
    /// The moment.
    pub at: Timestamp,
    /// When the gateway was started.
    pub started_at: Timestamp,
    /// The problems, the worst first.
    pub problems: Vec<Problem>,
    /// The targets, those with problems first.
    pub targets: Vec<Target>,
    /// Open records.
    pub open: Open,
    /// The data directory.
    pub dir: PathBuf,
    /// The disk; `None` if it has not answered.
    pub space: Option<Space>,
    /// Whether the log takes records.
    pub health: Health,
    /// Partitions whose dispatch waits at a record that cannot be read.
    pub unreadable_partitions: u64,
    /// The books.
    pub ledger: Books,
    /// The readers, those with the greatest lag first.
    pub readers: Vec<Reader>,
    /// The retries that run, by stream.
    pub retries: Vec<Retry>,
}

/// A target.
#[derive(Clone, Debug)]
pub struct Target {
    /// The target.
    pub id: TargetId,
    /// How it is called in logs and metrics.
    pub name: String,
    /// Its breaker.
    pub breaker: BreakerState,
    /// When the breaker opened, the first time in a row, or closed; `None` if it never was open.
    pub since: Option<Timestamp>,
    /// Calls now.
    pub in_flight: usize,
    /// Records that wait for their dispatch.
    pub pending: u64,
    /// Records that wait for a retry.
    pub in_error_streams: u64,
    /// Since when the first of both is open: see [`Group::first`].
    pub oldest: Option<Timestamp>,
    /// The call that failed last.
    pub last_failure: Option<LastFailure>,
}

/// Open records.
#[derive(Clone, Debug)]
pub struct Open {
    /// All of them, by stream: only streams that have some.
    pub streams: Vec<(Arc<Stream>, u64)>,
    /// The same by target and cause, as far as they were looked at.
    pub counted: Counted,
}

/// The books in short.
#[derive(Clone, Debug)]
pub struct Books {
    /// Nothing differs.
    pub is_balanced: bool,
    /// By how many records the books differ in total.
    pub difference: i64,
    /// Streams that differ, and by how many records.
    pub streams: Vec<(String, i64)>,
    /// How many losses were accepted.
    pub accepted_losses: u64,
}

/// What runs now of a retry of a stream: a loop makes one call after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The stream.
    pub stream: StreamName,
    /// When the call began.
    pub since: Timestamp,
    /// The user who asked for it, or the address of a caller without a name.
    pub by: Option<Arc<str>>,
    /// Records that the call has settled.
    pub done: u64,
    /// Records that it found, or has yet to come to; a filter may leave some of them out.
    pub total: u64,
}

/// A reader of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    /// Its kind.
    pub kind: ReaderKind,
    /// The stream; `None` if it is gone.
    pub stream: Option<StreamName>,
    /// Records that it has yet to read, or to settle. Subscribers keep their own place, so theirs is not known.
    pub lag: Option<u64>,
    /// When the first of these came into the stream, where that is known.
    pub oldest: Option<Timestamp>,
}

/// Kinds of readers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReaderKind {
    /// The dispatch of a partition.
    Dispatch(Partition),
    /// The group of a retry.
    Retry(String),
    /// A cursor of a data stream.
    Cursor {
        /// The data stream.
        data_stream: String,
        /// The cursor.
        name: String,
        /// A client has it.
        is_connected: bool,
    },
    /// Clients of a data stream.
    Subscribers {
        /// The data stream.
        data_stream: String,
        /// How many.
        len: usize,
    },
}

impl Target {
    /// Records that wait for it.
    #[must_use]
    pub fn open_len(&self) -> u64 {
        self.pending + self.in_error_streams
    }

    /// Targets that need an operator come first.
    pub(super) fn rank(&self) -> (bool, bool, Reverse<u64>, Reverse<u64>) {
        let is_closed = self.breaker == BreakerState::Closed;
        (
            self.open_len() == 0,
            is_closed,
            Reverse(self.in_error_streams),
            Reverse(self.pending),
        )
    }
}

impl Group {
    /// Returns whether a later call with the same bytes may succeed by itself.
    pub(super) fn is_transient(&self) -> bool {
        self.cause.is_some_and(Cause::is_transient)
    }
}

impl Books {
    pub(super) fn of(balance: &Balance) -> Self {
        let differing = balance.streams.iter().chain([&balance.gone]);
        let differing = differing.filter(|row| row.difference != 0).map(|row| {
            let name = row.stream.clone();
            (
                name.unwrap_or_else(|| "(deleted streams)".into()),
                row.difference,
            )
        });
        Self {
            is_balanced: balance.balanced,
            difference: balance.total.difference,
            streams: differing.collect(),
            accepted_losses: balance.accepted_losses,
        }
    }
}
