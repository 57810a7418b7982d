use tempfile::TempDir;

use super::*;
use crate::{
    model::record::{Headers, Record},
    storage::local::LogSettings,
    storage::{
        Append, AppendKind, Epoch, Log, NewSettlement, Settle, StreamConfig,
        embedded::Embedded,
        local::{Options, RealDisk},
    },
};

const HOUR: u64 = 3_600_000_000;
const START: u64 = 500_000 * HOUR;
const SOURCE: &str = "DataSyncStream";

struct Bench {
    dir: TempDir,
    clock: Clock,
    engine: Option<Arc<Embedded>>,
    retention: Option<Retention>,
}

impl Bench {
    async fn new() -> Self {
        let mut bench = Self {
            dir: tempfile::tempdir().unwrap(),
            clock: Clock::manual(Timestamp(START)),
            engine: None,
            retention: None,
        };
        bench.open();
        for name in [SOURCE, "Errors"] {
            bench.stream(name, StreamConfig::default()).await;
        }
        bench
    }

    fn open(&mut self) {
        (self.retention, self.engine) = (None, None);
        let options = Options {
            dir: self.dir.path().into(),
            log: LogSettings {
                segment_bytes: 256 << 10,
                ..LogSettings::default()
            },
        };
        let engine = Embedded::open(options, Arc::new(RealDisk), self.clock.clone()).unwrap();
        self.engine = Some(engine.clone());
        let settings = Live::new(config::Retention::default());
        let streams = Streams::new(engine);
        let source = SOURCE.parse().unwrap();
        let retention = Retention::new(streams, source, &settings, self.clock.clone());
        self.retention = Some(retention);
    }

    fn engine(&self) -> &Embedded {
        self.engine.as_ref().unwrap()
    }

    async fn stream(&self, name: &str, config: StreamConfig) {
        let name = name.parse().unwrap();
        self.engine().create_stream(name, 1, config).await.unwrap();
    }

    fn of(&self, name: &str) -> PartitionId {
        let stream = self.engine().stream(&name.parse().unwrap()).unwrap();
        stream.all_partitions().next().unwrap()
    }

    async fn append(&self, name: &str) {
        let record = Record {
            key: "key".into(),
            value: vec![7; 30_000].into(),
            headers: Headers::default(),
        };
        let append = Append {
            of: self.of(name),
            records: vec![record],
            kind: AppendKind::Accepted,
            refers: Vec::new(),
        };
        let commit = Commit {
            appends: vec![append],
            ..Commit::default()
        };
        self.engine().commit(commit).await.unwrap();
    }

    async fn end(&self, name: &str, offset: u64) {
        let settle = Settle {
            of: self.of(name),
            offset: Offset(offset),
            end: NewSettlement::Delivered,
            attempts: 1,
            status: Some(200),
            epoch: Epoch(1),
        };
        let commit = Commit {
            settles: vec![settle],
            ..Commit::default()
        };
        self.engine().commit(commit).await.unwrap();
    }

    /// Lets so many hours pass, with a look at the end of each.
    async fn hours(&mut self, count: u64) {
        for _ in 0..count {
            self.clock.set(Timestamp(self.clock.now().0 + HOUR));
            self.pass(Some(Duration::from_secs(3_600))).await;
        }
    }

    /// Returns how many bytes a stream keeps, about.
    fn bytes(&self, name: &str) -> u64 {
        let bounds = self.engine().status(self.of(name)).unwrap().bounds;
        (bounds.tail.0 - bounds.earliest.0) * 30_000
    }

    async fn pass(&mut self, passed: Option<Duration>) {
        let retention = self.retention.as_mut().unwrap();
        retention.pass(passed).await.unwrap();
    }

    #[track_caller]
    fn check(&self, name: &str, earliest: u64, expired: u64) {
        let status = self.engine().status(self.of(name)).unwrap();
        let found = (status.bounds.earliest.0, status.counts.expired);
        assert_eq!(found, (earliest, expired), "{name}");
    }
}

#[tokio::test]
async fn records_go_when_they_are_too_old_and_those_that_wait_for_dispatch_stay() {
    let mut bench = Bench::new().await;
    bench.pass(None).await;
    for name in [SOURCE, SOURCE, "Errors", "Errors"] {
        bench.append(name).await;
        bench.hours(1).await;
    }
    bench.end(SOURCE, 0).await;
    bench.end("Errors", 0).await;
    bench.hours(160).await;
    bench.check(SOURCE, 0, 0);
    bench.hours(10).await;
    bench.check(SOURCE, 1, 0);
    bench.end(SOURCE, 1).await;
    bench.hours(1).await;
    bench.check(SOURCE, 2, 0);
    bench.check("Errors", 0, 0);
    bench.hours(30 * 24).await;
    bench.check("Errors", 2, 1);
}

