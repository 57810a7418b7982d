//! Settlements that the log does not take: the record waits again, or the next owner reads it again, and no target is
//! called twice without need.

use super::{
    harness::{DEFAULT, Harness, SOURCE, UNAVAILABLE, header, message},
    stub::{StubTarget, until, within},
};
use crate::storage::{CommitError, Log, OpenRecords, State};

fn too_large() -> CommitError {
    CommitError::TooLarge {
        what: "a commit",
        bytes: 2,
        bytes_max: 1,
    }
}

fn conflict() -> CommitError {
    CommitError::StateConflict { key: "k".into() }
}

fn full() -> CommitError {
    CommitError::StateFull {
        kind: "tokens",
        bytes_max: 1,
    }
}

#[tokio::test]
async fn a_record_whose_end_is_refused_waits_in_its_lane_and_ends_without_another_call() {
    for status in [200, 503] {
        let mut target = StubTarget::start().await;
        let gateway = Harness::start(|_| {}).await;
        gateway.sync("k", &message(target.address, "/0")).await;
        let call = target.next_call().await;
        // The one that travels with others, then those that are waited for. However often it is refused, it is one end.
        let lost = 1;
        if status == 200 {
            gateway.engine.ends().refuse(CommitError::Busy);
        }
        for error in [conflict(), full(), too_large(), too_large(), conflict()] {
            gateway.engine.ends().refuse(error);
        }
        gateway.sync("k", &message(target.address, "/1")).await;
        call.answer(status);
        // Its lane waits: the next record of the key is called once the first one is settled.
        let next = target.next_call().await;
        assert_eq!(next.path, "/1");
        assert_eq!(gateway.stats.lost_ends.get(), lost);
        next.answer(200);
        let counts = gateway.settled().await;
        let failed = u64::from(status == 503);
        assert_eq!((counts.delivered, counts.routed), (2 - failed, failed));
        assert_eq!(gateway.stats.lost_ends.get(), lost);
        assert!(target.waiting_call().is_none());
        if failed == 1 {
            let record = gateway.record_at(UNAVAILABLE, 0).await;
            assert_eq!(header(&record, "attempts"), "1");
            assert_eq!(header(&record, "cause-status"), "503");
        }
        gateway.stop().await;
    }
}

#[tokio::test]
async fn an_error_record_that_is_too_large_is_stored_without_the_answer() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|_| {}).await;
    for at in 0..2 {
        gateway.sync("k", &message(target.address, "/")).await;
        let call = target.next_call().await;
        if at == 1 {
            gateway.engine.ends().refuse(too_large());
        }
        call.answer_with(503, &[], "please wait");
        gateway.settled().await;
        let record = gateway.record_at(UNAVAILABLE, at).await;
        let body = ["please wait", "-"][usize::try_from(at).unwrap()];
        assert_eq!(header(&record, "cause-body"), body);
        assert_eq!(header(&record, "cause-status"), "503");
    }
    assert_eq!(gateway.stats.lost_ends.get(), 0);
    gateway.stop().await;
}

#[tokio::test]
async fn an_error_stream_that_is_deleted_between_look_up_and_commit_is_stood_in_for() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|_| {}).await;
    gateway.sync("k", &message(target.address, "/")).await;
    let call = target.next_call().await;
    gateway.engine.ends().hold(true);
    call.answer(503);
    until("the end to be on its way", || {
        gateway.engine.ends().held_len() == 1
    })
    .await;
    let gone = gateway.stream(UNAVAILABLE);
    let gone = gateway
        .engine
        .delete_stream(gone.id, None, OpenRecords::Refuse);
    gone.await.unwrap();
    gateway.engine.ends().hold(false);
    let counts = gateway.settled().await;
    assert_eq!(counts.routed, 1);
    let record = gateway.record_at(DEFAULT, 0).await;
    assert_eq!(header(&record, "cause-status"), "503");
    assert_eq!(gateway.stats.lost_ends.get(), 0);
    assert!(target.waiting_call().is_none());
    gateway.stop().await;
}

