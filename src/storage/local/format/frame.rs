//! The bytes of one durable write, checksummed.
//!
//! ```text
//! frame   magic u32, flags u16, version u16 = 1, body length u32, body crc u32, number u64, life u64, place u64,
//!         time u64 µs, 0 u32, header crc u32, body, zeros up to a multiple of 8
//! ```
//!
//! `flags` has bit 0 if the frame is the last of its file; the others are 0. The body crc begins with life, number and
//! place and goes over everything but the payloads of blocks: those have a crc of their own, which it covers.

use bytes::{BufMut, Bytes};

use super::{
    block::{self, Block, LostBlock},
    codec::{ByteReader, Malformed, len_u32},
    ops::{NewOp, Op},
};

/// Bytes before the body.
pub(in crate::storage) const HEADER_LEN: usize = 56;
/// Frames and the first of them begin at multiples of this.
pub(in crate::storage) const ALIGN: usize = 8;
/// What a frame takes at most if more than one commit is in it.
pub(in crate::storage) const FRAME_BYTES_MAX: usize = 8 << 20;

const MAGIC: u32 = u32::from_le_bytes(*b"SGFR");
const VERSION: u16 = 1;
const FLAG_LAST: u16 = 1;
const CRC_AT: usize = 52;

/// Where a frame stands, and when its last commit was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::storage) struct FrameAt {
    pub(in crate::storage) life: u64,
    pub(in crate::storage) number: u64,
    pub(in crate::storage) place: u64,
    pub(in crate::storage) time: u64,
}

/// What stands before the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::storage) struct FrameHeader {
    pub(in crate::storage) at: FrameAt,
    /// No frame follows in this file.
    pub(in crate::storage) last: bool,
    pub(in crate::storage) body_len: u32,
    body_crc: u32,
}

impl FrameHeader {
    /// Reads a header; `bytes` may go on behind it.
    pub(in crate::storage) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = ByteReader::new(bytes);
        if reader.u32()? != MAGIC {
            return Err(Malformed("there is no frame"));
        }
        let flags = reader.u16()?;
        let version = reader.u16()?;
        let body_len = reader.u32()?;
        let body_crc = reader.u32()?;
        let number = reader.u64()?;
        let life = reader.u64()?;
        let place = reader.u64()?;
        let time = reader.u64()?;
        let zero = reader.u32()?;
        if reader.u32()? != crc32c::crc32c(&bytes[..CRC_AT]) {
            return Err(Malformed("a frame's header has a wrong checksum"));
        }
        if version != VERSION || flags & !FLAG_LAST != 0 || zero != 0 {
            return Err(Malformed("a frame is of an unknown form"));
        }
        Ok(Self {
            at: FrameAt {
                life,
                number,
                place,
                time,
            },
            last: flags == FLAG_LAST,
            body_len,
            body_crc,
        })
    }

    /// Returns how many bytes the frame has, with the zeros behind it.
    pub(in crate::storage) fn frame_len(&self) -> u64 {
        aligned_len(HEADER_LEN as u64 + u64::from(self.body_len))
    }

    fn encode(&self, out: &mut [u8]) {
        let mut to = &mut *out;
        to.put_u32_le(MAGIC);
        to.put_u16_le(if self.last { FLAG_LAST } else { 0 });
        to.put_u16_le(VERSION);
        to.put_u32_le(self.body_len);
        to.put_u32_le(self.body_crc);
        to.put_u64_le(self.at.number);
        to.put_u64_le(self.at.life);
        to.put_u64_le(self.at.place);
        to.put_u64_le(self.at.time);
        to.put_u32_le(0);
        let crc = crc32c::crc32c(&out[..CRC_AT]);
        out[CRC_AT..HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
    }
}

/// A frame: its bytes with the zeros behind them, and what it says.
#[derive(Clone, Debug)]
pub(in crate::storage) struct Frame {
    pub(in crate::storage) header: FrameHeader,
    pub(in crate::storage) ops: Vec<Op>,
    pub(in crate::storage) bytes: Bytes,
}

