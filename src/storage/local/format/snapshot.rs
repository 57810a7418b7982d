//! The books at the first frame of a file, so that older files can be freed.
//!
//! ```text
//! snapshot  sections, each: tag u8, length u32, bytes
//! 1 books   next stream number, last commit time, last state revision
//! 2 stream  image, then for each partition: next offset, earliest, last time, number of counts,
//!           for each count: code u8, count; settled set
//! 3 state   revision, key, value
//! 4 before  the file before: number, life, first and last frame, first and last time, bytes, number of state keys
//!           that its records need, these keys
//! 5 gone    sum over the streams that are gone: number of counts, for each count: code u8, count
//! 6 lost    from version 2 on: records moved less those received i64, number of accepted losses, for each: time u64,
//!           bytes, frames, records that had ended, records that had not, number of files, their numbers; number of
//!           partitions with lost records, for each: stream, partition, number of ranges, for each: gap, length
//! ```
//!
//! Numbers are varints. An unknown tag below 128 is an error, from 128 on it is skipped. Dedup ids are not in here:
//! they are many, short-lived, and found again in the index or in the frames themselves.

use std::sync::Arc;

use bytes::{BufMut, Bytes};

use crate::storage::{AppendKind, Counts};

use super::{
    codec::{ByteReader, Malformed, len_u32, put_sized, put_varint},
    ops::StreamImage,
};
use crate::storage::local::books::{
    Books, Loss, PartitionBook, StreamBook, ranges::Ranges, settled::SettledSet,
};

const BOOKS: u8 = 1;
const STREAM: u8 = 2;
const STATE: u8 = 3;
const BEFORE: u8 = 4;
const GONE: u8 = 5;
const LOST: u8 = 6;
const SKIPPABLE_FROM: u8 = 128;

const DELIVERED: u8 = 16;
const FILTERED: u8 = 17;
const ROUTED: u8 = 18;
const MOVED: u8 = 19;
const DISCARDED: u8 = 20;
const EXPIRED: u8 = 21;
// From version 2 on.
const COUNT_LOST: u8 = 22;
const COUNT_UNKNOWN: u8 = 23;

/// Summary of a file, which decides whether it is still needed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::storage) struct Summary {
    pub(in crate::storage) number: u64,
    pub(in crate::storage) life: u64,
    pub(in crate::storage) first_frame: u64,
    pub(in crate::storage) last_frame: u64,
    pub(in crate::storage) first_time: u64,
    pub(in crate::storage) last_time: u64,
    /// Up to the end of the last frame.
    pub(in crate::storage) bytes: u64,
    /// State values that its records refer to, such as secrets.
    pub(in crate::storage) refers: Vec<Arc<str>>,
}

/// Writes a snapshot.
pub(in crate::storage) fn encode(books: &Books, before: Option<&Summary>) -> Vec<u8> {
    let mut out = Vec::new();
    section(&mut out, BOOKS, |out| {
        put_varint(out, books.next_stream.into());
        put_varint(out, books.last_time);
        put_varint(out, books.state_revision);
    });
    for (number, book) in books.streams() {
        section(&mut out, STREAM, |out| put_stream(out, number, book));
    }
    for (key, entry) in &books.state {
        section(&mut out, STATE, |out| {
            put_varint(out, entry.revision);
            put_sized(out, key.as_bytes());
            put_sized(out, &entry.value);
        });
    }
    if let Some(before) = before {
        section(&mut out, BEFORE, |out| put_summary(out, before));
    }
    if books.gone != Counts::default() {
        section(&mut out, GONE, |out| put_counts(out, &books.gone));
    }
    if !books.losses.is_empty() {
        section(&mut out, LOST, |out| put_lost(out, books));
    }
    out
}

