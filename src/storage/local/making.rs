//! A directory in the making. It gets its name only when it is whole and durable; otherwise it is removed.
//!
//! ```text
//! DIR.incomplete/                a backup that is being made; renamed to DIR at the end
//! DIR/restore.incomplete/        a restore that is under way; its entries move to DIR at the end, the journal last
//! ```
//!
//! A backup is made beside its target, so that the target's name exists only when the backup is whole. A restore is made
//! inside its target, because a data directory is often the root of a mounted volume, which cannot be renamed. Until the
//! journal has moved, a start refuses such a directory ([`check_settled`]).
//!
//! A killed run leaves the directory behind, and the system frees the lock on the journal in it. The next run sees the free
//! lock, removes the leftover and reports it.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::runtime::files;

use super::{
    OpenError,
    disk::{self, Disk, RealDisk},
    repair::backup::{BackupError, io_error},
};

/// The end of the name of a backup in the making.
const INCOMPLETE: &str = ".incomplete";
/// The directory in which a restore works, inside its target.
const RESTORE: &str = "restore.incomplete";
/// A file that marks a directory in the making until it is whole. A directory of that name without the mark is no leftover,
/// but perhaps a data directory of that name.
const MARK: &str = "incomplete";
/// All names that a directory in the making can have in it.
const NAMES: [&str; 7] = [
    MARK,
    "journal",
    "index",
    "damaged",
    "LOCK",
    "master.key",
    "master.key.new",
];
/// A directory that the root of a mounted disk has by itself.
const LOST_AND_FOUND: &str = "lost+found";
/// Bound of entries that are checked beside a backup.
const NEIGHBOURS_LEN_MAX: usize = 10_000;
/// Bound of leftovers that are reported.
const LEFT_LEN_MAX: usize = 10;

/// A directory in the making. Dropping it removes all of it, unless it was settled.
#[derive(Debug)]
pub(in crate::storage) struct Making {
    /// The directory of the work.
    dir: PathBuf,
    /// The target.
    to: PathBuf,
    is_inside: bool,
    /// Directories that were made for it, the outermost first.
    made: Vec<PathBuf>,
    /// Entries that were moved to the target already.
    moved: Vec<&'static str>,
    /// Held while this process works on the directory.
    _locks: Vec<File>,
    is_whole: bool,
    /// Set if the leftover of a killed run was removed first.
    pub(in crate::storage) replaced: bool,
}

impl Making {
    /// Begins beside a target that is absent or an empty directory.
    pub(in crate::storage) fn beside(to: &Path) -> Result<Self, BackupError> {
        let Some(name) = to.file_name() else {
            return Err(BackupError::NoName(to.into()));
        };
        let parent = parent_of(to);
        // Rebuild the path without a slash at its end, which would follow a link.
        let to = parent.join(name);
        check_place(&to)?;
        let mut making = name.to_owned();
        making.push(INCOMPLETE);
        Self::begin(
            parent.join(making),
            to.clone(),
            false,
            Made::default(),
            None,
        )
    }

    /// Begins inside a target that is absent or an empty directory.
    pub(in crate::storage) fn inside(to: &Path) -> Result<Self, BackupError> {
        let failed = |source| io_error(to, source);
        let mut made = Made::default();
        made.dirs(to).map_err(failed)?;
        // A gateway takes the same lock, so none starts here meanwhile.
        let above = match lock(to) {
            Ok(file) => Some(file),
            Err(TryLockError::WouldBlock) => return Err(BackupError::UnderWay(to.into())),
            // Some network file systems lock files only.
            Err(TryLockError::Error(_)) => None,
        };
        let names = RealDisk.list(to).map_err(failed)?;
        let is_left = names.iter().any(|name| name == RESTORE);
        let is_taken = |name: &String| match &**name {
            RESTORE | LOST_AND_FOUND => false,
            // A run that was killed near its end has moved these already, but not the journal.
            "index" | "master.key" => !is_left,
            _ => true,
        };
        if names.iter().any(is_taken) {
            return Err(BackupError::NotEmpty(to.into()));
        }
        Self::begin(to.join(RESTORE), to.into(), true, made, above)
    }

