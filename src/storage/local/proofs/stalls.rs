//! A disk that hangs.

use std::time::Instant;

use futures_util::poll;

use super::{
    faults::{filled, one},
    rig::Rig,
};
use crate::{
    model::ids::Offset,
    storage::{
        CommitError, Health, Log, NewSettlement,
        conformance::{eventually, in_time, settle, stored},
        embedded::Embedded,
        local::{OpenError, write::condition::STALL},
    },
};

fn health(engine: &Embedded) -> Health {
    engine.health().borrow().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_does_not_answer_is_told_until_it_does() {
    let rig = Rig::new();
    let (engine, of) = filled(&rig, 1).await;
    let look = || engine.shared.condition.look(Instant::now() + STALL);
    look();
    assert_eq!(health(&engine), Health::Running, "nobody waits for it");

    let held = rig.disk.hold_syncs();
    let looked = async {
        rig.disk.sync_is_held().await;
        assert_eq!(health(&engine), Health::Running, "it may still answer");
        look();
        assert_eq!(health(&engine), Health::DiskStalled);
        let refused = engine.commit(one(of, 2, 10)).await;
        assert!(matches!(refused, Err(CommitError::Busy)), "{refused:?}");
        let refused = engine.settle_soon(settle(of, 0, NewSettlement::Delivered));
        assert!(matches!(refused, Err(CommitError::Busy)), "{refused:?}");
        held.release();
    };
    let (committed, ()) =
        in_time(async { tokio::join!(engine.commit(one(of, 1, 10)), looked) }).await;
    committed.unwrap();
    assert_eq!(health(&engine), Health::Running);
    stored(engine.as_ref(), one(of, 2, 10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_that_was_given_up_leaves_the_writer_to_itself() {
    let rig = Rig::new();
    let (engine, of) = filled(&rig, 1).await;
    let held = rig.disk.hold_syncs();
    assert!(poll!(engine.commit(one(of, 1, 10))).is_pending());
    rig.disk.sync_is_held().await;
    assert!(poll!(engine.close()).is_pending());
    in_time(tokio::task::spawn_blocking(move || drop(engine)))
        .await
        .unwrap();

    let error = rig.try_open().unwrap_err();
    assert!(
        matches!(error, OpenError::InUse { .. }),
        "the writer may still write: {error}"
    );
    held.release();
    let mut opened = None;
    eventually("the directory to be free", || {
        opened = rig.try_open().ok();
        opened.is_some()
    })
    .await;
    let engine = opened.unwrap();
    assert_eq!(engine.status(of).unwrap().bounds.tail, Offset(2));
}
