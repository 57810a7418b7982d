//! Simultaneous passes, and early ends of a pass.

use super::*;
use crate::{
    retry::Work,
    storage::{Commit, Epoch, NewSettlement, Settle},
};

#[tokio::test]
async fn while_the_log_takes_nothing_a_retry_is_refused_and_calls_nobody() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|_| {}).await;
    gateway.failed(UNAVAILABLE, target.address, 1).await;
    gateway.engine.say_disk_full(true);
    let retrier = gateway.retrier();
    let refused = within("an answer", retrier.run(gateway.request(UNAVAILABLE))).await;
    assert!(matches!(
        refused,
        Err(Error::LogRefuses(CommitError::DiskFull))
    ));
    assert!(target.waiting_call().is_none());
}

#[tokio::test]
async fn a_retry_and_a_first_dispatch_of_one_key_never_overlap() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|_| {}).await;
    let retrier = gateway.retrier();
    gateway
        .append(
            UNAVAILABLE,
            0,
            vec![record("k", &message(target.address, "/retried"), &[])],
        )
        .await;
    gateway.sync("k", &message(target.address, "/first")).await;
    let first = target.next_call().await;
    assert_eq!(first.path, "/first");
    let (report, ()) = tokio::join!(retry(&retrier, gateway.request(UNAVAILABLE)), async {
        // Another key's retry would be called now; it shows that this one waits.
        gateway
            .sync("other", &message(target.address, "/other"))
            .await;
        let other = target.next_call().await;
        assert_eq!(other.path, "/other");
        other.answer(200);
        first.answer(200);
        let retried = target.next_call().await;
        assert_eq!(retried.path, "/retried");
        retried.answer(200);
    });
    assert_eq!(counts(&report), (1, 0, 0));
}

#[tokio::test]
async fn one_retry_at_a_time_and_the_next_one_is_told_whose_it_is() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|_| {}).await;
    let retrier = gateway.retrier();
    gateway.failed(UNAVAILABLE, target.address, 1).await;
    let mut request = gateway.request(UNAVAILABLE);
    request.by = Some("alice".into());
    let begun = gateway.dispatcher.shared.clock.now();
    let (report, ()) = tokio::join!(retry(&retrier, request), async {
        let held = target.next_call().await;
        let second = retrier.run(gateway.request(UNAVAILABLE)).await;
        let Err(Error::Running(taken)) = second else {
            panic!("{second:?}");
        };
        assert_eq!(taken.by.as_deref(), Some("alice"));
        assert_eq!(
            (taken.work, taken.of),
            (Work::Retry, gateway.partition(UNAVAILABLE, 0))
        );
        assert!(taken.since >= begun, "{taken}");
        let elsewhere = retry(&retrier, gateway.request(INTERNAL)).await;
        assert!(elsewhere.end_of_stream);
        // It changes nothing, so it needs no partition for itself.
        let mut dry = gateway.request(UNAVAILABLE);
        dry.dry_run = true;
        assert_eq!(retry(&retrier, dry).await.attempted, 1);
        held.answer(200);
    });
    assert_eq!(counts(&report), (1, 0, 0));
}

#[tokio::test]
async fn running_retries_are_listed_with_their_progress() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|config| config.retry.in_flight_max = 1).await;
    let retrier = gateway.retrier();
    gateway.failed(UNAVAILABLE, target.address, 3).await;
    let held = retrier.hold(&gateway.stream(INTERNAL), None).unwrap();
    assert_eq!(retrier.running(), [], "a purge is no retry");
    drop(held);
    for (redeliver, total) in [(false, 3), (true, 3)] {
        let mut request = gateway.request(UNAVAILABLE);
        request.by = Some("alice".into());
        request.redeliver = redeliver;
        let begun = gateway.dispatcher.shared.clock.now();
        let (report, ()) = tokio::join!(retry(&retrier, request), async {
            for done in 0..3 {
                let call = target.next_call().await;
                let running = retrier.running();
                let [only] = &running[..] else {
                    panic!("{running:?}");
                };
                assert_eq!(only.stream.as_str(), UNAVAILABLE);
                assert_eq!(only.of, gateway.partition(UNAVAILABLE, 0));
                assert_eq!(only.by.as_deref(), Some("alice"));
                assert!(only.since >= begun, "{only:?}");
                assert_eq!((only.done, only.total), (done, Some(total)));
                call.answer(200);
            }
        });
        assert_eq!(report.processed, 3);
        assert_eq!(retrier.running(), []);
    }
    let mut dry = gateway.request(UNAVAILABLE);
    dry.dry_run = true;
    retry(&retrier, dry).await;
    assert_eq!(retrier.running(), []);
}

