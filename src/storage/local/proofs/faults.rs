//! Disk calls that fail: the answers are true, and commits answered before stay stored.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;

use super::{
    crashes::history,
    faulty::{Call, Crash, EIO, ENOSPC, Fault, Full, any, segment},
    model::Seen,
    rig::{Rig, Run, Step, goes_on, shut},
};
use crate::{
    model::ids::{Offset, PartitionId},
    storage::{
        Commit, CommitError, Health, Log, NewSettlement, ReadError, State, StreamConfig,
        StreamError,
        conformance::{
            append, change, content::Content, eventually, in_time, make, part, record, settle,
            stored, stream_name,
        },
        embedded::Embedded,
    },
};

const CRASHES: [Crash; 5] = [
    Crash::LoseAll,
    Crash::Process,
    Crash::Random(1),
    Crash::Random(2),
    Crash::Random(3),
];

fn value(number: u64, size: usize) -> Bytes {
    number
        .to_le_bytes()
        .into_iter()
        .cycle()
        .take(size)
        .collect()
}

pub(super) fn one(of: PartitionId, number: u64, size: usize) -> Commit {
    append(of, vec![record(value(number, size))]).into()
}

async fn one_partition(engine: &Embedded) -> PartitionId {
    part(make(engine, "src", 1).await.as_ref(), 0)
}

/// An engine with `count` records of 1,000 bytes.
pub(super) async fn filled(rig: &Rig, count: u64) -> (Arc<Embedded>, PartitionId) {
    let engine = rig.open();
    let of = one_partition(&engine).await;
    for number in 0..count {
        stored(engine.as_ref(), one(of, number, 1_000)).await;
    }
    (engine, of)
}

