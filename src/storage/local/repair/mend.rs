//! `doctor --accept-loss`: repairs a damaged directory without the lost data.
//!
//! ```text
//! 1  for each damaged file: a copy in `damaged/`, and a new file with what of it can be read, `NAME.seg.mended`; durable
//! 2  a new newest file, whose snapshot says what is lost; its name is the moment from which on the loss is accepted
//! 3  the new files get the names of the damaged ones
//! ```
//!
//! A mended file counts as compacted (`rewrite`): recovery never replays it, because the snapshot of the newest file has all
//! books. So a crash before step 2 has changed nothing. A crash after it leaves damaged files that no start needs, and the
//! same call again completes the repair. Damaged files are never removed.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    model::ids::{Incarnation, Offset, StreamName},
    runtime::clock::{Clock, Timestamp},
    storage::Stream,
};

use super::{
    loss::{Plan, PlannedFile, RANGES_LEN_MAX, plan},
    mended::{create, suffix, write_head, write_mended},
};
use crate::storage::local::{
    OpenError, RealDisk,
    books::{LOSSES_LEN_MAX, Loss},
    disk::{Disk, DiskFile},
    format::{
        block::Slot,
        segment::{self, Files, SegmentHeader, file_name, number_of, snapshot_crc},
        snapshot,
    },
    lock,
};

const COPY_BYTES: usize = 1 << 20;

/// The loss, accepted or to be accepted.
#[derive(Clone, Debug, Default)]
pub struct LossReport {
    /// Each damaged file.
    pub files: Vec<LostFile>,
    /// Lost records by partition.
    pub partitions: Vec<LostRecords>,
    /// Changes of state and streams, settlements and the newest records may be lost too; nothing shows which.
    pub unknown: bool,
    /// Streams with a new incarnation for that reason.
    pub renewed: usize,
    /// Number of lost records that a later trim has removed.
    pub trimmed: u64,
    /// Streams that were made in what is lost, by their numbers in the journal, with how many records of theirs are left
    /// out.
    pub strangers: Vec<(u32, u64)>,
    /// Streams that had more partitions than the remaining journal shows.
    pub grown: Vec<String>,
    /// Streams that were deleted in what is lost.
    pub deleted: Vec<String>,
    /// Names of missing state values that records refer to.
    pub missing_state: Vec<String>,
}

/// A damaged file.
#[derive(Clone, Debug)]
pub struct LostFile {
    /// The file.
    pub path: PathBuf,
    /// The file is missing.
    pub missing: bool,
    /// Bytes that cannot be read.
    pub bytes: u64,
    /// Number of frames without a readable header.
    pub frames: u64,
    /// Its copy in `damaged/`.
    pub kept_as: Option<PathBuf>,
}

/// The lost records of a partition.
#[derive(Clone, Debug)]
pub struct LostRecords {
    /// The stream.
    pub stream: StreamName,
    /// The partition.
    pub partition: u16,
    /// First and last offset of each range.
    pub ranges: Vec<(Offset, Offset)>,
    /// Number of settled ones, which no target misses.
    pub ended: u64,
    /// Number of open ones.
    pub open: u64,
}

/// Why no loss was accepted.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The directory cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It is not damaged.
    #[error("{} is not damaged; nothing was changed", .0.display())]
    NotDamaged(PathBuf),
    /// It is not one of the journal's files.
    #[error("{} is no file of the journal in {}; name one as `syncgate doctor` does, such as {}; nothing was changed", file.display(), journal.display(), file_name(1))]
    NoSuchFile {
        /// The named file.
        file: PathBuf,
        /// The directory of the journal.
        journal: PathBuf,
    },
    /// The loss can only be computed for the journal as a whole.
    #[error("{} is damaged too; name it with one more --accept-loss, or restore it first; nothing was changed", .0.display())]
    AlsoDamaged(PathBuf),
    /// No snapshot could hold it.
    #[error(
        "lost records lie in {found} places, more than the {RANGES_LEN_MAX} that can be noted; restore a backup, nothing was changed"
    )]
    TooScattered {
        /// Number of ranges.
        found: usize,
    },
}

