//! From `begin` to the place where a client starts.

use crate::{
    log::Streams,
    model::ids::{Partition, StreamId},
    runtime::clock::Timestamp,
    storage::{Bounds, ControlEvent, ControlEventKind, ReadError, StreamBounds},
};

use super::begin::Begin;
use crate::push::{
    feed::{self, FeedGap},
    position::{ClientPosition, Contract, StreamPlace},
    resource::QualityOfService,
};

/// Where a client starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::push) struct Start {
    /// The place.
    pub(in crate::push) place: StreamPlace,
    /// What is missing before the place. Only a client with at-most-once quality starts after a gap.
    pub(in crate::push) gap: Option<Vec<(Partition, u64, u64)>>,
    /// Set if no record has that time yet; the client starts with the first that does.
    pub(in crate::push) waits_for: Option<Timestamp>,
}

/// Why a client cannot start there.
#[derive(Debug, thiserror::Error)]
pub enum StartRefused {
    /// The position belongs to another data stream, trail or view.
    #[error("the position belongs to another data stream, or to another trail or view of this one")]
    Foreign,
    /// Records after the position were removed, or the log is another one.
    #[error("records after the position were removed; begin with earliest, now or a time")]
    Gone,
    /// The log stream was deleted.
    #[error("the stream of this data stream does not exist")]
    StreamGone,
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Returns where a client starts.
pub(in crate::push) async fn start(
    streams: &Streams,
    stream: StreamId,
    begin: &Begin,
    contract: Contract,
    quality: QualityOfService,
) -> Result<Start, StartRefused> {
    let engine = streams.engine();
    let found = engine.bounds(stream).ok_or(StartRefused::StreamGone)?;
    let at = |place| Start {
        place,
        gap: None,
        waits_for: None,
    };
    match begin {
        Begin::Earliest => Ok(at(earliest(&found))),
        Begin::Now => Ok(at(now(&found))),
        Begin::Time(time) => from_time(streams, &found, *time).await,
        Begin::Position(position) => from_position(&found, position, contract, quality),
    }
}

/// Returns where a client starts that begins at a time.
pub(in crate::push) async fn at_time(
    streams: &Streams,
    stream: StreamId,
    time: Timestamp,
) -> Result<Start, StartRefused> {
    let found = streams.engine().bounds(stream);
    from_time(streams, &found.ok_or(StartRefused::StreamGone)?, time).await
}

async fn from_time(
    streams: &Streams,
    found: &StreamBounds,
    time: Timestamp,
) -> Result<Start, StartRefused> {
    let place = first_at(streams, found, time).await?;
    let waits_for = (place == now(found)).then_some(time);
    Ok(Start {
        place,
        gap: None,
        waits_for,
    })
}

fn from_position(
    found: &StreamBounds,
    position: &ClientPosition,
    contract: Contract,
    quality: QualityOfService,
) -> Result<Start, StartRefused> {
    if position.contract != contract {
        return Err(StartRefused::Foreign);
    }
    let place = &position.place;
    let known = feed::knows(found, position.incarnation, place);
    let goes_on = quality == QualityOfService::AtMostOnce;
    if !known {
        return match goes_on {
            true => Ok(Start {
                place: earliest(found),
                gap: Some(Vec::new()),
                waits_for: None,
            }),
            false => Err(StartRefused::Gone),
        };
    }
    let (place, gap) = match feed::gap(found, place) {
        None => (place.clone(), None),
        Some(FeedGap { missing, behind }) if goes_on => (behind, Some(missing)),
        Some(_) => return Err(StartRefused::Gone),
    };
    Ok(Start {
        place,
        gap,
        waits_for: None,
    })
}

/// The first record that is kept, in each partition.
fn earliest(found: &StreamBounds) -> StreamPlace {
    let next: Vec<_> = found
        .partitions
        .iter()
        .map(|bounds| bounds.earliest.0)
        .collect();
    let partitions = (0..).zip(&found.partitions);
    let there = partitions
        .map(|(number, bounds)| feed::behind_lost(found, Partition(number), bounds.earliest).0);
    let there: Vec<_> = there.collect();
    if there.iter().all(|next| *next == 0) {
        return StreamPlace::default();
    }
    // Events before everything that is kept are skipped like the removed records. A purge that removed exactly the
    // missing records is kept, because it tells a client that its older records are gone.
    let gone = |event: &&ControlEvent| {
        let first = matches!(event.kind, ControlEventKind::Created { .. });
        let tails = || event.tails.iter().zip(&next);
        let is_purge = event.kind == ControlEventKind::Purged && !event.tails.is_empty();
        let told = is_purge && tails().all(|(tail, earliest)| tail.0 == *earliest);
        first || !told && tails().all(|(tail, earliest)| tail.0 <= *earliest)
    };
    let events = found.stream.events.iter().take_while(gone).count();
    place(found, events, there)
}

/// The place after the last record and event.
fn now(found: &StreamBounds) -> StreamPlace {
    let next = found.partitions.iter().map(|bounds| bounds.tail.0);
    place(found, found.stream.events.len(), next.collect())
}

/// The first record with that time or a later one, in each partition.
async fn first_at(
    streams: &Streams,
    found: &StreamBounds,
    time: Timestamp,
) -> Result<StreamPlace, StartRefused> {
    let mut next = Vec::with_capacity(found.partitions.len());
    for (of, Bounds { earliest, tail }) in found.stream.all_partitions().zip(&found.partitions) {
        let offset = streams.engine().offset_at(of, time).await?;
        let offset = offset.max(*earliest).min(*tail);
        next.push(feed::behind_lost(found, of.partition, offset).0);
    }
    let events = found.stream.events.iter();
    let before = events.take_while(|event| event.time < time).count();
    let gone = usize::try_from(earliest(found).events).unwrap_or(usize::MAX);
    Ok(place(found, before.max(gone), next))
}

/// Returns the place in the form that a run would give it: without partitions that the stream gets by a later event.
fn place(found: &StreamBounds, events: usize, mut next: Vec<u64>) -> StreamPlace {
    let known = found.stream.events.iter().take(events);
    let partitions = known.filter_map(|event| event.kind.partitions()).max();
    let partitions = usize::from(partitions.unwrap_or_default());
    if next.iter().skip(partitions).all(|next| *next == 0) {
        next.truncate(partitions);
    }
    let events = events as u64;
    StreamPlace { events, next }
}
