//! The seam: what the gateway needs of a store, as three traits, and the values they speak of.
//!
//! [`Log`] keeps records in partitions, [`State`] keeps small named values, [`Leases`] says who may finish records.
//! An engine implements all three ([`Engine`]); `embedded` is the one there is. `conformance` is the suite that every
//! engine passes. Callers never see how an engine stores: no file, no tree, no thread.
//!
//! ```text
//! offset   0 1 2 3 4 5 6 7 8
//!          . . . R R R R R
//!                ^         ^
//!         earliest         tail, the first offset not written yet
//! ```
//!
//! Promises of every engine:
//! - [`Log::commit`] answers after what it holds would survive a crash of the process and of the machine.
//! - No reader sees a record before that: a target must never be called for an offset that a crash could give to
//!   another record.
//! - Offsets have no gaps, are never used twice, and outlive a trim of everything.
//! - What one commit holds (records, ends of records, state) is stored together or not at all.
//! - A record gets one end, once: a second one is refused.

pub mod embedded;
#[cfg(test)]
pub(crate) mod memory;
pub mod shares;

#[cfg(test)]
pub(crate) mod conformance;

use std::{fmt, ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    clock::Timestamp,
    place::{Incarnation, Offset, Partition, PartitionId, StreamId, StreamName},
    record::{Record, StoredRecord},
};

use self::shares::ShareBytes;

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
    fn finish_soon(&self, finish: Finish) -> Result<(), CommitError>;

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
    fn finished(&self, of: PartitionId, offsets: Range<Offset>) -> Result<Finished, ReadError>;

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

/// Who may finish the records of a partition.
pub trait Leases: fmt::Debug + Send + Sync + 'static {
    /// Returns the leases on the partitions of a stream, now and as they come and go.
    ///
    /// A lease on partition p covers partition p of every error stream too.
    fn leases(&self, stream: StreamId) -> mpsc::Receiver<LeaseEvent>;
}

/// The greatest value of one state entry.
pub const STATE_BYTES_MAX: usize = 256 * 1024;

/// The greatest memo of a commit.
pub const MEMO_BYTES_MAX: usize = 128 * 1024;

/// What an engine can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// One commit may append to several partitions.
    pub commit_over_partitions: bool,
    /// Appends and ends of one commit are stored together.
    pub finish_atomic: bool,
    /// A commit that is repeated is recognised by its [`DedupId`].
    pub dedup: bool,
    /// Records can be removed before their retention.
    pub trim: bool,
}

/// What is stored together.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// Records to append.
    pub appends: Vec<Append>,
    /// Records that have ended.
    pub finishes: Vec<Finish>,
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
    /// What whoever repeats it is to be told, at most [`MEMO_BYTES_MAX`] bytes; the engine does not look at it.
    pub memo: Bytes,
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
    /// come from outside, each must be there, or be set by the same commit: else [`CommitError::StateConflict`].
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
    /// Its redrive failed; the commit ends the older copy as `Moved`.
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
pub struct Finish {
    /// Its partition.
    pub of: PartitionId,
    /// Its offset.
    pub offset: Offset,
    /// Its end.
    pub end: NewEnd,
    /// How many calls were made for it.
    pub attempts: u32,
    /// The last HTTP status, if a target answered.
    pub status: Option<u16>,
    /// The lease under which this is said.
    pub epoch: Epoch,
}

/// An end, before the engine has given the copy its offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewEnd {
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
    /// First record of `Commit::appends[append]` is its copy after a failed redrive.
    Moved {
        /// Index of the append.
        append: usize,
    },
}

/// An end as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
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

