//! Redrives over a real log and real targets.

mod cut;
mod far;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Error, ErrorMapping, RedriveReport, RedriveRequest, Redriver};
use crate::{
    dispatch::tests::{
        harness::{
            DEFAULT, Harness, INTERNAL, SOURCE, UNAVAILABLE, UNRECOVERABLE, header, message, record,
        },
        stub::{StubTarget, within},
    },
    place::{Offset, Partition},
    storage::{AppendKind, CommitError, Log},
};

impl Harness {
    fn redriver(&self) -> Redriver {
        Redriver::new(&self.dispatcher, self.config.redrive.clone())
    }

    /// A request for all of partition 0, with no mapping.
    fn request(&self, stream: &str) -> RedriveRequest {
        RedriveRequest {
            stream: self.stream(stream),
            partitions: vec![self.partition(stream, 0)],
            after: None,
            records_max: 1_000,
            mapping: ErrorMapping::default(),
            redeliver: false,
            dry_run: false,
            time_budget: Duration::from_secs(20),
        }
    }

    fn mapping(&self, codes: &[(&str, &str)]) -> ErrorMapping {
        let pairs = codes.iter().map(|(code, name)| (code, self.stream(name)));
        ErrorMapping::parse(pairs).unwrap()
    }

    /// Puts records into an error stream as if their dispatch had failed.
    async fn failed(&self, stream: &str, target: SocketAddr, len: usize) {
        for at in 0..len {
            let message = message(target, &format!("/{at}"));
            let record = record(&format!("k{at}"), &message, &[]);
            self.append(stream, 0, vec![record]).await;
        }
    }
}

#[tokio::test]
async fn while_the_log_takes_nothing_a_redrive_is_refused_and_calls_nobody() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|_| {}).await;
    gateway.failed(UNAVAILABLE, target.address, 1).await;
    gateway.engine.say_disk_full(true);
    let redriver = gateway.redriver();
    let refused = within("an answer", redriver.run(gateway.request(UNAVAILABLE))).await;
    assert!(matches!(
        refused,
        Err(Error::LogRefuses(CommitError::DiskFull))
    ));
    assert!(target.waiting_call().is_none());
}

async fn redrive(redriver: &Redriver, request: RedriveRequest) -> RedriveReport {
    within("a redrive", redriver.run(request)).await.unwrap()
}

fn counts(report: &RedriveReport) -> (u64, u64, u64) {
    (report.processed, report.failed, report.skipped)
}

#[tokio::test]
async fn a_delivered_record_is_resolved_and_skipped_from_then_on() {
    let target = StubTarget::always(204).await;
    let gateway = Harness::start(|_| {}).await;
    let redriver = gateway.redriver();
    gateway.failed(UNAVAILABLE, target, 3).await;
    let report = redrive(&redriver, gateway.request(UNAVAILABLE)).await;
    assert_eq!(counts(&report), (3, 0, 0));
    assert_eq!(report.last_read_offset, Some(Offset(2)));
    assert_eq!(
        (report.start_offset, report.next_offset),
        (Offset(0), Offset(3))
    );
    assert!(report.end_of_stream);
    assert_eq!(report.by_status, [("204".to_owned(), 3)].into());
    let ended = gateway.counts(UNAVAILABLE);
    assert_eq!(
        (ended.delivered, ended.open_len()),
        (3, 0),
        "all ends are stored already"
    );

    let report = redrive(&redriver, gateway.request(UNAVAILABLE)).await;
    assert_eq!(counts(&report), (0, 0, 3));
    assert!(report.end_of_stream);
    let mut again = gateway.request(UNAVAILABLE);
    again.redeliver = true;
    let report = redrive(&redriver, again).await;
    assert_eq!(counts(&report), (3, 0, 0));
    assert_eq!(gateway.counts(UNAVAILABLE), ended, "nothing ends twice");
}

