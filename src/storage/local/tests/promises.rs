//! Commits: stored whole or not at all, once, and within their bounds.

use crate::{
    model::ids::{Offset, Partition, PartitionId, StreamId},
    runtime::clock::Clock,
    storage::{
        Append, AppendKind, Commit, CommitError, Counts, DedupId, Epoch, Health, Log,
        NewSettlement, OpenRecords, Settle, State, StateChange, StreamConfig, StreamError,
    },
};

use super::super::format::{segment::SegmentHeader, snapshot};
use super::{Bench, append, appends, fill, marked, partition, put, settle, settles, states, until};

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
        settles: vec![
            settle(source, 1, NewSettlement::Routed { append: 0 }),
            settle(source, 3, NewSettlement::Delivered),
        ],
        state: vec![put("job/1", "half", None)],
        ..Commit::default()
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
            .settled_offsets(source, Offset(0)..Offset(9))
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
    let whole = |settles: Vec<Settle>, state: Vec<StateChange>| Commit {
        appends: vec![append(of, &["never"])],
        settles,
        state,
        ..Commit::default()
    };
    let stranger = PartitionId {
        stream: StreamId([1; 16]),
        partition: Partition(0),
    };
    let beyond = PartitionId {
        partition: Partition(1),
        ..of
    };
    let fenced = Settle {
        epoch: Epoch(2),
        ..settle(of, 0, NewSettlement::Delivered)
    };
    let delivered = |offset| settle(of, offset, NewSettlement::Delivered);
    let mut unknown = whole(vec![], vec![put("k", "v", None)]);
    unknown.appends.push(append(beyond, &["never"]));
    let cases = [
        (whole(vec![delivered(2)], vec![]), "settled already"),
        (
            whole(vec![delivered(0), delivered(0)], vec![]),
            "settled already",
        ),
        (whole(vec![fenced], vec![]), "lease"),
        (
            whole(vec![settle(stranger, 0, NewSettlement::Filtered)], vec![]),
            "is unknown",
        ),
        (
            whole(vec![delivered(0)], vec![put("k", "v", Some(3))]),
            "changed meanwhile",
        ),
        (
            whole(
                vec![settle(of, 0, NewSettlement::Routed { append: 7 })],
                vec![],
            ),
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
        [NewSettlement::Delivered, NewSettlement::Discarded].map(|end| {
            let commit = settles([settle(of, offset, end)]);
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
            .all(|e| matches!(e, CommitError::AlreadySettled { .. }))
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
        let settle = settle(of, offset, NewSettlement::Delivered);
        bench.engine().settle_soon(settle).unwrap();
    }
    // Closing stores what is queued; the second end of the same record was dropped.
    bench.reopen().await;
    let status = bench.engine().status(of).unwrap();
    assert_eq!((status.counts.delivered, status.low_mark), (3, Offset(3)));

    bench.append(of, &["d"]).await;
    let settle = settle(of, 3, NewSettlement::Filtered);
    bench.engine().settle_soon(settle).unwrap();
    // Nothing else comes, and yet it is stored.
    let stored = || bench.engine().status(of).unwrap().low_mark == Offset(4);
    until("the end", stored).await;
    bench.crash();
    assert_eq!(bench.engine().status(of).unwrap().low_mark, Offset(4));
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
        Some(CommitError::StateFull { kind: "other", .. })
    ));
}

#[tokio::test]
async fn streams_are_bounded_and_those_that_are_there_stay() {
    let mut bench = Bench::with(|log| log.streams_max = 2);
    let made = [
        bench.stream("orders", 1).await,
        bench.stream("others", 1).await,
    ];
    let create = |name: &'static str| {
        let name = name.parse().unwrap();
        let engine = bench.engine.clone().unwrap();
        async move { engine.create_stream(name, 1, StreamConfig::default()).await }
    };
    let refused = create("third").await.unwrap_err();
    assert!(matches!(refused, StreamError::TooMany { streams_max: 2 }));
    // A taken name is the more useful answer, and a place that is free again can be taken.
    let refused = create("orders").await.unwrap_err();
    assert!(matches!(refused, StreamError::Exists));
    let gone = bench
        .engine()
        .delete_stream(made[0].id, None, OpenRecords::Refuse);
    gone.await.unwrap();
    create("third").await.unwrap();
    bench.log.streams_max = 1;
    bench.reopen().await;
    assert_eq!(bench.engine().streams().len(), 2);
    let of = partition(&made[1], 0);
    bench.append(of, &["still taken"]).await;
}

