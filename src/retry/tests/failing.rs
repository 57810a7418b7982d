//! Passes that end because a target only fails.

use super::*;
use crate::{
    dispatch::{Cause, TargetId},
    retry::{Stopped, TargetFailing},
};

/// Ends a pass after three calls that fail alike, each of which waits for the one before it.
async fn harness(partitions: u16) -> Harness {
    let dir = tempfile::TempDir::new().unwrap();
    Harness::start_in(dir, partitions, |config| {
        config.retry.failing_calls_max = 3;
        config.retry.in_flight_max = 1;
    })
    .await
}

fn failing(target: SocketAddr, cause: Cause) -> Option<Stopped> {
    Some(Stopped::Failing(TargetFailing {
        target: TargetId::of(&format!("http://{target}/")),
        cause,
        calls: 3,
    }))
}

#[tokio::test]
async fn a_target_whose_first_calls_fail_alike_ends_the_pass_and_the_rest_stays() {
    let mut fine = StubTarget::start().await;
    let down = StubTarget::always(404).await;
    let gateway = harness(1).await;
    let retrier = gateway.retrier();
    gateway.failed(UNAVAILABLE, down, 5).await;
    gateway.failed(UNAVAILABLE, fine.address, 2).await;
    let report = retry(&retrier, gateway.request(UNAVAILABLE)).await;
    assert_eq!((report.attempted, counts(&report)), (3, (0, 3, 0)));
    assert_eq!(report.stopped, failing(down, Cause::Status(404)));
    assert_eq!(
        (report.last_read_offset, report.end_of_stream),
        (Some(Offset(2)), false)
    );
    assert!(fine.waiting_call().is_none());
    assert_eq!(gateway.counts(UNAVAILABLE).open_len(), 4);

    // The next pass ends at the end of the stream, however its calls came out.
    let mut rest = gateway.request(UNAVAILABLE);
    rest.after = report.last_read_offset;
    let (report, ()) = tokio::join!(retry(&retrier, rest), async {
        for _ in 0..2 {
            fine.next_call().await.answer(404);
        }
    });
    assert_eq!((counts(&report), report.end_of_stream), ((0, 4, 0), true));
    assert_eq!(report.stopped, None);
}

#[tokio::test]
async fn a_pass_that_ends_with_the_last_failure_is_not_stopped() {
    let down = StubTarget::always(404).await;
    let gateway = harness(1).await;
    gateway.failed(UNAVAILABLE, down, 3).await;
    let report = retry(&gateway.retrier(), gateway.request(UNAVAILABLE)).await;
    assert_eq!((counts(&report), report.end_of_stream), ((0, 3, 0), true));
    assert_eq!(report.stopped, None);
}

#[tokio::test]
async fn a_success_or_another_cause_among_the_first_calls_lets_a_pass_go_on() {
    let mut target = StubTarget::start().await;
    let gateway = harness(1).await;
    let retrier = gateway.retrier();
    for other in [200, 400] {
        gateway.failed(UNAVAILABLE, target.address, 9).await;
        let (report, ()) = tokio::join!(retry(&retrier, gateway.request(UNAVAILABLE)), async {
            for status in [404, 404, other, 404, 404, 404, 404, 404, 404] {
                target.next_call().await.answer(status);
            }
        });
        assert_eq!((report.attempted, report.end_of_stream), (9, true));
    }
}

#[tokio::test]
async fn calls_in_flight_at_the_end_of_a_pass_are_settled_by_their_outcome() {
    let mut slow = StubTarget::start().await;
    let down = StubTarget::always(404).await;
    let gateway = Harness::start(|config| {
        config.retry.failing_calls_max = 3;
        config.retry.in_flight_max = 3;
    })
    .await;
    gateway.failed(UNAVAILABLE, slow.address, 2).await;
    gateway.failed(UNAVAILABLE, down, 20).await;
    let retrier = gateway.retrier();
    let (report, ()) = tokio::join!(retry(&retrier, gateway.request(UNAVAILABLE)), async {
        let held = [slow.next_call().await, slow.next_call().await];
        gateway.record_at(DEFAULT, 2).await;
        for call in held {
            call.answer(200);
        }
    });
    assert_eq!(report.stopped, failing(down, Cause::Status(404)));
    assert_eq!((report.processed, report.end_of_stream), (2, false));
    assert_eq!(report.attempted, report.processed + report.failed);
    let last = report.last_read_offset;
    assert_eq!(last, report.attempted.checked_sub(1).map(Offset));
}

