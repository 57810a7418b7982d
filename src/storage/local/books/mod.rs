//! The books: streams, partitions with their settled sets and counts, and state. They are the fold over all operations.
//!
//! Durable operations are applied here, at open by recovery and later by the writer. Both use [`Books::apply`], so a restart
//! leads to the same books.

pub(in crate::storage) mod dedup;
pub(in crate::storage) mod ranges;
pub(in crate::storage) mod settled;

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::Arc,
};

use tokio::sync::watch;

use crate::{
    model::ids::{Offset, Partition, PartitionId, StreamId, StreamName},
    storage::{
        Bounds, Counts, Ledger, PartitionStatus, PurgedPartition, StateEntry, Stream, StreamLedger,
        shares::{ShareBytes, share_of, state_cost},
    },
};

use super::{
    books::{dedup::Dedup, ranges::Ranges, settled::SettledSet},
    format::{
        block::{Block, Slot},
        codec::Malformed,
        ops::{Op, SettleRun, SettlementCode, StreamImage},
    },
};

/// The books at one moment.
#[derive(Debug, Default)]
pub(in crate::storage) struct Books {
    streams: BTreeMap<u32, StreamBook>,
    by_id: HashMap<StreamId, u32>,
    by_name: BTreeMap<StreamName, u32>,
    /// The number that the next stream will get.
    pub(in crate::storage) next_stream: u32,
    /// Time of the last commit.
    pub(in crate::storage) last_time: u64,
    pub(in crate::storage) state: BTreeMap<Arc<str>, StateEntry>,
    /// What the values of `state` take, by share.
    pub(in crate::storage) state_bytes: ShareBytes,
    /// Revision of the last change of any value.
    pub(in crate::storage) state_revision: u64,
    pub(in crate::storage) dedup: Dedup,
    /// Sum of the counts of deleted streams.
    pub(in crate::storage) gone: Counts,
    /// Accepted losses, oldest first, the last [`LOSSES_LEN_MAX`].
    pub(in crate::storage) losses: Vec<Loss>,
    /// Records moved minus records received, over all streams, after accepted losses.
    pub(in crate::storage) unmatched: i64,
}

/// Bound of losses that are kept one by one.
pub(in crate::storage) const LOSSES_LEN_MAX: usize = 1_000;

/// An accepted loss.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::storage) struct Loss {
    /// When, by the clock of then.
    pub(in crate::storage) time: u64,
    /// Numbers of the files.
    pub(in crate::storage) files: Vec<u64>,
    pub(in crate::storage) bytes: u64,
    pub(in crate::storage) frames: u64,
    /// Number of lost records that were settled.
    pub(in crate::storage) ended: u64,
    /// Number of lost records that were open.
    pub(in crate::storage) open: u64,
}

/// One stream.
#[derive(Debug)]
pub(in crate::storage) struct StreamBook {
    pub(in crate::storage) stream: Arc<Stream>,
    pub(in crate::storage) partitions: Vec<PartitionBook>,
}

impl StreamBook {
    /// Returns which offsets were lost, and somebody has accepted that.
    pub(in crate::storage) fn lost(&self) -> impl Iterator<Item = (Partition, Range<Offset>)> {
        let partitions = (0..).map(Partition).zip(&self.partitions);
        partitions.flat_map(|(partition, book)| {
            let lost = book.lost.iter();
            lost.map(move |lost| (partition, Offset(lost.start)..Offset(lost.end)))
        })
    }

    fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        for partition in &self.partitions {
            sum.add(&partition.counts);
        }
        sum
    }

    fn ledger(&self) -> StreamLedger {
        let open = |partition: &PartitionBook| partition.next - partition.settled.len();
        StreamLedger {
            stream: self.stream.clone(),
            counts: self.counts(),
            placed: self.partitions.iter().map(|partition| partition.next).sum(),
            open: self.partitions.iter().map(open).sum(),
        }
    }
}

