//! Copies a journal, while its gateway runs or at rest.
//!
//! A copy is a data directory: `verify` and `doctor` read it, and a gateway starts with it. It has the durable data of one
//! moment, because files are copied oldest first, and the newest one up to its last whole frame. Files that the gateway frees
//! meanwhile are left out. A file that it compacts meanwhile is copied in either form, which lead to the same books.
//!
//! A copy gets its name only when it is whole, durable, and was opened once (`making`).

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_util::sync::CancellationToken;

use crate::storage::StateEntry;

use crate::storage::local::{
    OpenError,
    disk::{self, Disk, DiskFile, RealDisk},
    format::{
        codec::to_usize,
        scan::Frames,
        segment::{self, SNAPSHOT_AT, SegmentHeader, file_name, number_of, read_snapshot},
    },
    making::{self, Making},
    open::at_rest::AtRest,
};

/// How often the journal may begin another file during a copy.
const ROUNDS_MAX: usize = 1_000;

/// A copy before its rename. [`Copy::complete`] moves it to its target; dropping it removes it.
#[derive(Debug)]
pub struct Copy {
    making: Making,
    copied: Copied,
    at_rest: AtRest,
}

/// Size of a copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Files of the journal.
    pub files_len: usize,
    /// Bytes of these files.
    pub bytes: u64,
}

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The target is not empty.
    #[error("{} is not empty; choose another directory, nothing was changed", .0.display())]
    NotEmpty(PathBuf),
    /// The target is a file.
    #[error("{} is no directory; choose another name, nothing was changed", .0.display())]
    NoDirectory(PathBuf),
    /// The target is a symbolic link, which may lead to a foreign directory.
    #[error("{} is a link; name the directory that it leads to, or another one; nothing was changed", .0.display())]
    Link(PathBuf),
    /// A mount point cannot be replaced by the copy at the end.
    #[error("{} is the root of a mounted disk; name a directory in it, such as {}; nothing was changed", .0.display(), .0.join("backup").display())]
    Mounted(PathBuf),
    /// The path ends without a name, as `..` does.
    #[error("{} has no name of its own; give the directory's name, nothing was changed", .0.display())]
    NoName(PathBuf),
    /// The target is inside the directory that is copied.
    #[error("{} lies in the data directory itself; choose a directory outside, nothing was changed", .0.display())]
    Within(PathBuf),
    /// There is no journal in the directory.
    #[error("{} holds no journal", .0.display())]
    NoJournal(PathBuf),
    /// Another process makes the same copy.
    #[error("{} is in use by another process", .0.display())]
    UnderWay(PathBuf),
    /// A directory has the name of a leftover but contains other files.
    #[error("{} is in the way, and it is no leftover of a backup; move it away, nothing was changed", .0.display())]
    Foreign(PathBuf),
    /// The caller was stopped.
    #[error("ended by a signal; nothing was left")]
    Stopped,
    /// A file is damaged.
    #[error("{} is damaged at byte {at}; `syncgate doctor` tells more", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where.
        at: u64,
    },
    /// A gateway would not start with the copy.
    #[error("what was copied does not open")]
    Opens(#[source] OpenError),
    /// The journal grew faster than it could be copied.
    #[error("the journal grows faster than it is copied; try again when there is less to do")]
    TooFast,
    /// The system refused a call.
    #[error("cannot copy {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

impl Copy {
    /// Returns the directory in which it is made; files that are put there come along.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.making.dir()
    }

    /// Returns what was copied.
    #[must_use]
    pub fn copied(&self) -> Copied {
        self.copied
    }

    /// Returns every value of state in it whose name begins with `prefix`.
    #[must_use]
    pub fn state(&self, prefix: &str) -> Vec<(Arc<str>, StateEntry)> {
        self.at_rest.state(prefix)
    }

    /// Returns whether the leftover of a killed run was removed first.
    #[must_use]
    pub fn replaced_leftover(&self) -> bool {
        self.making.replaced
    }

    /// Moves the copy to its target.
    ///
    /// # Errors
    /// [`BackupError::Io`]; the copy is then removed.
    pub fn complete(self) -> Result<(), BackupError> {
        self.making.complete()
    }
}

/// Result of the copy of one file.
enum One {
    /// All of it up to the file that follows, or up to its end so far.
    Copied(Part),
    /// The gateway has freed it meanwhile.
    Gone,
}

#[derive(Clone, Copy)]
struct Part {
    bytes: u64,
    /// No frame will follow in it.
    is_whole: bool,
}

