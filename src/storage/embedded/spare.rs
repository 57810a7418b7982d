//! Files made ready before the writer needs them, and how one becomes a file of the journal.
//!
//! Their bytes are written as zeros ahead, so that `fdatasync` of a frame never has to change a file's metadata: a
//! growing file costs about twice the latency from 9 KB a frame on.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    disk::{Disk, DiskFile},
    lock,
    segment::{self, Files, SNAPSHOT_AT, SegmentHeader},
};

const ZEROS_LEN: usize = 1 << 20;
const READY: &str = ".ready";
const MAKING: &str = ".new";

/// The files in `journal/spare`.
#[derive(Debug)]
pub(super) struct Spares {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    ready: Mutex<Vec<Spare>>,
    next_name: AtomicU64,
}

/// A file full of zeros, or of frames of an older life.
#[derive(Debug)]
pub(super) struct Spare {
    path: PathBuf,
    len: u64,
}

impl Spares {
    /// Finds what an earlier run has left; half-made files are removed.
    pub(super) fn open(disk: Arc<dyn Disk>, dir: PathBuf) -> io::Result<Self> {
        disk.create_dir_all(&dir)?;
        let mut ready = Vec::new();
        for name in disk.list(&dir)? {
            let path = dir.join(&name);
            if name.ends_with(READY) {
                let len = disk.open(&path)?.len()?;
                ready.push(Spare { path, len });
            } else if name.ends_with(MAKING) {
                disk.remove(&path)?;
            }
        }
        Ok(Self {
            disk,
            dir,
            ready: Mutex::new(ready),
            next_name: AtomicU64::new(0),
        })
    }

    /// Returns whether a file of that length is ready.
    pub(super) fn is_ready(&self, len: u64) -> bool {
        lock::mutex(&self.ready)
            .iter()
            .any(|spare| spare.len >= len)
    }

    /// Makes a file ready; `go_on` is asked after each step, a `false` gives up.
    pub(super) fn prepare(&self, len: u64, go_on: impl FnMut() -> bool) -> io::Result<()> {
        if let Some(spare) = self.make(len, go_on)? {
            self.put_back(spare);
        }
        Ok(())
    }

    /// Returns a file of at least that length; one that is too short is made longer. `go_on` as in [`Spares::prepare`].
    pub(super) fn take(&self, len: u64, go_on: impl FnMut() -> bool) -> io::Result<Spare> {
        let found = {
            let mut ready = lock::mutex(&self.ready);
            let fits = ready.iter().position(|spare| spare.len >= len);
            let any = ready.len().checked_sub(1);
            fits.or(any).map(|at| ready.swap_remove(at))
        };
        if let Some(mut spare) = found {
            if spare.len < len {
                let file = self.disk.open(&spare.path)?;
                self.fill(&*file, &spare.path, spare.len..len, go_on)?;
                spare.len = len;
            }
            return Ok(spare);
        }
        let made = self.make(len, go_on)?;
        made.ok_or_else(|| io::ErrorKind::Interrupted.into())
    }

    /// Keeps a file for the next time.
    pub(super) fn put_back(&self, spare: Spare) {
        lock::mutex(&self.ready).push(spare);
    }

    /// Makes a file of the journal of a spare one: header and snapshot are durable then, its name is after
    /// [`Spares::sync_names`].
    pub(super) fn name(
        &self,
        spare: &Spare,
        files: &Files,
        header: &SegmentHeader,
        snapshot: &[u8],
    ) -> io::Result<(Arc<dyn DiskFile>, u64)> {
        let file: Arc<dyn DiskFile> = Arc::from(self.disk.open(&spare.path)?);
        let mut head = header.encode();
        head.extend_from_slice(snapshot);
        head.resize(super::codec::to_usize(header.frames_at()), 0);
        debug_assert!(head.len() as u64 >= SNAPSHOT_AT);
        segment::write_all(&*file, &head, 0).map_err(|(error, _)| error)?;
        file.sync_data()?;
        self.disk.rename(&spare.path, &files.path(header.number))?;
        Ok((file, spare.len))
    }

    /// Makes durable which files have left the spare ones for the journal.
    pub(super) fn sync_names(&self, files: &Files) -> io::Result<()> {
        self.disk.sync_dir(files.dir())?;
        self.disk.sync_dir(&self.dir)
    }

    fn make(&self, len: u64, go_on: impl FnMut() -> bool) -> io::Result<Option<Spare>> {
        // Names of an earlier run may still be there; each failure tries the next number.
        let (making, file) = loop {
            let number = self.next_name.fetch_add(1, Ordering::Relaxed);
            let ready = self.dir.join(format!("{number}{READY}"));
            if lock::mutex(&self.ready).iter().any(|s| s.path == ready) {
                continue;
            }
            let path = self.dir.join(format!("{number}{MAKING}"));
            match self.disk.create(&path) {
                Ok(file) => break (path, file),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        };
        if !self.fill(&*file, &making, 0..len, go_on)? {
            return Ok(None);
        }
        let path = making.with_extension(&READY[1..]);
        if let Err(error) = self.disk.rename(&making, &path) {
            // Each later try makes another file: what nobody uses must not take the space that they need.
            self.remove(&making);
            return Err(error);
        }
        Ok(Some(Spare { path, len }))
    }

    /// Writes zeros; removes the file if that fails or is given up.
    fn fill(
        &self,
        file: &dyn DiskFile,
        path: &std::path::Path,
        range: std::ops::Range<u64>,
        go_on: impl FnMut() -> bool,
    ) -> io::Result<bool> {
        let filled = write_zeros(file, range, go_on);
        if !matches!(filled, Ok(true)) {
            self.remove(path);
        }
        filled
    }

    fn remove(&self, path: &std::path::Path) {
        if let Err(error) = self.disk.remove(path) {
            tracing::debug!(%error, "cannot remove a file that could not be made ready");
        }
    }
}

/// Makes a range of a file zeros, durably; `false` if `go_on` has given up.
pub(super) fn write_zeros(
    file: &dyn DiskFile,
    range: std::ops::Range<u64>,
    mut go_on: impl FnMut() -> bool,
) -> io::Result<bool> {
    let zeros = vec![0; ZEROS_LEN];
    let mut at = range.start;
    while at < range.end {
        let len = super::codec::to_usize((range.end - at).min(ZEROS_LEN as u64));
        segment::write_all(file, &zeros[..len], at).map_err(|(error, _)| error)?;
        at += len as u64;
        if !go_on() {
            return Ok(false);
        }
    }
    file.sync_data()?;
    Ok(true)
}
