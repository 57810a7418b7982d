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

/// An ordered, durable store of partitions, and of how each record ended.
#[async_trait]
pub trait Log: fmt::Debug + Send + Sync + 'static {
    /// Returns what this engine can and cannot do.
    fn caps(&self) -> Caps;

    /// Appends records, ends others and changes state, all or nothing, and returns where the records landed.
    ///
    /// Everything is durable and readable when it returns.
    ///
    /// # Errors
    /// Each variant of [`CommitError`] says what is then true; only [`CommitError::MaybeStored`] leaves it open.
    ///
    /// # Cancel safety
    /// A call dropped after it was queued is still stored; the caller only loses the answer.
    async fn commit(&self, commit: Commit) -> Result<Committed, CommitError>;

    /// Queues an end that nobody waits for: it travels with the next write, 5 ms later at most.
    ///
    /// A crash before that write forgets it, and the record is dispatched again. An end that the log then refuses
    /// (the record has one already) is logged and dropped. While the log is [`Health::Running`], a commit that is asked
    /// for later is not stored before it.
    ///
    /// # Errors
    /// [`CommitError::Busy`] when too many are queued (use [`Log::commit`] and wait), [`CommitError::Stopped`].
    fn settle_soon(&self, settle: Settle) -> Result<(), CommitError>;

    /// Returns what the commit with that id was answered, if there was one and it is remembered.
    ///
    /// A commit that is on its way is not in here: only [`Log::commit`] itself, with the same id, makes sure that nothing
    /// is stored twice.
    fn committed(&self, stream: StreamId, id: DedupId) -> Option<Committed>;

    /// Returns records from `from` on: at least one if there is one, else as many as fit into `bytes_max`.
    ///
    /// At the tail the page is empty. A record that was lost is passed over: the page has those behind it, and is empty
    /// if there is none, with `next` behind what was lost.
    ///
    /// # Errors
    /// [`ReadError::Trimmed`] below the earliest record; beyond the tail it means the tail.
    async fn read(
        &self,
        of: PartitionId,
        from: Offset,
        bytes_max: usize,
    ) -> Result<Page, ReadError>;

    /// Returns for each place a time before which its record was not stored, as near as is known without reading records.
    ///
    /// Of a lost record it is that of the one behind it. Where nothing is known, and where the record was trimmed, it is the
    /// earliest time that there is. So several partitions are merged without reading the first records of all.
    async fn not_before(&self, places: &[(PartitionId, Offset)]) -> Vec<Timestamp>;

    /// Returns bounds, low mark and counts.
    ///
    /// # Errors
    /// [`ReadError::PartitionUnknown`].
    fn status(&self, of: PartitionId) -> Result<PartitionStatus, ReadError>;

    /// Returns a stream and the bounds of all its partitions as they stood at one moment: a commit over several of them
    /// is in all or in none, and whatever is stored behind these bounds, or happens to the stream, has a later time.
    fn bounds(&self, stream: StreamId) -> Option<StreamBounds>;

    /// Returns the books of all streams as they stood at one moment.
    fn ledger(&self) -> Ledger;

    /// Returns the tail as a value to watch: it moves when records are durable. A wake-up, never data.
    ///
    /// # Errors
    /// [`ReadError::PartitionUnknown`].
    fn tail(&self, of: PartitionId) -> Result<watch::Receiver<Offset>, ReadError>;

    /// Returns which records of `offsets` have an end. What is trimmed counts as ended, what is not written as open.
    ///
    /// # Errors
    /// [`ReadError::PartitionUnknown`].
    fn settled_offsets(
        &self,
        of: PartitionId,
        offsets: Range<Offset>,
    ) -> Result<SettledOffsets, ReadError>;

    /// Returns how records of these ranges ended, in any order, as far as that can be found with a bounded number of reads.
    ///
    /// Those without an end are left out, and so are trimmed ones. An engine that keeps no ends tells of none. Ranges are of
    /// sensible length, and each partition is there once.
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

    /// Returns the first offsets without an end at or after `from`, in order, `len_max` at most. What is trimmed has ended.
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

    /// Returns for each partition of a stream where it begins if it keeps no more than `keep` asks for.
    ///
    /// An engine may keep more, since it gives space back in larger pieces, but never less.
    ///
    /// # Errors
    /// As [`Log::read`].
    async fn first_kept(&self, stream: StreamId, keep: Keep) -> Result<Vec<Offset>, ReadError>;

    /// Removes everything below `below`. Idempotent; past the tail it means the tail.
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

    /// Counts up whenever a stream is made, changed or gone. No record that was stored after that is read before it has.
    fn streams_changed(&self) -> watch::Receiver<u64>;

    /// Makes a stream with a new id and a new incarnation.
    ///
    /// # Errors
    /// [`StreamError::Exists`] if a stream has its name or its `ocid` as either of the two, [`StreamError::TooMany`].
    async fn create_stream(
        &self,
        name: StreamName,
        partitions: u16,
        config: StreamConfig,
    ) -> Result<Arc<Stream>, StreamError>;

    /// Changes config, or adds partitions: `partitions` may only go up.
    ///
    /// `revision`, if given, is the [`Stream::revision`] that the caller has seen. Whether an `ocid` of `config` is free
    /// is the caller's to see to: two streams could not exchange theirs otherwise.
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

    /// Removes a stream with its records and their ends.
    ///
    /// Records without an end are looked for where commits are ordered: no record gets into the stream between the look
    /// and the removal.
    ///
    /// # Errors
    /// [`StreamError::Open`], [`StreamError::ChangedMeanwhile`], [`StreamError::Unknown`].
    async fn delete_stream(
        &self,
        id: StreamId,
        revision: Option<u64>,
        open: OpenRecords,
    ) -> Result<(), StreamError>;

    /// Removes all records of a stream that are there, and gives those without an end the end `discarded`: in one write,
    /// with the event that says so. Offsets go on where they were.
    ///
    /// Records without an end are looked for where commits are ordered, behind the ends that were queued before. Where
    /// nothing has come since the stream was purged last, nothing is stored.
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

    /// Returns what the log takes of its disk, and what is left there. A disk that hangs keeps the caller waiting.
    ///
    /// # Errors
    /// [`ReadError::Io`].
    async fn space(&self) -> Result<Space, ReadError>;

    /// Writes what is queued, marks the end of the journal and stops. Later commits are refused as `Stopped`.
    async fn close(&self);
}

