//! Concurrent callers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use bytes::Bytes;

use super::{
    EngineHome, append, make, numbered, one_partition, part, record, reopened, settle, stored,
};
use crate::{
    model::ids::{Offset, PartitionId},
    runtime::tasks::Tasks,
    storage::{Append, AppendKind, Commit, CommitError, Engine, NewSettlement, StateChange},
};

/// Runs `count` tasks and waits for all.
async fn in_tasks<F: Future<Output = ()> + Send + 'static>(
    count: u64,
    mut task: impl FnMut(u64) -> F,
) {
    let tasks = Tasks::new();
    for number in 0..count {
        tasks.spawn("committer", task(number));
    }
    let join = tasks.join(super::DEADLINE / 2);
    tokio::select! {
        biased;
        () = tasks.failed() => panic!("a task has panicked"),
        left = join => assert_eq!(left, 0),
    }
}

pub(crate) async fn many_committers_get_places_of_their_own(place: &dyn EngineHome) {
    let engine = place.open();
    let stream = make(engine.as_ref(), "src", 3).await;
    let places: Arc<Mutex<BTreeMap<(PartitionId, u64), Bytes>>> = Arc::default();
    in_tasks(16, |task| {
        let (engine, stream, places) = (engine.clone(), stream.clone(), places.clone());
        let size = usize::try_from(task).unwrap();
        async move {
            for round in 0..20 {
                let of = part(&stream, u16::try_from((task + round) % 3).unwrap());
                let values: Vec<Bytes> = (0..=round % 3)
                    .map(|n| format!("{task}/{round}/{n}").repeat(1 + 9 * size))
                    .map(Bytes::from)
                    .collect();
                let records = values.iter().cloned().map(record).collect();
                let committed = stored(engine.as_ref(), append(of, records)).await;
                let first = committed.appends[0].first;
                // Readable at once, at the place that was answered.
                let page = engine.read(of, first, 1 << 20).await.unwrap();
                let read = page.records.iter().map(|stored| &stored.record.value);
                assert!(read.take(values.len()).eq(&values), "{of}/{first}");
                let mut places = places.lock().unwrap();
                for (offset, value) in (first.0..).zip(values) {
                    assert!(places.insert((of, offset), value).is_none(), "used twice");
                }
            }
        }
    })
    .await;
    let engine = reopened(engine, place).await;
    let mut read = BTreeMap::new();
    for of in stream.all_partitions() {
        let tail = engine.status(of).unwrap().bounds.tail;
        let page = engine.read(of, Offset(0), 64 << 20).await.unwrap();
        assert_eq!(page.records.len() as u64, tail.0);
        for stored in page.records {
            read.insert((of, stored.offset.0), stored.record.value);
        }
    }
    assert!(read == *places.lock().unwrap());
}

pub(crate) async fn committers_that_race_for_one_value_take_turns(place: &dyn EngineHome) {
    let engine = place.open();
    let of = one_partition(engine.as_ref()).await;
    in_tasks(8, |_| {
        let engine = engine.clone();
        async move {
            for _ in 0..10 {
                while let Err(error) = count_up(engine.as_ref(), numbered(of, 0..1)).await {
                    assert!(
                        matches!(error, CommitError::StateConflict { .. }),
                        "{error}"
                    );
                }
            }
        }
    })
    .await;
    let engine = reopened(engine, place).await;
    assert_eq!(engine.get("t/count").await.unwrap().value, "80");
    assert_eq!(engine.status(of).unwrap().bounds.tail, Offset(80));
}

async fn count_up(engine: &dyn Engine, append: Append) -> Result<(), CommitError> {
    let seen = engine.get("t/count").await;
    let count = seen.as_ref().map_or(0, |entry| {
        let text = std::str::from_utf8(&entry.value).unwrap();
        text.parse::<u64>().unwrap()
    });
    let change = StateChange {
        key: "t/count".into(),
        value: Some((count + 1).to_string().into()),
        expected: Some(seen.map_or(0, |entry| entry.revision)),
    };
    let commit = Commit {
        appends: vec![append],
        state: vec![change],
        ..Commit::default()
    };
    engine.commit(commit).await.map(drop)
}

pub(crate) async fn one_of_many_ends_a_record(place: &dyn EngineHome) {
    let engine = place.open();
    let of = one_partition(engine.as_ref()).await;
    stored(engine.as_ref(), numbered(of, 0..40)).await;
    let winners: Arc<Mutex<Vec<u64>>> = Arc::default();
    in_tasks(8, |task| {
        let (engine, winners) = (engine.clone(), winners.clone());
        async move {
            for step in 0..40 {
                let offset = (step + task * 5) % 40;
                let ends = vec![settle(of, offset, NewSettlement::Delivered)];
                match engine.commit(ends.into()).await {
                    Ok(_) => winners.lock().unwrap().push(offset),
                    Err(CommitError::AlreadySettled { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    })
    .await;
    let mut won = winners.lock().unwrap().clone();
    won.sort_unstable();
    assert!(won.into_iter().eq(0..40));
    let engine = reopened(engine, place).await;
    assert_eq!(engine.status(of).unwrap().counts.delivered, 40);
}

pub(crate) async fn bounds_show_a_commit_in_all_partitions_or_in_none(place: &dyn EngineHome) {
    let engine = place.open();
    let stream = make(engine.as_ref(), "src", 3).await;
    let (looking, id) = (engine.clone(), stream.id);
    let looks = std::thread::spawn(move || {
        loop {
            let found = looking.bounds(id).unwrap();
            let tails: Vec<_> = found.partitions.iter().map(|bounds| bounds.tail).collect();
            assert!(tails.iter().all(|tail| *tail == tails[0]), "{tails:?}");
            if tails[0] == Offset(400) {
                return;
            }
        }
    });
    for number in 0..400 {
        let appends = stream.all_partitions().map(|of| Append {
            of,
            records: vec![record(format!("{number}"))],
            kind: AppendKind::Accepted,
            refers: Vec::new(),
        });
        let commit = Commit {
            appends: appends.collect(),
            ..Commit::default()
        };
        stored(engine.as_ref(), commit).await;
    }
    looks.join().unwrap();
    assert!(
        engine
            .bounds(crate::model::ids::StreamId([9; 16]))
            .is_none()
    );
}
