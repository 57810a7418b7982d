//! One directory with a journal: the parts on which the embedded engine stands. One process works with it at a time.
//!
//! ```text
//! DIR/LOCK                      taken while a process has the directory open
//! DIR/journal/0000000001.seg    files of the journal; everything that is known is in here
//! DIR/journal/spare/            files made ready ahead, new ones and such that nobody needs any more
//! DIR/index/                    sled: where the blocks of older files are; made anew whenever it is not good
//! DIR/damaged/index/            the last index that was not
//! DIR/damaged/NAME.seg          files of the journal as they were when their loss was accepted
//! ```
//!
//! What it promises:
//! - An answered commit survives a crash of process and machine: it is on disk, with `fdatasync`, before the answer, and
//!   before any reader sees it.
//! - One durable write holds all commits that queued during the last one, whole ones only.
//! - Nothing that is damaged is taken for data: frames, blocks, headers and snapshots have checksums that begin with the
//!   file's life and their place. A torn end is cut off at open; any other damage is named and refused.
//! - A full disk refuses and goes on later. Any other failed write stops the log, and reads go on.
//!
//! The parts, from bytes to calls:
//! - `format`: blocks, operations, frames, snapshots and files. `books`: what all operations add up to.
//! - `write`: the one thread that stores. `read`: the newest frames, the index, records. `shared`: what both see.
//! - `open`: a directory from its lock to its threads, and looks that change nothing.
//! - `space`: files that are freed, written again or made ahead.
//! - `repair`: `verify`, `doctor`, going on without what is lost, `backup`.
//! - `proofs`: models, crashes and faults, for tests.

pub(super) mod books;
pub(super) mod disk;
pub(super) mod lock;
pub(super) mod making;
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

use crate::{config::LogSettings, runtime::random};

/// The greatest number of partitions of a stream.
pub const PARTITIONS_MAX: u16 = 256;
/// What records, ends and state of one commit may take together.
pub const COMMIT_BYTES_MAX: usize = 32 << 20;

/// Reason of refusals after the end.
const CLOSED: &str = "it was closed";

/// Where the engine keeps its files, and its bounds.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory; made if absent.
    pub dir: PathBuf,
    /// Sizes and bounds.
    pub log: LogSettings,
}

/// Why a directory was not opened. The journal in it was not changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process works with it.
    #[error("{} is in use by another process{}; stop that one, or choose another directory", dir.display(), Pid(*pid))]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// The process, if it has left its number.
        pid: Option<u32>,
    },
    /// A newer release has written it.
    #[error("{} has format version {found}, this release reads versions up to {known}; start a newer release, nothing was changed", file.display())]
    NewerFormat {
        /// The file that says so.
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
        /// Position of the first bad byte, or of what holds it.
        at: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// A restore was begun here, and its journal is not there yet.
    #[error("a restore into {} was cut off or is under way, and nothing else is there; restore the copy again: `syncgate backup restore COPY --data {}`", .0.display(), .0.display())]
    RestoreCutOff(PathBuf),
    /// The system refused.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// What the system said.
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

/// Returns the data directory that a file of the journal lies in.
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
