//! What callers are promised while nothing is damaged.

use std::sync::Arc;

use crate::{
    place::{Offset, Partition, PartitionId, StreamId},
    storage::{
        Append, AppendKind, Appended, Commit, CommitError, ControlEventKind, Counts, DedupId,
        Epoch, Finish, Health, LeaseEvent, Leases, Log, MadeBy, NewEnd, ReadError, State,
        StateChange, Stream, StreamConfig, StreamError,
    },
};

use super::{Bench, append, appends, at, finish, finishes, put, record, states, texts};

fn partition(stream: &Stream, partition: u16) -> PartitionId {
    stream.partition(Partition(partition)).unwrap()
}

#[tokio::test]
async fn records_are_read_back_as_they_were_also_after_a_crash() {
    let mut bench = Bench::new();
    let stream = bench.stream("orders", 2).await;
    let of = partition(&stream, 1);
    let first = bench.append(of, &["a", "b"]).await;
    let second = bench.append(of, &["c"]).await;
    assert!(second.time > first.time);
    assert_eq!(second.appends[0].first, Offset(2));
    for _ in 0..2 {
        let records = bench.all(of).await;
        assert_eq!(texts(&records), ["a", "b", "c"]);
        assert_eq!(records[0].record, record("a"));
        assert_eq!(records[1].time, first.time);
        assert_eq!(records[2].time, second.time);
        assert_eq!(records[2].offset, Offset(2));
        bench.crash();
    }
    assert_eq!(bench.append(of, &["d"]).await.appends[0].first, Offset(3));
    let other = partition(&stream, 0);
    let bounds = bench.engine().status(other).unwrap().bounds;
    assert_eq!(bounds.tail, Offset(0));
}

#[tokio::test]
async fn everything_a_commit_holds_is_there_after_each_kind_of_end() {
    let mut bench = Bench::new();
    let orders = bench.stream("orders", 1).await;
    let errors = bench.stream("errors", 1).await;
    let (source, error) = (partition(&orders, 0), partition(&errors, 0));
    bench.append(source, &["a", "b", "c", "d", "e"]).await;
    let commit = Commit {
        appends: vec![Append {
            kind: AppendKind::Routed,
            ..append(error, &["b failed"])
        }],
        finishes: vec![
            finish(source, 1, NewEnd::Routed { append: 0 }),
            finish(source, 3, NewEnd::Delivered),
        ],
        state: vec![put("job/1", "half", None)],
    };
    bench.engine().commit(commit).await.unwrap();
    for end in ["none", "crash", "close", "crash"] {
        match end {
            "crash" => bench.crash(),
            "close" => bench.reopen().await,
            _ => {}
        }
        let status = bench.engine().status(source).unwrap();
        assert_eq!(status.low_mark, Offset(0), "{end}");
        let counts = Counts {
            appended: [5, 0, 0, 0, 0],
            delivered: 1,
            routed: 1,
            ..Counts::default()
        };
        assert_eq!(status.counts, counts);
        assert_eq!(status.counts.open_len(), 3);
        let ended = bench
            .engine()
            .finished(source, Offset(0)..Offset(9))
            .unwrap();
        let ended: Vec<_> = (0..9).filter(|at| ended.contains(Offset(*at))).collect();
        assert_eq!(ended, [1, 3]);
        let copies = bench.engine().status(error).unwrap().counts;
        assert_eq!(copies.appended[AppendKind::Routed as usize], 1);
        assert_eq!(bench.values(error).await, ["b failed"]);
        let state = bench.engine().get("job/1").await.unwrap();
        assert_eq!(&state.value[..], b"half");
        assert_eq!(bench.engine().streams().len(), 2);
    }
}

