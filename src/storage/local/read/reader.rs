//! Reading records: from the newest frames in memory, else from the files.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use tokio::{sync::Semaphore, task::spawn_blocking};

use crate::{
    model::{
        ids::{Offset, Partition, PartitionId, StreamId},
        record::StoredRecord,
    },
    runtime::clock::Timestamp,
    storage::{Bounds, Keep, Page, ReadError},
};

use super::{blocks::BlockRef, lookup::Lookup};
use crate::storage::local::{
    books::ranges::Ranges,
    format::{
        block::{Block, Slot},
        codec::Malformed,
        segment,
    },
    lock,
    shared::{EngineState, View},
};

/// Advice in every error about damage.
const ASK_DOCTOR: &str = "stop the gateway and ask `syncgate doctor`";

/// Number of concurrent reads from disk; further reads wait.
const DISK_READS_MAX: usize = 8;
/// Number of concurrent checks of free space. They have permits of their own, so that many readers of records cannot delay
/// them.
const LOOKS_MAX: usize = 2;

/// Reads records. Clones share all state.
#[derive(Clone, Debug)]
pub(in crate::storage) struct RecordReader {
    pub(in crate::storage) shared: Arc<EngineState>,
    pub(in crate::storage) lookup: Arc<Lookup>,
    permits: Arc<Semaphore>,
    looks: Arc<Semaphore>,
    /// Permit for the one search for settlements that may read files.
    pub(in crate::storage) settled_turn: Arc<Semaphore>,
    /// Reads on the calling thread, and not on the blocking pool.
    #[cfg(test)]
    pub(in crate::storage) on_the_spot: bool,
}

impl RecordReader {
    pub(in crate::storage) fn new(shared: Arc<EngineState>) -> Self {
        Self {
            lookup: Arc::new(Lookup::new(shared.clone())),
            shared,
            permits: Arc::new(Semaphore::new(DISK_READS_MAX)),
            looks: Arc::new(Semaphore::new(LOOKS_MAX)),
            settled_turn: Arc::new(Semaphore::new(1)),
            #[cfg(test)]
            on_the_spot: false,
        }
    }

    pub(in crate::storage) async fn read(
        &self,
        of: PartitionId,
        from: Offset,
        bytes_max: usize,
    ) -> Result<Page, ReadError> {
        let mut page = Pages::new(from, bytes_max);
        let (slot, bounds) = {
            let view = lock::read(&self.shared.view);
            let (slot, bounds) = find(&view, of)?;
            if from < bounds.earliest {
                return Err(ReadError::Trimmed {
                    wanted: from,
                    earliest: bounds.earliest,
                });
            }
            // Lost ranges are skipped.
            let lost = view.books.partition(slot).map(|book| book.lost.clone());
            page.lost = lost.unwrap_or_default();
            page.pass_lost();
            page.collect(&view, slot);
            (slot, bounds)
        };
        let from = Offset(page.next);
        if from >= bounds.tail {
            return Ok(Page {
                records: Vec::new(),
                next: bounds.tail,
                bounds,
            });
        }
        if page.blocks.is_empty() {
            let read = self.on_disk(move |reader| reader.read_disk(slot, bounds, page));
            page = match read.await {
                Ok(page) => page,
                Err(error) => {
                    // The record may have been trimmed, and its file freed, since the bounds were read.
                    let (_, bounds) = find(&lock::read(&self.shared.view), of)?;
                    return Err(match from < bounds.earliest {
                        true => ReadError::Trimmed {
                            wanted: from,
                            earliest: bounds.earliest,
                        },
                        false => error,
                    });
                }
            };
        } else {
            page.unpack().map_err(|what| damaged("memory", 0, what))?;
        }
        Ok(Page {
            records: page.records,
            next: Offset(page.next),
            bounds,
        })
    }

    /// As [`crate::storage::Log::not_before`]. The header of a block has the time of its first record.
    pub(in crate::storage) async fn not_before(
        &self,
        places: &[(PartitionId, Offset)],
    ) -> Vec<Timestamp> {
        let mut times = vec![Timestamp::default(); places.len()];
        let mut unknown = Vec::new();
        {
            let view = lock::read(&self.shared.view);
            for (at, (of, offset)) in places.iter().enumerate() {
                let Ok((slot, bounds)) = find(&view, *of) else {
                    continue;
                };
                if *offset < bounds.earliest {
                    continue;
                }
                let book = view.books.partition(slot);
                let lost = book.and_then(|book| book.lost.around(offset.0));
                let offset = lost.map_or(offset.0, |lost| lost.end);
                let cached = view.cache.from(slot, offset).next();
                let cached = cached.map(|block| block.base_time);
                let known = || Some(view.blocks.find(slot, offset)?.first_time);
                match cached.or_else(known) {
                    Some(time) => times[at] = Timestamp(time),
                    None if offset < bounds.tail.0 => unknown.push((at, slot, offset)),
                    None => {}
                }
            }
        }
        if unknown.is_empty() {
            return times;
        }
        let found = self.on_disk(move |reader| {
            let index = &reader.shared.index;
            let time = |(at, slot, offset)| Some((at, index.find(slot, offset)?.first_time));
            Ok(unknown.into_iter().filter_map(time).collect::<Vec<_>>())
        });
        // A block that is not in the index keeps the earliest time, so the caller reads its record.
        for (at, time) in found.await.unwrap_or_default() {
            times[at] = Timestamp(time);
        }
        times
    }