#[tokio::test]
async fn a_failed_record_moves_by_the_mapping_with_its_origin_and_new_cause() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|_| {}).await;
    gateway.sync("k", &message(target.address, "/x")).await;
    let first = target.next_call().await;
    let idempotency_key = first.header("idempotency-key")[0].to_owned();
    first.answer_with(503, &[], "down");
    gateway.settled().await;
    let before = gateway.record_at(UNAVAILABLE, 0).await;

    let mut request = gateway.request(UNAVAILABLE);
    request.mapping = gateway.mapping(&[("4xx", DEFAULT), ("404", INTERNAL)]);
    let redriver = gateway.redriver();
    let (report, ()) = tokio::join!(redrive(&redriver, request), async {
        let call = target.next_call().await;
        assert_eq!(call.header("idempotency-key"), [idempotency_key.as_str()]);
        call.answer(404);
    });
    assert_eq!(counts(&report), (0, 1, 0));
    assert_eq!(report.requeued, 1);
    assert_eq!(report.by_status, [("404".to_owned(), 1)].into());
    let moved = gateway.record_at(INTERNAL, 0).await;
    assert_eq!(
        (&moved.record.key, &moved.record.value),
        (&before.record.key, &before.record.value)
    );
    let expected = [
        ("cause-status", "404"),
        ("cause-body", "-"),
        ("attempts", "2"),
        ("redrives", "1"),
        ("origin-stream", SOURCE),
        ("origin-offset", "0"),
        ("message-id", header(&before, "message-id")),
        ("first-attempt-at", header(&before, "first-attempt-at")),
    ];
    for (name, value) in expected {
        assert_eq!(header(&moved, name), value, "{name}");
    }
    assert_ne!(
        header(&moved, "last-attempt-at"),
        header(&before, "last-attempt-at")
    );
    assert_eq!(gateway.counts(UNAVAILABLE).moved, 1);
    assert_eq!(
        gateway.counts(INTERNAL).appended[AppendKind::Moved as usize],
        1
    );

    // Without a status there is none in the headers either.
    drop(target);
    let redriver = gateway.redriver();
    let report = redrive(&redriver, gateway.request(INTERNAL)).await;
    assert_eq!(counts(&report), (0, 1, 0));
    assert_eq!(report.by_status.keys().collect::<Vec<_>>(), ["reset"]);
    let moved = gateway.record_at(DEFAULT, 0).await;
    assert_eq!(header(&moved, "cause-class"), "reset");
    assert_eq!(header(&moved, "cause-status"), "-");
    assert_eq!(header(&moved, "redrives"), "2");
}

#[tokio::test]
async fn a_stream_mapped_to_itself_ends_at_its_first_tail_and_records_leave_after_the_greatest_count()
 {
    let target = StubTarget::always(503).await;
    let gateway = Harness::start(|config| {
        config.redrive.redrives_max = 3;
        config.dispatch.backoff_ms = 1;
        config.dispatch.backoff_ms_max = 1;
    })
    .await;
    let redriver = gateway.redriver();
    gateway.failed(DEFAULT, target, 5).await;
    let mut after = None;
    for pass in 1..=2 {
        let mut request = gateway.request(DEFAULT);
        request.mapping = gateway.mapping(&[("default", DEFAULT)]);
        request.after = after;
        let report = redrive(&redriver, request).await;
        assert_eq!(counts(&report), (0, 5, 0));
        assert!(report.end_of_stream);
        assert_eq!(report.last_read_offset, Some(Offset(pass * 5 - 1)));
        after = report.last_read_offset;
    }
    let mut last = gateway.request(DEFAULT);
    last.mapping = gateway.mapping(&[("503", DEFAULT)]);
    let report = redrive(&redriver, last).await;
    assert_eq!(counts(&report), (0, 5, 10));
    assert_eq!(gateway.counts(DEFAULT).open_len(), 0);
    assert_eq!(gateway.counts(UNRECOVERABLE).open_len(), 5);
    assert_eq!(
        header(&gateway.record_at(UNRECOVERABLE, 0).await, "redrives"),
        "3"
    );
}

