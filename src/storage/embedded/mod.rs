//! The embedded engine: one process, one directory, one journal.
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
//! The parts, from bytes to calls: `codec`, `block`, `ops`, `frame`, `snapshot`, `segment` are the format; `books` with
//! `finished` and `dedup` is what it adds up to; `limits`, `queue`, `pending`, `alone`, `opened`, `room`, `writer`,
//! `condition` store; `blocks`, `cache`, `index`, `lookup`, `reader` read; `scan`, `recovery`, `opening` open; `verify` goes over
//! all of it, `doctor` says what is damaged, `at_rest` reads without changing, `backup` copies into a directory in the
//! `making`; `salvage`, `fold`, `ranges`, `loss`, `mend`, `mended` go on
//! without what is lost; `usage` says what files are needed for, `reclaim` and `rewrite` give space back; `spare` and
//! `housekeeper` work ahead.

mod alone;
pub mod at_rest;
pub mod backup;
mod block;
mod blocks;
mod books;
mod cache;
mod codec;
mod condition;
mod dedup;
mod disk;
pub mod doctor;
mod engine;
mod exposure;
mod finished;
mod fold;
mod frame;
#[cfg(test)]
pub(crate) mod hands;
mod housekeeper;
mod index;
mod limits;
mod lock;
mod lookup;
mod loss;
mod making;
mod mend;
mod mended;
mod opened;
mod opening;
mod ops;
mod pending;
mod queue;
mod ranges;
mod reader;
mod reclaim;
mod recovery;
mod rewrite;
mod room;
mod salvage;
mod scan;
mod segment;
mod shared;
mod snapshot;
mod spare;
mod usage;
mod verify;
mod writer;

#[cfg(test)]
pub(crate) mod proofs;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    io,
    path::{Path, PathBuf},
};

pub use disk::{Disk, DiskFile, RealDisk};
pub use engine::Embedded;
pub use verify::{Verified, verify};

use crate::{config::LogSettings, random};

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

    fn damaged(file: &Path, at: u64, what: codec::Malformed) -> Self {
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

fn random<const N: usize>() -> io::Result<[u8; N]> {
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
