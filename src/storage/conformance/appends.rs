//! Appended records get dense offsets and are read back unchanged.

use futures_util::FutureExt;

use super::{
    Content, EngineHome, append, change, in_time, make, numbered, one_partition, part, record,
    refused, reopened, settle, stored,
};
use crate::{
    model::{
        ids::Offset,
        record::{HeadersBuilder, Record, header},
    },
    runtime::clock::Timestamp,
    storage::{
        AppendKind, Appended, Commit, CommitError, NewSettlement, StreamConfig, StreamError,
    },
};

pub(crate) async fn offsets_are_dense_in_each_partition_and_go_on_after_a_reopen(
    place: &dyn EngineHome,
) {
    let mut engine = place.open();
    let stream = make(engine.as_ref(), "src", 3).await;
    let mut tails = [0; 3];
    for round in 0..4 {
        for (partition, count) in [(0, 1), (2, 5), (0, 2), (1, 1)] {
            let numbers = tails[partition]..tails[partition] + count;
            let of = part(&stream, u16::try_from(partition).unwrap());
            let committed = stored(engine.as_ref(), numbered(of, numbers.clone())).await;
            let appended = Appended {
                of,
                first: Offset(numbers.start),
                len: count,
            };
            assert_eq!(committed.appends, [appended]);
            tails[partition] = numbers.end;
        }
        if round % 2 == 1 {
            engine = reopened(engine, place).await;
        }
    }
    for (partition, tail) in (0..).zip(tails) {
        let of = part(&stream, partition);
        assert_eq!(engine.status(of).unwrap().bounds.tail, Offset(tail));
        let page = engine.read(of, Offset(0), 1 << 20).await.unwrap();
        let values = page.records.into_iter().map(|stored| stored.record.value);
        assert!(values.eq((0..tail).map(|n| n.to_string())));
    }
}

pub(crate) async fn records_are_read_back_byte_for_byte(place: &dyn EngineHome) {
    let engine = place.open();
    let of = one_partition(engine.as_ref()).await;
    let mut headers = HeadersBuilder::default();
    headers
        .push(header::SOURCE, "default")
        .push("x-own", "ä \u{0}")
        .push(header::TARGET, "");
    let all_bytes: Vec<u8> = (0..=255).collect();
    let records = vec![
        record(""),
        Record {
            key: all_bytes.clone().into(),
            value: all_bytes.repeat(20).into(),
            headers: headers.build(),
        },
        Record {
            key: "k".into(),
            ..record("")
        },
        record(vec![0; 5000]),
    ];
    let committed = stored(engine.as_ref(), append(of, records.clone())).await;
    let engine = reopened(engine, place).await;
    let page = engine.read(of, Offset(0), 1 << 20).await.unwrap();
    for (at, (stored, record)) in page.records.iter().zip(&records).enumerate() {
        assert_eq!(stored.offset, Offset(at as u64));
        assert_eq!(stored.time, committed.time);
        assert_eq!(&stored.record, record);
    }
    assert_eq!(page.records.len(), records.len());
}

pub(crate) async fn a_record_larger_than_a_block_is_read_back(place: &dyn EngineHome) {
    let engine = place.open();
    let of = one_partition(engine.as_ref()).await;
    let large: Vec<u8> = (0..600_000_u32).map(|n| (n * 7 % 251) as u8).collect();
    let records = vec![record("before"), record(large), record("behind")];
    stored(engine.as_ref(), append(of, records.clone())).await;
    let engine = reopened(engine, place).await;
    for (offset, record) in (0..).zip(&records) {
        let page = engine.read(of, Offset(offset), 1).await.unwrap();
        assert_eq!(&page.records[0].record, record);
    }
}

pub(crate) async fn a_commit_may_append_twice_to_one_partition(place: &dyn EngineHome) {
    let engine = place.open();
    let stream = make(engine.as_ref(), "src", 2).await;
    let (zero, one) = (part(&stream, 0), part(&stream, 1));
    if !engine.caps().commit_over_partitions {
        return;
    }
    let mut replayed = numbered(zero, 2..5);
    replayed.kind = AppendKind::ReplayFailed;
    let commit = Commit {
        appends: vec![numbered(zero, 0..2), numbered(one, 0..1), replayed],
        ..Commit::default()
    };
    let committed = stored(engine.as_ref(), commit).await;
    let firsts: Vec<_> = committed.appends.iter().map(|a| a.first.0).collect();
    assert_eq!(firsts, [0, 0, 2]);
    let engine = reopened(engine, place).await;
    let page = engine.read(zero, Offset(0), 1 << 20).await.unwrap();
    let values: Vec<_> = page.records.iter().map(|s| &s.record.value[..]).collect();
    assert_eq!(values, [b"0", b"1", b"2", b"3", b"4"]);
    let counts = engine.status(zero).unwrap().counts;
    assert_eq!(counts.appended, [2, 0, 0, 3, 0]);
}

