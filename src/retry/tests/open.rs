//! Passes over records whose target has an open breaker.

use super::*;
use crate::{
    dispatch::TargetId,
    retry::{Stopped, Waiting},
};

/// One call at a time, and breakers that stay open.
async fn harness() -> Harness {
    Harness::start(|config| {
        config.retry.in_flight_max = 1;
        config.dispatch.backoff_ms = 3_600_000;
        config.dispatch.backoff_ms_max = 3_600_000;
    })
    .await
}

fn origin(target: &StubTarget) -> TargetId {
    TargetId::of(&target.url("/"))
}

/// Returns for how many records each target is waited, and the target that has stopped the pass.
fn waiting(report: &RetryReport) -> (Vec<(TargetId, u64)>, Option<TargetId>) {
    let one = |one: &Waiting| (one.target.clone().unwrap(), one.count);
    let stopped = report.stopped.as_ref().map(|stopped| match stopped {
        Stopped::Open { target, until } => {
            let named = report.waiting.iter();
            let mut named = named.filter(|one| one.target.as_ref() == Some(target));
            assert_eq!(named.next().unwrap().until, Some(*until));
            target.clone()
        }
        Stopped::Failing(_) => panic!("{report:?}"),
    });
    (report.waiting.iter().map(one).collect(), stopped)
}

/// Puts records of targets into a stream, in this order.
async fn append(gateway: &Harness, stream: &str, targets: &[&StubTarget]) {
    for (at, target) in targets.iter().enumerate() {
        let message = message(target.address, &format!("/{at}"));
        let record = record(&format!("k{at}"), &message, &[]);
        gateway.append(stream, 0, vec![record]).await;
    }
}

const LATER: [(&str, &str); 1] = [("retry-after", "600")];

#[tokio::test]
async fn records_of_a_target_that_asks_for_later_stay_and_those_of_others_go_on() {
    for status in [429, 503] {
        let (mut later, mut fine) = (StubTarget::start().await, StubTarget::start().await);
        let gateway = harness().await;
        let retrier = gateway.retrier();
        let targets = [&fine, &later, &later, &fine, &later, &fine];
        append(&gateway, UNAVAILABLE, &targets).await;
        let (report, ()) = tokio::join!(retry(&retrier, gateway.request(UNAVAILABLE)), async {
            fine.next_call().await.answer(200);
            let call = later.next_call().await;
            assert_eq!(call.path, "/1");
            call.answer_with(status, &LATER, "");
            for path in ["/3", "/5"] {
                let call = fine.next_call().await;
                assert_eq!(call.path, path);
                call.answer(200);
            }
        });
        assert_eq!((counts(&report), report.moved), ((3, 0, 0), 0));
        let by_status = [("200".to_owned(), 3), (status.to_string(), 1)];
        assert_eq!(
            (report.attempted, report.by_status.clone()),
            (4, by_status.into())
        );
        let left = (vec![(origin(&later), 3)], Some(origin(&later)));
        assert_eq!(waiting(&report), left);
        assert_eq!(
            (report.last_read_offset, report.end_of_stream),
            (Some(Offset(0)), false)
        );
        assert_eq!(gateway.counts(UNAVAILABLE).open_len(), 3);

        // As long as it is open nothing is called, and what is settled behind the first that was left is skipped.
        let mut again = gateway.request(UNAVAILABLE);
        again.after = report.last_read_offset;
        let report = retry(&retrier, again).await;
        assert_eq!((report.attempted, counts(&report)), (0, (0, 0, 2)));
        assert_eq!(waiting(&report), left);
        assert_eq!(
            (report.last_read_offset, report.end_of_stream),
            (Some(Offset(0)), false)
        );
        assert!(later.waiting_call().is_none() && fine.waiting_call().is_none());
    }
}

#[tokio::test]
async fn with_the_manners_of_the_sample_such_an_answer_is_a_failure() {
    let target = StubTarget::always(429).await;
    let gateway = Harness::start(|config| {
        config.oci_sample = Some(crate::config::OciSample {
            compat: true,
            ..Default::default()
        });
    })
    .await;
    gateway.failed(UNAVAILABLE, target, 2).await;
    let report = retry(&gateway.retrier(), gateway.request(UNAVAILABLE)).await;
    assert_eq!((counts(&report), report.moved), ((0, 2, 0), 2));
    assert_eq!((report.waiting, report.stopped), (Vec::new(), None));
}