/// Named values of at most [`STATE_BYTES_MAX`] bytes. They are changed by [`Log::commit`] alone.
#[async_trait]
pub trait State: fmt::Debug + Send + Sync + 'static {
    /// Returns the value of that name.
    async fn get(&self, key: &str) -> Option<StateEntry>;

    /// Returns every value whose name begins with `prefix`, by name.
    async fn list(&self, prefix: &str) -> Vec<(Arc<str>, StateEntry)>;

    /// Counts up whenever a value whose name begins with `prefix` has changed.
    fn changed(&self, prefix: &str) -> watch::Receiver<u64>;

    /// Returns how many bytes the values of each kind take, in the order of [`shares::SHARES`].
    fn share_bytes(&self) -> ShareBytes;
}

/// Who may settle the records of a partition.
pub trait Leases: fmt::Debug + Send + Sync + 'static {
    /// Returns the leases on the partitions of a stream, now and as they come and go.
    ///
    /// A lease on partition p covers partition p of every error stream too.
    fn leases(&self, stream: StreamId) -> mpsc::Receiver<LeaseEvent>;
}

/// The greatest value of one state entry.
pub const STATE_BYTES_MAX: usize = 256 * 1024;

/// The greatest reply of a commit.
pub const REPLY_BYTES_MAX: usize = 128 * 1024;

/// What an engine can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// One commit may append to several partitions.
    pub commit_over_partitions: bool,
    /// Appends and ends of one commit are stored together.
    pub settle_atomic: bool,
    /// A commit that is repeated is recognised by its [`DedupId`].
    pub dedup: bool,
    /// Records can be removed before their retention.
    pub trim: bool,
}