#[tokio::test]
async fn a_refused_commit_leaves_no_trace() {
    let mut bench = Bench::new();
    let stream = bench.stream("orders", 1).await;
    let of = partition(&stream, 0);
    bench.append(of, &["a", "b"]).await;
    let whole = |finishes: Vec<Finish>, state: Vec<StateChange>| Commit {
        appends: vec![append(of, &["never"])],
        finishes,
        state,
    };
    let stranger = PartitionId {
        stream: StreamId([1; 16]),
        partition: Partition(0),
    };
    let beyond = PartitionId {
        partition: Partition(1),
        ..of
    };
    let fenced = Finish {
        epoch: Epoch(2),
        ..finish(of, 0, NewEnd::Delivered)
    };
    let delivered = |offset| finish(of, offset, NewEnd::Delivered);
    let mut unknown = whole(vec![], vec![put("k", "v", None)]);
    unknown.appends.push(append(beyond, &["never"]));
    let cases = [
        (whole(vec![delivered(2)], vec![]), "ended already"),
        (
            whole(vec![delivered(0), delivered(0)], vec![]),
            "ended already",
        ),
        (whole(vec![fenced], vec![]), "lease"),
        (
            whole(vec![finish(stranger, 0, NewEnd::Filtered)], vec![]),
            "is unknown",
        ),
        (
            whole(vec![delivered(0)], vec![put("k", "v", Some(3))]),
            "changed meanwhile",
        ),
        (
            whole(vec![finish(of, 0, NewEnd::Routed { append: 7 })], vec![]),
            "are the most",
        ),
        (unknown, "is unknown"),
    ];
    for (commit, message) in cases {
        let error = bench.engine().commit(commit).await.unwrap_err().to_string();
        assert!(error.contains(message), "{error} does not say {message}");
    }
    for _ in 0..2 {
        assert_eq!(bench.values(of).await, ["a", "b"]);
        assert_eq!(bench.engine().status(of).unwrap().counts.ended_len(), 0);
        assert!(bench.engine().list("").await.is_empty());
        bench.crash();
    }
}

#[tokio::test]
async fn a_record_ends_once_also_among_commits_that_are_stored_together() {
    let bench = Bench::new();
    let stream = bench.stream("orders", 1).await;
    let of = partition(&stream, 0);
    let offsets = 0..200u64;
    bench.append(of, &vec!["x"; offsets.clone().count()]).await;
    let engine = bench.engine();
    let both = offsets.clone().flat_map(|offset| {
        [NewEnd::Delivered, NewEnd::Discarded].map(|end| {
            let commit = finishes([finish(of, offset, end)]);
            engine.commit(commit)
        })
    });
    let answers = futures_util::future::join_all(both).await;
    let stored = answers.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(stored, offsets.clone().count());
    let refused = answers.iter().filter_map(|answer| answer.as_ref().err());
    assert!(
        refused
            .into_iter()
            .all(|e| matches!(e, CommitError::AlreadyFinished { .. }))
    );
    let status = engine.status(of).unwrap();
    assert_eq!(status.counts.ended_len(), 200);
    assert_eq!(status.low_mark, Offset(200));
}

#[tokio::test]
async fn an_end_that_nobody_waits_for_is_stored_within_moments() {
    let mut bench = Bench::new();
    let stream = bench.stream("orders", 1).await;
    let of = partition(&stream, 0);
    bench.append(of, &["a", "b", "c"]).await;
    for offset in [2, 0, 1, 1] {
        let finish = finish(of, offset, NewEnd::Delivered);
        bench.engine().finish_soon(finish).unwrap();
    }
    // Closing stores what is queued; the second end of the same record was dropped.
    bench.reopen().await;
    let status = bench.engine().status(of).unwrap();
    assert_eq!((status.counts.delivered, status.low_mark), (3, Offset(3)));

    bench.append(of, &["d"]).await;
    let finish = finish(of, 3, NewEnd::Filtered);
    bench.engine().finish_soon(finish).unwrap();
    // Nothing else comes, and yet it is stored.
    while bench.engine().status(of).unwrap().low_mark < Offset(4) {
        tokio::task::yield_now().await;
    }
    bench.crash();
    assert_eq!(bench.engine().status(of).unwrap().low_mark, Offset(4));
}

#[tokio::test]
async fn concurrent_commits_get_offsets_without_gaps_and_times_without_ties() {
    let mut bench = Bench::new();
    let stream = bench.stream("orders", 2).await;
    let engine = bench.engine();
    let commits = (0..500).map(|number: u16| {
        let of = partition(&stream, number % 2);
        engine.commit(appends([append(of, &[&number.to_string()])]))
    });
    let answers = futures_util::future::join_all(commits).await;
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    let mut times: Vec<_> = answers.iter().map(|answer| answer.time).collect();
    times.sort();
    times.dedup();
    assert_eq!(times.len(), 500);
    bench.crash();
    for part in 0..2 {
        let records = bench.all(partition(&stream, part)).await;
        assert_eq!(records.len(), 250);
        for (offset, record) in (0..).zip(&records) {
            assert_eq!(record.offset, Offset(offset));
            let number: usize = texts(std::slice::from_ref(record))[0].parse().unwrap();
            assert_eq!(answers[number].appends[0].first, record.offset);
            assert_eq!(answers[number].time, record.time);
        }
    }
}

