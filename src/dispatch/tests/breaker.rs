//! Breakers: a target of whose calls half fail as unavailable is not called with all that waits for it; a few of them cost
//! nothing.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
    time::{Duration, Instant},
};

use super::{
    harness::{Harness, SOURCE, UNAVAILABLE, header, message, record},
    stub::{StubCall, StubTarget, within},
};
use crate::{
    config::Config,
    dispatch::{
        Cause,
        job::{Errand, LeftLanes, Mapping, Redone, Retried, Start},
    },
    model::record::Record,
    storage::{CommitError, Log, OpenRecords, StreamConfig},
};

/// Pauses that outlast every test.
fn long(config: &mut Config) {
    config.dispatch.backoff_ms = 3_600_000;
    config.dispatch.backoff_ms_max = 3_600_000;
    config.dispatch.in_flight_max = 8;
}

/// Pauses that are over at once.
fn short(config: &mut Config) {
    config.dispatch.backoff_ms = 1;
    config.dispatch.backoff_ms_max = 1;
    config.dispatch.in_flight_max = 8;
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
    within("the breaker", told).await;
}

async fn much_later() {
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
}

async fn calls(target: &mut StubTarget, len: usize) -> Vec<StubCall> {
    let mut calls = Vec::new();
    for _ in 0..len {
        calls.push(target.next_call().await);
    }
    calls
}

/// Makes five calls fail, which opens the breaker.
async fn open(gateway: &Harness, target: &mut StubTarget) {
    gateway.append(SOURCE, 0, records(target.address, 5)).await;
    for call in calls(target, 5).await {
        call.answer(502);
    }
    until_closed(gateway, true).await;
}

#[tokio::test]
async fn a_target_of_whose_calls_half_are_unavailable_keeps_its_backlog() {
    for (status, headers, set) in [
        (503, &[][..], long as fn(&mut Config)),
        (502, &[], long),
        (504, &[], long),
        // The target's `Retry-After` is longer than our pause.
        (502, &[("retry-after", "3600")], short),
        // It is no less than our pause.
        (502, &[("retry-after", "0")], long),
    ] {
        let mut target = StubTarget::start().await;
        let gateway = Harness::start(set).await;
        gateway.append(SOURCE, 0, records(target.address, 30)).await;
        let mut held = calls(&mut target, 8).await;
        for call in held.drain(..4) {
            call.answer(status);
        }
        // Four are no evidence yet.
        gateway.record_at(UNAVAILABLE, 3).await;
        assert!(!gateway.dispatcher.targets()[0].is_closed);
        held.remove(0).answer_with(status, headers, "");
        until_closed(&gateway, true).await;
        much_later().await;
        // Calls that began before are no evidence now.
        held.extend(std::iter::from_fn(|| target.waiting_call()));
        let others = held.len() as u64;
        for other in held {
            other.answer(200);
        }
        within("the ends of what was called", async {
            while gateway.counts(SOURCE).delivered < others {
                tokio::task::yield_now().await;
            }
        })
        .await;
        much_later().await;
        assert!(target.waiting_call().is_none(), "{status}");
        let ended = gateway.counts(SOURCE);
        assert!(
            ended.routed == 5 && ended.open_len() >= 17,
            "{status}: {ended:?}"
        );
    }
}

#[tokio::test]
async fn a_target_that_is_gone_costs_what_was_under_way_and_not_the_backlog() {
    let gone: SocketAddr = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let gateway = Harness::start(long).await;
    gateway.append(SOURCE, 0, records(gone, 40)).await;
    until_closed(&gateway, true).await;
    gateway.record_at(UNAVAILABLE, 4).await;
    much_later().await;
    let lost = gateway.counts(SOURCE).routed;
    assert!((5..=12).contains(&lost), "{lost}");
}

#[tokio::test]
async fn a_target_that_closes_fresh_connections_is_unavailable() {
    let target = super::stub::raw_target(|mut stream| async move {
        super::stub::read_head(&mut stream).await;
    })
    .await;
    let gateway = Harness::start(long).await;
    gateway.append(SOURCE, 0, records(target, 40)).await;
    until_closed(&gateway, true).await;
    gateway.record_at(UNAVAILABLE, 4).await;
    much_later().await;
    let lost = gateway.counts(SOURCE).routed;
    assert!((5..=12).contains(&lost), "{lost}");
}