pub(super) fn fault(call: Call, file: fn(&str) -> bool, errno: i32) -> Fault {
    Fault {
        call,
        file,
        skip: 0,
        times: 1,
        errno,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_seen_before_it_is_durable() {
    let rig = Rig::new();
    let (engine, of) = filled(&rig, 3).await;
    stored(engine.as_ref(), change("t/a", Some("1"), None)).await;
    let before = Content::of(engine.as_ref()).await;
    let watched = (engine.tail(of).unwrap(), engine.changed("t/"));
    let streams_changed = engine.streams_changed();

    let held = rig.disk.hold_syncs();
    let all = async {
        let mut commit = one(of, 3, 1_000);
        commit.settles = vec![settle(of, 0, NewSettlement::Delivered)];
        commit.state = vec![change("t/a", Some("2"), None)];
        let many = (4..20).map(|number| engine.commit(one(of, number, 10)));
        tokio::join!(
            engine.commit(commit),
            join_all(many),
            engine.create_stream(stream_name("new"), 1, StreamConfig::default()),
            engine.trim(of, Offset(2)),
        )
    };
    let look = async {
        rig.disk.sync_is_held().await;
        engine
            .settle_soon(settle(of, 1, NewSettlement::Delivered))
            .unwrap();
        // Written, not durable: a reader must not see it, for a crash takes it away.
        before.assert_same(&Content::of(engine.as_ref()).await, "before the sync");
        assert!(!watched.0.has_changed().unwrap());
        assert!(!watched.1.has_changed().unwrap());
        assert!(!streams_changed.has_changed().unwrap());
        let crashed = Rig::on(rig.disk.fork());
        crashed.disk.crash(Crash::LoseAll);
        let reopened = crashed.open();
        before.assert_same(&Content::of(reopened.as_ref()).await, "after a crash");
        held.release();
    };
    let ((commit, many, made, trimmed), ()) = in_time(async { tokio::join!(all, look) }).await;
    commit.unwrap();
    assert!(many.iter().all(Result::is_ok));
    made.unwrap();
    trimmed.unwrap();
    assert_eq!(engine.status(of).unwrap().bounds.tail, Offset(20));
    assert_eq!(engine.get("t/a").await.unwrap().value, "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_many_readers_saw_when_the_power_went_off_is_there() {
    for calls in (0..40).step_by(3) {
        let rig = Rig::new();
        let (engine, of) = filled(&rig, 1).await;
        let mut answered = 0;
        rig.disk.power_off_after(calls);
        // Committers in parallel, until the disk is gone.
        for round in 0..30 {
            let commits = (0..4).map(|n| engine.commit(one(of, round * 4 + n, 3_000)));
            let answers = join_all(commits).await;
            answered += answers.iter().filter(|answer| answer.is_ok()).count();
            if answers.iter().any(Result::is_err) {
                break;
            }
        }
        let seen = Seen::of(engine.as_ref()).await;
        rig.disk.crash(Crash::Random(calls));
        shut(engine).await;
        let engine = rig.open();
        let content = Content::of(engine.as_ref()).await;
        seen.assert_kept(&content, &super::model::Model::default());
        let tail = engine.status(of).unwrap().bounds.tail;
        assert!(tail >= Offset(1 + answered as u64), "{tail} of {answered}");
        goes_on(engine.as_ref(), &content).await;
    }
}

/// Fails the disk in the middle of a write with others queued behind it, and looks at what everyone is told.
async fn poison(fault: Fault) {
    let rig = Rig::new();
    let (engine, of) = filled(&rig, 30).await;
    stored(
        engine.as_ref(),
        vec![settle(of, 0, NewSettlement::Delivered)],
    )
    .await;
    let before = Content::of(engine.as_ref()).await;

    let held = rig.disk.hold_syncs();
    let (hit, behind) = in_time(async {
        tokio::join!(engine.commit(one(of, 30, 2_000)), async {
            rig.disk.sync_is_held().await;
            let behind = join_all((31..36).map(|n| engine.commit(one(of, n, 10))));
            let fail = async {
                rig.disk.fail(fault);
                held.release();
            };
            tokio::join!(biased; behind, fail).0
        })
    })
    .await;
    let maybe = match fault.call {
        // The first write was through when the fault came; the next one was hit.
        Call::Write => {
            hit.unwrap();
            for answer in &behind {
                assert!(
                    matches!(
                        answer,
                        Err(CommitError::MaybeStored(_) | CommitError::Stopped(_))
                    ),
                    "{answer:?}"
                );
            }
            behind.len() as u64 + 1
        }
        _ => {
            let error = hit.unwrap_err();
            assert!(matches!(error, CommitError::MaybeStored(_)), "{error}");
            for answer in &behind {
                assert!(matches!(answer, Err(CommitError::Stopped(_))), "{answer:?}");
            }
            1
        }
    };
    let sure = if fault.call == Call::Write { 31 } else { 30 };
    let Health::Stopped(reason) = engine.health().borrow().clone() else {
        panic!("{:?}", engine.health());
    };

    // Nothing is taken any more, and the first reason stays.
    for _ in 0..2 {
        let error = engine.commit(one(of, 99, 10)).await.unwrap_err();
        assert!(
            matches!(&error, CommitError::Stopped(why) if *why == reason),
            "{error} is not {reason}"
        );
    }
    let error = engine.settle_soon(settle(of, 1, NewSettlement::Delivered));
    assert!(matches!(error, Err(CommitError::Stopped(_))), "{error:?}");
    let error = engine.trim(of, Offset(1)).await.unwrap_err();
    assert!(matches!(error, CommitError::Stopped(_)), "{error}");
    let name = stream_name("other");
    let error = engine.create_stream(name, 1, StreamConfig::default()).await;
    assert!(
        matches!(error, Err(StreamError::Commit(CommitError::Stopped(_)))),
        "{error:?}"
    );
    // What was there is still read, and what was hit is not seen.
    let now = Content::of(engine.as_ref()).await;
    assert_eq!(now.streams[0].partitions[0].records.len(), sure);
    if sure == 30 {
        before.assert_same(&now, "after the failure");
    }
    engine.close().await;

    for how in CRASHES {
        let rig = Rig::on(rig.disk.fork());
        rig.disk.crash(how);
        let engine = rig.open();
        let content = Content::of(engine.as_ref()).await;
        let records = &content.streams[0].partitions[0].records;
        let len = records.len();
        assert!(
            (sure..=30 + usize::try_from(maybe).unwrap()).contains(&len),
            "{len} records after {how:?}"
        );
        for (number, stored) in (0..).zip(records) {
            assert!(
                stored
                    .record
                    .value
                    .starts_with(&u64::to_le_bytes(number)[..8])
            );
        }
        assert!(content.streams[0].partitions[0].ended.contains(&0));
        if how == Crash::Process {
            // The system believes that it has written what the failed sync has lost. What is shown now must be there.
            rig.disk.crash(Crash::LoseAll);
            shut(engine).await;
            let engine = rig.open();
            let now = Content::of(engine.as_ref()).await;
            content.assert_same(&now, "after a crash of the machine");
            goes_on(engine.as_ref(), &now).await;
        } else {
            goes_on(engine.as_ref(), &content).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_stops_the_log_and_loses_nothing_that_was_answered() {
    poison(fault(Call::Sync, segment, EIO)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_write_stops_the_log_and_loses_nothing_that_was_answered() {
    poison(fault(Call::Write, segment, EIO)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_and_goes_on_when_there_is_space() {
    let rig = Rig::new();
    let (engine, of) = filled(&rig, 10).await;
    let before = Content::of(engine.as_ref()).await;
    let mut health = engine.health();
    rig.disk.fill(Some(Full::Everything));
    for number in 10..13 {
        let error = engine.commit(one(of, number, 1_000)).await.unwrap_err();
        assert!(matches!(error, CommitError::DiskFull), "{error}");
        before.assert_same(&Content::of(engine.as_ref()).await, "on a full disk");
    }
    in_time(health.wait_for(|health| *health == Health::DiskFull))
        .await
        .unwrap();
    let crashed = Rig::on(rig.disk.fork());
    crashed.disk.crash(Crash::Random(3));
    let reopened = crashed.open();
    before.assert_same(&Content::of(reopened.as_ref()).await, "after a crash");

    rig.disk.fill(None);
    // It may need a moment to try again.
    let mut committed = engine.commit(one(of, 10, 1_000)).await;
    while let Err(CommitError::DiskFull) = committed {
        tokio::task::yield_now().await;
        committed = engine.commit(one(of, 10, 1_000)).await;
    }
    assert_eq!(committed.unwrap().appends[0].first, Offset(10));
    in_time(health.wait_for(|health| *health == Health::Running))
        .await
        .unwrap();
    let content = Content::of(engine.as_ref()).await;
    rig.disk.crash(Crash::LoseAll);
    shut(engine).await;
    let engine = rig.open();
    content.assert_same(&Content::of(engine.as_ref()).await, "at the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_a_full_disk_cut_is_not_there_later() {
    // The bytes that are missing equal those that are there: zeros.
    let value: Vec<u8> = [vec![b'x'; 500], vec![0; 4_000]].concat();
    let mut cut = 0;
    for seed in 0..12 {
        let rig = Rig::new();
        let (engine, of) = filled(&rig, 2).await;
        let before = Content::of(engine.as_ref()).await;
        rig.disk.write_short(seed);
        rig.disk.fail(Fault {
            skip: 1,
            ..fault(Call::Write, segment, ENOSPC)
        });
        let commit = append(of, vec![record(value.clone())]).into();
        if let Err(error) = engine.commit(commit).await {
            assert!(matches!(error, CommitError::DiskFull), "{error}");
            cut += 1;
            rig.disk.crash(CRASHES[cut % CRASHES.len()]);
            shut(engine).await;
            let engine = rig.open();
            let after = Content::of(engine.as_ref()).await;
            before.assert_same(&after, "after a write that was refused");
        }
    }
    assert!(cut > 5, "{cut}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ends_wait_for_space() {
    let rig = Rig::new();
    let (engine, of) = filled(&rig, 4).await;
    rig.disk.fill(Some(Full::Everything));
    engine
        .settle_soon(settle(of, 1, NewSettlement::Delivered))
        .unwrap();
    let error = engine.commit(one(of, 4, 10)).await.unwrap_err();
    assert!(matches!(error, CommitError::DiskFull), "{error}");
    engine
        .settle_soon(settle(of, 0, NewSettlement::Delivered))
        .unwrap();
    assert_eq!(engine.status(of).unwrap().low_mark, Offset(0));
    rig.disk.fill(None);
    eventually("both ends", || {
        engine.status(of).unwrap().low_mark == Offset(2)
    })
    .await;
    rig.disk.crash(Crash::LoseAll);
    shut(engine).await;
    assert_eq!(rig.open().status(of).unwrap().counts.delivered, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_cannot_grow_takes_what_fits_and_goes_on_later() {
    let rig = Rig::new();
    let (engine, of) = filled(&rig, 2).await;
    rig.disk.fill(Some(Full::Growth));
    let mut number = 2;
    let mut refusals = 0;
    while refusals < 3 {
        match engine.commit(one(of, number, 4_000)).await {
            Ok(committed) => {
                assert_eq!(refusals, 0, "space out of nothing");
                assert_eq!(committed.appends[0].first, Offset(number));
                number += 1;
            }
            Err(CommitError::DiskFull) => refusals += 1,
            Err(error) => panic!("{error}"),
        }
        assert!(number < 1_000, "the disk is full");
    }
    assert_eq!(engine.status(of).unwrap().bounds.tail, Offset(number));
    rig.disk.fill(None);
    let ends = number + 40;
    while number < ends {
        match engine.commit(one(of, number, 4_000)).await {
            Ok(committed) => {
                assert_eq!(committed.appends[0].first, Offset(number));
                number += 1;
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

/// Makes the history with one fault in it, at every place; what was answered is there.
async fn one_fault_at_every_place(call: Call, errno: i32, short_writes: bool) {
    let mut hits = 0;
    // Short writes are many writes.
    for skip in (0..).step_by(if short_writes { 9 } else { 1 }) {
        let rig = Rig::new();
        if short_writes {
            rig.disk.write_short(skip);
        }
        let mut run = Run::new(rig);
        run.faults_expected = true;
        let steps = history();
        // A reopen with a fault in it is another test.
        let steps = steps
            .iter()
            .filter(|step| !matches!(step, Step::Reopen { .. }));
        run.rig.disk.fail(Fault {
            skip,
            ..fault(call, any, errno)
        });
        for step in steps {
            run.step(step).await;
        }
        let was_hit = run.rig.disk.faults_left() == 0;
        hits += u32::from(was_hit);
        // What the second opening shows must survive, too.
        for how in [CRASHES[usize::try_from(skip % 5).unwrap()], Crash::LoseAll] {
            let forget_index = skip % 2 == 0;
            run.step(&Step::Crash { how, forget_index }).await;
        }
        run.end().await;
        if !was_hit {
            break;
        }
    }
    assert!(hits > 0, "no {call:?} was hit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_space_for_any_write_loses_nothing() {
    one_fault_at_every_place(Call::Write, ENOSPC, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_space_in_the_middle_of_any_write_loses_nothing() {
    one_fault_at_every_place(Call::Write, ENOSPC, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_space_for_any_new_file_loses_nothing() {
    one_fault_at_every_place(Call::Create, ENOSPC, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_space_for_any_name_loses_nothing() {
    one_fault_at_every_place(Call::Rename, ENOSPC, false).await;
    one_fault_at_every_place(Call::SyncDir, ENOSPC, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_in_any_write_loses_nothing() {
    one_fault_at_every_place(Call::Write, EIO, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_in_any_sync_loses_nothing() {
    one_fault_at_every_place(Call::Sync, EIO, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_with_any_name_loses_nothing() {
    one_fault_at_every_place(Call::Create, EIO, false).await;
    one_fault_at_every_place(Call::Rename, EIO, false).await;
    one_fault_at_every_place(Call::SyncDir, EIO, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_fails_is_an_error_and_others_are_read() {
    let rig = Rig::new();
    let (engine, of) = filled(&rig, 200).await;
    shut(engine).await;
    // Nothing in memory.
    let engine = rig.open();
    rig.disk.fail(Fault {
        times: u64::MAX,
        ..fault(Call::Read, |name| name.ends_with("0000000001.seg"), EIO)
    });
    for _ in 0..2 {
        let error = engine.read(of, Offset(3), 1).await.unwrap_err();
        assert!(matches!(error, ReadError::Io(_)), "{error}");
        let page = engine.read(of, Offset(150), 1).await.unwrap();
        assert_eq!(page.records[0].record.value, value(150, 1_000));
    }
    rig.disk.heal();
    let page = engine.read(of, Offset(3), 1).await.unwrap();
    assert_eq!(page.records[0].record.value, value(3, 1_000));
    assert_eq!(*engine.health().borrow(), Health::Running);
    stored(engine.as_ref(), one(of, 200, 10)).await;
    Content::of(engine.as_ref()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_block_is_named_and_others_are_read() {
    let rig = Rig::new();
    let (engine, of) = filled(&rig, 200).await;
    shut(engine).await;
    let first = "journal/0000000001.seg";
    let content = rig.disk.content(first);
    let needle = value(7, 100);
    let place = content
        .windows(100)
        .position(|window| window == &needle[..])
        .expect("record 7 is in the first segment");
    rig.disk.damage(first, place as u64 + 50, b"x");
    let engine = rig.open();
    let error = engine.read(of, Offset(7), 1).await.unwrap_err();
    assert!(
        matches!(&error, ReadError::Damaged(what) if what.contains("0000000001.seg")),
        "{error}"
    );
    for offset in (0..200).filter(|offset| *offset != 7) {
        let page = engine.read(of, Offset(offset), 1).await.unwrap();
        assert_eq!(page.records[0].record.value, value(offset, 1_000));
    }
    stored(engine.as_ref(), one(of, 200, 10)).await;
}
