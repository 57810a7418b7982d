//! The end position of a pass, and its counts.

use super::*;
use crate::{
    retry::Group,
    storage::{Commit, Epoch, NewSettlement, Settle},
};

#[tokio::test]
async fn the_cap_is_exact_and_a_loop_visits_each_record_once() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|_| {}).await;
    let retrier = gateway.retrier();
    gateway.failed(UNAVAILABLE, target.address, 9).await;
    let mut after = None;
    let mut ends = Vec::new();
    for _ in 0..3 {
        let mut request = gateway.request(UNAVAILABLE);
        request.after = after;
        request.records_max = 3;
        let (report, ()) = tokio::join!(retry(&retrier, request), async {
            let mut held = Vec::new();
            for _ in 0..3 {
                held.push(target.next_call().await);
            }
            while let Some(call) = held.pop() {
                call.answer(200);
            }
        });
        assert_eq!(counts(&report), (3, 0, 0));
        after = report.last_read_offset;
        ends.push((after, report.end_of_stream));
    }
    let expected = [(2, false), (5, false), (8, true)].map(|(at, end)| (Some(Offset(at)), end));
    assert_eq!(
        ends, expected,
        "exactly as many left as asked for is the end"
    );
    assert!(target.waiting_call().is_none());
}

#[tokio::test]
async fn skipped_records_do_not_count_towards_the_cap() {
    let target = StubTarget::always(200).await;
    let gateway = Harness::start(|_| {}).await;
    let retrier = gateway.retrier();
    gateway.failed(UNAVAILABLE, target, 6).await;
    let mut first = gateway.request(UNAVAILABLE);
    first.records_max = 4;
    assert_eq!(
        retry(&retrier, first).await.last_read_offset,
        Some(Offset(3))
    );
    let mut from_the_start = gateway.request(UNAVAILABLE);
    from_the_start.records_max = 1;
    let report = retry(&retrier, from_the_start.clone()).await;
    assert_eq!(counts(&report), (1, 0, 4));
    assert_eq!(
        (report.last_read_offset, report.end_of_stream),
        (Some(Offset(4)), false)
    );
    let report = retry(&retrier, from_the_start).await;
    assert_eq!(counts(&report), (1, 0, 5));
    assert!(report.end_of_stream);
}

#[tokio::test]
async fn a_dry_run_counts_and_touches_nothing() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|_| {}).await;
    gateway.failed(UNAVAILABLE, target.address, 4).await;
    let mut request = gateway.request(UNAVAILABLE);
    request.dry_run = true;
    request.records_max = 3;
    let before = gateway.counts(UNAVAILABLE);
    let report = retry(&gateway.retrier(), request).await;
    assert_eq!((report.attempted, counts(&report)), (3, (0, 0, 0)));
    assert_eq!(
        (report.last_read_offset, report.end_of_stream),
        (Some(Offset(2)), false)
    );
    assert_eq!(gateway.counts(UNAVAILABLE), before);
    assert!(target.waiting_call().is_none());
}

#[tokio::test]
async fn positions_outside_of_what_is_there() {
    let target = StubTarget::always(200).await;
    let gateway = Harness::start(|_| {}).await;
    let retrier = gateway.retrier();
    let report = retry(&retrier, gateway.request(UNAVAILABLE)).await;
    assert_eq!(
        (report.last_read_offset, report.end_of_stream),
        (None, true),
        "empty stream"
    );
    let refused = async |after: u64, dry_run: bool| {
        let mut request = gateway.request(UNAVAILABLE);
        request.after = Some(Offset(after));
        request.dry_run = dry_run;
        match retrier.run(request).await {
            Err(Error::BeyondTail { tail, .. }) => tail.0,
            other => panic!("{after}: {other:?}"),
        }
    };
    assert_eq!(refused(0, false).await, 0);
    gateway.failed(UNAVAILABLE, target, 5).await;
    for after in [5, 6, 1 << 40, i64::MAX as u64] {
        assert_eq!(refused(after, false).await, 5);
        assert_eq!(refused(after, true).await, 5);
    }
    let mut last = gateway.request(UNAVAILABLE);
    last.after = Some(Offset(4));
    let report = retry(&retrier, last).await;
    assert_eq!(
        (report.last_read_offset, report.end_of_stream),
        (Some(Offset(4)), true)
    );

    let of = gateway.partition(UNAVAILABLE, 0);
    gateway.engine.trim(of, Offset(3)).await.unwrap();
    let mut trimmed = gateway.request(UNAVAILABLE);
    trimmed.after = Some(Offset(0));
    let report = retry(&retrier, trimmed).await;
    assert_eq!((report.trimmed, counts(&report)), (2, (2, 0, 0)));
    assert_eq!(
        (report.start_offset, report.last_read_offset),
        (Offset(3), Some(Offset(4)))
    );
}

