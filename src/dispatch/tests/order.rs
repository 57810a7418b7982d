//! Lanes: order per key, no overlapping calls, and no waits of other lanes.

use std::{
    collections::{HashMap, HashSet},
    pin::pin,
};

use futures_util::FutureExt;
use serde_json::json;
use tempfile::TempDir;

use super::{
    harness::{Harness, INTERNAL, SOURCE, header, message, record},
    stub::{StubCall, StubTarget, within},
};
use crate::storage::Log;

/// A generator of numbers that a seed repeats.
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_a_key_are_in_log_order_and_never_overlap() {
    const KEYS: usize = 1000;
    const RECORDS: usize = 4000;
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|_| {}).await;
    let mut numbers = Numbers(7);
    let mut records = Vec::new();
    for at in 0..RECORDS {
        let key = numbers.below(KEYS);
        let message = message(target.address, &format!("/{key}/{at}"));
        records.push(record(&format!("key{key}"), &message, &[]));
    }
    gateway.append(SOURCE, 0, records).await;

    let mut held: Vec<StubCall> = Vec::new();
    let mut keys_in_flight = HashSet::new();
    let mut last = HashMap::new();
    let mut in_flight_max = 0;
    let place = |call: &StubCall| {
        let mut parts = call.path.split('/').skip(1);
        let mut next = || parts.next().unwrap().parse::<usize>().unwrap();
        (next(), next())
    };
    let mut seen = 0;
    while seen < RECORDS || !held.is_empty() {
        // Release at random, so that calls end in another order than they began.
        while held.len() < 48 && seen < RECORDS {
            let call = match target.waiting_call() {
                Some(call) => call,
                None if held.is_empty() => target.next_call().await,
                None => break,
            };
            let (key, at) = place(&call);
            assert!(keys_in_flight.insert(key), "two calls of key {key} at once");
            let before = last.insert(key, at);
            assert!(before < Some(at), "key {key}: {before:?} before {at}");
            held.push(call);
            seen += 1;
            in_flight_max = in_flight_max.max(held.len());
        }
        let call = held.swap_remove(numbers.below(held.len()));
        keys_in_flight.remove(&place(&call).0);
        call.answer(200);
    }
    let counts = gateway.settled().await;
    assert_eq!(counts.delivered, RECORDS as u64);
    assert!(in_flight_max > 16, "keys run side by side: {in_flight_max}");
    assert!(
        target.connections_len() <= 64,
        "one connection for each slot"
    );
    gateway.stop().await;
}

#[tokio::test]
async fn records_without_a_key_are_called_side_by_side() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|config| config.dispatch.in_flight_max = 8).await;
    for at in 0..9 {
        gateway
            .sync("", &message(target.address, &format!("/{at}")))
            .await;
    }
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(target.next_call().await);
    }
    assert!(target.waiting_call().is_none(), "no call beyond the bound");
    for call in held {
        call.answer(204);
    }
    target.next_call().await.answer(204);
    assert_eq!(gateway.settled().await.delivered, 9);
}

#[tokio::test]
async fn a_record_in_backoff_holds_its_lane_but_not_a_slot() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|config| {
        config.dispatch.in_flight_max = 1;
        config.dispatch.attempts_max = 3;
        config.dispatch.backoff_ms_max = 300;
    })
    .await;
    for (key, path) in [("a", "/a1"), ("a", "/a2"), ("b", "/b1")] {
        gateway.sync(key, &message(target.address, path)).await;
    }
    let first = target.next_call().await;
    assert_eq!(first.path, "/a1");
    let idempotency_key = first.header("idempotency-key")[0].to_owned();
    first.answer(500);
    let other = target.next_call().await;
    assert_eq!(other.path, "/b1", "the slot goes to the other key");
    other.answer(200);
    let second = target.next_call().await;
    assert_eq!(second.path, "/a1", "the lane waits");
    assert_eq!(second.header("idempotency-key"), [idempotency_key]);
    second.answer(500);
    let third = target.next_call().await;
    assert_eq!(third.path, "/a1");
    third.answer(500);
    let next = target.next_call().await;
    assert_eq!(
        next.path, "/a2",
        "the lane goes on once the record has ended"
    );
    next.answer(200);
    let counts = gateway.settled().await;
    assert_eq!((counts.delivered, counts.routed), (2, 1));
    let failed = gateway.record_at(INTERNAL, 0).await;
    assert_eq!(header(&failed, "attempts"), "3");
}