#[tokio::test]
async fn a_pass_waits_for_one_probe_and_goes_on_if_it_is_answered() {
    for (answer, left_len) in [(200, 0), (503, 5)] {
        let mut target = StubTarget::start().await;
        let gateway = Harness::start(|config| {
            config.dispatch.backoff_ms = 1_500;
            config.dispatch.backoff_ms_max = 3_600_000;
        })
        .await;
        let retrier = gateway.retrier();
        gateway.failed(UNAVAILABLE, target.address, 6).await;
        let mut one = gateway.request(UNAVAILABLE);
        one.records_max = 1;
        let (report, ()) = tokio::join!(retry(&retrier, one), async {
            target.next_call().await.answer(429);
        });
        assert_eq!(report.attempted, 1);
        let (report, ()) = tokio::join!(retry(&retrier, gateway.request(UNAVAILABLE)), async {
            let probe = target.next_call().await;
            let more = target.waiting_call();
            assert!(more.is_none(), "one call probes");
            probe.answer(answer);
            let rest = if answer == 200 { 5 } else { 0 };
            for _ in 0..rest {
                target.next_call().await.answer(200);
            }
        });
        let done = u64::from(answer == 200);
        assert_eq!(
            (report.processed, report.failed),
            (done * 6, 1 - done),
            "{report:?}"
        );
        let left: u64 = report.waiting.iter().map(|one| one.count).sum();
        assert_eq!(left, left_len, "{report:?}");
        assert_eq!(report.end_of_stream, answer == 200);
    }
}

