//! Computes the loss of a damaged journal from its readable parts. It changes nothing; `mend` applies the loss after an
//! operator has accepted it.
//!
//! All files are read, oldest first. From the newest good snapshot on they are folded as by recovery, but what is missing
//! is tolerated (`fold`). A retained offset is lost if no readable block of any file holds it, so the contents of the damaged
//! places need not be known.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    fold::{Fold, Shown},
    salvage::{self, Extent, Piece, salvage},
};
use crate::storage::local::{
    OpenError,
    books::{Books, ranges::Ranges},
    disk::{Disk, DiskFile},
    format::{
        block::{Block, Slot},
        codec::{Malformed, to_usize},
        frame::Part,
        ops::Op,
        segment::{
            self, FORMAT_VERSION, Files, HeaderError, SNAPSHOT_AT, SegmentHeader, number_of,
            read_snapshot,
        },
        snapshot::{self, Summary},
    },
    open::recovery::BAD_SNAPSHOT,
};

/// Ranges of lost records that a directory may have. Each snapshot has all of them.
pub(in crate::storage) const RANGES_LEN_MAX: usize = 65_536;

/// What is lost, and what there is without it.
#[derive(Debug)]
pub(in crate::storage) struct Plan {
    pub(in crate::storage) files: Vec<PlannedFile>,
    pub(in crate::storage) journal: [u8; 16],
    pub(in crate::storage) books: Books,
    /// The newest file, as the next one tells of it.
    pub(in crate::storage) before: Summary,
    pub(in crate::storage) next_frame: u64,
    /// Offsets that each partition still has somewhere.
    pub(in crate::storage) holds: HashMap<Slot, Ranges>,
    pub(in crate::storage) lost: BTreeMap<Slot, (Ranges, u64)>,
    /// Changes of streams and state, ends and newest records may be among what is lost.
    pub(in crate::storage) shaken: bool,
    pub(in crate::storage) shown: Shown,
}

/// A file of the journal, or one that should be there.
#[derive(Debug)]
pub(in crate::storage) struct PlannedFile {
    pub(in crate::storage) number: u64,
    pub(in crate::storage) path: PathBuf,
    /// Absent if the file is, or has nothing in it that can be read.
    pub(in crate::storage) extent: Option<Extent>,
    pub(in crate::storage) header: Option<SegmentHeader>,
    pub(in crate::storage) missing: bool,
    /// Its snapshot is good.
    pub(in crate::storage) snapshot: bool,
    pub(in crate::storage) damaged: bool,
    /// What cannot be read.
    pub(in crate::storage) bytes: u64,
    pub(in crate::storage) frames: u64,
    /// Number of the frame behind its last.
    pub(in crate::storage) next_frame: u64,
}

/// Reads a directory's journal; `None` if there is none.
pub(in crate::storage) fn plan(
    disk: &Arc<dyn Disk>,
    files: &Files,
) -> Result<Option<Plan>, OpenError> {
    let mut all = look(disk, files)?;
    let Some(newest) = all.len().checked_sub(1) else {
        return Ok(None);
    };
    find_extents(disk, &mut all)?;
    let mut fold = Fold::default();
    let mut before = Summary::default();
    let start = begin(disk, &all, &mut fold, &mut before)?;
    let mut holds: HashMap<Slot, Ranges> = HashMap::new();
    let mut end_before: Option<u64> = None;
    for at in 0..all.len() {
        let follows = all.get(at + 1).and_then(|next| next.header.as_ref());
        let follows = follows.map(|header| header.first_frame);
        let this = &mut all[at];
        let mut walk = Walk {
            fold: (at >= start).then_some(&mut fold),
            holds: &mut holds,
            summary: Summary::default(),
            changed: false,
            bytes: 0,
            frames: 0,
        };
        let Some(extent) = &mut this.extent else {
            // Its frames are those between its neighbours.
            let first = end_before.or(follows).unwrap_or(1);
            this.next_frame = follows.unwrap_or(first).max(first);
            this.frames = this.next_frame - first;
            this.damaged = true;
            end_before = Some(this.next_frame);
            if let Some(fold) = walk.fold {
                fold.shaken = true;
            }
            continue;
        };
        if this.header.is_none() {
            // Those before the first one that was found are missing.
            let first = end_before.unwrap_or(extent.number);
            extent.first_frame = first.min(extent.number);
        }
        // What the rewriting left out was in the snapshots of later files, which are gone if this has to be folded.
        let not_whole = extent.rewritten && at < newest;
        if let Some(fold) = &mut walk.fold {
            fold.shaken |= not_whole || this.header.is_none();
        }
        extent.end = match at == newest {
            true => None,
            false => follows,
        };
        walk.begin(extent);
        let failed = |source| OpenError::io("read", &this.path, source);
        let file: Arc<dyn DiskFile> = Arc::from(disk.open(&this.path).map_err(failed)?);
        let ended = salvage(&file, extent, |piece| walk.piece(piece));
        let ended = ended.map_err(|error| match error {
            WalkError::Io(source) => failed(source),
            WalkError::Malformed(place, what) => OpenError::damaged(&this.path, place, what),
        })?;
        this.damaged |= walk.changed;
        (this.bytes, this.frames) = (walk.bytes, walk.frames);
        this.next_frame = ended.next_frame;
        // A file that was written again ends before the next one begins.
        this.next_frame = this.next_frame.max(follows.unwrap_or(0));
        end_before = Some(this.next_frame);
        if at == newest {
            before = Summary {
                number: this.number,
                first_frame: extent.first_frame,
                last_frame: ended.next_frame.saturating_sub(1),
                last_time: 0,
                bytes: ended.place,
                ..walk.summary
            };
        }
    }
    before.number = all[newest].number;
    before.last_time = fold.books.last_time;
    let lost = fold.mark_lost(&holds);
    let known = all.iter().find_map(|file| file.header.as_ref());
    let journal = match known {
        Some(header) => header.journal,
        None => crate::storage::local::random()
            .map_err(|e| OpenError::io("get random numbers for", files.dir(), e))?,
    };
    Ok(Some(Plan {
        next_frame: all[newest].next_frame.max(1),
        journal,
        before,
        holds,
        lost,
        shaken: fold.shaken,
        shown: std::mem::take(&mut fold.shown),
        books: fold.books,
        files: all,
    }))
}