#[tokio::test]
async fn a_target_that_hangs_does_not_hold_up_another() {
    let mut hanging = StubTarget::start().await;
    let mut prompt = StubTarget::start().await;
    let gateway = Harness::start(|config| config.dispatch.in_flight_max = 2).await;
    for at in 0..20 {
        gateway
            .sync("", &message(hanging.address, &format!("/{at}")))
            .await;
    }
    gateway.sync("", &message(prompt.address, "/x")).await;
    prompt.next_call().await.answer(200);
    hanging.next_call().await.answer(200);
}

#[tokio::test]
async fn a_full_queue_waits_and_nothing_is_lost() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|config| {
        config.dispatch.queue_len_max = 4;
        config.dispatch.in_flight_max = 2;
    })
    .await;
    for at in 0..50 {
        gateway
            .sync("k", &message(target.address, &format!("/{at}")))
            .await;
    }
    for at in 0..50 {
        let call = target.next_call().await;
        assert_eq!(call.path, format!("/{at}"));
        let queued = gateway.dispatcher.targets();
        assert!(
            queued.iter().all(|target| target.queued_len <= 4),
            "{queued:?}"
        );
        call.answer(200);
    }
    assert_eq!(gateway.settled().await.delivered, 50);
}

#[tokio::test]
async fn all_queues_together_are_bounded_and_a_prompt_target_goes_on() {
    let mut targets = [
        StubTarget::start().await,
        StubTarget::start().await,
        StubTarget::start().await,
    ];
    let wanted = message(targets[0].address, "/0").to_string().len();
    let gateway = Harness::start_in(TempDir::new().unwrap(), 3, |config| {
        config.dispatch.in_flight_max = 1;
        config.dispatch.queues_bytes_max = wanted * 6;
    })
    .await;
    let each = 20;
    for (partition, target) in (0..).zip(&targets) {
        let records = (0..each).map(|at| {
            let message = message(target.address, &format!("/{at}"));
            record("", &message, &[])
        });
        gateway.append(SOURCE, partition, records.collect()).await;
    }
    // The first two hold their calls; what waits for them leaves the third one room for a record at a time.
    let held = [targets[0].next_call().await, targets[1].next_call().await];
    for _ in 0..each {
        let call = targets[2].next_call().await;
        let queued = gateway.dispatcher.targets();
        let bytes: usize = queued.iter().map(|target| target.queued_bytes).sum();
        // One record each may be beyond the bound.
        assert!(bytes <= wanted * 9 + 3 * 64, "{queued:?}");
        call.answer(200);
    }
    for call in held {
        call.answer(200);
    }
    for target in &mut targets[..2] {
        for _ in 1..each {
            target.next_call().await.answer(200);
        }
    }
    for partition in 0..3 {
        let of = gateway.partition(SOURCE, partition);
        let mut tail = gateway.engine.status(of).unwrap();
        while tail.low_mark < tail.bounds.tail {
            tokio::task::yield_now().await;
            tail = gateway.engine.status(of).unwrap();
        }
    }
}