/// Targets that share a queue have no breaker that would keep the next one back.
#[tokio::test]
async fn on_a_shared_queue_nothing_of_a_key_is_called_behind_a_record_that_is_left() {
    let mut later = StubTarget::start().await;
    let gateway = Harness::start(|config| config.dispatch.targets_max = 0).await;
    let retrier = gateway.retrier();
    for at in 0..20 {
        let record = record("k", &message(later.address, &format!("/{at}")), &[]);
        gateway.append(UNAVAILABLE, 0, vec![record]).await;
    }
    let (report, ()) = tokio::join!(retry(&retrier, gateway.request(UNAVAILABLE)), async {
        let first = later.next_call().await;
        within("the others to wait behind it", async {
            while gateway.dispatcher.targets()[0].queued_len < 19 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        first.answer_with(429, &LATER, "");
    });
    assert!(later.waiting_call().is_none());
    assert_eq!((report.attempted, counts(&report)), (1, (0, 0, 0)));
    assert_eq!(
        waiting(&report),
        (vec![(origin(&later), 20)], Some(origin(&later)))
    );
}

/// No later record is called, because the next pass would repeat the call.
#[tokio::test]
async fn where_records_are_called_again_a_pass_ends_with_the_first_that_it_leaves() {
    let (mut later, mut fine) = (StubTarget::start().await, StubTarget::start().await);
    let gateway = harness().await;
    let retrier = gateway.retrier();
    append(&gateway, SOURCE, &[&fine, &later, &fine]).await;
    for _ in 0..2 {
        fine.next_call().await.answer(200);
    }
    later.next_call().await.answer(200);
    gateway.settled().await;
    append(&gateway, UNAVAILABLE, &[&fine, &later, &fine]).await;
    for (stream, redeliver, calls_len) in [(SOURCE, false, 1), (UNAVAILABLE, true, 0)] {
        let mut request = gateway.request(stream);
        request.redeliver = redeliver;
        let (report, ()) = tokio::join!(retry(&retrier, request), async {
            let call = fine.next_call().await;
            assert_eq!(call.path, "/0");
            call.answer(200);
            for _ in 0..calls_len {
                later.next_call().await.answer_with(429, &LATER, "");
            }
        });
        assert_eq!(
            (counts(&report), report.attempted),
            ((1, 0, 0), 1 + calls_len)
        );
        assert_eq!(
            waiting(&report),
            (vec![(origin(&later), 1)], Some(origin(&later)))
        );
        assert_eq!(
            (report.last_read_offset, report.end_of_stream),
            (Some(Offset(0)), false)
        );
        assert!(fine.waiting_call().is_none());
    }
}

#[tokio::test]
async fn a_pass_does_not_wait_for_room_at_a_target_that_is_open() {
    let (mut later, mut fine) = (StubTarget::start().await, StubTarget::start().await);
    let gateway = Harness::start(|config| {
        config.dispatch.backoff_ms = 3_600_000;
        config.dispatch.backoff_ms_max = 3_600_000;
        config.dispatch.in_flight_max = 1;
        config.dispatch.queue_len_max = 1;
    })
    .await;
    append(&gateway, UNAVAILABLE, &[&later, &later, &later, &fine]).await;
    let retrier = gateway.retrier();
    let (report, ()) = tokio::join!(retry(&retrier, gateway.request(UNAVAILABLE)), async {
        let call = later.next_call().await;
        // One is called, one is on the queue, and there is no room for the third.
        within("the queue to be full", async {
            while gateway.dispatcher.targets()[0].queued_len == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        call.answer_with(429, &LATER, "");
        fine.next_call().await.answer(200);
    });
    assert_eq!((counts(&report), report.attempted), ((1, 0, 0), 2));
    assert_eq!(
        waiting(&report),
        (vec![(origin(&later), 3)], Some(origin(&later)))
    );
    // They have left the queue with the pass.
    assert!(
        gateway
            .dispatcher
            .targets()
            .iter()
            .all(|one| one.queued_len == 0)
    );
}

/// Whatever the budget, each pass settles a record, leaves one, or says that it was stopped.
#[tokio::test]
async fn a_loop_of_passes_with_hardly_any_time_moves_or_ends() {
    for answer in [503, 404, 429] {
        let target = StubTarget::always(answer).await;
        let gateway = harness().await;
        let retrier = gateway.retrier();
        gateway.failed(UNAVAILABLE, target, 12).await;
        let (mut after, mut passes) = (None, 0);
        loop {
            let mut request = gateway.request(UNAVAILABLE);
            request.after = after;
            request.time_budget = Duration::ZERO;
            let report = retry(&retrier, request).await;
            passes += 1;
            if report.end_of_stream || report.stopped.is_some() {
                assert_eq!(report.end_of_stream, answer == 404, "{report:?}");
                break;
            }
            assert!(report.last_read_offset > after, "{report:?}");
            after = report.last_read_offset;
        }
        assert!(passes <= 13, "{passes}");
    }
}

/// A bound of the pass is no reason to end a loop as long as records of other targets are settled.
#[tokio::test]
async fn a_loop_of_passes_settles_all_that_waits_for_no_target_and_then_ends() {
    let (mut later, mut fine) = (StubTarget::start().await, StubTarget::start().await);
    let gateway = harness().await;
    let retrier = gateway.retrier();
    let targets = [&later, &fine, &later, &fine, &fine, &later, &fine, &fine];
    append(&gateway, UNAVAILABLE, &targets).await;
    let passes = async {
        let mut reports: Vec<RetryReport> = Vec::new();
        loop {
            let mut request = gateway.request(UNAVAILABLE);
            request.records_max = 2;
            let report = retry(&retrier, request).await;
            let stopped = report.stopped.is_some();
            assert_eq!(report.last_read_offset, None);
            reports.push(report);
            if stopped {
                return reports;
            }
            assert!(reports.len() < 10, "{reports:?}");
        }
    };
    let (reports, ()) = tokio::join!(passes, async {
        later.next_call().await.answer_with(429, &LATER, "");
        for path in ["/1", "/3", "/4", "/6", "/7"] {
            let call = fine.next_call().await;
            assert_eq!(call.path, path);
            call.answer(200);
        }
    });
    let processed: Vec<_> = reports.iter().map(|report| report.processed).collect();
    assert_eq!(processed[..3], [1, 2, 2]);
    assert!(later.waiting_call().is_none() && fine.waiting_call().is_none());
    let last = reports.last().unwrap();
    assert_eq!(
        waiting(last),
        (vec![(origin(&later), 3)], Some(origin(&later)))
    );
}
