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
    /// Records called, or that would have been in a dry run: processed, failed, or left open by an answer that asks to call
    /// again later.
    pub attempted: u64,
    /// Records that their target took.
    pub processed: u64,
    /// Records that it did not take.
    pub failed: u64,
    /// Copies that failures left in error streams. A record of the unrecoverable stream that has failed
    /// `retry.retries_max` retries leaves none: it stays as it is.
    pub moved: u64,
    /// How many of these copies each stream got.
    pub moved_to: BTreeMap<StreamName, u64>,
    /// Records passed over: settled, or still waiting for their first dispatch.
    pub skipped: u64,
    /// Records left out by the filter; one that is settled counts as skipped if its time is within that of the filter.
    pub unmatched: u64,
    /// Offsets asked for that retention has taken, before the pass came to them or while their call was under way. One of the
    /// latter whose call failed is in `failed` too, and leaves no copy.
    pub trimmed: u64,
    /// Whether the tail, as it was when the pass began, or the end that was asked for, was reached (in every partition).
    pub end_of_stream: bool,
    /// Why the pass has ended before any of its bounds; `None` if it reached the end all the same.
    pub stopped: Option<Stopped>,
    /// Records that were left as they are because their target is open, as far as the pass has come. Of at most 100 targets,
    /// and one sum for the rest.
    pub waiting: Vec<Waiting>,
    /// End of the part that is done without a gap, to be given as `after` next time; `after` itself if that part is empty.
    ///
    /// With several partitions it is `after`: each has its own in `partitions`.
    pub last_read_offset: Option<Offset>,
    /// The first offset looked at; with several partitions the one asked for.
    pub start_offset: Offset,
    /// The first offset that the next pass has to look at; with several partitions the one asked for.
    pub next_offset: Offset,
    /// Calls by HTTP status, else by the word of the cause.
    pub by_status: BTreeMap<String, u64>,
    /// The group that was gone on with.
    pub group: Option<GroupReport>,
    /// The positions of each partition.
    pub partitions: Vec<PartitionReport>,
}

/// Why a pass has ended before any of its bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The first calls to a target all failed alike.
    Failing(TargetFailing),
    /// What is left to be called waits for targets that are open.
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

    /// Returns the target that it is about.
    #[must_use]
    pub fn target(&self) -> &TargetId {
        match self {
            Self::Failing(failing) => &failing.target,
            Self::Open { target, .. } => target,
        }
    }
}

/// Records that a pass has left as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Their target; `None` stands for all that are not named.
    pub target: Option<TargetId>,
    /// How many they are.
    pub count: u64,
    /// No call of the target begins before then; `None` without a target.
    pub until: Option<Timestamp>,
}

/// Where a group stands after a pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupReport {
    /// Its name.
    pub name: GroupName,
    /// For each partition of the pass the last offset that is done, as stored; `None` before the first one.
    pub positions: Vec<(Partition, Option<Offset>)>,
}

/// How far a retry came in a partition.
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
    /// The tail as it was when the pass began, before it called anything in any partition; records behind it are not for
    /// this pass.
    pub tail: Offset,
    /// As [`RetryReport::trimmed`].
    pub trimmed: u64,
    /// As [`RetryReport::end_of_stream`].
    pub end_of_stream: bool,
}
