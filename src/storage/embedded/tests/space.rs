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
    place::Partition,
    storage::{
        CommitError, Health, Log,
        embedded::{Disk, DiskFile, Embedded, Options, RealDisk},
    },
};

use super::{Bench, append, appends};

/// The real disk, which refuses new files while it is full.
#[derive(Debug, Default)]
struct FullDisk {
    full: AtomicBool,
    refused_len: AtomicUsize,
}

impl Disk for FullDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        if self.full.load(Ordering::Relaxed) {
            self.refused_len.fetch_add(1, Ordering::Relaxed);
            return Err(io::ErrorKind::StorageFull.into());
        }
        RealDisk.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        RealDisk.open(path)
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
    let options = Options {
        dir: bench.dir.path().into(),
        log: bench.log.clone(),
    };
    bench.engine = Some(Embedded::open(options, disk.clone(), bench.clock.clone()).unwrap());
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