/// How a record ended, as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Its partition.
    pub of: PartitionId,
    /// Its offset.
    pub offset: Offset,
    /// Its end.
    pub end: End,
    /// How many calls were made for it.
    pub attempts: u32,
    /// The last HTTP status, if a target answered.
    pub status: Option<u16>,
    /// When.
    pub time: Timestamp,
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
    /// The memo of an earlier commit with the same [`DedupId`]: all of this is the answer to that one, which may have had
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
    /// Nothing was stored: a record in `finishes` has an end, was trimmed, or was never written.
    #[error("record {of}/{offset} cannot end: it has ended already or is not there")]
    AlreadyFinished {
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

/// Which records of a stream are kept: those that both bounds leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Records from this time on; `None` = of any age.
    pub since: Option<Timestamp>,
    /// The time now, by which an engine sees which of the times it has noted cannot be right.
    pub now: Timestamp,
    /// The newest records of so many bytes, over all partitions; `None` = however many.
    pub bytes_max: Option<u64>,
}

/// First and next offset of a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The first one still there.
    pub earliest: Offset,
    /// The one that the next record will get.
    pub tail: Offset,
}

/// A stream, and which offsets each of its partitions has.
#[derive(Clone, Debug)]
pub struct StreamBounds {
    /// The stream.
    pub stream: Arc<Stream>,
    /// By number of the partition.
    pub partitions: Vec<Bounds>,
    /// Offsets between the bounds whose records were lost to damage, which somebody has accepted; mostly none.
    pub lost: Vec<(Partition, Range<Offset>)>,
}

/// A partition in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionStatus {
    /// Its bounds.
    pub bounds: Bounds,
    /// The first record without an end; the tail if there is none.
    pub low_mark: Offset,
    /// Its books.
    pub counts: Counts,
}

/// The books of all streams at one moment.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Every stream that there is, by name.
    pub streams: Vec<StreamLedger>,
    /// The sum over all streams that are gone; records that were open then count as discarded.
    pub gone: Counts,
    /// How many losses were accepted.
    pub losses_len: u64,
    /// Records that were handed on to another stream, less those that a stream received: 0 until a loss takes one side
    /// away.
    pub unmatched: i64,
}

/// The books of one stream.
#[derive(Clone, Debug)]
pub struct StreamLedger {
    /// The stream.
    pub stream: Arc<Stream>,
    /// How many records came in, and how they ended.
    pub counts: Counts,
    /// How many offsets were given to records.
    pub placed: u64,
    /// How many of them have no end: counted where ends are looked up, and not from `counts`.
    pub open: u64,
}

/// How many records came in, and how they ended, since the stream was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// By [`AppendKind`], in the order of its codes.
    pub appended: [u64; 5],
    /// Taken by a target.
    pub delivered: u64,
    /// Left out by a rule.
    pub filtered: u64,
    /// Put into an error stream.
    pub routed: u64,
    /// Put into another place by a failed redrive.
    pub moved: u64,
    /// Given up by a person, one by one or with all others of a stream that was purged.
    pub discarded: u64,
    /// Trimmed without an end.
    pub expired: u64,
    /// Lost to damage without an end; somebody has accepted that.
    pub lost: u64,
    /// Came in, but as what was lost to damage.
    pub unknown: u64,
}

impl Counts {
    /// Records that came in.
    #[must_use]
    pub fn appended_len(&self) -> u64 {
        self.appended.iter().sum::<u64>() + self.unknown
    }

    /// Records that another stream had handed on.
    #[must_use]
    pub fn received_len(&self) -> u64 {
        let received = [AppendKind::Routed, AppendKind::Moved];
        received
            .map(|kind| self.appended[kind as usize])
            .iter()
            .sum()
    }

    /// Records that have an end.
    #[must_use]
    pub fn ended_len(&self) -> u64 {
        let by_calls = self.delivered + self.filtered + self.routed + self.moved;
        by_calls + self.discarded + self.expired + self.lost
    }

    /// Records that wait for their end.
    #[must_use]
    pub fn open_len(&self) -> u64 {
        self.appended_len().saturating_sub(self.ended_len())
    }

