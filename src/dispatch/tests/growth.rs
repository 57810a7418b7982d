//! Streams that grow while records wait: each key keeps its order, and no target waits for another.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Mutex,
};

use tempfile::TempDir;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    harness::{DEFAULT, Harness, INTERNAL, SOURCE, UNAVAILABLE, UNRECOVERABLE, message, record},
    order::Numbers,
    stub::{StubTarget, until, within},
};
use crate::{
    config::Config,
    log::Streams,
    model::record::Record,
    storage::{Append, AppendKind, Commit, Log},
};

fn narrow(config: &mut Config) {
    config.dispatch.queue_len_max = 4;
    config.dispatch.in_flight_max = 2;
    config.dispatch.attempt_timeout_ms = 600_000;
    config.dispatch.response_timeout_ms = 600_000;
    // A call without an answer is cut.
    config.server.grace_ms = 100;
}

/// Gives the source stream more partitions, its error streams first.
async fn grow(gateway: &Harness, partitions: u16) {
    for name in [UNAVAILABLE, INTERNAL, UNRECOVERABLE, DEFAULT, SOURCE] {
        let stream = gateway.stream(name);
        let config = stream.config.clone();
        let grown = gateway
            .engine
            .change_stream(stream.id, partitions, config, None);
        grown.await.unwrap();
    }
}

/// Appends records where their keys belong, all at once.
async fn send(gateway: &Harness, records: impl IntoIterator<Item = Record>) {
    let stream = gateway.stream(SOURCE);
    let mut appends = BTreeMap::<_, Append>::new();
    for record in records {
        let of = gateway.streams.partition_for(&stream, &record.key);
        let append = appends.entry(of.partition).or_insert_with(|| Append {
            of,
            records: Vec::new(),
            kind: AppendKind::Accepted,
            refers: Vec::new(),
        });
        append.records.push(record);
    }
    let commit = Commit {
        appends: appends.into_values().collect(),
        ..Commit::default()
    };
    gateway.engine.commit(commit).await.unwrap();
}

/// Open records of all partitions.
fn open_len(gateway: &Harness) -> u64 {
    let all = gateway.stream(SOURCE).all_partitions();
    all.map(|of| gateway.engine.status(of).unwrap().counts.open_len())
        .sum()
}

async fn all_ended(gateway: &Harness) {
    // Ends of deliveries move no tail that one could wait for.
    until("all records to end", || open_len(gateway) == 0).await;
}

/// Numbers the records of each lane, and checks that its calls come in that order.
#[derive(Default)]
struct Lanes {
    sent: HashMap<String, usize>,
    called: HashMap<String, usize>,
}

impl Lanes {
    /// Returns the next record of a key, of which its target can tell what it is: `/key/number`.
    fn next(&mut self, target: &StubTarget, key: &str) -> Record {
        let number = self.sent.entry(key.to_owned()).or_default();
        let message = message(target.address, &format!("/{key}/{number}"));
        *number += 1;
        record(key, &message, &[])
    }

    /// Takes a call that has to be its key's next.
    #[track_caller]
    fn take(&mut self, path: &str) {
        let (key, number) = path[1..].split_once('/').unwrap();
        let next = self.called.entry(key.to_owned()).or_default();
        assert_eq!(number.parse(), Ok(*next), "of {key}");
        *next += 1;
    }

    /// Answers all that there is to call yet.
    async fn answer_rest(&mut self, target: &mut StubTarget) {
        while self.called != self.sent {
            let call = target.next_call().await;
            self.take(&call.path);
            call.answer(200);
        }
    }
}

/// So many records of each key for each of two targets, in turn.
fn pairs(
    each: usize,
    (lanes, target): (&mut Lanes, &StubTarget),
    (others, other): (&mut Lanes, &StubTarget),
) -> Vec<Record> {
    let keys = (0..each).flat_map(|_| keys());
    keys.flat_map(|key| [lanes.next(target, &key), others.next(other, &key)])
        .collect()
}

fn keys() -> impl Iterator<Item = String> {
    (0..12).map(|key| format!("k{key}"))
}

#[tokio::test]
async fn keys_keep_their_order_over_growth_and_the_live_target_waits_for_none_of_it() {
    let (mut hanging, mut live) = (StubTarget::start().await, StubTarget::start().await);
    let gateway = Harness::start(narrow).await;
    let (mut waiting, mut going) = (Lanes::default(), Lanes::default());
    let mut held = Vec::new();
    for partitions in [1, 2, 3, 7] {
        grow(&gateway, partitions).await;
        let records = pairs(10, (&mut waiting, &hanging), (&mut going, &live));
        send(&gateway, records).await;
        // In old partitions and in new ones.
        going.answer_rest(&mut live).await;
        if held.is_empty() {
            held = vec![hanging.next_call().await, hanging.next_call().await];
        }
    }
    assert!(hanging.waiting_call().is_none(), "it has two slots");
    for call in held {
        waiting.take(&call.path);
        call.answer(200);
    }
    waiting.answer_rest(&mut hanging).await;
    all_ended(&gateway).await;
    assert!(hanging.waiting_call().is_none() && live.waiting_call().is_none());
}

