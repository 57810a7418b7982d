//! The operations of a frame, in order. The replay of all operations rebuilds the books.
//!
//! ```text
//! 1 block       see `block`
//! 2 settle run  stream, partition, first offset, count, end u8, attempts, status (0 = none), time before the frame's;
//!               end 4 and 5: stream, partition and first offset of the copies
//! 3 state put   revision, key, value          4 state delete  revision, key
//! 5 trim        stream, partition, below
//! 6 stream made, 7 stream changed: image      8 stream gone   stream
//!               A changed image with one more purge among its events is that purge: up to the tails of the event all
//!               records go, and those without an end have ended as discarded
//! 9 dedup       id 16 bytes, stream, partition, first offset, count, time u64
//! 10 refer      state key: a record behind this needs that value, the first time in this file
//! 11 dedup      id 16 bytes, stream, time u64, reply, number of appends; of each: partition, first offset, count.
//!               Of a commit with one append and no reply it is a 9
//! ```
//!
//! Each begins with its tag. Numbers without a width are varints, texts and values have their length before them.
//! A tag that is not listed is damage: the format's version says which there are.

use std::{borrow::Cow, sync::Arc};

use bytes::{BufMut, Bytes};
use serde::{Deserialize, Serialize};

use crate::{
    model::ids::{Incarnation, Offset, Partition, PartitionId, StreamId},
    runtime::clock::Timestamp,
    storage::{
        Appended, Committed, ControlEvent, ControlEventKind, PurgeNote, Stream, StreamConfig,
    },
};

use super::{
    block::{Block, NewBlock, Slot},
    codec::{ByteReader, Malformed, put_sized, put_varint},
};

const SETTLE: u8 = 2;
const STATE_PUT: u8 = 3;
const STATE_DELETE: u8 = 4;
const TRIM: u8 = 5;
const STREAM_MADE: u8 = 6;
const STREAM_CHANGED: u8 = 7;
const STREAM_GONE: u8 = 8;
const DEDUP: u8 = 9;
const REFER: u8 = 10;
const DEDUP_REPLY: u8 = 11;

/// An operation as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::storage) enum Op {
    Append(Block),
    Settle(SettleRun),
    StatePut {
        revision: u64,
        key: Arc<str>,
        value: Bytes,
    },
    StateDelete {
        revision: u64,
        key: Arc<str>,
    },
    Trim {
        slot: Slot,
        below: u64,
    },
    StreamMade(StreamImage),
    StreamChanged(StreamImage),
    StreamGone {
        stream: u32,
    },
    Dedup(DedupEntry),
    Refer {
        key: Arc<str>,
    },
}

/// An operation that is to be stored.
#[derive(Debug)]
pub(in crate::storage) enum NewOp {
    Block(NewBlock),
    Op(Op),
}

/// Consecutive records with equal settlements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::storage) struct SettleRun {
    pub(in crate::storage) slot: Slot,
    pub(in crate::storage) first: u64,
    pub(in crate::storage) count: u64,
    pub(in crate::storage) end: SettlementCode,
    pub(in crate::storage) attempts: u32,
    /// 0 = no target answered.
    pub(in crate::storage) status: u16,
    pub(in crate::storage) time: u64,
    /// Place of the first one's copy; the others follow it. Only with `Routed` and `Moved`.
    pub(in crate::storage) copies: Option<(Slot, u64)>,
}

impl SettleRun {
    /// Appends a run that continues this one with an equal settlement.
    pub(in crate::storage) fn extend(&mut self, next: &Self) -> bool {
        let follows = match (self.copies, next.copies) {
            (None, None) => true,
            (Some((slot, first)), Some((next_slot, next_first))) => {
                slot == next_slot && first.checked_add(self.count) == Some(next_first)
            }
            _ => false,
        };
        let alike = follows
            && self.slot == next.slot
            && self.first.checked_add(self.count) == Some(next.first)
            && self.end == next.end
            && self.attempts == next.attempts
            && self.status == next.status
            && self.time == next.time;
        if alike {
            self.count += next.count;
        }
        alike
    }
}