#[tokio::test]
async fn a_target_that_refuses_the_handshake_is_unavailable() {
    let target = super::stub::raw_target(|mut stream| async move {
        drop(stream.read(&mut [0; 4_096]).await);
        // An alert: handshake_failure.
        drop(stream.write_all(&[21, 3, 3, 0, 2, 2, 40]).await);
    })
    .await;
    let gateway = Harness::start(long).await;
    let mut message = message(target, "/x");
    message["targetRestApi"] = format!("https://{target}/x").into();
    let records = vec![record("", &message, &[]); 40];
    gateway.append(SOURCE, 0, records).await;
    until_closed(&gateway, true).await;
    let failed = gateway.record_at(UNAVAILABLE, 4).await;
    assert_eq!(header(&failed, "cause-class"), "tls");
    much_later().await;
    let lost = gateway.counts(SOURCE).routed;
    assert!((5..=12).contains(&lost), "{lost}");
}

#[tokio::test]
async fn a_few_unavailable_calls_and_failures_of_records_open_nothing() {
    for (status, headers) in [
        (503, &[][..]),
        (500, &[("retry-after", "3600")]),
        (502, &[]),
    ] {
        let mut target = StubTarget::start().await;
        let gateway = Harness::start(long).await;
        gateway
            .append(SOURCE, 0, records(target.address, 300))
            .await;
        for at in 0..300 {
            let call = target.next_call().await;
            match at % 10 {
                3 => call.answer_with(status, headers, ""),
                _ => call.answer(200),
            }
        }
        let ended = gateway.settled().await;
        assert_eq!((ended.delivered, ended.routed), (270, 30), "{status}");
    }
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(long).await;
    gateway.append(SOURCE, 0, records(target.address, 50)).await;
    for _ in 0..50 {
        target.next_call().await.answer(500);
    }
    assert_eq!(gateway.settled().await.routed, 50);
}

#[tokio::test]
async fn after_the_pause_one_call_probes_and_slots_grow_with_its_answers() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(short).await;
    open(&gateway, &mut target).await;
    gateway.append(SOURCE, 0, records(target.address, 24)).await;
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
    for slots in [2, 4, 8] {
        let together = calls(&mut target, slots).await;
        much_later().await;
        assert!(target.waiting_call().is_none(), "{slots} at a time");
        assert!(!gateway.dispatcher.targets()[0].is_closed);
        for call in together {
            call.answer(200);
        }
    }
    for _ in 14..20 {
        target.next_call().await.answer(200);
    }
    let ended = gateway.settled().await;
    assert_eq!((ended.delivered, ended.routed), (20, 9), "{ended:?}");
}

#[tokio::test]
async fn the_breaker_opens_before_the_ends_of_its_evidence_are_stored() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(long).await;
    let source = gateway.stream(SOURCE);
    let grown = gateway
        .engine
        .change_stream(source.id, 2, source.config.clone(), None);
    grown.await.unwrap();
    // No error stream has this partition, so that no failure can be stored.
    gateway.append(SOURCE, 1, records(target.address, 20)).await;
    let held = calls(&mut target, 8).await;
    for call in held {
        call.answer(503);
    }
    until_closed(&gateway, true).await;
    let of = gateway.partition(SOURCE, 1);
    let ended = gateway.engine.status(of).unwrap().counts;
    assert_eq!(ended.open_len(), 20, "{ended:?}");
    assert!(target.waiting_call().is_none());
}

#[tokio::test]
async fn an_end_that_was_refused_is_offered_again_while_the_breaker_is_open() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(long).await;
    gateway.sync("k", &message(target.address, "/k")).await;
    let call = target.next_call().await;
    open(&gateway, &mut target).await;
    gateway.record_at(UNAVAILABLE, 4).await;
    // The first time it travels with others.
    for error in [
        CommitError::Busy,
        CommitError::StateConflict { key: "k".into() },
    ] {
        gateway.engine.ends().refuse(error);
    }
    call.answer(200);
    let ended = gateway.settled().await;
    assert_eq!((ended.delivered, ended.routed), (1, 5));
    assert_eq!(gateway.stats.lost_ends.get(), 1);
    assert!(gateway.dispatcher.targets()[0].is_closed);
}

