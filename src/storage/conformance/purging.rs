//! Purges of a stream.

use super::{
    Content, EngineHome, change, make, numbered, one_partition, part, refused, reopened, settle,
    stored,
};
use crate::{
    model::ids::{Offset, StreamId},
    storage::{
        Bounds, CommitError, ControlEventKind, EVENTS_MAX, Engine, NewSettlement, OpenRecords,
        PurgeNote, Purged, PurgedPartition, ReadError, StreamConfig, StreamError, ledger::Balance,
    },
};

fn note(reason: &str) -> PurgeNote {
    PurgeNote {
        reason: reason.into(),
        by: Some("ada".into()),
    }
}

async fn purged(engine: &dyn Engine, id: StreamId, open: OpenRecords) -> Purged {
    let purged = engine.purge_stream(id, open, note("a test")).await;
    purged.unwrap()
}

fn bounds(earliest: u64, tail: u64) -> Bounds {
    Bounds {
        earliest: Offset(earliest),
        tail: Offset(tail),
    }
}

#[track_caller]
fn assert_balanced(engine: &dyn Engine) {
    let balance = Balance::of(&engine.ledger(), None);
    assert!(balance.balanced, "{balance:?}");
}

pub(crate) async fn a_purge_removes_everything_and_what_was_open_ends_as_discarded(
    place: &dyn EngineHome,
) {
    let engine = place.open();
    let stream = make(engine.as_ref(), "src", 3).await;
    let other = make(engine.as_ref(), "other", 1).await;
    let (zero, one) = (part(&stream, 0), part(&stream, 1));
    stored(engine.as_ref(), numbered(zero, 0..10)).await;
    let last = stored(engine.as_ref(), numbered(one, 0..2)).await;
    stored(engine.as_ref(), numbered(part(&other, 0), 0..4)).await;
    let ends = [1, 2, 3, 8].map(|offset| settle(zero, offset, NewSettlement::Delivered));
    stored(engine.as_ref(), ends.to_vec()).await;
    engine.trim(zero, Offset(2)).await.unwrap();

    let done = purged(engine.as_ref(), stream.id, OpenRecords::Drop).await;
    let removed = |bounds, discarded| PurgedPartition { bounds, discarded };
    let expected = [
        removed(bounds(2, 10), 5),
        removed(bounds(0, 2), 2),
        removed(bounds(0, 0), 0),
    ];
    assert_eq!(done.partitions, expected);
    let event = done.stream.events.last().unwrap();
    assert_eq!(done.stream.events[..1], stream.events);
    assert_eq!(event.kind, ControlEventKind::Purged);
    assert_eq!(event.tails, [10, 2, 0].map(Offset));
    assert!(event.time > last.time, "it comes behind what it removes");
    assert!(done.stream.revision > stream.revision);
    assert_eq!(done.stream.last_purge, Some(note("a test")));
    assert_eq!(engine.stream_by_id(stream.id), Some(done.stream.clone()));

    let mut engine = engine;
    for _ in 0..2 {
        let status = engine.status(zero).unwrap();
        assert_eq!(status.bounds, bounds(10, 10));
        assert_eq!(status.low_mark, Offset(10));
        let counts = status.counts;
        assert_eq!(
            (counts.delivered, counts.expired, counts.discarded),
            (4, 1, 5)
        );
        let trimmed = engine.read(zero, Offset(9), 1).await.unwrap_err();
        assert!(matches!(trimmed, ReadError::Trimmed { .. }), "{trimmed}");
        let counts = engine.status(one).unwrap().counts;
        assert_eq!((counts.expired, counts.discarded), (0, 2));
        let untouched = engine.status(part(&other, 0)).unwrap();
        assert_eq!(untouched.bounds, bounds(0, 4));
        assert_balanced(engine.as_ref());
        engine = reopened(engine, place).await;
    }
    assert_eq!(engine.stream_by_id(stream.id), Some(done.stream.clone()));
    // Offsets go on, and so does time.
    let next = stored(engine.as_ref(), numbered(zero, 10..11)).await;
    assert_eq!(next.appends[0].first, Offset(10));
    assert!(next.time > event.time);
    reopened(engine, place).await;
}