/// Accepts the loss of the unreadable parts of these files, so that a gateway starts with the directory.
///
/// # Errors
/// Each variant of [`AcceptError`] says what is true; but for [`OpenError::Io`] nothing was changed, and after that the same
/// call again goes on.
pub fn accept_loss(
    dir: &Path,
    named: &[PathBuf],
    clock: &Clock,
) -> Result<LossReport, AcceptError> {
    let journal = dir.join("journal");
    std::fs::read_dir(&journal).map_err(|source| OpenError::io("list", &journal, source))?;
    let _lock = lock::take_dir(dir)?;
    let now = clock.now();
    accept(&(Arc::new(RealDisk) as Arc<dyn Disk>), dir, named, now)
}

/// As [`accept_loss`], of a directory whose lock is held.
pub(in crate::storage) fn accept(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    named: &[PathBuf],
    now: Timestamp,
) -> Result<LossReport, AcceptError> {
    let files = Files::new(disk.clone(), dir.join("journal"));
    let plan = plan(disk, &files)?;
    let numbers = numbers(named, plan.as_ref(), &files)?;
    let Some(mut plan) = plan else {
        return Ok(LossReport::default());
    };
    check(&plan, &numbers, &files)?;
    let mut report = report(&plan);
    let io = |what, path: &Path| {
        let path = path.to_owned();
        move |source| AcceptError::Open(OpenError::io(what, &path, source))
    };
    let damaged: Vec<_> = (0..plan.files.len())
        .filter(|at| plan.files[*at].damaged)
        .collect();
    let mut mended = Vec::new();
    for at in &damaged {
        let this = &plan.files[*at];
        let kept_as = match this.missing {
            true => None,
            false => Some(keep(disk, dir, &this.path).map_err(io("copy", &this.path))?),
        };
        let life = write_mended(disk, &files, &plan, *at)?;
        mended.push((*at, life));
        let lost = report.files.iter_mut().find(|lost| lost.path == this.path);
        if let Some(lost) = lost {
            lost.kept_as = kept_as;
        }
    }
    if wants_snapshot(&plan, &damaged) {
        report.renewed = note(&mut plan, &report, now)?;
        if let Some((_, life)) = mended.iter().find(|(at, _)| at + 1 == plan.files.len()) {
            plan.before.life = *life;
        }
        write_newest(disk, &files, &plan, now)?;
    }
    for (at, _) in &mended {
        let path = &plan.files[*at].path;
        let renamed = disk.rename(&path.with_extension(suffix()), path);
        renamed.map_err(io("replace", path))?;
    }
    let synced = disk.sync_dir(files.dir());
    synced.map_err(io("sync", files.dir()))?;
    Ok(report)
}

/// Returns the loss of all damage; `None` without damage.
pub(in crate::storage) fn look_ahead(
    disk: &Arc<dyn Disk>,
    files: &Files,
) -> Result<Option<LossReport>, OpenError> {
    let plan = plan(disk, files)?;
    let damaged = plan.filter(|plan| plan.files.iter().any(|file| file.damaged));
    Ok(damaged.map(|plan| report(&plan)))
}

fn numbers(
    named: &[PathBuf],
    plan: Option<&Plan>,
    files: &Files,
) -> Result<BTreeSet<u64>, AcceptError> {
    let canonical = |path: &Path| path.canonicalize().ok();
    let number = |path: &PathBuf| {
        let parent = path.parent().filter(|parent| *parent != Path::new(""));
        let same = |parent: &Path| {
            let here = canonical(files.dir());
            parent == files.dir() || here.is_some() && canonical(parent) == here
        };
        let is_here = parent.is_none_or(same);
        let number = number_of(path.file_name()?.to_str()?).filter(|_| is_here)?;
        let known = plan?.files.iter().any(|file| file.number == number);
        known.then_some(number)
    };
    let numbers = named.iter().map(|path| {
        number(path).ok_or_else(|| AcceptError::NoSuchFile {
            file: path.clone(),
            journal: files.dir().into(),
        })
    });
    numbers.collect()
}