    pub(in crate::storage) async fn offset_at(
        &self,
        of: PartitionId,
        time: Timestamp,
    ) -> Result<Offset, ReadError> {
        loop {
            let (slot, bounds) = find(&lock::read(&self.shared.view), of)?;
            let found = self.on_disk(move |reader| reader.search_time(slot, bounds, time.0));
            match found.await {
                Ok(offset) => return Ok(offset),
                Err(error) => {
                    let (_, now) = find(&lock::read(&self.shared.view), of)?;
                    if now.earliest == bounds.earliest {
                        return Err(error);
                    }
                }
            }
        }
    }

    pub(in crate::storage) async fn first_kept(
        &self,
        stream: StreamId,
        keep: Keep,
    ) -> Result<Vec<Offset>, ReadError> {
        let (number, partitions) = {
            let view = lock::read(&self.shared.view);
            let found = view.books.with_id(stream);
            let (number, book) = found.ok_or(ReadError::PartitionUnknown(PartitionId {
                stream,
                partition: Partition(0),
            }))?;
            (number, book.stream.partitions)
        };
        let by_file = {
            let usage = lock::mutex(&self.shared.usage);
            let mut begins = keep
                .bytes_max
                .map_or_else(HashMap::new, |bytes_max| usage.cut(number, bytes_max));
            if let Some(since) = keep.since {
                for (slot, begin) in usage.older(number, since.0, keep.now.0) {
                    let known = begins.entry(slot).or_default();
                    *known = begin.max(*known);
                }
            }
            begins
        };
        let mut kept = Vec::with_capacity(partitions.into());
        for partition in 0..partitions {
            let of = PartitionId {
                stream,
                partition: Partition(partition),
            };
            let (slot, bounds) = find(&lock::read(&self.shared.view), of)?;
            let by_time = match keep.since {
                Some(since) => self.offset_at(of, since).await?,
                None => bounds.earliest,
            };
            let by_file = by_file.get(&slot).copied().unwrap_or_default();
            kept.push(by_time.max(Offset(by_file)));
        }
        Ok(kept)
    }

    pub(in crate::storage) async fn on_disk<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Self) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        self.in_turn(&self.permits, read).await
    }

    /// As [`Self::on_disk`], but does not wait for reads of records.
    pub(in crate::storage) async fn beside<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Self) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        self.in_turn(&self.looks, look).await
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        turns: &Arc<Semaphore>,
        read: impl FnOnce(&Self) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        #[cfg(test)]
        if self.on_the_spot {
            return read(self);
        }
        let stopped = || ReadError::Io(Arc::new(std::io::Error::other("reading was stopped")));
        let permit = turns.clone().acquire_owned().await;
        let permit = permit.map_err(|_closed| stopped())?;
        let this = self.clone();
        let task = spawn_blocking(move || {
            let _permit = permit;
            read(&this)
        });
        task.await.map_err(|_cancelled| stopped())?
    }

    /// Reads blocks from files until the page is full, the tail is reached or memory has the rest.
    fn read_disk(&self, slot: Slot, bounds: Bounds, mut page: Pages) -> Result<Pages, ReadError> {
        while page.next < bounds.tail.0 && !page.full {
            let before = page.next;
            let read = self.block(slot, page.next).and_then(|block| {
                page.blocks.push(block);
                page.unpack()
                    .map_err(|what| damaged("a block", page.next, what))
            });
            match read {
                // Full before the first record of this block.
                Ok(()) if page.full => break,
                Ok(()) if page.next > before => {}
                // What was read before the bad block is good; the next call meets it first.
                Err(_) if !page.records.is_empty() => break,
                Ok(()) => return Err(missing(page.next)),
                Err(error) => return Err(error),
            }
            if !page.full {
                page.collect(&lock::read(&self.shared.view), slot);
                if !page.blocks.is_empty() {
                    page.unpack().map_err(|what| damaged("memory", 0, what))?;
                    break;
                }
            }
        }
        Ok(page)
    }

    /// Returns the first offset with a time at or after `time`.
    fn search_time(&self, slot: Slot, bounds: Bounds, time: u64) -> Result<Offset, ReadError> {
        let _in_use = lock::read(&self.shared.files.in_use);
        let (mut low, mut high) = (bounds.earliest.0, bounds.tail.0);
        let mut last_before = None;
        let lost = self.lost(slot);
        // Blocks are as good as records here: one begins before the time, the next one does not.
        while low < high {
            let middle = low + (high - low) / 2;
            // What is lost has no time: what lies behind it says on which side to search.
            let probe = match lost.around(middle) {
                Some(lost) if lost.end >= high => {
                    high = lost.start.max(low);
                    continue;
                }
                Some(lost) => lost.end,
                None => middle,
            };
            let block = self.find(slot, probe)?;
            if block.first_time >= time && probe > middle {
                high = middle;
            } else if block.first_time >= time {
                high = block.first.max(bounds.earliest.0).min(high - 1);
            } else {
                low = block.end();
                last_before = Some(block);
            }
        }
        let Some(block) = last_before else {
            return Ok(bounds.earliest);
        };
        let bytes = self.load(slot, &block)?;
        let mut records = bytes.records();
        while let Some(record) = records.next_time() {
            let (offset, at) = record.map_err(|what| damaged("a block", block.first, what))?;
            if at >= time && offset >= bounds.earliest.0 {
                return Ok(Offset(offset));
            }
        }
        Ok(Offset(block.end()))
    }

    fn lost(&self, slot: Slot) -> Arc<Ranges> {
        let view = lock::read(&self.shared.view);
        let book = view.books.partition(slot);
        book.map(|book| book.lost.clone()).unwrap_or_default()
    }

    fn block(&self, slot: Slot, offset: u64) -> Result<Block, ReadError> {
        let _in_use = lock::read(&self.shared.files.in_use);
        let found = self.find(slot, offset)?;
        self.load(slot, &found)
    }

    fn find(&self, slot: Slot, offset: u64) -> Result<BlockRef, ReadError> {
        let found = self.lookup.find(slot, offset);
        let found = found.map_err(|error| ReadError::Io(Arc::new(error)))?;
        found.ok_or_else(|| match self.lookup.file_of(slot, offset) {
            Some(path) => damaged(
                &path.display().to_string(),
                offset,
                Malformed("no readable block has this offset"),
            ),
            None => missing(offset),
        })
    }

    /// Reads a block and checks that it is the one that was looked for.
    fn load(&self, slot: Slot, wanted: &BlockRef) -> Result<Block, ReadError> {
        let failed = |error| ReadError::Io(Arc::new(error));
        let (life, file) = self.shared.files.get(wanted.segment).map_err(failed)?;
        let read = segment::read_some(&*file, wanted.len as usize, wanted.place);
        let bytes = read.map_err(failed)?;
        let path = self.shared.files.path(wanted.segment);
        let bad = |what| damaged(&path.display().to_string(), wanted.place, what);
        let block = Block::decode(&Bytes::from(bytes), life, wanted.place).map_err(bad)?;
        if block.slot != slot || block.first != wanted.first || block.count != wanted.count {
            return Err(bad(Malformed("another block is there")));
        }
        Ok(block)
    }
}