impl Frame {
    /// Writes a frame; `bytes_hint` is about what it will take.
    pub(in crate::storage) fn encode(
        at: FrameAt,
        last: bool,
        entries: Vec<NewOp>,
        bytes_hint: usize,
    ) -> Self {
        let mut out = Vec::with_capacity(HEADER_LEN + bytes_hint + ALIGN);
        out.resize(HEADER_LEN, 0);
        let mut crc = seed(&at);
        let mut block_starts = Vec::new();
        for entry in &entries {
            let start = out.len();
            let covered = match entry {
                NewOp::Block(block) => {
                    block_starts.push(start);
                    block.encode(&mut out, at.life, at.place + start as u64);
                    start..start + block::HEADER_LEN
                }
                NewOp::Op(op) => {
                    op.encode(&mut out, at.time);
                    start..out.len()
                }
            };
            crc = crc32c::crc32c_append(crc, &out[covered]);
        }
        let header = FrameHeader {
            at,
            last,
            body_len: len_u32(out.len() - HEADER_LEN),
            body_crc: crc,
        };
        header.encode(&mut out[..HEADER_LEN]);
        out.resize(out.len().next_multiple_of(ALIGN), 0);
        let bytes = Bytes::from(out);

        let mut block_starts = block_starts.into_iter();
        let stored = |entry| match entry {
            NewOp::Op(op) => op,
            NewOp::Block(block) => {
                let start = block_starts.next().expect("one was noted for each block");
                let payload = bytes.slice(start + block::HEADER_LEN..start + block.len());
                Op::Append(block.stored(at.place + start as u64, payload))
            }
        };
        let ops = entries.into_iter().map(stored).collect();
        Self { header, ops, bytes }
    }

    /// Reads the frame at the beginning of `bytes`, whose header says that it is all there.
    pub(in crate::storage) fn decode(
        bytes: &Bytes,
        header: FrameHeader,
    ) -> Result<Self, Malformed> {
        let end = HEADER_LEN + header.body_len as usize;
        if bytes.len() < end {
            return Err(Malformed("a frame is cut short"));
        }
        let (mut ops, mut crc, mut start) = (Vec::new(), seed(&header.at), HEADER_LEN);
        while start < end {
            let rest = bytes.slice(start..end);
            let (op, covered, len) = if rest[0] == block::TAG {
                let place = header.at.place + start as u64;
                let block = Block::decode(&rest, header.at.life, place)?;
                let len = block.len();
                (Op::Append(block), block::HEADER_LEN, len)
            } else {
                let (op, len) = Op::decode(&rest, header.at.time)?;
                (op, len, len)
            };
            crc = crc32c::crc32c_append(crc, &rest[..covered]);
            ops.push(op);
            start += len;
        }
        if crc != header.body_crc {
            return Err(Malformed("a frame's body has a wrong checksum"));
        }
        let len = bytes.len().min(end.next_multiple_of(ALIGN));
        Ok(Self {
            header,
            ops,
            bytes: bytes.slice(..len),
        })
    }
}

/// A part of a frame, some of whose blocks cannot be read.
#[derive(Clone, Debug)]
pub(in crate::storage) enum Part {
    Op(Op),
    /// With its length.
    Lost(LostBlock, usize),
}

/// Reads a frame that is good but for payloads of blocks: the body's crc says so of everything else.
pub(in crate::storage) fn decode_damaged(
    bytes: &Bytes,
    header: FrameHeader,
) -> Result<Vec<Part>, Malformed> {
    let end = HEADER_LEN + header.body_len as usize;
    if bytes.len() < end {
        return Err(Malformed("a frame is cut short"));
    }
    let (mut parts, mut crc, mut start) = (Vec::new(), seed(&header.at), HEADER_LEN);
    while start < end {
        let rest = bytes.slice(start..end);
        let (part, covered, len) = if rest[0] == block::TAG {
            let place = header.at.place + start as u64;
            let (lost, len) = Block::decode_lost(&rest)?;
            let part = match Block::decode(&rest, header.at.life, place) {
                Ok(block) => Part::Op(Op::Append(block)),
                Err(_) => Part::Lost(lost, len),
            };
            (part, block::HEADER_LEN, len)
        } else {
            let (op, len) = Op::decode(&rest, header.at.time)?;
            (Part::Op(op), len, len)
        };
        crc = crc32c::crc32c_append(crc, &rest[..covered]);
        parts.push(part);
        start += len;
    }
    match crc == header.body_crc {
        true => Ok(parts),
        false => Err(Malformed("a frame's body has a wrong checksum")),
    }
}

/// Returns a length with the zeros up to the next frame.
pub(in crate::storage) fn aligned_len(len: u64) -> u64 {
    len.next_multiple_of(ALIGN as u64)
}

fn seed(at: &FrameAt) -> u32 {
    let mut seed = crc32c::crc32c(&at.life.to_le_bytes());
    seed = crc32c::crc32c_append(seed, &at.number.to_le_bytes());
    crc32c::crc32c_append(seed, &at.place.to_le_bytes())
}
