//! A stream in the order of delivery: its partitions and its control events, merged by time, partition and offset.
//!
//! A run reads from a place to the bounds that the stream had when the run began. Every record after those bounds has
//! a later time (`Log::bounds`). So consecutive runs give every reader the same order, wherever each run begins.

pub(super) mod frame;
pub(super) mod frames;
pub(super) mod gaps;
pub(super) mod hub;

use std::{collections::VecDeque, sync::Arc};

use futures_util::future::select_all;
use tokio::sync::oneshot;

use crate::{
    log::Streams,
    model::{
        ids::{Incarnation, Offset, Partition, PartitionId, StreamId},
        record::StoredRecord,
    },
    runtime::{
        clock::Timestamp,
        tasks::{Part, Tasks},
    },
    storage::{Bounds, ControlEvent, Page, ReadError, Stream, StreamBounds},
};

use super::position::StreamPlace;

/// Bytes of the pages of all partitions together; but no page is smaller than a block of the log.
const PAGES_BYTES: usize = 1 << 20;
const PAGE_BYTES_MIN: usize = 64 << 10;
/// With more partitions than that, pages are not read ahead, because many of them are in memory already.
const AHEAD_LANES_MAX: usize = 4;

/// Why a stream cannot be read on.
#[derive(Debug, thiserror::Error)]
pub(super) enum FeedError {
    /// The stream was deleted.
    #[error("the stream is gone")]
    Gone,
    /// Records after the place were removed before they were read.
    #[error("records were removed before they were sent")]
    Overtaken(FeedGap),
    /// The log cannot be read here.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// The records that were removed before they were read, and where to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FeedGap {
    /// Partition, first missing offset, first offset that is there again.
    pub(super) missing: Vec<(Partition, u64, u64)>,
    /// The place after the gap.
    pub(super) behind: StreamPlace,
}

/// The next record or event of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The control event with that number, from 1.
    Event(u64),
    /// The next unread record of that partition.
    Record(Partition),
}

/// Records that were read and not taken, for the next run.
#[derive(Debug, Default)]
pub(super) struct Carry(Vec<Read>);

impl Carry {
    /// Returns how many bytes its records have.
    pub(super) fn bytes_len(&self) -> usize {
        let records = self.0.iter().flat_map(|read| &read.records);
        records.map(|stored| stored.record.bytes_len()).sum()
    }
}

/// The records read of one partition.
#[derive(Debug, Default)]
struct Read {
    records: VecDeque<StoredRecord>,
    /// The page after `records`, which a task is reading.
    ahead: Option<Ahead>,
}

/// A page that a task reads.
#[derive(Debug)]
struct Ahead {
    from: Offset,
    page: oneshot::Receiver<Result<Page, ReadError>>,
}

/// Part of the order of delivery, from a place on.
#[derive(Debug)]
pub(super) struct Run<'a> {
    streams: &'a Streams,
    tasks: &'a Tasks,
    stream: Arc<Stream>,
    lanes: Vec<Lane>,
    place: StreamPlace,
    page_bytes: usize,
}

/// One partition.
#[derive(Debug)]
struct Lane {
    of: PartitionId,
    read: Read,
    /// Offset that is read next.
    next: Offset,
    tail: Offset,
    /// The run ends before its tail, because the next records were lost.
    is_cut: bool,
}

impl Lane {
    /// Returns the time of the first record that is left.
    fn time(&self) -> Option<Timestamp> {
        let first = self.read.records.front()?;
        (first.offset < self.tail).then_some(first.time)
    }
}

impl<'a> Run<'a> {
    /// Starts a run, with the bounds that the stream has now.
    pub(super) fn begin(
        streams: &'a Streams,
        tasks: &'a Tasks,
        stream: StreamId,
        place: StreamPlace,
        carry: Carry,
    ) -> Result<Self, FeedError> {
        let found = streams.engine().bounds(stream).ok_or(FeedError::Gone)?;
        if let Some(gap) = gap(&found, &place) {
            return Err(FeedError::Overtaken(gap));
        }
        let StreamBounds {
            stream,
            partitions,
            lost: found_lost,
        } = found;
        let mut carried = carry.0.into_iter();
        let lane = |(of, bounds): (PartitionId, &Bounds)| {
            let begins = next_of(&place, of.partition);
            let mut read: Read = carried.next().unwrap_or_default();
            // Carried records of another place are useless.
            let first = read.records.front();
            if first.is_some_and(|first| first.offset < begins) {
                read.records.clear();
            }
            let last = read.records.back();
            let lost = found_lost
                .iter()
                .find(|(partition, lost)| *partition == of.partition && lost.start >= begins);
            Lane {
                next: last.map_or(begins, |last| last.offset.next()),
                read,
                of,
                tail: lost.map_or(bounds.tail, |(_, lost)| lost.start),
                is_cut: lost.is_some(),
            }
        };
        let lanes: Vec<_> = stream.all_partitions().zip(&partitions).map(lane).collect();
        let page_bytes = (PAGES_BYTES / lanes.len().max(1)).max(PAGE_BYTES_MIN);
        Ok(Self {
            streams,
            tasks,
            stream,
            lanes,
            place,
            page_bytes,
        })
    }

