//! Settings per target, queues of their own and the shared one.

use crate::config::TargetSettings;

use super::{
    harness::{Harness, message},
    stub::{StubTarget, until},
};

#[tokio::test]
async fn targets_beyond_the_bound_share_a_queue_and_idle_queues_go_away() {
    let mut first = StubTarget::start().await;
    let mut others = [StubTarget::start().await, StubTarget::start().await];
    let gateway = Harness::start(|config| {
        config.dispatch.targets_max = 1;
        config.dispatch.in_flight_max = 4;
        config.dispatch.idle_timeout_ms = 50;
    })
    .await;
    gateway.sync("k", &message(first.address, "/x")).await;
    let held = first.next_call().await;
    let mut calls = Vec::new();
    for other in &mut others {
        gateway.sync("k", &message(other.address, "/x")).await;
        calls.push(other.next_call().await);
    }
    let status = gateway.dispatcher.targets();
    let mut seen: Vec<_> = status
        .iter()
        .map(|target| (target.target.clone(), target.in_flight))
        .collect();
    seen.sort();
    assert_eq!(
        seen,
        [("*".into(), 2), (format!("http://{}", first.address), 1)]
    );
    assert!(status.iter().all(|target| target.oldest.is_some()));
    held.answer(200);
    for call in calls {
        call.answer(200);
    }
    assert_eq!(gateway.settled().await.delivered, 3);
    until_queues(&gateway, 1).await;
    gateway.sync("k", &message(others[0].address, "/y")).await;
    others[0].next_call().await.answer(200);
    assert_eq!(gateway.settled().await.delivered, 4);
}

/// Operators still look for a target that was called a moment ago.
#[tokio::test]
async fn a_target_is_shown_with_its_last_failure_after_its_queue_has_gone() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|config| {
        config.dispatch.idle_timeout_ms = 50;
    })
    .await;
    let shown = || {
        let states = gateway.dispatcher.target_states();
        let state = |state: crate::dispatch::TargetState| {
            let cause = state.last_failure.map(|last| last.cause);
            (state.id.to_string(), cause)
        };
        states.into_iter().map(state).collect::<Vec<_>>()
    };
    let name = format!("http://{}", target.address);
    gateway.sync("k", &message(target.address, "/x")).await;
    target.next_call().await.answer(404);
    gateway.settled().await;
    let failed = [(name, Some(crate::dispatch::Cause::Status(404)))];
    until_queues(&gateway, 1).await;
    assert_eq!(shown(), failed);
    // It has a queue again, which has seen no failure, and is shown once.
    gateway.sync("k", &message(target.address, "/y")).await;
    let call = target.next_call().await;
    assert_eq!(shown(), failed);
    call.answer(200);
    gateway.settled().await;
    until_queues(&gateway, 1).await;
    assert_eq!(shown(), failed);
}

/// Opens the breaker of a target, and returns its name.
async fn open(gateway: &Harness, target: &mut StubTarget) -> String {
    for _ in 0..5 {
        gateway.sync("", &message(target.address, "/x")).await;
        target.next_call().await.answer(502);
    }
    let name = format!("http://{}", target.address);
    until("the breaker to open", || is_open(gateway, &name)).await;
    gateway.settled().await;
    name
}

fn is_open(gateway: &Harness, name: &str) -> bool {
    let targets = gateway.dispatcher.targets();
    targets
        .iter()
        .any(|one| one.target == name && one.is_closed)
}

async fn until_queues(gateway: &Harness, len: usize) {
    let queues_len = || gateway.dispatcher.targets().len();
    until("the queues", || queues_len() == len).await;
}

