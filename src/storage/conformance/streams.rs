//! Streams are made, changed and deleted.

use std::sync::Arc;

use super::{EngineHome, make, numbered, part, reopened, settle, stored, stream_name};
use crate::{
    model::ids::{Offset, StreamId},
    storage::{
        ControlEventKind, Engine, MadeBy, NewSettlement, OpenRecords, PartitionStatus, Stream,
        StreamConfig, StreamError,
    },
};

fn config() -> StreamConfig {
    with_ocid("ocid1.stream.ä")
}

fn with_ocid(ocid: &str) -> StreamConfig {
    StreamConfig {
        made_by: MadeBy::Api,
        retention_hours: Some(7),
        retention_bytes: Some(1 << 40),
        ocid: Some(ocid.into()),
    }
}

async fn grown(
    engine: &dyn Engine,
    id: StreamId,
    partitions: u16,
    revision: Option<u64>,
) -> Result<Arc<Stream>, StreamError> {
    engine
        .change_stream(id, partitions, StreamConfig::default(), revision)
        .await
}

pub(crate) async fn a_stream_is_found_by_name_and_id_and_is_there_after_a_reopen(
    place: &dyn EngineHome,
) {
    let engine = place.open();
    assert!(engine.streams().is_empty());
    let mut made = Vec::new();
    for (name, partitions) in [("zz", 1), ("aa", 256), ("mm-_9", 3)] {
        let config = with_ocid(&format!("ocid1.{name}.ä"));
        let stream = engine
            .create_stream(stream_name(name), partitions, config.clone())
            .await
            .unwrap();
        assert_eq!(stream.name.as_str(), name);
        assert_eq!((stream.partitions, &stream.config), (partitions, &config));
        assert_eq!(stream.all_partitions().count(), usize::from(partitions));
        made.push(stream);
    }
    made.sort_by(|a, b| a.name.cmp(&b.name));
    assert_ne!(made[0].id, made[1].id);
    assert_ne!(made[0].incarnation, made[1].incarnation);
    let engine = reopened(engine, place).await;
    assert_eq!(engine.streams(), made);
    for stream in &made {
        assert_eq!(engine.stream(&stream.name).as_ref(), Some(stream));
        assert_eq!(engine.stream_by_id(stream.id).as_ref(), Some(stream));
        for of in stream.all_partitions() {
            assert_eq!(engine.status(of).unwrap(), PartitionStatus::default());
        }
    }
    assert_eq!(engine.stream(&stream_name("ZZ")), None);
}

pub(crate) async fn a_name_is_taken_once(place: &dyn EngineHome) {
    let engine = place.open();
    let first = make(engine.as_ref(), "src", 1).await;
    let second = engine
        .create_stream(stream_name("src"), 2, StreamConfig::default())
        .await;
    assert!(matches!(second, Err(StreamError::Exists)), "{second:?}");
    let racers = (0..8).map(|_| engine.create_stream(stream_name("race"), 1, config()));
    let racers = futures_util::future::join_all(racers).await;
    assert_eq!(racers.iter().filter(|made| made.is_ok()).count(), 1);
    let engine = reopened(engine, place).await;
    assert_eq!(engine.streams().len(), 2);
    assert_eq!(engine.stream(&stream_name("src")), Some(first));
}

pub(crate) async fn an_ocid_is_taken_once(place: &dyn EngineHome) {
    let engine = place.open();
    let create = |name: &str, ocid: &str| {
        let name = stream_name(name);
        engine.create_stream(name, 1, with_ocid(ocid))
    };
    let racers = ["r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7"];
    let racers = racers.map(|name| create(name, "race"));
    let made = futures_util::future::join_all(racers).await;
    let refused = |made: &Result<_, _>| matches!(made, Err(StreamError::Exists));
    assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 1);
    assert_eq!(made.iter().filter(|made| refused(made)).count(), 7);
    let made = made.into_iter().find_map(Result::ok).unwrap();
    for (name, ocid) in [("race", "free"), ("other", made.name.as_str())] {
        let made = create(name, ocid).await;
        assert!(refused(&made), "{name} {ocid}: {made:?}");
    }
    // One name for itself twice takes nothing from anyone.
    create("mine", "mine").await.unwrap();
    engine
        .delete_stream(made.id, None, OpenRecords::Refuse)
        .await
        .unwrap();
    let again = create("again", "race").await.unwrap();
    let engine = reopened(engine, place).await;
    assert_eq!(engine.streams().len(), 2);
    assert_eq!(engine.stream(&again.name), Some(again));
}