#[tokio::test]
async fn a_stream_made_again_under_its_name_is_another() {
    let mut bench = Bench::new();
    let old = bench.stream("orders", 1).await;
    let of = partition(&old, 0);
    bench.append(of, &["old"]).await;
    let mut tail = bench.engine().tail(of).unwrap();
    let taken = bench
        .engine()
        .create_stream(old.name.clone(), 1, StreamConfig::default())
        .await;
    assert!(matches!(taken, Err(StreamError::Exists)));

    bench
        .engine()
        .delete_stream(old.id, Some(old.revision))
        .await
        .unwrap();
    assert!(tail.wait_for(|tail| *tail > Offset(1)).await.is_err());
    let new = bench.stream("orders", 1).await;
    assert_ne!(new.id, old.id);
    assert_ne!(new.incarnation, old.incarnation);
    for _ in 0..2 {
        assert!(bench.engine().stream_by_id(old.id).is_none());
        let gone = bench.engine().read(of, Offset(0), 1).await;
        assert!(matches!(gone, Err(ReadError::PartitionUnknown(p)) if p == of));
        let refused = bench.engine().commit(appends([append(of, &["x"])])).await;
        assert!(matches!(refused, Err(CommitError::PartitionUnknown(p)) if p == of));
        assert!(bench.values(partition(&new, 0)).await.is_empty());
        bench.crash();
    }
    let again = bench.engine().delete_stream(old.id, None).await;
    assert!(matches!(again, Err(StreamError::Unknown)));
}

#[tokio::test]
async fn a_stream_grows_and_never_shrinks() {
    let mut bench = Bench::new();
    let made = bench.stream("orders", 1).await;
    bench.append(partition(&made, 0), &["a", "b"]).await;
    let config = StreamConfig {
        made_by: MadeBy::Api,
        retention_hours: Some(5),
        ..StreamConfig::default()
    };
    let grown = bench
        .engine()
        .change_stream(made.id, 3, config.clone(), Some(made.revision))
        .await
        .unwrap();
    assert!(grown.revision > made.revision);
    let tails = vec![Offset(2), Offset(0), Offset(0)];
    assert_eq!(
        grown.events[1].kind,
        ControlEventKind::Grown { partitions: 3 }
    );
    assert_eq!(grown.events[1].tails, tails);
    bench.append(partition(&grown, 2), &["c"]).await;
    bench.crash();
    assert_eq!(bench.engine().stream(&made.name), Some(grown.clone()));
    assert_eq!(bench.values(partition(&grown, 2)).await, ["c"]);

    let engine = bench.engine();
    let shrunk = engine.change_stream(made.id, 2, config.clone(), None).await;
    assert!(matches!(shrunk, Err(StreamError::Shrink { partitions: 3 })));
    let stale = engine
        .change_stream(made.id, 4, config.clone(), Some(made.revision))
        .await;
    assert!(matches!(stale, Err(StreamError::ChangedMeanwhile)));
    let stale = engine.delete_stream(made.id, Some(made.revision)).await;
    assert!(matches!(stale, Err(StreamError::ChangedMeanwhile)));
    let same = engine
        .change_stream(made.id, 3, config, None)
        .await
        .unwrap();
    assert_eq!(same, grown);
}