#[tokio::test]
async fn the_cap_is_exact_and_a_loop_visits_each_record_once() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|_| {}).await;
    let redriver = gateway.redriver();
    gateway.failed(UNAVAILABLE, target.address, 9).await;
    let mut after = None;
    let mut ends = Vec::new();
    for _ in 0..3 {
        let mut request = gateway.request(UNAVAILABLE);
        request.after = after;
        request.records_max = 3;
        let (report, ()) = tokio::join!(redrive(&redriver, request), async {
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
    let redriver = gateway.redriver();
    gateway.failed(UNAVAILABLE, target, 6).await;
    let mut first = gateway.request(UNAVAILABLE);
    first.records_max = 4;
    assert_eq!(
        redrive(&redriver, first).await.last_read_offset,
        Some(Offset(3))
    );
    let mut from_the_start = gateway.request(UNAVAILABLE);
    from_the_start.records_max = 1;
    let report = redrive(&redriver, from_the_start.clone()).await;
    assert_eq!(counts(&report), (1, 0, 4));
    assert_eq!(
        (report.last_read_offset, report.end_of_stream),
        (Some(Offset(4)), false)
    );
    let report = redrive(&redriver, from_the_start).await;
    assert_eq!(counts(&report), (1, 0, 5));
    assert!(report.end_of_stream);
}

#[tokio::test]
async fn replaying_the_source_stream_ends_nothing_and_leaves_waiting_records_alone() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|_| {}).await;
    let redriver = gateway.redriver();
    for path in ["/0", "/1"] {
        gateway.sync("", &message(target.address, path)).await;
    }
    let mut keys = Vec::new();
    for _ in 0..2 {
        let call = target.next_call().await;
        keys.push((
            call.path.clone(),
            call.header("idempotency-key")[0].to_owned(),
        ));
        call.answer(200);
    }
    gateway.settled().await;
    gateway.sync("", &message(target.address, "/2")).await;
    let waiting = target.next_call().await;
    assert_eq!(waiting.path, "/2");

    let (report, ()) = tokio::join!(redrive(&redriver, gateway.request(SOURCE)), async {
        for status in [200, 400] {
            let call = target.next_call().await;
            let key = call.header("idempotency-key")[0].to_owned();
            assert!(
                keys.contains(&(call.path.clone(), key)),
                "the key is that of the first call"
            );
            call.answer(status);
        }
    });
    assert_eq!(counts(&report), (1, 1, 1));
    assert!(report.end_of_stream);
    let ended = gateway.counts(SOURCE);
    assert_eq!((ended.delivered, ended.moved, ended.open_len()), (2, 0, 1));
    // No mapping: to the default stream, not where the outcome table would put it.
    let copies = gateway.counts(DEFAULT);
    assert_eq!(copies.appended[AppendKind::ReplayFailed as usize], 1);
    assert_eq!(
        header(&gateway.record_at(DEFAULT, 0).await, "origin-stream"),
        SOURCE
    );
    waiting.answer(200);
    assert_eq!(gateway.settled().await.delivered, 3);
}

#[tokio::test]
async fn a_redrive_and_a_first_dispatch_of_one_key_never_overlap() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|_| {}).await;
    let redriver = gateway.redriver();
    gateway
        .append(
            UNAVAILABLE,
            0,
            vec![record("k", &message(target.address, "/redriven"), &[])],
        )
        .await;
    gateway.sync("k", &message(target.address, "/first")).await;
    let first = target.next_call().await;
    assert_eq!(first.path, "/first");
    let (report, ()) = tokio::join!(redrive(&redriver, gateway.request(UNAVAILABLE)), async {
        // Another key's redrive would be called now; it shows that this one waits.
        gateway
            .sync("other", &message(target.address, "/other"))
            .await;
        let other = target.next_call().await;
        assert_eq!(other.path, "/other");
        other.answer(200);
        first.answer(200);
        let redriven = target.next_call().await;
        assert_eq!(redriven.path, "/redriven");
        redriven.answer(200);
    });
    assert_eq!(counts(&report), (1, 0, 0));
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
    let report = redrive(&gateway.redriver(), request).await;
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
    let redriver = gateway.redriver();
    let report = redrive(&redriver, gateway.request(UNAVAILABLE)).await;
    assert_eq!(
        (report.last_read_offset, report.end_of_stream),
        (None, true),
        "empty stream"
    );
    gateway.failed(UNAVAILABLE, target, 5).await;
    let beyond = Offset(1 << 40);
    let mut request = gateway.request(UNAVAILABLE);
    request.after = Some(beyond);
    let report = redrive(&redriver, request).await;
    assert_eq!(
        (report.last_read_offset, report.end_of_stream),
        (Some(beyond), true)
    );
    assert_eq!(counts(&report), (0, 0, 0));
    let mut last = gateway.request(UNAVAILABLE);
    last.after = Some(Offset(4));
    let report = redrive(&redriver, last).await;
    assert_eq!(
        (report.last_read_offset, report.end_of_stream),
        (Some(Offset(4)), true)
    );

    let of = gateway.partition(UNAVAILABLE, 0);
    gateway.engine.trim(of, Offset(3)).await.unwrap();
    let mut trimmed = gateway.request(UNAVAILABLE);
    trimmed.after = Some(Offset(0));
    let report = redrive(&redriver, trimmed).await;
    assert_eq!((report.trimmed, counts(&report)), (2, (2, 0, 0)));
    assert_eq!(
        (report.start_offset, report.last_read_offset),
        (Offset(3), Some(Offset(4)))
    );
}