#[tokio::test]
async fn a_restart_forgets_no_barrier_and_makes_nobody_wait_for_another_target() {
    let (mut hanging, mut live) = (StubTarget::start().await, StubTarget::start().await);
    let mut gateway = Harness::start(narrow).await;
    let (mut waiting, mut going) = (Lanes::default(), Lanes::default());
    for partitions in [2, 5, 6] {
        let records = pairs(20, (&mut waiting, &hanging), (&mut going, &live));
        send(&gateway, records).await;
        let held = [hanging.next_call().await, hanging.next_call().await];
        going.answer_rest(&mut live).await;
        grow(&gateway, partitions).await;
        let records = pairs(1, (&mut waiting, &hanging), (&mut going, &live));
        send(&gateway, records).await;
        going.answer_rest(&mut live).await;
        // Their ends are stored while the gateway stops, and nothing else is called.
        for call in held {
            waiting.take(&call.path);
            call.answer(200);
        }
        let dir = gateway.stop().await;
        while let Some(call) = hanging.waiting_call() {
            let (key, _) = call.path[1..].split_once('/').unwrap();
            let key = key.to_owned();
            waiting.take(&call.path);
            // Its answer came too late.
            *waiting.called.get_mut(&key).unwrap() -= 1;
        }
        gateway = Harness::start_in(dir, 1, narrow).await;
        send(&gateway, keys().map(|key| going.next(&live, &key))).await;
        going.answer_rest(&mut live).await;
    }
    waiting.answer_rest(&mut hanging).await;
    all_ended(&gateway).await;
    assert!(hanging.waiting_call().is_none() && live.waiting_call().is_none());
}

#[tokio::test]
async fn at_a_barrier_that_a_start_finds_nobody_waits_for_the_slowest_target() {
    let (mut hanging, mut live) = (StubTarget::start().await, StubTarget::start().await);
    let gateway = Harness::start(narrow).await;
    let mut going = Lanes::default();
    // Of many pages, so that it is long before all of it was looked at again.
    let mut large = message(hanging.address, "/x");
    large["targetRestApiPayload"] = "x".repeat(60_000).into();
    let large = (0..40).map(|at| record(&format!("large{at}"), &large, &[]));
    send(&gateway, large).await;
    send(&gateway, keys().map(|key| going.next(&live, &key))).await;
    going.answer_rest(&mut live).await;
    let _held = hanging.next_call().await;
    grow(&gateway, 2).await;
    let dir = gateway.stop().await;
    let gateway = Harness::start_in(dir, 1, narrow).await;
    send(&gateway, keys().map(|key| going.next(&live, &key))).await;
    going.answer_rest(&mut live).await;
}

#[tokio::test]
async fn a_key_that_is_behind_holds_up_no_other_key_that_has_moved() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|config| {
        narrow(config);
        config.dispatch.queue_len_max = 8;
    })
    .await;
    let mut lanes = Lanes::default();
    let mut hot = Vec::new();
    // A key that has the most, and that a growth moves.
    let moves = |key: &String| Streams::partition_of(key.as_bytes(), 2).0 == 1;
    let moving: Vec<_> = (0..)
        .map(|at| format!("m{at}"))
        .filter(moves)
        .take(6)
        .collect();
    for _ in 0..100 {
        hot.push(lanes.next(&target, &moving[0]));
    }
    gateway.append(SOURCE, 0, hot).await;
    let held = target.next_call().await;
    grow(&gateway, 2).await;
    send(&gateway, [lanes.next(&target, &moving[0])]).await;
    for key in &moving[1..] {
        send(&gateway, [lanes.next(&target, key)]).await;
        let call = target.next_call().await;
        lanes.take(&call.path);
        assert_ne!(&call.path[1..3], &moving[0]);
        call.answer(200);
    }
    lanes.take(&held.path);
    held.answer(200);
    lanes.answer_rest(&mut target).await;
    all_ended(&gateway).await;
}

/// How a target answers calls.
#[derive(Clone, Copy)]
enum Manner {
    /// They are answered at once.
    Fast,
    /// They are answered after a while; each fifth fails.
    Fails,
    /// They are answered when all are let go.
    Hangs,
}

const MANNERS: [Manner; 3] = [Manner::Fast, Manner::Fails, Manner::Hangs];

/// What the targets have seen in one life of the gateway.
#[derive(Default)]
struct Seen {
    calls: Mutex<HashMap<(usize, String), Vec<usize>>>,
    called: Notify,
    let_go: CancellationToken,
}