/// Finds all files, those between them that are missing, and what their headers say.
fn look(disk: &Arc<dyn Disk>, files: &Files) -> Result<Vec<PlannedFile>, OpenError> {
    let names = disk
        .list(files.dir())
        .map_err(|source| OpenError::io("list", files.dir(), source))?;
    let mut numbers: Vec<_> = names.iter().filter_map(|name| number_of(name)).collect();
    numbers.sort_unstable();
    let Some((first, last)) = numbers.first().copied().zip(numbers.last().copied()) else {
        return Ok(Vec::new());
    };
    let mut all = Vec::new();
    for number in first..=last {
        let path = files.path(number);
        let mut this = PlannedFile {
            number,
            path: path.clone(),
            extent: None,
            header: None,
            missing: numbers.binary_search(&number).is_err(),
            snapshot: false,
            damaged: false,
            bytes: 0,
            frames: 0,
            next_frame: 0,
        };
        if !this.missing {
            let failed = |source| OpenError::io("read", &path, source);
            let file = disk.open(&path).map_err(failed)?;
            let mut bytes = vec![0; to_usize(SNAPSHOT_AT)];
            let len = segment::read_up_to(&*file, &mut bytes, 0).map_err(failed)?;
            match SegmentHeader::decode(&bytes[..len]) {
                Ok((header, what)) => {
                    check_place(&header, number, &path, &all)?;
                    let snapshot = read_snapshot(&*file, &header).map_err(failed)?;
                    this.snapshot = snapshot.is_some_and(|bytes| snapshot::decode(&bytes).is_ok());
                    this.damaged = what.is_some() || !this.snapshot;
                    this.header = Some(header);
                }
                Err(HeaderError::Newer(found)) => {
                    return Err(OpenError::NewerFormat {
                        file: path,
                        found,
                        known: FORMAT_VERSION,
                    });
                }
                Err(HeaderError::Malformed(_)) => this.damaged = true,
            }
        }
        all.push(this);
    }
    Ok(all)
}

/// A good header in the wrong place is no damage: somebody has moved files.
fn check_place(
    header: &SegmentHeader,
    number: u64,
    path: &Path,
    older: &[PlannedFile],
) -> Result<(), OpenError> {
    let refuse = |what| Err(OpenError::damaged(path, 0, Malformed(what)));
    if header.number != number {
        return refuse("the file's name is not that of its header");
    }
    let Some(before) = older.iter().rev().find_map(|file| file.header.as_ref()) else {
        return Ok(());
    };
    if before.journal != header.journal {
        return refuse("the file belongs to another directory's journal");
    }
    if before.first_frame > header.first_frame {
        return refuse("the file begins before the one that it follows");
    }
    Ok(())
}

