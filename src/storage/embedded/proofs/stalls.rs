//! A disk that does not answer.

use std::time::Instant;

use super::{
    faults::{filled, one},
    rig::Rig,
};
use crate::storage::{
    Health, Log,
    conformance::in_time,
    embedded::{Embedded, condition::STALL},
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
        held.release();
    };
    let (committed, ()) =
        in_time(async { tokio::join!(engine.commit(one(of, 1, 10)), looked) }).await;
    committed.unwrap();
    assert_eq!(health(&engine), Health::Running);
}
