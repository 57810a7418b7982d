//! What a retry came to.

use std::collections::BTreeMap;

use super::{GroupName, TargetFailing};
use crate::{
    dispatch::TargetId,
    model::ids::{Offset, Partition, PartitionId, StreamName},
    runtime::clock::Timestamp,
};

/// What a retry came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetryReport {
    /// Records called, or counted in a dry run: processed, failed, or left open because the target asked for a later
    /// call.
    pub attempted: u64,
    /// Records that their target accepted.
    pub processed: u64,
    /// Records whose call failed.
    pub failed: u64,
    /// Copies that failures appended to error streams. A record of the unrecoverable stream that has failed
    /// `retry.retries_max` retries gets none and stays unchanged.
    pub moved: u64,
    /// These copies by stream.
    pub moved_to: BTreeMap<StreamName, u64>,
    /// Records skipped: settled, or in a replay still open.
    pub skipped: u64,
    /// Records that the filter left out. A settled record within the filter's time counts as skipped.
    pub unmatched: u64,
    /// Requested offsets that retention has trimmed, before the pass reached them or during their call. A record
    /// trimmed during a failed call counts in `failed` too and gets no copy.
    pub trimmed: u64,
    /// Whether every partition was read up to its tail at the start of the pass, or up to the requested end.
    pub end_of_stream: bool,
    /// Why the pass ended before its bounds; `None` if it reached the end.
    pub stopped: Option<Stopped>,
    /// Records left open because the breaker of their target is open, for at most 100 targets, and one sum for the
    /// rest.
    pub waiting: Vec<Waiting>,
    /// The last offset of the done part without a gap, for `after` of the next request; `after` itself if that part is
    /// empty.
    ///
    /// With several partitions it is `after`: each has its own in `partitions`.
    pub last_read_offset: Option<Offset>,
    /// The first offset read; with several partitions the requested one.
    pub start_offset: Offset,
    /// The first offset for the next pass; with several partitions the requested one.
    pub next_offset: Offset,
    /// Calls by HTTP status, else by the word of the cause.
    pub by_status: BTreeMap<String, u64>,
    /// The group of the request.
    pub group: Option<GroupReport>,
    /// The positions of each partition.
    pub partitions: Vec<PartitionReport>,
}

/// Why a pass ended before its bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The first calls of a target all failed with the same cause.
    Failing(TargetFailing),
    /// The remaining records wait for targets with an open breaker.
    Open {
        /// The target of the first such record.
        target: TargetId,
        /// No call of it begins before then.
        until: Timestamp,
    },
}

impl Stopped {
    /// Returns the reason in one word.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Failing(_) => "target_failing",
            Self::Open { .. } => "target_open",
        }
    }

    /// Returns the target that ended the pass.
    #[must_use]
    pub fn target(&self) -> &TargetId {
        match self {
            Self::Failing(failing) => &failing.target,
            Self::Open { target, .. } => target,
        }
    }
}

/// Records that a pass has left open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Their target; `None` stands for all that are not named.
    pub target: Option<TargetId>,
    /// How many records.
    pub count: u64,
    /// No call of the target begins before then; `None` without a target.
    pub until: Option<Timestamp>,
}

/// The position of a group after a pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupReport {
    /// Its name.
    pub name: GroupName,
    /// For each partition of the pass the last offset that is done, as stored; `None` before the first one.
    pub positions: Vec<(Partition, Option<Offset>)>,
}

/// The progress of a retry in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionReport {
    /// The partition.
    pub of: PartitionId,
    /// As [`RetryReport::last_read_offset`].
    pub last_read_offset: Option<Offset>,
    /// As [`RetryReport::start_offset`].
    pub start_offset: Offset,
    /// As [`RetryReport::next_offset`].
    pub next_offset: Offset,
    /// The tail at the start of the pass. Records from there on are not for this pass.
    pub tail: Offset,
    /// As [`RetryReport::trimmed`].
    pub trimmed: u64,
    /// As [`RetryReport::end_of_stream`].
    pub end_of_stream: bool,
}