/// The look and the removal are one step: whoever looks first and removes then could lose what came in between.
pub(crate) async fn a_purge_that_is_to_keep_open_records_is_refused_by_the_first(
    place: &dyn EngineHome,
) {
    let engine = place.open();
    let of = one_partition(engine.as_ref()).await;
    stored(engine.as_ref(), numbered(of, 0..3)).await;
    stored(
        engine.as_ref(),
        vec![settle(of, 1, NewSettlement::Delivered)],
    )
    .await;
    let before = Content::of(engine.as_ref()).await;
    let refuse = async |engine: &dyn Engine| {
        let purge = engine.purge_stream(of.stream, OpenRecords::Refuse, note("x"));
        purge.await
    };
    let refused = refuse(engine.as_ref()).await;
    assert!(matches!(refused, Err(StreamError::Open { open_len: 2 })));
    let engine = reopened(engine, place).await;
    before.assert_same(&Content::of(engine.as_ref()).await, "after a refusal");
    let ends = vec![
        settle(of, 0, NewSettlement::Delivered),
        settle(of, 2, NewSettlement::Filtered),
    ];
    stored(engine.as_ref(), ends).await;
    // Asked for at once, in this order: the record is there before the purge.
    let (late, purged) = tokio::join!(
        engine.commit(numbered(of, 3..4).into()),
        refuse(engine.as_ref())
    );
    assert!(late.is_ok() && purged.is_err());
    stored(
        engine.as_ref(),
        vec![settle(of, 3, NewSettlement::Delivered)],
    )
    .await;
    let purged = refuse(engine.as_ref()).await.unwrap();
    assert_eq!(purged.partitions[0].discarded, 0);
    let counts = engine.status(of).unwrap().counts;
    assert_eq!((counts.delivered, counts.discarded), (3, 0));
    let nobody = StreamId([9; 16]);
    let unknown = engine.purge_stream(nobody, OpenRecords::Drop, note("x"));
    assert!(matches!(unknown.await, Err(StreamError::Unknown)));
}

/// What was delivered a moment ago is not given up.
pub(crate) async fn ends_that_were_queued_before_a_purge_are_stored_before_it(
    place: &dyn EngineHome,
) {
    let engine = place.open();
    let of = one_partition(engine.as_ref()).await;
    for round in 0..20 {
        let first = round * 3;
        stored(engine.as_ref(), numbered(of, first..first + 3)).await;
        for offset in [first, first + 2] {
            let end = settle(of, offset, NewSettlement::Delivered);
            engine.settle_soon(end).unwrap();
        }
        let done = purged(engine.as_ref(), of.stream, OpenRecords::Drop).await;
        assert_eq!(done.partitions[0].discarded, 1);
        let counts = engine.status(of).unwrap().counts;
        assert_eq!(
            (counts.delivered, counts.discarded),
            (2 * (round + 1), round + 1)
        );
    }
    reopened(engine, place).await;
}

pub(crate) async fn a_purged_record_cannot_end(place: &dyn EngineHome) {
    let engine = place.open();
    let of = one_partition(engine.as_ref()).await;
    stored(engine.as_ref(), numbered(of, 0..4)).await;
    purged(engine.as_ref(), of.stream, OpenRecords::Drop).await;
    let before = Content::of(engine.as_ref()).await;
    for end in [NewSettlement::Delivered, NewSettlement::Discarded] {
        let error = refused(engine.as_ref(), vec![settle(of, 3, end)]).await;
        assert!(
            matches!(error, CommitError::AlreadySettled { .. }),
            "{error}"
        );
    }
    // An end that was on its way when the purge came, with a copy of the record for another stream: all of it is
    // refused.
    let mut failed: super::Commit = numbered(of, 4..5).into();
    failed.settles = vec![settle(of, 0, NewSettlement::Routed { append: 0 })];
    refused(engine.as_ref(), failed).await;
    engine
        .settle_soon(settle(of, 2, NewSettlement::Delivered))
        .unwrap();
    // It travels with this write, and is dropped.
    stored(engine.as_ref(), change("t/a", None, None)).await;
    let engine = reopened(engine, place).await;
    before.assert_same(&Content::of(engine.as_ref()).await, "after refusals");
    assert_balanced(engine.as_ref());
}

