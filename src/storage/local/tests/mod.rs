//! Each promise of the engine through the seam, on the real file system.

mod backup;
mod damage;
pub(crate) mod far;
mod format;
mod index;
mod losses;
mod old_damage;
mod promises;
mod reading;
mod reclaim;
mod space;
mod streams;
mod verify;

use std::{path::Path, sync::Arc, time::Duration};

use tempfile::TempDir;

use super::{OpenError, Options, RealDisk};
use crate::storage::embedded::Embedded;
use crate::{
    model::{
        ids::{Offset, Partition, PartitionId},
        record::{Headers, HeadersBuilder, Record, StoredRecord, header},
    },
    runtime::clock::{Clock, Timestamp},
    storage::local::LogSettings,
    storage::{
        Append, AppendKind, Commit, Committed, Dedup, DedupId, Epoch, Log, NewSettlement, Settle,
        StateChange, Stream, StreamConfig,
    },
};

/// A directory, and the engine that has it open.
struct Bench {
    dir: TempDir,
    log: LogSettings,
    clock: Clock,
    engine: Option<Arc<Embedded>>,
}

impl Bench {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut LogSettings)) -> Self {
        let mut log = LogSettings {
            segment_bytes: 256 << 10,
            ..LogSettings::default()
        };
        change(&mut log);
        let mut bench = Self {
            dir: tempfile::tempdir().unwrap(),
            log,
            clock: Clock::system(),
            engine: None,
        };
        bench.open().unwrap();
        bench
    }

    fn open(&mut self) -> Result<(), OpenError> {
        self.engine = None;
        self.engine = Some(open(self.dir.path(), &self.log, &self.clock)?);
        Ok(())
    }

    /// Ends as a crash of the process would, and starts again.
    fn crash(&mut self) {
        self.open().unwrap();
    }

    async fn close(&mut self) {
        if let Some(engine) = self.engine.take() {
            engine.close().await;
        }
    }

    async fn reopen(&mut self) {
        self.close().await;
        self.open().unwrap();
    }

    fn engine(&self) -> &Embedded {
        self.engine.as_ref().unwrap()
    }

    async fn stream(&self, name: &str, partitions: u16) -> Arc<Stream> {
        let config = StreamConfig::default();
        let name = name.parse().unwrap();
        let made = self.engine().create_stream(name, partitions, config).await;
        made.unwrap()
    }

    async fn append(&self, of: PartitionId, values: &[&str]) -> Committed {
        let commit = appends([append(of, values)]);
        self.engine().commit(commit).await.unwrap()
    }

    async fn all(&self, of: PartitionId) -> Vec<StoredRecord> {
        let from = self.engine().status(of).unwrap().bounds.earliest;
        self.from(of, from).await
    }

    async fn from(&self, of: PartitionId, mut from: Offset) -> Vec<StoredRecord> {
        let mut all = Vec::new();
        loop {
            let page = self.engine().read(of, from, 10_000).await.unwrap();
            if page.records.is_empty() {
                assert_eq!(page.next, page.bounds.tail);
                return all;
            }
            from = page.next;
            all.extend(page.records);
        }
    }

    async fn values(&self, of: PartitionId) -> Vec<String> {
        texts(&self.all(of).await)
    }

    fn journal(&self) -> Vec<std::path::PathBuf> {
        let dir = self.dir.path().join("journal");
        let names = std::fs::read_dir(dir).unwrap();
        let mut files: Vec<_> = names
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_file())
            .collect();
        files.sort();
        files
    }
}

fn open(dir: &Path, log: &LogSettings, clock: &Clock) -> Result<Arc<Embedded>, OpenError> {
    let options = Options {
        dir: dir.into(),
        log: log.clone(),
    };
    Embedded::open(options, Arc::new(RealDisk), clock.clone())
}

fn texts(records: &[StoredRecord]) -> Vec<String> {
    let text = |record: &StoredRecord| String::from_utf8(record.record.value.to_vec()).unwrap();
    records.iter().map(text).collect()
}

fn record(value: &str) -> Record {
    Record {
        key: "key".into(),
        value: value.to_owned().into(),
        headers: headers(),
    }
}

fn headers() -> Headers {
    let mut builder = HeadersBuilder::default();
    builder.push(header::SOURCE, "default");
    builder.build()
}

fn append(of: PartitionId, values: &[&str]) -> Append {
    Append {
        of,
        records: values.iter().map(|value| record(value)).collect(),
        kind: AppendKind::Accepted,
        refers: Vec::new(),
    }
}

fn appends(appends: impl Into<Vec<Append>>) -> Commit {
    Commit {
        appends: appends.into(),
        ..Commit::default()
    }
}

/// A commit that is recognised, with a reply of 100 bytes.
fn marked(append: Append, id: u8) -> Commit {
    Commit {
        dedup: Some(Dedup {
            id: DedupId([id; 16]),
            reply: vec![id; 100].into(),
        }),
        ..appends([append])
    }
}

fn settle(of: PartitionId, offset: u64, end: NewSettlement) -> Settle {
    Settle {
        of,
        offset: Offset(offset),
        end,
        attempts: 1,
        status: Some(200),
        epoch: Epoch(1),
    }
}

fn settles(settles: impl Into<Vec<Settle>>) -> Commit {
    Commit {
        settles: settles.into(),
        ..Commit::default()
    }
}

fn put(key: &str, value: &str, expected: Option<u64>) -> StateChange {
    StateChange {
        key: key.into(),
        value: Some(value.to_owned().into()),
        expected,
    }
}

fn states(state: impl Into<Vec<StateChange>>) -> Commit {
    Commit {
        state: state.into(),
        ..Commit::default()
    }
}

fn at(micros: u64) -> Timestamp {
    Timestamp(micros)
}

/// Appends records of 50 KiB, of which a file holds five.
async fn fill(bench: &Bench, of: PartitionId, count: usize) {
    for number in 0..count {
        let value = format!("{number:0>51200}");
        bench.append(of, &[&value]).await;
    }
}

/// Waits for a thing that comes by itself.
pub(crate) async fn until(what: &str, is_there: impl Fn() -> bool) {
    let wait = async {
        while !is_there() {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), wait).await;
    assert!(waited.is_ok(), "waited for {what}");
}

fn partition(stream: &Stream, partition: u16) -> PartitionId {
    stream.partition(Partition(partition)).unwrap()
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}
