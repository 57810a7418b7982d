//! Pages, bounds, times and the tail.

use super::{
    EngineHome, append, in_time, make, numbered, one_partition, part, record, refused, reopened,
    settle, stored, stream_name,
};
use crate::{
    model::ids::{Offset, Partition, PartitionId, StreamId},
    runtime::clock::Timestamp,
    storage::{
        Bounds, CommitError, Keep, NewSettlement, PartitionStatus, ReadError, Stream, StreamConfig,
        StreamError,
    },
};

pub(crate) async fn pages_follow_each_other_to_the_tail(place: &dyn EngineHome) {
    let mut engine = place.open();
    let of = one_partition(engine.as_ref()).await;
    // Commits of many sizes, so that pages begin and end inside of them.
    let mut tail = 0;
    for count in [1, 7, 200, 3, 90, 1] {
        stored(engine.as_ref(), numbered(of, tail..tail + count)).await;
        tail += count;
    }
    for _ in 0..2 {
        for bytes_max in [0, 1, 10, 100, 1_000, 1 << 20] {
            let mut next = Offset(0);
            let mut values = Vec::new();
            while next < Offset(tail) {
                let page = engine.read(of, next, bytes_max).await.unwrap();
                assert_eq!(page.bounds.tail, Offset(tail));
                let len = page.records.len();
                assert!(len > 0, "from {next} at most {bytes_max}");
                assert_eq!(page.records[0].offset, next);
                assert_eq!(page.next, next.plus(len as u64));
                values.extend(page.records.into_iter().map(|s| s.record.value));
                next = page.next;
            }
            assert!(
                values
                    .iter()
                    .eq(&(0..tail).map(|n| n.to_string()).collect::<Vec<_>>())
            );
        }
        // Any offset is a start.
        for from in 0..tail {
            let page = engine.read(of, Offset(from), 1).await.unwrap();
            assert_eq!(page.records[0].offset, Offset(from));
            assert_eq!(page.records[0].record.value, from.to_string());
        }
        engine = reopened(engine, place).await;
    }
}

pub(crate) async fn a_page_has_as_many_records_as_fit_and_at_least_one(place: &dyn EngineHome) {
    let engine = place.open();
    let of = one_partition(engine.as_ref()).await;
    for _ in 0..25 {
        let records = vec![record(vec![b'x'; 1_000]); 4];
        stored(engine.as_ref(), append(of, records)).await;
    }
    let engine = reopened(engine, place).await;
    // An engine may count a little more than key, value and headers for each record, never less.
    for (bytes_max, least, most) in [
        (0, 1, 1),
        (999, 1, 1),
        (2_200, 2, 2),
        (10_999, 9, 10),
        (55_000, 50, 55),
        (10 << 20, 100, 100),
    ] {
        let len = engine
            .read(of, Offset(0), bytes_max)
            .await
            .unwrap()
            .records
            .len();
        assert!(
            (least..=most).contains(&len),
            "{len} records in {bytes_max} bytes"
        );
    }
}

pub(crate) async fn beyond_the_tail_is_the_tail(place: &dyn EngineHome) {
    let engine = place.open();
    let stream = make(engine.as_ref(), "src", 2).await;
    let of = part(&stream, 0);
    stored(engine.as_ref(), numbered(of, 0..3)).await;
    let bounds = Bounds {
        earliest: Offset(0),
        tail: Offset(3),
    };
    for from in [3, 4, 1_000, u64::MAX] {
        let page = engine.read(of, Offset(from), 1_000).await.unwrap();
        assert!(page.records.is_empty());
        assert_eq!((page.next, page.bounds), (Offset(3), bounds), "from {from}");
    }
    let empty = part(&stream, 1);
    let page = engine.read(empty, Offset(0), 1_000).await.unwrap();
    assert!(page.records.is_empty());
    assert_eq!((page.next, page.bounds), (Offset(0), Bounds::default()));
    assert_eq!(engine.status(empty).unwrap(), PartitionStatus::default());
    let beyond = Offset(u64::MAX - 1)..Offset(u64::MAX);
    let settled = engine.settled_offsets(of, beyond.clone()).unwrap();
    assert!(!settled.contains(beyond.start));
}

