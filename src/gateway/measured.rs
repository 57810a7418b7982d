//! A disk that is watched: how long syncs take, how much is written.

use std::{io, path::Path, time::Instant};

use prometheus_client::metrics::{counter::Counter, histogram::Histogram};

use crate::{
    runtime::latency,
    storage::local::{Disk, DiskFile, RealDisk},
};

/// The disk of this machine, measured.
#[derive(Clone, Debug)]
pub(super) struct MeasuredDisk {
    disk: RealDisk,
    pub(super) sync_seconds: Histogram,
    pub(super) written_bytes: Counter,
}

impl Default for MeasuredDisk {
    fn default() -> Self {
        Self {
            disk: RealDisk,
            sync_seconds: latency::histogram(),
            written_bytes: Counter::default(),
        }
    }
}

impl MeasuredDisk {
    fn measured(&self, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(MeasuredFile {
            file,
            sync_seconds: self.sync_seconds.clone(),
            written_bytes: self.written_bytes.clone(),
        })
    }
}

impl Disk for MeasuredDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.disk.create(path).map(|file| self.measured(file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.disk.open(path).map(|file| self.measured(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.disk.free_bytes(dir)
    }

    fn file_bytes(&self, path: &Path) -> io::Result<u64> {
        self.disk.file_bytes(path)
    }
}

#[derive(Debug)]
struct MeasuredFile {
    file: Box<dyn DiskFile>,
    sync_seconds: Histogram,
    written_bytes: Counter,
}

impl DiskFile for MeasuredFile {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.file.read_at(buffer, at)
    }

    fn read_onto(&self, out: &mut Vec<u8>, len: usize, at: u64) -> io::Result<usize> {
        self.file.read_onto(out, len, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        let written = self.file.write_at(bytes, at)?;
        self.written_bytes.inc_by(written as u64);
        Ok(written)
    }

    fn sync_data(&self) -> io::Result<()> {
        let start = Instant::now();
        self.file.sync_data()?;
        self.sync_seconds.observe(start.elapsed().as_secs_f64());
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }
}
