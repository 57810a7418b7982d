//! The three traits of an engine: [`Log`], [`State`], [`Leases`].

use std::{fmt, ops::Range, sync::Arc};

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};

use crate::{
    model::ids::{Offset, PartitionId, StreamId, StreamName},
    runtime::clock::Timestamp,
};

use super::{
    Settled,
    commit::{Commit, Committed, DedupId, OpenRecords, PurgeNote, Purged, Settle, StateEntry},
    errors::{CommitError, ReadError, StreamError},
    read::{Health, Keep, Ledger, Page, PartitionStatus, SettledOffsets, Space, StreamBounds},
    shares::ShareBytes,
    streams::{LeaseEvent, Stream, StreamConfig},
};

/// A whole engine.
pub trait Engine: Log + State + Leases {}

impl<T: Log + State + Leases> Engine for T {}

/// An ordered, durable store of partitions, and of the settlement of each record.
#[async_trait]
pub trait Log: fmt::Debug + Send + Sync + 'static {
    /// Returns the capabilities of this engine.
    fn caps(&self) -> Caps;

    /// Appends records, settles others and changes state, all or nothing. Returns the offsets of the new records.
    ///
    /// Everything is durable and readable when it returns.
    ///
    /// # Errors
    /// Each variant of [`CommitError`] says what is true afterwards. Only [`CommitError::MaybeStored`] is uncertain.
    ///
    /// # Cancel safety
    /// A call dropped after it was queued is still stored; the caller only loses the answer.
    async fn commit(&self, commit: Commit) -> Result<Committed, CommitError>;

    /// Queues a settlement without an answer. The writer stores it with the next frame, 5 ms later at most.
    ///
    /// A crash before that write loses the settlement, and the record is dispatched again. The log drops a settlement of a
    /// settled record, with a line in the log. While the log is [`Health::Running`], no later commit is stored before it.
    ///
    /// # Errors
    /// [`CommitError::Busy`] when too many are queued (then use [`Log::commit`] and wait), [`CommitError::Stopped`].
    fn settle_soon(&self, settle: Settle) -> Result<(), CommitError>;

    /// Returns the answer of the earlier commit with that id, if the engine still remembers it.
    ///
    /// Commits in the queue are not included. Only [`Log::commit`] with the same id makes sure that nothing is stored
    /// twice.
    fn committed(&self, stream: StreamId, id: DedupId) -> Option<Committed>;

    /// Returns records from `from` on: at least one if there is one, else as many as fit into `bytes_max`.
    ///
    /// At the tail the page is empty. The page skips lost records and goes on with the next record. If no record follows,
    /// the page is empty and `next` lies after the lost range.
    ///
    /// # Errors
    /// [`ReadError::Trimmed`] below the earliest record. An offset beyond the tail means the tail.
    async fn read(
        &self,
        of: PartitionId,
        from: Offset,
        bytes_max: usize,
    ) -> Result<Page, ReadError>;

    /// Returns a lower bound of each record's time, as near as the engine knows without reading records.
    ///
    /// A lost record gets the bound of the next record. A trimmed record, and one that the engine knows nothing about, gets
    /// the earliest time of all. Readers merge partitions by these bounds, and so need not read the first record of each.
    async fn not_before(&self, places: &[(PartitionId, Offset)]) -> Vec<Timestamp>;

    /// Returns bounds, low watermark and counts of a partition.
    ///
    /// # Errors
    /// [`ReadError::PartitionUnknown`].
    fn status(&self, of: PartitionId) -> Result<PartitionStatus, ReadError>;

    /// Returns a stream and the bounds of all its partitions at one moment.
    ///
    /// A commit over several partitions is in all of the bounds or in none. Records beyond these bounds, and later events
    /// of the stream, have a later time.
    fn bounds(&self, stream: StreamId) -> Option<StreamBounds>;

    /// Returns the books of all streams at one moment.
    fn ledger(&self) -> Ledger;

    /// Returns the tail as a value to watch. It moves when records are durable, and serves as a wake-up only.
    ///
    /// # Errors
    /// [`ReadError::PartitionUnknown`].
    fn tail(&self, of: PartitionId) -> Result<watch::Receiver<Offset>, ReadError>;

    /// Returns which records of `offsets` are settled. Trimmed offsets count as settled, unwritten offsets as open.
    ///
    /// # Errors
    /// [`ReadError::PartitionUnknown`].
    fn settled_offsets(
        &self,
        of: PartitionId,
        offsets: Range<Offset>,
    ) -> Result<SettledOffsets, ReadError>;

    /// Returns the settlements of these ranges in any order, as far as a bounded number of reads finds them.
    ///
    /// Open and trimmed records are left out. An engine without stored settlements returns none. The caller names each
    /// partition once, with a range of at most some thousand offsets.
    ///
    /// # Errors
    /// As [`Log::read`].
    async fn settled(
        &self,
        sought: &[(PartitionId, Range<Offset>)],
    ) -> Result<Vec<Settled>, ReadError> {
        let _untold = sought;
        Ok(Vec::new())
    }

    /// Returns the first open offsets at or after `from`, in order, `len_max` at most. Trimmed offsets are not open.
    ///
    /// # Errors
    /// [`ReadError::PartitionUnknown`].
    fn open_offsets(
        &self,
        of: PartitionId,
        from: Offset,
        len_max: usize,
    ) -> Result<Vec<Offset>, ReadError>;

    /// Returns the first offset whose time is at or after `time`; the tail if there is none.
    ///
    /// # Errors
    /// As [`Log::read`].
    async fn offset_at(&self, of: PartitionId, time: Timestamp) -> Result<Offset, ReadError>;

    /// Returns for each partition of a stream the first offset that `keep` retains.
    ///
    /// An engine may retain more, because it frees space file by file, but never less.
    ///
    /// # Errors
    /// As [`Log::read`].
    async fn first_kept(&self, stream: StreamId, keep: Keep) -> Result<Vec<Offset>, ReadError>;

    /// Removes all records below `below`. Idempotent. An offset beyond the tail means the tail.
    ///
    /// # Errors
    /// As [`Log::commit`].
    async fn trim(&self, of: PartitionId, below: Offset) -> Result<(), CommitError>;

    /// Returns every stream, by name.
    fn streams(&self) -> Vec<Arc<Stream>>;

    /// Returns the stream of that name.
    fn stream(&self, name: &StreamName) -> Option<Arc<Stream>>;

    /// Returns the stream of that id.
    fn stream_by_id(&self, id: StreamId) -> Option<Arc<Stream>>;

    /// Counts up when a stream is made, changed or deleted. The count moves before any later record can be read.
    fn streams_changed(&self) -> watch::Receiver<u64>;

    /// Makes a stream with a new id and a new incarnation.
    ///
    /// # Errors
    /// [`StreamError::Exists`] if the name or the `ocid` is the name or `ocid` of a stream, [`StreamError::TooMany`].
    async fn create_stream(
        &self,
        name: StreamName,
        partitions: u16,
        config: StreamConfig,
    ) -> Result<Arc<Stream>, StreamError>;

    /// Changes the config, or adds partitions: `partitions` may only go up.
    ///
    /// `revision`, if given, is the [`Stream::revision`] that the caller has seen. The caller checks that the `ocid` is free,
    /// because two streams could not exchange their `ocid`s if the engine did.
    ///
    /// # Errors
    /// [`StreamError::Shrink`], [`StreamError::ChangedMeanwhile`], [`StreamError::Unknown`].
    async fn change_stream(
        &self,
        id: StreamId,
        partitions: u16,
        config: StreamConfig,
        revision: Option<u64>,
    ) -> Result<Arc<Stream>, StreamError>;

    /// Removes a stream with its records and their settlements.
    ///
    /// The engine checks for open records in the order of commits, so no record enters the stream between check and
    /// removal.
    ///
    /// # Errors
    /// [`StreamError::Open`], [`StreamError::ChangedMeanwhile`], [`StreamError::Unknown`].
    async fn delete_stream(
        &self,
        id: StreamId,
        revision: Option<u64>,
        open: OpenRecords,
    ) -> Result<(), StreamError>;

    /// Removes all records of a stream and settles the open ones as `discarded`, in one write with the purge event. Offsets
    /// go on from the tail.
    ///
    /// The engine checks for open records in the order of commits, after all settlements queued earlier. A purge without new
    /// records since the last purge stores nothing.
    ///
    /// # Errors
    /// [`StreamError::Open`], [`StreamError::Unknown`].
    async fn purge_stream(
        &self,
        id: StreamId,
        open: OpenRecords,
        note: PurgeNote,
    ) -> Result<Purged, StreamError>;

    /// Says whether the log takes appends.
    fn health(&self) -> watch::Receiver<Health>;

    /// Returns the used and the free space of the log's disk. A disk that hangs keeps the caller waiting.
    ///
    /// # Errors
    /// [`ReadError::Io`].
    async fn space(&self) -> Result<Space, ReadError>;

    /// Writes all queued commits, marks the end of the journal and stops. Later commits are refused as `Stopped`.
    async fn close(&self);
}

