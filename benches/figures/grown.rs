//! A data directory with many records that have ended long ago, written by the engine itself.

use std::{path::Path, sync::Arc};

use syncgate::{
    model::record::{Headers, Record},
    runtime::clock::Clock,
    storage::local::LogSettings,
    storage::{
        Append, AppendKind, Commit, Epoch, Log, NewSettlement, Settle,
        embedded::Embedded,
        local::{Options, RealDisk},
    },
};

/// Records of one commit.
const BATCH_LEN: usize = 1_000;
/// Short, so that the disk is not what is filled.
const VALUE_BYTES: usize = 128;

/// Appends `count` records to the stream for submissions, and ends them as delivered.
///
/// A gateway has made the directory and has gone.
pub async fn fill(data: &Path, count: u64) {
    let options = Options {
        dir: data.to_owned(),
        log: LogSettings::default(),
    };
    let engine = Embedded::open(options, Arc::new(RealDisk), Clock::system()).unwrap();
    let stream = engine.stream(&"DataSyncStream".parse().unwrap()).unwrap();
    let of = stream.all_partitions().next().unwrap();
    let record = Record {
        key: "key".into(),
        value: vec![b'x'; VALUE_BYTES].into(),
        headers: Headers::default(),
    };
    let mut settles = Vec::new();
    for _ in 0..count / BATCH_LEN as u64 {
        let append = Append {
            of,
            records: vec![record.clone(); BATCH_LEN],
            kind: AppendKind::Accepted,
            refers: Vec::new(),
        };
        let commit = Commit {
            appends: vec![append],
            settles: std::mem::take(&mut settles),
            ..Commit::default()
        };
        let first = engine.commit(commit).await.unwrap().appends[0].first;
        let ended = |ahead: usize| Settle {
            of,
            offset: first.plus(ahead as u64),
            end: NewSettlement::Delivered,
            attempts: 1,
            status: Some(200),
            // The embedded engine grants everything at this one.
            epoch: Epoch(1),
        };
        settles.extend((0..BATCH_LEN).map(ended));
    }
    let last = Commit {
        settles,
        ..Commit::default()
    };
    engine.commit(last).await.unwrap();
    engine.close().await;
}
