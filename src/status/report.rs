//! The values of a report.

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

/// The state of the gateway at one moment.
#[derive(Clone, Debug)]
pub struct Report {
    /// The time of the report.
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
    /// Partitions whose dispatch has stopped at an unreadable record.
    pub unreadable_partitions: u64,
    /// The ledger in short.
    pub ledger: Books,
    /// The readers, those with the greatest lag first.
    pub readers: Vec<Reader>,
    /// Running retries, by stream.
    pub retries: Vec<Retry>,
}

/// A target.
#[derive(Clone, Debug)]
pub struct Target {
    /// The target.
    pub id: TargetId,
    /// Its name in logs and metrics.
    pub name: String,
    /// Its breaker.
    pub breaker: BreakerState,
    /// When the breaker left the closed state, or returned to it; `None` if it was never open.
    pub since: Option<Timestamp>,
    /// Calls in flight.
    pub in_flight: usize,
    /// Records that wait for their dispatch.
    pub pending: u64,
    /// Records that wait for a retry.
    pub in_error_streams: u64,
    /// Start of the oldest of both, as in [`Group::first`].
    pub oldest: Option<Timestamp>,
    /// The last failed call.
    pub last_failure: Option<LastFailure>,
}

/// Open records.
#[derive(Clone, Debug)]
pub struct Open {
    /// Number of open records by stream, without streams that have none.
    pub streams: Vec<(Arc<Stream>, u64)>,
    /// The counted ones by target and cause.
    pub counted: Counted,
}

/// The ledger in short.
#[derive(Clone, Debug)]
pub struct Books {
    /// No stream differs.
    pub is_balanced: bool,
    /// Difference of all streams, in records.
    pub difference: i64,
    /// Streams that differ, with their difference in records.
    pub streams: Vec<(String, i64)>,
    /// Number of accepted losses.
    pub accepted_losses: u64,
}

/// The running call of a retry of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The stream.
    pub stream: StreamName,
    /// Start of the call.
    pub since: Timestamp,
    /// The user that started it, or the address of a caller without a name.
    pub by: Option<Arc<str>>,
    /// Records that the call has settled.
    pub done: u64,
    /// Records found, and records still ahead; a filter may skip some.
    pub total: u64,
}

/// A reader of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    /// Its kind.
    pub kind: ReaderKind,
    /// The stream; `None` if it is gone.
    pub stream: Option<StreamName>,
    /// Records that it has still to read or settle. Unknown for subscribers, because they keep their own position.
    pub lag: Option<u64>,
    /// When the first of these was stored, if known.
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
        /// A client is connected with it.
        is_connected: bool,
    },
    /// Clients of a data stream.
    Subscribers {
        /// The data stream.
        data_stream: String,
        /// Their number.
        len: usize,
    },
}

impl Target {
    /// Returns the open records of the target.
    #[must_use]
    pub fn open_len(&self) -> u64 {
        self.pending + self.in_error_streams
    }

    /// Returns the sort key: targets that need an operator come first.
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
    /// Returns whether a later call with the same bytes may succeed.
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
