//! Keys that have filled their share of a queue: the other keys of the target go on, order holds, and the log is not read
//! again and again for it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use tempfile::TempDir;

use super::{
    harness::{Harness, SOURCE, message, record},
    stub::{StubTarget, stand_still, until, within},
};
use crate::{config::Config, model::record::Record};

/// A record that its target can tell: `/key/number`.
fn numbered(target: &StubTarget, key: &str, at: usize) -> Record {
    record(key, &message(target.address, &format!("/{key}/{at}")), &[])
}

/// As many of a hot key as of others, in turn.
fn half_hot(target: &StubTarget, each: usize) -> Vec<Record> {
    let pair = |at| {
        let other = format!("other{}", at % 50);
        [
            numbered(target, "hot", at),
            numbered(target, &other, at / 50),
        ]
    };
    (0..each).flat_map(pair).collect()
}

#[tokio::test]
async fn a_key_that_waits_holds_up_no_other_key_of_its_target() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|config| {
        config.dispatch.queue_len_max = 8;
        config.dispatch.in_flight_max = 2;
    })
    .await;
    gateway.append(SOURCE, 0, half_hot(&target, 400)).await;
    let held = target.next_call().await;
    assert_eq!(held.path, "/hot/0");
    for at in 0..400 {
        let call = target.next_call().await;
        assert_eq!(call.path, format!("/other{}/{}", at % 50, at / 50));
        let queued = gateway.dispatcher.targets();
        assert!(queued.iter().all(|one| one.queued_len <= 8), "{queued:?}");
        call.answer(200);
    }
    // What comes now is not called before what waits of its key, and other keys are called at once.
    let late = [numbered(&target, "hot", 400), numbered(&target, "new", 0)];
    gateway.append(SOURCE, 0, late.into()).await;
    let call = target.next_call().await;
    assert_eq!(call.path, "/new/0");
    call.answer(200);
    held.answer(200);
    for at in 1..=400 {
        let call = target.next_call().await;
        assert_eq!(call.path, format!("/hot/{at}"));
        call.answer(200);
    }
    assert_eq!(gateway.settled().await.delivered, 802);
    assert!(target.waiting_call().is_none(), "nothing is called twice");
}

#[tokio::test]
async fn a_lane_with_large_records_is_left_out_by_its_bytes() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|config| {
        config.dispatch.queue_bytes_max = 1 << 20;
        config.dispatch.in_flight_max = 2;
    })
    .await;
    let mut large = message(target.address, "/hot");
    large["targetRestApiPayload"] = "x".repeat(100_000).into();
    let mut records = vec![record("hot", &large, &[]); 30];
    records.push(record("other", &message(target.address, "/other"), &[]));
    gateway.append(SOURCE, 0, records).await;
    let both = [target.next_call().await, target.next_call().await];
    let mut paths = both.each_ref().map(|call| call.path.as_str());
    paths.sort_unstable();
    assert_eq!(paths, ["/hot", "/other"]);
    for call in both {
        call.answer(200);
    }
    for _ in 1..30 {
        target.next_call().await.answer(200);
    }
    assert_eq!(gateway.settled().await.delivered, 31);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_takes_its_last_record_gets_the_next_though_others_fill_all_memory() {
    // Only news of room wakes the owner: its timer for checkpoints, which would wake it too, is never over.
    let _still = stand_still();
    let mut hanging = StubTarget::start().await;
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|config| {
        config.dispatch.in_flight_max = 1;
        config.dispatch.queues_bytes_max = 10;
    })
    .await;
    // One that is called and never answers, and one behind it that takes all memory there is for queues.
    let hang = |at| record("", &message(hanging.address, &format!("/{at}")), &[]);
    gateway.append(SOURCE, 0, vec![hang(0), hang(1)]).await;
    let _held = hanging.next_call().await;
    // So large that a page of the log has one of them: a refusal in the same page would hide what is wanted here.
    let large = |at: usize| {
        let mut large = message(target.address, &format!("/{at}"));
        large["targetRestApiPayload"] = "x".repeat(300_000).into();
        record("", &large, &[])
    };
    for at in 0..6 {
        gateway.append(SOURCE, 0, vec![large(at)]).await;
    }
    for at in 0..6 {
        let call = target.next_call().await;
        assert_eq!(call.path, format!("/{at}"));
        // The owner has put the next record on the queue, and asks for room for the one behind it.
        let wanted = 1 + usize::from(at < 5);
        until("the next record to wait", || {
            let all = gateway.dispatcher.targets().into_iter();
            all.map(|one| one.queued_len).sum::<usize>() == wanted
        })
        .await;
        call.answer(200);
    }
}

