//! A disk that is full, and what is told of it.

use super::{
    faults::{fault, filled, one},
    faulty::{Call, Crash, ENOSPC, Fault, Full, any, segment},
    rig::{Rig, shut},
};
use crate::{
    place::Offset,
    storage::{
        CommitError, Health, Log,
        conformance::{content::Content, in_time, stored},
        embedded::spare::Spares,
    },
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_space_for_the_name_of_a_new_file_is_a_full_disk() {
    for skip in 0..3 {
        let rig = Rig::new();
        let (engine, of) = filled(&rig, 1).await;
        let mut answered = 1;
        rig.disk.fail(Fault {
            skip,
            times: 2,
            ..fault(Call::SyncDir, |name| name.starts_with("journal"), ENOSPC)
        });
        let mut refused = 0;
        while refused < 2 || answered < 100 {
            match engine.commit(one(of, answered, 3_000)).await {
                Ok(committed) => {
                    assert_eq!(committed.appends[0].first, Offset(answered));
                    answered += 1;
                }
                Err(CommitError::DiskFull) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!((rig.disk.faults_left(), refused), (0, 2));
        let content = Content::of(engine.as_ref()).await;
        rig.disk.crash(Crash::LoseAll);
        shut(engine).await;
        let engine = rig.open();
        content.assert_same(&Content::of(engine.as_ref()).await, "after a crash");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_without_space_for_a_name_reads_and_goes_on_later() {
    for call in [Call::Rename, Call::SyncDir] {
        let rig = Rig::new();
        let (engine, of) = filled(&rig, 1).await;
        shut(engine).await;
        let in_journal = |name: &str| name == "journal" || segment(name);
        rig.disk.fail(fault(call, in_journal, ENOSPC));
        let engine = rig.open();
        assert_eq!(rig.disk.faults_left(), 0);
        assert_eq!(*engine.health().borrow(), Health::DiskFull);
        let files_len = rig.disk.names().len();
        stored(engine.as_ref(), one(of, 1, 1_000)).await;
        assert_eq!(
            rig.disk.names().len(),
            files_len,
            "after {call:?} the file that was made is used"
        );
        let content = Content::of(engine.as_ref()).await;
        rig.disk.crash(Crash::LoseAll);
        shut(engine).await;
        let engine = rig.open();
        content.assert_same(&Content::of(engine.as_ref()).await, "after a crash");
    }
}

#[test]
fn a_file_that_could_not_be_made_ready_takes_no_space() {
    let rig = Rig::new();
    let spares = Spares::open(rig.disk.mount(&rig.dir()), rig.dir().join("spare")).unwrap();
    rig.disk.fail(Fault {
        times: 3,
        ..fault(Call::Rename, any, ENOSPC)
    });
    for _ in 0..3 {
        assert!(spares.prepare(100, || true).is_err());
    }
    assert!(rig.disk.names().is_empty(), "{:?}", rig.disk.names());
    spares.prepare(100, || true).unwrap();
    assert!(spares.is_ready(100));
    assert_eq!(rig.disk.names().len(), 1);
}