pub(crate) async fn offset_at_finds_the_first_record_of_a_time(place: &dyn EngineHome) {
    let clock = place.clock();
    let mut engine = place.open();
    let stream = make(engine.as_ref(), "src", 2).await;
    let of = part(&stream, 0);
    let mut times: Vec<Timestamp> = Vec::new();
    let value = "v".repeat(2_000);
    for step in 0..60 {
        clock.set(clock.now().plus_micros(1_000_000 * (1 + step % 3)));
        let count = 1 + step % 4;
        let records = vec![record(value.clone()); usize::try_from(count).unwrap()];
        let committed = stored(engine.as_ref(), append(of, records)).await;
        times.extend((0..count).map(|_| committed.time));
    }
    for round in 0..3 {
        let earliest = if round == 2 { 50 } else { 0 };
        engine.trim(of, Offset(earliest)).await.unwrap();
        let first_at = |time: Timestamp| {
            let found = times.iter().position(|t| *t >= time);
            Offset((found.unwrap_or(times.len()) as u64).max(earliest))
        };
        for time in &times {
            for asked in [time.0 - 1, time.0, time.0 + 1] {
                let asked = Timestamp(asked);
                let found = engine.offset_at(of, asked).await.unwrap();
                assert_eq!(found, first_at(asked), "at {asked}");
            }
        }
        for (asked, wanted) in [(0, earliest), (u64::MAX, times.len() as u64)] {
            let found = engine.offset_at(of, Timestamp(asked)).await.unwrap();
            assert_eq!(found, Offset(wanted));
        }
        let empty = engine.offset_at(part(&stream, 1), clock.now()).await;
        assert_eq!(empty.unwrap(), Offset(0));
        engine = reopened(engine, place).await;
    }
}

pub(crate) async fn offset_at_tells_records_of_one_write_apart(place: &dyn EngineHome) {
    let engine = place.open();
    let of = one_partition(engine.as_ref()).await;
    // Queued together, so that one write may hold many of them.
    let commits = (0..60).map(|n| engine.commit(numbered(of, n..n + 1).into()));
    let commits = futures_util::future::join_all(commits).await;
    let times: Vec<_> = commits
        .into_iter()
        .map(|answer| answer.unwrap().time)
        .collect();
    let mut engine = engine;
    for earliest in [0, 25] {
        engine.trim(of, Offset(earliest)).await.unwrap();
        for (offset, time) in (0..).zip(&times) {
            let found = engine.offset_at(of, *time).await.unwrap();
            assert_eq!(found, Offset(offset).max(Offset(earliest)));
        }
        engine = reopened(engine, place).await;
    }
}

pub(crate) async fn no_record_is_older_than_what_is_known_without_reading_it(
    place: &dyn EngineHome,
) {
    let clock = place.clock();
    let mut engine = place.open();
    let stream = make(engine.as_ref(), "src", 2).await;
    let (of, empty) = (part(&stream, 0), part(&stream, 1));
    for _ in 0..40 {
        clock.set(clock.now().plus_micros(1_000_000));
        let records = vec![record("v".repeat(2_000)); 3];
        stored(engine.as_ref(), append(of, records)).await;
    }
    for round in 0..3 {
        let earliest = if round == 2 { 50 } else { 0 };
        engine.trim(of, Offset(earliest)).await.unwrap();
        let mut places: Vec<_> = (0..120).map(|offset| (of, Offset(offset))).collect();
        places.extend([(of, Offset(120)), (empty, Offset(0))]);
        let times = engine.not_before(&places).await;
        assert_eq!(times.len(), places.len());
        for ((_, offset), known) in places.iter().zip(times).take(120) {
            if offset.0 < earliest {
                assert_eq!(known, Timestamp::default(), "{offset} is trimmed");
                continue;
            }
            let page = engine.read(of, *offset, 1).await.unwrap();
            let time = page.records[0].time;
            assert!(known <= time, "{offset}: {known}, {time}");
        }
        engine = reopened(engine, place).await;
    }
    let unknown = PartitionId {
        stream: StreamId([9; 16]),
        ..of
    };
    let known = engine.not_before(&[(unknown, Offset(0))]).await;
    assert_eq!(known, [Timestamp::default()]);
}

