//! What one commit holds, and what it is answered.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    model::{
        ids::{Offset, PartitionId, StreamId},
        record::Record,
    },
    runtime::clock::Timestamp,
};

use super::{
    read::Bounds,
    streams::{Epoch, Stream},
};

/// What is stored together.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// Records to append.
    pub appends: Vec<Append>,
    /// Records that have ended.
    pub settles: Vec<Settle>,
    /// Values to set or remove.
    pub state: Vec<StateChange>,
    /// How a repetition is recognised; all appends are then to one stream, and there is at least one.
    pub dedup: Option<Dedup>,
    /// If given, the commit is refused when a record that was stored at that time or later refers to a value that `state`
    /// removes. The time is that of an earlier commit without records, answered since this engine was opened.
    pub unreferred_since: Option<Timestamp>,
}

/// By what a commit is recognised that is made again: the second one changes nothing, whatever it holds, and is answered
/// as the first one was.
///
/// How long, and how many, an engine remembers is bounded by its settings. A stream that goes takes its ids along.
#[derive(Clone, Debug)]
pub struct Dedup {
    /// The same id for another stream is another commit.
    pub id: DedupId,
    /// What whoever repeats it is to be told, at most [`REPLY_BYTES_MAX`](super::REPLY_BYTES_MAX) bytes; the engine does not look at it.
    pub reply: Bytes,
}

/// Records for one partition; they get offsets one behind the other.
#[derive(Clone, Debug)]
pub struct Append {
    /// Where to.
    pub of: PartitionId,
    /// What, at least one.
    pub records: Vec<Record>,
    /// How they came about, for the books.
    pub kind: AppendKind,
    /// Names of state values that these records need for as long as they are open (their secrets). Where the records
    /// come from outside, each must be there, or be set by the same commit: else [`CommitError::StateConflict`](super::CommitError::StateConflict).
    pub refers: Vec<Arc<str>>,
}

/// How a record came into its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AppendKind {
    /// A source sent it.
    Accepted = 0,
    /// Its dispatch failed; the commit ends the origin as `Routed`.
    Routed = 1,
    /// Its retry failed; the commit ends the older copy as `Moved`.
    Moved = 2,
    /// Replaying a record that had ended before failed; nothing ends with it.
    ReplayFailed = 3,
    /// It came back from an archive.
    Restored = 4,
}

impl AppendKind {
    /// Returns whether such a record is new to the gateway, and not a copy of one that it has.
    #[must_use]
    pub fn is_from_outside(self) -> bool {
        matches!(self, Self::Accepted | Self::Restored)
    }

    /// All kinds, in the order of their codes.
    pub const ALL: [Self; 5] = [
        Self::Accepted,
        Self::Routed,
        Self::Moved,
        Self::ReplayFailed,
        Self::Restored,
    ];
}

/// Digest that names a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DedupId(pub [u8; 16]);

/// How a record ended.
#[derive(Clone, Debug)]
pub struct Settle {
    /// Its partition.
    pub of: PartitionId,
    /// Its offset.
    pub offset: Offset,
    /// Its end.
    pub end: NewSettlement,
    /// How many calls were made for it.
    pub attempts: u32,
    /// The last HTTP status, if a target answered.
    pub status: Option<u16>,
    /// The lease under which this is said.
    pub epoch: Epoch,
}

/// An end, before the engine has given the copy its offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewSettlement {
    /// The target took it.
    Delivered,
    /// A rule left it out.
    Filtered,
    /// A person gave it up.
    Discarded,
    /// First record of `Commit::appends[append]` is its copy in an error stream.
    Routed {
        /// Index of the append.
        append: usize,
    },
    /// First record of `Commit::appends[append]` is its copy after a failed retry.
    Moved {
        /// Index of the append.
        append: usize,
    },
}

/// An end as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// The target took it.
    Delivered,
    /// A rule left it out.
    Filtered,
    /// It failed, and a copy is in an error stream.
    Moved {
        /// Stream and offset of the copy, in the partition of the record's own number; `None` if that stream is gone.
        copy: Option<(StreamId, Offset)>,
    },
    /// A person gave it up.
    Discarded,
}

/// A value to set, or to remove.
#[derive(Clone, Debug)]
pub struct StateChange {
    /// Its name, at most 512 bytes.
    pub key: Arc<str>,
    /// The new value; `None` removes.
    pub value: Option<Bytes>,
    /// The revision that must be there: `Some(0)` = no such value, `None` = whatever there is.
    pub expected: Option<u64>,
}

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateEntry {
    /// Grows with every change of any value; never 0.
    pub revision: u64,
    /// The bytes.
    pub value: Bytes,
}

/// Answer to a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The commit's time, also that of its records.
    pub time: Timestamp,
    /// For each append, in order.
    pub appends: Vec<Appended>,
    /// The reply of an earlier commit with the same [`DedupId`]: all of this is the answer to that one, which may have had
    /// other appends, and nothing was stored now.
    pub repeats: Option<Bytes>,
}

/// Where the records of an append are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Their partition.
    pub of: PartitionId,
    /// Offset of the first one; the others follow.
    pub first: Offset,
    /// How many there are.
    pub len: u64,
}

/// What the removal of a stream, or of its records, does about those that have no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenRecords {
    /// It is refused.
    Refuse,
    /// They go with the others, and count as discarded.
    Drop,
}

/// Why a stream was purged. Stored as JSON in the journal, so members are only ever added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeNote {
    /// The reason that was given.
    pub reason: String,
    /// Who gave it; `None` where nobody has a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// What a purge has removed.
#[derive(Clone, Debug)]
pub struct Purged {
    /// The stream as it is now.
    pub stream: Arc<Stream>,
    /// By number of the partition.
    pub partitions: Vec<PurgedPartition>,
}

/// What a purge has removed of a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PurgedPartition {
    /// The bounds before it; behind it all begins at the tail.
    pub bounds: Bounds,
    /// How many of the records had no end.
    pub discarded: u64,
}
