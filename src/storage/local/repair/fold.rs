//! The fold over operations some of which are missing: as [`Books::apply`], but what refers to something that was lost is
//! no contradiction any more. What it shows of what was lost is taken in, the rest is left out and counted.
//!
//! ```text
//! a block, an end or a trim beyond the tail   the records between were there: their offsets are given away
//! a partition that the stream does not have   the stream had grown
//! a stream that is changed, and not known     it was made
//! a purge that the stream did not know of     all below its tails was there, and is gone
//! a stream that is made, of a name in use     the one of that name was deleted
//! anything else of a stream that is not known it is left out; the stream's number is not given again
//! ```

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use crate::{
    model::ids::Offset,
    runtime::clock::Timestamp,
    storage::{ControlEvent, ControlEventKind, Stream},
};

use crate::storage::local::{
    PARTITIONS_MAX,
    books::{Books, PartitionBook, ranges::Ranges},
    format::{
        block::{LostBlock, Slot},
        codec::Malformed,
        ops::{Op, SettleRun, StreamImage},
    },
};

/// Books in the making.
#[derive(Debug, Default)]
pub(in crate::storage) struct Fold {
    pub(in crate::storage) books: Books,
    /// Operations are missing. Until then nothing is tolerated.
    pub(in crate::storage) shaken: bool,
    pub(in crate::storage) shown: Shown,
    /// Offsets whose records were not seen.
    skipped: HashMap<Slot, Ranges>,
}

/// What operations have shown of those that are missing.
#[derive(Clone, Debug, Default)]
pub(in crate::storage) struct Shown {
    /// Records of streams that are not known, by the number of the stream.
    pub(in crate::storage) strangers: BTreeMap<u32, u64>,
    /// Names of streams that had more partitions.
    pub(in crate::storage) grown: BTreeSet<String>,
    /// Names of streams that were deleted.
    pub(in crate::storage) deleted: BTreeSet<String>,
    /// State that records need.
    pub(in crate::storage) refers: BTreeSet<Arc<str>>,
    /// Lost records that a later trim has removed.
    pub(in crate::storage) trimmed: u64,
}

impl Fold {
    /// Takes in an operation; returns whether it could be placed.
    pub(in crate::storage) fn op(&mut self, op: &Op) -> Result<bool, Malformed> {
        // Those are found again in the files.
        if matches!(op, Op::Dedup(_)) {
            return Ok(true);
        }
        if !self.shaken {
            return self.books.apply(op).map(|()| true);
        }
        match op {
            Op::Append(block) => {
                let count = block.end() - block.first;
                if !self.reach(block.slot, block.first, count)? {
                    return Ok(false);
                }
                self.books.apply(op)?;
            }
            Op::Settle(run) => return self.settle(run),
            Op::Trim { slot, below } => return self.trim(*slot, *below),
            Op::StreamMade(image) => self.made(image)?,
            Op::StreamChanged(image) => match self.books.id_of(image.number) {
                None => self.made(image)?,
                Some(_) => self.changed(image)?,
            },
            Op::StreamGone { stream } => {
                if self.books.id_of(*stream).is_none() {
                    self.meet(*stream, 0);
                    return Ok(false);
                }
                self.books.apply(op)?;
            }
            Op::Refer { key } => {
                self.shown.refers.insert(key.clone());
            }
            Op::Dedup(_) | Op::StatePut { .. } | Op::StateDelete { .. } => self.books.apply(op)?,
        }
        Ok(true)
    }

    /// Takes in a block of which only the header can be read.
    pub(in crate::storage) fn lost(&mut self, block: &LostBlock) -> Result<(), Malformed> {
        if self.shaken && !self.reach(block.slot, block.first, block.end - block.first)? {
            return Ok(());
        }
        self.books.last_time = self.books.last_time.max(block.time);
        let book = self.books.partition_mut(block.slot)?;
        if block.first != book.next {
            return Err(Malformed("a block does not begin at its partition's tail"));
        }
        book.counts.appended[block.kind as usize] += block.end - block.first;
        book.next = block.end;
        book.last_time = book.last_time.max(block.time);
        let skipped = self.skipped.entry(block.slot).or_default();
        skipped.add(block.first..block.end);
        Ok(())
    }

    /// Gives away the offsets up to `first`; returns whether `count` records have their place there.
    fn reach(&mut self, slot: Slot, first: u64, count: u64) -> Result<bool, Malformed> {
        if !self.knows(slot) {
            self.meet(slot.0, count);
            return Ok(false);
        }
        let book = self.books.partition_mut(slot)?;
        if first < book.next {
            return Ok(false);
        }
        if first > book.next {
            let skipped = self.skipped.entry(slot).or_default();
            skipped.add(book.next..first);
            book.counts.unknown += first - book.next;
            book.next = first;
        }
        Ok(true)
    }

    fn settle(&mut self, run: &SettleRun) -> Result<bool, Malformed> {
        let end = run.first.saturating_add(run.count);
        if !self.knows(run.slot) {
            self.meet(run.slot.0, 0);
            return Ok(false);
        }
        self.books.last_time = self.books.last_time.max(run.time);
        let book = self.books.partition_mut(run.slot)?;
        if end > book.next {
            self.reach(run.slot, end, 0)?;
        }
        let book = self.books.partition_mut(run.slot)?;
        let one = |first| SettleRun {
            first,
            count: 1,
            ..run.clone()
        };
        for offset in run.first..end {
            if !book.settled.contains(offset) {
                book.settle(&one(offset))?;
            }
        }
        Ok(true)
    }