    /// Returns the place after everything that was taken.
    pub(super) fn place(&self) -> &StreamPlace {
        &self.place
    }

    /// Returns the stream as it was when the run began.
    pub(super) fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// Returns the next record or event; `None` at the bounds.
    pub(super) async fn next(&mut self) -> Result<Option<Next>, FeedError> {
        for number in 0..self.lanes.len() {
            self.fill(number).await?;
        }
        let ends = |lane: &Lane| lane.is_cut && lane.time().is_none();
        if self.lanes.iter().any(ends) {
            // The next records here were lost. The run ends, and the next one reports the gap.
            return Ok(None);
        }
        let lanes = self.lanes.iter().enumerate();
        let first = lanes
            .filter_map(|(number, lane)| Some((lane.time()?, number)))
            .min();
        let seen = usize::try_from(self.place.events).unwrap_or(usize::MAX);
        Ok(match (self.stream.events.get(seen), first) {
            (Some(event), Some((time, _))) if event.time > time => record(first),
            (Some(_), _) => Some(Next::Event(self.place.events + 1)),
            (None, _) => record(first),
        })
    }

    /// Reads until the first record of a partition is in memory, if there is one.
    async fn fill(&mut self, number: usize) -> Result<(), FeedError> {
        let reads_ahead = self.lanes.len() <= AHEAD_LANES_MAX;
        let lane = &mut self.lanes[number];
        while lane.read.records.is_empty() && lane.next < lane.tail {
            let page = match page(self.streams, lane, self.page_bytes).await {
                Ok(page) => page,
                Err(ReadError::Trimmed { .. }) => {
                    let found = self.streams.engine().bounds(self.stream.id);
                    let found = found.ok_or(FeedError::Gone)?;
                    let gap = gap(&found, &self.place);
                    return Err(gap.map_or(FeedError::Gone, FeedError::Overtaken));
                }
                Err(ReadError::PartitionUnknown(_)) => return Err(FeedError::Gone),
                Err(error) => return Err(error.into()),
            };
            lane.next = page.next.max(lane.next);
            lane.read.records = page.records.into();
            if lane.read.records.is_empty() {
                return Err(FeedError::Overtaken(passed_over(lane, &self.place)));
            } else if reads_ahead && lane.next < lane.tail {
                lane.read.ahead = Some(ahead(self.streams, self.tasks, lane, self.page_bytes));
            }
        }
        Ok(())
    }

    /// Returns a record that [`Run::next`] has named.
    pub(super) fn record(&self, partition: Partition) -> Option<&StoredRecord> {
        self.lanes[usize::from(partition.0)].read.records.front()
    }

    /// Returns about how many bytes the encoder reads of `next`.
    pub(super) fn bytes_len(&self, next: Next) -> usize {
        match next {
            Next::Event(_) => 0,
            Next::Record(partition) => self
                .record(partition)
                .map_or(0, |stored| stored.record.bytes_len()),
        }
    }

    /// Returns an event that [`Run::next`] has named.
    pub(super) fn event(&self, number: u64) -> Option<&ControlEvent> {
        let at = usize::try_from(number.checked_sub(1)?).ok()?;
        self.stream.events.get(at)
    }

    /// Moves `place` to the place after `next`.
    pub(super) fn behind(&self, next: Next, place: &mut StreamPlace) {
        place.clone_from(&self.place);
        match next {
            Next::Event(number) => {
                place.events = number;
                if let Some(event) = self.event(number) {
                    take_in(event, place);
                }
            }
            Next::Record(partition) => {
                if let Some(record) = self.record(partition) {
                    pass(place, partition, record.offset.next());
                }
            }
        }
    }

    /// Takes `next` and moves the run to the place after it, which `behind` holds; `behind` gets the old place.
    /// scratch.
    pub(super) fn take(&mut self, next: Next, behind: &mut StreamPlace) {
        if let Next::Record(partition) = next {
            self.lanes[usize::from(partition.0)]
                .read
                .records
                .pop_front();
        }
        std::mem::swap(&mut self.place, behind);
    }

    /// Ends the run; returns its place and the records that were read and not taken.
    pub(super) fn end(self) -> (StreamPlace, Carry) {
        let read = self.lanes.into_iter().map(|lane| lane.read);
        (self.place, Carry(read.collect()))
    }
}

/// Returns the next page of a partition, from the task that reads it ahead if there is one.
async fn page(streams: &Streams, lane: &mut Lane, bytes: usize) -> Result<Page, ReadError> {
    if let Some(ahead) = lane
        .read
        .ahead
        .take()
        .filter(|ahead| ahead.from == lane.next)
        && let Ok(page) = ahead.page.await
    {
        return page;
    }
    streams.engine().read(lane.of, lane.next, bytes).await
}