#[tokio::test]
async fn an_open_breaker_outlives_the_idle_time_but_gives_way_to_other_targets() {
    let (mut down, mut fine) = (StubTarget::start().await, StubTarget::start().await);
    let mut others = [StubTarget::start().await, StubTarget::start().await];
    let gateway = Harness::start(|config| {
        config.dispatch.targets_max = 2;
        config.dispatch.in_flight_max = 4;
        config.dispatch.idle_timeout_ms = 50;
        config.dispatch.backoff_ms = 3_600_000;
        config.dispatch.backoff_ms_max = 3_600_000;
    })
    .await;
    let name = open(&gateway, &mut down).await;
    // Its queue is idle for longer than this one, which goes away.
    gateway.sync("k", &message(fine.address, "/x")).await;
    fine.next_call().await.answer(200);
    gateway.settled().await;
    until_queues(&gateway, 2).await;
    assert!(is_open(&gateway, &name));
    // One has room beside it, the other in place of it.
    let mut held = Vec::new();
    for other in &mut others {
        gateway.sync("k", &message(other.address, "/x")).await;
        held.push(other.next_call().await);
    }
    let mut names: Vec<_> = gateway.dispatcher.targets();
    names.sort_by(|one, other| one.target.cmp(&other.target));
    let mut expected = others.map(|other| format!("http://{}", other.address));
    expected.sort();
    let names: Vec<_> = names.into_iter().map(|one| one.target).collect();
    assert_eq!(names[1..], expected, "the shared one is the first");
    for call in held {
        call.answer(200);
    }
    assert_eq!(gateway.settled().await.delivered, 3);
    // What was resting has ended, too.
    until_queues(&gateway, 1).await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_target_stays_on_the_shared_queue_while_a_lane_of_it_is_busy_there() {
    let mut first = StubTarget::start().await;
    let mut other = StubTarget::start().await;
    let gateway = Harness::start(|config| {
        config.dispatch.targets_max = 1;
        config.dispatch.idle_timeout_ms = 50;
    })
    .await;
    gateway.sync("k", &message(first.address, "/x")).await;
    let owner = first.next_call().await;
    gateway.sync("k", &message(other.address, "/1")).await;
    let held = other.next_call().await;
    owner.answer(200);
    until_queues(&gateway, 1).await;
    // There is room for a queue now, but on one the second call of the key would not know of the first.
    gateway.sync("k", &message(other.address, "/2")).await;
    gateway.sync("l", &message(other.address, "/3")).await;
    let third = other.next_call().await;
    assert_eq!(third.body, r#"{"path":"/3"}"#);
    held.answer(200);
    let second = other.next_call().await;
    assert_eq!(second.body, r#"{"path":"/2"}"#);
    second.answer(200);
    third.answer(200);
    assert_eq!(gateway.settled().await.delivered, 4);
    // Now that nothing is busy there, it gets its own.
    gateway.sync("k", &message(other.address, "/4")).await;
    let fourth = other.next_call().await;
    assert_eq!(gateway.dispatcher.targets().len(), 2);
    fourth.answer(200);
    gateway.settled().await;
}

#[tokio::test]
async fn a_targets_own_settings_are_used() {
    let mut target = StubTarget::start().await;
    let own = TargetSettings {
        name: "orders".into(),
        origin: target.url(""),
        path_prefix: None,
        in_flight_max: Some(2),
        rate_per_second: None,
        attempts_max: Some(2),
        connect_timeout_ms: None,
        response_timeout_ms: None,
        attempt_timeout_ms: None,
        body_always: true,
        secret_header: None,
    };
    let gateway = Harness::start(|config| {
        config.targets.push(own);
        config.dispatch.backoff_ms = 1;
    })
    .await;
    let mut delete = message(target.address, "/x");
    delete["targetRestApiOperation"] = "DELETE".into();
    for _ in 0..3 {
        gateway.sync("", &delete).await;
    }
    let held = [target.next_call().await, target.next_call().await];
    assert!(target.waiting_call().is_none(), "two at a time");
    assert_eq!(held[0].body, r#"{"path":"/x"}"#);
    assert_eq!(gateway.dispatcher.targets()[0].target, "orders");
    for call in held {
        call.answer(503);
    }
    for _ in 0..3 {
        target.next_call().await.answer(200);
    }
    assert_eq!(
        gateway.settled().await.delivered,
        3,
        "each is called twice at most"
    );
}