/// Finds where frames are, also where no header says so.
fn find_extents(disk: &Arc<dyn Disk>, all: &mut [PlannedFile]) -> Result<(), OpenError> {
    let first_frame = |file: &PlannedFile| file.header.as_ref().map(|header| header.first_frame);
    for at in 0..all.len() {
        if let Some(header) = &all[at].header {
            all[at].extent = Some(salvage::extent(header, None));
            continue;
        }
        if all[at].missing {
            continue;
        }
        let from = all[..at].iter().rev().find_map(first_frame).unwrap_or(0);
        let to = all[at..].iter().find_map(first_frame).unwrap_or(u64::MAX);
        let failed = |source| OpenError::io("read", &all[at].path, source);
        let file = disk.open(&all[at].path).map_err(failed)?;
        let found = salvage::first_frame(&*file, from..to).map_err(failed)?;
        all[at].extent = found.map(|frame| Extent {
            life: frame.at.life,
            place: frame.at.place,
            first_frame: frame.at.number,
            number: frame.at.number,
            end: None,
            rewritten: false,
        });
    }
    Ok(())
}

/// Takes the newest good snapshot; returns with which file the fold begins.
fn begin(
    disk: &Arc<dyn Disk>,
    all: &[PlannedFile],
    fold: &mut Fold,
    before: &mut Summary,
) -> Result<usize, OpenError> {
    let Some(start) = all.iter().rposition(|file| file.snapshot) else {
        // What the first snapshot of a journal says is nothing.
        fold.shaken = all.first().is_none_or(|first| first.number != 1);
        return Ok(0);
    };
    let (books, summary) = read_books(disk, &all[start])?;
    fold.books = books;
    *before = summary.unwrap_or_default();
    Ok(start)
}

/// Reads a snapshot that was found good.
pub(in crate::storage) fn read_books(
    disk: &Arc<dyn Disk>,
    this: &PlannedFile,
) -> Result<(Books, Option<Summary>), OpenError> {
    let failed = |source| OpenError::io("read a snapshot", &this.path, source);
    let bad = |what| OpenError::damaged(&this.path, SNAPSHOT_AT, what);
    let header = this.header.as_ref().ok_or_else(|| bad(BAD_SNAPSHOT))?;
    let file = disk.open(&this.path).map_err(failed)?;
    let bytes = read_snapshot(&*file, header).map_err(failed)?;
    let bytes = bytes.ok_or_else(|| bad(BAD_SNAPSHOT))?;
    snapshot::decode(&bytes).map_err(bad)
}

/// One file on its way.
struct Walk<'a> {
    /// Absent for files before the snapshot.
    fold: Option<&'a mut Fold>,
    holds: &'a mut HashMap<Slot, Ranges>,
    summary: Summary,
    changed: bool,
    bytes: u64,
    frames: u64,
}

enum WalkError {
    Io(io::Error),
    Malformed(u64, Malformed),
}

impl From<io::Error> for WalkError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Walk<'_> {
    fn begin(&mut self, extent: &Extent) {
        self.summary.life = extent.life;
        self.summary.first_time = match &self.fold {
            Some(fold) => fold.books.last_time,
            None => 0,
        };
    }

    fn piece(&mut self, piece: Piece) -> Result<(), WalkError> {
        match piece {
            Piece::Gap(gap) => {
                self.changed = true;
                self.bytes += gap.bytes;
                self.frames += gap.frames;
                if let Some(fold) = &mut self.fold {
                    fold.shaken = true;
                }
                for block in gap.blocks {
                    self.op(&Op::Append(block), 0)?;
                }
            }
            Piece::Frame { header, parts } => {
                let at = header.at.place;
                if let Some(fold) = &mut self.fold {
                    fold.books.last_time = fold.books.last_time.max(header.at.time);
                }
                for part in &parts {
                    match part {
                        Part::Op(op) => self.op(op, at)?,
                        Part::Lost(lost, len) => {
                            self.changed = true;
                            self.bytes += *len as u64;
                            if let Some(fold) = &mut self.fold {
                                let bad = |what| WalkError::Malformed(at, what);
                                fold.lost(lost).map_err(bad)?;
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn op(&mut self, op: &Op, place: u64) -> Result<(), WalkError> {
        let bad = |what| WalkError::Malformed(place, what);
        let placed = match &mut self.fold {
            Some(fold) => fold.op(op).map_err(bad)?,
            None => true,
        };
        match op {
            Op::Append(block) if placed => self.hold(block),
            Op::Refer { key } => self.summary.refers.push(key.clone()),
            _ => {}
        }
        Ok(())
    }

    fn hold(&mut self, block: &Block) {
        let held = self.holds.entry(block.slot).or_default();
        held.add(block.first..block.end());
    }
}
