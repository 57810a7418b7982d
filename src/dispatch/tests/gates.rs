//! Gates: a target that cannot be reached, or asks for a pause, is not called with all that waits for it.

use std::net::SocketAddr;

use super::{
    harness::{Harness, INTERNAL, SOURCE, UNAVAILABLE, message, record},
    stub::{StubTarget, within},
};
use crate::{
    config::Config,
    record::Record,
    storage::{Log, OpenRecords, StreamConfig},
};

/// Pauses that no test lives to see the end of.
fn long(config: &mut Config) {
    config.dispatch.backoff_ms = 3_600_000;
    config.dispatch.backoff_ms_max = 3_600_000;
    config.dispatch.in_flight_max = 4;
}

/// Pauses that are over at once.
fn short(config: &mut Config) {
    config.dispatch.backoff_ms = 1;
    config.dispatch.backoff_ms_max = 1;
    config.dispatch.in_flight_max = 4;
}

fn records(target: SocketAddr, len: usize) -> Vec<Record> {
    let each = |at| record("", &message(target, &format!("/{at}")), &[]);
    (0..len).map(each).collect()
}

async fn until_closed(gateway: &Harness, closed: bool) {
    let told = async {
        while gateway.dispatcher.targets()[0].is_closed != closed {
            tokio::task::yield_now().await;
        }
    };
    within("the gate", told).await;
}

async fn much_later() {
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_target_that_asks_for_a_pause_gets_it() {
    for (status, retry_after, stream) in [
        (503, None, UNAVAILABLE),
        (429, None, UNAVAILABLE),
        (500, Some("3600"), INTERNAL),
    ] {
        let mut target = StubTarget::start().await;
        let gateway = Harness::start(long).await;
        gateway.append(SOURCE, 0, records(target.address, 1)).await;
        let call = target.next_call().await;
        gateway.append(SOURCE, 0, records(target.address, 20)).await;
        let others = [
            target.next_call().await,
            target.next_call().await,
            target.next_call().await,
        ];
        match retry_after {
            Some(value) => call.answer_with(status, &[("retry-after", value)], ""),
            None => call.answer(status),
        }
        until_closed(&gateway, true).await;
        // What had begun before says nothing about now.
        for other in others {
            other.answer(200);
        }
        gateway.record_at(stream, 0).await;
        much_later().await;
        assert!(target.waiting_call().is_none(), "{status}");
        let ended = gateway.counts(SOURCE);
        assert_eq!(ended.routed, 1, "{status}: nothing is spent: {ended:?}");
    }
}

#[tokio::test]
async fn a_target_that_is_gone_costs_one_record_and_not_the_backlog() {
    let gone: SocketAddr = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let gateway = Harness::start(long).await;
    gateway.append(SOURCE, 0, records(gone, 1)).await;
    gateway.record_at(UNAVAILABLE, 0).await;
    gateway.append(SOURCE, 0, records(gone, 20)).await;
    much_later().await;
    assert_eq!(gateway.counts(SOURCE).open_len(), 20);
}

#[tokio::test]
async fn after_the_pause_one_call_probes_and_the_rest_follows_its_answer() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(short).await;
    gateway.append(SOURCE, 0, records(target.address, 1)).await;
    target.next_call().await.answer(503);
    until_closed(&gateway, true).await;
    gateway.append(SOURCE, 0, records(target.address, 20)).await;
    for _ in 0..3 {
        let probe = target.next_call().await;
        much_later().await;
        assert!(target.waiting_call().is_none(), "one at a time");
        probe.answer(503);
    }
    let probe = target.next_call().await;
    much_later().await;
    assert!(target.waiting_call().is_none(), "one at a time");
    // It is an answer, be it no success.
    probe.answer(404);
    let all = [
        target.next_call().await,
        target.next_call().await,
        target.next_call().await,
        target.next_call().await,
    ];
    assert!(!gateway.dispatcher.targets()[0].is_closed);
    for call in all {
        call.answer(200);
    }
    for _ in 4..16 {
        target.next_call().await.answer(200);
    }
    let ended = gateway.settled().await;
    assert_eq!((ended.delivered, ended.routed), (16, 5), "{ended:?}");
}

#[tokio::test]
async fn a_probe_that_nobody_wants_any_more_leaves_it_to_the_next_record() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|config| {
        config.dispatch.backoff_ms = 2_000;
        config.dispatch.backoff_ms_max = 2_000;
    })
    .await;
    gateway.append(SOURCE, 0, records(target.address, 1)).await;
    target.next_call().await.answer(503);
    until_closed(&gateway, true).await;
    gateway.append(SOURCE, 0, records(target.address, 1)).await;
    within("the record to wait for the pause to be over", async {
        while gateway.dispatcher.targets()[0].queued_len == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // It is first in line to probe, but its stream is gone by then.
    let id = gateway.stream(SOURCE).id;
    let gone = gateway.engine.delete_stream(id, None, OpenRecords::Drop);
    gone.await.unwrap();
    let name = SOURCE.parse().unwrap();
    let made = gateway
        .engine
        .create_stream(name, 1, StreamConfig::default());
    made.await.unwrap();
    let late = message(target.address, "/late");
    gateway.sync("", &late).await;
    let probe = target.next_call().await;
    assert_eq!(probe.path, "/late");
    probe.answer(200);
    assert_eq!(gateway.settled().await.delivered, 1);
}
