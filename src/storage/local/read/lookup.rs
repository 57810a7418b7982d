//! Finding the block of an offset: in memory, in the index, and at last in the files.

use std::{
    collections::{HashMap, VecDeque},
    io,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use super::blocks::BlockRef;
use crate::storage::local::{
    format::{
        block::Slot,
        codec::to_usize,
        ops::{DedupEntry, Op},
        scan::Frames,
        segment::{self, Files, SNAPSHOT_AT, SegmentHeader, read_snapshot},
        snapshot,
    },
    lock,
    shared::EngineState,
    space::usage::{SegmentUsage, Share},
};

/// Number of scanned files whose blocks are kept after a search without the index.
const SCANNED_LEN_MAX: usize = 2;

/// Number and life of a file.
type FileId = (u64, u64);

/// Estimated bytes of a settlement in a file.
const END_BYTES: u64 = 24;

/// Contents of a file.
#[derive(Debug, Default)]
pub(in crate::storage) struct SegmentScan {
    pub(in crate::storage) blocks: HashMap<Slot, Vec<BlockRef>>,
    pub(in crate::storage) dedup: Vec<DedupEntry>,
    pub(in crate::storage) usage: SegmentUsage,
    /// Byte position after the last frame.
    pub(in crate::storage) end: u64,
    /// A part of the file cannot be read.
    pub(in crate::storage) damaged: bool,
}

impl SegmentScan {
    fn add(&mut self, number: u64, op: &Op) {
        let (shares, slot, share) = match op {
            Op::Append(block) => {
                let blocks = self.blocks.entry(block.slot).or_default();
                blocks.push(BlockRef::new(number, block));
                let share = Share {
                    first: block.first,
                    end: block.end(),
                    bytes: block.len() as u64,
                };
                (&mut self.usage.records, block.slot, share)
            }
            Op::Settle(run) => {
                let share = Share {
                    first: run.first,
                    end: run.first + run.count,
                    bytes: END_BYTES,
                };
                (&mut self.usage.ends, run.slot, share)
            }
            Op::Dedup(entry) => {
                self.dedup.push(entry.clone());
                self.usage.dedup_time = self.usage.dedup_time.max(entry.time);
                return;
            }
            _ => return,
        };
        let known = shares.entry(slot).or_insert(Share { bytes: 0, ..share });
        known.add(share.first, share.end, share.bytes);
    }

    fn find(&self, slot: Slot, offset: u64) -> Option<BlockRef> {
        let blocks = self.blocks.get(&slot)?;
        let behind = blocks.partition_point(|block| block.first <= offset);
        let block = blocks.get(behind.checked_sub(1)?)?;
        block.holds(offset).then_some(*block)
    }
}

/// Finds blocks.
#[derive(Debug)]
pub(in crate::storage) struct Lookup {
    shared: Arc<EngineState>,
    scanned: Mutex<VecDeque<(FileId, Arc<SegmentScan>)>>,
}

impl Lookup {
    pub(in crate::storage) fn new(shared: Arc<EngineState>) -> Self {
        Self {
            shared,
            scanned: Mutex::default(),
        }
    }

    /// Returns the block of an offset, or `None` if no file has it. May read from disk.
    pub(in crate::storage) fn find(&self, slot: Slot, offset: u64) -> io::Result<Option<BlockRef>> {
        let in_memory = lock::read(&self.shared.view).blocks.find(slot, offset);
        if in_memory.is_some() {
            return Ok(in_memory);
        }
        let indexed = self.shared.index.find(slot, offset);
        if indexed.is_some() {
            return Ok(indexed);
        }
        let found = self.find_in_files(slot, offset)?;
        // Look again: the housekeeper may have indexed the file meanwhile.
        let missing = found.is_some_and(|block| self.shared.index.has(block.segment))
            && self.shared.index.find(slot, offset).is_none();
        if missing {
            self.shared.index.disagrees();
        }
        Ok(found)
    }

    /// Searches without the index. The snapshot of each file has the tails at its beginning, which decide the file.
    fn find_in_files(&self, slot: Slot, offset: u64) -> io::Result<Option<BlockRef>> {
        let files = &self.shared.files;
        let all = files.all();
        let known = {
            let mut scanned = lock::mutex(&self.scanned);
            scanned.retain(|(file, _)| all.binary_search(file).is_ok());
            scanned.iter().find_map(|(_, scan)| scan.find(slot, offset))
        };
        if known.is_some() {
            return Ok(known);
        }
        match file_of(files, &all, slot, offset)? {
            Some(file) => Ok(self.scan(file)?.find(slot, offset)),
            None => Ok(None),
        }
    }

    /// Returns the file of an offset, if the snapshots can be read.
    pub(in crate::storage) fn file_of(&self, slot: Slot, offset: u64) -> Option<PathBuf> {
        let files = &self.shared.files;
        let (number, _) = file_of(files, &files.all(), slot, offset).ok()??;
        Some(files.path(number))
    }

    fn scan(&self, file: FileId) -> io::Result<Arc<SegmentScan>> {
        let (number, _life) = file;
        let known = {
            let scanned = lock::mutex(&self.scanned);
            let known = scanned.iter().find(|(other, _)| *other == file);
            known.map(|(_, scan)| scan.clone())
        };
        if let Some(scan) = known {
            return Ok(scan);
        }
        tracing::warn!(file = %self.shared.files.path(number).display(), "searching a journal file without the index");
        let scan = Arc::new(scan(&self.shared.files, number)?);
        let mut scanned = lock::mutex(&self.scanned);
        scanned.push_back((file, scan.clone()));
        if scanned.len() > SCANNED_LEN_MAX {
            scanned.pop_front();
        }
        Ok(scan)
    }
}

fn file_of(files: &Files, all: &[FileId], slot: Slot, offset: u64) -> io::Result<Option<FileId>> {
    let (mut low, mut high) = (0, all.len());
    while low < high {
        let middle = low + (high - low) / 2;
        if next_at_start(files, all[middle].0, slot)? <= offset {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low.checked_sub(1).and_then(|at| all.get(at)).copied())
}

pub(in crate::storage) fn header(files: &Files, number: u64) -> io::Result<SegmentHeader> {
    let (_, file) = files.get(number)?;
    let mut bytes = vec![0; to_usize(SNAPSHOT_AT)];
    let len = segment::read_up_to(&*file, &mut bytes, 0)?;
    let decoded = SegmentHeader::decode(&bytes[..len]);
    let header = decoded.map(|(header, _)| header);
    header.map_err(|_| io::Error::other("the header of a journal file is damaged"))
}

/// Returns the tail of a partition at the beginning of a file.
fn next_at_start(files: &Files, number: u64, slot: Slot) -> io::Result<u64> {
    let header = header(files, number)?;
    let (_, file) = files.get(number)?;
    let books = read_snapshot(&*file, &header)?
        .and_then(|bytes| snapshot::decode(&bytes).ok())
        .map(|(books, _)| books);
    let books =
        books.ok_or_else(|| io::Error::other("the snapshot of a journal file is damaged"))?;
    Ok(books.partition(slot).map_or(0, |book| book.next))
}

/// Reads all frames of a sealed file. It logs and skips damaged frames, because the others must stay readable.
pub(in crate::storage) fn scan(files: &Files, number: u64) -> io::Result<SegmentScan> {
    let this = header(files, number)?;
    let (life, file) = files.get(number)?;
    if life != this.life {
        return Err(io::Error::other("a journal file was replaced"));
    }
    let next = files.all().into_iter().find(|(other, _)| *other > number);
    let end = match next {
        Some((next, _)) => Some(header(files, next)?.first_frame),
        None => None,
    };
    let mut scan = SegmentScan::default();
    scan.usage.created = this.created;
    let mut frames = Frames::new(file, life, this.frames_at(), this.first_frame)?;
    while end.is_none_or(|end| frames.number() < end) {
        let frame = match frames.next()? {
            Ok(frame) => frame,
            Err(what) => {
                let path = files.path(number);
                tracing::error!(file = %path.display(), place = frames.place(), %what, "a frame is damaged");
                scan.damaged = true;
                match frames.find_behind()? {
                    Some(header) => frames.go_to(&header),
                    None => break,
                }
                continue;
            }
        };
        for op in &frame.ops {
            scan.add(number, op);
        }
        if frame.header.last {
            break;
        }
    }
    scan.end = frames.place();
    Ok(scan)
}
