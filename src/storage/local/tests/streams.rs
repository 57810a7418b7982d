//! Streams, leases and state.

use std::sync::Arc;

use crate::{
    model::ids::Offset,
    storage::{
        CommitError, ControlEventKind, Epoch, LeaseEvent, Leases, Log, MadeBy, ReadError, State,
        StateChange, StreamConfig, StreamError,
    },
};

use super::{Bench, append, appends, partition, put, states};

#[tokio::test]
async fn a_stream_made_again_under_its_name_is_another() {
    let mut bench = Bench::new();
    let old = bench.stream("orders", 1).await;
    let of = partition(&old, 0);
    bench.append(of, &["old"]).await;
    let mut tail = bench.engine().tail(of).unwrap();
    let taken = bench
        .engine()
        .create_stream(old.name.clone(), 1, StreamConfig::default())
        .await;
    assert!(matches!(taken, Err(StreamError::Exists)));

    bench
        .engine()
        .delete_stream(
            old.id,
            Some(old.revision),
            crate::storage::OpenRecords::Drop,
        )
        .await
        .unwrap();
    assert!(tail.wait_for(|tail| *tail > Offset(1)).await.is_err());
    let new = bench.stream("orders", 1).await;
    assert_ne!(new.id, old.id);
    assert_ne!(new.incarnation, old.incarnation);
    for _ in 0..2 {
        assert!(bench.engine().stream_by_id(old.id).is_none());
        let gone = bench.engine().read(of, Offset(0), 1).await;
        assert!(matches!(gone, Err(ReadError::PartitionUnknown(p)) if p == of));
        let refused = bench.engine().commit(appends([append(of, &["x"])])).await;
        assert!(matches!(refused, Err(CommitError::PartitionUnknown(p)) if p == of));
        assert!(bench.values(partition(&new, 0)).await.is_empty());
        bench.crash();
    }
    let again = bench
        .engine()
        .delete_stream(old.id, None, crate::storage::OpenRecords::Drop)
        .await;
    assert!(matches!(again, Err(StreamError::Unknown)));
}

#[tokio::test]
async fn a_stream_grows_and_never_shrinks() {
    let mut bench = Bench::new();
    let made = bench.stream("orders", 1).await;
    bench.append(partition(&made, 0), &["a", "b"]).await;
    let config = StreamConfig {
        made_by: MadeBy::Api,
        retention_hours: Some(5),
        ..StreamConfig::default()
    };
    let grown = bench
        .engine()
        .change_stream(made.id, 3, config.clone(), Some(made.revision))
        .await
        .unwrap();
    assert!(grown.revision > made.revision);
    let tails = vec![Offset(2), Offset(0), Offset(0)];
    assert_eq!(
        grown.events[1].kind,
        ControlEventKind::Grown { partitions: 3 }
    );
    assert_eq!(grown.events[1].tails, tails);
    bench.append(partition(&grown, 2), &["c"]).await;
    bench.crash();
    assert_eq!(bench.engine().stream(&made.name), Some(grown.clone()));
    assert_eq!(bench.values(partition(&grown, 2)).await, ["c"]);

    let engine = bench.engine();
    let shrunk = engine.change_stream(made.id, 2, config.clone(), None).await;
    assert!(matches!(shrunk, Err(StreamError::Shrink { partitions: 3 })));
    let stale = engine
        .change_stream(made.id, 4, config.clone(), Some(made.revision))
        .await;
    assert!(matches!(stale, Err(StreamError::ChangedMeanwhile)));
    let stale = engine
        .delete_stream(
            made.id,
            Some(made.revision),
            crate::storage::OpenRecords::Drop,
        )
        .await;
    assert!(matches!(stale, Err(StreamError::ChangedMeanwhile)));
    let same = engine
        .change_stream(made.id, 3, config, None)
        .await
        .unwrap();
    assert_eq!(same, grown);
}

#[tokio::test]
async fn state_changes_only_from_the_revision_that_was_seen() {
    let mut bench = Bench::new();
    let changed = bench.engine().changed("secret/");
    let commit = |change: StateChange| bench.engine().commit(states([change]));
    commit(put("secret/a", "1", Some(0))).await.unwrap();
    let conflict = commit(put("secret/a", "2", Some(0))).await;
    assert!(matches!(conflict, Err(CommitError::StateConflict { .. })));
    let first = bench.engine().get("secret/a").await.unwrap();
    commit(put("secret/a", "2", Some(first.revision)))
        .await
        .unwrap();
    commit(put("other", "x", None)).await.unwrap();
    let second = bench.engine().get("secret/a").await.unwrap();
    assert!(second.revision > first.revision);
    assert_eq!(*changed.borrow(), 2);

    // In one commit, one after the other.
    let twice = states([put("job", "1", Some(0)), put("job", "2", Some(0))]);
    let conflict = bench.engine().commit(twice).await;
    assert!(matches!(conflict, Err(CommitError::StateConflict { .. })));

    bench.crash();
    let engine = bench.engine();
    assert_eq!(engine.get("secret/a").await, Some(second.clone()));
    let listed = engine.list("secret/").await;
    assert_eq!(listed, [(Arc::from("secret/a"), second.clone())]);
    let remove = StateChange {
        key: "secret/a".into(),
        value: None,
        expected: Some(second.revision),
    };
    engine.commit(states([remove])).await.unwrap();
    engine
        .commit(states([put("secret/a", "3", Some(0))]))
        .await
        .unwrap();
    let third = engine.get("secret/a").await.unwrap();
    assert!(third.revision > second.revision);
}

#[tokio::test]
async fn of_commits_that_race_for_a_value_one_wins() {
    let bench = Bench::new();
    let engine = bench.engine();
    let race = (0..50).map(|_| engine.commit(states([put("lock", "mine", Some(0))])));
    let answers = futures_util::future::join_all(race).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
}

#[tokio::test]
async fn leases_are_granted_as_partitions_come_and_lost_with_their_stream() {
    let bench = Bench::new();
    let stream = bench.stream("orders", 2).await;
    let engine = bench.engine();
    let mut events = engine.leases(stream.id);
    let mut granted = Vec::new();
    let config = StreamConfig::default();
    engine
        .change_stream(stream.id, 3, config, None)
        .await
        .unwrap();
    for _ in 0..3 {
        match events.recv().await {
            Some(LeaseEvent::Granted(lease)) => {
                assert_eq!(lease.epoch, Epoch(1));
                granted.push(lease.of.partition.0);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(granted, [0, 1, 2]);
    engine
        .delete_stream(stream.id, None, crate::storage::OpenRecords::Drop)
        .await
        .unwrap();
    for partition in 0..3 {
        let event = events.recv().await;
        assert!(matches!(event, Some(LeaseEvent::Lost(of)) if of.partition.0 == partition));
    }
    assert!(events.recv().await.is_none());
    assert!(engine.leases(stream.id).recv().await.is_none());
}
