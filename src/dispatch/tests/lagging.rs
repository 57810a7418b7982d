//! Targets whose queue is full: the others go on, and nothing is lost, passed or called twice.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use serde_json::json;
use tempfile::TempDir;

use super::{
    harness::{Harness, SOURCE, message, record},
    stub::{StubTarget, within},
};
use crate::{config::Config, model::record::Record, storage::Log};

/// Room for four records a target, and two calls.
fn narrow(config: &mut Config) {
    config.dispatch.queue_len_max = 4;
    config.dispatch.in_flight_max = 2;
}

/// As many records for each target, in turn.
fn in_turn(targets: &[&StubTarget], each: usize) -> Vec<Record> {
    let all = (0..each).flat_map(|at| {
        targets
            .iter()
            .map(move |target| record("k", &message(target.address, &format!("/{at}")), &[]))
    });
    all.collect()
}

/// Takes calls that have to come in this order.
async fn answer_in_order(target: &mut StubTarget, paths: impl Iterator<Item = usize>) {
    for at in paths {
        let call = target.next_call().await;
        assert_eq!(call.path, format!("/{at}"));
        call.answer(200);
    }
}

#[tokio::test]
async fn a_target_that_hangs_holds_up_no_other_of_its_partition() {
    let (mut hanging, mut live) = (StubTarget::start().await, StubTarget::start().await);
    let gateway = Harness::start(narrow).await;
    gateway
        .append(SOURCE, 0, in_turn(&[&hanging, &live], 300))
        .await;
    let held = hanging.next_call().await;
    answer_in_order(&mut live, 0..300).await;
    // What comes later finds its way too.
    gateway
        .append(SOURCE, 0, in_turn(&[&live, &hanging], 1))
        .await;
    answer_in_order(&mut live, 0..1).await;
    assert!(hanging.waiting_call().is_none(), "one call of a key");
    held.answer(200);
    answer_in_order(&mut hanging, (1..300).chain(0..1)).await;
    assert_eq!(gateway.settled().await.delivered, 602);
    assert!(hanging.waiting_call().is_none() && live.waiting_call().is_none());
}

/// A page has four of these records, so it ends while the queue has little room but was not full.
#[tokio::test]
async fn a_page_that_fits_is_not_the_last() {
    let target = StubTarget::always(200).await;
    let gateway = Harness::start(|config| {
        config.dispatch.queue_len_max = 20;
        config.dispatch.in_flight_max = 1;
    })
    .await;
    let mut large = message(target, "/x");
    large["targetRestApiPayload"] = "x".repeat(60_000).into();
    let records = (0..20).map(|_| record("", &large, &[])).collect::<Vec<_>>();
    for _ in 0..6 {
        gateway.append(SOURCE, 0, records.clone()).await;
    }
    assert_eq!(gateway.settled().await.delivered, 120);
}

#[tokio::test]
async fn after_a_restart_the_others_do_not_wait_either() {
    let (mut hanging, mut live) = (StubTarget::start().await, StubTarget::start().await);
    let gateway = Harness::start(|config| {
        narrow(config);
        config.dispatch.attempt_timeout_ms = 600_000;
    })
    .await;
    gateway
        .append(SOURCE, 0, in_turn(&[&hanging, &live], 50))
        .await;
    let held = hanging.next_call().await;
    answer_in_order(&mut live, 0..50).await;
    gateway
        .append(SOURCE, 0, in_turn(&[&hanging, &live], 1))
        .await;
    answer_in_order(&mut live, 0..1).await;
    // The one in flight is answered while the gateway stops.
    held.answer(200);
    let dir = gateway.stop().await;
    while hanging.waiting_call().is_some() {}

    let gateway = Harness::start_in(dir, 1, narrow).await;
    let held = hanging.next_call().await;
    gateway.append(SOURCE, 0, in_turn(&[&live], 1)).await;
    answer_in_order(&mut live, 0..1).await;
    let first = held.path.clone();
    held.answer(200);
    let first: usize = first.trim_start_matches('/').parse().unwrap();
    answer_in_order(&mut hanging, (first + 1..50).chain(0..1)).await;
    assert_eq!(gateway.settled().await.delivered, 103);
}

#[tokio::test]
async fn when_more_are_behind_than_may_be_the_partition_waits_and_goes_on() {
    let mut targets = [
        StubTarget::start().await,
        StubTarget::start().await,
        StubTarget::start().await,
    ];
    // One has a queue of its own, one may be lagging; the other two share a queue.
    let gateway = Harness::start(|config| {
        narrow(config);
        config.dispatch.targets_max = 1;
    })
    .await;
    let [a, b, c] = &mut targets;
    let mut records = in_turn(&[a], 10);
    records.extend(in_turn(&[a, b, c], 40));
    gateway.append(SOURCE, 0, records).await;
    let others = async {
        // Meanwhile the first one, which is lagging, comes up to where the scanner waits for the others.
        for _ in 0..2_000 {
            tokio::task::yield_now().await;
        }
        tokio::join!(answer_in_order(b, 0..40), answer_in_order(c, 0..40))
    };
    tokio::join!(answer_in_order(a, (0..10).chain(0..37)), others);
    answer_in_order(a, 37..40).await;
    assert_eq!(gateway.settled().await.delivered, 130);
    for target in [a, b, c] {
        assert!(target.waiting_call().is_none(), "nothing is called twice");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lanes_keep_their_order_whoever_is_behind() {
    const KEYS: usize = 7;
    const RECORDS: usize = 3_000;
    let seen = Arc::new(Mutex::new(HashMap::<_, Vec<usize>>::new()));
    let mut addresses = Vec::new();
    let mut answering = Vec::new();
    for number in 0..3 {
        let mut target = StubTarget::start().await;
        addresses.push(target.address);
        let seen = seen.clone();
        answering.push(async move {
            loop {
                let call = target.next_call().await;
                let mut parts = call.path.split('/').skip(1);
                let (key, at) = (parts.next().unwrap(), parts.next().unwrap());
                let lane = (number, key.to_owned());
                let at = at.parse().unwrap();
                seen.lock().unwrap().entry(lane).or_default().push(at);
                // The slower ones fall behind.
                for _ in 0..number * 20 {
                    tokio::task::yield_now().await;
                }
                call.answer(200);
            }
        });
    }
    let gateway = Harness::start_in(TempDir::new().unwrap(), 1, narrow).await;
    let records = (0..RECORDS).map(|at| {
        let (target, key) = (at * 7 % 11 % 3, at * 5 % KEYS);
        let url = format!("http://{}/{key}/{at}", addresses[target]);
        let message = json!({"targetRestApi": url, "targetRestApiOperation": "PUT"});
        record(&key.to_string(), &message, &[])
    });
    let records: Vec<_> = records.collect();
    let appended = async {
        for some in records.chunks(100) {
            gateway.append(SOURCE, 0, some.to_vec()).await;
        }
        gateway.settled().await
    };
    let answering = futures_util::future::join_all(answering);
    let settled = within("the end", async {
        tokio::select! {
            settled = appended => settled,
            _ = answering => unreachable!("targets answer for ever"),
        }
    });
    assert_eq!(settled.await.delivered, RECORDS as u64);
    let seen = seen.lock().unwrap();
    assert_eq!(seen.values().map(Vec::len).sum::<usize>(), RECORDS);
    for (lane, calls) in &*seen {
        assert!(calls.is_sorted(), "{lane:?}: {calls:?}");
    }
    let of = gateway.partition(SOURCE, 0);
    assert_eq!(gateway.engine.status(of).unwrap().counts.open_len(), 0);
}
