//! Spare files, made before the writer needs them, and their change into journal files.
//!
//! Spare files are filled with zeros ahead, so that the `fdatasync` of a frame changes no metadata of the file. In a growing
//! file a frame of 9 KB or more has about twice the latency.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::storage::local::{
    disk::{Disk, DiskFile},
    format::segment::{self, Files, SNAPSHOT_AT, SegmentHeader},
    lock,
};

const ZEROS_LEN: usize = 1 << 20;
const READY: &str = ".ready";
const MAKING: &str = ".new";
const RESERVE: &str = ".reserve";
/// Most that is kept for ends, and copies of failed records, when nothing else fits on the disk any more: ends of a
/// hundred thousand records, or 15 of the longest records.
const RESERVE_BYTES_MAX: u64 = 16 << 20;
/// Files that are kept for the writer; what is freed beyond is removed.
const READY_LEN_MAX: usize = 2;

/// The files in `journal/spare`.
#[derive(Debug)]
pub(in crate::storage) struct Spares {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    ready: Mutex<Vec<Spare>>,
    reserve: Mutex<Option<Spare>>,
    reserve_bytes: u64,
    next_name: AtomicU64,
}

/// A file full of zeros, or of frames of an older life. It is open, so that the journal can go on when this process has no
/// file descriptor left.
#[derive(Debug)]
pub(in crate::storage) struct Spare {
    path: PathBuf,
    len: u64,
    file: Arc<dyn DiskFile>,
}

impl Spare {
    fn of(disk: &dyn Disk, path: PathBuf) -> io::Result<Self> {
        let file: Arc<dyn DiskFile> = Arc::from(disk.open(&path)?);
        Ok(Self {
            path,
            len: file.len()?,
            file,
        })
    }
}

impl Spares {
    /// Finds what an earlier run has left; half-made files are removed.
    pub(in crate::storage) fn open(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        segment_bytes: u64,
    ) -> io::Result<Self> {
        disk.create_dir_all(&dir)?;
        let mut ready = Vec::new();
        let mut reserve = None;
        let mut next_name = 0;
        for name in disk.list(&dir)? {
            let path = dir.join(&name);
            let number = name
                .split('.')
                .next()
                .and_then(|number| number.parse().ok());
            next_name = next_name.max(number.map_or(0, |number: u64| number.saturating_add(1)));
            if name.ends_with(READY) {
                ready.push(Spare::of(&*disk, path)?);
            } else if name.ends_with(RESERVE) && reserve.is_none() {
                reserve = Some(Spare::of(&*disk, path)?);
            } else if name.ends_with(MAKING) || name.ends_with(RESERVE) {
                disk.remove(&path)?;
            }
        }
        Ok(Self {
            disk,
            dir,
            ready: Mutex::new(ready),
            reserve: Mutex::new(reserve),
            reserve_bytes: segment_bytes.min(RESERVE_BYTES_MAX),
            next_name: AtomicU64::new(next_name),
        })
    }

    /// Returns whether a file of that length is ready.
    pub(in crate::storage) fn is_ready(&self, len: u64) -> bool {
        lock::mutex(&self.ready)
            .iter()
            .any(|spare| spare.len >= len)
    }

    /// Returns how much is kept for ends and copies.
    pub(in crate::storage) fn reserve_bytes(&self) -> u64 {
        self.reserve_bytes
    }

    /// Returns whether that is there.
    pub(in crate::storage) fn has_reserve(&self) -> bool {
        lock::mutex(&self.reserve).is_some()
    }

    /// Makes the reserve, if there is none; `go_on` as in [`Spares::prepare`].
    pub(in crate::storage) fn prepare_reserve(
        &self,
        go_on: impl FnMut() -> bool,
    ) -> io::Result<()> {
        if self.has_reserve() {
            return Ok(());
        }
        if let Some(spare) = self.make(self.reserve_bytes, RESERVE, go_on)? {
            self.put_back_reserve(spare);
        }
        Ok(())
    }

    /// Returns the reserve, if it is at least that long.
    pub(in crate::storage) fn take_reserve(&self, len: u64) -> Option<Spare> {
        lock::mutex(&self.reserve).take_if(|spare| spare.len >= len)
    }

    /// Keeps the reserve for the next time.
    pub(in crate::storage) fn put_back_reserve(&self, spare: Spare) {
        *lock::mutex(&self.reserve) = Some(spare);
    }

    /// Makes a file ready; `go_on` is asked after each step, a `false` gives up.
    pub(in crate::storage) fn prepare(
        &self,
        len: u64,
        go_on: impl FnMut() -> bool,
    ) -> io::Result<()> {
        if let Some(spare) = self.make(len, READY, go_on)? {
            self.put_back(spare);
        }
        Ok(())
    }

