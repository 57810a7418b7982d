//! The log by itself: the engine in this process, beside a bare loop that writes the same bytes in the same pieces.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use syncgate::{
    model::{
        ids::{Offset, PartitionId},
        record::{Headers, Record},
    },
    runtime::clock::Clock,
    storage::local::LogSettings,
    storage::{
        Append, AppendKind, Commit, Log, StreamConfig,
        embedded::Embedded,
        local::{Disk, DiskFile, Options, RealDisk},
    },
};
use tokio::task::JoinSet;

use crate::load::CONNECTIONS;

/// Small, so that a short run writes several files.
const SEGMENT_BYTES: u64 = 16 << 20;
const VALUE_BYTES: usize = 512;
/// Records that retention leaves.
const KEPT_LEN: u64 = 20_000;
/// Commits of one appender, one after the other.
const ALONE_LEN: usize = 400;

/// What one round of the log comes to.
pub struct Round {
    pub rate: f64,
    pub floor_rate: f64,
    /// Bytes given to the system per byte of record, while files are new and when they are used again.
    pub amplification_first: f64,
    pub amplification: f64,
    /// Median of one appender, in µs.
    pub alone: f64,
    pub floor_alone: f64,
}

/// The real disk; notes the lengths of frames.
#[derive(Debug, Default, Clone)]
struct Noting {
    frames: Arc<Mutex<Vec<usize>>>,
    on: Arc<AtomicBool>,
}

#[derive(Debug)]
struct NotingFile {
    file: Box<dyn DiskFile>,
    notes: Noting,
}

impl Noting {
    fn wrap(&self, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        let notes = self.clone();
        Box::new(NotingFile { file, notes })
    }
}

impl Disk for Noting {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        RealDisk.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        RealDisk.open(path).map(|file| self.wrap(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(dir)
    }
}

impl DiskFile for NotingFile {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.file.read_at(buffer, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        if self.notes.on.load(Ordering::Relaxed) {
            self.notes.frames.lock().unwrap().push(bytes.len());
        }
        self.file.write_at(bytes, at)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }
}

pub async fn round(time: Duration) -> Round {
    let dir = tempfile::tempdir().unwrap();
    let notes = Noting::default();
    let options = Options {
        dir: dir.path().join("data"),
        log: LogSettings {
            segment_bytes: SEGMENT_BYTES,
            ..LogSettings::default()
        },
    };
    let engine = Embedded::open(options, Arc::new(notes.clone()), Clock::system()).unwrap();
    let stream = engine
        .create_stream("Figures".parse().unwrap(), 1, StreamConfig::default())
        .await
        .unwrap();
    let of = stream.all_partitions().next().unwrap();

    // Files are new until as many are written as retention and the writer need.
    let before = written();
    let first_len = append_many(&engine, of, Until::Bytes(5 * SEGMENT_BYTES)).await;
    let amplification_first = (written() - before) as f64 / (first_len * VALUE_BYTES as u64) as f64;

    notes.on.store(true, Ordering::Relaxed);
    let (before, begun) = (written(), Instant::now());
    let len = append_many(&engine, of, Until::Time(time)).await;
    let took = begun.elapsed();
    notes.on.store(false, Ordering::Relaxed);
    let amplification = (written() - before) as f64 / (len * VALUE_BYTES as u64) as f64;

    let mut alone = Vec::new();
    for _ in 0..ALONE_LEN {
        let begun = Instant::now();
        append_one(&engine, of).await;
        alone.push(begun.elapsed());
    }
    engine.close().await;
    drop(engine);

    let frames = std::mem::take(&mut *notes.frames.lock().unwrap());
    let file = ready_file(&dir.path().join("floor"));
    let floor = write_all(&file, &frames);
    let floor_alone = write_each(&file, ALONE_LEN);
    Round {
        rate: len as f64 / took.as_secs_f64(),
        floor_rate: len as f64 / floor.as_secs_f64(),
        amplification_first,
        amplification,
        alone: median_micros(alone),
        floor_alone: median_micros(floor_alone),
    }
}

enum Until {
    Bytes(u64),
    Time(Duration),
}

/// 64 appenders at once, each one record after the other, while what is old is removed; returns how many records.
async fn append_many(engine: &Arc<Embedded>, of: PartitionId, until: Until) -> u64 {
    let count = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let goes_on = Arc::new(move |count: u64| match until {
        Until::Bytes(bytes) => count * (VALUE_BYTES as u64) < bytes,
        Until::Time(time) => begun.elapsed() < time,
    });
    let mut appenders = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (engine, count, goes_on) = (engine.clone(), count.clone(), goes_on.clone());
        appenders.spawn(async move {
            while goes_on(count.fetch_add(1, Ordering::Relaxed)) {
                let offset = append_one(&engine, of).await;
                if offset.0 % (KEPT_LEN / 2) == 0 {
                    let below = Offset(offset.0.saturating_sub(KEPT_LEN));
                    engine.trim(of, below).await.unwrap();
                }
            }
        });
    }
    while let Some(ended) = appenders.join_next().await {
        ended.unwrap();
    }
    count.load(Ordering::Relaxed) - CONNECTIONS as u64
}

async fn append_one(engine: &Embedded, of: PartitionId) -> Offset {
    let record = Record {
        key: "key".into(),
        value: vec![b'x'; VALUE_BYTES].into(),
        headers: Headers::default(),
    };
    let append = Append {
        of,
        records: vec![record],
        kind: AppendKind::Accepted,
        refers: Vec::new(),
    };
    let commit = Commit {
        appends: vec![append],
        ..Commit::default()
    };
    engine.commit(commit).await.unwrap().appends[0].first
}

/// A file whose bytes are written, so that no sync of it has to change more than them.
fn ready_file(path: &Path) -> File {
    let file = File::options()
        .create_new(true)
        .write(true)
        .open(path)
        .unwrap();
    for at in (0..SEGMENT_BYTES).step_by(1 << 20) {
        file.write_all_at(&vec![0; 1 << 20], at).unwrap();
    }
    file.sync_all().unwrap();
    file
}

/// Writes and syncs one piece after the other, over and over the same file.
fn write_all(file: &File, lens: &[usize]) -> Duration {
    let bytes = vec![b'x'; lens.iter().copied().max().unwrap_or_default()];
    let begun = Instant::now();
    let mut place = 0;
    for len in lens {
        if place + *len as u64 > SEGMENT_BYTES {
            place = 0;
        }
        file.write_all_at(&bytes[..*len], place).unwrap();
        file.sync_data().unwrap();
        place += *len as u64;
    }
    begun.elapsed()
}

fn write_each(file: &File, count: usize) -> Vec<Duration> {
    let bytes = [b'x'; VALUE_BYTES + 128];
    let one = |at| {
        let begun = Instant::now();
        file.write_all_at(&bytes, (at * bytes.len()) as u64)
            .unwrap();
        file.sync_data().unwrap();
        begun.elapsed()
    };
    (0..count).map(one).collect()
}

fn median_micros(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e6
}

/// Bytes that this process has given to the system to write, in all.
fn written() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    line.unwrap().parse().unwrap()
}
