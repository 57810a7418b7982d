//! Why an engine refused: each variant says what is then true.

use std::sync::Arc;

use crate::model::ids::{Offset, PartitionId};

/// Why a commit was not, or may not have been, stored.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// Nothing was stored; the queue is full, or the disk does not answer, and asking again may succeed.
    #[error("append queue is full")]
    Busy,
    /// Nothing was stored; it may succeed once there is space. What comes from outside is refused earlier than the rest.
    #[error("disk is full")]
    DiskFull,
    /// Nothing was stored, and the same commit never will be.
    #[error("{what} has {bytes} bytes, {bytes_max} are the most")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// Nothing was stored: there is no such partition (any more).
    #[error("partition {0} is unknown")]
    PartitionUnknown(PartitionId),
    /// Nothing was stored: a record in `settles` has an end, was trimmed, or was never written.
    #[error("record {of}/{offset} cannot end: it has ended already or is not there")]
    AlreadySettled {
        /// Its partition.
        of: PartitionId,
        /// Its offset.
        offset: Offset,
    },
    /// Nothing was stored: another holds the lease now.
    #[error("the lease on {0} is gone")]
    Fenced(PartitionId),
    /// Nothing was stored: a state value has another revision than expected, is gone although a record refers to it, or
    /// was to go although one does.
    #[error("state {key} has changed meanwhile")]
    StateConflict {
        /// Its name.
        key: Arc<str>,
    },
    /// Nothing was stored: the values of one kind would take more than their share of the state. It may succeed once
    /// some of them are removed.
    #[error("the share of {kind} in the state is full ({bytes_max} bytes)")]
    StateFull {
        /// The kind; see [`shares::SHARES`].
        kind: &'static str,
        /// Its share.
        bytes_max: usize,
    },
    /// Nothing was stored, and nothing will be until a restart.
    #[error("the log has stopped: {0}")]
    Stopped(Arc<str>),
    /// Whether it was stored shows after a restart; the log has stopped.
    #[error("the log has stopped in the middle of a write: {0}")]
    MaybeStored(Arc<str>),
}

/// Why nothing can be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no such partition (any more).
    #[error("partition {0} is unknown")]
    PartitionUnknown(PartitionId),
    /// The record is gone for good.
    #[error("offset {wanted} was trimmed; the earliest is {earliest}")]
    Trimmed {
        /// What was asked for.
        wanted: Offset,
        /// What is the earliest.
        earliest: Offset,
    },
    /// The bytes on disk are not what was written; other records may still be read.
    #[error("stored bytes are damaged: {0}")]
    Damaged(Arc<str>),
    /// The disk refused.
    #[error("cannot read: {0}")]
    Io(Arc<std::io::Error>),
}

/// Why a stream was not made or changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StreamError {
    /// The name or the `ocid` is taken.
    #[error("a stream of that name or ocid exists")]
    Exists,
    /// There is no such stream.
    #[error("there is no such stream")]
    Unknown,
    /// A stream cannot lose partitions: their records would lose their place.
    #[error("a stream cannot have fewer partitions than the {partitions} it has")]
    Shrink {
        /// How many it has.
        partitions: u16,
    },
    /// Its revision is another than the caller has seen.
    #[error("the stream has changed meanwhile")]
    ChangedMeanwhile,
    /// There are as many streams as the settings allow.
    #[error("there are {streams_max} streams, the most that log.streams_max allows")]
    TooMany {
        /// The bound.
        streams_max: usize,
    },
    /// Records of it have no end yet.
    #[error("{open_len} of its records have no end yet; retry them first")]
    Open {
        /// How many.
        open_len: u64,
    },
    /// The change was not stored.
    #[error(transparent)]
    Commit(#[from] CommitError),
}