/// Copies the journal of `from`, for a directory `to` that must be empty or absent.
///
/// # Errors
/// Each variant of [`BackupError`].
pub fn create(from: &Path, to: &Path, stop: &CancellationToken) -> Result<Copy, BackupError> {
    check_outside(from, to)?;
    let from = from.join("journal");
    // Check for a journal before anything is made.
    if numbers(&from)?.is_empty() {
        return Err(BackupError::NoJournal(from));
    }
    let making = Making::beside(to)?;
    let copied = copy_running(&from, &making.dir().join("journal"), stop)?;
    copy_made(making, copied)
}

/// Refuses a target inside the source directory. It would be lost with the source, and inside its journal it would stop the
/// gateway.
fn check_outside(from: &Path, to: &Path) -> Result<(), BackupError> {
    let absolute = std::path::absolute(to).map_err(|source| io_error(to, source))?;
    // The target and the directories above it may be absent.
    let found = absolute.ancestors().find_map(|dir| dir.canonicalize().ok());
    match (from.canonicalize(), found) {
        (Ok(from), Some(found)) if found.starts_with(&from) => Err(BackupError::Within(to.into())),
        _ => Ok(()),
    }
}

/// Copies a copy, for a data directory `to` that must be empty or absent. Its streams need a new incarnation
/// ([`renew`](super::doctor::renew)) before it is settled.
///
/// # Errors
/// As [`create`].
pub fn restore(from: &Path, to: &Path, stop: &CancellationToken) -> Result<Copy, BackupError> {
    let from = from.join("journal");
    let numbers = numbers(&from)?;
    if numbers.is_empty() {
        return Err(BackupError::NoJournal(from));
    }
    let making = Making::inside(to)?;
    let journal = making.dir().join("journal");
    let mut copied = Copied::default();
    for number in numbers {
        if stop.is_cancelled() {
            return Err(BackupError::Stopped);
        }
        let path = journal.join(file_name(number));
        let written = copy_whole(&from.join(file_name(number)), &path);
        copied.bytes += written.map_err(|source| io_error(&path, source))?;
        copied.files_len += 1;
    }
    sync(&journal)?;
    copy_made(making, copied)
}

/// Returns the leftovers of killed backups beside a target, at most ten.
#[must_use]
pub fn leftovers(to: &Path) -> Vec<PathBuf> {
    making::left_beside(to)
}

/// Opens the copied journal once, as a start would.
fn copy_made(making: Making, copied: Copied) -> Result<Copy, BackupError> {
    let at_rest = AtRest::of(making.dir(), None).map_err(BackupError::Opens)?;
    Ok(Copy {
        making,
        copied,
        at_rest,
    })
}

/// Copies a journal to which a gateway may write meanwhile.
fn copy_running(from: &Path, to: &Path, stop: &CancellationToken) -> Result<Copied, BackupError> {
    let mut parts: BTreeMap<u64, Part> = BTreeMap::new();
    for _ in 0..ROUNDS_MAX {
        let numbers = numbers(from)?;
        let Some((oldest, newest)) = numbers.first().copied().zip(numbers.last().copied()) else {
            return Err(BackupError::NoJournal(from.into()));
        };
        for number in numbers {
            if parts.get(&number).is_some_and(|part| part.is_whole) {
                continue;
            }
            match copy(from, to, number, newest, stop)? {
                One::Copied(part) => drop(parts.insert(number, part)),
                One::Gone => break,
            }
        }
        // Freed since they were copied, or before: what is left has no gaps.
        parts.retain(|number, _| {
            let kept = *number >= oldest;
            if !kept {
                // Ignore errors: the file is not needed and does no harm.
                let _removed = fs::remove_file(to.join(file_name(*number))).is_ok();
            }
            kept
        });
        let is_dense = (oldest..=newest).all(|number| parts.contains_key(&number));
        if is_dense && self::numbers(from)?.last() == Some(&newest) {
            sync(to)?;
            return Ok(Copied {
                files_len: parts.len(),
                bytes: parts.values().map(|part| part.bytes).sum(),
            });
        }
    }
    Err(BackupError::TooFast)
}

/// Copies a file for its owner alone, whatever the mode of the source. Returns its length.
fn copy_whole(from: &Path, to: &Path) -> io::Result<u64> {
    let mut from = disk::open(disk::private().read(true), from)?;
    let mut to = disk::open(disk::private().write(true).create_new(true), to)?;
    io::copy(&mut from, &mut to)
}

