//! Targets that are a part of a host: each has a queue, a breaker and limits of its own, and order holds whatever the
//! prefixes were before.

use tempfile::TempDir;

use super::{
    harness::{Harness, SOURCE, message, record},
    reload::named,
    stub::{StubTarget, within},
};
use crate::{config::TargetSettings, model::record::Record, storage::State};

fn part(name: &str, target: &StubTarget, prefix: &str) -> TargetSettings {
    TargetSettings {
        path_prefix: Some(prefix.into()),
        ..named(name, target)
    }
}

fn keyed(target: &StubTarget, key: &str, path: &str) -> Record {
    record(key, &message(target.address, path), &[])
}

fn names(gateway: &Harness, is_closed: bool) -> Vec<String> {
    let targets = gateway.dispatcher.targets().into_iter();
    let mut names: Vec<_> = targets
        .filter(|target| target.is_closed == is_closed)
        .map(|target| target.target)
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn parts_of_a_host_hold_up_each_other_in_nothing() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|config| {
        config.dispatch.in_flight_max = 1;
        config.dispatch.queue_len_max = 2;
        config.dispatch.backoff_ms = 3_600_000;
        config.dispatch.backoff_ms_max = 3_600_000;
        config.targets.push(part("slow", &target, "/slow"));
        config.targets.push(part("orders", &target, "/orders"));
    })
    .await;
    // The first hangs, with more behind it than its queue takes.
    let slow = |at| keyed(&target, "", &format!("/slow/{at}"));
    gateway.append(SOURCE, 0, (0..20).map(slow).collect()).await;
    let held = target.next_call().await;
    assert_eq!(held.path, "/slow/0");
    let others = ["/orders/1", "/slowly"].map(|path| keyed(&target, "", path));
    gateway.append(SOURCE, 0, others.into()).await;
    let mut paths = Vec::new();
    let mut calls = vec![target.next_call().await, target.next_call().await];
    for call in calls.drain(..) {
        paths.push(call.path.clone());
        call.answer(200);
    }
    paths.sort();
    assert_eq!(paths, ["/orders/1", "/slowly"]);
    // Its breaker is its own too.
    held.answer(502);
    for _ in 1..5 {
        target.next_call().await.answer(502);
    }
    within("the breaker", async {
        while names(&gateway, true).is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(names(&gateway, true), ["slow"]);
    let rest = format!("http://{}", target.address);
    assert_eq!(names(&gateway, false), ["*", &rest, "orders"]);
    let more = ["/orders/2", "/x"].map(|path| keyed(&target, "", path));
    gateway.append(SOURCE, 0, more.into()).await;
    for _ in 0..2 {
        target.next_call().await.answer(200);
    }
}

#[tokio::test]
async fn prefixes_that_come_by_a_reload_wait_for_a_restart_so_that_no_key_is_called_twice_at_once()
{
    let mut target = StubTarget::start().await;
    let mut gateway = Harness::start(|_| {}).await;
    let address = target.address;
    let record = |at| record("k", &message(address, &format!("/orders/{at}")), &[]);
    gateway.append(SOURCE, 0, vec![record(0)]).await;
    let held = target.next_call().await;
    gateway.reload(|config| {
        config.targets.push(part("orders", &target, "/orders"));
        config.targets[0].body_always = true;
    });
    gateway.append(SOURCE, 0, vec![record(1)]).await;
    // Another key passes both.
    let other = keyed(&target, "l", "/orders/2");
    gateway.append(SOURCE, 0, vec![other]).await;
    let call = target.next_call().await;
    assert_eq!(call.path, "/orders/2");
    call.answer(200);
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    assert!(target.waiting_call().is_none(), "the first has not ended");
    held.answer(200);
    let call = target.next_call().await;
    assert_eq!(call.path, "/orders/1");
    call.answer(200);
    assert_eq!(gateway.settled().await.delivered, 3);
}

/// In the first life all keys are of one target, which is lagging; then some are of another one; then all are of one again.
/// At each start more comes for all keys, which must not pass what waits.
#[tokio::test]
async fn order_holds_over_restarts_with_other_prefixes_while_targets_are_behind() {
    const EACH: usize = 60;
    let mut target = StubTarget::start().await;
    let prompt = StubTarget::always(200).await;
    let mut dir = TempDir::new().unwrap();
    let mut next = [0; 2];
    for life in 0..3 {
        let gateway = Harness::start_in(dir, 1, |config| {
            config.dispatch.queue_len_max = 8;
            config.dispatch.in_flight_max = 2;
            if life == 1 {
                config.targets.push(part("a", &target, "/a"));
            }
        })
        .await;
        let records = (EACH * life..EACH * (life + 1)).flat_map(|at| {
            let each = |key| keyed(&target, key, &format!("/{key}/{at}"));
            ["a", "b"].map(each)
        });
        gateway.append(SOURCE, 0, records.collect()).await;
        // What the scanner finds behind all of these is called, so that a checkpoint is stored.
        let last = record("k", &message(prompt, "/last"), &[]);
        gateway.append(SOURCE, 0, vec![last]).await;
        let key = format!("behind/{}", gateway.partition(SOURCE, 0));
        let is_last = life == 2;
        let over = async {
            while gateway.engine.get(&key).await.is_none() && !is_last {
                tokio::task::yield_now().await;
            }
            let wanted = [20, 60, 6 * EACH as u64 + 3][life];
            while gateway.counts(SOURCE).delivered < wanted {
                tokio::task::yield_now().await;
            }
            gateway.stop().await
        };
        let mut calls = Vec::new();
        let answering = async {
            loop {
                let call = target.next_call().await;
                calls.push(call.path.clone());
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                call.answer(200);
            }
        };
        let part = within("a part of the calls", async {
            tokio::select! {
                dir = over => dir,
                () = answering => unreachable!("it answers for ever"),
            }
        });
        // Boxed, as it is large.
        dir = Box::pin(part).await;
        for (which, key) in ["/a/", "/b/"].iter().enumerate() {
            let numbers = calls.iter().filter_map(|path| path.strip_prefix(key));
            let numbers: Vec<usize> = numbers.map(|at| at.parse().unwrap()).collect();
            // A stop may have cut off the end of the last one.
            if let Some(first) = numbers.first() {
                assert!(*first <= next[which], "{life}{key} leaves out: {numbers:?}");
                let in_order = numbers.windows(2).all(|two| two[1] == two[0] + 1);
                assert!(in_order, "{life}{key}: {numbers:?}");
                next[which] = numbers[numbers.len() - 1] + 1;
            }
        }
    }
    assert_eq!(next, [EACH * 3; 2]);
}