/// Also where later passes call again: a caller who is gone keeps no offset.
#[tokio::test]
async fn a_caller_that_hangs_up_ends_its_pass_after_the_calls_in_flight() {
    for redeliver in [false, true] {
        let mut target = StubTarget::start().await;
        let gateway = Harness::start(|config| config.dispatch.in_flight_max = 2).await;
        let retrier = gateway.retrier();
        gateway.failed(UNAVAILABLE, target.address, 9).await;
        let mut request = gateway.request(UNAVAILABLE);
        request.redeliver = redeliver;
        let caller = CancellationToken::new();
        let (hung_up, ()) = tokio::join!(caller.run_until_cancelled(retrier.run(request)), async {
            let held = [target.next_call().await, target.next_call().await];
            caller.cancel();
            for call in held {
                call.answer(200);
            }
        });
        assert!(hung_up.is_none());
        let stream = gateway.stream(UNAVAILABLE);
        within("the pass to end by itself", async {
            while retrier.hold(&stream, None).is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let ended = gateway.counts(UNAVAILABLE);
        assert_eq!((ended.delivered, ended.open_len()), (2, 7));
        assert!(target.waiting_call().is_none());
    }
}

#[tokio::test]
async fn a_stop_ends_a_pass_after_the_calls_in_flight() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|config| config.dispatch.in_flight_max = 1).await;
    let retrier = gateway.retrier();
    gateway.failed(UNAVAILABLE, target.address, 3).await;
    let (report, ()) = tokio::join!(retry(&retrier, gateway.request(UNAVAILABLE)), async {
        let call = target.next_call().await;
        gateway.stop.cancel();
        call.answer(200);
    });
    assert_eq!(counts(&report), (1, 0, 0));
    assert_eq!(
        (report.last_read_offset, report.end_of_stream),
        (Some(Offset(0)), false)
    );
    let refused = retrier.run(gateway.request(UNAVAILABLE)).await;
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

/// The record is discarded by an operator or another node; the target has it anyway.
#[tokio::test]
async fn a_record_that_ends_elsewhere_during_its_call_is_delivered_by_the_report_and_ends_once() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|_| {}).await;
    let retrier = gateway.retrier();
    gateway.failed(UNAVAILABLE, target.address, 2).await;
    let (report, ()) = tokio::join!(retry(&retrier, gateway.request(UNAVAILABLE)), async {
        let calls = [target.next_call().await, target.next_call().await];
        let discarded = Settle {
            of: gateway.partition(UNAVAILABLE, 0),
            offset: Offset(0),
            end: NewSettlement::Discarded,
            attempts: 0,
            status: None,
            epoch: Epoch(1),
        };
        let commit = Commit {
            settles: vec![discarded],
            ..Commit::default()
        };
        gateway.engine.commit(commit).await.unwrap();
        for call in calls {
            call.answer(200);
        }
    });
    assert_eq!(counts(&report), (2, 0, 0));
    assert!(report.end_of_stream);
    let ended = gateway.counts(UNAVAILABLE);
    assert_eq!((ended.discarded, ended.delivered), (1, 1));
}

#[tokio::test]
async fn partitions_are_held_or_retried_and_never_both() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|_| {}).await;
    let retrier = gateway.retrier();
    gateway.failed(UNAVAILABLE, target.address, 1).await;
    let stream = gateway.stream(UNAVAILABLE);
    let held = retrier.hold(&stream, Some("bob".into())).unwrap();
    let refused = retrier.run(gateway.request(UNAVAILABLE)).await.unwrap_err();
    let told = refused.to_string();
    assert!(
        told.starts_with(
            "a purge of ServerUnavailableStream, partition 0, has been running since 2"
        ),
        "{told}"
    );
    assert!(told.ends_with(", by bob"), "{told}");
    let elsewhere = retry(&retrier, gateway.request(INTERNAL)).await;
    assert!(elsewhere.end_of_stream);
    drop(held);
    let (report, ()) = tokio::join!(retry(&retrier, gateway.request(UNAVAILABLE)), async {
        let call = target.next_call().await;
        let refused = retrier.hold(&stream, None);
        assert!(matches!(refused, Err(Error::Running(_))), "{refused:?}");
        call.answer(200);
    });
    assert_eq!(counts(&report), (1, 0, 0));
    retrier.hold(&stream, None).unwrap();
}
