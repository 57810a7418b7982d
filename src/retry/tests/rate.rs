//! Passes with a rate.

use std::num::NonZeroU32;

use tokio::{sync::oneshot, time::Instant};

use super::*;
use crate::dispatch::{
    job::{Errand, LeftLanes, Mapping, Retried, Start},
    pace::{Pace, Slots},
};

#[tokio::test]
async fn a_record_without_a_slot_of_the_rate_in_time_stays() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|_| {}).await;
    gateway.failed(UNAVAILABLE, target.address, 5).await;
    let retrier = gateway.retrier();
    let mut request = gateway.request(UNAVAILABLE);
    request.rate = NonZeroU32::new(1);
    request.time_budget = Duration::from_millis(500);
    let (report, ()) = tokio::join!(retry(&retrier, request.clone()), async {
        target.next_call().await.answer(200);
    });
    assert_eq!(counts(&report), (1, 0, 0));
    assert_eq!(
        (report.last_read_offset, report.end_of_stream),
        (Some(Offset(0)), false)
    );
    // A fast one is no obstacle.
    request.rate = NonZeroU32::new(100_000);
    request.time_budget = Duration::from_secs(20);
    let (report, ()) = tokio::join!(retry(&retrier, request.clone()), async {
        for _ in 0..4 {
            target.next_call().await.answer(200);
        }
    });
    assert_eq!((counts(&report), report.end_of_stream), ((4, 0, 1), true));
    // Nothing is called in a dry run, so nothing waits.
    request.rate = NonZeroU32::new(1);
    request.dry_run = true;
    request.redeliver = true;
    request.time_budget = Duration::from_millis(500);
    let report = retry(&retrier, request).await;
    assert_eq!((report.attempted, report.end_of_stream), (5, true));
}

/// Else they would stand before the records of the next pass, each with a slot of the target's rate.
#[tokio::test]
async fn records_withdrawn_at_the_end_of_a_pass_leave_their_queue() {
    let mut target = StubTarget::start().await;
    // The longest that there is between two calls.
    let gateway = Harness::start(|config| config.dispatch.rate_per_second = Some(1)).await;
    gateway.failed(UNAVAILABLE, target.address, 60).await;
    let retrier = gateway.retrier();
    let mut request = gateway.request(UNAVAILABLE);
    request.time_budget = Duration::from_millis(200);
    let (report, ()) = tokio::join!(retry(&retrier, request.clone()), async {
        target.next_call().await.answer(200);
    });
    assert!(report.processed < 3, "{report:?}");
    let queued_len = || {
        let targets = gateway.dispatcher.targets();
        targets.iter().map(|one| one.queued_len).sum::<usize>()
    };
    assert_eq!(queued_len(), 0);
    // The next pass comes further.
    request.after = report.last_read_offset;
    let (report, ()) = tokio::join!(retry(&retrier, request), async {
        target.next_call().await.answer(200);
    });
    assert!(report.processed > 0, "{report:?}");
    assert_eq!(queued_len(), 0);
}

/// Several calls wait for a target whose breaker was open.
#[tokio::test]
async fn calls_that_wait_for_their_target_together_begin_one_slot_after_the_other() {
    let mut target = StubTarget::start().await;
    // One worker, so that each has had its chance to begin when the next is called.
    let gateway = Harness::start(|config| config.dispatch.in_flight_max = 1).await;
    gateway.failed(UNAVAILABLE, target.address, 3).await;
    let shared = &gateway.dispatcher.shared;
    let slots = Slots::new(Duration::from_secs(3_600), Instant::now());
    let pace = Pace::new(slots);
    let mut given = Vec::new();
    for (offset, pace) in [(0, Some(&pace)), (1, Some(&pace)), (2, None)] {
        let stored = gateway.record_at(UNAVAILABLE, offset).await;
        let (answer, answered) = oneshot::channel();
        let start = Start::default();
        let errand = Errand::Retry(Retried {
            stream: gateway.stream(UNAVAILABLE),
            mapping: Arc::new(Mapping {
                streams: ErrorMapping::default().0,
                retries_max: 20,
                left_lanes: LeftLanes::default(),
            }),
            ends: None,
            start: start.clone(),
            pace: pace.cloned(),
            waiting: None,
            commit_by: Instant::now() + Duration::from_secs(20),
            answer,
        });
        let origin = shared.target_of(&stored.record);
        let of = gateway.partition(UNAVAILABLE, 0);
        let job = shared.job(of, &stored, origin, errand);
        shared.enqueue(Box::new(job)).await;
        given.push((start, answered));
        if offset != 1 {
            let call = target.next_call().await;
            assert_eq!(call.path, format!("/{offset}"));
            call.answer(200);
        }
    }
    assert!(pace.is_behind());
    assert!(target.waiting_call().is_none());
    assert!(given[1].0.withdraw(), "its call has not begun");
}