#[tokio::test]
async fn an_end_that_was_lost_is_not_in_the_checkpoint() {
    // One target hangs, so that there is a checkpoint; the other one's end is lost.
    let (mut hanging, mut lost) = (StubTarget::start().await, StubTarget::start().await);
    let narrow = |config: &mut crate::config::Config| {
        config.dispatch.queue_len_max = 1;
        config.dispatch.in_flight_max = 1;
        config.server.grace_ms = 100;
    };
    let gateway = Harness::start(narrow).await;
    for _ in 0..4 {
        gateway.sync("h", &message(hanging.address, "/")).await;
    }
    let held = hanging.next_call().await;
    let key = format!("behind/{}", gateway.partition(SOURCE, 0));
    within("a checkpoint", async {
        while gateway.engine.get(&key).await.is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let at = gateway.sync("l", &message(lost.address, "/lost")).await;
    let call = lost.next_call().await;
    let of = gateway.partition(SOURCE, 0);
    gateway.engine.ends().refuse(CommitError::Fenced(of));
    call.answer(200);
    until("the lost end", || gateway.stats.lost_ends.get() == 1).await;
    let dir = gateway.stop().await;
    drop(held);

    let gateway = Harness::start_in(dir, 1, narrow).await;
    let stored = gateway.engine.get(&key).await.unwrap();
    let stored: serde_json::Value = serde_json::from_slice(&stored.value).unwrap();
    // Below `scanned` only records of the named targets are open.
    let name = format!("http://{}", lost.address);
    let behind = stored["behind"].as_array().unwrap();
    let is_named = behind
        .iter()
        .any(|one| one["target"] == *name && one["from"].as_u64() <= Some(at.0));
    assert!(
        is_named || stored["scanned"].as_u64() <= Some(at.0),
        "{stored}"
    );
    let again = lost.next_call().await;
    assert_eq!(again.path, "/lost");
    again.answer(200);
    for _ in 0..4 {
        hanging.next_call().await.answer(200);
    }
    assert_eq!(gateway.settled().await.delivered, 5);
    gateway.stop().await;
}

/// Its call is made already; without the settlement it would be repeated after the start.
#[tokio::test]
async fn an_end_that_waits_for_a_busy_log_is_stored_while_the_gateway_stops() {
    let cases: [(u16, fn() -> CommitError); 3] = [
        (200, || CommitError::Busy),
        (503, || CommitError::Busy),
        // A disk may stay full for longer than a stop may take.
        (503, || CommitError::DiskFull),
    ];
    for (status, error) in cases {
        let mut target = StubTarget::start().await;
        let gateway = Harness::start(|_| {}).await;
        let stats = gateway.stats.clone();
        gateway.sync("k", &message(target.address, "/")).await;
        let call = target.next_call().await;
        let ends = gateway.engine.ends();
        if status == 200 {
            // The one that travels with others.
            ends.refuse(CommitError::Busy);
        }
        ends.hold(true);
        call.answer(status);
        until("the end to be on its way", || ends.held_len() == 1).await;
        gateway.stop.cancel();
        for _ in 0..3 {
            ends.refuse(error());
        }
        ends.hold(false);
        let dir = gateway.stop().await;
        let is_lost = matches!(error(), CommitError::DiskFull);
        assert_eq!(stats.lost_ends.get(), u64::from(is_lost), "{status}");

        let gateway = Harness::start_in(dir, 1, |_| {}).await;
        if is_lost {
            target.next_call().await.answer(status);
        }
        let counts = gateway.settled().await;
        let failed = u64::from(status == 503);
        assert_eq!((counts.delivered, counts.routed), (1 - failed, failed));
        assert!(target.waiting_call().is_none(), "{status}");
        gateway.stop().await;
    }
}