    fn begin(
        dir: PathBuf,
        to: PathBuf,
        is_inside: bool,
        mut made: Made,
        above: Option<File>,
    ) -> Result<Self, BackupError> {
        let failed = |source| io_error(&dir, source);
        made.dirs(parent_of(&dir)).map_err(failed)?;
        let replaced = fs::symlink_metadata(&dir).is_ok();
        if replaced {
            remove_left(&dir, is_inside)?;
        }
        disk::make_dir(&dir).map_err(failed)?;
        if let Err(source) = disk::private()
            .write(true)
            .create_new(true)
            .open(dir.join(MARK))
        {
            let _removed = fs::remove_dir_all(&dir).is_ok();
            return Err(failed(source));
        }
        let lock = make_locked(&dir.join("journal")).map_err(|source| {
            // This process has just made the directory.
            let _removed = fs::remove_dir_all(&dir).is_ok();
            io_error(&dir, source)
        })?;
        Ok(Self {
            dir,
            to,
            is_inside,
            made: made.take(),
            moved: Vec::new(),
            _locks: [Some(lock), above].into_iter().flatten().collect(),
            is_whole: false,
            replaced,
        })
    }

    /// Returns the directory of the work.
    pub(in crate::storage) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Moves it to its target. Its files must be durable already.
    pub(in crate::storage) fn complete(mut self) -> Result<(), BackupError> {
        let settled = match self.is_inside {
            true => self.move_up(),
            false => self.rename(),
        };
        settled.map_err(|source| io_error(&self.to, source))?;
        self.is_whole = true;
        Ok(())
    }

    fn rename(&mut self) -> io::Result<()> {
        fs::remove_file(self.dir.join(MARK))?;
        RealDisk.sync_dir(&self.dir)?;
        fs::rename(&self.dir, &self.to)?;
        self.dir.clone_from(&self.to);
        RealDisk.sync_dir(parent_of(&self.to))
    }

    fn move_up(&mut self) -> io::Result<()> {
        for name in NAMES {
            let from = self.dir.join(name);
            // The lock file is that of this process; a start makes its own.
            if ![MARK, "journal", "LOCK"].contains(&name) && fs::symlink_metadata(&from).is_ok() {
                let to = self.to.join(name);
                make_way(&from, &to)?;
                fs::rename(&from, to)?;
                self.moved.push(name);
            }
        }
        RealDisk.sync_dir(&self.to)?;
        // The next rename turns the target into a data directory.
        fs::rename(self.dir.join("journal"), self.to.join("journal"))?;
        self.moved.push("journal");
        RealDisk.sync_dir(&self.to)?;
        // Ignore errors: the empty directory and the lock file do not hinder a start.
        let _removed = fs::remove_dir_all(&self.dir).is_ok();
        Ok(())
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if self.is_whole {
            return;
        }
        for name in &self.moved {
            let moved = self.to.join(name);
            let _removed = fs::remove_dir_all(&moved)
                .or_else(|_no_directory| fs::remove_file(&moved))
                .is_ok();
        }
        let _removed = fs::remove_dir_all(&self.dir).is_ok();
        drop(Made(std::mem::take(&mut self.made)));
    }
}