#[tokio::test]
async fn one_redrive_at_a_time_and_a_caller_that_hangs_up_ends_none() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|_| {}).await;
    let redriver = gateway.redriver();
    gateway.failed(UNAVAILABLE, target.address, 2).await;
    let caller = CancellationToken::new();
    let (hung_up, ()) = tokio::join!(
        caller.run_until_cancelled(redriver.run(gateway.request(UNAVAILABLE))),
        async {
            let held = [target.next_call().await, target.next_call().await];
            let second = redriver.run(gateway.request(UNAVAILABLE)).await;
            assert!(matches!(second, Err(Error::Running(_))), "{second:?}");
            let elsewhere = redrive(&redriver, gateway.request(INTERNAL)).await;
            assert!(elsewhere.end_of_stream);
            caller.cancel();
            for call in held {
                call.answer(200);
            }
        }
    );
    assert!(hung_up.is_none());
    let report = within("the pass to end by itself", async {
        loop {
            match redriver.run(gateway.request(UNAVAILABLE)).await {
                Err(Error::Running(_)) => tokio::task::yield_now().await,
                other => return other.unwrap(),
            }
        }
    })
    .await;
    assert_eq!(counts(&report), (0, 0, 2), "both were delivered and ended");
}

#[tokio::test]
async fn every_cause_has_a_stream_even_if_the_mapping_names_none() {
    let target = StubTarget::always(404).await;
    let gateway = Harness::start(|_| {}).await;
    let redriver = gateway.redriver();
    let mut secret = message(target, "/x");
    secret["vaultSecretName"] = json!("gone");
    for message in [json!({}), secret, message(target, "/x")] {
        gateway
            .append(UNAVAILABLE, 0, vec![record("k", &message, &[])])
            .await;
    }
    let mut request = gateway.request(UNAVAILABLE);
    request.mapping = gateway.mapping(&[("500", INTERNAL), ("secret", INTERNAL)]);
    let report = redrive(&redriver, request).await;
    assert_eq!(counts(&report), (0, 3, 0));
    let by_status = ["404", "invalid", "secret"].map(|cause| (cause.to_owned(), 1));
    assert_eq!(report.by_status, by_status.into());
    assert_eq!(gateway.counts(DEFAULT).open_len(), 2);
    assert_eq!(gateway.counts(INTERNAL).open_len(), 1);
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
    let report = redrive(&gateway.redriver(), request.clone()).await;
    assert_eq!((counts(&report), report.end_of_stream), ((4, 0, 0), false));
    assert_eq!(report.last_read_offset, None);
    let positions: Vec<_> = report
        .partitions
        .iter()
        .map(|one| one.last_read_offset)
        .collect();
    assert_eq!(positions, [Some(Offset(1)), None, Some(Offset(1))]);
    let report = redrive(&gateway.redriver(), request).await;
    assert_eq!((counts(&report), report.end_of_stream), ((1, 0, 4), true));

    let mut unknown = gateway.request(UNAVAILABLE);
    unknown.partitions[0].partition = Partition(3);
    let refused = gateway.redriver().run(unknown).await;
    assert!(
        matches!(refused, Err(Error::PartitionUnknown(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_stop_ends_a_pass_after_the_calls_in_flight() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|config| config.dispatch.in_flight_max = 1).await;
    let redriver = gateway.redriver();
    gateway.failed(UNAVAILABLE, target.address, 3).await;
    let (report, ()) = tokio::join!(redrive(&redriver, gateway.request(UNAVAILABLE)), async {
        let call = target.next_call().await;
        gateway.stop.cancel();
        call.answer(200);
    });
    assert_eq!(counts(&report), (1, 0, 0));
    assert_eq!(
        (report.last_read_offset, report.end_of_stream),
        (Some(Offset(0)), false)
    );
    let refused = redriver.run(gateway.request(UNAVAILABLE)).await;
    assert!(matches!(refused, Err(Error::Stopping)), "{refused:?}");
    let engine = Arc::clone(&gateway.engine);
    assert_eq!(
        engine
            .status(gateway.partition(UNAVAILABLE, 0))
            .unwrap()
            .counts
            .delivered,
        1
    );
    gateway.stop().await;
}
