//! Reads the good parts of a damaged file: whole frames, frames without their bad blocks, and single blocks between good
//! frames. Each part has a checksum of its own; bytes without a good checksum are not used.

use std::{io, sync::Arc};

use bytes::Bytes;

use crate::storage::local::{
    disk::DiskFile,
    format::{
        block::{self, Block},
        codec::to_usize,
        frame::{ALIGN, FrameHeader, HEADER_LEN, Part},
        scan::Frames,
        segment::{self, SNAPSHOT_AT, SegmentHeader},
    },
};

/// Bytes that may be summed up in search of a block, as a multiple of those searched: bytes may look like many blocks.
const SEARCH_FACTOR: usize = 32;

/// A part of a file, in its order.
#[derive(Debug)]
pub(in crate::storage) enum Piece {
    /// A frame, perhaps without some of its blocks.
    Frame {
        header: FrameHeader,
        parts: Vec<Part>,
    },
    /// Bytes that hold no frame, and the blocks that were found in them.
    Gap(LostSpan),
}

#[derive(Debug)]
pub(in crate::storage) struct LostSpan {
    pub(in crate::storage) bytes: u64,
    /// How many frames were there.
    pub(in crate::storage) frames: u64,
    pub(in crate::storage) blocks: Vec<Block>,
}

/// How a file ended.
#[derive(Debug)]
pub(in crate::storage) struct Ended {
    pub(in crate::storage) next_frame: u64,
    /// Behind the last frame.
    pub(in crate::storage) place: u64,
}

/// Where the frames of a file begin, and where they end.
#[derive(Debug)]
pub(in crate::storage) struct Extent {
    pub(in crate::storage) life: u64,
    pub(in crate::storage) place: u64,
    /// Number of the first frame.
    pub(in crate::storage) first_frame: u64,
    /// Number of the frame at `place`.
    pub(in crate::storage) number: u64,
    /// Number of the next file's first frame, if that can be said. Without it the end is where no frame follows.
    pub(in crate::storage) end: Option<u64>,
    /// It was written again: its numbers end before the next file's begin.
    pub(in crate::storage) rewritten: bool,
}

/// Gives all pieces of a file to `take`.
pub(in crate::storage) fn salvage<E: From<io::Error>>(
    file: &Arc<dyn DiskFile>,
    extent: &Extent,
    mut take: impl FnMut(Piece) -> Result<(), E>,
) -> Result<Ended, E> {
    let Extent {
        life, place, end, ..
    } = *extent;
    let mut frames = Frames::new(file.clone(), life, place, extent.number)?;
    if extent.number > extent.first_frame {
        let gap = gap(
            file,
            life,
            SNAPSHOT_AT..place,
            extent.number - extent.first_frame,
        )?;
        take(Piece::Gap(gap))?;
    }
    while end.is_none_or(|end| frames.number() < end) {
        if let Ok(frame) = frames.next()? {
            let last = frame.header.last;
            let parts = frame.ops.into_iter().map(Part::Op).collect();
            take(Piece::Frame {
                header: frame.header,
                parts,
            })?;
            if last {
                break;
            }
            continue;
        }
        if let Some((header, parts)) = frames.next_damaged()? {
            let last = header.last;
            take(Piece::Frame { header, parts })?;
            if last {
                break;
            }
            continue;
        }
        let (from, number) = (frames.place(), frames.number());
        let behind = frames.find_behind()?;
        let (to, frames_len) = match (&behind, end) {
            (Some(behind), _) => (behind.at.place, behind.at.number - number),
            (None, Some(_)) if extent.rewritten => (file.len()?, 1),
            (None, Some(end)) => (file.len()?, end - number),
            // Nobody was told of what a crash has cut.
            (None, None) => break,
        };
        take(Piece::Gap(gap(file, life, from..to, frames_len)?))?;
        match behind {
            Some(behind) => frames.go_to(&behind),
            None => {
                return Ok(Ended {
                    next_frame: end.unwrap_or(number),
                    place: from,
                });
            }
        }
    }
    Ok(Ended {
        next_frame: frames.number(),
        place: frames.place(),
    })
}

fn gap(
    file: &Arc<dyn DiskFile>,
    life: u64,
    range: std::ops::Range<u64>,
    frames: u64,
) -> io::Result<LostSpan> {
    let mut bytes = vec![0; to_usize(range.end.saturating_sub(range.start))];
    let len = segment::read_up_to(&**file, &mut bytes, range.start)?;
    bytes.truncate(len);
    // Most of what lies behind the last frame are zeros.
    let used = bytes.iter().rposition(|byte| *byte != 0);
    let bytes = Bytes::from(bytes);
    Ok(LostSpan {
        bytes: used.map_or(0, |at| at as u64 + 1),
        frames,
        blocks: blocks(&bytes, range.start, life),
    })
}

/// Finds the blocks in bytes that lie at `place`.
fn blocks(bytes: &Bytes, place: u64, life: u64) -> Vec<Block> {
    let mut found = Vec::new();
    let mut left = bytes.len().saturating_mul(SEARCH_FACTOR);
    let mut at = 0;
    while at + block::HEADER_LEN <= bytes.len() {
        at += 1;
        let start = at - 1;
        if bytes[start] != block::TAG {
            continue;
        }
        let Ok((_, len)) = Block::decode_lost(&bytes[start..]) else {
            continue;
        };
        if len > left {
            break;
        }
        left -= len;
        if let Ok(block) = Block::decode(&bytes.slice(start..), life, place + start as u64) {
            at = start + block.len();
            found.push(block);
        }
    }
    found
}

/// Finds the first frame of a file whose header is gone. Its life is that of the newest frames: what lies behind them may be
/// left from an older life of the file. Frames from `numbers` are meant.
pub(in crate::storage) fn first_frame(
    file: &dyn DiskFile,
    numbers: std::ops::Range<u64>,
) -> io::Result<Option<FrameHeader>> {
    const WINDOW_LEN: u64 = 1 << 20;
    let len = file.len()?;
    let mut first: Option<FrameHeader> = None;
    let mut newest = 0;
    let mut at = SNAPSHOT_AT;
    while at < len {
        let mut bytes = vec![0; to_usize((len - at).min(WINDOW_LEN + HEADER_LEN as u64))];
        let read = segment::read_up_to(file, &mut bytes, at)?;
        let starts = (0..read.min(to_usize(WINDOW_LEN))).step_by(ALIGN);
        for start in starts.filter(|start| start + HEADER_LEN <= read) {
            let Ok(header) = FrameHeader::decode(&bytes[start..read]) else {
                continue;
            };
            let is_here = header.at.place == at + start as u64;
            if !is_here || !numbers.contains(&header.at.number) {
                continue;
            }
            let same_life = first.is_some_and(|first| first.at.life == header.at.life);
            if !same_life && header.at.number > newest {
                first = Some(header);
            }
            newest = newest.max(header.at.number);
        }
        at += WINDOW_LEN;
    }
    Ok(first)
}

/// Says where the frames are of a file with a good header.
pub(in crate::storage) fn extent(header: &SegmentHeader, end: Option<u64>) -> Extent {
    Extent {
        life: header.life,
        place: header.frames_at(),
        first_frame: header.first_frame,
        number: header.first_frame,
        end,
        rewritten: header.rewrite > 0,
    }
}
