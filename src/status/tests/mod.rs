//! Counts over the embedded engine, and what a report makes of them.

mod hangs;
mod problems;

use std::{collections::HashMap, sync::Arc, time::Instant};

use tempfile::TempDir;

use super::census::{Aim, Census, Counted, Dispatch, Group};
use crate::{
    dispatch::{Cause, TargetId},
    model::{
        ids::{Offset, Partition, PartitionId},
        record::{HeadersBuilder, Record, header},
    },
    runtime::clock::{Clock, Timestamp},
    storage::local::LogSettings,
    storage::{
        Append, AppendKind, Commit, Epoch, Log as _, NewSettlement, OpenRecords, PurgeNote, Settle,
        Stream, StreamConfig,
        embedded::Embedded,
        local::{Options, RealDisk},
    },
};

const SOURCE: &str = "DataSyncStream";
const ERRORS: &str = "ServerUnavailableStream";

/// A log, and a census of it.
struct Bench {
    engine: Arc<Embedded>,
    census: Census,
    waiting: HashMap<(PartitionId, Offset), Cause>,
    _dir: TempDir,
}

impl Bench {
    async fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let options = Options {
            dir: dir.path().to_owned(),
            log: LogSettings::default(),
        };
        let engine = Embedded::open(options, Arc::new(RealDisk), Clock::system()).unwrap();
        let bench = Self {
            engine,
            census: Census::default(),
            waiting: HashMap::new(),
            _dir: dir,
        };
        for name in [SOURCE, ERRORS] {
            bench.make(name).await;
        }
        bench
    }

    async fn make(&self, name: &str) -> Arc<Stream> {
        let name = name.parse().unwrap();
        let made = self.engine.create_stream(name, 2, StreamConfig::default());
        made.await.unwrap()
    }

    fn part(&self, stream: &str, partition: u16) -> PartitionId {
        let stream = self.engine.stream(&stream.parse().unwrap()).unwrap();
        stream.partition(Partition(partition)).unwrap()
    }

    async fn append(&self, of: PartitionId, records: Vec<Record>) {
        let append = Append {
            of,
            records,
            kind: AppendKind::Accepted,
            refers: Vec::new(),
        };
        let commit = Commit {
            appends: vec![append],
            ..Commit::default()
        };
        self.engine.commit(commit).await.unwrap();
    }

    async fn end(&self, of: PartitionId, offsets: impl IntoIterator<Item = u64>) {
        let settle = |offset| Settle {
            of,
            offset: Offset(offset),
            end: NewSettlement::Delivered,
            attempts: 1,
            status: Some(200),
            epoch: Epoch(1),
        };
        let commit = Commit {
            settles: offsets.into_iter().map(settle).collect(),
            ..Commit::default()
        };
        self.engine.commit(commit).await.unwrap();
    }

    async fn count(&mut self) -> Counted {
        let dispatch = Dispatch {
            source: &SOURCE.parse().unwrap(),
            target_of: &|record: &Record| {
                let target = record.headers.get(header::TARGET)?;
                (!target.is_empty()).then(|| TargetId::of(target))
            },
            waiting: self.waiting.clone(),
        };
        self.census.count(&*self.engine, &dispatch).await
    }

    /// Counts until nothing is left out.
    async fn whole(&mut self) -> Counted {
        let began = Instant::now();
        loop {
            let counted = self.count().await;
            if counted.is_complete {
                return counted;
            }
            assert!(began.elapsed().as_secs() < 60, "never complete");
        }
    }
}

/// A record for a target; with a status as an error stream has it.
fn record(target: &str, status: Option<u16>) -> Record {
    let mut headers = HeadersBuilder::default();
    headers.push(header::TARGET, target);
    if let Some(status) = status {
        headers
            .push(header::CAUSE_CLASS, "status")
            .push(header::CAUSE_STATUS, &status.to_string())
            .push(header::CAUSE_REASON, &format!("said {status} of {target}"));
    }
    Record {
        key: "k".into(),
        value: vec![b'x'; 300].into(),
        headers: headers.build(),
    }
}