pub(crate) async fn the_tail_can_be_watched(place: &dyn EngineHome) {
    let engine = place.open();
    let stream = make(engine.as_ref(), "src", 2).await;
    let (of, other) = (part(&stream, 0), part(&stream, 1));
    let mut tail = engine.tail(of).unwrap();
    assert_eq!(*tail.borrow_and_update(), Offset(0));
    stored(engine.as_ref(), numbered(other, 0..2)).await;
    stored(engine.as_ref(), numbered(of, 0..3)).await;
    in_time(tail.changed()).await.unwrap();
    assert_eq!(*tail.borrow_and_update(), Offset(3));
    engine.trim(of, Offset(3)).await.unwrap();
    assert_eq!(*tail.borrow(), Offset(3));
    stored(engine.as_ref(), numbered(of, 3..4)).await;
    in_time(tail.wait_for(|tail| *tail == Offset(4)))
        .await
        .unwrap();
}

pub(crate) async fn an_unknown_partition_is_refused_everywhere(place: &dyn EngineHome) {
    let engine = place.open();
    let stream = make(engine.as_ref(), "src", 1).await;
    let gone = make(engine.as_ref(), "gone", 1).await;
    engine
        .delete_stream(gone.id, None, crate::storage::OpenRecords::Drop)
        .await
        .unwrap();
    let nowhere = Stream {
        id: StreamId([9; 16]),
        ..stream.as_ref().clone()
    };
    let unknown = [part(&stream, 1), part(&gone, 0), part(&nowhere, 0)];
    for of in unknown {
        let reads: [Option<ReadError>; 5] = [
            engine.read(of, Offset(0), 1).await.err(),
            engine.status(of).err(),
            engine.tail(of).err(),
            engine.settled_offsets(of, Offset(0)..Offset(1)).err(),
            engine.offset_at(of, Timestamp(0)).await.err(),
        ];
        let first = PartitionId {
            partition: Partition(0),
            ..of
        };
        if engine.stream_by_id(of.stream).is_none() {
            let keep = Keep {
                since: None,
                now: Timestamp(0),
                bytes_max: None,
            };
            let error = engine.first_kept(of.stream, keep).await.err();
            assert!(matches!(error, Some(ReadError::PartitionUnknown(at)) if at == first));
        }
        for error in reads {
            assert!(
                matches!(error, Some(ReadError::PartitionUnknown(at)) if at == of),
                "{error:?}"
            );
        }
        let refusals: [CommitError; 3] = [
            refused(engine.as_ref(), numbered(of, 0..1)).await,
            refused(
                engine.as_ref(),
                vec![settle(of, 0, NewSettlement::Delivered)],
            )
            .await,
            engine.trim(of, Offset(0)).await.unwrap_err(),
        ];
        for error in refusals {
            assert!(
                matches!(error, CommitError::PartitionUnknown(at) if at == of),
                "{error:?}"
            );
        }
    }
    for id in [gone.id, nowhere.id] {
        assert_eq!(engine.stream_by_id(id), None);
        let change = engine.change_stream(id, 2, StreamConfig::default(), None);
        let change = change.await;
        assert!(matches!(change, Err(StreamError::Unknown)), "{change:?}");
        let delete = engine
            .delete_stream(id, None, crate::storage::OpenRecords::Drop)
            .await;
        assert!(matches!(delete, Err(StreamError::Unknown)), "{delete:?}");
    }
    assert_eq!(engine.stream(&stream_name("gone")), None);
}
