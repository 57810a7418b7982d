//! What an engine answers about records, counts and its own state.

use std::{ops::Range, sync::Arc};

use crate::{
    model::{
        ids::{Offset, Partition},
        record::StoredRecord,
    },
    runtime::clock::Timestamp,
};

use super::{commit::AppendKind, streams::Stream};

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
    /// Records that were moved to another stream, less those that a stream received: 0 until a loss takes one side
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
    /// Put into another place by a failed retry.
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

    /// Records that another stream had moved.
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
pub struct SettledOffsets {
    from: Offset,
    words: Vec<u64>,
}

impl SettledOffsets {
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
