//! A disk that is full, and what is told of it.

use super::{
    faults::{filled, one},
    faulty::Full,
    rig::Rig,
};
use crate::storage::{
    CommitError, Health, Log,
    conformance::{in_time, stored},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_full_until_what_was_refused_would_fit() {
    const LARGE: usize = 20_000;
    let rig = Rig::new();
    let (engine, of) = filled(&rig, 1).await;
    rig.disk.fill(Some(Full::Growth));
    let mut number = 1;
    let refused = loop {
        match engine.commit(one(of, number, LARGE)).await {
            Ok(_) => number += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, CommitError::DiskFull), "{refused}");

    let mut health = engine.health();
    assert_eq!(*health.borrow_and_update(), Health::DiskFull);
    stored(engine.as_ref(), one(of, number, 10)).await;
    assert!(
        !health.has_changed().unwrap(),
        "that a small one finds a place says nothing about the large one"
    );

    rig.disk.fill(None);
    // Nobody commits, and it is found all the same.
    in_time(health.wait_for(|health| *health == Health::Running))
        .await
        .unwrap();
    stored(engine.as_ref(), one(of, number + 1, LARGE)).await;
}