impl Seen {
    async fn answer(&self, number: usize, target: &mut StubTarget) {
        let mut turn = 0;
        loop {
            let call = target.next_call().await;
            let (key, at) = call.path[1..].split_once('/').unwrap();
            let at = at.parse().unwrap();
            let lane = (number, key.to_owned());
            self.calls.lock().unwrap().entry(lane).or_default().push(at);
            self.called.notify_one();
            turn += 1;
            let status = match MANNERS[number] {
                Manner::Fast => 200,
                Manner::Fails => {
                    for _ in 0..turn * 7 % 13 {
                        tokio::task::yield_now().await;
                    }
                    if at % 5 == 0 { 500 } else { 200 }
                }
                Manner::Hangs => {
                    self.let_go.cancelled().await;
                    200
                }
            };
            call.answer(status);
        }
    }

    /// Returns whether these targets have seen all that was sent to them.
    fn has_all(&self, which: &[usize], sent: &HashMap<(usize, String), usize>) -> bool {
        let calls = self.calls.lock().unwrap();
        let mut sent = sent
            .iter()
            .filter(|((number, _), _)| which.contains(number));
        sent.all(|(lane, len)| {
            calls.get(lane).and_then(|calls| calls.iter().max()) == Some(&(len - 1))
        })
    }
}

/// Sends records of random keys to the three targets while the stream grows and the gateway is started again; checks
/// that each lane's calls are in order, none left out and none repeated but those whose end a stop cut off, and that in
/// each life the live targets get all of theirs while the other one hangs.
async fn check_random(seed: u64) {
    println!("seed {seed}");
    let mut numbers = Numbers(seed);
    let keys = 2 + numbers.below(30);
    let queue_len_max = [2, 4, 16, 256][numbers.below(4)];
    let in_flight_max = 1 + u32::try_from(numbers.below(4)).unwrap();
    let set = |config: &mut Config| {
        narrow(config);
        config.dispatch.queue_len_max = queue_len_max;
        config.dispatch.in_flight_max = in_flight_max.try_into().unwrap();
    };
    let mut targets = [
        StubTarget::start().await,
        StubTarget::start().await,
        StubTarget::start().await,
    ];
    let mut sent = HashMap::<(usize, String), usize>::new();
    let mut called = HashMap::<(usize, String), usize>::new();
    let mut partitions = 1;
    let mut dir = TempDir::new().unwrap();
    for life in 0..3 {
        let gateway = Harness::start_in(dir, 1, set).await;
        let addresses = targets.each_ref().map(|target| target.address);
        let seen = Seen::default();
        let numbered = |sent: &mut HashMap<_, _>, lane: (usize, String)| {
            let number = sent.entry(lane.clone()).or_insert(0);
            let path = format!("/{}/{number}", lane.1);
            *number += 1;
            record(&lane.1, &message(addresses[lane.0], &path), &[])
        };
        let sending = async {
            for _ in 0..12 {
                if numbers.below(4) == 0 {
                    partitions += 1 + u16::try_from(numbers.below(3)).unwrap();
                    grow(&gateway, partitions).await;
                }
                let some = (0..40).map(|at| (at % 3, format!("k{}", numbers.below(keys))));
                send(
                    &gateway,
                    some.map(|lane| numbered(&mut sent, lane))
                        .collect::<Vec<_>>(),
                )
                .await;
            }
            // Every lane gets one in each life, so that it can be told when all have come.
            let lanes: Vec<_> = sent.keys().cloned().collect();
            send(
                &gateway,
                lanes.into_iter().map(|lane| numbered(&mut sent, lane)),
            )
            .await;
            within("the live targets", async {
                while !seen.has_all(&[0, 1], &sent) {
                    seen.called.notified().await;
                }
            })
            .await;
            seen.let_go.cancel();
            if life == 2 {
                all_ended(&gateway).await;
            }
            gateway.stop().await
        };
        let answering = targets.iter_mut().enumerate();
        let answering = answering.map(|(number, target)| seen.answer(number, target));
        let answering = futures_util::future::join_all(answering);
        dir = tokio::select! {
            dir = sending => dir,
            _ = answering => unreachable!("targets answer for ever"),
        };
        for (lane, calls) in seen.calls.lock().unwrap().drain() {
            let next = called.entry(lane.clone()).or_default();
            assert!(calls[0] <= *next, "{lane:?} leaves out {next}: {calls:?}");
            let in_order = calls.windows(2).all(|two| two[1] == two[0] + 1);
            assert!(in_order, "{lane:?}: {calls:?}");
            *next = calls[calls.len() - 1] + 1;
        }
    }
    assert_eq!(called, sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_holds_whatever_grows_hangs_fails_and_starts_again() {
    for seed in 0..3 {
        check_random(seed).await;
    }
}