#[tokio::test]
async fn state_changes_only_from_the_revision_that_was_seen() {
    let mut bench = Bench::new();
    let changed = bench.engine().changed("secret/");
    let commit = |change: StateChange| bench.engine().commit(states([change]));
    commit(put("secret/a", "1", Some(0))).await.unwrap();
    let conflict = commit(put("secret/a", "2", Some(0))).await;
    assert!(matches!(conflict, Err(CommitError::StateConflict { .. })));
    let first = bench.engine().get("secret/a").await.unwrap();
    commit(put("secret/a", "2", Some(first.revision)))
        .await
        .unwrap();
    commit(put("other", "x", None)).await.unwrap();
    let second = bench.engine().get("secret/a").await.unwrap();
    assert!(second.revision > first.revision);
    assert_eq!(*changed.borrow(), 2);

    // In one commit, one after the other.
    let twice = states([put("job", "1", Some(0)), put("job", "2", Some(0))]);
    let conflict = bench.engine().commit(twice).await;
    assert!(matches!(conflict, Err(CommitError::StateConflict { .. })));

    bench.crash();
    let engine = bench.engine();
    assert_eq!(engine.get("secret/a").await, Some(second.clone()));
    let listed = engine.list("secret/").await;
    assert_eq!(listed, [(Arc::from("secret/a"), second.clone())]);
    let remove = StateChange {
        key: "secret/a".into(),
        value: None,
        expected: Some(second.revision),
    };
    engine.commit(states([remove])).await.unwrap();
    engine
        .commit(states([put("secret/a", "3", Some(0))]))
        .await
        .unwrap();
    let third = engine.get("secret/a").await.unwrap();
    assert!(third.revision > second.revision);
}

#[tokio::test]
async fn of_commits_that_race_for_a_value_one_wins() {
    let bench = Bench::new();
    let engine = bench.engine();
    let race = (0..50).map(|_| engine.commit(states([put("lock", "mine", Some(0))])));
    let answers = futures_util::future::join_all(race).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
}

#[tokio::test]
async fn what_is_too_large_is_refused_with_its_bound() {
    let bench = Bench::new();
    let stream = bench.stream("orders", 1).await;
    let of = partition(&stream, 0);
    let large = "x".repeat(33 << 20);
    let commits = [
        (appends([append(of, &[&large])]), "a commit"),
        (
            states([put("k", &large[..300 << 10], None)]),
            "a state value",
        ),
        (
            states([put(&large[..600], "v", None)]),
            "the name of a state value",
        ),
    ];
    for (commit, expected) in commits {
        let error = bench.engine().commit(commit).await.unwrap_err();
        assert!(matches!(error, CommitError::TooLarge { what, .. } if what == expected));
    }
    let value = &large[..250 << 10];
    let mut refused = None;
    for number in 0..80 {
        let commit = states([put(&format!("fill/{number}"), value, None)]);
        refused = refused.or(bench.engine().commit(commit).await.err());
    }
    assert!(matches!(
        refused,
        Some(CommitError::TooLarge {
            what: "state as a whole",
            ..
        })
    ));
}

#[tokio::test]
async fn a_commit_larger_than_a_file_and_than_the_queue_is_stored() {
    let mut bench = Bench::with(|log| log.queue_bytes_max = 1000);
    let stream = bench.stream("orders", 1).await;
    let of = partition(&stream, 0);
    let large = "x".repeat(900 << 10);
    bench.append(of, &[&large, "small", &large]).await;
    bench.append(of, &["behind"]).await;
    for _ in 0..2 {
        assert_eq!(bench.values(of).await, [&large, "small", &large, "behind"]);
        bench.crash();
    }
}

#[tokio::test]
async fn a_repeated_append_is_answered_with_its_first_place() {
    let mut bench = Bench::with(|log| log.dedup_len_max = 1_000);
    let stream = bench.stream("orders", 1).await;
    let other = bench.stream("others", 1).await;
    let (of, elsewhere) = (partition(&stream, 0), partition(&other, 0));
    let once = |of, id: u8| {
        appends([Append {
            dedup: Some(DedupId([id; 16])),
            ..append(of, &["once", "more"])
        }])
    };
    let first = bench.engine().commit(once(of, 1)).await.unwrap();
    assert_eq!(
        first.appends[0],
        Appended {
            first: Offset(0),
            duplicate: false
        }
    );
    let again = Appended {
        first: Offset(0),
        duplicate: true,
    };
    for round in 0..4 {
        let repeated = bench.engine().commit(once(of, 1)).await.unwrap();
        assert_eq!(repeated.appends, [again], "round {round}");
        match round {
            0 => bench.crash(),
            1 => bench.reopen().await,
            // Far behind in the journal, where only the index knows it.
            _ => {
                fill(&bench, elsewhere, 40).await;
                bench.reopen().await;
            }
        }
    }
    assert!(bench.journal().len() > 8);
    let same_id = bench.engine().commit(once(elsewhere, 1)).await.unwrap();
    assert!(!same_id.appends[0].duplicate);
    assert_eq!(bench.values(of).await, ["once", "more"]);

    // Two of the same gather.
    let engine = bench.engine();
    let (one, two) = tokio::join!(engine.commit(once(of, 2)), engine.commit(once(of, 2)));
    let (one, two) = (one.unwrap().appends[0], two.unwrap().appends[0]);
    assert_eq!(one.first, two.first);
    assert!(one.duplicate != two.duplicate);
}