fn numbers(journal: &Path) -> Result<Vec<u64>, BackupError> {
    let names = RealDisk
        .list(journal)
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => BackupError::NoJournal(journal.into()),
            _ => io_error(journal, source),
        })?;
    let mut numbers: Vec<_> = names.iter().filter_map(|name| number_of(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn copy(
    from: &Path,
    to: &Path,
    number: u64,
    newest: u64,
    stop: &CancellationToken,
) -> Result<One, BackupError> {
    let path = from.join(file_name(number));
    let failed = |source| io_error(&path, source);
    let damaged = |at| BackupError::Damaged {
        file: path.clone(),
        at,
    };
    let file: Arc<dyn DiskFile> = match RealDisk.open(&path) {
        Ok(file) => Arc::from(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(One::Gone),
        Err(error) => return Err(failed(error)),
    };
    let Some(header) = header_of(&*file).map_err(failed)? else {
        return gone_or(&path, None, damaged(0));
    };
    let snapshot = read_snapshot(&*file, &header).map_err(failed)?;
    let Some(snapshot) = snapshot else {
        return gone_or(&path, Some(&header), damaged(SNAPSHOT_AT));
    };
    let copy_path = to.join(file_name(number));
    let copy_failed = |source| io_error(&copy_path, source);
    // It is there already if the journal went on meanwhile.
    let mut options = disk::private();
    options.write(true).create(true).truncate(true);
    let copy = disk::open(&mut options, &copy_path).map_err(copy_failed)?;
    let mut head = header.encode();
    head.extend_from_slice(&snapshot);
    head.resize(to_usize(header.frames_at()), 0);
    copy.write_all_at(&head, 0).map_err(copy_failed)?;

    let frames_from = |place, number| {
        let frames = Frames::new(file.clone(), header.life, place, number);
        frames.map_err(failed)
    };
    let mut frames = frames_from(header.frames_at(), header.first_frame)?;
    let mut last = false;
    let mut read_again = false;
    while !last {
        if stop.is_cancelled() {
            return Err(BackupError::Stopped);
        }
        let place = frames.place();
        match frames.next().map_err(failed)? {
            Ok(frame) => {
                copy.write_all_at(&frame.bytes, place)
                    .map_err(copy_failed)?;
                last = frame.header.last;
                read_again = false;
            }
            // The writer begins a frame only after the frame before it is whole. So a good frame after a bad one proves damage,
            // unless the bad one was read while it was written.
            Err(_) => match frames.find_behind().map_err(failed)? {
                None => break,
                Some(_) if read_again => {
                    return gone_or(&path, Some(&header), damaged(frames.place()));
                }
                Some(_) => {
                    frames = frames_from(frames.place(), frames.number())?;
                    read_again = true;
                }
            },
        }
    }
    let end = frames.place();
    if !last && number < newest {
        // After a crash a file may lack its seal. The header of the next file has its last frame.
        let next = RealDisk
            .open(&from.join(file_name(number + 1)))
            .map_err(failed)?;
        let next = header_of(&*next).map_err(failed)?;
        let ends = next.is_some_and(|next| next.first_frame == frames.number());
        if !ends {
            return gone_or(&path, Some(&header), damaged(end));
        }
        last = true;
    }
    Ok(One::Copied(Part {
        bytes: end,
        is_whole: last,
    }))
}

/// An unreadable part was freed or compacted meanwhile, or is damaged.
fn gone_or(
    path: &Path,
    read: Option<&SegmentHeader>,
    damaged: BackupError,
) -> Result<One, BackupError> {
    let Ok(file) = RealDisk.open(path) else {
        return Ok(One::Gone);
    };
    let now = header_of(&*file).map_err(|source| io_error(path, source))?;
    match (read, now) {
        (Some(read), Some(now)) if now.life != read.life => Ok(One::Gone),
        (None, Some(_)) => Ok(One::Gone),
        _ => Err(damaged),
    }
}

fn header_of(file: &dyn DiskFile) -> io::Result<Option<SegmentHeader>> {
    let mut bytes = vec![0; to_usize(SNAPSHOT_AT)];
    let len = segment::read_up_to(file, &mut bytes, 0)?;
    let header = SegmentHeader::decode(&bytes[..len]);
    Ok(header.ok().map(|(header, _)| header))
}

/// Makes files and names durable.
fn sync(journal: &Path) -> Result<(), BackupError> {
    for number in numbers(journal)? {
        let path = journal.join(file_name(number));
        let synced = File::open(&path).and_then(|file| file.sync_all());
        synced.map_err(|source| io_error(&path, source))?;
    }
    for dir in [Some(journal), journal.parent()].into_iter().flatten() {
        RealDisk
            .sync_dir(dir)
            .map_err(|source| io_error(dir, source))?;
    }
    Ok(())
}

pub(in crate::storage) fn io_error(path: &Path, source: io::Error) -> BackupError {
    BackupError::Io {
        path: path.into(),
        source,
    }
}
