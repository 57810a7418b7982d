//! Passes for some records of a stream.

use super::*;
use crate::{
    retry::{Causes, PartitionReport},
    runtime::clock::Timestamp,
};

/// A stream of nine records with keys k0 to k8.
async fn nine() -> (Harness, StubTarget) {
    let target = StubTarget::start().await;
    let gateway = Harness::start(|_| {}).await;
    gateway.failed(UNAVAILABLE, target.address, 9).await;
    (gateway, target)
}

fn keys(keys: &[&str]) -> Filter {
    Filter {
        keys: keys.iter().map(|key| (*key).to_owned().into()).collect(),
        ..Filter::default()
    }
}

fn reach(report: &RetryReport) -> (Option<u64>, bool) {
    let last = report.last_read_offset.map(|last| last.0);
    (last, report.end_of_stream)
}

#[tokio::test]
async fn records_that_do_not_meet_the_filter_are_read_and_left_as_they_are() {
    let (gateway, mut target) = nine().await;
    let retrier = gateway.retrier();
    let mut request = gateway.request(UNAVAILABLE);
    request.filter = keys(&["k2", "k5", "k7"]);
    request.dry_run = true;
    let dry = retry(&retrier, request.clone()).await;
    assert_eq!((dry.attempted, dry.unmatched, dry.skipped), (3, 6, 0));
    assert_eq!(reach(&dry), (Some(8), true));
    assert!(target.waiting_call().is_none());

    // They do not count towards the cap, and those behind the last one that is wanted are read too.
    request.dry_run = false;
    request.records_max = 2;
    let (report, ()) = tokio::join!(retry(&retrier, request.clone()), async {
        let mut called = [target.next_call().await, target.next_call().await];
        called.sort_by(|one, other| one.path.cmp(&other.path));
        for (call, path) in called.into_iter().zip(["/2", "/5"]) {
            assert_eq!(call.path, path);
            call.answer(200);
        }
    });
    assert_eq!((counts(&report), report.unmatched), ((2, 0, 0), 5));
    assert_eq!(reach(&report), (Some(6), false));
    request.after = report.last_read_offset;
    request.records_max = 1;
    let (report, ()) = tokio::join!(retry(&retrier, request.clone()), async {
        let call = target.next_call().await;
        assert_eq!(call.path, "/7");
        call.answer(200);
    });
    assert_eq!((counts(&report), report.unmatched), ((1, 0, 0), 1));
    assert_eq!(reach(&report), (Some(8), true));
    assert_eq!(gateway.counts(UNAVAILABLE).open_len(), 6);
}

#[tokio::test]
async fn a_cause_is_that_of_the_last_failure() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|config| config.dispatch.deferred_ms_max = 0).await;
    let retrier = gateway.retrier();
    for (path, status) in [("/a", 503), ("/b", 429), ("/c", 503)] {
        gateway.sync("", &message(target.address, path)).await;
        target.next_call().await.answer(status);
        gateway.settled().await;
    }
    let mut request = gateway.request(UNAVAILABLE);
    let mut causes = Causes::default();
    causes.add("4xx").unwrap();
    request.filter.causes = causes;
    let (report, ()) = tokio::join!(retry(&retrier, request), async {
        let call = target.next_call().await;
        assert_eq!(call.path, "/b");
        call.answer(200);
    });
    assert_eq!((counts(&report), report.unmatched), ((1, 0, 0), 2));
}

#[tokio::test]
async fn a_time_is_a_range_of_offsets() {
    let (gateway, mut target) = nine().await;
    let retrier = gateway.retrier();
    let third = gateway.record_at(UNAVAILABLE, 3).await.time;
    let sixth = gateway.record_at(UNAVAILABLE, 6).await.time;
    let mut request = gateway.request(UNAVAILABLE);
    request.dry_run = true;
    let late = sixth.plus_micros(3_600_000_000);
    let one = Timestamp(1);
    for (from, to, after, attempted, unmatched) in [
        (Some(third), None, None, 6, 3),
        (Some(third.plus_micros(1)), None, None, 5, 4),
        (None, Some(sixth), None, 6, 3),
        (Some(third), Some(sixth), None, 3, 6),
        (Some(third), Some(sixth), Some(4), 1, 3),
        (Some(third), Some(sixth), Some(6), 0, 2),
        (Some(late), None, None, 0, 9),
        (None, Some(one), Some(7), 0, 1),
        (Some(one), Some(late), None, 9, 0),
    ] {
        (request.filter.from, request.filter.to) = (from, to);
        request.after = after.map(Offset);
        let report = retry(&retrier, request.clone()).await;
        let found = (report.attempted, report.unmatched);
        assert_eq!(found, (attempted, unmatched), "{from:?} {to:?} {after:?}");
        assert_eq!(reach(&report), (Some(8), true));
    }
    // The offset of the last record is echoed.
    request.after = Some(Offset(8));
    let report = retry(&retrier, request.clone()).await;
    assert_eq!(reach(&report), (Some(8), true));

    // What is behind the time counts as read only when all before it is done.
    request.dry_run = false;
    request.after = None;
    request.filter.from = None;
    request.filter.to = Some(sixth);
    request.records_max = 4;
    let (report, ()) = tokio::join!(retry(&retrier, request), async {
        for _ in 0..4 {
            target.next_call().await.answer(200);
        }
    });
    assert_eq!((counts(&report), report.unmatched), ((4, 0, 0), 0));
    let stands = |one: &PartitionReport| (one.next_offset, one.tail, one.end_of_stream);
    assert_eq!(stands(&report.partitions[0]), (Offset(4), Offset(9), false));
}