/// The settlement of a record, as one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::storage) enum SettlementCode {
    Delivered = 1,
    Filtered = 2,
    Discarded = 3,
    Routed = 4,
    Moved = 5,
}

impl SettlementCode {
    fn decode(code: u8) -> Result<Self, Malformed> {
        Ok(match code {
            1 => Self::Delivered,
            2 => Self::Filtered,
            3 => Self::Discarded,
            4 => Self::Routed,
            5 => Self::Moved,
            _ => return Err(Malformed("a record has an unknown end")),
        })
    }

    fn copies(self) -> bool {
        matches!(self, Self::Routed | Self::Moved)
    }
}

/// A remembered commit with an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::storage) struct DedupEntry {
    pub(in crate::storage) id: [u8; 16],
    pub(in crate::storage) stream: u32,
    pub(in crate::storage) time: u64,
    /// Partition, first offset and count of each append.
    pub(in crate::storage) places: Arc<[(u16, u64, u64)]>,
    pub(in crate::storage) reply: Bytes,
}

impl DedupEntry {
    /// Returns the answer that the commit had; `stream` is the stream's id.
    pub(in crate::storage) fn committed(&self, stream: StreamId) -> Committed {
        let appended = |&(partition, first, len): &(u16, u64, u64)| Appended {
            of: PartitionId {
                stream,
                partition: Partition(partition),
            },
            first: Offset(first),
            len,
        };
        Committed {
            time: Timestamp(self.time),
            appends: self.places.iter().map(appended).collect(),
            repeats: Some(self.reply.clone()),
        }
    }

    /// Returns what it takes at most.
    pub(in crate::storage) fn stored_len_max(&self) -> usize {
        64 + 32 * self.places.len() + self.reply.len()
    }

    /// Writes the operation, with its tag.
    pub(in crate::storage) fn encode(&self, out: &mut Vec<u8>) {
        if let (&[(partition, first, count)], true) = (&*self.places, self.reply.is_empty()) {
            out.put_u8(DEDUP);
            out.put_slice(&self.id);
            put_slot(out, (self.stream, partition));
            put_varint(out, first);
            put_varint(out, count);
            out.put_u64_le(self.time);
            return;
        }
        out.put_u8(DEDUP_REPLY);
        out.put_slice(&self.id);
        put_varint(out, self.stream.into());
        out.put_u64_le(self.time);
        put_sized(out, &self.reply);
        put_varint(out, self.places.len() as u64);
        for (partition, first, count) in &*self.places {
            put_varint(out, (*partition).into());
            put_varint(out, *first);
            put_varint(out, *count);
        }
    }

    /// Reads the operation, with its tag.
    pub(in crate::storage) fn decode(reader: &mut ByteReader<'_>) -> Result<Self, Malformed> {
        match reader.u8()? {
            DEDUP => Self::decode_one(reader),
            DEDUP_REPLY => Self::decode_with_reply(reader),
            _ => Err(Malformed("a dedup entry has an unknown tag")),
        }
    }

    fn decode_one(reader: &mut ByteReader<'_>) -> Result<Self, Malformed> {
        let id = reader.array()?;
        let (stream, partition) = slot(reader)?;
        let place = (partition, reader.varint()?, reader.varint()?);
        Ok(Self {
            id,
            stream,
            time: reader.u64()?,
            places: [place].into(),
            reply: Bytes::new(),
        })
    }

    fn decode_with_reply(reader: &mut ByteReader<'_>) -> Result<Self, Malformed> {
        let (id, stream, time) = (reader.array()?, reader.small()?, reader.u64()?);
        // Copied, because a slice would keep the whole frame in memory.
        let reply = Bytes::copy_from_slice(reader.sized()?);
        let mut places = Vec::new();
        for _ in 0..reader.varint()? {
            places.push((reader.small()?, reader.varint()?, reader.varint()?));
        }
        Ok(Self {
            id,
            stream,
            time,
            places: places.into(),
            reply,
        })
    }
}

