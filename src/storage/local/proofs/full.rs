//! A full disk, and the health that the log reports.

use super::{
    faults::{fault, filled, one},
    faulty::{Call, Crash, ENOSPC, Fault, Full, any, segment},
    rig::{Rig, shut},
};
use crate::{
    model::ids::{Offset, PartitionId},
    storage::{
        Append, AppendKind, Commit, CommitError, Health, Log, NewSettlement, OpenRecords,
        PurgeNote, StreamError,
        conformance::{append, content::Content, in_time, make, part, record, settle, stored},
        local::{space::spare::Spares, tests::until},
    },
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_full_until_what_was_refused_would_fit() {
    const LARGE: usize = 20_000;
    let rig = Rig::new();
    let (engine, of) = filled(&rig, 1).await;
    until("the reserve", || engine.is_tidy()).await;
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
    assert_eq!(*health.borrow_and_update(), Health::SpaceLow);
    let refused = engine.commit(one(of, number, 10)).await;
    assert!(matches!(refused, Err(CommitError::DiskFull)), "{refused:?}");
    stored(
        engine.as_ref(),
        vec![settle(of, 0, NewSettlement::Delivered)],
    )
    .await;
    assert!(
        !health.has_changed().unwrap(),
        "that an end finds a place says nothing about records"
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
        while rig.disk.faults_left() > 0 || answered < 100 {
            match engine.commit(one(of, answered, 3_000)).await {
                Ok(committed) => {
                    assert_eq!(committed.appends[0].first, Offset(answered));
                    answered += 1;
                }
                Err(CommitError::DiskFull) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
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
        until("the reserve", || engine.is_tidy()).await;
        let files_len = rig.disk.names().len();
        let mut health = engine.health();
        in_time(health.wait_for(|health| *health == Health::Running))
            .await
            .unwrap();
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
    let spares = Spares::open(rig.disk.mount(&rig.dir()), rig.dir().join("spare"), 100).unwrap();
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

/// A failed record's copy, with the end of its origin.
fn failed(of: PartitionId, errors: PartitionId, offset: u64, len: usize) -> Commit {
    let append = append(errors, vec![record(vec![b'x'; len])]);
    Commit {
        appends: vec![Append {
            kind: AppendKind::Routed,
            ..append
        }],
        settles: vec![settle(of, offset, NewSettlement::Routed { append: 0 })],
        ..Commit::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_drains_on_a_full_disk_until_the_reserve_is_low() {
    let rig = Rig::new();
    let (engine, of) = filled(&rig, 1).await;
    let errors = make(engine.as_ref(), "errors", 1).await;
    let errors = part(&errors, 0);
    until("the reserve", || engine.is_tidy()).await;
    rig.disk.fill(Some(Full::Growth));
    let mut backlog = 1;
    while let Ok(stored) = engine.commit(one(of, backlog, 50)).await {
        assert_eq!(stored.appends[0].first, Offset(backlog));
        backlog += 1;
    }
    let mut health = engine.health();
    assert_eq!(*health.borrow_and_update(), Health::SpaceLow);
    let mut drained = 0;
    while *health.borrow_and_update() == Health::SpaceLow {
        // One fails for each that is delivered.
        stored(engine.as_ref(), failed(of, errors, drained, 1_000)).await;
        let end = settle(of, drained + 1, NewSettlement::Delivered);
        stored(engine.as_ref(), vec![end]).await;
        drained += 2;
    }
    assert_eq!(*health.borrow(), Health::DiskFull, "no more calls begin");
    assert!(drained > 40, "{drained}");
    // Those in flight still find a place.
    stored(engine.as_ref(), failed(of, errors, drained, 1_000)).await;
    let before = Content::of(engine.as_ref()).await;
    rig.disk.crash(Crash::LoseAll);
    shut(engine).await;
    let engine = rig.open();
    before.assert_same(&Content::of(engine.as_ref()).await, "after a crash");
    let next = stored(engine.as_ref(), one(of, backlog, 1_000)).await;
    assert_eq!(next.appends[0].first, Offset(backlog));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reserve_is_made_again_when_there_is_space() {
    let rig = Rig::new();
    let (engine, of) = filled(&rig, 1).await;
    let reserved = || {
        rig.disk
            .names()
            .iter()
            .any(|name| name.ends_with(".reserve"))
    };
    until("the reserve", || engine.is_tidy() && reserved()).await;
    rig.disk.fill(Some(Full::Growth));
    let mut backlog = 1;
    while engine.commit(one(of, backlog, 4_000)).await.is_ok() {
        backlog += 1;
    }
    let mut origin = 0;
    while reserved() {
        stored(engine.as_ref(), failed(of, of, origin, 4_000)).await;
        origin += 1;
    }
    rig.disk.fill(None);
    let mut health = engine.health();
    in_time(health.wait_for(|health| *health == Health::Running))
        .await
        .unwrap();
    until("the reserve", reserved).await;
    shut(engine).await;
    let engine = rig.open();
    until("the engine to rest", || engine.is_tidy()).await;
    let reserves = rig.disk.names();
    let reserves = reserves.iter().filter(|name| name.ends_with(".reserve"));
    assert_eq!(reserves.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_from_outside_are_refused_before_the_disk_is_full() {
    let mut rig = Rig::new();
    rig.log.disk_free_bytes_min = 1 << 20;
    let (engine, of) = filled(&rig, 2).await;
    rig.disk.set_free(1 << 20);
    let mut health = engine.health();
    assert_eq!(*health.borrow(), Health::Running);
    rig.disk.set_free((1 << 20) - 1);
    in_time(health.wait_for(|health| *health == Health::SpaceLow))
        .await
        .unwrap();
    let refused = engine.commit(one(of, 2, 10)).await;
    assert!(matches!(refused, Err(CommitError::DiskFull)), "{refused:?}");
    stored(
        engine.as_ref(),
        vec![settle(of, 0, NewSettlement::Delivered)],
    )
    .await;
    engine.trim(of, Offset(1)).await.unwrap();
    rig.disk.set_free(2 << 20);
    in_time(health.wait_for(|health| *health == Health::Running))
        .await
        .unwrap();
    stored(engine.as_ref(), one(of, 2, 10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_finds_a_place_in_the_reserve_and_without_one_changes_nothing() {
    let rig = Rig::new();
    let (engine, of) = filled(&rig, 3).await;
    until("the reserve", || engine.is_tidy()).await;
    let before = Content::of(engine.as_ref()).await;
    let purge = async || {
        let (open, note) = (OpenRecords::Drop, PurgeNote::default());
        in_time(engine.purge_stream(of.stream, open, note)).await
    };
    rig.disk.fill(Some(Full::Everything));
    // An end that finds no place is not waited for.
    let end = settle(of, 1, NewSettlement::Delivered);
    engine.settle_soon(end).unwrap();
    let refused = purge().await;
    assert!(
        matches!(refused, Err(StreamError::Commit(CommitError::DiskFull))),
        "{refused:?}"
    );
    before.assert_same(&Content::of(engine.as_ref()).await, "after a refusal");
    rig.disk.fill(None);
    let mut health = engine.health();
    in_time(health.wait_for(|health| *health == Health::Running))
        .await
        .unwrap();
    let purged = purge().await.unwrap();
    assert_eq!(purged.partitions[0].discarded, 2);
    let counts = engine.status(of).unwrap().counts;
    assert_eq!((counts.delivered, counts.discarded), (1, 2));

    until("the reserve", || engine.is_tidy()).await;
    rig.disk.fill(Some(Full::Growth));
    let mut tail = 3;
    while engine.commit(one(of, tail, 3_000)).await.is_ok() {
        tail += 1;
    }
    let purged = purge().await.unwrap();
    assert_eq!(purged.partitions[0].discarded, tail - 3);
    let before = Content::of(engine.as_ref()).await;
    rig.disk.crash(Crash::LoseAll);
    shut(engine).await;
    let engine = rig.open();
    before.assert_same(&Content::of(engine.as_ref()).await, "after a crash");
}
