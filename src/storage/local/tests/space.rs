//! A disk without space for another file.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use crate::{
    model::ids::Partition,
    storage::{
        CommitError, Health, Log,
        embedded::Embedded,
        local::{Disk, DiskFile, Options, RealDisk},
    },
};

use super::{Bench, append, appends};

/// The real disk, which refuses new files while it is full, or the last byte of each frame.
#[derive(Debug, Default)]
struct FullDisk {
    full: AtomicBool,
    refused_len: AtomicUsize,
    cuts: Arc<AtomicBool>,
}

#[derive(Debug)]
struct FullFile {
    file: Box<dyn DiskFile>,
    cuts: Arc<AtomicBool>,
}

impl DiskFile for FullFile {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.file.read_at(buffer, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        match bytes.len() {
            1 if self.cuts.load(Ordering::Relaxed) => Err(io::ErrorKind::StorageFull.into()),
            // A frame with something in it; what takes a frame back is smaller.
            65.. if self.cuts.load(Ordering::Relaxed) => {
                self.file.write_at(&bytes[..bytes.len() - 1], at)
            }
            _ => self.file.write_at(bytes, at),
        }
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

impl FullDisk {
    fn wrap(&self, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        let cuts = self.cuts.clone();
        Box::new(FullFile { file, cuts })
    }
}

fn open(bench: &mut Bench, disk: &Arc<FullDisk>) {
    bench.engine = None;
    let options = Options {
        dir: bench.dir.path().into(),
        log: bench.log.clone(),
    };
    bench.engine = Some(Embedded::open(options, disk.clone(), bench.clock.clone()).unwrap());
}

impl Disk for FullDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        if self.full.load(Ordering::Relaxed) {
            self.refused_len.fetch_add(1, Ordering::Relaxed);
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(self.wrap(RealDisk.create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.wrap(RealDisk.open(path)?))
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

#[tokio::test]
async fn a_start_on_a_full_disk_reads_and_takes_appends_once_there_is_space() {
    let mut bench = Bench::new();
    let stream = bench.stream("orders", 1).await;
    let of = stream.partition(Partition(0)).unwrap();
    bench.append(of, &["a"]).await;
    bench.close().await;
    std::fs::remove_dir_all(bench.dir.path().join("journal/spare")).unwrap();

    let disk = Arc::new(FullDisk::default());
    disk.full.store(true, Ordering::Relaxed);
    open(&mut bench, &disk);
    let engine = bench.engine();
    assert_eq!(*engine.health().borrow(), Health::DiskFull);
    assert_eq!(bench.values(of).await, ["a"]);
    for _ in 0..100 {
        let refused = engine.commit(appends([append(of, &["refused"])])).await;
        assert!(matches!(refused, Err(CommitError::DiskFull)), "{refused:?}");
    }
    // Each try would fill the disk to the brim, so not every commit makes one.
    assert!(disk.refused_len.load(Ordering::Relaxed) < 20);

    disk.full.store(false, Ordering::Relaxed);
    let mut health = engine.health();
    let running = health.wait_for(|health| *health == Health::Running).await;
    drop(running.unwrap());
    bench.append(of, &["b"]).await;
    bench.crash();
    assert_eq!(bench.values(of).await, ["a", "b"]);
}

#[tokio::test]
async fn a_refused_commit_does_not_come_back_if_all_but_a_zero_of_it_was_written() {
    let mut bench = Bench::new();
    let stream = bench.stream("orders", 1).await;
    let of = stream.partition(Partition(0)).unwrap();
    let disk = Arc::new(FullDisk::default());
    // Of every length, so that some frames end in zeros: these are complete without their last byte.
    for len in 1..9 {
        open(&mut bench, &disk);
        disk.cuts.store(true, Ordering::Relaxed);
        let value = "x".repeat(len);
        let refused = bench
            .engine()
            .commit(appends([append(of, &[&value])]))
            .await;
        assert!(matches!(refused, Err(CommitError::DiskFull)), "{refused:?}");
        disk.cuts.store(false, Ordering::Relaxed);
    }
    open(&mut bench, &disk);
    assert!(bench.values(of).await.is_empty());
}