    /// Adds others to these.
    pub fn add(&mut self, others: &Self) {
        for (count, more) in self.appended.iter_mut().zip(others.appended) {
            *count += more;
        }
        self.delivered += others.delivered;
        self.filtered += others.filtered;
        self.routed += others.routed;
        self.moved += others.moved;
        self.discarded += others.discarded;
        self.expired += others.expired;
        self.lost += others.lost;
        self.unknown += others.unknown;
    }
}

/// Records one behind the other.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The records.
    pub records: Vec<StoredRecord>,
    /// Where to go on; equal to the tail if this was the last page.
    pub next: Offset,
    /// The bounds at that moment.
    pub bounds: Bounds,
}

/// Which records of a range have ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finished {
    from: Offset,
    words: Vec<u64>,
}

impl Finished {
    /// A range beginning at `from` in which nothing has ended.
    #[must_use]
    pub fn none(from: Offset, len: usize) -> Self {
        Self {
            from,
            words: vec![0; len.div_ceil(64)],
        }
    }

    /// Notes an end; outside the range it does nothing.
    pub fn set(&mut self, offset: Offset) {
        if let Some((word, bit)) = self.at(offset) {
            self.words[word] |= bit;
        }
    }

    /// Returns whether the record has ended; outside the range it has not.
    #[must_use]
    pub fn contains(&self, offset: Offset) -> bool {
        self.at(offset)
            .is_some_and(|(word, bit)| self.words[word] & bit != 0)
    }

    fn at(&self, offset: Offset) -> Option<(usize, u64)> {
        let distance = offset.0.checked_sub(self.from.0)?;
        let word = usize::try_from(distance / 64).ok()?;
        (word < self.words.len()).then_some((word, 1 << (distance % 64)))
    }
}

/// Events of a stream from which on a purge moves the last purge's event in place of adding one. Every change of the stream
/// writes all of them. Those who read the stream and are past that event hear of no further purge; nothing else is lost.
/// Growth adds events beyond the bound, as there are 255 of them at most, and a purge behind one of these adds one too.
pub const EVENTS_MAX: usize = if cfg!(test) { 128 } else { 65_536 };

/// A stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Its identity.
    pub id: StreamId,
    /// Its life.
    pub incarnation: Incarnation,
    /// Its name.
    pub name: StreamName,
    /// How many partitions it has, 1 to 256.
    pub partitions: u16,
    /// What can be changed about it.
    pub config: StreamConfig,
    /// Grows with every change.
    pub revision: u64,
    /// What happened to it as a whole, in order; takes no offset (`push-decisions.md` §2). About [`EVENTS_MAX`] at most.
    pub events: Vec<ControlEvent>,
    /// Why it was purged, the last time.
    pub last_purge: Option<PurgeNote>,
}

impl Stream {
    /// Returns one of its partitions; `None` if it has none of that number.
    #[must_use]
    pub fn partition(&self, partition: Partition) -> Option<PartitionId> {
        (partition.0 < self.partitions).then_some(PartitionId {
            stream: self.id,
            partition,
        })
    }

    /// Returns the last event by which it was purged.
    #[must_use]
    pub fn purged(&self) -> Option<&ControlEvent> {
        let mut events = self.events.iter().rev();
        events.find(|event| event.kind == ControlEventKind::Purged)
    }

    /// Returns the first offset of a partition that no purge has removed.
    #[must_use]
    pub fn purged_below(&self, partition: Partition) -> Offset {
        let tails = self.purged().map(|event| &event.tails);
        let tail = tails.and_then(|tails| tails.get(usize::from(partition.0)));
        tail.copied().unwrap_or_default()
    }