pub(crate) async fn a_stream_grows_and_never_shrinks(place: &dyn EngineHome) {
    let mut engine = place.open();
    let stream = make(engine.as_ref(), "src", 2).await;
    stored(engine.as_ref(), numbered(part(&stream, 1), 0..3)).await;
    for _ in 0..2 {
        let shrunk = grown(engine.as_ref(), stream.id, 1, None).await;
        assert!(
            matches!(shrunk, Err(StreamError::Shrink { partitions: 2 })),
            "{shrunk:?}"
        );
        assert_eq!(engine.stream_by_id(stream.id), Some(stream.clone()));
        engine = reopened(engine, place).await;
    }
    let large = grown(engine.as_ref(), stream.id, 5, None).await.unwrap();
    assert_eq!((large.partitions, large.id), (5, stream.id));
    assert_eq!(large.incarnation, stream.incarnation);
    assert!(large.revision > stream.revision);
    assert_eq!(engine.stream_by_id(stream.id), Some(large.clone()));
    stored(engine.as_ref(), numbered(part(&large, 4), 0..1)).await;
    let engine = reopened(engine, place).await;
    let tail = |partition| engine.status(part(&large, partition)).unwrap().bounds.tail;
    assert_eq!(
        [0, 1, 2, 3, 4].map(tail),
        [0, 3, 0, 0, 1].map(Offset),
        "of each partition"
    );
}

pub(crate) async fn events_say_when_with_the_tails_of_that_moment(place: &dyn EngineHome) {
    let engine = place.open();
    let stream = make(engine.as_ref(), "src", 2).await;
    assert_eq!(stream.events.len(), 1);
    let made = ControlEventKind::Created { partitions: 2 };
    assert_eq!(stream.events[0].kind, made);
    assert_eq!(stream.events[0].tails, [Offset(0); 2]);
    let first = stored(engine.as_ref(), numbered(part(&stream, 1), 0..3)).await;
    assert!(stream.events[0].time <= first.time);

    let changed = engine
        .change_stream(stream.id, 2, config(), None)
        .await
        .unwrap();
    assert_eq!(changed.events, stream.events, "a config is no event");
    let large = grown(engine.as_ref(), stream.id, 4, None).await.unwrap();
    assert_eq!(large.events.len(), 2);
    assert_eq!(large.events[0], stream.events[0]);
    let grown = ControlEventKind::Grown { partitions: 4 };
    assert_eq!(large.events[1].kind, grown);
    let tails = &large.events[1].tails;
    assert_eq!(tails[..2], [Offset(0), Offset(3)]);
    assert!(tails[2..].iter().all(|tail| *tail == Offset(0)));
    assert!(large.events[1].time >= first.time);
    reopened(engine, place).await;
}

pub(crate) async fn a_change_needs_the_revision_that_is_there(place: &dyn EngineHome) {
    let engine = place.open();
    let stream = make(engine.as_ref(), "src", 1).await;
    let seen = Some(stream.revision);
    let second = engine
        .change_stream(stream.id, 1, config(), seen)
        .await
        .unwrap();
    assert_eq!(second.config, config());
    assert!(second.revision > stream.revision);
    let stale = grown(engine.as_ref(), stream.id, 2, seen).await;
    assert!(
        matches!(stale, Err(StreamError::ChangedMeanwhile)),
        "{stale:?}"
    );
    let stale = engine
        .delete_stream(stream.id, seen, OpenRecords::Drop)
        .await;
    assert!(
        matches!(stale, Err(StreamError::ChangedMeanwhile)),
        "{stale:?}"
    );
    let engine = reopened(engine, place).await;
    assert_eq!(engine.stream_by_id(stream.id), Some(second.clone()));
    engine
        .delete_stream(stream.id, Some(second.revision), OpenRecords::Drop)
        .await
        .unwrap();
    let engine = reopened(engine, place).await;
    assert!(engine.streams().is_empty());
}