/// A page in the making.
#[derive(Debug)]
struct Pages {
    next: u64,
    bytes: usize,
    bytes_max: usize,
    full: bool,
    records: Vec<StoredRecord>,
    lost: Arc<Ranges>,
    /// Blocks whose records are wanted, not unpacked yet.
    blocks: Vec<Block>,
}

impl Pages {
    fn new(from: Offset, bytes_max: usize) -> Self {
        Self {
            next: from.0,
            bytes: 0,
            bytes_max,
            full: false,
            records: Vec::new(),
            lost: Arc::default(),
            blocks: Vec::new(),
        }
    }

    /// Takes as many blocks from memory as may fit; unpacking them is left for when the lock is gone.
    fn collect(&mut self, view: &View, slot: Slot) {
        let mut bytes = self.bytes;
        for block in view.cache.from(slot, self.next) {
            self.blocks.push(block.clone());
            // The first one may hold records that are not wanted, so it says nothing about the page's size.
            if self.blocks.len() > 1 {
                bytes += block.records_bytes();
            }
            if bytes > self.bytes_max {
                break;
            }
        }
    }

    fn pass_lost(&mut self) {
        if let Some(lost) = self.lost.around(self.next) {
            self.next = lost.end;
        }
    }

    fn unpack(&mut self) -> Result<(), Malformed> {
        for block in self.blocks.drain(..) {
            let mut records = block.records();
            records.skip_to(self.next);
            for record in records {
                let record = match record {
                    Ok(record) => record,
                    Err(_) if !self.records.is_empty() => {
                        self.full = true;
                        return Ok(());
                    }
                    Err(what) => return Err(what),
                };
                let len = record.record.bytes_len();
                if !self.records.is_empty() && self.bytes + len > self.bytes_max {
                    self.full = true;
                    return Ok(());
                }
                self.bytes += len;
                self.next = record.offset.0 + 1;
                self.records.push(record);
            }
        }
        self.pass_lost();
        Ok(())
    }
}

fn find(view: &View, of: PartitionId) -> Result<(Slot, Bounds), ReadError> {
    let found = view.books.partition_of(of);
    let (slot, book) = found.ok_or(ReadError::PartitionUnknown(of))?;
    Ok((slot, book.bounds()))
}

fn damaged(what: &str, place: u64, malformed: Malformed) -> ReadError {
    ReadError::Damaged(format!("{what}, at {place}: {malformed}; {ASK_DOCTOR}").into())
}

fn missing(offset: u64) -> ReadError {
    let what = format!("the journal has no readable block with offset {offset}; {ASK_DOCTOR}");
    ReadError::Damaged(what.into())
}