/// Stream, target, cause and number of each group.
fn shown(counted: &Counted) -> Vec<(String, String, String, u64)> {
    let row = |group: &Group| {
        let target = match &group.aim {
            Aim::Target(id) => id.to_string(),
            Aim::Nowhere => "-".into(),
            Aim::Others => "*".into(),
        };
        let cause = group.cause.map_or("-".into(), |cause| cause.to_string());
        (group.stream.name.to_string(), target, cause, group.len)
    };
    counted.groups.iter().map(row).collect()
}

#[track_caller]
fn check(counted: &Counted, expected: &[(&str, &str, &str, u64)]) {
    let expected = expected.iter().map(|(stream, target, cause, len)| {
        let text = |text: &str| text.to_owned();
        (text(stream), text(target), text(cause), *len)
    });
    assert_eq!(shown(counted), expected.collect::<Vec<_>>());
    let len: u64 = counted.groups.iter().map(|group| group.len).sum();
    assert_eq!(counted.looked_at, len);
}

#[tokio::test]
async fn open_records_are_counted_by_stream_target_and_cause() {
    let mut bench = Bench::start().await;
    let empty = bench.count().await;
    check(&empty, &[]);
    assert!(empty.is_complete);
    let (errors, source) = (bench.part(ERRORS, 1), bench.part(SOURCE, 0));
    let down = |status| record("http://a/x?secret=1", Some(status));
    bench
        .append(errors, vec![down(503), down(503), down(502)])
        .await;
    bench
        .append(
            errors,
            vec![record("http://b", Some(503)), record("", None)],
        )
        .await;
    bench
        .append(
            source,
            vec![record("http://a", None), record("http://a", None)],
        )
        .await;
    bench.waiting.insert((source, Offset(1)), Cause::Timeout);
    let counted = bench.whole().await;
    check(
        &counted,
        &[
            (ERRORS, "http://a:80", "503", 2),
            (ERRORS, "http://a:80", "502", 1),
            (ERRORS, "http://b:80", "503", 1),
            (ERRORS, "-", "-", 1),
            (SOURCE, "http://a:80", "-", 1),
            (SOURCE, "http://a:80", "timeout", 1),
        ],
    );
    assert_eq!(bench.census.read_len, 7);
    let first = &counted.groups[0];
    assert_eq!(first.newest, (errors, Offset(1)));
    let reason = first.reason.as_deref();
    assert_eq!(reason, Some("said 503 of http://a/x?secret=1"));
    assert!(counted.groups[4].reason.is_none());
    let stored = bench.engine.read(errors, Offset(0), 1 << 20).await.unwrap();
    let time = |at: usize| stored.records[at].time;
    assert_eq!((first.first, first.last), (time(0), time(1)));
    assert_eq!(counted.oldest[&errors], time(0));
    assert_eq!(counted.oldest.len(), 2);
}

/// A retry that fails puts a copy behind the others; what it is about is as old as before.
#[tokio::test]
async fn a_group_is_as_old_as_the_first_call_of_its_oldest_record() {
    let mut bench = Bench::start().await;
    let errors = bench.part(ERRORS, 0);
    let first = Timestamp::parse("2026-01-02T03:04:05.000006Z").unwrap();
    let copy = record("http://a", Some(503));
    let attempts = [(header::FIRST_ATTEMPT_AT, &*first.to_string())];
    let copy = Record {
        headers: copy.headers.with(attempts),
        ..copy
    };
    bench.append(errors, vec![copy]).await;
    bench
        .append(errors, vec![record("http://a", Some(503))])
        .await;
    let counted = bench.whole().await;
    let group = &counted.groups[0];
    assert_eq!((group.len, group.first), (2, first));
    let stored = bench.engine.read(errors, Offset(1), 1).await.unwrap();
    assert_eq!(group.last, stored.records[0].time);
}

