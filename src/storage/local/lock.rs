//! Locks between threads, which survive a panic of their holder, and the lock of the data directory.
//!
//! After a panic under a lock, later holders use the value as the panic left it. A panic of the writer stops the log, so
//! nothing is stored on top of a value that may be half changed.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use super::{OpenError, disk};

/// More bytes than a process number has.
const NOTE_BYTES_MAX: u64 = 32;

pub(in crate::storage) fn mutex<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(in crate::storage) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

pub(in crate::storage) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a directory and those above it, so that they survive a loss of power.
fn make_dir(dir: &Path) -> io::Result<()> {
    let parent = match dir.parent() {
        None => return Ok(()),
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
    };
    if dir.exists() {
        return Ok(());
    }
    make_dir(parent)?;
    match disk::make_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => disk::open_dir(parent)?.sync_all(),
    }
}

/// A directory taken for this process until it is dropped.
#[derive(Debug)]
pub(in crate::storage) struct DirLock {
    pub(in crate::storage) file: File,
    /// A second lock on the directory itself, because an operator may remove a lock file that looks forgotten.
    pub(in crate::storage) dir: Option<File>,
}

impl Drop for DirLock {
    /// Closing the files is not enough. A child that another thread starts at this moment has the same open files until it
    /// runs its program, and they keep the lock.
    fn drop(&mut self) {
        for file in [Some(&self.file), self.dir.as_ref()].into_iter().flatten() {
            if let Err(error) = file.unlock() {
                tracing::debug!(%error, "cannot give the lock back; the end of the process does");
            }
        }
    }
}

/// Takes the directory for this process.
pub(in crate::storage) fn take_dir(dir: &Path) -> Result<DirLock, OpenError> {
    let path = dir.join("LOCK");
    let failed = |source: io::Error| OpenError::Io {
        what: "take the lock",
        path: path.clone(),
        source,
    };
    make_dir(dir).map_err(failed)?;
    let mut options = disk::private();
    options.read(true).write(true).create(true).truncate(false);
    let mut file = disk::open(&mut options, &path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(OpenError::InUse {
                dir: dir.into(),
                pid: noted(&mut file),
            });
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    let held = disk::open_dir(dir).map_err(failed)?;
    let held = match held.try_lock() {
        Ok(()) => Some(held),
        Err(TryLockError::WouldBlock) => {
            return Err(OpenError::InUse {
                dir: dir.into(),
                pid: None,
            });
        }
        // Some network file systems lock files only.
        Err(TryLockError::Error(error)) => {
            tracing::debug!(%error, "the directory itself cannot be locked");
            None
        }
    };
    // The number only improves the error of a second process, so a failure to write it is ignored.
    if let Err(error) = note(&mut file) {
        tracing::debug!(%error, "cannot note the process in the lock file");
    }
    Ok(DirLock { file, dir: held })
}

/// Returns whether another process holds the lock of a directory, which may be absent. Creates nothing.
pub(in crate::storage) fn is_taken(dir: &Path) -> Result<bool, OpenError> {
    let path = dir.join("LOCK");
    match disk::open(OpenOptions::new().read(true), &path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(OpenError::io("take the lock", &path, error)),
        // Closing the file gives the lock back at once.
        Ok(file) => Ok(matches!(
            file.try_lock_shared(),
            Err(TryLockError::WouldBlock)
        )),
    }
}

/// Writes this process's number to the lock file, unless the file is a second name (hard link) of another file.
fn note(file: &mut File) -> io::Result<()> {
    let found = file.metadata()?;
    let is_ours = found.is_file() && found.nlink() == 1 && found.len() <= NOTE_BYTES_MAX;
    if !is_ours {
        return Err(io::Error::other("it is no lock file of ours"));
    }
    let pid = format!("{}\n", std::process::id());
    file.set_len(0)?;
    file.write_all(pid.as_bytes())
}

/// Returns the process number in the lock file.
fn noted(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(NOTE_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