/// Named values of at most [`STATE_BYTES_MAX`] bytes. Only [`Log::commit`] changes them.
#[async_trait]
pub trait State: fmt::Debug + Send + Sync + 'static {
    /// Returns the value of that name.
    async fn get(&self, key: &str) -> Option<StateEntry>;

    /// Returns every value whose name begins with `prefix`, by name.
    async fn list(&self, prefix: &str) -> Vec<(Arc<str>, StateEntry)>;

    /// Counts up when a value whose name begins with `prefix` has changed.
    fn changed(&self, prefix: &str) -> watch::Receiver<u64>;

    /// Returns how many bytes the values of each kind take, in the order of [`shares::SHARES`].
    fn share_bytes(&self) -> ShareBytes;
}

/// Grants the right to settle the records of a partition.
pub trait Leases: fmt::Debug + Send + Sync + 'static {
    /// Returns the leases on the partitions of a stream: the present ones and each later change.
    ///
    /// A lease on partition p covers partition p of every error stream too.
    fn leases(&self, stream: StreamId) -> mpsc::Receiver<LeaseEvent>;
}

/// The greatest value of one state entry.
pub const STATE_BYTES_MAX: usize = 256 * 1024;

/// The greatest reply of a commit.
pub const REPLY_BYTES_MAX: usize = 128 * 1024;

/// The capabilities of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// One commit may append to several partitions.
    pub commit_over_partitions: bool,
    /// Appends and settlements of one commit are stored together.
    pub settle_atomic: bool,
    /// The engine recognises a repeated commit by its [`DedupId`].
    pub dedup: bool,
    /// Records can be removed before their retention.
    pub trim: bool,
}