fn check(plan: &Plan, numbers: &BTreeSet<u64>, files: &Files) -> Result<(), AcceptError> {
    let accepted = |number| {
        plan.books
            .losses
            .iter()
            .any(|loss| loss.files.contains(&number))
    };
    for file in &plan.files {
        match (file.damaged, numbers.contains(&file.number)) {
            // What an earlier call has mended before it was cut off is named again by the next one.
            (false, true) if !accepted(file.number) => {
                return Err(AcceptError::NotDamaged(files.path(file.number)));
            }
            (true, false) => return Err(AcceptError::AlsoDamaged(files.path(file.number))),
            _ => {}
        }
    }
    let found = plan.books.lost().map(|(_, lost)| lost.ranges_len()).sum();
    match found > RANGES_LEN_MAX {
        true => Err(AcceptError::TooScattered { found }),
        false => Ok(()),
    }
}

/// Returns whether there is anything that no snapshot says yet, or that one has to say before a file may be mended.
fn wants_snapshot(plan: &Plan, damaged: &[usize]) -> bool {
    let says = |number: &u64| {
        plan.books
            .losses
            .iter()
            .any(|loss| loss.files.contains(number))
    };
    let newest = plan.files.len().checked_sub(1);
    let new = |at: &usize| {
        let file = &plan.files[*at];
        Some(*at) == newest || (file.frames > 0 || file.bytes > 0) && !says(&file.number)
    };
    plan.shaken || !plan.lost.is_empty() || damaged.iter().any(new)
}

/// Puts the loss into the books; returns how many streams got a new incarnation.
fn note(plan: &mut Plan, report: &LossReport, now: Timestamp) -> Result<usize, AcceptError> {
    let sum = |of: fn(&LostRecords) -> u64| report.partitions.iter().map(of).sum();
    let damaged = plan.files.iter().filter(|file| file.damaged);
    let loss = Loss {
        time: now.0,
        files: damaged.clone().map(|file| file.number).collect(),
        bytes: damaged.clone().map(|file| file.bytes).sum(),
        frames: damaged.map(|file| file.frames).sum(),
        ended: sum(|lost| lost.ended),
        open: sum(|lost| lost.open),
    };
    let books = &mut plan.books;
    if plan.shaken {
        // A change takes more than a byte, so no revision is given twice.
        books.state_revision = books.state_revision.saturating_add(loss.bytes);
        let streams: Vec<_> = books
            .streams()
            .map(|(n, book)| (n, book.stream.clone()))
            .collect();
        for (number, stream) in &streams {
            let random = crate::storage::local::random();
            let random = random.map_err(|e| OpenError::io("renew streams in", Path::new(""), e))?;
            let mut renewed = Stream::clone(stream);
            renewed.incarnation = Incarnation(u64::from_le_bytes(random));
            renewed.revision += 1;
            books.set_stream(*number, Arc::new(renewed));
        }
    }
    books.losses.push(loss);
    if books.losses.len() > LOSSES_LEN_MAX {
        books.losses.remove(0);
    }
    Ok(match plan.shaken {
        true => books.streams().count(),
        false => 0,
    })
}