#[tokio::test]
async fn while_the_log_takes_nothing_no_call_begins() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|config| config.dispatch.in_flight_max = 2).await;
    gateway.sync("", &message(target.address, "/before")).await;
    let before = target.next_call().await;
    gateway.engine.say_disk_full(true);
    for at in 0..4 {
        let path = format!("/{at}");
        gateway.sync("", &message(target.address, &path)).await;
    }
    before.answer(200);
    // Both workers have a record in hand then, and wait with it.
    let in_hand = async {
        while gateway.dispatcher.targets()[0].queued_len > 2 {
            tokio::task::yield_now().await;
        }
    };
    within("the workers", in_hand).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(target.waiting_call().is_none());
    gateway.engine.say_disk_full(false);
    for _ in 0..4 {
        target.next_call().await.answer(200);
    }
    assert_eq!(gateway.settled().await.delivered, 5);
}

#[tokio::test]
async fn only_open_records_are_dispatched_after_a_restart() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|config| config.dispatch.in_flight_max = 1).await;
    for path in ["/0", "/1", "/2"] {
        gateway.sync("", &message(target.address, path)).await;
    }
    target.next_call().await.answer(200);
    let in_flight = target.next_call().await;
    // Asked to stop, the gateway waits for this call and begins no other.
    let mut stopping = pin!(gateway.stop());
    for _ in 0..100 {
        assert!(stopping.as_mut().now_or_never().is_none(), "it waits");
        tokio::task::yield_now().await;
    }
    in_flight.answer(200);
    let dir = stopping.await;
    assert!(target.waiting_call().is_none());
    let gateway = Harness::start_in(dir, 1, |_| {}).await;
    let call = target.next_call().await;
    assert_eq!(call.path, "/2");
    call.answer(200);
    assert_eq!(gateway.settled().await.delivered, 3);
}

#[tokio::test]
async fn a_stream_made_again_and_a_partition_added_are_dispatched() {
    use crate::storage::{Log, StreamConfig};
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|_| {}).await;
    gateway.sync("", &message(target.address, "/old")).await;
    target.next_call().await.answer(200);
    gateway.settled().await;
    let old = gateway.stream(SOURCE);
    gateway
        .engine
        .delete_stream(old.id, None, crate::storage::OpenRecords::Drop)
        .await
        .unwrap();
    let config = StreamConfig::default;
    let made = gateway
        .engine
        .create_stream(SOURCE.parse().unwrap(), 1, config());
    let made = within("a stream", made).await.unwrap();
    gateway.sync("", &message(target.address, "/new")).await;
    let call = target.next_call().await;
    assert_eq!(call.path, "/new");
    call.answer(200);
    let grown = gateway.engine.change_stream(made.id, 2, config(), None);
    within("growth", grown).await.unwrap();
    let added = record(
        "",
        &json!({"targetRestApi": target.url("/added"), "targetRestApiOperation": "PUT"}),
        &[],
    );
    gateway.append(SOURCE, 1, vec![added]).await;
    let call = target.next_call().await;
    assert_eq!(call.path, "/added");
    call.answer(200);
}

#[tokio::test]
async fn waiting_records_of_a_deleted_stream_are_not_called() {
    use crate::storage::{Log, OpenRecords, StreamConfig};
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|config| config.dispatch.in_flight_max = 1).await;
    for path in ["/called", "/waits"] {
        gateway.sync("", &message(target.address, path)).await;
    }
    let held = target.next_call().await;
    let dispatcher = &gateway.dispatcher;
    let queued = async |count| {
        let waits = async {
            while dispatcher.targets()[0].queued_len != count {
                tokio::task::yield_now().await;
            }
        };
        within("the queue", waits).await;
    };
    queued(1).await;
    let old = gateway.stream(SOURCE);
    let deleted = gateway
        .engine
        .delete_stream(old.id, None, OpenRecords::Drop);
    deleted.await.unwrap();
    // The stop does not wait for it, not even for the call in flight.
    queued(0).await;
    let name = SOURCE.parse().unwrap();
    let made = gateway
        .engine
        .create_stream(name, 1, StreamConfig::default());
    made.await.unwrap();
    gateway.sync("", &message(target.address, "/new")).await;
    queued(1).await;
    held.answer(200);
    let next = target.next_call().await;
    assert_eq!(next.path, "/new");
    next.answer(200);
}