pub(crate) async fn times_never_go_back_even_if_the_clock_does(place: &dyn EngineHome) {
    let clock = place.clock();
    let mut engine = place.open();
    let of = one_partition(engine.as_ref()).await;
    let start = clock.now();
    let mut last = Timestamp(0);
    for (number, at) in [5_000_000, 4_000_000, 0, 6_000_000, 6_000_000]
        .into_iter()
        .enumerate()
    {
        clock.set(start.plus_micros(at));
        let number = number as u64;
        let committed = stored(engine.as_ref(), numbered(of, number..number + 1)).await;
        assert!(committed.time > last, "{} after {last}", committed.time);
        assert!(committed.time >= clock.now());
        last = committed.time;
        let page = engine.read(of, Offset(number), 1).await.unwrap();
        assert_eq!(page.records[0].time, last);
        if number == 1 {
            engine = reopened(engine, place).await;
        }
    }
}

pub(crate) async fn a_dropped_call_is_still_stored(place: &dyn EngineHome) {
    let engine = place.open();
    let of = one_partition(engine.as_ref()).await;
    let mut tail = engine.tail(of).unwrap();
    // One poll queues it; an answer that comes that fast is as good.
    let _answer = engine.commit(numbered(of, 0..3).into()).now_or_never();
    in_time(tail.wait_for(|tail| *tail == Offset(3)))
        .await
        .unwrap();
    let engine = reopened(engine, place).await;
    assert_eq!(engine.status(of).unwrap().bounds.tail, Offset(3));
}

pub(crate) async fn a_closed_engine_refuses_everything_and_keeps_everything(
    place: &dyn EngineHome,
) {
    let engine = place.open();
    let of = one_partition(engine.as_ref()).await;
    stored(engine.as_ref(), numbered(of, 0..3)).await;
    stored(engine.as_ref(), change("t/a", Some("1"), None)).await;
    engine.close().await;
    engine.close().await;
    let before = Content::of(engine.as_ref()).await;
    let commits: [Commit; 3] = [
        numbered(of, 3..4).into(),
        vec![settle(of, 0, NewSettlement::Delivered)].into(),
        change("t/a", Some("2"), None).into(),
    ];
    for commit in commits {
        let error = refused(engine.as_ref(), commit).await;
        assert!(matches!(error, CommitError::Stopped(_)), "{error}");
    }
    let error = engine.settle_soon(settle(of, 0, NewSettlement::Delivered));
    assert!(matches!(error, Err(CommitError::Stopped(_))), "{error:?}");
    let error = engine.trim(of, Offset(1)).await;
    assert!(matches!(error, Err(CommitError::Stopped(_))), "{error:?}");
    let name = super::stream_name("other");
    let error = engine
        .create_stream(name, 1, StreamConfig::default())
        .await
        .unwrap_err();
    assert!(
        matches!(error, StreamError::Commit(CommitError::Stopped(_))),
        "{error}"
    );
    before.assert_same(&Content::of(engine.as_ref()).await, "after refusals");
    reopened(engine, place).await;
}

pub(crate) async fn close_answers_what_was_queued(place: &dyn EngineHome) {
    let engine = place.open();
    let of = one_partition(engine.as_ref()).await;
    let commits = (0..50).map(|n| engine.commit(numbered(of, n..n + 1).into()));
    let commits = futures_util::future::join_all(commits);
    let (answers, ()) = tokio::join!(commits, engine.close());
    let count = answers.iter().filter(|answer| answer.is_ok()).count();
    for error in answers.iter().filter_map(|answer| answer.as_ref().err()) {
        assert!(matches!(error, CommitError::Stopped(_)), "{error}");
    }
    let engine = reopened(engine, place).await;
    let tail = engine.status(of).unwrap().bounds.tail;
    assert_eq!(tail, Offset(count as u64));
}
