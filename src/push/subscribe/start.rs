//! From what a client asked for to the place where it starts.

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
    /// What is missing before it: only a client that has asked for at most once is told so, and goes on.
    pub(in crate::push) gap: Option<Vec<(Partition, u64, u64)>>,
    /// There is no record with that time yet; it starts with the first one.
    pub(in crate::push) waits_for: Option<Timestamp>,
}

/// Why a client cannot start there.
#[derive(Debug, thiserror::Error)]
pub enum StartRefused {
    /// The position is of another resource, stream or view.
    #[error("the position is one of another data stream, or of another trail or view of this one")]
    Foreign,
    /// What comes behind the position is no longer there, or the log is another one.
    #[error(
        "what comes behind the position is no longer there; begin with earliest, now or a time"
    )]
    Gone,
    /// The stream behind the resource does not exist.
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

/// Returns where a client starts that asks for a time.
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
    // Those before all that is kept belong to what is gone. But a purge that has removed what is missing is told: whoever
    // has something of before learns so that it is gone.
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

/// Behind everything there is.
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

/// Returns a place as a run that comes there would have it: without the partitions that the stream gets later.
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
