//! Writes the readable parts of a damaged file to a new one, with the same number and its own or a replaced snapshot.

use std::{collections::HashMap, path::Path, sync::Arc};

use super::{
    fold::only_tail,
    loss::{Plan, PlannedFile, read_books},
    salvage::{Piece, salvage},
};
use crate::storage::local::{
    OpenError,
    books::Books,
    disk::{Disk, DiskFile},
    format::{
        block::Slot,
        codec::to_usize,
        frame::{Frame, FrameAt, Part},
        ops::{NewOp, Op, StreamImage},
        scan::Frames,
        segment::{self, Files, SegmentHeader, read_snapshot, snapshot_crc},
        snapshot::{self, Summary},
    },
    space::rewrite::copy,
};

const MENDED: &str = "mended";

/// What a file is called in place of `seg` until it gets its name.
pub(in crate::storage) fn suffix() -> String {
    format!("seg.{MENDED}")
}

/// A file that is being written from its beginning on.
struct Mended<'a> {
    file: Box<dyn DiskFile>,
    place: u64,
    number: u64,
    life: u64,
    time: u64,
    plan: &'a Plan,
    /// The frame that was read last; it may be the last one.
    held: Option<Vec<NewOp>>,
}

/// Writes what can be read of a file into a new one, durably; returns its life.
pub(in crate::storage) fn write_mended(
    disk: &Arc<dyn Disk>,
    files: &Files,
    plan: &Plan,
    at: usize,
) -> Result<u64, OpenError> {
    let this = &plan.files[at];
    let failed = |source| OpenError::io("write anew", &this.path, source);
    let (header, snapshot) = head(disk, plan, at)?;
    let file = create(disk, files, &this.path.with_extension(suffix())).map_err(failed)?;
    let mut mended = Mended {
        file,
        place: header.frames_at(),
        number: header.first_frame,
        life: header.life,
        time: header.created,
        plan,
        held: None,
    };
    write_head(&*mended.file, &header, &snapshot).map_err(failed)?;
    if let Some(extent) = &this.extent {
        let old: Arc<dyn DiskFile> = Arc::from(disk.open(&this.path).map_err(failed)?);
        salvage(&old, extent, |piece| mended.piece(piece)).map_err(failed)?;
    }
    mended.put(true).map_err(failed)?;
    mended.file.sync_data().map_err(failed)?;
    Ok(header.life)
}

impl Mended<'_> {
    fn piece(&mut self, piece: Piece) -> std::io::Result<()> {
        let entries = match piece {
            Piece::Gap(gap) => {
                let blocks = gap.blocks.into_iter().map(Op::Append);
                blocks
                    .map(|op| self.entry(op))
                    .collect::<Result<Vec<_>, _>>()?
            }
            Piece::Frame { header, parts } => {
                let ops = parts.into_iter().filter_map(|part| match part {
                    Part::Op(op) => Some(self.entry(op)),
                    Part::Lost(..) => None,
                });
                let entries = ops.collect::<Result<Vec<_>, _>>()?;
                // What was held is of the time before.
                self.put(false)?;
                self.time = header.at.time;
                entries
            }
        };
        let entries: Vec<_> = entries.into_iter().flatten().collect();
        if !entries.is_empty() {
            self.put(false)?;
            self.held = Some(entries);
        }
        Ok(())
    }

    fn entry(&self, op: Op) -> std::io::Result<Option<NewOp>> {
        let Op::Append(block) = op else {
            return Ok(Some(NewOp::Op(op)));
        };
        let held = self.plan.holds.get(&block.slot);
        if held.is_none_or(|held| held.around(block.first).is_none()) {
            return Ok(None);
        }
        let copied = copy(&block).ok_or_else(|| std::io::Error::other("a record is malformed"))?;
        Ok(Some(copied))
    }

    fn put(&mut self, last: bool) -> std::io::Result<()> {
        let entries = match self.held.take() {
            Some(entries) => entries,
            None if last => Vec::new(),
            None => return Ok(()),
        };
        let at = FrameAt {
            life: self.life,
            number: self.number,
            place: self.place,
            time: self.time,
        };
        let frame = Frame::encode(at, last, entries, 0);
        segment::write_all(&*self.file, &frame.bytes, self.place).map_err(|(error, _)| error)?;
        self.number += 1;
        self.place += frame.bytes.len() as u64;
        Ok(())
    }
}

/// Returns header and snapshot of a mended file.
fn head(
    disk: &Arc<dyn Disk>,
    plan: &Plan,
    at: usize,
) -> Result<(SegmentHeader, Vec<u8>), OpenError> {
    let this = &plan.files[at];
    let failed = |source| OpenError::io("read", &this.path, source);
    let random = || {
        let random = crate::storage::local::random();
        random.map(u64::from_le_bytes)
    };
    let snapshot = match (&this.header, this.snapshot) {
        (Some(header), true) => {
            let file = disk.open(&this.path).map_err(failed)?;
            read_snapshot(&*file, header).map_err(failed)?
        }
        _ => None,
    };
    let snapshot = match snapshot {
        Some(snapshot) => snapshot,
        None => snapshot_before(disk, plan, at)?,
    };
    let neighbour = plan.files[..at].iter().rev().chain(&plan.files[at..]);
    let created = neighbour.filter_map(|file| file.header.as_ref()).next();
    let created = this
        .header
        .as_ref()
        .or(created)
        .map_or(0, |header| header.created);
    let first_frame = match (&this.header, &this.extent) {
        (Some(header), _) => header.first_frame,
        (None, Some(extent)) => extent.first_frame,
        (None, None) => this.next_frame - this.frames,
    };
    let life = random().map_err(failed)?;
    let header = SegmentHeader {
        version: snapshot::version(&snapshot),
        number: this.number,
        life,
        rewrite: this
            .header
            .as_ref()
            .map_or(0, |h| h.rewrite)
            .saturating_add(1),
        first_frame,
        last_frame: this.next_frame.saturating_sub(1),
        created,
        snapshot_len: snapshot.len() as u64,
        snapshot_crc: snapshot_crc(life, &snapshot),
        journal: plan.journal,
    };
    Ok((header, snapshot))
}