/// Returns the format version that a snapshot needs.
pub(in crate::storage) fn version(bytes: &[u8]) -> u32 {
    let mut all = ByteReader::new(bytes);
    while let (Ok(tag), Ok(len)) = (all.u8(), all.u32()) {
        if tag == LOST {
            return 2;
        }
        if all.take(len as usize).is_err() {
            break;
        }
    }
    1
}

/// Reads a snapshot.
pub(in crate::storage) fn decode(bytes: &[u8]) -> Result<(Books, Option<Summary>), Malformed> {
    let mut books = Books::default();
    let mut before = None;
    let mut all = ByteReader::new(bytes);
    while !all.is_empty() {
        let tag = all.u8()?;
        let len = all.u32()? as usize;
        let mut reader = ByteReader::new(all.take(len)?);
        match tag {
            BOOKS => {
                books.next_stream = books.next_stream.max(reader.small()?);
                books.last_time = reader.varint()?;
                books.state_revision = books.state_revision.max(reader.varint()?);
            }
            STREAM => {
                let image = StreamImage::decode(&mut reader)?;
                let mut partitions = Vec::new();
                for _ in 0..image.stream.partitions {
                    partitions.push(partition(&mut reader)?);
                }
                books.add_stream(&image, partitions)?;
            }
            STATE => {
                let revision = reader.varint()?;
                let key = reader.shared_text()?;
                let value = Bytes::copy_from_slice(reader.sized()?);
                books.set_state(&key, revision, Some(value));
            }
            BEFORE => before = Some(summary(&mut reader)?),
            GONE => books.gone = read_counts(&mut reader)?,
            LOST => lost(&mut reader, &mut books)?,
            SKIPPABLE_FROM.. => continue,
            _ => return Err(Malformed("a snapshot has an unknown section")),
        }
        reader.end()?;
    }
    Ok((books, before))
}

fn section(out: &mut Vec<u8>, tag: u8, content: impl FnOnce(&mut Vec<u8>)) {
    out.put_u8(tag);
    let at = out.len();
    out.put_u32_le(0);
    content(out);
    let len = len_u32(out.len() - at - 4);
    out[at..at + 4].copy_from_slice(&len.to_le_bytes());
}

fn put_stream(out: &mut Vec<u8>, number: u32, book: &StreamBook) {
    let stream = book.stream.clone();
    StreamImage { number, stream }.encode(out);
    for partition in &book.partitions {
        put_varint(out, partition.next);
        put_varint(out, partition.earliest);
        put_varint(out, partition.last_time);
        put_counts(out, &partition.counts);
        partition.settled.encode(out);
    }
}

fn partition(reader: &mut ByteReader<'_>) -> Result<PartitionBook, Malformed> {
    let mut book = PartitionBook {
        next: reader.varint()?,
        earliest: reader.varint()?,
        last_time: reader.varint()?,
        ..PartitionBook::default()
    };
    book.counts = read_counts(reader)?;
    book.settled = SettledSet::decode(reader)?;
    let low = book.settled.low_mark();
    if book.earliest > low || low > book.next {
        return Err(Malformed("a partition's bounds contradict each other"));
    }
    book.tail.send_replace(crate::model::ids::Offset(book.next));
    Ok(book)
}

fn put_lost(out: &mut Vec<u8>, books: &Books) {
    out.put_i64_le(books.unmatched);
    put_varint(out, books.losses.len() as u64);
    for loss in &books.losses {
        out.put_u64_le(loss.time);
        for number in [loss.bytes, loss.frames, loss.ended, loss.open] {
            put_varint(out, number);
        }
        put_varint(out, loss.files.len() as u64);
        for number in &loss.files {
            put_varint(out, *number);
        }
    }
    let partitions: Vec<_> = books.lost().collect();
    put_varint(out, partitions.len() as u64);
    for ((stream, partition), lost) in partitions {
        put_varint(out, stream.into());
        put_varint(out, partition.into());
        lost.encode(out);
    }
}

