//! Passes that run out of time.

use futures_util::poll;
use tokio::{
    sync::oneshot,
    time::{Instant, advance},
};

use super::*;
use crate::{
    dispatch::{
        job::{LeftLanes, Mapping, Redone, Start},
        tests::stub::stand_still,
    },
    retry::{
        failing::Failing,
        open::OpenTargets,
        pass::{HOLES_PATIENCE, Pass, in_flight::InFlight, progress::Progress},
    },
};

#[tokio::test(start_paused = true)]
async fn the_time_budget_ends_a_pass_at_an_offset_without_gap_or_repeat() {
    let _still = stand_still();
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|config| config.dispatch.in_flight_max = 1).await;
    let retrier = gateway.retrier();
    gateway.failed(UNAVAILABLE, target.address, 5).await;
    let mut request = gateway.request(UNAVAILABLE);
    request.time_budget = Duration::from_millis(200);
    let (report, ()) = tokio::join!(retry(&retrier, request), async {
        target.next_call().await.answer(200);
        let second = target.next_call().await;
        // Held until the budget is over: it has begun, so it is waited for.
        advance(Duration::from_millis(300)).await;
        until("the rest to be taken back", || {
            let targets = gateway.dispatcher.targets();
            targets.iter().all(|one| one.queued_len == 0)
        })
        .await;
        second.answer(200);
    });
    assert_eq!(counts(&report), (2, 0, 0));
    assert_eq!(
        (report.last_read_offset, report.end_of_stream),
        (Some(Offset(1)), false)
    );
    let mut rest = gateway.request(UNAVAILABLE);
    rest.after = report.last_read_offset;
    let (report, ()) = tokio::join!(retry(&retrier, rest), async {
        for path in ["/2", "/3", "/4"] {
            let call = target.next_call().await;
            assert_eq!(call.path, path, "what was taken back is called once");
            call.answer(200);
        }
    });
    assert_eq!(counts(&report), (3, 0, 0));
    assert!(target.waiting_call().is_none());
}

/// Three records given by a pass that calls again and whose time is over since then: the first has begun, the second
/// waits behind it, the third was called. Returns whether the second can be called, and where the pass ends.
async fn cut(gateway: &Harness, over_since: Duration) -> (bool, Offset) {
    let mut pass = Pass {
        shared: gateway.dispatcher.shared.clone(),
        stop: gateway.dispatcher.shared.stop.clone(),
        stream: gateway.stream(UNAVAILABLE),
        replay: false,
        after: None,
        before: None,
        group: None,
        filter: Filter::default(),
        records_max: 3,
        in_flight_max: 3,
        by: Instant::now().checked_sub(over_since).unwrap(),
        least_by: Instant::now().checked_sub(over_since).unwrap(),
        mapping: Arc::new(Mapping {
            streams: ErrorMapping::default().0,
            retries_max: 1,
            left_lanes: LeftLanes::default(),
        }),
        redeliver: true,
        dry_run: false,
        rate: None,
        failing: Failing::new(0),
        open: OpenTargets::default(),
        look_at: Instant::now(),
        is_cut: false,
        report: RetryReport {
            attempted: 3,
            ..RetryReport::default()
        },
        running: None,
        here: None,
    };
    let mut progress = Progress::from(Offset(0));
    let mut in_flight = InFlight::default();
    let mut queues = Vec::new();
    for offset in 0..3 {
        let (answer, answered) = oneshot::channel();
        let start = Start::default();
        in_flight.add(Offset(offset), None, start.clone(), answered);
        queues.push((start, Some(answer)));
    }
    let answer = |(start, answer): &mut (Start, Option<oneshot::Sender<_>>)| {
        start.begin() && {
            let delivered = Redone::Delivered { status: 200 };
            answer.take().unwrap().send(delivered).unwrap();
            true
        }
    };
    let [first, second, third] = &mut queues[..] else {
        unreachable!("there are three")
    };
    let first_answer = first.1.take().unwrap();
    assert!(first.0.begin() && answer(third));
    let called = {
        let mut collecting = Box::pin(pass.collect_rest(&mut progress, &mut in_flight));
        assert!(poll!(&mut collecting).is_pending());
        let delivered = Redone::Delivered { status: 200 };
        first_answer.send(delivered).unwrap();
        let pending = poll!(&mut collecting).is_pending();
        let called = answer(second);
        assert_eq!(pending, called, "it waits for what can be called");
        if called {
            within("the pass to end", collecting).await.unwrap();
        }
        called
    };
    assert_eq!(pass.report.attempted, pass.report.processed);
    (called, progress.next)
}

#[tokio::test]
async fn a_pass_that_is_cut_calls_what_it_has_called_others_behind_of() {
    let gateway = Harness::start(|_| {}).await;
    let soon = Duration::from_secs(1);
    assert_eq!(cut(&gateway, soon).await, (true, Offset(3)));
    assert_eq!(cut(&gateway, HOLES_PATIENCE).await, (false, Offset(1)));
    gateway.stop.cancel();
    assert_eq!(cut(&gateway, soon).await, (false, Offset(1)));
}

#[tokio::test(start_paused = true)]
async fn a_pass_that_calls_again_gives_out_nothing_that_may_take_too_long() {
    let _still = stand_still();
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|config| config.retry.in_flight_max = 1).await;
    gateway.failed(UNAVAILABLE, target.address, 2).await;
    let mut request = gateway.request(UNAVAILABLE);
    request.redeliver = true;
    request.time_budget = Duration::from_millis(400);
    let retrier = gateway.retrier();
    let (report, ()) = tokio::join!(retry(&retrier, request), async {
        let call = target.next_call().await;
        // A target that takes more than half of the time.
        advance(Duration::from_millis(250)).await;
        call.answer(200);
    });
    assert_eq!(counts(&report), (1, 0, 0));
    assert_eq!(
        (report.last_read_offset, report.end_of_stream),
        (Some(Offset(0)), false)
    );
}
