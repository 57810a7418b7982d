//! Records in the order in which they are shown: those of one partition by offset, those of several merged by time.
//!
//! Each partition is a lane. The record that is shown next is the first of the lane whose first record is the oldest; of
//! records with the same time it is that of the lowest partition. So the order is fixed by the places where the lanes
//! stand, and within a partition it is that of the offsets, also where a clock went back.
//!
//! Memory and disk: of every lane a time is known before which its first record was not stored; the log knows that without
//! reading records. Records are read when it is their turn, held as far as there is room, and read again where there was none,
//! because 256 partitions may each begin with a large record.
//!
//! All readings share [`READS_MAX`] turns, so that the log's own are left to dispatch, subscribers and status.

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

/// Bytes of records that are held, and one read more. With few lanes it is less.
const HELD_BYTES_MAX: usize = 1 << 20;
/// Asked of the log at a time: the lanes share the room.
const READ_BYTES: std::ops::RangeInclusive<usize> = (4 << 10)..=(64 << 10);
/// Reads of all pages at the same time; it is less than what the log does at the same time.
const READS_MAX: usize = 4;
/// Ends looked up together.
const ENDS_LEN: u64 = 16_384;
/// Offsets looked at for open records of one page, about 0.1 s of work. A page over more ends early.
const LOOKED_AT_MAX: u64 = 1 << 22;

/// The turns that all readings share. Clones share them.
#[derive(Clone, Debug)]
pub(in crate::api) struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(READS_MAX)))
    }
}

impl Turns {
    /// Reads when it is its turn.
    pub(super) async fn take<T>(&self, reading: impl Future<Output = T>) -> T {
        // It is never closed.
        let _turn = self.0.acquire().await.ok();
        reading.await
    }
}

/// What is left to be read.
pub(super) struct Reading {
    engine: Arc<dyn Engine>,
    turns: Turns,
    lanes: Vec<Lane>,
    /// Records that have an end are passed over.
    only_open: bool,
    /// Records that were trimmed are passed over and counted; if not, they are an error.
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
    /// Where the log is read next: behind what is held, or at the first record if that is not held.
    read_at: Offset,
    /// Where the lane ends.
    tail: Offset,
    held: VecDeque<Held>,
    /// While nothing is held: the first record was not stored before that. `None` = not looked up.
    not_before: Option<Timestamp>,
    /// The first record stands alone among records that have ended, and is read alone.
    alone: bool,
}

/// A record that is held, in memory of its own: a slice would keep its whole frame alive.
pub(super) struct Held {
    pub(super) record: StoredRecord,
    pub(super) settled: bool,
}

/// What a look for the next open record of a lane came to.
enum Look {
    /// There is one; it may stand alone among records that have ended.
    Found { alone: bool },
    /// There is none up to the tail.
    Nothing,
    /// No more offsets may be looked at for this page.
    UsedUp,
}

impl Lane {
    /// Before this time the first record was not stored; it is its own time if the record is held.
    fn not_before(&self) -> Option<Timestamp> {
        let held = self.held.front().map(|first| first.record.time);
        held.or(self.not_before)
    }

    /// The first offset that is not shown yet.
    fn next(&self) -> Offset {
        let held = self.held.front().map(|first| first.record.offset);
        held.unwrap_or(self.read_at)
    }

    /// Lets the records go, but for the time of the first; returns their bytes.
    fn let_go(&mut self) -> usize {
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

    /// Returns the lane of the record that is shown next; `None` at the end of all lanes, or where the page has to end
    /// because it has looked at too many offsets.
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
            // It may turn out to be of a later time, and another one's turn comes first then.
            self.read(first).await?;
        }
    }

    /// Returns the first record of a lane that [`Reading::next`] has named, and its partition.
    pub(super) fn first(&self, lane: usize) -> Option<(Partition, &Held)> {
        let lane = self.lanes.get(lane)?;
        Some((lane.of.partition, lane.held.front()?))
    }

    /// Goes behind the first record of a lane.
    pub(super) fn pass(&mut self, lane: usize) {
        let lane = &mut self.lanes[lane];
        if let Some(passed) = lane.held.pop_front() {
            self.held_bytes -= passed.record.record.bytes_len();
            lane.not_before = None;
        }
    }

    /// Lets the records go that are held, because the reader of the page may be slow.
    pub(super) fn let_go(&mut self) {
        for lane in &mut self.lanes {
            self.held_bytes -= lane.let_go();
        }
    }

    /// Returns where each lane stands.
    pub(super) fn places(&self) -> impl Iterator<Item = (PartitionId, Offset)> {
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

    /// Returns about how many bytes it takes itself, without records.
    pub(super) fn bytes_len(&self) -> usize {
        self.lanes.len() * size_of::<Lane>()
    }

    /// Returns how many bytes of records are held, at most; what was read last comes on top.
    pub(super) fn held_bytes_max(&self) -> usize {
        self.held_bytes_max
    }

    /// Goes to the first record of each lane that has one, and looks up before which time it was not stored; `false` if the
    /// page has to end before that.
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
        let place = |number: &usize| {
            let lane = &self.lanes[*number];
            (lane.of, lane.read_at)
        };
        let places: Vec<_> = sought.iter().map(place).collect();
        let looked_up = self.turns.take(self.engine.not_before(&places)).await;
        let times = looked_up.into_iter().map(Some);
        // A time that is missing is the earliest: the record is read then.
        let times = times.chain(std::iter::repeat(Some(Timestamp::default())));
        for (number, time) in sought.into_iter().zip(times) {
            self.lanes[number].not_before = time;
        }
        Ok(true)
    }

    /// Goes to the next open record of a lane without reading any.
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

    /// Reads the records of a lane that come first.
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
                // What is not open any more is no loss to a reader of open records.
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
        // Nothing but lost records may be left before the tail.
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
            self.held_bytes -= others.map(|(_, lane)| lane.let_go()).sum::<usize>();
        }
        Ok(())
    }
}