fn lost(reader: &mut ByteReader<'_>, books: &mut Books) -> Result<(), Malformed> {
    books.unmatched = i64::from_le_bytes(reader.array()?);
    for _ in 0..reader.varint()? {
        let mut loss = Loss {
            time: reader.u64()?,
            bytes: reader.varint()?,
            frames: reader.varint()?,
            ended: reader.varint()?,
            open: reader.varint()?,
            files: Vec::new(),
        };
        for _ in 0..reader.varint()? {
            loss.files.push(reader.varint()?);
        }
        books.losses.push(loss);
    }
    for _ in 0..reader.varint()? {
        let slot = (reader.small()?, reader.small()?);
        let lost = Ranges::decode(reader)?;
        let book = books.partition_mut(slot)?;
        let ended = |range: std::ops::Range<u64>| {
            let last = range.end - 1;
            range.start >= book.earliest && last < book.next && book.settled.contains(last)
        };
        if !lost.iter().all(ended) {
            return Err(Malformed("a lost record has no end"));
        }
        book.lost = Arc::new(lost);
    }
    Ok(())
}

fn put_counts(out: &mut Vec<u8>, all: &Counts) {
    let counts = counts(all);
    put_varint(out, counts.len() as u64);
    for (code, count) in counts {
        out.put_u8(code);
        put_varint(out, count);
    }
}

fn read_counts(reader: &mut ByteReader<'_>) -> Result<Counts, Malformed> {
    let mut counts = Counts::default();
    for _ in 0..reader.varint()? {
        let code = reader.u8()?;
        *count_mut(&mut counts, code)? = reader.varint()?;
    }
    Ok(counts)
}

fn counts(counts: &Counts) -> Vec<(u8, u64)> {
    let ends = [
        (DELIVERED, counts.delivered),
        (FILTERED, counts.filtered),
        (ROUTED, counts.routed),
        (MOVED, counts.moved),
        (DISCARDED, counts.discarded),
        (EXPIRED, counts.expired),
        (COUNT_LOST, counts.lost),
        (COUNT_UNKNOWN, counts.unknown),
    ];
    let appended = AppendKind::ALL.map(|kind| (kind as u8, counts.appended[kind as usize]));
    let all = appended.into_iter().chain(ends);
    all.filter(|(_, count)| *count > 0).collect()
}

fn count_mut(counts: &mut Counts, code: u8) -> Result<&mut u64, Malformed> {
    Ok(match code {
        DELIVERED => &mut counts.delivered,
        FILTERED => &mut counts.filtered,
        ROUTED => &mut counts.routed,
        MOVED => &mut counts.moved,
        DISCARDED => &mut counts.discarded,
        EXPIRED => &mut counts.expired,
        COUNT_LOST => &mut counts.lost,
        COUNT_UNKNOWN => &mut counts.unknown,
        kind => counts
            .appended
            .get_mut(usize::from(kind))
            .ok_or(Malformed("a snapshot counts something unknown"))?,
    })
}

fn put_summary(out: &mut Vec<u8>, summary: &Summary) {
    put_varint(out, summary.number);
    out.put_u64_le(summary.life);
    put_varint(out, summary.first_frame);
    put_varint(out, summary.last_frame);
    put_varint(out, summary.first_time);
    put_varint(out, summary.last_time);
    put_varint(out, summary.bytes);
    put_varint(out, summary.refers.len() as u64);
    for key in &summary.refers {
        put_sized(out, key.as_bytes());
    }
}

fn summary(reader: &mut ByteReader<'_>) -> Result<Summary, Malformed> {
    let mut summary = Summary {
        number: reader.varint()?,
        life: reader.u64()?,
        first_frame: reader.varint()?,
        last_frame: reader.varint()?,
        first_time: reader.varint()?,
        last_time: reader.varint()?,
        bytes: reader.varint()?,
        refers: Vec::new(),
    };
    for _ in 0..reader.varint()? {
        summary.refers.push(reader.shared_text()?);
    }
    Ok(summary)
}
