//! Records that their target puts off: 429, and 503 with `Retry-After`, cost no attempt and no record.

use serde_json::json;

use super::{
    harness::{Harness, SOURCE, UNAVAILABLE, header, message, record},
    stub::{StubTarget, within},
};
use crate::{
    config::Config,
    dispatch::{Cause, WaitingRecord, WaitsFor},
    model::ids::Offset,
};

fn soon(config: &mut Config) {
    config.dispatch.backoff_ms = 1;
    config.dispatch.backoff_ms_max = 1;
    config.dispatch.retry_after_ms_max = 1;
}

/// Returns the failed records that wait for their next call.
fn waiting(gateway: &Harness) -> Vec<WaitingRecord> {
    let stream = gateway.partition(SOURCE, 0).stream;
    let mut all = gateway.dispatcher.waiting(stream, &|_, _| true, 1_000);
    all.retain(|one| one.cause.is_some() && one.waits_for != WaitsFor::Answer);
    all
}

async fn until_waiting(gateway: &Harness, len: usize) -> Vec<WaitingRecord> {
    within("records to wait", async {
        loop {
            let waiting = waiting(gateway);
            if waiting.len() == len {
                return waiting;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test]
async fn a_record_that_is_put_off_is_called_again_and_uses_up_no_attempt() {
    for (status, headers) in [
        (429, &[][..]),
        (429, &[("retry-after", "3600")]),
        (503, &[("retry-after", "0")]),
    ] {
        let mut target = StubTarget::start().await;
        let gateway = Harness::start(soon).await;
        gateway.sync("k", &message(target.address, "/1")).await;
        gateway.sync("k", &message(target.address, "/2")).await;
        let mut keys = Vec::new();
        // More often than a breaker needs to open.
        for _ in 0..9 {
            let call = target.next_call().await;
            assert_eq!(call.path, "/1", "it holds its lane");
            keys.push(call.header("idempotency-key").join(","));
            call.answer_with(status, headers, "");
        }
        keys.dedup();
        assert_eq!(keys.len(), 1, "all calls of a record have one key");
        target.next_call().await.answer(200);
        target.next_call().await.answer(200);
        let ended = gateway.settled().await;
        assert_eq!((ended.delivered, ended.routed), (2, 0), "{status}");
    }
}

#[tokio::test]
async fn failures_that_are_not_put_off_go_to_their_error_stream() {
    let none = |config: &mut Config| config.dispatch.deferred_ms_max = 0;
    let compat = |config: &mut Config| config.oci_sample.get_or_insert_default().compat = true;
    for (status, headers, set) in [
        (503, &[][..], soon as fn(&mut Config)),
        (502, &[("retry-after", "0")], soon),
        (429, &[], none),
        (503, &[("retry-after", "0")], none),
        (503, &[("retry-after", "0")], compat),
    ] {
        let mut target = StubTarget::start().await;
        let gateway = Harness::start(set).await;
        gateway.sync("k", &message(target.address, "/1")).await;
        let call = target.next_call().await;
        call.answer_with(status, headers, "");
        let failed = gateway.record_at(UNAVAILABLE, 0).await;
        assert_eq!(header(&failed, "attempts"), "1", "{status}");
    }
}

#[tokio::test]
async fn a_record_is_put_off_so_long_and_then_the_outcome_table_has_it() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|config| {
        soon(config);
        config.dispatch.deferred_ms_max = 300;
    })
    .await;
    gateway.sync("k", &message(target.address, "/1")).await;
    let refuses = async {
        loop {
            target.next_call().await.answer(429);
        }
    };
    let failed = tokio::select! {
        failed = gateway.record_at(UNAVAILABLE, 0) => failed,
        () = refuses => unreachable!("it refuses for ever"),
    };
    assert_eq!(header(&failed, "cause-status"), "429");
    let attempts: u32 = header(&failed, "attempts").parse().unwrap();
    assert!(attempts > 2, "{attempts}");
    // What the target asks for is more than there is time: it is not called before, so it is not called again.
    let gateway = Harness::start(|config| config.dispatch.deferred_ms_max = 60_000).await;
    gateway.sync("k", &message(target.address, "/2")).await;
    let call = loop {
        let call = target.next_call().await;
        if call.path == "/2" {
            break call;
        }
    };
    call.answer_with(503, &[("retry-after", "61")], "");
    let failed = gateway.record_at(UNAVAILABLE, 0).await;
    assert_eq!(header(&failed, "attempts"), "1");
}

#[tokio::test]
async fn attempts_count_from_where_nothing_is_put_off() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|config| {
        soon(config);
        config.dispatch.attempts_max = 2;
    })
    .await;
    gateway.sync("k", &message(target.address, "/1")).await;
    for status in [429, 500, 429, 429, 500] {
        target.next_call().await.answer(status);
    }
    let ended = gateway.settled().await;
    assert_eq!((ended.delivered, ended.routed), (0, 1));
    assert!(target.waiting_call().is_none());
}

