//! Reads records in the order of a page: one partition by offset, several partitions merged by time.
//!
//! Each partition is a lane. The next record is the oldest first record of all lanes; of equal times, the one of the lowest
//! partition. So the next offsets of the lanes decide the order. Within a partition the order is that of the offsets, also
//! if a clock went back.
//!
//! A lane knows a time before which its first record was not stored. The log tells this time without reading records, so a
//! lane is read only when its turn can come. Records are held while there is room, and read again later if there was none,
//! because 256 partitions may each start with a large record.
//!
//! All readings share [`READS_MAX`] permits, so that dispatch, subscribers and status keep enough reads of the log.

#[cfg(test)]
mod tests;

use std::{collections::VecDeque, sync::Arc};

use tokio::{sync::Semaphore, task::yield_now};

use crate::{
    model::{
        ids::{Offset, Partition, PartitionId},
        record::StoredRecord,
    },
    runtime::clock::Timestamp,
    storage::{Engine, ReadError, SettledOffsets},
};

/// Bytes of records that are held, without the last read. With few lanes it is less.
const HELD_BYTES_MAX: usize = 1 << 20;
/// Bytes of one read of the log: the lanes share [`HELD_BYTES_MAX`].
const READ_BYTES: std::ops::RangeInclusive<usize> = (4 << 10)..=(64 << 10);
/// Concurrent reads of all pages: fewer than the log allows.
const READS_MAX: usize = 4;
/// Offsets whose settlements are looked up together.
const ENDS_LEN: u64 = 16_384;
/// Offsets that one page may search for open records, about 0.1 s of work. A page that needs more ends early.
const LOOKED_AT_MAX: u64 = 1 << 22;

/// The permits that all readings share. Clones share them.
#[derive(Clone, Debug)]
pub(in crate::api) struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(READS_MAX)))
    }
}

impl Turns {
    /// Waits for a permit, then reads.
    pub(super) async fn take<T>(&self, reading: impl Future<Output = T>) -> T {
        // The semaphore is never closed.
        let _turn = self.0.acquire().await.ok();
        reading.await
    }
}

/// The rest of the records to read.
pub(super) struct Reading {
    engine: Arc<dyn Engine>,
    turns: Turns,
    lanes: Vec<Lane>,
    /// Skips settled records.
    only_open: bool,
    /// Skips and counts trimmed records; else they are an error.
    passes_trimmed: bool,
    read_bytes: usize,
    held_bytes: usize,
    held_bytes_max: usize,
    looks_left: u64,
    trimmed: u64,
}

/// One partition.
struct Lane {
    of: PartitionId,
    /// Next offset to read from the log: after the held records, or the first record if none is held.
    read_at: Offset,
    /// End of the lane.
    tail: Offset,
    held: VecDeque<Held>,
    /// While no record is held: a time before which the first record was not stored. `None` = not looked up.
    not_before: Option<Timestamp>,
    /// The next records are settled, so only the first record is read.
    alone: bool,
}

/// A held record, in memory of its own, because a slice would keep its whole frame alive.
pub(super) struct Held {
    pub(super) record: StoredRecord,
    pub(super) settled: bool,
}

/// Result of a search for the next open record of a lane.
enum Look {
    /// There is one; `alone` if the next record is settled.
    Found { alone: bool },
    /// There is none up to the tail.
    Nothing,
    /// The page has searched [`LOOKED_AT_MAX`] offsets.
    UsedUp,
}

impl Lane {
    /// Returns a time before which the first record was not stored; its own time if it is held.
    fn not_before(&self) -> Option<Timestamp> {
        let held = self.held.front().map(|first| first.record.time);
        held.or(self.not_before)
    }

    /// Returns the first offset that was not shown yet.
    fn next(&self) -> Offset {
        let held = self.held.front().map(|first| first.record.offset);
        held.unwrap_or(self.read_at)
    }

    /// Drops the held records, and keeps the time of the first; returns their bytes.
    fn release(&mut self) -> usize {
        if let Some(first) = self.held.front() {
            self.not_before = Some(first.record.time);
            self.read_at = first.record.offset;
        }
        let bytes = self.held.iter().map(|held| held.record.record.bytes_len());
        let bytes = bytes.sum();
        self.held.clear();
        bytes
    }
}

