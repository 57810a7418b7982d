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
    io::{self, Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_util::sync::CancellationToken;

use crate::{config::SEGMENT_BYTES_MAX, storage::StateEntry};

use crate::storage::local::{
    COMMIT_BYTES_MAX, OpenError,
    disk::{self, Disk, DiskFile, RealDisk},
    format::{
        codec::to_usize,
        scan::Frames,
        segment::{
            self, FORMAT_VERSION, HeaderError, SNAPSHOT_AT, SegmentHeader, file_name, number_of,
            read_snapshot,
        },
    },
    making::{self, Making},
    open::at_rest::AtRest,
};

/// How often the journal may begin another file during a copy.
const ROUNDS_MAX: usize = 1_000;
/// Bytes that are copied between two looks at the stop.
const PIECE_BYTES: u64 = 4 << 20;
/// Bytes that a file of the journal has at most behind its snapshot: a segment, and one commit that is longer, with room for
/// what goes with it.
const FRAMES_BYTES_MAX: u64 = SEGMENT_BYTES_MAX + 2 * COMMIT_BYTES_MAX as u64;

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
    /// A file is longer than the journal makes any.
    #[error("{} has {bytes} bytes, but a file of a journal has at most {bytes_max}: it is damaged, or is none; nothing was copied", file.display())]
    TooLong {
        /// The file.
        file: PathBuf,
        /// Its length.
        bytes: u64,
        /// The greatest length with its header.
        bytes_max: u64,
    },
    /// The disk has no space for the copy.
    #[error("the copy has {bytes} bytes, but the disk of {} has only {free_bytes} free; make space there, or choose another directory; nothing was copied", to.display())]
    NoSpace {
        /// The place of the copy.
        to: PathBuf,
        /// Bytes of the journal.
        bytes: u64,
        /// Bytes that may be written there.
        free_bytes: u64,
    },
    /// A gateway would not start with the copy. The error names the file that was copied.
    #[error("what was to be copied does not open")]
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
    copy_made(making, copied, &from)
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
    restore_where(from, to, stop, |dir| RealDisk.free_bytes(dir))
}

fn restore_where(
    from: &Path,
    to: &Path,
    stop: &CancellationToken,
    free_bytes: impl Fn(&Path) -> io::Result<u64>,
) -> Result<Copy, BackupError> {
    let from = from.join("journal");
    let numbers = numbers(&from)?;
    if numbers.is_empty() {
        return Err(BackupError::NoJournal(from));
    }
    let mut bytes = 0;
    for number in &numbers {
        bytes += checked_len(&from.join(file_name(*number)))?;
    }
    let making = Making::inside(to)?;
    let free_bytes = free_bytes(to).map_err(|source| io_error(to, source))?;
    if bytes > free_bytes {
        return Err(BackupError::NoSpace {
            to: to.into(),
            bytes,
            free_bytes,
        });
    }
    let journal = making.dir().join("journal");
    let mut copied = Copied::default();
    for number in numbers {
        let path = journal.join(file_name(number));
        copied.bytes += copy_whole(&from.join(file_name(number)), &path, stop)?;
        copied.files_len += 1;
    }
    sync(&journal, stop)?;
    copy_made(making, copied, &from)
}

/// Returns the length of a file that is to be copied, if its header is good and a journal can have one so long.
fn checked_len(path: &Path) -> Result<u64, BackupError> {
    let failed = |source| io_error(path, source);
    // A copy may lie on a disk that takes no writes.
    let file = disk::open(disk::private().read(true), path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    let mut head = Vec::new();
    file.take(SNAPSHOT_AT)
        .read_to_end(&mut head)
        .map_err(failed)?;
    let (header, _) = SegmentHeader::decode(&head).map_err(|error| {
        BackupError::Opens(match error {
            HeaderError::Newer(found) => OpenError::NewerFormat {
                file: path.into(),
                found,
                known: FORMAT_VERSION,
            },
            HeaderError::Malformed(what) => OpenError::damaged(path, 0, what),
        })
    })?;
    check_len(path, bytes, &header)?;
    Ok(bytes)
}

fn check_len(path: &Path, bytes: u64, header: &SegmentHeader) -> Result<(), BackupError> {
    let bytes_max = header.frames_at().saturating_add(FRAMES_BYTES_MAX);
    match bytes > bytes_max {
        true => Err(BackupError::TooLong {
            file: path.into(),
            bytes,
            bytes_max,
        }),
        false => Ok(()),
    }
}

/// Returns the leftovers of killed backups beside a target, at most ten.
#[must_use]
pub fn leftovers(to: &Path) -> Vec<PathBuf> {
    making::left_beside(to)
}

/// Opens the copied journal once, as a start would; `from` is the journal that it was copied from.
fn copy_made(making: Making, copied: Copied, from: &Path) -> Result<Copy, BackupError> {
    let at_rest = AtRest::of(making.dir(), None).map_err(|error| {
        BackupError::Opens(named_as_in(from, &making.dir().join("journal"), error))
    })?;
    Ok(Copy {
        making,
        copied,
        at_rest,
    })
}

/// Names the file that was copied in place of its copy, which is removed.
fn named_as_in(from: &Path, copy: &Path, error: OpenError) -> OpenError {
    let named = |file: PathBuf| match file.strip_prefix(copy) {
        Ok(name) => from.join(name),
        Err(_elsewhere) => file,
    };
    match error {
        OpenError::Damaged { file, at, what } => OpenError::Damaged {
            file: named(file),
            at,
            what,
        },
        OpenError::NewerFormat { file, found, known } => OpenError::NewerFormat {
            file: named(file),
            found,
            known,
        },
        other => other,
    }
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
            sync(to, stop)?;
            return Ok(Copied {
                files_len: parts.len(),
                bytes: parts.values().map(|part| part.bytes).sum(),
            });
        }
    }
    Err(BackupError::TooFast)
}

