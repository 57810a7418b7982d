//! Bounds of a reading, and its order.

use super::*;
use crate::{
    model::record::{Headers, Record},
    storage::{Append, AppendKind, Commit, Log as _, StreamConfig, memory::Memory},
};

#[tokio::test]
async fn held_records_are_bounded() {
    const PARTITIONS: u16 = 40;
    const RECORD_BYTES: usize = 200 << 10;
    let engine = Memory::new();
    let made = engine.create_stream("Wide".parse().unwrap(), PARTITIONS, StreamConfig::default());
    let stream = made.await.unwrap();
    let record = Record {
        key: "".into(),
        value: vec![b'1'; RECORD_BYTES].into(),
        headers: Headers::default(),
    };
    for _ in 0..2 {
        for of in stream.all_partitions() {
            let append = Append {
                of,
                records: vec![record.clone()],
                kind: AppendKind::Accepted,
                refers: Vec::new(),
            };
            let commit = Commit {
                appends: vec![append],
                ..Commit::default()
            };
            engine.commit(commit).await.unwrap();
        }
    }
    let lanes = stream.all_partitions().map(|of| (of, Offset(0), Offset(2)));
    let mut reading = Reading::all(engine, Turns::default(), lanes.collect(), false);
    let (mut held_max, mut places) = (0, Vec::new());
    while let Some(lane) = reading.next().await.unwrap() {
        let held = reading.lanes.iter().flat_map(|lane| &lane.held);
        let held: usize = held.map(|held| held.record.record.bytes_len()).sum();
        assert_eq!(held, reading.held_bytes);
        held_max = held_max.max(held);
        let (partition, first) = reading.first(lane).unwrap();
        places.push((first.record.offset.0, partition.0));
        reading.pass(lane);
        if places.len() % 7 == 0 {
            reading.release();
            assert_eq!(reading.held_bytes, 0);
        }
    }
    let all = [0, 1].map(|offset| (0..PARTITIONS).map(move |partition| (offset, partition)));
    assert_eq!(places, all.into_iter().flatten().collect::<Vec<_>>());
    assert!(reading.is_over());
    assert!(held_max <= HELD_BYTES_MAX + RECORD_BYTES, "{held_max}");
}

#[tokio::test]
async fn a_page_that_has_searched_enough_offsets_ends_early() {
    let engine = Memory::new();
    let made = engine.create_stream("Wide".parse().unwrap(), 2, StreamConfig::default());
    let stream = made.await.unwrap();
    let record = Record {
        key: "".into(),
        value: "1".into(),
        headers: Headers::default(),
    };
    for of in stream.all_partitions() {
        let append = Append {
            of,
            records: vec![record.clone(); 10],
            kind: AppendKind::Accepted,
            refers: Vec::new(),
        };
        let settle = |offset| crate::storage::Settle {
            of,
            offset: Offset(offset),
            end: crate::storage::NewSettlement::Delivered,
            attempts: 1,
            status: Some(200),
            epoch: crate::storage::Epoch(1),
        };
        let append = Commit {
            appends: vec![append],
            ..Commit::default()
        };
        engine.commit(append).await.unwrap();
        let settles = Commit {
            settles: (0..9).map(settle).collect(),
            ..Commit::default()
        };
        engine.commit(settles).await.unwrap();
    }
    let mut next: Vec<_> = stream.all_partitions().map(|of| (of, Offset(0))).collect();
    let (mut found, mut pages) = (Vec::new(), 0);
    loop {
        let lanes = next.iter().map(|(of, next)| (*of, *next, Offset(10)));
        let mut reading = Reading::all(engine.clone(), Turns::default(), lanes.collect(), true);
        reading.looks_left = 4;
        while let Some(lane) = reading.next().await.unwrap() {
            let (partition, first) = reading.first(lane).unwrap();
            found.push((partition.0, first.record.offset.0));
            reading.pass(lane);
        }
        pages += 1;
        next = reading.positions().collect();
        if reading.is_over() {
            break;
        }
        assert!(pages < 20, "no page may end where it began: {next:?}");
    }
    assert_eq!(found, [(0, 9), (1, 9)]);
    assert!(pages > 3, "{pages}");
}

#[tokio::test]
async fn readings_share_their_permits() {
    let turns = Turns::default();
    let (free, is_free) = tokio::sync::watch::channel(false);
    let read = || {
        let mut is_free = is_free.clone();
        let turns = turns.clone();
        Box::pin(async move {
            let reading = async { is_free.wait_for(|free| *free).await.is_ok() };
            turns.take(reading).await
        })
    };
    let mut first: Vec<_> = (0..READS_MAX).map(|_| read()).collect();
    for read in &mut first {
        assert!(futures_util::poll!(read).is_pending());
    }
    let mut next = Box::pin(turns.take(async { "read" }));
    assert!(futures_util::poll!(&mut next).is_pending());
    free.send_replace(true);
    for read in first {
        assert!(read.await);
    }
    assert_eq!(next.await, "read");
}

/// The log knows the time of the first of four records. Unknown times must not make the reading read all lanes.
#[tokio::test]
async fn only_the_partitions_that_may_come_first_are_read() {
    let engine = Memory::new();
    let made = engine.create_stream("Wide".parse().unwrap(), 50, StreamConfig::default());
    let stream = made.await.unwrap();
    for of in stream.all_partitions() {
        let record = Record {
            key: "".into(),
            value: "1".into(),
            headers: Headers::default(),
        };
        let append = Append {
            of,
            records: vec![record; 8],
            kind: AppendKind::Accepted,
            refers: Vec::new(),
        };
        let commit = Commit {
            appends: vec![append],
            ..Commit::default()
        };
        engine.commit(commit).await.unwrap();
    }
    let lanes = stream.all_partitions().map(|of| (of, Offset(2), Offset(8)));
    let mut reading = Reading::all(engine, Turns::default(), lanes.collect(), false);
    let first = reading.next().await.unwrap();
    assert_eq!(first, Some(0));
    let held = reading.lanes.iter().filter(|lane| !lane.held.is_empty());
    assert_eq!(held.count(), 1);
}