#[tokio::test]
async fn a_target_that_asks_for_later_has_not_failed_and_the_pass_goes_on_for_others() {
    let (mut later, mut fine) = (StubTarget::start().await, StubTarget::start().await);
    let gateway = Harness::start(|config| {
        config.retry.failing_calls_max = 3;
        config.retry.in_flight_max = 3;
        config.dispatch.backoff_ms = 3_600_000;
        config.dispatch.backoff_ms_max = 3_600_000;
    })
    .await;
    gateway.failed(UNAVAILABLE, later.address, 4).await;
    gateway.failed(UNAVAILABLE, fine.address, 2).await;
    let retrier = gateway.retrier();
    let (report, ()) = tokio::join!(retry(&retrier, gateway.request(UNAVAILABLE)), async {
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(later.next_call().await);
        }
        for call in held {
            call.answer(429);
        }
        for _ in 0..2 {
            fine.next_call().await.answer(200);
        }
    });
    assert_eq!((report.attempted, counts(&report)), (5, (2, 0, 0)));
    assert!(
        matches!(report.stopped, Some(Stopped::Open { .. })),
        "{report:?}"
    );
    assert_eq!(report.waiting[0].count, 4);
}

#[tokio::test]
async fn a_failing_target_ends_the_pass_over_all_partitions() {
    let down = StubTarget::always(404).await;
    let gateway = harness(3).await;
    for partition in [0, 1, 2] {
        for key in ["a", "b"] {
            let record = record(key, &message(down, "/x"), &[]);
            gateway.append(UNAVAILABLE, partition, vec![record]).await;
        }
    }
    let mut request = gateway.request(UNAVAILABLE);
    request.partitions = gateway.stream(UNAVAILABLE).all_partitions().collect();
    let report = retry(&gateway.retrier(), request).await;
    assert_eq!(report.stopped, failing(down, Cause::Status(404)));
    assert_eq!((report.attempted, report.end_of_stream), (3, false));
    let next: Vec<_> = report
        .partitions
        .iter()
        .map(|one| one.next_offset.0)
        .collect();
    assert_eq!(next, [2, 1, 0]);
}

/// Each of them waits for its answer: without a bound of their own they would all be under way, and moved.
#[tokio::test]
async fn no_more_records_are_moved_than_it_takes_to_see_that_all_calls_fail_alike() {
    let mut down = StubTarget::start().await;
    let gateway = Harness::start(|config| config.retry.failing_calls_max = 3).await;
    gateway.failed(UNAVAILABLE, down.address, 20).await;
    let retrier = gateway.retrier();
    let (report, ()) = tokio::join!(retry(&retrier, gateway.request(UNAVAILABLE)), async {
        let held = [
            down.next_call().await,
            down.next_call().await,
            down.next_call().await,
        ];
        for call in held {
            call.answer(404);
        }
    });
    assert_eq!((report.attempted, counts(&report)), (3, (0, 3, 0)));
    assert_eq!(report.stopped, failing(down.address, Cause::Status(404)));
    assert!(down.waiting_call().is_none());

    // One that is delivered lifts the bound for the rest of the pass.
    let (report, ()) = tokio::join!(retry(&retrier, gateway.request(UNAVAILABLE)), async {
        down.next_call().await.answer(200);
        let mut held = Vec::new();
        for _ in 0..16 {
            held.push(down.next_call().await);
        }
        for call in held {
            call.answer(404);
        }
    });
    assert_eq!((counts(&report), report.end_of_stream), ((1, 16, 3), true));
}