/// The JSON of an image.
#[derive(Debug, Serialize, Deserialize)]
struct Noted<'a> {
    #[serde(flatten)]
    config: Cow<'a, StreamConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_purge: Option<Cow<'a, PurgeNote>>,
}

/// A stream with its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::storage) struct StreamImage {
    /// Counts up from 0, never used twice.
    pub(in crate::storage) number: u32,
    pub(in crate::storage) stream: Arc<Stream>,
}

impl StreamImage {
    /// Returns the tails of the last purge, if it came after the last one of `known`, which is the stream as it was.
    ///
    /// Purges are told apart by their times, of which no two are equal: with [`EVENTS_MAX`](crate::storage::EVENTS_MAX)
    /// events there are no more of them after a purge than before.
    pub(in crate::storage) fn purge_since(&self, known: Option<&Stream>) -> Option<&[Offset]> {
        let purge = self.stream.purged()?;
        let known = known.and_then(Stream::purged).map(|event| event.time);
        (known < Some(purge.time)).then_some(&purge.tails[..])
    }

    pub(in crate::storage) fn encode(&self, out: &mut Vec<u8>) {
        let stream = &self.stream;
        put_varint(out, self.number.into());
        out.put_slice(&stream.id.0);
        out.put_u64_le(stream.incarnation.0);
        put_sized(out, stream.name.as_str().as_bytes());
        put_varint(out, stream.partitions.into());
        let noted = Noted {
            config: Cow::Borrowed(&stream.config),
            last_purge: stream.last_purge.as_ref().map(Cow::Borrowed),
        };
        let config = serde_json::to_vec(&noted).expect("plain members are always JSON");
        put_sized(out, &config);
        put_varint(out, stream.revision);
        put_varint(out, stream.events.len() as u64);
        for event in &stream.events {
            let (kind, partitions) = match event.kind {
                ControlEventKind::Created { partitions } => (1, partitions),
                ControlEventKind::Grown { partitions } => (2, partitions),
                ControlEventKind::Purged => (3, 0),
            };
            out.put_u8(kind);
            put_varint(out, partitions.into());
            out.put_u64_le(event.time.0);
            put_varint(out, event.tails.len() as u64);
            for tail in &event.tails {
                put_varint(out, tail.0);
            }
        }
    }

    pub(in crate::storage) fn decode(reader: &mut ByteReader<'_>) -> Result<Self, Malformed> {
        let number = reader.small()?;
        let id = StreamId(reader.array()?);
        let incarnation = Incarnation(reader.u64()?);
        let name = reader.text()?.parse();
        let name = name.map_err(|_| Malformed("a stream has an impossible name"))?;
        let partitions = reader.small()?;
        if !(1..=crate::storage::local::PARTITIONS_MAX).contains(&partitions) {
            return Err(Malformed("a stream has an impossible number of partitions"));
        }
        let noted: Noted<'_> = serde_json::from_slice(reader.sized()?)
            .map_err(|_| Malformed("a stream's config is malformed"))?;
        let revision = reader.varint()?;
        let mut events = Vec::new();
        for _ in 0..reader.varint()? {
            let (kind, partitions) = (reader.u8()?, reader.small()?);
            let kind = match kind {
                1 => ControlEventKind::Created { partitions },
                2 => ControlEventKind::Grown { partitions },
                3 => ControlEventKind::Purged,
                _ => return Err(Malformed("a stream has an unknown control event")),
            };
            let time = Timestamp(reader.u64()?);
            let mut tails = Vec::new();
            for _ in 0..reader.varint()? {
                tails.push(Offset(reader.varint()?));
            }
            events.push(ControlEvent { kind, time, tails });
        }
        let stream = Stream {
            id,
            incarnation,
            name,
            partitions,
            config: noted.config.into_owned(),
            revision,
            events,
            last_purge: noted.last_purge.map(Cow::into_owned),
        };
        Ok(Self {
            number,
            stream: Arc::new(stream),
        })
    }
}