impl Reading {
    /// Reads one partition from an offset up to the tail.
    pub(super) fn one(
        engine: Arc<dyn Engine>,
        turns: Turns,
        lane: (PartitionId, Offset, Offset),
        only_open: bool,
    ) -> Self {
        let mut reading = Self::all(engine, turns, vec![lane], only_open);
        reading.passes_trimmed = only_open;
        reading
    }

    /// Reads partitions, each from an offset up to its tail.
    pub(super) fn all(
        engine: Arc<dyn Engine>,
        turns: Turns,
        lanes: Vec<(PartitionId, Offset, Offset)>,
        only_open: bool,
    ) -> Self {
        let share = HELD_BYTES_MAX / lanes.len().max(1);
        let held_bytes_max = HELD_BYTES_MAX.min(lanes.len() * READ_BYTES.end());
        let lane = |(of, from, tail)| Lane {
            of,
            read_at: from,
            tail,
            held: VecDeque::new(),
            not_before: None,
            alone: false,
        };
        Self {
            engine,
            turns,
            lanes: lanes.into_iter().map(lane).collect(),
            only_open,
            passes_trimmed: true,
            read_bytes: share.clamp(*READ_BYTES.start(), *READ_BYTES.end()),
            held_bytes: 0,
            held_bytes_max,
            looks_left: LOOKED_AT_MAX,
            trimmed: 0,
        }
    }

    /// Returns the lane of the next record; `None` at the end of all lanes, or if the page has searched too many offsets.
    ///
    /// # Errors
    /// As [`crate::storage::Log::read`].
    pub(super) async fn next(&mut self) -> Result<Option<usize>, ReadError> {
        loop {
            if !self.find_firsts().await? {
                return Ok(None);
            }
            let lanes = (0..).zip(&self.lanes);
            let first = lanes.filter_map(|(number, lane)| Some((lane.not_before()?, number)));
            let Some((_, first)) = first.min() else {
                return Ok(None);
            };
            if !self.lanes[first].held.is_empty() {
                return Ok(Some(first));
            }
            // The record may be of a later time than the lane knew, so compare the lanes again.
            self.read(first).await?;
        }
    }

    /// Returns the first record of a lane that [`Reading::next`] has named, and its partition.
    pub(super) fn first(&self, lane: usize) -> Option<(Partition, &Held)> {
        let lane = self.lanes.get(lane)?;
        Some((lane.of.partition, lane.held.front()?))
    }

    /// Removes the first record of a lane.
    pub(super) fn pass(&mut self, lane: usize) {
        let lane = &mut self.lanes[lane];
        if let Some(passed) = lane.held.pop_front() {
            self.held_bytes -= passed.record.record.bytes_len();
            lane.not_before = None;
        }
    }

    /// Drops the held records, because the client of the page may read slowly.
    pub(super) fn release(&mut self) {
        for lane in &mut self.lanes {
            self.held_bytes -= lane.release();
        }
    }

    /// Returns the next offset of each lane.
    pub(super) fn positions(&self) -> impl Iterator<Item = (PartitionId, Offset)> {
        self.lanes.iter().map(|lane| (lane.of, lane.next()))
    }

    /// Returns whether every lane was read to its end.
    pub(super) fn is_over(&self) -> bool {
        self.lanes.iter().all(|lane| lane.next() >= lane.tail)
    }

    /// Returns how many records were trimmed before they could be read.
    pub(super) fn trimmed(&self) -> u64 {
        self.trimmed
    }

    /// Returns about how many bytes the reading takes without records.
    pub(super) fn bytes_len(&self) -> usize {
        self.lanes.len() * size_of::<Lane>()
    }

    /// Returns the most bytes of held records, without the last read.
    pub(super) fn held_bytes_max(&self) -> usize {
        self.held_bytes_max
    }

