//! Concurrent callers: bounds hold, and no reader sees a half-applied commit.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use futures_util::future::join_all;

use super::{
    faulty::{Crash, Dice},
    rig::{Rig, shut},
};
use crate::{
    model::ids::{Offset, PartitionId},
    runtime::tasks::Tasks,
    storage::{
        Commit, CommitError, Log, NewSettlement, ReadError, StreamConfig,
        conformance::{
            DEADLINE, append, content::Content, eventually, in_time, make, part, record, settle,
            stored,
        },
        embedded::Embedded,
    },
};

fn one(of: PartitionId, number: u64, size: usize) -> Commit {
    let value = number.to_le_bytes().into_iter().cycle().take(size);
    append(of, vec![record(value.collect::<Vec<_>>())]).into()
}

async fn one_partition(engine: &Embedded) -> PartitionId {
    part(make(engine, "src", 1).await.as_ref(), 0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_is_busy_and_what_it_took_is_stored() {
    let mut rig = Rig::new();
    rig.log.queue_len_max = 8;
    rig.log.queue_bytes_max = 40_000;
    let engine = rig.open();
    let of = one_partition(&engine).await;
    for size in [10, 9_000] {
        let tail = engine.status(of).unwrap().bounds.tail.0;
        let held = rig.disk.hold_syncs();
        let first = engine.commit(one(of, tail, size));
        let others = async {
            rig.disk.sync_is_held().await;
            let others = join_all((1..20).map(|n| engine.commit(one(of, tail + n, size))));
            let release = async { held.release() };
            tokio::join!(biased; others, release).0
        };
        let (first, others) = in_time(async { tokio::join!(first, others) }).await;
        first.unwrap();
        let (taken, refused): (Vec<_>, Vec<_>) = others.into_iter().partition(Result::is_ok);
        assert!(!taken.is_empty() && taken.len() < 8, "{}", taken.len());
        for refused in refused {
            assert!(matches!(refused, Err(CommitError::Busy)), "{refused:?}");
        }
        let now = engine.status(of).unwrap().bounds.tail.0;
        assert_eq!(now, tail + 1 + taken.len() as u64);
        // There is room again, and one commit may be larger than the bound.
        stored(engine.as_ref(), one(of, now, 50_000)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_is_dropped_has_lost_nothing_that_was_answered() {
    let rig = Rig::new();
    let engine = rig.open();
    let of = one_partition(&engine).await;
    for number in 0..20 {
        stored(engine.as_ref(), one(of, number, 9_000)).await;
    }
    stored(
        engine.as_ref(),
        vec![settle(of, 3, NewSettlement::Delivered)],
    )
    .await;
    let before = Content::of(engine.as_ref()).await;
    drop(engine);
    rig.disk.crash(Crash::LoseAll);
    let engine = rig.open();
    before.assert_same(&Content::of(engine.as_ref()).await, "after a drop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_record_is_read_while_segments_are_sealed_and_indexed() {
    let mut rig = Rig::new();
    // Every read goes to the disk.
    rig.log.cache_bytes = 0;
    let engine = rig.open();
    let of = one_partition(&engine).await;
    stored(engine.as_ref(), one(of, 0, 2_000)).await;
    let written = Arc::new(AtomicBool::new(false));
    let tasks = Tasks::new();
    for reader in 0..2 {
        let (engine, written) = (engine.clone(), written.clone());
        tasks.spawn("reader", async move {
            let mut dice = Dice(reader);
            let mut reads = 0;
            while !written.load(Ordering::Relaxed) || reads < 100 {
                let tail = engine.status(of).unwrap().bounds.tail.0;
                let offset = dice.next() % tail;
                let page = engine.read(of, Offset(offset), 5_000).await.unwrap();
                for (stored, number) in page.records.iter().zip(offset..) {
                    assert_eq!(stored.offset.0, number);
                    assert!(stored.record.value.starts_with(&number.to_le_bytes()));
                }
                assert!(!page.records.is_empty());
                reads += 1;
            }
        });
    }
    for number in 1..400 {
        stored(engine.as_ref(), one(of, number, 2_000)).await;
    }
    written.store(true, Ordering::Relaxed);
    tokio::select! {
        biased;
        () = tasks.failed() => panic!("a reader has failed"),
        left = tasks.join(DEADLINE / 2) => assert_eq!(left, 0),
    }
    assert!(rig.disk.names().len() > 10, "{:?}", rig.disk.names());
    shut(engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_goes_while_it_is_used_is_unknown_from_then_on() {
    let rig = Rig::new();
    let engine = rig.open();
    for _ in 0..5 {
        let stream = make(engine.as_ref(), "src", 2).await;
        let of = part(&stream, 1);
        stored(engine.as_ref(), one(of, 0, 10)).await;
        let commits = (1..30).map(|n| engine.commit(one(of, n, 1_000)));
        let soon = async { engine.settle_soon(settle(of, 0, NewSettlement::Delivered)) };
        let (commits, queued, gone) = tokio::join!(
            join_all(commits),
            soon,
            engine.delete_stream(stream.id, None, crate::storage::OpenRecords::Drop)
        );
        gone.unwrap();
        queued.unwrap();
        for answer in commits {
            assert!(
                matches!(answer, Ok(_) | Err(CommitError::PartitionUnknown(_))),
                "{answer:?}"
            );
        }
        let read = engine.read(of, Offset(0), 100).await;
        assert!(
            matches!(read, Err(ReadError::PartitionUnknown(_))),
            "{read:?}"
        );
    }
    let kept = make(engine.as_ref(), "src", 1).await;
    stored(engine.as_ref(), one(part(&kept, 0), 0, 10)).await;
    let before = Content::of(engine.as_ref()).await;
    shut(engine).await;
    rig.disk.crash(Crash::LoseAll);
    let engine = rig.open();
    before.assert_same(&Content::of(engine.as_ref()).await, "after a crash");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn growth_and_ends_in_the_middle_of_traffic_are_kept() {
    let rig = Rig::new();
    let engine = rig.open();
    let stream = make(engine.as_ref(), "src", 1).await;
    let of = part(&stream, 0);
    let commits = async {
        for number in 0..60 {
            stored(engine.as_ref(), one(of, number, 3_000)).await;
            let end = settle(of, number, NewSettlement::Delivered);
            engine.settle_soon(end).unwrap();
        }
    };
    let growths = async {
        for partitions in 2..20 {
            let config = StreamConfig::default();
            let grown = engine.change_stream(stream.id, partitions, config, None);
            grown.await.unwrap();
        }
    };
    in_time(async { tokio::join!(commits, growths) }).await;
    eventually("all ends", || {
        engine.status(of).unwrap().low_mark == Offset(60)
    })
    .await;
    let before = Content::of(engine.as_ref()).await;
    rig.disk.crash(Crash::LoseAll);
    shut(engine).await;
    let engine = rig.open();
    before.assert_same(&Content::of(engine.as_ref()).await, "after a crash");
}
