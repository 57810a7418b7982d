//! Errors of an engine. Each variant says what is true after it.

use std::sync::Arc;

use crate::model::ids::{Offset, PartitionId};

/// Why a commit is not, or may not be, stored.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// Nothing was stored: the queue is full, or the disk does not answer. A later call may succeed.
    #[error("append queue is full")]
    Busy,
    /// Nothing was stored; a later call may succeed once there is space. Records from outside are refused earlier than
    /// settlements and copies, for which the reserve is kept.
    #[error("disk is full")]
    DiskFull,
    /// Nothing was stored, and no later call with the same commit can succeed.
    #[error("{what} has {bytes} bytes, {bytes_max} are the most")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// Nothing was stored: the partition does not exist, or no longer.
    #[error("partition {0} is unknown")]
    PartitionUnknown(PartitionId),
    /// Nothing was stored: a record in `settles` is settled, was trimmed, or was never written.
    #[error("record {of}/{offset} cannot be settled: it is settled already or does not exist")]
    AlreadySettled {
        /// Its partition.
        of: PartitionId,
        /// Its offset.
        offset: Offset,
    },
    /// Nothing was stored: another process holds the lease now.
    #[error("the lease on {0} is gone")]
    Fenced(PartitionId),
    /// Nothing was stored. A state value has another revision than expected, or a record refers to a value that is removed
    /// or absent.
    #[error("state {key} has changed meanwhile")]
    StateConflict {
        /// Its name.
        key: Arc<str>,
    },
    /// Nothing was stored: the values of one kind would exceed their share of the state. A later call may succeed once
    /// some values of that kind are removed.
    #[error("the share of {kind} in the state is full ({bytes_max} bytes)")]
    StateFull {
        /// The kind; see [`shares::SHARES`].
        kind: &'static str,
        /// Its share.
        bytes_max: usize,
    },
    /// Nothing was stored, and nothing can be stored until a restart.
    #[error("the log has stopped: {0}")]
    Stopped(Arc<str>),
    /// The commit may be stored; the next start decides. The log has stopped.
    #[error("the log has stopped in the middle of a write: {0}")]
    MaybeStored(Arc<str>),
}

/// Why a read fails.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The partition does not exist, or no longer.
    #[error("partition {0} is unknown")]
    PartitionUnknown(PartitionId),
    /// The record was trimmed.
    #[error("offset {wanted} was trimmed; the earliest is {earliest}")]
    Trimmed {
        /// The offset of the call.
        wanted: Offset,
        /// The earliest retained offset.
        earliest: Offset,
    },
    /// The bytes on disk fail their checksum; other records can still be read.
    #[error("stored bytes are damaged: {0}")]
    Damaged(Arc<str>),
    /// The operating system refused the read.
    #[error("cannot read: {0}")]
    Io(Arc<std::io::Error>),
}

/// Why a stream was not made or changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StreamError {
    /// Another stream has the name or the `ocid`.
    #[error("a stream of that name or ocid exists")]
    Exists,
    /// There is no such stream.
    #[error("there is no such stream")]
    Unknown,
    /// A stream cannot lose partitions, because their records would be lost.
    #[error("a stream cannot have fewer partitions than the {partitions} it has")]
    Shrink {
        /// How many it has.
        partitions: u16,
    },
    /// Its revision differs from the one that the caller has seen.
    #[error("the stream has changed meanwhile")]
    ChangedMeanwhile,
    /// The number of streams has reached `log.streams_max`.
    #[error("there are {streams_max} streams, the most that log.streams_max allows")]
    TooMany {
        /// The bound.
        streams_max: usize,
    },
    /// The stream has open records.
    #[error("{open_len} of its records are open; retry them first")]
    Open {
        /// How many.
        open_len: u64,
    },
    /// The change was not stored.
    #[error(transparent)]
    Commit(#[from] CommitError),
}