pub(crate) async fn a_stream_made_again_is_another_one(place: &dyn EngineHome) {
    let mut engine = place.open();
    let mut lives: Vec<Arc<Stream>> = Vec::new();
    for round in 0..3 {
        let stream = make(engine.as_ref(), "src", 1).await;
        for before in &lives {
            assert_ne!(before.id, stream.id);
            assert_ne!(before.incarnation, stream.incarnation);
            assert!(engine.status(part(before, 0)).is_err());
        }
        let of = part(&stream, 0);
        assert_eq!(engine.status(of).unwrap(), PartitionStatus::default());
        let committed = stored(engine.as_ref(), numbered(of, 0..4)).await;
        assert_eq!(committed.appends[0].first, Offset(0));
        let settled = engine.settled_offsets(of, Offset(0)..Offset(4)).unwrap();
        assert!((0..4).all(|offset| !settled.contains(Offset(offset))));
        let ends = vec![
            settle(of, 0, NewSettlement::Delivered),
            settle(of, 3, NewSettlement::Delivered),
        ];
        stored(engine.as_ref(), ends).await;
        engine.trim(of, Offset(1)).await.unwrap();
        if round == 0 {
            engine = reopened(engine, place).await;
        }
        engine
            .delete_stream(stream.id, None, OpenRecords::Drop)
            .await
            .unwrap();
        assert_eq!(engine.stream(&stream.name), None);
        assert_eq!(engine.stream_by_id(stream.id), None);
        if round == 1 {
            engine = reopened(engine, place).await;
        }
        lives.push(stream);
    }
    assert!(reopened(engine, place).await.streams().is_empty());
}

/// The look and the removal are one step: whoever looks first and removes then could lose what came in between.
pub(crate) async fn a_stream_with_open_records_is_removed_only_with_them(place: &dyn EngineHome) {
    let engine = place.open();
    let stream = make(engine.as_ref(), "src", 2).await;
    let of = part(&stream, 1);
    stored(engine.as_ref(), numbered(of, 0..3)).await;
    let ends = vec![
        settle(of, 0, NewSettlement::Delivered),
        settle(of, 2, NewSettlement::Discarded),
    ];
    stored(engine.as_ref(), ends).await;
    let refused = engine
        .delete_stream(stream.id, None, OpenRecords::Refuse)
        .await;
    assert!(matches!(refused, Err(StreamError::Open { open_len: 1 })));
    let engine = reopened(engine, place).await;
    assert_eq!(engine.status(of).unwrap().bounds.tail, Offset(3));
    // Asked for at once, in this order: the record is there before the stream goes, or it is refused.
    let (late, removed) = tokio::join!(
        engine.commit(numbered(of, 3..4).into()),
        engine.delete_stream(stream.id, None, OpenRecords::Refuse)
    );
    assert!(late.is_ok() && removed.is_err());
    let ends = vec![
        settle(of, 1, NewSettlement::Delivered),
        settle(of, 3, NewSettlement::Delivered),
    ];
    stored(engine.as_ref(), ends).await;
    engine
        .delete_stream(stream.id, None, OpenRecords::Refuse)
        .await
        .unwrap();
    assert_eq!(engine.stream_by_id(stream.id), None);
}

pub(crate) async fn changes_of_streams_can_be_watched(place: &dyn EngineHome) {
    let engine = place.open();
    let mut changed = engine.streams_changed();
    let mut seen = *changed.borrow_and_update();
    let mut check = |what: &str| {
        assert!(changed.has_changed().unwrap(), "{what}");
        let now = *changed.borrow_and_update();
        assert!(now > seen, "{what}");
        seen = now;
    };
    let stream = make(engine.as_ref(), "src", 1).await;
    check("made");
    grown(engine.as_ref(), stream.id, 2, None).await.unwrap();
    check("grown");
    engine
        .change_stream(stream.id, 2, config(), None)
        .await
        .unwrap();
    check("changed");
    engine
        .delete_stream(stream.id, None, OpenRecords::Drop)
        .await
        .unwrap();
    check("gone");
}
