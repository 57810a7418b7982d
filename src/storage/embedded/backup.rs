//! A copy of a journal, made while the gateway that writes it runs, or not.
//!
//! A copy is a directory of its own: `verify` and `doctor` read it, and a gateway starts with it. It holds what was
//! durable at one moment: files are copied oldest first, the newest one up to its last whole frame. Files that the gateway
//! frees meanwhile are left out, and those that it shortens are copied in either form: both say the same.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    codec::to_usize,
    disk::{self, Disk, DiskFile, RealDisk},
    scan::Frames,
    segment::{self, SNAPSHOT_AT, SegmentHeader, file_name, number_of, read_snapshot},
};

/// So often the journal may run ahead of the copy by another file.
const ROUNDS_MAX: usize = 1_000;

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Files of the journal.
    pub files_len: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Number of the last frame.
    pub last_frame: u64,
}

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is something in the directory already.
    #[error("{} is not empty; choose another directory, nothing was changed", .0.display())]
    NotEmpty(PathBuf),
    /// There is no journal in the directory.
    #[error("{} holds no journal", .0.display())]
    NoJournal(PathBuf),
    /// A file is damaged.
    #[error("{} is damaged at byte {at}; `syncgate doctor` tells more", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where.
        at: u64,
    },
    /// The journal grew faster than it could be copied.
    #[error("the journal grows faster than it is copied; try again when there is less to do")]
    TooFast,
    /// The system refused.
    #[error("cannot copy {}: {source}", path.display())]
    Io {
        /// With which file or directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// What came of copying one file.
enum One {
    /// All of it up to the file that follows, or up to its end so far.
    Copied(Part),
    /// It was freed meanwhile.
    Gone,
}

#[derive(Clone, Copy)]
struct Part {
    /// Number of the frame behind the last one.
    next_frame: u64,
    bytes: u64,
    /// No frame will follow in it.
    is_whole: bool,
}

/// Copies the journal of `from` into `to`, which must be empty or absent.
///
/// # Errors
/// Each variant of [`BackupError`]; what was copied until then stays in `to`.
pub fn create(from: &Path, to: &Path) -> Result<Copied, BackupError> {
    let (from, to) = (from.join("journal"), begin(to)?.join("journal"));
    disk::make_dir(&to).map_err(|source| io_error(&to, source))?;
    let mut parts: BTreeMap<u64, Part> = BTreeMap::new();
    for _ in 0..ROUNDS_MAX {
        let numbers = numbers(&from)?;
        let Some((oldest, newest)) = numbers.first().copied().zip(numbers.last().copied()) else {
            return Err(BackupError::NoJournal(from));
        };
        for number in numbers {
            if parts.get(&number).is_some_and(|part| part.is_whole) {
                continue;
            }
            match copy(&from, &to, number, newest)? {
                One::Copied(part) => drop(parts.insert(number, part)),
                One::Gone => break,
            }
        }
        // Freed since they were copied, or before: what is left has no gaps.
        parts.retain(|number, _| {
            let kept = *number >= oldest;
            if !kept {
                // It is of no use, and in nobody's way.
                let _removed = fs::remove_file(to.join(file_name(*number))).is_ok();
            }
            kept
        });
        let is_dense = (oldest..=newest).all(|number| parts.contains_key(&number));
        if is_dense && self::numbers(&from)?.last() == Some(&newest) {
            sync(&to)?;
            return Ok(Copied {
                files_len: parts.len(),
                bytes: parts.values().map(|part| part.bytes).sum(),
                last_frame: parts.get(&newest).map_or(0, |part| part.next_frame - 1),
            });
        }
    }
    Err(BackupError::TooFast)
}

/// Puts a copy into `to`, which must be empty or absent; its streams need a new incarnation then
/// ([`renew`](super::renew)).
///
/// # Errors
/// As [`create`].
pub fn restore(from: &Path, to: &Path) -> Result<Copied, BackupError> {
    let from = from.join("journal");
    let numbers = numbers(&from)?;
    if numbers.is_empty() {
        return Err(BackupError::NoJournal(from));
    }
    let to = begin(to)?.join("journal");
    disk::make_dir(&to).map_err(|source| io_error(&to, source))?;
    let mut copied = Copied::default();
    for number in numbers {
        let path = to.join(file_name(number));
        let written = copy_whole(&from.join(file_name(number)), &path);
        copied.bytes += written.map_err(|source| io_error(&path, source))?;
        copied.files_len += 1;
    }
    sync(&to)?;
    Ok(copied)
}

/// Copies a file for its owner alone, whoever could read the one that is copied; returns its bytes.
fn copy_whole(from: &Path, to: &Path) -> io::Result<u64> {
    let mut from = disk::private().read(true).open(from)?;
    let mut to = disk::private().write(true).create_new(true).open(to)?;
    io::copy(&mut from, &mut to)
}

/// Makes sure that a directory is there and empty.
fn begin(dir: &Path) -> Result<&Path, BackupError> {
    let failed = |source| io_error(dir, source);
    disk::make_dirs(dir).map_err(failed)?;
    match fs::read_dir(dir).map_err(failed)?.next() {
        None => Ok(dir),
        Some(_) => Err(BackupError::NotEmpty(dir.into())),
    }
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

fn copy(from: &Path, to: &Path, number: u64, newest: u64) -> Result<One, BackupError> {
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
    let copy = options.open(&copy_path).map_err(copy_failed)?;
    let mut head = header.encode();
    head.extend_from_slice(&snapshot);
    head.resize(to_usize(header.frames_at()), 0);
    copy.write_all_at(&head, 0).map_err(copy_failed)?;

    let first = header.first_frame;
    let mut frames = Frames::new(file, header.life, header.frames_at(), first).map_err(failed)?;
    let mut last = false;
    while !last {
        let place = frames.place();
        match frames.next().map_err(failed)? {
            Ok(frame) => {
                copy.write_all_at(&frame.bytes, place)
                    .map_err(copy_failed)?;
                last = frame.header.last;
            }
            Err(_) => break,
        }
    }
    let end = frames.place();
    if !last && number < newest {
        // After a restart a file may end without saying so; the next one knows its last frame.
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
        next_frame: frames.number(),
        bytes: end,
        is_whole: last,
    }))
}

/// What could not be read was freed or written again meanwhile, or is damaged.
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

fn io_error(path: &Path, source: io::Error) -> BackupError {
    BackupError::Io {
        path: path.into(),
        source,
    }
}