    /// Returns a file of at least that length; one that is too short is made longer. `go_on` as in [`Spares::prepare`].
    pub(in crate::storage) fn take(
        &self,
        len: u64,
        go_on: impl FnMut() -> bool,
    ) -> io::Result<Spare> {
        let found = {
            let mut ready = lock::mutex(&self.ready);
            let fits = ready.iter().position(|spare| spare.len >= len);
            let any = ready.len().checked_sub(1);
            fits.or(any).map(|at| ready.swap_remove(at))
        };
        if let Some(mut spare) = found {
            if spare.len < len {
                self.fill(&*spare.file, &spare.path, spare.len..len, go_on)?;
                spare.len = len;
            }
            return Ok(spare);
        }
        let made = self.make(len, READY, go_on)?;
        made.ok_or_else(|| io::ErrorKind::Interrupted.into())
    }

    /// Takes a file out of the journal, durably; returns whether it is kept.
    ///
    /// After an error it may be in the journal or not; what it was is in it until it is used again.
    pub(in crate::storage) fn take_back(
        &self,
        files: &Files,
        number: u64,
        segment_bytes: u64,
    ) -> io::Result<bool> {
        let from = files.path(number);
        let file: Arc<dyn DiskFile> = Arc::from(self.disk.open(&from)?);
        let len = file.len()?;
        let fits = (segment_bytes..2 * segment_bytes).contains(&len);
        if !fits || lock::mutex(&self.ready).len() >= READY_LEN_MAX {
            self.disk.remove(&from)?;
            self.disk.sync_dir(files.dir())?;
            return Ok(false);
        }
        let path = self.dir.join(format!("{}{READY}", self.next_name()));
        self.disk.rename(&from, &path)?;
        self.sync_names(files)?;
        self.put_back(Spare { path, len, file });
        Ok(true)
    }

    /// Makes an empty file.
    pub(in crate::storage) fn create(&self) -> io::Result<(Spare, Arc<dyn DiskFile>)> {
        let path = self.dir.join(format!("{}{MAKING}", self.next_name()));
        let file: Arc<dyn DiskFile> = Arc::from(self.disk.create(&path)?);
        let spare = Spare {
            path,
            len: 0,
            file: file.clone(),
        };
        Ok((spare, file))
    }

    /// Gives a file the name of one of the journal, which it replaces; durable after [`Spares::sync_names`].
    pub(in crate::storage) fn rename(&self, spare: &Spare, to: &std::path::Path) -> io::Result<()> {
        self.disk.rename(&spare.path, to)
    }

    /// Removes a file.
    pub(in crate::storage) fn discard(&self, spare: &Spare) {
        self.remove(&spare.path);
    }

    /// A number that no file here has in its name.
    fn next_name(&self) -> u64 {
        self.next_name.fetch_add(1, Ordering::Relaxed)
    }

    /// Keeps a file for the next time.
    pub(in crate::storage) fn put_back(&self, spare: Spare) {
        lock::mutex(&self.ready).push(spare);
    }

    /// Makes a file of the journal of a spare one: header and snapshot are durable then, its name is after
    /// [`Spares::sync_names`].
    pub(in crate::storage) fn name(
        &self,
        spare: &Spare,
        files: &Files,
        header: &SegmentHeader,
        snapshot: &[u8],
    ) -> io::Result<(Arc<dyn DiskFile>, u64)> {
        let file = spare.file.clone();
        let mut head = header.encode();
        head.extend_from_slice(snapshot);
        head.resize(
            crate::storage::local::format::codec::to_usize(header.frames_at()),
            0,
        );
        debug_assert!(head.len() as u64 >= SNAPSHOT_AT);
        segment::write_all(&*file, &head, 0).map_err(|(error, _)| error)?;
        file.sync_data()?;
        self.disk.rename(&spare.path, &files.path(header.number))?;
        Ok((file, spare.len))
    }

    /// Makes durable which files have left the spare ones for the journal.
    pub(in crate::storage) fn sync_names(&self, files: &Files) -> io::Result<()> {
        self.disk.sync_dir(files.dir())?;
        self.disk.sync_dir(&self.dir)
    }

    fn make(&self, len: u64, kind: &str, go_on: impl FnMut() -> bool) -> io::Result<Option<Spare>> {
        let making = self.dir.join(format!("{}{MAKING}", self.next_name()));
        let file: Arc<dyn DiskFile> = Arc::from(self.disk.create(&making)?);
        if !self.fill(&*file, &making, 0..len, go_on)? {
            return Ok(None);
        }
        let path = making.with_extension(&kind[1..]);
        if let Err(error) = self.disk.rename(&making, &path) {
            // Each later try makes another file: what nobody uses must not take the space that they need.
            self.remove(&making);
            return Err(error);
        }
        Ok(Some(Spare { path, len, file }))
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
pub(in crate::storage) fn write_zeros(
    file: &dyn DiskFile,
    range: std::ops::Range<u64>,
    mut go_on: impl FnMut() -> bool,
) -> io::Result<bool> {
    let zeros = vec![
        0;
        crate::storage::local::format::codec::to_usize(
            (range.end - range.start).min(ZEROS_LEN as u64)
        )
    ];
    let mut at = range.start;
    while at < range.end {
        let len =
            crate::storage::local::format::codec::to_usize((range.end - at).min(ZEROS_LEN as u64));
        segment::write_all(file, &zeros[..len], at).map_err(|(error, _)| error)?;
        at += len as u64;
        if !go_on() {
            return Ok(false);
        }
    }
    file.sync_data()?;
    Ok(true)
}