#[tokio::test]
async fn a_record_is_read_once_and_gone_when_it_has_ended() {
    let mut bench = Bench::start().await;
    let errors = bench.part(ERRORS, 0);
    let down = || record("http://a", Some(503));
    bench
        .append(errors, (0..20).map(|_| down()).collect())
        .await;
    bench.whole().await;
    assert_eq!(bench.whole().await.looked_at, 20);
    assert_eq!(bench.census.read_len, 0);
    // Runs, single ones, the first and the last.
    bench.end(errors, [0, 1, 2, 5, 7, 9, 19]).await;
    bench
        .append(
            errors,
            (0..3).map(|_| record("http://b", Some(404))).collect(),
        )
        .await;
    bench.end(errors, [21]).await;
    let counted = bench.whole().await;
    check(
        &counted,
        &[
            (ERRORS, "http://a:80", "503", 13),
            (ERRORS, "http://b:80", "404", 2),
        ],
    );
    assert_eq!(bench.census.read_len, 2);
    let first = bench
        .engine
        .read(errors, Offset(3), 1)
        .await
        .unwrap()
        .records[0]
        .time;
    assert_eq!(
        (counted.groups[0].first, counted.oldest[&errors]),
        (first, first)
    );
    // Purged records are gone at once, and so are those of a stream that is made again under its name.
    let id = errors.stream;
    let purged = bench
        .engine
        .purge_stream(id, OpenRecords::Drop, PurgeNote::default());
    purged.await.unwrap();
    check(&bench.whole().await, &[]);
    bench.append(errors, vec![down()]).await;
    check(&bench.whole().await, &[(ERRORS, "http://a:80", "503", 1)]);
    let gone = bench.engine.delete_stream(id, None, OpenRecords::Drop);
    gone.await.unwrap();
    check(&bench.whole().await, &[]);
    bench.make(ERRORS).await;
    let errors = bench.part(ERRORS, 0);
    bench
        .append(errors, vec![record("http://c", Some(500))])
        .await;
    check(&bench.whole().await, &[(ERRORS, "http://c:80", "500", 1)]);
}

#[tokio::test]
async fn a_count_is_bounded_and_says_so_and_a_backlog_does_not_hide_what_failed() {
    let mut bench = Bench::start().await;
    bench.census = Census::new(10);
    let (errors, source) = (bench.part(ERRORS, 0), bench.part(SOURCE, 0));
    bench
        .append(source, (0..30).map(|_| record("http://a", None)).collect())
        .await;
    bench
        .append(
            errors,
            (0..4).map(|_| record("http://b", Some(503))).collect(),
        )
        .await;
    let counted = bench.count().await;
    assert!(!counted.is_complete);
    check(
        &counted,
        &[
            (ERRORS, "http://b:80", "503", 4),
            (SOURCE, "http://a:80", "-", 6),
        ],
    );
    bench.end(source, 0..25).await;
    let counted = bench.whole().await;
    check(
        &counted,
        &[
            (ERRORS, "http://b:80", "503", 4),
            (SOURCE, "http://a:80", "-", 5),
        ],
    );
}

/// The bound is on records read, as a time would depend on the machine: after the first look only what is new is read.
#[tokio::test]
async fn a_hundred_thousand_open_records_are_read_once_and_then_cost_next_to_nothing() {
    const LEN: u64 = 100_000;
    let mut bench = Bench::start().await;
    let errors = bench.part(ERRORS, 0);
    for thousand in 0..LEN / 1_000 {
        let target = format!("http://t{}", thousand % 3);
        let records = (0..1_000).map(|_| record(&target, Some(503)));
        bench.append(errors, records.collect()).await;
    }
    let began = Instant::now();
    let counted = bench.whole().await;
    let first = began.elapsed();
    assert_eq!((counted.looked_at, counted.groups.len()), (LEN, 3));
    let began = Instant::now();
    let again = bench.count().await;
    let second = began.elapsed();
    assert!(again.is_complete);
    assert_eq!((again.looked_at, bench.census.read_len), (LEN, 0));
    bench.end(errors, (0..LEN).step_by(1_000)).await;
    bench
        .append(errors, vec![record("http://t0", Some(503))])
        .await;
    let counted = bench.whole().await;
    assert_eq!((counted.looked_at, bench.census.read_len), (LEN - 99, 1));
    println!("{LEN} open records: first count {first:?}, next {second:?}");
    // Without optimisation, beside all other tests.
    assert!(second.as_secs() < 5, "{second:?}");
}

/// A time that no test comes near.
const LATER: Timestamp = Timestamp(1_800_000_000_000_000);