/// Starts a task that reads the next page of a partition.
fn ahead(streams: &Streams, tasks: &Tasks, lane: &Lane, bytes: usize) -> Ahead {
    let (tell, page) = oneshot::channel();
    let (engine, of, from) = (streams.engine().clone(), lane.of, lane.next);
    tasks.spawn_guarded(Part::Page, async move {
        let page = engine.read(of, from, bytes).await;
        #[cfg(test)]
        provoke(page.as_ref().ok());
        // Ignore send errors: the run may have ended.
        let _told = tell.send(page).is_ok();
    });
    Ahead { from, page }
}

#[cfg(test)]
fn provoke(page: Option<&Page>) {
    let records = page.into_iter().flat_map(|page| &page.records);
    for stored in records {
        crate::runtime::tasks::provoke(Part::Page, &stored.record.value);
    }
}

fn record(first: Option<(Timestamp, usize)>) -> Option<Next> {
    let (_, number) = first?;
    Some(Next::Record(Partition(u16::try_from(number).ok()?)))
}

pub(super) fn next_of(place: &StreamPlace, partition: Partition) -> Offset {
    let next = place.next.get(usize::from(partition.0));
    Offset(next.copied().unwrap_or_default())
}

fn pass(place: &mut StreamPlace, partition: Partition, next: Offset) {
    let at = usize::from(partition.0);
    if place.next.len() <= at {
        place.next.resize(at + 1, 0);
    }
    place.next[at] = place.next[at].max(next.0);
}

/// A stream that has grown has places in more partitions.
fn take_in(event: &ControlEvent, place: &mut StreamPlace) {
    let partitions = usize::from(event.kind.partitions().unwrap_or_default());
    if place.next.len() < partitions {
        place.next.resize(partitions, 0);
    }
}

/// Returns whether a place belongs to this incarnation of a stream, kept or not.
pub(super) fn knows(found: &StreamBounds, incarnation: Incarnation, place: &StreamPlace) -> bool {
    let tails = found.partitions.iter().map(|bounds| bounds.tail.0);
    incarnation == found.stream.incarnation
        && place.next.len() <= found.partitions.len()
        && place.events <= found.stream.events.len() as u64
        && place
            .next
            .iter()
            .zip(tails)
            .all(|(next, tail)| *next <= tail)
}

/// Returns what was removed or lost after a place.
pub(super) fn gap(found: &StreamBounds, place: &StreamPlace) -> Option<FeedGap> {
    let mut behind = place.clone();
    let mut missing = Vec::new();
    for (number, bounds) in (0..).zip(&found.partitions) {
        let partition = Partition(number);
        let next = next_of(place, partition);
        let there = behind_lost(found, partition, next.max(bounds.earliest));
        if next < there {
            missing.push((partition, next.0, there.0));
            pass(&mut behind, partition, there);
        }
    }
    (!missing.is_empty()).then_some(FeedGap { missing, behind })
}

/// Returns the offset, or if it was lost, the first one after it that was not.
pub(super) fn behind_lost(found: &StreamBounds, partition: Partition, offset: Offset) -> Offset {
    let mut lost = found.lost.iter();
    let around = lost.find(|(of, lost)| *of == partition && lost.contains(&offset));
    around.map_or(offset, |(_, lost)| lost.end)
}

/// Returns the gap of a partition in which the next record does not have the expected offset.
fn passed_over(lane: &Lane, place: &StreamPlace) -> FeedGap {
    let partition = lane.of.partition;
    let (from, to) = (next_of(place, partition), lane.next.min(lane.tail));
    let mut behind = place.clone();
    pass(&mut behind, partition, to);
    FeedGap {
        missing: vec![(partition, from.0, to.0)],
        behind,
    }
}

/// Returns whether there is a record or control event after a place.
pub(super) fn is_ready(streams: &Streams, stream: StreamId, place: &StreamPlace) -> bool {
    let found = streams.engine().bounds(stream);
    found.is_some_and(|found| {
        let mut partitions = (0..).zip(&found.partitions);
        found.stream.events.len() as u64 > place.events
            || partitions.any(|(number, bounds)| bounds.tail > next_of(place, Partition(number)))
    })
}

/// Waits until there is a record or control event after a place.
///
/// # Cancel safety
/// Nothing is lost when the call is dropped.
pub(super) async fn ready(
    streams: &Streams,
    stream: StreamId,
    place: &StreamPlace,
) -> Result<(), FeedError> {
    let engine = streams.engine();
    let mut changes = engine.streams_changed();
    loop {
        changes.borrow_and_update();
        let found = engine.bounds(stream).ok_or(FeedError::Gone)?;
        let partitions = found.stream.all_partitions();
        let mut tails = partitions
            .map(|of| Ok((next_of(place, of.partition), engine.tail(of)?)))
            .collect::<Result<Vec<_>, ReadError>>()
            .map_err(|_gone| FeedError::Gone)?;
        let events = found.stream.events.len() as u64 > place.events;
        if events || tails.iter().any(|(next, tail)| *tail.borrow() > *next) {
            return Ok(());
        }
        let moved = tails.iter_mut().map(|(next, tail)| {
            let next = *next;
            Box::pin(tail.wait_for(move |tail| *tail > next))
        });
        tokio::select! {
            _moved = select_all(moved) => {}
            _changed = changes.changed() => {}
        }
    }
}