pub(crate) async fn each_purge_is_an_event_unless_nothing_came_since_the_last(
    place: &dyn EngineHome,
) {
    let engine = place.open();
    let stream = make(engine.as_ref(), "src", 1).await;
    let of = part(&stream, 0);
    let purge = async |engine: &dyn Engine, reason: &str| {
        let purged = engine.purge_stream(stream.id, OpenRecords::Refuse, note(reason));
        purged.await.unwrap().stream
    };
    // Of nothing too: somebody may have what was trimmed.
    let first = purge(engine.as_ref(), "first").await;
    assert_eq!(first.events.len(), 2);
    let mut changed = engine.streams_changed();
    changed.mark_unchanged();
    assert_eq!(purge(engine.as_ref(), "again").await, first);
    assert!(!changed.has_changed().unwrap());
    let engine = reopened(engine, place).await;
    assert_eq!(purge(engine.as_ref(), "and again").await, first);

    let end = |offset| vec![settle(of, offset, NewSettlement::Delivered)];
    stored(engine.as_ref(), numbered(of, 0..1)).await;
    stored(engine.as_ref(), end(0)).await;
    let mut changed = engine.streams_changed();
    changed.mark_unchanged();
    let second = purge(engine.as_ref(), "second").await;
    assert!(changed.has_changed().unwrap(), "whoever watches is told");
    assert_eq!(second.last_purge, Some(note("second")));
    assert_eq!(second.events.len(), 3);
    assert_eq!(second.events[2].tails, [Offset(1)]);
    // There may be many, so they are small.
    let earlier = &second.events[1];
    assert_eq!(
        (earlier.time, &earlier.tails[..]),
        (first.events[1].time, &[][..])
    );
    // A change that is none of its records keeps what is known of the purge.
    let grown = engine.change_stream(stream.id, 2, StreamConfig::default(), None);
    let grown = grown.await.unwrap();
    assert_eq!(grown.last_purge, second.last_purge);
    stored(engine.as_ref(), numbered(of, 1..2)).await;
    let engine = reopened(engine, place).await;
    let status = engine.status(of).unwrap();
    assert_eq!(status.bounds, bounds(1, 2), "it is purged once");
    assert_eq!(engine.stream_by_id(stream.id), Some(grown));
    stored(engine.as_ref(), end(1)).await;
    let third = purge(engine.as_ref(), "third").await;
    let event = third.events.last().unwrap();
    assert_eq!(event.tails, [2, 0].map(Offset));
    assert_eq!(third.purged(), Some(event));
    assert_eq!(third.purged_below(of.partition), Offset(2));
    reopened(engine, place).await;
}

pub(crate) async fn with_as_many_events_as_there_may_be_a_purge_moves_the_last_one(
    place: &dyn EngineHome,
) {
    let engine = place.open();
    let mut stream = make(engine.as_ref(), "src", 1).await;
    let (id, of) = (stream.id, part(&stream, 0));
    let purge = async |engine: &dyn Engine, offset: u64| {
        stored(engine, numbered(of, offset..offset + 1)).await;
        let purged = engine.purge_stream(id, OpenRecords::Drop, note("again"));
        purged.await.unwrap().stream
    };
    let mut before = None;
    let bound = EVENTS_MAX as u64;
    for offset in 0..bound {
        before = Some(std::mem::replace(
            &mut stream,
            purge(engine.as_ref(), offset).await,
        ));
    }
    let before = before.unwrap();
    assert_eq!(
        (before.events.len(), stream.events.len()),
        (EVENTS_MAX, EVENTS_MAX)
    );
    assert!(before.purged().unwrap().time < stream.purged().unwrap().time);
    assert_eq!(
        before.events[..EVENTS_MAX - 1],
        stream.events[..EVENTS_MAX - 1]
    );
    // The purge was one all the same, and is one after a restart.
    assert_eq!(engine.status(of).unwrap().bounds, bounds(bound, bound));
    let engine = reopened(engine, place).await;
    assert_eq!(engine.status(of).unwrap().bounds, bounds(bound, bound));
    assert_eq!(engine.stream_by_id(stream.id), Some(stream.clone()));
    // A growth is an event of its own, and a purge behind it too.
    let grown = engine.change_stream(stream.id, 2, StreamConfig::default(), None);
    assert_eq!(grown.await.unwrap().events.len(), EVENTS_MAX + 1);
    let purged = purge(engine.as_ref(), bound).await;
    assert_eq!(purged.events.len(), EVENTS_MAX + 2);
    let last = purge(engine.as_ref(), bound + 1).await;
    assert_eq!(last.events.len(), EVENTS_MAX + 2);
    let engine = reopened(engine, place).await;
    assert_eq!(engine.stream_by_id(last.id), Some(last));
}