/// Appends records of 50 KiB, of which a file holds five.
async fn fill(bench: &Bench, of: PartitionId, count: usize) {
    for number in 0..count {
        let value = format!("{number:0>51200}");
        bench.append(of, &[&value]).await;
    }
}

#[tokio::test]
async fn records_of_many_files_are_read_in_order_from_anywhere() {
    let mut bench = Bench::with(|log| log.cache_bytes = 100 << 10);
    let stream = bench.stream("orders", 2).await;
    let of = partition(&stream, 0);
    fill(&bench, of, 60).await;
    bench.append(partition(&stream, 1), &["other"]).await;
    for round in 0..3 {
        for from in [0, 1, 29, 58, 59] {
            let records = bench.from(of, Offset(from)).await;
            assert_eq!(records.len() as u64, 60 - from, "round {round}");
            for (offset, record) in (from..).zip(&records) {
                assert_eq!(record.offset, Offset(offset));
                assert_eq!(record.record.value, format!("{offset:0>51200}"));
            }
        }
        let page = bench.engine().read(of, Offset(3), 160_000).await.unwrap();
        assert_eq!(page.records.len(), 3);
        assert_eq!(page.next, Offset(6));
        if round == 0 {
            bench.crash();
        } else {
            bench.reopen().await;
        }
    }
    assert!(bench.journal().len() >= 12);
}

#[tokio::test]
async fn a_page_at_the_tail_is_empty_and_one_below_the_earliest_is_refused() {
    let mut bench = Bench::new();
    let stream = bench.stream("orders", 1).await;
    let of = partition(&stream, 0);
    bench.append(of, &["a", "b", "c", "d"]).await;
    for from in [4, 100] {
        let page = bench.engine().read(of, Offset(from), 10).await.unwrap();
        assert!(page.records.is_empty());
        assert_eq!(page.next, Offset(4));
    }
    let done = finishes([finish(of, 1, NewEnd::Delivered)]);
    bench.engine().commit(done).await.unwrap();
    bench.engine().trim(of, Offset(3)).await.unwrap();
    bench.engine().trim(of, Offset(1)).await.unwrap();
    for _ in 0..2 {
        let trimmed = bench.engine().read(of, Offset(2), 10).await;
        assert!(matches!(
            trimmed,
            Err(ReadError::Trimmed {
                wanted: Offset(2),
                earliest: Offset(3)
            })
        ));
        let status = bench.engine().status(of).unwrap();
        assert_eq!(status.low_mark, Offset(3));
        assert_eq!((status.counts.expired, status.counts.delivered), (2, 1));
        assert_eq!(bench.values(of).await, ["d"]);
        let late = finishes([finish(of, 0, NewEnd::Delivered)]);
        let late = bench.engine().commit(late).await;
        assert!(matches!(late, Err(CommitError::AlreadyFinished { .. })));
        bench.crash();
    }
    bench.engine().trim(of, Offset(u64::MAX)).await.unwrap();
    bench.crash();
    assert_eq!(
        bench.engine().status(of).unwrap().bounds.earliest,
        Offset(4)
    );
    assert_eq!(bench.append(of, &["e"]).await.appends[0].first, Offset(4));
}

