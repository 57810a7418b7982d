//! Answers of an engine about records, counts and its own health.

use std::{ops::Range, sync::Arc};

use crate::{
    model::{
        ids::{Offset, Partition},
        record::StoredRecord,
    },
    runtime::clock::Timestamp,
};

use super::{commit::AppendKind, streams::Stream};

/// Which records of a stream are retained: those that satisfy both bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Records from this time on; `None` = of any age.
    pub since: Option<Timestamp>,
    /// The time now. Noted times beyond it cannot be right, and the engine ignores them.
    pub now: Timestamp,
    /// The newest records up to this size, over all partitions; `None` = no bound.
    pub bytes_max: Option<u64>,
}

/// First and next offset of a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The first retained offset.
    pub earliest: Offset,
    /// The offset that the next record will get.
    pub tail: Offset,
}

/// A stream with the bounds of its partitions.
#[derive(Clone, Debug)]
pub struct StreamBounds {
    /// The stream.
    pub stream: Arc<Stream>,
    /// By number of the partition.
    pub partitions: Vec<Bounds>,
    /// Offsets between the bounds whose records were lost to damage, after an operator accepted the loss. Mostly none.
    pub lost: Vec<(Partition, Range<Offset>)>,
}

/// A partition in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionStatus {
    /// Its bounds.
    pub bounds: Bounds,
    /// The first open record; the tail if there is none.
    pub low_mark: Offset,
    /// Its books.
    pub counts: Counts,
}

/// The books of all streams at one moment.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Every stream, by name.
    pub streams: Vec<StreamLedger>,
    /// The sum over all deleted streams; records that were open then count as discarded.
    pub gone: Counts,
    /// Number of accepted losses.
    pub losses_len: u64,
    /// Records moved to another stream minus records received. It is 0 until an accepted loss removes one of both sides.
    pub unmatched: i64,
}

/// The books of one stream.
#[derive(Clone, Debug)]
pub struct StreamLedger {
    /// The stream.
    pub stream: Arc<Stream>,
    /// Records by origin and by settlement.
    pub counts: Counts,
    /// Number of offsets given to records.
    pub placed: u64,
    /// Number of open records. It is counted in the settled sets and not derived from `counts`, so that the ledger can
    /// compare both.
    pub open: u64,
}

/// Records by origin and by settlement, since the stream was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// By [`AppendKind`], in the order of its codes.
    pub appended: [u64; 5],
    /// Accepted by a target.
    pub delivered: u64,
    /// Filtered out by a dispatch rule.
    pub filtered: u64,
    /// Put into an error stream.
    pub routed: u64,
    /// Moved to another offset or stream by a failed retry.
    pub moved: u64,
    /// Discarded by an operator, one by one or by a purge.
    pub discarded: u64,
    /// Trimmed while open.
    pub expired: u64,
    /// Lost to damage while open, after an operator accepted the loss.
    pub lost: u64,
    /// Records of unknown origin, because damage took the origin and an operator accepted the loss.
    pub unknown: u64,
}

impl Counts {
    /// Number of records that were appended.
    #[must_use]
    pub fn appended_len(&self) -> u64 {
        self.appended.iter().sum::<u64>() + self.unknown
    }

    /// Number of records that came from another stream.
    #[must_use]
    pub fn received_len(&self) -> u64 {
        let received = [AppendKind::Routed, AppendKind::Moved];
        received
            .map(|kind| self.appended[kind as usize])
            .iter()
            .sum()
    }

    /// Number of settled records.
    #[must_use]
    pub fn ended_len(&self) -> u64 {
        let by_calls = self.delivered + self.filtered + self.routed + self.moved;
        by_calls + self.discarded + self.expired + self.lost
    }

    /// Number of open records.
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

/// Consecutive records.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The records.
    pub records: Vec<StoredRecord>,
    /// The offset of the next page; equal to the tail after the last page.
    pub next: Offset,
    /// The bounds at the time of the read.
    pub bounds: Bounds,
}

/// The settled records of a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettledOffsets {
    from: Offset,
    words: Vec<u64>,
}

impl SettledOffsets {
    /// A range from `from` on without a settled record.
    #[must_use]
    pub fn none(from: Offset, len: usize) -> Self {
        Self {
            from,
            words: vec![0; len.div_ceil(64)],
        }
    }

    /// Marks an offset as settled; an offset outside of the range is ignored.
    pub fn set(&mut self, offset: Offset) {
        if let Some((word, bit)) = self.at(offset) {
            self.words[word] |= bit;
        }
    }

    /// Returns whether the offset is marked as settled; false outside of the range.
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

/// Used and free space of a log's disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Free bytes.
    pub free_bytes: u64,
    /// Bytes that must stay free. Below that, records from outside are refused. 0 = no bound.
    pub free_bytes_min: u64,
    /// Bytes reserved for settlements and for copies of failed records; 0 while the reserve is not made.
    pub reserve_bytes: u64,
    /// Number of journal files.
    pub files_len: usize,
    /// Bytes of all journal files.
    pub files_bytes: u64,
}

/// Whether the log takes appends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// The log takes all appends.
    Running,
    /// The log refuses records from outside, so that settlements and copies of failed records find space.
    SpaceLow,
    /// The log refuses all appends until there is space on the disk.
    DiskFull,
    /// The disk has not answered for 10 s. Queued commits wait, and new ones are refused until the disk answers.
    DiskStalled,
    /// The log refuses all appends until a restart; holds the first reason.
    Stopped(Arc<str>),
}