/// Dispatches records whose targets answer at once, and returns how often a record was read on average.
async fn reads_per_record(records: impl FnOnce(&StubTarget) -> Vec<Record>) -> f64 {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|config| config.log.segment_bytes = 64 << 20).await;
    let records = records(&target);
    let len = records.len();
    let calls = async {
        let mut next = HashMap::<_, usize>::new();
        for _ in 0..len {
            let call = target.next_call().await;
            let (key, at) = call.path[1..].split_once('/').unwrap();
            let next = next.entry(key.to_owned()).or_default();
            assert_eq!(at.parse(), Ok(*next), "{key}");
            *next += 1;
            call.answer(200);
        }
    };
    let appended = async {
        for some in records.chunks(1_000) {
            gateway.append(SOURCE, 0, some.to_vec()).await;
        }
    };
    tokio::join!(appended, calls);
    let read = gateway.stats.read_records.get();
    gateway.stop().await;
    read as f64 / len as f64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_key_costs_about_one_more_pass_over_the_log() {
    let reads = reads_per_record(|target| half_hot(target, 10_000)).await;
    assert!(reads > 1.5, "it was lagging: {reads}");
    assert!(reads < 5.0, "{reads}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hot_keys_that_are_as_fast_as_each_other_share_what_is_read() {
    let hot = |target: &StubTarget| {
        let record = |at: usize| match at % 2 {
            0 => numbered(target, &format!("hot{}", at / 2 % 8), at / 16),
            _ => numbered(target, &format!("other{}", at / 2), 0),
        };
        (0..20_000).map(record).collect()
    };
    let reads = reads_per_record(hot).await;
    assert!(reads < 7.0, "{reads}");
}

/// Dispatches 2,000 records of `keys` keys, of which the first have the most, to two targets; restarts in the middle; and
/// checks that each lane's calls are in order, none left out and none repeated but those whose end the stop cut off.
async fn check_order(keys: usize, set: fn(&mut Config)) {
    const RECORDS: usize = 2_000;
    let mut targets = [StubTarget::start().await, StubTarget::start().await];
    let mut lens = HashMap::<_, usize>::new();
    let mut records = Vec::new();
    for at in 0..RECORDS {
        let (spread, slow) = (at * 7919 % 1009, at * 31 % 97 % 3 == 0);
        let key = spread * spread / 1009 * keys / 1009;
        let lane = (usize::from(slow), key.to_string());
        let number = lens.entry(lane.clone()).or_default();
        records.push(numbered(&targets[lane.0], &lane.1, *number));
        *number += 1;
    }
    let mut dir = TempDir::new().unwrap();
    let mut called = HashMap::<_, usize>::new();
    for life in 0..3 {
        let gateway = Harness::start_in(dir, 1, set).await;
        if life == 0 {
            for some in records.chunks(100) {
                gateway.append(SOURCE, 0, some.to_vec()).await;
            }
        }
        let seen = Arc::new(Mutex::new(HashMap::<_, Vec<usize>>::new()));
        let answering = targets.iter_mut().enumerate().map(|(number, target)| {
            let seen = seen.clone();
            async move {
                loop {
                    let call = target.next_call().await;
                    let (key, at) = call.path[1..].split_once('/').unwrap();
                    let lane = (number, key.to_owned());
                    let at = at.parse().unwrap();
                    seen.lock().unwrap().entry(lane).or_default().push(at);
                    for _ in 0..number * 20 {
                        tokio::task::yield_now().await;
                    }
                    call.answer(200);
                }
            }
        });
        let some = async {
            let wanted = RECORDS as u64 * (life + 1) / 3;
            while gateway.counts(SOURCE).delivered < wanted {
                tokio::task::yield_now().await;
            }
            Box::pin(gateway.stop()).await
        };
        let answering = futures_util::future::join_all(answering);
        let third = within("a third of the calls", async {
            tokio::select! {
                dir = some => dir,
                _ = answering => unreachable!("targets answer for ever"),
            }
        });
        dir = Box::pin(third).await;
        for (lane, calls) in seen.lock().unwrap().drain() {
            let next = called.entry(lane.clone()).or_default();
            assert!(calls[0] <= *next, "{lane:?} leaves out {next}: {calls:?}");
            let in_order = calls.windows(2).all(|two| two[1] == two[0] + 1);
            assert!(in_order, "{lane:?}: {calls:?}");
            *next = calls[calls.len() - 1] + 1;
        }
    }
    assert_eq!(called, lens);
}

fn queue(len_max: usize, config: &mut Config) {
    config.dispatch.queue_len_max = len_max;
    config.dispatch.in_flight_max = 4;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_holds_when_a_few_keys_have_the_most() {
    Box::pin(check_order(9, |config| queue(16, config))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_holds_when_more_keys_are_behind_than_may_be() {
    Box::pin(check_order(100, |config| queue(128, config))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_holds_on_a_queue_that_targets_share() {
    Box::pin(check_order(9, |config| {
        queue(16, config);
        config.dispatch.targets_max = 1;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_holds_in_the_smallest_queue() {
    Box::pin(check_order(5, |config| queue(2, config))).await;
}