#[tokio::test]
async fn a_probe_that_nobody_wants_any_more_leaves_it_to_the_next_record() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|config| {
        config.dispatch.backoff_ms = 2_000;
        config.dispatch.backoff_ms_max = 2_000;
    })
    .await;
    open(&gateway, &mut target).await;
    gateway.append(SOURCE, 0, records(target.address, 1)).await;
    within("the record to wait for the pause to be over", async {
        while gateway.dispatcher.targets()[0].queued_len == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // It would probe first, but its stream is deleted by then.
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

/// Gives a failed record to its queue as a retry does.
async fn retry(gateway: &Harness, offset: u64) -> (Start, oneshot::Receiver<Redone>) {
    let stored = gateway.record_at(UNAVAILABLE, offset).await;
    let (answer, answered) = oneshot::channel();
    let start = Start::default();
    let errand = Errand::Retry(Retried {
        stream: gateway.stream(UNAVAILABLE),
        mapping: Arc::new(Mapping {
            streams: None,
            retries_max: 20,
            left_lanes: LeftLanes::default(),
        }),
        ends: None,
        start: start.clone(),
        pace: None,
        waiting: None,
        commit_by: Instant::now() + Duration::from_secs(20),
        answer,
    });
    let of = gateway.partition(UNAVAILABLE, 0);
    let shared = &gateway.dispatcher.shared;
    let target = shared.target_of(&stored.record);
    let job = shared.job(of, &stored, target, errand);
    shared.enqueue(Box::new(job)).await;
    (start, answered)
}

#[tokio::test]
async fn an_answer_to_a_retry_that_asks_for_later_opens_the_breaker_and_what_is_taken_back_leaves_its_queue()
 {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|config| {
        long(config);
        config.dispatch.in_flight_max = 2;
    })
    .await;
    // Three of one key, and one of another.
    for key in ["k", "k", "k", "l"] {
        let failed = record(key, &message(target.address, "/retried"), &[]);
        gateway.append(UNAVAILABLE, 0, vec![failed]).await;
    }
    let shared = &gateway.dispatcher.shared;
    let stored = gateway.record_at(UNAVAILABLE, 0).await;
    let id = shared.target_of(&stored.record).unwrap();
    assert_eq!(shared.open_until(&id), None);
    let mut given = Vec::new();
    for offset in [0, 1, 2, 3] {
        given.push(retry(&gateway, offset).await);
    }
    // Two are called, the others wait behind the first in its lane, and a first dispatch behind them.
    let mut called = calls(&mut target, 2).await;
    gateway.sync("k", &message(target.address, "/first")).await;
    let waiting = async |len| {
        within("what waits on the queue", async {
            while gateway.dispatcher.targets()[0].queued_len != len {
                tokio::task::yield_now().await;
            }
        })
        .await;
    };
    waiting(3).await;
    let (_, refused) = given.remove(0);
    called
        .remove(0)
        .answer_with(429, &[("retry-after", "60")], "");
    let redone = within("the answer", refused).await.unwrap();
    let cause = Cause::Status(429);
    assert!(
        matches!(redone, Redone::LeftOpen { cause: told } if told == cause),
        "{redone:?}"
    );
    let until = shared.open_until(&id).unwrap();
    assert!(until > Instant::now() + Duration::from_secs(50));
    for (start, _) in &given[..2] {
        assert!(start.withdraw(), "no call begins");
    }
    shared.sweep(&id);
    waiting(1).await;
    for (_, answered) in given.drain(..2) {
        assert!(within("the queue to let go", answered).await.is_err());
    }
    // It had begun before.
    let (start, answered) = given.remove(0);
    assert!(!start.withdraw());
    shared.sweep(&id);
    called.remove(0).answer(200);
    let redone = within("the answer", answered).await.unwrap();
    assert!(
        matches!(redone, Redone::Delivered { status: 200 }),
        "{redone:?}"
    );
    assert!(target.waiting_call().is_none());
}
