//! A commit, its parts, and its answer.

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

/// Changes that are stored together.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// Records to append.
    pub appends: Vec<Append>,
    /// Settlements of records.
    pub settles: Vec<Settle>,
    /// Values to set or remove.
    pub state: Vec<StateChange>,
    /// Identifies repetitions of this commit. All appends are then to one stream, and there is at least one.
    pub dedup: Option<Dedup>,
    /// If given, the commit is refused when a record stored at that time or later refers to a value that `state` removes.
    /// The time is that of an earlier commit without records, answered since this engine was opened.
    pub unreferred_since: Option<Timestamp>,
}

/// Identifies a commit, so that a repetition is recognised. The repetition changes nothing and gets the answer of the first
/// commit, even if its contents differ.
///
/// Settings bound the number of remembered ids and their age. A deleted stream loses its ids.
#[derive(Clone, Debug)]
pub struct Dedup {
    /// The same id for another stream is another commit.
    pub id: DedupId,
    /// The reply to repetitions, at most [`REPLY_BYTES_MAX`](super::REPLY_BYTES_MAX) bytes, opaque to the engine.
    pub reply: Bytes,
}

/// Records for one partition; they get consecutive offsets.
#[derive(Clone, Debug)]
pub struct Append {
    /// The partition.
    pub of: PartitionId,
    /// The records, at least one.
    pub records: Vec<Record>,
    /// The origin of the records, for the books.
    pub kind: AppendKind,
    /// Names of state values that these records need while they are open (their secrets). For records from outside, each
    /// value must exist or be set by the same commit. Otherwise the commit is refused as
    /// [`CommitError::StateConflict`](super::CommitError::StateConflict).
    pub refers: Vec<Arc<str>>,
}

/// The origin of a record in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AppendKind {
    /// A source sent it.
    Accepted = 0,
    /// Its dispatch failed; the same commit settles the original as `Routed`.
    Routed = 1,
    /// Its retry failed; the same commit settles the older copy as `Moved`.
    Moved = 2,
    /// The replay of a settled record failed; this settles nothing.
    ReplayFailed = 3,
    /// It came back from an archive.
    Restored = 4,
}

impl AppendKind {
    /// Returns whether such a record is new to the gateway, and not a copy of another record.
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

/// The settlement of one record, as a caller asks for it.
#[derive(Clone, Debug)]
pub struct Settle {
    /// Its partition.
    pub of: PartitionId,
    /// Its offset.
    pub offset: Offset,
    /// How the record is settled.
    pub end: NewSettlement,
    /// Number of attempts.
    pub attempts: u32,
    /// The last HTTP status, if a target answered.
    pub status: Option<u16>,
    /// The lease of the caller on the partition.
    pub epoch: Epoch,
}

/// A settlement, before the engine has given the copy its offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewSettlement {
    /// The target accepted it.
    Delivered,
    /// A dispatch rule filtered it out.
    Filtered,
    /// An operator discarded it.
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
    /// The target accepted it.
    Delivered,
    /// A dispatch rule filtered it out.
    Filtered,
    /// It failed, and a copy is in an error stream.
    Moved {
        /// Stream and offset of the copy, in the partition of the record's own number; `None` if that stream is gone.
        copy: Option<(StreamId, Offset)>,
    },
    /// An operator discarded it.
    Discarded,
}

/// A value to set, or to remove.
#[derive(Clone, Debug)]
pub struct StateChange {
    /// Its name, at most 512 bytes.
    pub key: Arc<str>,
    /// The new value; `None` removes.
    pub value: Option<Bytes>,
    /// The revision that the value must have: `Some(0)` = no such value, `None` = any.
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
    /// Time of the commit and of its records.
    pub time: Timestamp,
    /// For each append, in order.
    pub appends: Vec<Appended>,
    /// The reply of an earlier commit with the same [`DedupId`]. If set, nothing was stored now, and the other members are
    /// the answer to that earlier commit.
    pub repeats: Option<Bytes>,
}

/// The offsets of the records of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Their partition.
    pub of: PartitionId,
    /// Offset of the first one; the others follow.
    pub first: Offset,
    /// How many there are.
    pub len: u64,
}

/// How a deletion or a purge treats open records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenRecords {
    /// The request is refused.
    Refuse,
    /// They are removed too, and count as discarded.
    Drop,
}

/// Why a stream was purged. Stored as JSON in the journal, so members are only ever added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeNote {
    /// The reason that the caller gave.
    pub reason: String,
    /// Name of the user; `None` on a gateway without users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// Result of a purge.
#[derive(Clone, Debug)]
pub struct Purged {
    /// The stream after the purge.
    pub stream: Arc<Stream>,
    /// By number of the partition.
    pub partitions: Vec<PurgedPartition>,
}

/// Records that a purge has removed from a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PurgedPartition {
    /// The bounds before the purge. Afterwards the partition begins at this tail.
    pub bounds: Bounds,
    /// Number of open records among them.
    pub discarded: u64,
}
