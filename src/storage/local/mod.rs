//! One directory with a journal: the parts of the embedded engine. One process uses a directory at a time.
//!
//! ```text
//! DIR/LOCK                      locked while a process has the directory open
//! DIR/journal/0000000001.seg    files of the journal; they hold all data
//! DIR/journal/spare/            files made ahead of their use, and freed files kept for reuse
//! DIR/index/                    sled: places of the blocks of older files; rebuilt from the journal when it is damaged
//! DIR/damaged/index/            the last damaged index
//! DIR/damaged/NAME.seg          files of the journal as they were when their loss was accepted
//! ```
//!
//! Promises:
//! - An answered commit survives a crash of process and machine. It is on disk, with `fdatasync`, before the answer and
//!   before any reader sees it.
//! - One durable write holds all commits that queued during the last write, and no part of a commit.
//! - Damaged bytes are never read as data. The checksums of frames, blocks, headers and snapshots cover the file's life and
//!   their place. Opening cuts off a torn end; it names any other damage and refuses the directory.
//! - On a full disk the log refuses commits until there is space. Any other failed write stops the log, and reads go on.
//!
//! The folders, from bytes to calls:
//! - `format`: blocks, operations, frames, snapshots and files. `books`: streams, counts and state, the sum of all operations.
//! - `write`: the writer thread. `read`: the newest frames, the index, records. `shared`: the state of both.
//! - `open`: recovery and opening of a directory, and reading one at rest. `making`: a directory made by backup or restore.
//! - `space`: files that are freed, rewritten or made ahead.
//! - `repair`: `verify`, `doctor`, accepting a loss, `backup`.
//! - `proofs`: tests with models, crashes and faults. `disk`, `lock`, `settings`: file system, locks, `[log]`.

pub(super) mod books;
pub(super) mod disk;
pub(super) mod lock;
pub(super) mod making;
mod settings;
pub(super) mod shared;

pub(super) mod format;
pub mod open;
#[cfg(test)]
pub(crate) mod proofs;
pub(super) mod read;
pub mod repair;
pub(super) mod space;
#[cfg(test)]
pub(crate) mod tests;
pub(super) mod write;

use std::{
    io,
    path::{Path, PathBuf},
};

pub use disk::{Disk, DiskFile, RealDisk};
pub use repair::verify::{Verified, verify};
pub use settings::LogSettings;

use crate::runtime::random;

/// The greatest number of partitions of a stream.
pub const PARTITIONS_MAX: u16 = 256;
/// Bound of all records, settlements and state changes of one commit.
pub const COMMIT_BYTES_MAX: usize = 32 << 20;

/// Reason of refusals after the log was closed.
const CLOSED: &str = "it was closed";

/// The directory and the bounds of an engine.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory; made if absent.
    pub dir: PathBuf,
    /// Sizes and bounds.
    pub log: LogSettings,
}

/// Why a directory was not opened. Its journal was not changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses it.
    #[error("{} is in use by another process{}; stop that one, or choose another directory", dir.display(), Pid(*pid))]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// The process, if its number is in the lock file.
        pid: Option<u32>,
    },
    /// A newer release has written it.
    #[error("{} has format version {found}, this release reads versions up to {known}; start a newer release, nothing was changed", file.display())]
    NewerFormat {
        /// The file of that format.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version known here.
        known: u32,
    },
    /// Bytes that were stored have changed, or a file is missing.
    #[error("{} is damaged at byte {at}: {what}; nothing was changed. `syncgate doctor` says what is lost; restore the directory from a backup, or go on without that: `syncgate doctor --data {} --accept-loss {}`", file.display(), data_dir_of(file).display(), file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Position of the first bad byte, or of the frame that holds it.
        at: u64,
        /// Description of the damage.
        what: &'static str,
    },
    /// A restore into this directory has not moved its journal here yet.
    #[error("a restore into {} was cut off or is under way, and nothing else is there; restore the copy again: `syncgate backup restore COPY --data {}`", .0.display(), .0.display())]
    RestoreCutOff(PathBuf),
    /// The system refused.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// The failed action.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

impl OpenError {
    fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            what,
            path: path.into(),
            source,
        }
    }

    fn damaged(file: &Path, at: u64, what: format::codec::Malformed) -> Self {
        Self::Damaged {
            file: file.into(),
            at,
            what: what.0,
        }
    }
}

/// Returns the data directory of a journal file.
fn data_dir_of(file: &Path) -> &Path {
    let dir = file.parent().and_then(Path::parent);
    let dir = dir.filter(|dir| !dir.as_os_str().is_empty());
    dir.unwrap_or(Path::new("."))
}

pub(in crate::storage) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    random::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes)
}

struct Pid(Option<u32>);

impl std::fmt::Display for Pid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(pid) => write!(f, " ({pid})"),
            None => Ok(()),
        }
    }
}