#[tokio::test]
async fn a_streams_own_bounds_win_and_0_keeps_for_ever() {
    let mut bench = Bench::new().await;
    let hours = |hours, bytes| StreamConfig {
        retention_hours: Some(hours),
        retention_bytes: bytes,
        ..StreamConfig::default()
    };
    bench.stream("Brief", hours(2, None)).await;
    bench.stream("Always", hours(0, Some(0))).await;
    bench.stream("Small", hours(0, Some(200_000))).await;
    bench.pass(None).await;
    for name in ["Brief", "Always", "Small"] {
        for _ in 0..40 {
            bench.append(name).await;
        }
    }
    bench.hours(4).await;
    bench.check("Brief", 40, 40);
    // At least what was asked for, at most a file and the open one more: as soon as what sealed files hold is known.
    while bench.bytes("Small") > 200_000 + 2 * (256 << 10) {
        bench.pass(Some(Duration::ZERO)).await;
    }
    assert!(bench.bytes("Small") >= 200_000);
    bench.hours(3 * 30 * 24).await;
    bench.check("Always", 0, 0);
}

#[tokio::test]
async fn a_clock_that_jumps_70_years_and_back_removes_nothing_early_and_keeps_nothing_for_ever() {
    let mut bench = Bench::new().await;
    bench.pass(None).await;
    bench.append("Errors").await;
    bench.hours(100).await;
    bench.clock.set(Timestamp(START + 70 * 8_766 * HOUR));
    bench.pass(Some(Duration::ZERO)).await;
    bench.check("Errors", 0, 0);
    bench.append("Errors").await;
    bench.hours(24).await;
    // Back, and into a restart.
    bench.clock.set(Timestamp(START + 124 * HOUR));
    bench.open();
    bench.pass(None).await;
    bench.append("Errors").await;
    bench.check("Errors", 0, 0);
    bench.hours(30 * 24 - 130).await;
    bench.check("Errors", 0, 0);
    bench.hours(10).await;
    bench.check("Errors", 1, 1);
    bench.hours(24 + 100).await;
    let earliest = bench
        .engine()
        .status(bench.of("Errors"))
        .unwrap()
        .bounds
        .earliest;
    assert!(earliest >= Offset(2), "{earliest}");
}

#[tokio::test]
async fn what_is_known_of_the_clock_is_there_after_a_restart() {
    let mut bench = Bench::new().await;
    bench.pass(None).await;
    bench.append("Errors").await;
    for _ in 0..31 {
        bench.hours(24).await;
        bench.open();
        bench.pass(None).await;
    }
    bench.check("Errors", 1, 1);
}

#[tokio::test]
async fn a_stopped_log_is_left_alone() {
    let mut bench = Bench::new().await;
    bench.engine().close().await;
    bench.pass(None).await;
}

#[tokio::test]
async fn other_bounds_count_at_once() {
    let mut bench = Bench::new().await;
    bench.pass(None).await;
    bench.append("Errors").await;
    bench.hours(5).await;
    bench.check("Errors", 0, 0);
    let settings = Live::new(config::Retention {
        interval_seconds: 86_400,
        ..config::Retention::default()
    });
    let streams = Streams::new(bench.engine.clone().unwrap());
    let source = SOURCE.parse().unwrap();
    let retention = Retention::new(streams, source, &settings, bench.clock.clone());
    let stop = CancellationToken::new();
    let tasks = crate::runtime::tasks::Tasks::new();
    tasks.spawn("retention", retention.run(stop.clone()));
    settings.set(Arc::new(config::Retention {
        error_hours: 2,
        ..config::Retention::default()
    }));
    let removed = async {
        while bench
            .engine()
            .status(bench.of("Errors"))
            .unwrap()
            .bounds
            .earliest
            < Offset(1)
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), removed)
        .await
        .unwrap();
    stop.cancel();
    assert_eq!(tasks.join(Duration::from_secs(30)).await, 0);
}

/// Bytes alone decide here: no age is configured. Dispatch still needs each record that has no end.
#[tokio::test]
async fn a_bound_of_bytes_alone_leaves_every_record_that_waits_for_dispatch() {
    let mut bench = Bench::new().await;
    let small = StreamConfig {
        retention_hours: Some(0),
        retention_bytes: Some(60_000),
        ..StreamConfig::default()
    };
    for name in [SOURCE, "Errors"] {
        let id = bench.of(name).stream;
        let changed = bench.engine().change_stream(id, 1, small.clone(), None);
        changed.await.unwrap();
    }
    for _ in 0..40 {
        for name in [SOURCE, "Errors"] {
            bench.append(name).await;
        }
    }
    // Both streams have as much in the same files. The log learns what a file holds once that file is sealed.
    let removed = async {
        while bench.bytes("Errors") > 60_000 + 2 * (256 << 10) {
            bench.pass(Some(Duration::ZERO)).await;
            tokio::task::yield_now().await;
        }
    };
    let removed = tokio::time::timeout(Duration::from_secs(30), removed);
    removed.await.unwrap();
    bench.check(SOURCE, 0, 0);
    for offset in (0..20).filter(|offset| *offset != 10) {
        bench.end(SOURCE, offset).await;
    }
    bench.pass(Some(Duration::ZERO)).await;
    bench.check(SOURCE, 10, 0);
    bench.end(SOURCE, 10).await;
    bench.pass(Some(Duration::ZERO)).await;
    bench.check(SOURCE, 20, 0);
}