#[tokio::test]
async fn all_partitions_are_passed_over_with_a_position_each() {
    let target = StubTarget::always(200).await;
    let dir = tempfile::TempDir::new().unwrap();
    let gateway = Harness::start_in(dir, 3, |_| {}).await;
    for (partition, len) in [(0, 2), (2, 3)] {
        for _ in 0..len {
            let record = record("k", &message(target, "/x"), &[]);
            gateway.append(UNAVAILABLE, partition, vec![record]).await;
        }
    }
    let mut request = gateway.request(UNAVAILABLE);
    request.partitions = gateway.stream(UNAVAILABLE).all_partitions().collect();
    request.records_max = 4;
    let report = retry(&gateway.retrier(), request.clone()).await;
    assert_eq!((counts(&report), report.end_of_stream), ((4, 0, 0), false));
    assert_eq!(report.last_read_offset, None);
    let positions: Vec<_> = report
        .partitions
        .iter()
        .map(|one| one.last_read_offset)
        .collect();
    assert_eq!(positions, [Some(Offset(1)), None, Some(Offset(1))]);
    let report = retry(&gateway.retrier(), request).await;
    assert_eq!((counts(&report), report.end_of_stream), ((1, 0, 4), true));

    let mut unknown = gateway.request(UNAVAILABLE);
    unknown.partitions[0].partition = Partition(3);
    let refused = gateway.retrier().run(unknown).await;
    assert!(
        matches!(refused, Err(Error::PartitionUnknown(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_pass_ends_before_the_offset_that_is_asked_for() {
    let target = StubTarget::always(200).await;
    let gateway = Harness::start(|_| {}).await;
    let retrier = gateway.retrier();
    gateway.failed(UNAVAILABLE, target, 6).await;
    let mut request = gateway.request(UNAVAILABLE);
    // Offset, then how many are delivered and skipped, and where the pass stands.
    for (before, delivered, skipped, next, tail) in [
        (0, 0, 0, 0, 6),
        (4, 4, 0, 4, 6),
        (4, 0, 4, 4, 6),
        (9, 2, 4, 6, 6),
    ] {
        request.before = Some(Offset(before));
        let report = retry(&retrier, request.clone()).await;
        assert_eq!(counts(&report), (delivered, 0, skipped), "{before}");
        assert!(report.end_of_stream, "{before}");
        let of = &report.partitions[0];
        assert_eq!(
            (of.next_offset, of.tail),
            (Offset(next), Offset(tail)),
            "{before}"
        );
    }
    // One that begins behind it reads nothing, and a group that stands behind it stays.
    let group = || {
        Some(Group {
            name: "g".parse().unwrap(),
            moves: false,
        })
    };
    request.before = None;
    request.group = group();
    retry(&retrier, request.clone()).await;
    request.before = Some(Offset(2));
    let report = retry(&retrier, request).await;
    assert_eq!(counts(&report), (0, 0, 0));
    let stands = report.group.unwrap().positions;
    assert_eq!(stands, [(Partition(0), Some(Offset(5)))]);
}

/// What comes into a later partition while the pass is in an earlier one, such as a copy of its own, is not for it.
#[tokio::test]
async fn the_end_of_every_partition_is_that_of_the_beginning() {
    let mut target = StubTarget::start().await;
    let dir = tempfile::TempDir::new().unwrap();
    let gateway = Harness::start_in(dir, 2, |_| {}).await;
    let retrier = gateway.retrier();
    let message = message(target.address, "/x");
    let add = async |partition| {
        let record = record("k", &message, &[]);
        gateway.append(UNAVAILABLE, partition, vec![record]).await;
    };
    add(0).await;
    add(1).await;
    let mut request = gateway.request(UNAVAILABLE);
    request.partitions = gateway.stream(UNAVAILABLE).all_partitions().collect();
    let (report, ()) = tokio::join!(retry(&retrier, request), async {
        let first = target.next_call().await;
        add(1).await;
        first.answer(200);
        target.next_call().await.answer(200);
    });
    assert_eq!((counts(&report), report.end_of_stream), ((2, 0, 0), true));
    assert_eq!(report.partitions[1].tail, Offset(1));
    assert!(target.waiting_call().is_none());
}

/// Ends are looked up for 16,384 records together; each of these lies on an edge of that, wherever the pass begins.
#[tokio::test]
async fn a_pass_over_more_settled_records_than_are_looked_up_together_calls_those_that_are_open() {
    const LEN: u64 = 40_000;
    const TOGETHER: usize = 1_000;
    let open = [0, 16_383, 16_384, 32_767, 32_768, LEN - 1];
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|_| {}).await;
    let of = gateway.partition(UNAVAILABLE, 0);
    for first in (0..LEN).step_by(TOGETHER) {
        let numbers = first..first + TOGETHER as u64;
        let one = |at| record("", &message(target.address, &format!("/{at}")), &[]);
        let records = numbers.clone().map(one).collect();
        assert_eq!(gateway.append(UNAVAILABLE, 0, records).await.0, first);
        let settled = numbers.filter(|at| !open.contains(at)).map(|at| Settle {
            of,
            offset: Offset(at),
            end: NewSettlement::Delivered,
            attempts: 1,
            status: Some(200),
            epoch: Epoch(1),
        });
        let commit = Commit {
            settles: settled.collect(),
            ..Commit::default()
        };
        gateway.engine.commit(commit).await.unwrap();
    }
    let retrier = gateway.retrier();
    for after in [None, Some(0), Some(1), Some(16_382), Some(16_383)] {
        let mut dry = gateway.request(UNAVAILABLE);
        dry.after = after.map(Offset);
        dry.dry_run = true;
        let report = retry(&retrier, dry).await;
        let first = after.map_or(0, |after| after + 1);
        let wanted = open.iter().filter(|at| **at >= first).count() as u64;
        assert_eq!(report.attempted, wanted, "after {after:?}");
        assert_eq!(report.skipped, LEN - first - wanted, "after {after:?}");
    }
    let (report, paths) = tokio::join!(retry(&retrier, gateway.request(UNAVAILABLE)), async {
        let mut paths = Vec::new();
        for _ in open {
            let call = target.next_call().await;
            paths.push(call.path.clone());
            call.answer(200);
        }
        paths.sort_by_key(|path| path[1..].parse::<u64>().unwrap());
        paths
    });
    assert_eq!(paths, open.map(|at| format!("/{at}")));
    let called = open.len() as u64;
    assert_eq!(counts(&report), (called, 0, LEN - called));
    assert_eq!(
        (report.last_read_offset, report.end_of_stream),
        (Some(Offset(LEN - 1)), true)
    );
    assert!(target.waiting_call().is_none());
}