#[tokio::test]
async fn a_repeated_commit_is_answered_as_the_first_one_was() {
    let mut bench = Bench::with(|log| log.dedup_len_max = 1_000);
    let stream = bench.stream("orders", 1).await;
    let other = bench.stream("others", 1).await;
    let (of, elsewhere) = (partition(&stream, 0), partition(&other, 0));
    let once = |of, id: u8| marked(append(of, &["once", "more"]), id);
    let first = bench.engine().commit(once(of, 1)).await.unwrap();
    assert_eq!((first.appends[0].first, &first.repeats), (Offset(0), &None));
    for round in 0..4 {
        let repeated = bench.engine().commit(once(of, 1)).await.unwrap();
        assert_eq!(repeated.appends, first.appends, "round {round}");
        assert_eq!(repeated.repeats.unwrap()[..], [1; 100], "round {round}");
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
    assert_eq!(same_id.repeats, None);
    assert_eq!(bench.values(of).await, ["once", "more"]);
}

#[tokio::test]
async fn ids_are_forgotten_by_age_and_by_number_also_over_restarts() {
    let mut bench = Bench::with(|log| {
        log.dedup_len_max = 3;
        log.dedup_age_hours = 1;
    });
    let start = Clock::system().now();
    bench.clock = Clock::manual(start);
    bench.reopen().await;
    let pass = |bench: &Bench, secs: u64| bench.clock.set(start.plus_micros(secs * 1_000_000));
    let of = partition(&*bench.stream("orders", 1).await, 0);
    let once = |id: u8| marked(append(of, &["once"]), id);
    let known = |bench: &Bench| -> Vec<u8> {
        let known = |id: &u8| bench.engine().committed(of.stream, DedupId([*id; 16]));
        (1..=9).filter(|id| known(id).is_some()).collect()
    };
    for id in 1..=4 {
        bench.engine().commit(once(id)).await.unwrap();
    }
    assert_eq!(known(&bench), [2, 3, 4]);
    bench.reopen().await;
    assert_eq!(known(&bench), [2, 3, 4]);
    pass(&bench, 1_800);
    bench.engine().commit(once(5)).await.unwrap();
    pass(&bench, 3_601);
    assert_eq!(known(&bench), [5], "without any commit since");
    bench.crash();
    assert_eq!(known(&bench), [5]);
    let again = bench.engine().commit(once(4)).await.unwrap();
    assert_eq!((again.repeats, again.appends[0].first), (None, Offset(5)));
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
    let refused = engine.settle_soon(settle(of, 0, NewSettlement::Delivered));
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

#[tokio::test]
async fn each_file_says_which_state_values_its_records_need() {
    let bench = Bench::new();
    let stream = bench.stream("orders", 1).await;
    let of = partition(&stream, 0);
    let mut expected = Vec::new();
    for number in 0..30 {
        let value = format!("{number:0>51200}");
        let mut commit = appends([append(of, &[&value])]);
        let own = format!("secret/{number}");
        commit.state = vec![put("secret/all", "1", None), put(&own, "1", None)];
        commit.appends[0].refers = vec!["secret/all".into(), own.into()];
        bench.engine().commit(commit).await.unwrap();
        expected.push(bench.journal().len());
    }
    for (newer, file) in (2..).zip(&bench.journal()[1..]) {
        let bytes = std::fs::read(file).unwrap();
        let (header, _) = SegmentHeader::decode(&bytes).unwrap();
        let end = 8192 + usize::try_from(header.snapshot_len).unwrap();
        let (_, before) = snapshot::decode(&bytes[8192..end]).unwrap();
        let needed = (0..30).filter(|number| expected[*number] + 1 == newer);
        let mut needed: Vec<_> = needed.map(|number| format!("secret/{number}")).collect();
        assert!(needed.len() > 2);
        needed.push("secret/all".into());
        needed.sort();
        let before = before.unwrap();
        let refers: Vec<_> = before.refers.iter().map(|key| key.to_string()).collect();
        assert_eq!(refers, needed);
        assert_eq!(before.last_frame + 1, header.first_frame);
    }
}