/// One partition.
#[derive(Debug)]
pub(in crate::storage) struct PartitionBook {
    /// The offset that the next record will get.
    pub(in crate::storage) next: u64,
    pub(in crate::storage) earliest: u64,
    /// Time of the last record.
    pub(in crate::storage) last_time: u64,
    pub(in crate::storage) counts: Counts,
    pub(in crate::storage) settled: SettledSet,
    /// Retained offsets of lost records; all are settled.
    pub(in crate::storage) lost: Arc<Ranges>,
    /// Follows `next`. The writer updates it after readers can see the records.
    pub(in crate::storage) tail: watch::Sender<Offset>,
}

impl Default for PartitionBook {
    fn default() -> Self {
        Self {
            next: 0,
            earliest: 0,
            last_time: 0,
            counts: Counts::default(),
            settled: SettledSet::default(),
            lost: Arc::default(),
            tail: watch::Sender::new(Offset(0)),
        }
    }
}

impl PartitionBook {
    pub(in crate::storage) fn status(&self) -> PartitionStatus {
        PartitionStatus {
            bounds: self.bounds(),
            low_mark: Offset(self.settled.low_mark()),
            counts: self.counts,
        }
    }

    pub(in crate::storage) fn bounds(&self) -> Bounds {
        Bounds {
            earliest: Offset(self.earliest),
            tail: Offset(self.next),
        }
    }

    fn append(&mut self, block: &Block) -> Result<(), Malformed> {
        if block.first != self.next {
            return Err(Malformed("a block does not begin at its partition's tail"));
        }
        self.next = block.end();
        self.last_time = block.last_time;
        self.counts.appended[block.kind as usize] += u64::from(block.count);
        Ok(())
    }

    pub(in crate::storage) fn settle(&mut self, run: &SettleRun) -> Result<(), Malformed> {
        let end = run.first.checked_add(run.count);
        if end.is_none_or(|end| end > self.next) {
            return Err(Malformed("a record ends that was never written"));
        }
        for offset in run.first..run.first + run.count {
            if !self.settled.insert(offset) {
                return Err(Malformed("a record ends twice"));
            }
        }
        let count = match run.end {
            SettlementCode::Delivered => &mut self.counts.delivered,
            SettlementCode::Filtered => &mut self.counts.filtered,
            SettlementCode::Discarded => &mut self.counts.discarded,
            SettlementCode::Routed => &mut self.counts.routed,
            SettlementCode::Moved => &mut self.counts.moved,
        };
        *count += run.count;
        Ok(())
    }

    /// Returns what a purge removes.
    pub(in crate::storage) fn to_purge(&self) -> PurgedPartition {
        PurgedPartition {
            bounds: self.bounds(),
            discarded: self.next - self.settled.len(),
        }
    }

    fn trim(&mut self, below: u64) -> Result<(), Malformed> {
        if below > self.next {
            return Err(Malformed("a trim goes beyond the tail"));
        }
        self.counts.expired += self.remove(below);
        Ok(())
    }

    /// Removes all records below the tail of a purge, and settles the open ones as discarded.
    pub(in crate::storage) fn purge(&mut self, tail: u64) {
        self.counts.discarded += self.remove(tail);
    }

    /// Removes all records below an offset, and returns how many of them were open.
    fn remove(&mut self, below: u64) -> u64 {
        let open = self.settled.trim(below);
        self.earliest = self.earliest.max(below);
        if !self.lost.is_empty() {
            Arc::make_mut(&mut self.lost).trim(self.earliest);
        }
        open
    }

    /// Settles the open records of a range as `lost`, and returns their number.
    pub(in crate::storage) fn lose(&mut self, lost: &Ranges) -> u64 {
        let mut open = 0;
        for offset in lost.iter().flatten() {
            open += u64::from(self.settled.insert(offset));
        }
        self.counts.lost += open;
        open
    }
}