/// Removes an entry that a killed run has moved to `to`. A file that differs from `from` is an error, because it may be the
/// only master key.
fn make_way(from: &Path, to: &Path) -> io::Result<()> {
    match fs::symlink_metadata(to) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(to),
        Ok(_) if is_same(from, to)? => Ok(()),
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Returns whether two key files have the same contents.
fn is_same(one: &Path, other: &Path) -> io::Result<bool> {
    let read = |path| files::read(path, files::VALUE_BYTES_MAX);
    Ok(read(one)? == read(other)?)
}

/// Directories that were made. Dropping it removes the empty ones.
#[derive(Debug, Default)]
struct Made(Vec<PathBuf>);

impl Made {
    /// Makes a directory and those above it that are absent, so that they survive a loss of power.
    fn dirs(&mut self, dir: &Path) -> io::Result<()> {
        let is_missing = |dir: &&Path| !dir.as_os_str().is_empty() && !dir.exists();
        let missing: Vec<_> = dir.ancestors().take_while(is_missing).collect();
        for dir in missing.into_iter().rev() {
            match disk::make_dir(dir) {
                Ok(()) => self.0.push(dir.into()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            RealDisk.sync_dir(parent_of(dir))?;
        }
        Ok(())
    }

    fn take(mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for dir in self.0.iter().rev() {
            // Ignore errors: another process may have put a file there.
            let _removed = fs::remove_dir(dir).is_ok();
        }
    }
}

/// Refuses a directory with an unfinished restore. Its journal is not there yet, and a start would begin another one.
pub(in crate::storage) fn check_settled(dir: &Path) -> Result<(), OpenError> {
    let there = |name| fs::symlink_metadata(dir.join(name)).is_ok();
    match there(RESTORE) && !there("journal") {
        true => Err(OpenError::RestoreCutOff(dir.into())),
        false => Ok(()),
    }
}

/// Returns the leftovers of killed backups beside a target, at most ten.
pub(in crate::storage) fn left_beside(to: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent_of(to)).into_iter().flatten().flatten();
    let dirs = entries.take(NEIGHBOURS_LEN_MAX).map(|entry| entry.path());
    let is_named = |dir: &PathBuf| dir.to_string_lossy().ends_with(INCOMPLETE);
    let is_left = |dir: &PathBuf| {
        let journal = dir.join("journal");
        let is_dir = fs::symlink_metadata(&journal).is_ok_and(|found| found.is_dir());
        let is_marked = fs::symlink_metadata(dir.join(MARK)).is_ok();
        is_marked && is_dir && lock(&journal).is_ok()
    };
    let left = dirs.filter(|dir| is_named(dir) && is_left(dir));
    left.take(LEFT_LEN_MAX).collect()
}

/// Refuses a target that is neither absent nor an empty directory.
fn check_place(to: &Path) -> Result<(), BackupError> {
    let found = match fs::symlink_metadata(to) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error(to, error)),
    };
    if found.is_symlink() {
        return Err(BackupError::Link(to.into()));
    }
    if !found.is_dir() {
        return Err(BackupError::NoDirectory(to.into()));
    }
    let mut names = fs::read_dir(to).map_err(|source| io_error(to, source))?;
    if names.next().is_some() {
        return Err(BackupError::NotEmpty(to.into()));
    }
    // A mount point is refused now, because the rename at the end would fail.
    let parent = fs::metadata(parent_of(to)).map_err(|source| io_error(to, source))?;
    match parent.dev() == found.dev() {
        true => Ok(()),
        false => Err(BackupError::Mounted(to.into())),
    }
}

/// Removes the leftover of a killed run, and refuses any other directory. Only restores use the name of a restore's.
fn remove_left(dir: &Path, is_inside: bool) -> Result<(), BackupError> {
    let failed = |source| io_error(dir, source);
    let foreign = || BackupError::Foreign(dir.into());
    let found = fs::symlink_metadata(dir).map_err(failed)?;
    if !found.is_dir() {
        return Err(foreign());
    }
    let names = RealDisk.list(dir).map_err(failed)?;
    let is_marked = is_inside || names.is_empty() || names.iter().any(|name| name == MARK);
    if !is_marked || !names.iter().all(|name| NAMES.contains(&name.as_str())) {
        return Err(foreign());
    }
    let journal = dir.join("journal");
    if names.iter().any(|name| name == "journal") {
        let _lock = lock(&journal).map_err(|error| match error {
            TryLockError::WouldBlock => BackupError::UnderWay(dir.into()),
            TryLockError::Error(source) => io_error(&journal, source),
        })?;
    }
    fs::remove_dir_all(dir).map_err(failed)
}

/// Makes the journal directory and waits for its lock, which another run may hold while it checks for leftovers.
fn make_locked(journal: &Path) -> io::Result<File> {
    disk::make_dir(journal)?;
    let file = disk::open_dir(journal)?;
    // Some network file systems cannot lock directories. No later run then removes this one.
    let _locked = file.lock().is_ok();
    Ok(file)
}

fn lock(journal: &Path) -> Result<File, TryLockError> {
    let file = disk::open_dir(journal).map_err(TryLockError::Error)?;
    file.try_lock().map(|()| file)
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
