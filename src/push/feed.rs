//! A stream in the order of delivery: its partitions and its control events, merged by time, partition and offset.
//!
//! A run reads between a place and the bounds that the stream had when the run began. Whatever comes later has a later
//! time (`Log::bounds`), so runs one behind the other give the same order to everybody, wherever they begin.

use std::{collections::VecDeque, sync::Arc};

use futures_util::future::select_all;

use crate::{
    clock::Timestamp,
    log::Streams,
    place::{Incarnation, Offset, Partition, PartitionId, StreamId},
    record::StoredRecord,
    storage::{Bounds, ControlEvent, ReadError, Stream, StreamBounds},
};

use super::position::Place;

/// Bytes that a page has, for all partitions together; but no page is smaller than a block of the log.
const PAGES_BYTES: usize = 1 << 20;
const PAGE_BYTES_MIN: usize = 64 << 10;

/// Why a stream cannot be read on.
#[derive(Debug, thiserror::Error)]
pub(super) enum FeedError {
    /// The stream was deleted.
    #[error("the stream is gone")]
    Gone,
    /// Records behind the place were removed before they were read.
    #[error("records were removed before they were sent")]
    Overtaken(Gap),
    /// The log cannot be read here.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// What was removed before it was read, and where to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    /// Partition, first offset that is missing, first one that is not.
    pub(super) missing: Vec<(Partition, u64, u64)>,
    /// The place behind the gap.
    pub(super) behind: Place,
}

/// What is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The control event with that number, from 1.
    Event(u64),
    /// The first record that is left of that partition.
    Record(Partition),
}

/// Records that were read and not taken, for the run behind this one.
#[derive(Debug, Default)]
pub(super) struct Carry(Vec<VecDeque<StoredRecord>>);

impl Carry {
    /// Returns how many bytes its records have.
    pub(super) fn bytes_len(&self) -> usize {
        let records = self.0.iter().flatten();
        records.map(|stored| stored.record.bytes_len()).sum()
    }
}

/// A part of the order, from a place on.
#[derive(Debug)]
pub(super) struct Run<'a> {
    streams: &'a Streams,
    stream: Arc<Stream>,
    lanes: Vec<Lane>,
    place: Place,
    page_bytes: usize,
}

/// One partition.
#[derive(Debug)]
struct Lane {
    of: PartitionId,
    records: VecDeque<StoredRecord>,
    /// What is read next.
    next: Offset,
    tail: Offset,
}

impl Lane {
    /// Returns the time of the first record that is left.
    fn time(&self) -> Option<Timestamp> {
        let first = self.records.front()?;
        (first.offset < self.tail).then_some(first.time)
    }
}

impl<'a> Run<'a> {
    /// Looks at the bounds that a stream has now.
    pub(super) fn begin(
        streams: &'a Streams,
        stream: StreamId,
        place: Place,
        carry: Carry,
    ) -> Result<Self, FeedError> {
        let found = streams.engine().bounds(stream).ok_or(FeedError::Gone)?;
        if let Some(gap) = gap(&found, &place) {
            return Err(FeedError::Overtaken(gap));
        }
        let StreamBounds { stream, partitions } = found;
        let mut carried = carry.0.into_iter();
        let lane = |(of, bounds): (PartitionId, &Bounds)| {
            let begins = next_of(&place, of.partition);
            let records = carried.next().unwrap_or_default();
            // A carry of another place is of no use.
            let fits = records.front().is_some_and(|first| first.offset >= begins);
            let records = if fits { records } else { VecDeque::new() };
            Lane {
                next: records.back().map_or(begins, |last| last.offset.next()),
                records,
                of,
                tail: bounds.tail,
            }
        };
        let lanes: Vec<_> = stream.all_partitions().zip(&partitions).map(lane).collect();
        let page_bytes = (PAGES_BYTES / lanes.len().max(1)).max(PAGE_BYTES_MIN);
        Ok(Self {
            streams,
            stream,
            lanes,
            place,
            page_bytes,
        })
    }

