//! Settings that are replaced while records wait, are called, and end.

use serde_json::json;

use super::{
    harness::{DEFAULT, Harness, SOURCE, UNAVAILABLE, header, message, record},
    stub::{StubCall, StubTarget, within},
};
use crate::{
    config::TargetSettings,
    dispatch::{OutcomeLabel, TargetStatus},
    model::ids::{Partition, PartitionId, Position},
    storage::{Log, Stream, StreamConfig},
};

pub(super) fn named(name: &str, target: &StubTarget) -> TargetSettings {
    TargetSettings {
        name: name.into(),
        origin: target.url(""),
        path_prefix: None,
        in_flight_max: None,
        rate_per_second: None,
        attempts_max: None,
        connect_timeout_ms: None,
        response_timeout_ms: None,
        attempt_timeout_ms: None,
        body_always: false,
        secret_header: None,
    }
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

/// Waits until the first target is as wanted.
async fn until(gateway: &Harness, what: &str, is_so: impl Fn(&TargetStatus) -> bool) {
    let told = async {
        while !gateway.dispatcher.targets().first().is_some_and(&is_so) {
            tokio::task::yield_now().await;
        }
    };
    within(what, told).await;
}

#[tokio::test]
async fn more_slots_are_used_at_once_and_too_many_workers_end() {
    let mut target = StubTarget::start().await;
    let mut gateway = Harness::start(|config| config.dispatch.in_flight_max = 1).await;
    let each = |at| record("", &message(target.address, &format!("/{at}")), &[]);
    let records = (0..40).map(each).collect();
    gateway.append(SOURCE, 0, records).await;
    let mut held = calls(&mut target, 1).await;
    gateway.reload(|config| config.dispatch.in_flight_max = 4);
    held.extend(calls(&mut target, 3).await);
    much_later().await;
    assert!(target.waiting_call().is_none(), "four at a time");

    gateway.reload(|config| config.dispatch.in_flight_max = 2);
    for call in held.drain(..2) {
        call.answer(200);
    }
    much_later().await;
    assert!(target.waiting_call().is_none(), "two are under way already");
    // The other two slots go on to the end.
    for _ in 4..40 {
        held.remove(0).answer(200);
        held.push(target.next_call().await);
        assert!(target.waiting_call().is_none(), "two at a time");
    }
    for call in held {
        call.answer(200);
    }
    assert_eq!(gateway.settled().await.delivered, 40);
    assert_eq!(
        target.connections_len(),
        6,
        "four, and two again for the new settings"
    );
}

#[tokio::test]
async fn idle_workers_that_are_too_many_end_and_those_that_are_missing_come_back() {
    let mut target = StubTarget::start().await;
    let mut gateway = Harness::start(|config| config.dispatch.in_flight_max = 4).await;
    for slots in [4, 1, 3] {
        gateway.reload(|config| config.dispatch.in_flight_max = slots);
        let each = |at| record(&format!("{at}"), &message(target.address, "/x"), &[]);
        gateway.append(SOURCE, 0, (0..4).map(each).collect()).await;
        let mut held = calls(&mut target, slots).await;
        much_later().await;
        assert!(target.waiting_call().is_none(), "{slots}");
        for _ in slots..4 {
            held.remove(0).answer(200);
            held.push(target.next_call().await);
        }
        for call in held {
            call.answer(200);
        }
        gateway.settled().await;
    }
}

#[tokio::test]
async fn nothing_is_lost_or_passed_while_slots_and_queues_change_all_the_time() {
    let mut target = StubTarget::start().await;
    let mut gateway = Harness::start(|_| {}).await;
    let keys = 7;
    let each = |at: usize| {
        let key = format!("k{}", at % keys);
        record(&key, &message(target.address, &format!("/{at}")), &[])
    };
    gateway
        .append(SOURCE, 0, (0..600).map(each).collect())
        .await;
    let mut last = vec![None; keys];
    for at in 0..600 {
        if at % 5 == 0 {
            gateway.reload(|config| {
                config.dispatch.in_flight_max = 1 + at % 4;
                config.dispatch.queue_len_max = 1 + at % 11;
            });
        }
        let call = target.next_call().await;
        let number: usize = call.path[1..].parse().unwrap();
        let before = last[number % keys].replace(number);
        let expected = before.map_or(number % keys, |before| before + keys);
        assert_eq!(number, expected, "in order per key, each once");
        call.answer(200);
    }
    assert_eq!(gateway.settled().await.delivered, 600);
}

#[tokio::test]
async fn a_queue_with_more_room_is_filled_and_one_with_less_keeps_what_it_has() {
    let mut target = StubTarget::start().await;
    let mut gateway = Harness::start(|config| {
        config.dispatch.in_flight_max = 1;
        config.dispatch.queue_len_max = 4;
    })
    .await;
    let each = |at| record("", &message(target.address, &format!("/{at}")), &[]);
    gateway.append(SOURCE, 0, (0..30).map(each).collect()).await;
    let held = target.next_call().await;
    until(&gateway, "a full queue", |target| target.queued_len == 4).await;
    gateway.reload(|config| config.dispatch.queue_len_max = 20);
    until(&gateway, "a queue of more", |target| {
        target.queued_len == 20
    })
    .await;
    gateway.reload(|config| config.dispatch.queue_len_max = 4);
    much_later().await;
    assert_eq!(gateway.dispatcher.targets()[0].queued_len, 20);
    held.answer(200);
    for at in 1..30 {
        let call = target.next_call().await;
        assert_eq!(call.path, format!("/{at}"));
        call.answer(200);
    }
    assert_eq!(gateway.settled().await.delivered, 30);
}

#[tokio::test]
async fn room_for_all_targets_together_can_become_more() {
    let mut target = StubTarget::start().await;
    let mut gateway = Harness::start(|config| {
        config.dispatch.in_flight_max = 1;
        config.dispatch.queues_bytes_max = 10;
    })
    .await;
    let each = |at| record("", &message(target.address, &format!("/{at}")), &[]);
    gateway.append(SOURCE, 0, (0..10).map(each).collect()).await;
    let held = target.next_call().await;
    until(&gateway, "its one record", |target| target.queued_len == 1).await;
    gateway.reload(|config| config.dispatch.queues_bytes_max = 1 << 20);
    until(&gateway, "all of them", |target| target.queued_len == 9).await;
    held.answer(200);
    for call in 1..10 {
        assert_eq!(target.next_call().await.path, format!("/{call}"));
    }
}

#[tokio::test]
async fn waits_are_cut_to_what_they_may_last_now_in_their_order() {
    let mut target = StubTarget::start().await;
    let mut other = StubTarget::start().await;
    let mut late = StubTarget::start().await;
    let mut gateway = Harness::start(|config| {
        config.dispatch.backoff_ms = 3_600_000;
        config.dispatch.backoff_ms_max = 3_600_000;
        config.dispatch.retry_after_ms_max = 3_600_000;
        config.dispatch.attempts_max = 2;
    })
    .await;
    // A record in backoff with no other job that would wake a worker, and a target whose answers ask for a pause.
    gateway.sync("k", &message(target.address, "/1")).await;
    target.next_call().await.answer(500);
    gateway.sync("k", &message(target.address, "/2")).await;
    for at in 0..5 {
        let path = format!("/{at}");
        gateway.sync("", &message(other.address, &path)).await;
        let call = other.next_call().await;
        call.answer_with(502, &[("retry-after", "3600")], "");
    }
    let closed = async {
        let all = || gateway.dispatcher.targets();
        while !all().iter().any(|target| target.is_closed) {
            tokio::task::yield_now().await;
        }
    };
    within("the pause", closed).await;
    gateway.sync("l", &message(other.address, "/5")).await;
    gateway.sync("m", &message(late.address, "/1")).await;
    let begun = late.next_call().await;
    much_later().await;
    assert!(target.waiting_call().is_none() && other.waiting_call().is_none());
    gateway.reload(|config| {
        config.dispatch.backoff_ms = 1;
        config.dispatch.backoff_ms_max = 1;
        config.dispatch.retry_after_ms_max = 1;
    });
    for path in ["/1", "/2"] {
        let call = target.next_call().await;
        assert_eq!(call.path, path, "a record that comes back goes first");
        call.answer(200);
    }
    let mut paths = Vec::new();
    for call in 0..6 {
        let probe = other.next_call().await;
        if call == 0 {
            much_later().await;
            assert!(other.waiting_call().is_none(), "a probe first");
        }
        paths.push(probe.path.clone());
        probe.answer(200);
    }
    paths.sort();
    assert_eq!(paths, ["/0", "/1", "/2", "/3", "/4", "/5"]);
    // Older waits are cut to the new maximum.
    begun.answer_with(503, &[("retry-after", "3600")], "");
    late.next_call().await.answer(200);
    assert_eq!(gateway.settled().await.delivered, 9);
}

#[tokio::test]
async fn a_record_ends_by_the_table_under_which_its_outcome_came_about() {
    let mut target = StubTarget::start().await;
    let mut gateway = Harness::start(|_| {}).await;
    let extra = "Extra".parse().unwrap();
    let extra = gateway
        .engine
        .create_stream(extra, 1, StreamConfig::default());
    let extra = extra.await.unwrap();
    grow(&gateway, &gateway.stream(SOURCE)).await;
    set_418(&mut gateway, "Extra");
    // No error stream has this partition yet, so its end waits while its outcome stands.
    let early = record("a", &message(target.address, "/early"), &[]);
    gateway.append(SOURCE, 1, vec![early]).await;
    target.next_call().await.answer(418);
    gateway.sync("b", &message(target.address, "/during")).await;
    let during = target.next_call().await;
    within("the outcome", async {
        let outcome = OutcomeLabel { outcome: "4xx" };
        let stats = &gateway.dispatcher.shared.stats;
        while stats.attempts.get_or_create(&outcome).get() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    set_418(&mut gateway, "unavailable");
    grow(&gateway, &extra).await;
    let of = PartitionId {
        stream: extra.id,
        partition: Partition(1),
    };
    let mut failed = gateway.streams.cursor(of, Position::Earliest).unwrap();
    within("its end", failed.ready()).await.unwrap();
    // This one began under the old table; what begins now does not.
    during.answer(418);
    let ended = gateway.record_at("Extra", 0).await;
    assert_eq!(header(&ended, "origin-offset"), "0");
    gateway.sync("c", &message(target.address, "/now")).await;
    target.next_call().await.answer(418);
    let ended = gateway.record_at(UNAVAILABLE, 0).await;
    assert_eq!(header(&ended, "origin-offset"), "1");
    set_418(&mut gateway, "delivered");
    gateway.sync("d", &message(target.address, "/taken")).await;
    target.next_call().await.answer(418);
    assert_eq!(gateway.settled().await.delivered, 1);
}

/// Gives a stream a second partition.
async fn grow(gateway: &Harness, stream: &Stream) {
    let config = stream.config.clone();
    let grown = gateway.engine.change_stream(stream.id, 2, config, None);
    grown.await.unwrap();
}

fn set_418(gateway: &mut Harness, stream: &str) {
    gateway.reload(|config| {
        config.outcomes.insert("418".into(), stream.into());
    });
}

#[tokio::test]
async fn an_entry_of_a_target_comes_changes_and_goes_with_the_next_call() {
    let mut target = StubTarget::start().await;
    let mut gateway = Harness::start(|config| config.dispatch.idle_timeout_ms = 50).await;
    let mut delete = message(target.address, "/x");
    delete["targetRestApiOperation"] = "DELETE".into();
    gateway.sync("k", &delete).await;
    let call = target.next_call().await;
    assert_eq!(call.body, "");
    gateway.reload(|config| {
        let mut own = named("orders", &target);
        own.body_always = true;
        config.targets.push(own);
    });
    assert_eq!(gateway.dispatcher.targets()[0].target, "orders");
    call.answer(200);
    gateway.sync("k", &delete).await;
    let call = target.next_call().await;
    assert_eq!(call.body, r#"{"path":"/x"}"#);
    call.answer(200);
    gateway.settled().await;
    until(&gateway, "its workers to end", |target| {
        target.in_flight == 0
    })
    .await;
    gateway.reload(|config| config.targets.clear());
    within("the queue to go", async {
        while gateway.dispatcher.targets().len() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    gateway.sync("k", &delete).await;
    assert_eq!(target.next_call().await.body, "");
}

#[tokio::test]
async fn a_configured_queue_without_workers_goes_with_its_entry() {
    let mut target = StubTarget::start().await;
    let mut gateway = Harness::start(|config| config.dispatch.idle_timeout_ms = 1).await;
    gateway.reload(|config| config.targets.push(named("orders", &target)));
    gateway.sync("k", &message(target.address, "/x")).await;
    target.next_call().await.answer(200);
    gateway.settled().await;
    within("its workers to end", async {
        while !gateway.dispatcher.shared.workers.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(
        gateway.dispatcher.targets().len(),
        2,
        "a configured queue stays"
    );
    gateway.reload(|config| config.targets.clear());
    assert_eq!(gateway.dispatcher.targets().len(), 1);
}

#[tokio::test]
async fn a_target_that_gets_its_entry_while_it_shares_a_queue_keeps_its_order() {
    let mut first = StubTarget::start().await;
    let mut other = StubTarget::start().await;
    let mut gateway = Harness::start(|config| config.dispatch.targets_max = 1).await;
    gateway.sync("k", &message(first.address, "/x")).await;
    let owner = first.next_call().await;
    gateway.sync("k", &message(other.address, "/1")).await;
    let held = other.next_call().await;
    gateway.reload(|config| config.targets.push(named("other", &other)));
    // On a queue of its own the second call of the key would not know of the first.
    gateway.sync("k", &message(other.address, "/2")).await;
    gateway.sync("l", &message(other.address, "/3")).await;
    let third = other.next_call().await;
    assert_eq!(third.path, "/3");
    held.answer(200);
    let second = other.next_call().await;
    assert_eq!(second.path, "/2");
    second.answer(200);
    third.answer(200);
    owner.answer(200);
    gateway.settled().await;
    gateway.sync("k", &message(other.address, "/4")).await;
    other.next_call().await.answer(200);
    gateway.settled().await;
    let names: Vec<_> = gateway
        .dispatcher
        .targets()
        .into_iter()
        .map(|target| target.target)
        .collect();
    assert!(names.contains(&"other".to_owned()), "{names:?}");
}

#[tokio::test]
async fn an_open_connection_is_not_used_under_a_rule_that_forbids_it() {
    let mut target = StubTarget::start().await;
    let mut gateway = Harness::start(|_| {}).await;
    gateway.sync("k", &message(target.address, "/1")).await;
    target.next_call().await.answer(200);
    gateway.settled().await;
    gateway.reload(|config| config.dispatch.loopback_addresses = Some(false));
    gateway.sync("k", &message(target.address, "/2")).await;
    let blocked = gateway.record_at(DEFAULT, 0).await;
    assert_eq!(header(&blocked, "cause-class"), "blocked");
    assert!(target.waiting_call().is_none());
    gateway.reload(|config| config.dispatch.loopback_addresses = None);
    gateway.sync("k", &message(target.address, "/3")).await;
    let call = target.next_call().await;
    assert_eq!(call.body, json!({"path": "/3"}).to_string());
    call.answer(200);
}