    /// Moves each lane to its first record, and looks up a time before which that was not stored; `false` if the page has
    /// to end first.
    async fn find_firsts(&mut self) -> Result<bool, ReadError> {
        let mut sought = Vec::new();
        for number in 0..self.lanes.len() {
            let lane = &self.lanes[number];
            if lane.not_before().is_some() || lane.read_at >= lane.tail {
                continue;
            }
            if self.only_open {
                match self.look(number).await? {
                    Look::Found { alone } => self.lanes[number].alone = alone,
                    Look::Nothing => continue,
                    Look::UsedUp => return Ok(false),
                }
            }
            sought.push(number);
        }
        if sought.is_empty() {
            return Ok(true);
        }
        let position = |number: &usize| {
            let lane = &self.lanes[*number];
            (lane.of, lane.read_at)
        };
        let positions: Vec<_> = sought.iter().map(position).collect();
        let looked_up = self.turns.take(self.engine.not_before(&positions)).await;
        let times = looked_up.into_iter().map(Some);
        // Without a time, take the earliest one, so that the record is read.
        let times = times.chain(std::iter::repeat(Some(Timestamp::default())));
        for (number, time) in sought.into_iter().zip(times) {
            self.lanes[number].not_before = time;
        }
        Ok(true)
    }

    /// Moves a lane to its next open record, without reading records.
    async fn look(&mut self, number: usize) -> Result<Look, ReadError> {
        let lane = &mut self.lanes[number];
        while lane.read_at < lane.tail {
            if self.looks_left == 0 {
                return Ok(Look::UsedUp);
            }
            let from = lane.read_at;
            let end = from.plus(ENDS_LEN.min(self.looks_left)).min(lane.tail);
            let ended = self.engine.settled_offsets(lane.of, from..end)?;
            let mut offsets = (from.0..end.0).map(Offset);
            let open = offsets.find(|at| !ended.contains(*at));
            lane.read_at = open.unwrap_or(end);
            let looked_at = (lane.read_at.0 - from.0).max(1);
            self.looks_left = self.looks_left.saturating_sub(looked_at);
            if let Some(open) = open {
                let next = open.next();
                let alone = next >= end || ended.contains(next);
                return Ok(Look::Found { alone });
            }
            yield_now().await;
        }
        Ok(Look::Nothing)
    }

    /// Reads the next records of a lane.
    async fn read(&mut self, number: usize) -> Result<(), ReadError> {
        let lane = &mut self.lanes[number];
        let (from, bytes) = match lane.alone {
            true => (lane.read_at, 1),
            false => (lane.read_at, self.read_bytes),
        };
        let read = self.engine.read(lane.of, from, bytes);
        let page = match self.turns.take(read).await {
            Ok(page) => page,
            Err(ReadError::Trimmed { earliest, .. }) if self.passes_trimmed && earliest > from => {
                let earliest = earliest.min(lane.tail);
                // Trimmed records were settled, so a page of open records misses none.
                if !self.only_open {
                    self.trimmed += earliest.0 - from.0;
                }
                (lane.read_at, lane.not_before) = (earliest, None);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let ended = match (page.records.first(), page.records.last()) {
            (Some(first), Some(last)) => {
                let read = first.offset..last.offset.next();
                self.engine.settled_offsets(lane.of, read)?
            }
            _ => SettledOffsets::default(),
        };
        lane.not_before = None;
        // The rest up to the tail may be lost records, of which a page has none.
        lane.read_at = page.next.max(from.next()).min(lane.tail);
        for record in page.records {
            let settled = ended.contains(record.offset);
            if record.offset >= lane.tail {
                break;
            }
            if self.only_open && settled {
                continue;
            }
            self.held_bytes += record.record.bytes_len();
            let record = StoredRecord {
                record: record.record.detached(),
                ..record
            };
            lane.held.push_back(Held { record, settled });
        }
        if self.held_bytes > self.held_bytes_max {
            let others = self.lanes.iter_mut().enumerate();
            let others = others.filter(|(other, _)| *other != number);
            self.held_bytes -= others.map(|(_, lane)| lane.release()).sum::<usize>();
        }
        Ok(())
    }
}