    /// Returns the place behind everything that was taken.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Returns the stream as it was when the run began.
    pub(super) fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// Returns what is next; `None` at the bounds.
    pub(super) async fn next(&mut self) -> Result<Option<Next>, FeedError> {
        for number in 0..self.lanes.len() {
            self.fill(number).await?;
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

    /// Sees to it that the first record of a partition is there, if there is one.
    async fn fill(&mut self, number: usize) -> Result<(), FeedError> {
        let lane = &mut self.lanes[number];
        while lane.records.is_empty() && lane.next < lane.tail {
            let engine = self.streams.engine();
            let page = match engine.read(lane.of, lane.next, self.page_bytes).await {
                Ok(page) => page,
                Err(ReadError::Trimmed { .. }) => {
                    let found = engine.bounds(self.stream.id).ok_or(FeedError::Gone)?;
                    let gap = gap(&found, &self.place);
                    return Err(gap.map_or(FeedError::Gone, FeedError::Overtaken));
                }
                Err(ReadError::PartitionUnknown(_)) => return Err(FeedError::Gone),
                Err(error) => return Err(error.into()),
            };
            lane.next = page.next.max(lane.next);
            lane.records = page.records.into();
            if lane.records.is_empty() {
                // What was lost is passed.
                let passed = lane.next.min(lane.tail);
                pass(&mut self.place, lane.of.partition, passed);
            }
        }
        Ok(())
    }

    /// Returns a record that [`Run::next`] has named.
    pub(super) fn record(&self, partition: Partition) -> Option<&StoredRecord> {
        self.lanes[usize::from(partition.0)].records.front()
    }

    /// Returns an event that [`Run::next`] has named.
    pub(super) fn event(&self, number: u64) -> Option<&ControlEvent> {
        let at = usize::try_from(number.checked_sub(1)?).ok()?;
        self.stream.events.get(at)
    }

    /// Returns the place behind what is next.
    pub(super) fn behind(&self, next: Next, place: &mut Place) {
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

    /// Takes what is next, with the place behind it.
    pub(super) fn take(&mut self, next: Next, behind: &Place) {
        if let Next::Record(partition) = next {
            self.lanes[usize::from(partition.0)].records.pop_front();
        }
        self.place.clone_from(behind);
    }

    /// Ends the run; what was read and not taken goes along.
    pub(super) fn end(self) -> (Place, Carry) {
        let records = self.lanes.into_iter().map(|lane| lane.records);
        (self.place, Carry(records.collect()))
    }
}

fn record(first: Option<(Timestamp, usize)>) -> Option<Next> {
    let (_, number) = first?;
    Some(Next::Record(Partition(u16::try_from(number).ok()?)))
}

pub(super) fn next_of(place: &Place, partition: Partition) -> Offset {
    let next = place.next.get(usize::from(partition.0));
    Offset(next.copied().unwrap_or_default())
}

fn pass(place: &mut Place, partition: Partition, next: Offset) {
    let at = usize::from(partition.0);
    if place.next.len() <= at {
        place.next.resize(at + 1, 0);
    }
    place.next[at] = place.next[at].max(next.0);
}

/// A stream that has grown has places in more partitions.
fn take_in(event: &ControlEvent, place: &mut Place) {
    let partitions = usize::from(event.kind.partitions().unwrap_or_default());
    if place.next.len() < partitions {
        place.next.resize(partitions, 0);
    }
}

/// Returns whether a place is one of this life of a stream, whether or not what is behind it is still kept.
pub(super) fn knows(found: &StreamBounds, incarnation: Incarnation, place: &Place) -> bool {
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

/// Returns what was removed behind a place.
pub(super) fn gap(found: &StreamBounds, place: &Place) -> Option<Gap> {
    let mut behind = place.clone();
    let mut missing = Vec::new();
    for (number, bounds) in (0..).zip(&found.partitions) {
        let next = next_of(place, Partition(number));
        if next < bounds.earliest {
            missing.push((Partition(number), next.0, bounds.earliest.0));
            pass(&mut behind, Partition(number), bounds.earliest);
        }
    }
    (!missing.is_empty()).then_some(Gap { missing, behind })
}

/// Waits until there is something behind a place.
///
/// # Cancel safety
/// Nothing is lost when the call is dropped.
pub(super) async fn ready(
    streams: &Streams,
    stream: StreamId,
    place: &Place,
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