/// Copies a file for its owner alone, whatever the mode of the source. Returns its length.
fn copy_whole(from: &Path, to: &Path, stop: &CancellationToken) -> Result<u64, BackupError> {
    let file = disk::open(disk::private().read(true), from);
    let file = file.map_err(|source| io_error(from, source))?;
    let copy = disk::open(disk::private().write(true).create_new(true), to);
    let copied = copy.and_then(|copy| copy_in_pieces(file, copy, stop));
    let copied = copied.map_err(|source| io_error(to, source))?;
    copied.ok_or(BackupError::Stopped)
}

/// Returns how many bytes were copied; `None` if it was told to stop.
fn copy_in_pieces(
    mut from: impl Read,
    mut to: impl Write,
    stop: &CancellationToken,
) -> io::Result<Option<u64>> {
    let mut bytes = 0;
    while !stop.is_cancelled() {
        match io::copy(&mut from.by_ref().take(PIECE_BYTES), &mut to)? {
            0 => return Ok(Some(bytes)),
            copied => bytes += copied,
        }
    }
    Ok(None)
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
    check_len(&path, file.len().map_err(failed)?, &header)?;
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
fn sync(journal: &Path, stop: &CancellationToken) -> Result<(), BackupError> {
    for number in numbers(journal)? {
        if stop.is_cancelled() {
            return Err(BackupError::Stopped);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes without end, of which the third read comes with a signal.
    struct Endless<'a>(usize, &'a CancellationToken);

    impl Read for Endless<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 += 1;
            if self.0 == 3 {
                self.1.cancel();
            }
            assert!(self.0 < 100_000, "the stop is not looked at");
            Ok(buffer.len())
        }
    }

    #[test]
    fn a_stop_is_looked_at_while_one_file_is_copied() {
        let stop = CancellationToken::new();
        let copied = copy_in_pieces(Endless(0, &stop), io::sink(), &stop);
        assert_eq!(copied.unwrap(), None);
        let whole = vec![7; 10];
        let mut copy = Vec::new();
        let copied = copy_in_pieces(&*whole, &mut copy, &CancellationToken::new());
        assert_eq!((copied.unwrap(), copy), (Some(10), whole));
    }

    #[test]
    fn a_restore_onto_a_disk_without_space_writes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let journal = dir.path().join("copy/journal");
        fs::create_dir_all(&journal).unwrap();
        let header = SegmentHeader {
            version: 1,
            number: 1,
            life: 1,
            rewrite: 0,
            first_frame: 1,
            last_frame: 0,
            created: 0,
            snapshot_len: 0,
            snapshot_crc: 0,
            journal: [0; 16],
        };
        let head = header.encode();
        fs::write(journal.join(file_name(1)), &head).unwrap();
        let to = dir.path().join("restored");
        let free = head.len() as u64 - 1;
        let stop = CancellationToken::new();
        let refused = restore_where(&dir.path().join("copy"), &to, &stop, |_| Ok(free));
        match refused.map(drop) {
            Err(BackupError::NoSpace {
                bytes, free_bytes, ..
            }) => assert_eq!((bytes, free_bytes), (free + 1, free)),
            other => panic!("{other:?}"),
        }
        assert!(!to.exists());
    }
}
