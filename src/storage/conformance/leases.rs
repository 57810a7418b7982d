//! Leases: the right to settle.

use std::collections::BTreeSet;

use tokio::sync::mpsc;

use super::{EngineHome, in_time, make, numbered, part, settle, stored};
use crate::storage::{Lease, LeaseEvent, NewSettlement, Settle, StreamConfig};

async fn granted(leases: &mut mpsc::Receiver<LeaseEvent>) -> Lease {
    match in_time(leases.recv()).await {
        Some(LeaseEvent::Granted(lease)) => lease,
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn every_partition_is_granted_at_once_and_when_it_is_made(place: &dyn EngineHome) {
    let engine = place.open();
    let stream = make(engine.as_ref(), "src", 3).await;
    let other = make(engine.as_ref(), "other", 1).await;
    let mut leases = engine.leases(stream.id);
    let mut second = engine.leases(stream.id);
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        seen.insert(granted(&mut leases).await.of);
    }
    assert!(seen.into_iter().eq(stream.all_partitions()));
    let large = engine
        .change_stream(stream.id, 5, StreamConfig::default(), None)
        .await
        .unwrap();
    let mut seen = BTreeSet::new();
    for _ in 3..5 {
        let lease = granted(&mut leases).await;
        seen.insert(lease.of);
        stored(engine.as_ref(), numbered(lease.of, 0..1)).await;
        let end = Settle {
            epoch: lease.epoch,
            ..settle(lease.of, 0, NewSettlement::Delivered)
        };
        stored(engine.as_ref(), vec![end]).await;
    }
    assert!(seen.into_iter().eq([part(&large, 3), part(&large, 4)]));
    // A second listener hears the same.
    let mut seen = BTreeSet::new();
    for _ in 0..5 {
        seen.insert(granted(&mut second).await.of);
    }
    assert!(seen.into_iter().eq(large.all_partitions()));
    let mut others = engine.leases(other.id);
    assert_eq!(granted(&mut others).await.of, part(&other, 0));
}