    fn trim(&mut self, slot: Slot, below: u64) -> Result<bool, Malformed> {
        if !self.knows(slot) {
            self.meet(slot.0, 0);
            return Ok(false);
        }
        let book = self.books.partition_mut(slot)?;
        if below > book.next {
            self.reach(slot, below, 0)?;
        }
        self.forget(slot, below)?;
        self.books.apply(&Op::Trim { slot, below })?;
        Ok(true)
    }

    /// Removes all below a purge's tails. Ends that were lost since are not told from those that there were.
    fn purge(&mut self, number: u32, tails: &[Offset]) -> Result<(), Malformed> {
        for (partition, tail) in (0..).zip(tails) {
            let slot = (number, partition);
            if !self.knows(slot) {
                continue;
            }
            self.reach(slot, tail.0, 0)?;
            self.forget(slot, tail.0)?;
            self.books.partition_mut(slot)?.purge(tail.0);
        }
        Ok(())
    }

    /// Says of what was skipped below an offset that goes that it is lost.
    fn forget(&mut self, slot: Slot, below: u64) -> Result<(), Malformed> {
        // It did not expire, nor was it discarded: nobody knows how it ended.
        let mut gone = self.skipped.get(&slot).cloned().unwrap_or_default();
        let mut kept = gone.clone();
        kept.trim(below);
        gone = gone.without(&kept);
        let book = self.books.partition_mut(slot)?;
        self.shown.trimmed += book.lose(&gone);
        self.skipped.insert(slot, kept);
        Ok(())
    }

    fn made(&mut self, image: &StreamImage) -> Result<(), Malformed> {
        let Stream { id, name, .. } = &*image.stream;
        for number in self.books.called(*id, name) {
            self.shown.deleted.insert(name.to_string());
            self.books.remove_stream(number)?;
        }
        self.books.add_stream(image, Vec::new())?;
        self.purge(image.number, image.purge_since(None).unwrap_or_default())
    }

    fn changed(&mut self, image: &StreamImage) -> Result<(), Malformed> {
        let mut stream = Stream::clone(&image.stream);
        let known = self.books.streams().find(|(n, _)| *n == image.number);
        let mut was = None;
        if let Some((_, book)) = known {
            stream.partitions = stream.partitions.max(book.stream.partitions);
            was = Some(book.stream.clone());
        }
        self.books.set_stream(image.number, Arc::new(stream));
        if let Some(tails) = image.purge_since(was.as_deref()) {
            self.purge(image.number, tails)?;
        }
        Ok(())
    }

    /// Returns whether a partition is known; one of a stream that is known is made.
    fn knows(&mut self, slot: Slot) -> bool {
        let (number, partition) = slot;
        if self.books.partition(slot).is_some() {
            return true;
        }
        let known = self.books.streams().find(|(n, _)| *n == number);
        let Some((_, book)) = known.filter(|_| partition < PARTITIONS_MAX) else {
            return false;
        };
        let mut stream = Stream::clone(&book.stream);
        let partitions = partition + 1;
        let mut tails: Vec<_> = book.partitions.iter().map(|p| Offset(p.next)).collect();
        tails.resize(partitions.into(), Offset(0));
        stream.partitions = partitions;
        stream.revision += 1;
        stream.events.push(ControlEvent {
            kind: ControlEventKind::Grown { partitions },
            time: Timestamp(self.books.last_time),
            tails,
        });
        self.shown.grown.insert(stream.name.to_string());
        self.books.set_stream(number, Arc::new(stream));
        true
    }

    fn meet(&mut self, stream: u32, records: u64) {
        *self.shown.strangers.entry(stream).or_default() += records;
        self.books.next_stream = self.books.next_stream.max(stream.saturating_add(1));
    }

    /// Says durably-to-be what is lost: of the retained offsets those that no file `holds`. Returns by partition what was not
    /// known to be lost, and how many of these have no end.
    pub(in crate::storage) fn mark_lost(
        &mut self,
        holds: &HashMap<Slot, Ranges>,
    ) -> BTreeMap<Slot, (Ranges, u64)> {
        let none = Ranges::default();
        let mut settled = BTreeMap::new();
        for (slot, book) in self.books.partitions_mut() {
            let held = holds.get(&slot).unwrap_or(&none);
            let lost = held.holes(book.earliest..book.next);
            let new = lost.without(&book.lost);
            let open = book.lose(&new);
            if !new.is_empty() {
                settled.insert(slot, (new, open));
            }
            book.lost = Arc::new(lost);
        }
        if self.shaken {
            self.books.unmatched = unmatched(&self.books);
        }
        settled
    }
}

/// Returns how many more records were moved than received.
fn unmatched(books: &Books) -> i64 {
    let ledger = books.ledger();
    let mut counts = ledger.gone;
    for stream in &ledger.streams {
        counts.add(&stream.counts);
    }
    let moved = counts.routed + counts.moved;
    let received = counts.received_len();
    i64::try_from(i128::from(moved) - i128::from(received)).unwrap_or(i64::MAX)
}

/// Returns what a partition's book is worth to a search: its tail.
pub(in crate::storage) fn only_tail(next: u64) -> PartitionBook {
    PartitionBook {
        next,
        ..PartitionBook::default()
    }
}