impl Books {
    /// Applies an operation.
    ///
    /// # Errors
    /// An operation that contradicts the books. The journal was then not written by this engine, or is damaged.
    pub(in crate::storage) fn apply(&mut self, op: &Op) -> Result<(), Malformed> {
        match op {
            Op::Append(block) => {
                self.last_time = self.last_time.max(block.last_time);
                self.partition_mut(block.slot)?.append(block)
            }
            Op::Settle(run) => {
                self.last_time = self.last_time.max(run.time);
                self.partition_mut(run.slot)?.settle(run)
            }
            Op::StatePut {
                revision,
                key,
                value,
            } => {
                self.set_state(key, *revision, Some(value.clone()));
                Ok(())
            }
            Op::StateDelete { revision, key } => {
                self.set_state(key, *revision, None);
                Ok(())
            }
            Op::Trim { slot, below } => self.partition_mut(*slot)?.trim(*below),
            Op::StreamMade(image) => self.add_stream(image, Vec::new()),
            Op::StreamChanged(image) => self.change_stream(image),
            Op::StreamGone { stream } => self.remove_stream(*stream),
            Op::Dedup(entry) => {
                self.dedup.insert(entry.clone());
                Ok(())
            }
            Op::Refer { .. } => Ok(()),
        }
    }

    /// Puts a stream in; partitions that are not given are new.
    pub(in crate::storage) fn add_stream(
        &mut self,
        image: &StreamImage,
        mut partitions: Vec<PartitionBook>,
    ) -> Result<(), Malformed> {
        let StreamImage { number, stream } = image;
        let known = self.streams.contains_key(number)
            || self.by_id.contains_key(&stream.id)
            || self.by_name.contains_key(&stream.name);
        if known || partitions.len() > stream.partitions.into() || *number == u32::MAX {
            return Err(Malformed("a stream is there twice"));
        }
        partitions.resize_with(stream.partitions.into(), PartitionBook::default);
        self.by_id.insert(stream.id, *number);
        self.by_name.insert(stream.name.clone(), *number);
        let book = StreamBook {
            stream: stream.clone(),
            partitions,
        };
        self.streams.insert(*number, book);
        self.next_stream = self.next_stream.max(number + 1);
        Ok(())
    }

    pub(in crate::storage) fn change_stream(
        &mut self,
        image: &StreamImage,
    ) -> Result<(), Malformed> {
        let book = self.streams.get_mut(&image.number).ok_or(STREAM_UNKNOWN)?;
        let (old, new) = (&book.stream, &image.stream);
        if old.id != new.id || old.name != new.name || old.partitions > new.partitions {
            return Err(Malformed("a stream changes into another"));
        }
        book.partitions
            .resize_with(new.partitions.into(), PartitionBook::default);
        if let Some(tails) = image.purge_since(Some(old)) {
            let all_of = tails.iter().map(|tail| tail.0);
            if !all_of.eq(book.partitions.iter().map(|partition| partition.next)) {
                return Err(Malformed("a purge does not go up to the tails"));
            }
            for partition in &mut book.partitions {
                partition.purge(partition.next);
            }
        }
        book.stream = new.clone();
        Ok(())
    }

    pub(in crate::storage) fn remove_stream(&mut self, number: u32) -> Result<(), Malformed> {
        let book = self.streams.remove(&number).ok_or(STREAM_UNKNOWN)?;
        self.by_id.remove(&book.stream.id);
        self.by_name.remove(&book.stream.name);
        self.dedup.remove_stream(number);
        let mut counts = book.counts();
        counts.discarded += counts.open_len();
        self.gone.add(&counts);
        Ok(())
    }

    pub(in crate::storage) fn set_state(
        &mut self,
        key: &Arc<str>,
        revision: u64,
        value: Option<bytes::Bytes>,
    ) {
        self.state_revision = self.state_revision.max(revision);
        let bytes = &mut self.state_bytes[share_of(key)];
        let old = match value {
            Some(value) => {
                *bytes += state_cost(key, &value);
                let entry = StateEntry { revision, value };
                self.state.insert(key.clone(), entry)
            }
            None => self.state.remove(key),
        };
        if let Some(old) = old {
            *bytes -= state_cost(key, &old.value);
        }
    }

    pub(in crate::storage) fn ledger(&self) -> Ledger {
        let numbers = self.by_name.values();
        let books = numbers.filter_map(|number| self.streams.get(number));
        Ledger {
            streams: books.map(StreamBook::ledger).collect(),
            gone: self.gone,
            losses_len: self.losses.len() as u64,
            unmatched: self.unmatched,
        }
    }