#[tokio::test]
async fn a_record_that_waits_shows_its_last_cause_and_a_reload_can_end_that() {
    let mut target = StubTarget::start().await;
    let mut gateway = Harness::start(|config| config.dispatch.in_flight_max = 4).await;
    // The first is put off for long; the second waits behind it, the third is under way.
    for (key, path) in [("k", "/1"), ("k", "/2"), ("l", "/3")] {
        gateway.sync(key, &message(target.address, path)).await;
    }
    let mut calls = [target.next_call().await, target.next_call().await];
    calls.sort_by(|a, b| a.path.cmp(&b.path));
    let [first, third] = calls;
    let before = crate::runtime::clock::Clock::system().now();
    first.answer_with(503, &[("retry-after", "1800")], "");
    let waiting = until_waiting(&gateway, 1).await;
    let [one] = waiting[..] else { unreachable!() };
    let shown = (one.offset, one.waits_for, one.cause, one.attempts);
    let cause = Some(Cause::Status(503));
    assert_eq!(shown, (Offset(0), WaitsFor::RetryAfter, cause, 1));
    let wait = one.due.unwrap().since(before).as_secs();
    let stream = gateway.partition(SOURCE, 0).stream;
    let all = gateway.dispatcher.waiting(stream, &|_, _| true, 1_000);
    let others = all.iter().map(|one| (one.offset, one.waits_for));
    assert_eq!(
        others.skip(1).collect::<Vec<_>>(),
        [(Offset(1), WaitsFor::Key), (Offset(2), WaitsFor::Answer)]
    );
    assert!((1795..=1801).contains(&wait), "{wait}");
    let queued: usize = gateway
        .dispatcher
        .targets()
        .iter()
        .map(|one| one.queued_len)
        .sum();
    assert_eq!(queued, 2, "it counts as one that waits");
    third.answer(200);
    // The wait is cut to what a target gets now, and nothing is put off any more.
    gateway.reload(|config| {
        config.dispatch.retry_after_ms_max = 1;
        config.dispatch.backoff_ms = 1;
        config.dispatch.backoff_ms_max = 1;
        config.dispatch.deferred_ms_max = 0;
    });
    let again = target.next_call().await;
    assert_eq!(again.path, "/1");
    again.answer(429);
    let failed = gateway.record_at(UNAVAILABLE, 0).await;
    assert_eq!(header(&failed, "attempts"), "2");
    target.next_call().await.answer(200);
    assert_eq!(gateway.settled().await.delivered, 2);
    assert!(until_waiting(&gateway, 0).await.is_empty());
}

#[tokio::test]
async fn a_deferred_record_waits_at_least_our_own_pause() {
    for headers in [&[][..], &[("retry-after", "0")], &[("retry-after", "1")]] {
        let mut target = StubTarget::start().await;
        let gateway = Harness::start(|config| {
            config.dispatch.backoff_ms = 2_000_000;
            config.dispatch.backoff_ms_max = 2_000_000;
        })
        .await;
        let before = crate::runtime::clock::Clock::system().now();
        gateway.sync("k", &message(target.address, "/1")).await;
        target.next_call().await.answer_with(429, headers, "");
        let due = until_waiting(&gateway, 1).await[0].due;
        let wait = due.unwrap().since(before).as_secs();
        assert!((1_000..=2_100).contains(&wait), "{headers:?}: {wait}");
    }
}

#[tokio::test]
async fn a_target_whose_clock_is_wrong_gets_the_time_that_it_asks_for() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|_| {}).await;
    let before = crate::runtime::clock::Clock::system().now();
    gateway.sync("k", &message(target.address, "/1")).await;
    let half_an_hour = [
        ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("retry-after", "Sun, 06 Nov 1994 09:19:37 GMT"),
    ];
    let call = target.next_call().await;
    call.answer_with(429, &half_an_hour, "");
    let due = until_waiting(&gateway, 1).await[0].due;
    let wait = due.unwrap().since(before).as_secs();
    assert!((1_790..=1_830).contains(&wait), "{wait}");
}

#[tokio::test]
async fn deferred_records_are_bounded_by_the_queue() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|config| {
        config.dispatch.in_flight_max = 2;
        config.dispatch.queue_len_max = 8;
    })
    .await;
    let each = |at: usize| {
        let mut message = message(target.address, &format!("/{at}"));
        message["targetRestApiPayload"] = json!("x");
        record("", &message, &[])
    };
    gateway
        .append(SOURCE, 0, (0..100).map(each).collect())
        .await;
    // Each is answered alone, between answers that keep the breaker closed.
    for at in 0..100 {
        let call = within("a call, or a full queue", async {
            loop {
                if let Some(call) = target.waiting_call() {
                    return Some(call);
                }
                if waiting(&gateway).len() >= 7 {
                    return None;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        match (call, at % 4) {
            (None, _) => break,
            (Some(call), 0) => call.answer_with(429, &[("retry-after", "1800")], ""),
            (Some(call), _) => call.answer(200),
        }
    }
    let waiting = waiting(&gateway);
    assert!((7..=10).contains(&waiting.len()), "{}", waiting.len());
}