    /// Returns this stream as it is once it was purged at that time, with these tails.
    pub(crate) fn after_purge(&self, time: Timestamp, tails: Vec<Offset>, note: PurgeNote) -> Self {
        let mut stream = self.clone();
        // Nobody asks for those of earlier purges, and these may be many.
        let purges = stream.events.iter_mut();
        let purges = purges.filter(|event| event.kind == ControlEventKind::Purged);
        purges.for_each(|event| event.tails = Vec::new());
        let last = stream.events.last();
        if stream.events.len() >= EVENTS_MAX
            && last.is_some_and(|last| last.kind == ControlEventKind::Purged)
        {
            stream.events.pop();
        }
        stream.events.push(ControlEvent {
            kind: ControlEventKind::Purged,
            time,
            tails,
        });
        stream.last_purge = Some(note);
        stream
    }

    /// Returns whether this is its name or its `ocid`.
    #[must_use]
    pub fn is_called(&self, text: &str) -> bool {
        self.name.as_str() == text || self.config.ocid.as_deref() == Some(text)
    }

    /// Returns all its partitions.
    pub fn all_partitions(&self) -> impl Iterator<Item = PartitionId> + use<> {
        let stream = self.id;
        (0..self.partitions).map(move |partition| PartitionId {
            stream,
            partition: Partition(partition),
        })
    }
}

/// What can be changed about a stream. Stored as JSON in the journal, so members are only ever added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamConfig {
    /// Who made it, and so who may change it.
    pub made_by: MadeBy,
    /// How long records are kept; `None` = the default of the stream's kind.
    pub retention_hours: Option<u32>,
    /// How many bytes of records are kept; `None` = no bound by size.
    pub retention_bytes: Option<u64>,
    /// Another name under which it can be named in a redrive.
    pub ocid: Option<String>,
}

/// Who made a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MadeBy {
    /// The first start.
    #[default]
    Start,
    /// An entry of `[[streams]]`.
    Config,
    /// A call of the API.
    Api,
}

/// Something that happened to a stream as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlEvent {
    /// What.
    pub kind: ControlEventKind,
    /// When.
    pub time: Timestamp,
    /// The tail of each partition at that moment. A purge that a later one has followed has none any more.
    pub tails: Vec<Offset>,
}

/// Kinds of [`ControlEvent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlEventKind {
    /// The stream was made with that many partitions.
    Created {
        /// How many.
        partitions: u16,
    },
    /// It has that many partitions now.
    Grown {
        /// How many.
        partitions: u16,
    },
    /// All its records were removed, up to the tails.
    Purged,
}

impl ControlEventKind {
    /// Returns how many partitions the stream has from then on, if that is what it says.
    #[must_use]
    pub fn partitions(self) -> Option<u16> {
        match self {
            Self::Created { partitions } | Self::Grown { partitions } => Some(partitions),
            Self::Purged => None,
        }
    }
}

/// Number of a lease on one partition; a later holder has a greater one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub u64);

/// The right to finish records of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The partition.
    pub of: PartitionId,
    /// Goes into every [`Finish`].
    pub epoch: Epoch,
}

/// What becomes of leases.
#[derive(Debug)]
pub enum LeaseEvent {
    /// The partition is ours.
    Granted(Lease),
    /// It will go elsewhere: let attempts end, then say so.
    Revoking(PartitionId, oneshot::Sender<()>),
    /// It is gone.
    Lost(PartitionId),
}

/// What a log takes of its disk, and what is left there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Bytes that may still be written there.
    pub free_bytes: u64,
    /// Bytes that are to stay free: below that, records from outside are refused. 0 = no bound.
    pub free_bytes_min: u64,
    /// Bytes set aside for ends and for copies of failed records, 0 while there are none.
    pub reserve_bytes: u64,
    /// Files of the journal.
    pub files_len: usize,
    /// Their bytes.
    pub files_bytes: u64,
}

/// Whether the log takes appends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Running,
    /// Not those that come from outside, so that ends, and copies of what failed, find space.
    SpaceLow,
    /// It will once there is space on the disk.
    DiskFull,
    /// The disk has not answered for some time; what was to be stored waits, and no more is taken until it does.
    DiskStalled,
    /// It will not before a restart; the first reason.
    Stopped(Arc<str>),
}