#[tokio::test]
async fn a_time_finds_the_first_record_at_or_behind_it() {
    let mut bench = Bench::with(|log| log.cache_bytes = 0);
    bench.clock = crate::clock::Clock::manual(at(1_000_000));
    bench.crash();
    let stream = bench.stream("orders", 1).await;
    let of = partition(&stream, 0);
    let mut times = Vec::new();
    for number in 0..30u64 {
        bench.clock.set(at(2_000_000 + number * 1_000));
        let value = format!("{number:0>51200}");
        times.push(bench.append(of, &[&value, "second"]).await.time);
    }
    // A clock that goes back does not take time back.
    bench.clock.set(at(5));
    let late = bench.append(of, &["late"]).await.time;
    assert_eq!(late, times[29].plus_micros(1));
    bench.engine().trim(of, Offset(6)).await.unwrap();
    for round in 0..2 {
        let engine = bench.engine();
        for (number, time) in (0u64..).zip(&times) {
            let expected = Offset((number * 2).max(6));
            assert_eq!(
                engine.offset_at(of, *time).await.unwrap(),
                expected,
                "{round}"
            );
            let behind = Offset((number * 2 + 2).max(6));
            let after = time.plus_micros(1);
            assert_eq!(engine.offset_at(of, after).await.unwrap(), behind);
        }
        assert_eq!(engine.offset_at(of, at(0)).await.unwrap(), Offset(6));
        let never = engine.offset_at(of, late.plus_micros(1)).await;
        assert_eq!(never.unwrap(), Offset(61));
        bench.reopen().await;
    }
}

#[tokio::test]
async fn leases_are_granted_as_partitions_come_and_lost_with_their_stream() {
    let bench = Bench::new();
    let stream = bench.stream("orders", 2).await;
    let engine = bench.engine();
    let mut events = engine.leases(stream.id);
    let mut granted = Vec::new();
    let config = StreamConfig::default();
    engine
        .change_stream(stream.id, 3, config, None)
        .await
        .unwrap();
    for _ in 0..3 {
        match events.recv().await {
            Some(LeaseEvent::Granted(lease)) => {
                assert_eq!(lease.epoch, Epoch(1));
                granted.push(lease.of.partition.0);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(granted, [0, 1, 2]);
    engine.delete_stream(stream.id, None).await.unwrap();
    for partition in 0..3 {
        let event = events.recv().await;
        assert!(matches!(event, Some(LeaseEvent::Lost(of)) if of.partition.0 == partition));
    }
    assert!(events.recv().await.is_none());
    assert!(engine.leases(stream.id).recv().await.is_none());
}

#[tokio::test]
async fn a_closed_engine_refuses_and_still_reads() {
    let bench = Bench::new();
    let stream = bench.stream("orders", 1).await;
    let of = partition(&stream, 0);
    bench.append(of, &["a"]).await;
    let engine = bench.engine();
    engine.close().await;
    engine.close().await;
    assert!(matches!(*engine.health().borrow(), Health::Stopped(_)));
    let refused = engine.commit(appends([append(of, &["b"])])).await;
    assert!(matches!(refused, Err(CommitError::Stopped(_))));
    let refused = engine.finish_soon(finish(of, 0, NewEnd::Delivered));
    assert!(matches!(refused, Err(CommitError::Stopped(_))));
    assert_eq!(bench.values(of).await, ["a"]);
    // The directory is free before the last handle is gone.
    let other = super::open(bench.dir.path(), &bench.log, &bench.clock).unwrap();
    assert_eq!(other.status(of).unwrap().bounds.tail, Offset(1));
}

#[tokio::test]
async fn a_full_queue_says_busy() {
    let bench = Bench::with(|log| log.queue_len_max = 3);
    let stream = bench.stream("orders", 1).await;
    let of = partition(&stream, 0);
    let engine = bench.engine();
    let mut commits: Vec<_> = (0..50)
        .map(|_| engine.commit(appends([append(of, &["x"])])))
        .collect();
    // Polled once each, so all are pushed before the writer can answer many.
    let answers = futures_util::future::join_all(commits.drain(..)).await;
    let stored = answers.iter().filter(|answer| answer.is_ok()).count();
    let busy = answers
        .iter()
        .filter(|a| matches!(a, Err(CommitError::Busy)))
        .count();
    assert_eq!(stored + busy, 50);
    assert!(stored >= 3 && busy > 0, "{stored} stored, {busy} refused");
    assert_eq!(bench.values(of).await.len(), stored);
}

#[tokio::test]
async fn idle_restarts_take_no_space() {
    let mut bench = Bench::new();
    let stream = bench.stream("orders", 1).await;
    let of = partition(&stream, 0);
    bench.append(of, &["a"]).await;
    bench.reopen().await;
    let files = bench.journal().len();
    for _ in 0..5 {
        bench.reopen().await;
        bench.crash();
    }
    assert_eq!(bench.journal().len(), files);
    assert_eq!(bench.values(of).await, ["a"]);
    bench.append(of, &["b"]).await;
    bench.crash();
    assert_eq!(bench.values(of).await, ["a", "b"]);
}
