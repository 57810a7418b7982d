//! Compaction of a journal file: same number, same snapshot, fewer operations.
//!
//! The new file keeps retained records, their settlements, ids of recent appends and references to state. Its frames are
//! numbered from the first one on without a gap, and the last frame is marked. Recovery never replays a compacted file,
//! because the snapshots of later files have its state, streams and trims.

use std::{io, sync::Arc};

use super::spare::{Spare, Spares};
use crate::storage::local::{
    books::Books,
    disk::DiskFile,
    format::{
        block::{Block, NewBlock},
        codec::to_usize,
        frame::{FRAME_BYTES_MAX, Frame, FrameAt},
        ops::{NewOp, Op},
        scan::Frames,
        segment::{self, Files, SegmentHeader, read_snapshot},
    },
    lock,
    read::lookup::header,
    shared::EngineState,
};

/// A file that is durable but has no name yet; dropped without one, its bytes are removed.
#[derive(Debug)]
pub(in crate::storage) struct Rewrite<'a> {
    spares: &'a Spares,
    /// Absent once it has its name.
    spare: Option<Spare>,
    file: Arc<dyn DiskFile>,
    header: SegmentHeader,
    len: u64,
    len_before: u64,
}

/// The frames of the new file, as they are gathered.
struct Gathered {
    header: SegmentHeader,
    number: u64,
    place: u64,
    time: u64,
    entries: Vec<NewOp>,
    bytes: usize,
}

impl<'a> Rewrite<'a> {
    /// Writes what is needed of a file into a new one, durably; `None` if `go_on` gave up or the file is damaged.
    pub(in crate::storage) fn begin(
        shared: &EngineState,
        spares: &'a Spares,
        number: u64,
        go_on: &mut dyn FnMut() -> bool,
    ) -> io::Result<Option<Self>> {
        let files = &shared.files;
        let old_header = header(files, number)?;
        let (old_life, old) = files.get(number)?;
        let damaged = || io::Error::other("the file is damaged");
        let snapshot = read_snapshot(&*old, &old_header)?.ok_or_else(damaged)?;
        let next = header(files, number + 1)?;
        let life = u64::from_le_bytes(crate::storage::local::random()?);
        let new_header = SegmentHeader {
            life,
            rewrite: old_header.rewrite.saturating_add(1),
            last_frame: next.first_frame.saturating_sub(1),
            snapshot_crc: segment::snapshot_crc(life, &snapshot),
            ..old_header.clone()
        };
        let (spare, file) = spares.create()?;
        let mut this = Self {
            spares,
            spare: Some(spare),
            file,
            len: new_header.frames_at(),
            header: new_header.clone(),
            len_before: old.len()?,
        };
        let mut head = new_header.encode();
        head.extend_from_slice(&snapshot);
        head.resize(to_usize(new_header.frames_at()), 0);
        this.write(&head, 0)?;
        drop((head, snapshot));

        let mut gathered = Gathered {
            number: new_header.first_frame,
            place: new_header.frames_at(),
            time: 0,
            entries: Vec::new(),
            bytes: 0,
            header: new_header,
        };
        let mut frames = Frames::new(
            old,
            old_life,
            old_header.frames_at(),
            old_header.first_frame,
        )?;
        while frames.number() < next.first_frame {
            let frame = frames.next()?.map_err(|_| damaged())?;
            let (entries, bytes) = {
                let view = lock::read(&shared.view);
                live(&view.books, &frame).ok_or_else(damaged)?
            };
            if gathered.bytes > 0 && gathered.bytes + bytes > FRAME_BYTES_MAX {
                this.put(&mut gathered, false)?;
                if !go_on() {
                    return Ok(None);
                }
            }
            gathered.time = frame.header.at.time;
            gathered.entries.extend(entries);
            gathered.bytes += bytes;
            if frame.header.last {
                break;
            }
        }
        this.put(&mut gathered, true)?;
        this.file.sync_data()?;
        Ok(Some(this))
    }

    fn put(&mut self, gathered: &mut Gathered, last: bool) -> io::Result<()> {
        let at = FrameAt {
            life: gathered.header.life,
            number: gathered.number,
            place: gathered.place,
            time: gathered.time,
        };
        let entries = std::mem::take(&mut gathered.entries);
        let frame = Frame::encode(at, last, entries, gathered.bytes);
        self.write(&frame.bytes, gathered.place)?;
        gathered.number += 1;
        gathered.place += frame.bytes.len() as u64;
        gathered.bytes = 0;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        segment::write_all(&*self.file, bytes, at).map_err(|(error, _)| error)?;
        self.len = at + bytes.len() as u64;
        Ok(())
    }

    /// Puts it in the place of the old file; returns its life and the lengths of both. The name is durable after
    /// [`Spares::sync_names`].
    pub(in crate::storage) fn name(mut self, files: &Files) -> io::Result<(u64, u64, u64)> {
        let number = self.header.number;
        if let Some(spare) = &self.spare {
            self.spares.rename(spare, &files.path(number))?;
        }
        self.spare = None;
        files.add(number, self.header.life, self.file.clone());
        Ok((self.header.life, self.len_before, self.len))
    }
}

impl Drop for Rewrite<'_> {
    fn drop(&mut self) {
        if let Some(spare) = &self.spare {
            self.spares.discard(spare);
        }
    }
}

/// Returns what is needed of a frame, and about how many bytes that has; `None` if a record of it cannot be read.
fn live(books: &Books, frame: &Frame) -> Option<(Vec<NewOp>, usize)> {
    let (mut entries, mut bytes) = (Vec::new(), 0);
    for op in &frame.ops {
        let is_live = |slot, end| {
            let partition = books.partition(slot);
            partition.is_some_and(|partition| end > partition.earliest)
        };
        let entry = match op {
            Op::Append(block) if is_live(block.slot, block.end()) => Some(copy(block)?),
            Op::Settle(run) if is_live(run.slot, run.first + run.count) => {
                Some(NewOp::Op(op.clone()))
            }
            Op::Dedup(entry) if books.dedup.remembers(entry.time, books.last_time) => {
                Some(NewOp::Op(op.clone()))
            }
            Op::Refer { .. } => Some(NewOp::Op(op.clone())),
            _ => None,
        };
        bytes += match (&entry, op) {
            (Some(_), Op::Append(block)) => block.len(),
            (Some(_), Op::Dedup(entry)) => entry.stored_len_max(),
            (Some(_), _) => 128,
            (None, _) => 0,
        };
        entries.extend(entry);
    }
    Some((entries, bytes))
}

/// Returns a block that can be written elsewhere; its checksum is of its place.
pub(in crate::storage) fn copy(block: &Block) -> Option<NewOp> {
    let mut copy = NewBlock::new(block.slot, block.kind, block.first, block.base_time);
    for stored in block.records() {
        let stored = stored.ok()?;
        copy.push(block.kind, stored.time.0, stored.record).ok()?;
    }
    Some(NewOp::Block(copy))
}