impl Op {
    /// Writes any operation but a block, which needs its place.
    pub(in crate::storage) fn encode(&self, out: &mut Vec<u8>, frame_time: u64) {
        match self {
            Self::Append(_) => unreachable!("blocks are written by NewBlock"),
            Self::Settle(run) => {
                out.put_u8(SETTLE);
                put_slot(out, run.slot);
                put_varint(out, run.first);
                put_varint(out, run.count);
                out.put_u8(run.end as u8);
                put_varint(out, run.attempts.into());
                put_varint(out, run.status.into());
                put_varint(out, frame_time.saturating_sub(run.time));
                if let Some((slot, first)) = run.copies {
                    put_slot(out, slot);
                    put_varint(out, first);
                }
            }
            Self::StatePut {
                revision,
                key,
                value,
            } => {
                out.put_u8(STATE_PUT);
                put_varint(out, *revision);
                put_sized(out, key.as_bytes());
                put_sized(out, value);
            }
            Self::StateDelete { revision, key } => {
                out.put_u8(STATE_DELETE);
                put_varint(out, *revision);
                put_sized(out, key.as_bytes());
            }
            Self::Trim { slot, below } => {
                out.put_u8(TRIM);
                put_slot(out, *slot);
                put_varint(out, *below);
            }
            Self::StreamMade(image) => {
                out.put_u8(STREAM_MADE);
                image.encode(out);
            }
            Self::StreamChanged(image) => {
                out.put_u8(STREAM_CHANGED);
                image.encode(out);
            }
            Self::StreamGone { stream } => {
                out.put_u8(STREAM_GONE);
                put_varint(out, (*stream).into());
            }
            Self::Dedup(entry) => entry.encode(out),
            Self::Refer { key } => {
                out.put_u8(REFER);
                put_sized(out, key.as_bytes());
            }
        }
    }

    /// Reads any operation but a block; returns it with its length.
    pub(in crate::storage) fn decode(
        bytes: &[u8],
        frame_time: u64,
    ) -> Result<(Self, usize), Malformed> {
        let mut reader = ByteReader::new(bytes);
        let op = match reader.u8()? {
            SETTLE => Self::Settle(settle_run(&mut reader, frame_time)?),
            STATE_PUT => Self::StatePut {
                revision: reader.varint()?,
                key: reader.shared_text()?,
                value: Bytes::copy_from_slice(reader.sized()?),
            },
            STATE_DELETE => Self::StateDelete {
                revision: reader.varint()?,
                key: reader.shared_text()?,
            },
            TRIM => Self::Trim {
                slot: slot(&mut reader)?,
                below: reader.varint()?,
            },
            STREAM_MADE => Self::StreamMade(StreamImage::decode(&mut reader)?),
            STREAM_CHANGED => Self::StreamChanged(StreamImage::decode(&mut reader)?),
            STREAM_GONE => Self::StreamGone {
                stream: reader.small()?,
            },
            DEDUP => Self::Dedup(DedupEntry::decode_one(&mut reader)?),
            DEDUP_REPLY => Self::Dedup(DedupEntry::decode_with_reply(&mut reader)?),
            REFER => Self::Refer {
                key: reader.shared_text()?,
            },
            _ => return Err(Malformed("a frame holds an unknown operation")),
        };
        Ok((op, reader.at()))
    }
}

fn settle_run(reader: &mut ByteReader<'_>, frame_time: u64) -> Result<SettleRun, Malformed> {
    let mut run = SettleRun {
        slot: slot(reader)?,
        first: reader.varint()?,
        count: reader.varint()?,
        end: SettlementCode::decode(reader.u8()?)?,
        attempts: reader.small()?,
        status: reader.small()?,
        time: frame_time.saturating_sub(reader.varint()?),
        copies: None,
    };
    if run.end.copies() {
        run.copies = Some((slot(reader)?, reader.varint()?));
    }
    Ok(run)
}

fn put_slot(out: &mut Vec<u8>, (stream, partition): Slot) {
    put_varint(out, stream.into());
    put_varint(out, partition.into());
}

fn slot(reader: &mut ByteReader<'_>) -> Result<Slot, Malformed> {
    Ok((reader.small()?, reader.small()?))
}