    /// Returns the partitions with lost records.
    pub(in crate::storage) fn lost(&self) -> impl Iterator<Item = (Slot, &Ranges)> {
        let partitions = self.streams.iter().flat_map(|(number, book)| {
            let partitions = (0u16..).zip(&book.partitions);
            partitions.map(|(partition, book)| ((*number, partition), &*book.lost))
        });
        partitions.filter(|(_, lost)| !lost.is_empty())
    }

    /// Returns all partitions, to be changed.
    pub(in crate::storage) fn partitions_mut(
        &mut self,
    ) -> impl Iterator<Item = (Slot, &mut PartitionBook)> {
        self.streams.iter_mut().flat_map(|(number, book)| {
            let partitions = (0u16..).zip(&mut book.partitions);
            partitions.map(|(partition, book)| ((*number, partition), book))
        })
    }

    /// Puts another stream of the same name in the place of one.
    pub(in crate::storage) fn set_stream(&mut self, number: u32, stream: Arc<Stream>) {
        if let Some(book) = self.streams.get_mut(&number) {
            book.partitions
                .resize_with(stream.partitions.into(), PartitionBook::default);
            book.stream = stream;
        }
    }

    /// Returns the numbers of streams with this id or name.
    pub(in crate::storage) fn called(&self, id: StreamId, name: &StreamName) -> Vec<u32> {
        let known = [self.by_id.get(&id), self.by_name.get(name)];
        let mut numbers: Vec<_> = known.into_iter().flatten().copied().collect();
        numbers.dedup();
        numbers
    }

    /// Returns number and partition, if there are such.
    pub(in crate::storage) fn slot(&self, of: PartitionId) -> Option<Slot> {
        let number = *self.by_id.get(&of.stream)?;
        let partitions = self.streams.get(&number)?.partitions.len();
        (usize::from(of.partition.0) < partitions).then_some((number, of.partition.0))
    }

    pub(in crate::storage) fn partition(
        &self,
        (stream, partition): Slot,
    ) -> Option<&PartitionBook> {
        let book = self.streams.get(&stream)?;
        book.partitions.get(usize::from(partition))
    }

    pub(in crate::storage) fn partition_of(
        &self,
        of: PartitionId,
    ) -> Option<(Slot, &PartitionBook)> {
        let slot = self.slot(of)?;
        Some((slot, self.partition(slot)?))
    }

    pub(in crate::storage) fn partition_mut(
        &mut self,
        (stream, partition): Slot,
    ) -> Result<&mut PartitionBook, Malformed> {
        let book = self.streams.get_mut(&stream).ok_or(STREAM_UNKNOWN)?;
        book.partitions
            .get_mut(usize::from(partition))
            .ok_or(Malformed("a partition is not known"))
    }

    /// Returns all streams by number.
    pub(in crate::storage) fn streams(&self) -> impl Iterator<Item = (u32, &StreamBook)> {
        self.streams.iter().map(|(number, book)| (*number, book))
    }

    pub(in crate::storage) fn streams_len(&self) -> usize {
        self.streams.len()
    }

    /// Returns all streams by name.
    pub(in crate::storage) fn by_name(&self) -> impl Iterator<Item = &StreamBook> {
        self.by_name
            .values()
            .filter_map(|number| self.streams.get(number))
    }

    pub(in crate::storage) fn named(&self, name: &StreamName) -> Option<&StreamBook> {
        self.streams.get(self.by_name.get(name)?)
    }

    /// Returns whether a stream has this as its name or its `ocid`.
    pub(in crate::storage) fn is_taken(&self, text: &str) -> bool {
        let mut books = self.streams.values();
        books.any(|book| book.stream.is_called(text))
    }

    pub(in crate::storage) fn id_of(&self, number: u32) -> Option<StreamId> {
        self.streams.get(&number).map(|book| book.stream.id)
    }

    pub(in crate::storage) fn with_id(&self, id: StreamId) -> Option<(u32, &StreamBook)> {
        let number = *self.by_id.get(&id)?;
        Some((number, self.streams.get(&number)?))
    }
}

const STREAM_UNKNOWN: Malformed = Malformed("a stream is not known");