/// Returns a snapshot in place of one that cannot be read. If the file before is whole, it says all; else only where
/// partitions ended, which is what searches ask for.
fn snapshot_before(disk: &Arc<dyn Disk>, plan: &Plan, at: usize) -> Result<Vec<u8>, OpenError> {
    let before = at.checked_sub(1).map(|before| &plan.files[before]);
    if let Some(before) = before
        && let Some(header) = &before.header
        && !before.damaged
        && header.rewrite == 0
    {
        let failed = |source| OpenError::io("read", &before.path, source);
        let (mut books, _) = read_books(disk, before)?;
        let file: Arc<dyn DiskFile> = Arc::from(disk.open(&before.path).map_err(failed)?);
        let first_time = books.last_time;
        let (at, first) = (header.frames_at(), header.first_frame);
        let mut frames = Frames::new(file, header.life, at, first).map_err(failed)?;
        let mut refers = Vec::new();
        while frames.number() < before.next_frame {
            let place = frames.place();
            let bad = |what| OpenError::damaged(&before.path, place, what);
            let frame = frames.next().map_err(failed)?.map_err(bad)?;
            books.last_time = books.last_time.max(frame.header.at.time);
            for op in &frame.ops {
                books.apply(op).map_err(bad)?;
                if let Op::Refer { key } = op {
                    refers.push(key.clone());
                }
            }
        }
        let summary = Summary {
            number: header.number,
            life: header.life,
            first_frame: first,
            last_frame: before.next_frame.saturating_sub(1),
            first_time,
            last_time: books.last_time,
            bytes: frames.place(),
            refers,
        };
        return Ok(snapshot::encode(&books, Some(&summary)));
    }
    let later = plan.files[at + 1..].iter().find(|file| file.snapshot);
    let firsts = firsts(disk, &plan.files[at])?;
    let mut tails = Books::default();
    let known = match later {
        Some(file) => read_books(disk, file)?.0,
        None => Books::default(),
    };
    // Without a later one the file was the newest, and what it holds is in the books.
    let known = if later.is_some() { &known } else { &plan.books };
    for (number, book) in known.streams() {
        let image = StreamImage {
            number,
            stream: book.stream.clone(),
        };
        let mut partitions: Vec<_> = book.partitions.iter().map(|p| only_tail(p.next)).collect();
        for (partition, tail) in (0u16..).zip(&mut partitions) {
            let first = firsts.get(&(number, partition)).copied();
            tail.next = first.unwrap_or(tail.next).min(tail.next);
        }
        let bad = |what| OpenError::damaged(&plan.files[at].path, 0, what);
        tails.add_stream(&image, partitions).map_err(bad)?;
    }
    Ok(snapshot::encode(&tails, None))
}

/// Returns the first offset of each partition that a file has.
fn firsts(disk: &Arc<dyn Disk>, this: &PlannedFile) -> Result<HashMap<Slot, u64>, OpenError> {
    let mut firsts: HashMap<Slot, u64> = HashMap::new();
    let Some(extent) = &this.extent else {
        return Ok(firsts);
    };
    let failed = |source| OpenError::io("read", &this.path, source);
    let file: Arc<dyn DiskFile> = Arc::from(disk.open(&this.path).map_err(failed)?);
    let found = salvage(&file, extent, |piece| {
        let blocks: Vec<_> = match piece {
            Piece::Gap(gap) => gap.blocks,
            Piece::Frame { parts, .. } => {
                let blocks = parts.into_iter().filter_map(|part| match part {
                    Part::Op(Op::Append(block)) => Some(block),
                    _ => None,
                });
                blocks.collect()
            }
        };
        for block in blocks {
            let first = firsts.entry(block.slot).or_insert(block.first);
            *first = block.first.min(*first);
        }
        std::io::Result::Ok(())
    });
    found.map_err(failed)?;
    Ok(firsts)
}

/// Makes a file, in place of one that a call has left that was cut off.
pub(in crate::storage) fn create(
    disk: &Arc<dyn Disk>,
    files: &Files,
    path: &Path,
) -> std::io::Result<Box<dyn DiskFile>> {
    if disk
        .list(files.dir())?
        .iter()
        .any(|name| path.ends_with(name))
    {
        disk.remove(path)?;
    }
    disk.create(path)
}

pub(in crate::storage) fn write_head(
    file: &dyn DiskFile,
    header: &SegmentHeader,
    snapshot: &[u8],
) -> std::io::Result<()> {
    let mut head = header.encode();
    head.extend_from_slice(snapshot);
    head.resize(to_usize(header.frames_at()), 0);
    segment::write_all(file, &head, 0).map_err(|(error, _)| error)
}