fn report(plan: &Plan) -> LossReport {
    let file = |file: &PlannedFile| LostFile {
        path: file.path.clone(),
        missing: file.missing,
        bytes: file.bytes,
        frames: file.frames,
        kept_as: None,
    };
    let name = |slot: &Slot| {
        let id = plan.books.id_of(slot.0)?;
        let (_, book) = plan.books.with_id(id)?;
        Some(book.stream.name.clone())
    };
    let records = plan.lost.iter().filter_map(|(slot, (lost, open))| {
        Some(LostRecords {
            stream: name(slot)?,
            partition: slot.1,
            ranges: lost
                .iter()
                .map(|r| (Offset(r.start), Offset(r.end - 1)))
                .collect(),
            ended: lost.len() - open,
            open: *open,
        })
    });
    let shown = &plan.shown;
    let missing = shown
        .refers
        .iter()
        .filter(|key| !plan.books.state.contains_key(*key));
    LossReport {
        files: plan
            .files
            .iter()
            .filter(|file| file.damaged)
            .map(file)
            .collect(),
        partitions: records.collect(),
        unknown: plan.shaken,
        renewed: 0,
        trimmed: shown.trimmed,
        strangers: shown.strangers.iter().map(|(n, len)| (*n, *len)).collect(),
        grown: shown.grown.iter().cloned().collect(),
        deleted: shown.deleted.iter().cloned().collect(),
        missing_state: missing.map(ToString::to_string).collect(),
    }
}

/// Copies a file to `damaged/`, durably, unless that is there already; returns the copy's name.
fn keep(disk: &Arc<dyn Disk>, dir: &Path, path: &Path) -> std::io::Result<PathBuf> {
    let to_dir = dir.join("damaged");
    disk.create_dir_all(&to_dir)?;
    disk.sync_dir(dir)?;
    let file = disk.open(path)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let there = disk.list(&to_dir)?;
    let mut to = to_dir.join(&*name);
    let mut number = 1;
    while there.iter().any(|there| to.ends_with(there)) {
        if same(&*file, &*disk.open(&to)?)? {
            return Ok(to);
        }
        number += 1;
        to = to_dir.join(format!("{name}.{number}"));
    }
    let making = to_dir.join(format!("{name}.copying"));
    if there.iter().any(|there| making.ends_with(there)) {
        disk.remove(&making)?;
    }
    let copy = disk.create(&making)?;
    let (mut at, mut buffer) = (0, vec![0; COPY_BYTES]);
    loop {
        let len = segment::read_up_to(&*file, &mut buffer, at)?;
        if len == 0 {
            break;
        }
        segment::write_all(&*copy, &buffer[..len], at).map_err(|(error, _)| error)?;
        at += len as u64;
    }
    copy.sync_data()?;
    disk.rename(&making, &to)?;
    disk.sync_dir(&to_dir)?;
    Ok(to)
}

fn same(one: &dyn DiskFile, other: &dyn DiskFile) -> std::io::Result<bool> {
    let (mut at, mut buffers) = (0, [vec![0; COPY_BYTES], vec![0; COPY_BYTES]]);
    loop {
        let [first, second] = &mut buffers;
        let len = segment::read_up_to(one, first, at)?;
        let other_len = segment::read_up_to(other, second, at)?;
        if first[..len] != second[..other_len] {
            return Ok(false);
        }
        if len == 0 {
            return Ok(true);
        }
        at += len as u64;
    }
}

/// Writes the file behind all others, whose snapshot says what is lost; from its name on it is accepted.
fn write_newest(
    disk: &Arc<dyn Disk>,
    files: &Files,
    plan: &Plan,
    now: Timestamp,
) -> Result<(), OpenError> {
    let number = plan.before.number + 1;
    let path = files.path(number);
    let failed = |source| OpenError::io("begin", &path, source);
    let snapshot = snapshot::encode(&plan.books, Some(&plan.before));
    let life = crate::storage::local::random()
        .map(u64::from_le_bytes)
        .map_err(failed)?;
    let header = SegmentHeader {
        version: snapshot::version(&snapshot),
        number,
        life,
        rewrite: 0,
        first_frame: plan.next_frame,
        last_frame: 0,
        created: now.0,
        snapshot_len: snapshot.len() as u64,
        snapshot_crc: snapshot_crc(life, &snapshot),
        journal: plan.journal,
    };
    let making = path.with_extension(suffix());
    let file = create(disk, files, &making).map_err(failed)?;
    write_head(&*file, &header, &snapshot).map_err(failed)?;
    file.sync_data().map_err(failed)?;
    disk.rename(&making, &path).map_err(failed)?;
    disk.sync_dir(files.dir()).map_err(failed)
}
