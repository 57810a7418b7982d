//! Records of one partition, one behind the other: the part of a frame that is read on its own.
//!
//! ```text
//! block   tag u8 = 1, kind u8, partition u16, stream u32, first offset u64, base time u64 µs,
//!         count u32, payload length u32, crc u32, payload
//! record  length u32 of all that follows, time u32 µs after the base time, key length u16, headers length u32,
//!         key, headers, value
//! ```
//!
//! The crc is over everything but itself and begins with the life of the file and the block's place in it, so a block
//! that lies anywhere else, or is left from another life, is refused.

use bytes::{BufMut, Bytes};

use crate::{
    model::{
        ids::Offset,
        record::{Headers, Record, StoredRecord},
    },
    runtime::clock::Timestamp,
    storage::AppendKind,
};

use super::codec::{ByteReader, Malformed, len_u32};

/// First byte of a block.
pub(in crate::storage) const TAG: u8 = 1;
/// Bytes before the payload.
pub(in crate::storage) const HEADER_LEN: usize = 36;
/// A block takes no further record beyond this; a larger record is alone in its block.
pub(in crate::storage) const BLOCK_BYTES_MAX: usize = 256 << 10;

const CRC_AT: usize = 32;
const RECORD_HEADER_LEN: usize = 14;

/// A stream by its number in the journal, and one of its partitions.
pub(in crate::storage) type Slot = (u32, u16);

/// A block that has its place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::storage) struct Block {
    pub(in crate::storage) slot: Slot,
    pub(in crate::storage) kind: AppendKind,
    pub(in crate::storage) first: u64,
    pub(in crate::storage) count: u32,
    pub(in crate::storage) base_time: u64,
    /// Time of the last record.
    pub(in crate::storage) last_time: u64,
    /// Where it begins in its file.
    pub(in crate::storage) place: u64,
    pub(in crate::storage) payload: Bytes,
}

/// What stands before the payload.
struct BlockHeader {
    slot: Slot,
    kind: AppendKind,
    first: u64,
    base_time: u64,
    count: u32,
    len: usize,
    crc: u32,
}

impl BlockHeader {
    fn read(reader: &mut ByteReader<'_>) -> Result<Self, Malformed> {
        if reader.u8()? != TAG {
            return Err(Malformed("there is no block"));
        }
        let kind = AppendKind::ALL
            .get(usize::from(reader.u8()?))
            .ok_or(Malformed("a block is of an unknown kind"))?;
        let (partition, stream) = (reader.u16()?, reader.u32()?);
        Ok(Self {
            slot: (stream, partition),
            kind: *kind,
            first: reader.u64()?,
            base_time: reader.u64()?,
            count: reader.u32()?,
            len: reader.u32()? as usize,
            crc: reader.u32()?,
        })
    }
}

impl Block {
    /// Reads the block at the beginning of `bytes`, which may go on behind it.
    pub(in crate::storage) fn decode(
        bytes: &Bytes,
        life: u64,
        place: u64,
    ) -> Result<Self, Malformed> {
        let mut reader = ByteReader::new(bytes);
        let head = BlockHeader::read(&mut reader)?;
        let payload = reader.take(head.len)?;
        if head.crc != block_crc(life, place, &bytes[..CRC_AT], payload) {
            return Err(Malformed("a block has a wrong checksum"));
        }
        let mut block = Self {
            slot: head.slot,
            kind: head.kind,
            first: head.first,
            count: head.count,
            base_time: head.base_time,
            last_time: head.base_time,
            place,
            payload: bytes.slice(HEADER_LEN..HEADER_LEN + head.len),
        };
        block.last_time = block.check_records()?;
        Ok(block)
    }

    /// Reads what stands before the payload and says whose checksum that has to have; returns it with the block's length.
    pub(in crate::storage) fn decode_lost(bytes: &[u8]) -> Result<(LostBlock, usize), Malformed> {
        let mut reader = ByteReader::new(bytes);
        let head = BlockHeader::read(&mut reader)?;
        reader.take(head.len)?;
        if head.count == 0 || (head.count as usize).saturating_mul(RECORD_HEADER_LEN) > head.len {
            return Err(Malformed("a block holds another number of records"));
        }
        let lost = LostBlock {
            slot: head.slot,
            kind: head.kind,
            first: head.first,
            end: head.first.saturating_add(head.count.into()),
            time: head.base_time,
        };
        Ok((lost, HEADER_LEN + head.len))
    }

    /// Returns how many bytes it has in its file.
    pub(in crate::storage) fn len(&self) -> usize {
        HEADER_LEN + self.payload.len()
    }

    /// Returns the size of its records as limits count it.
    pub(in crate::storage) fn records_bytes(&self) -> usize {
        self.payload.len() - self.count as usize * RECORD_HEADER_LEN
    }

    /// Returns the offset behind its last record.
    pub(in crate::storage) fn end(&self) -> u64 {
        self.first.saturating_add(self.count.into())
    }

    /// Returns its records; their parts are slices of the payload.
    pub(in crate::storage) fn records(&self) -> Records<'_> {
        Records {
            block: self,
            at: 0,
            offset: self.first,
        }
    }

    /// Walks over all records and returns the time of the last.
    fn check_records(&self) -> Result<u64, Malformed> {
        let (mut records, mut time, mut count) = (self.records(), self.base_time, 0u32);
        while let Some(entry) = records.split() {
            time = entry?.time;
            count = count.saturating_add(1);
        }
        if count == self.count && count > 0 {
            Ok(time)
        } else {
            Err(Malformed("a block holds another number of records"))
        }
    }
}

/// What stands before a payload that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::storage) struct LostBlock {
    pub(in crate::storage) slot: Slot,
    pub(in crate::storage) kind: AppendKind,
    pub(in crate::storage) first: u64,
    pub(in crate::storage) end: u64,
    pub(in crate::storage) time: u64,
}

/// Iterator over a block's records.
#[derive(Debug)]
pub(in crate::storage) struct Records<'a> {
    block: &'a Block,
    at: usize,
    offset: u64,
}

struct Entry {
    offset: u64,
    time: u64,
    key_at: usize,
    headers_at: usize,
    value_at: usize,
    end: usize,
}

impl Records<'_> {
    /// Goes to a record without looking into those before it.
    pub(in crate::storage) fn skip_to(&mut self, offset: u64) {
        while self.offset < offset && matches!(self.split(), Some(Ok(_))) {}
    }

    /// Returns offset and time of the next record.
    pub(in crate::storage) fn next_time(&mut self) -> Option<Result<(u64, u64), Malformed>> {
        self.split()
            .map(|entry| entry.map(|entry| (entry.offset, entry.time)))
    }

    fn split(&mut self) -> Option<Result<Entry, Malformed>> {
        if self.at == self.block.payload.len() {
            return None;
        }
        let entry = self.split_entry();
        match &entry {
            Ok(entry) => {
                self.at = entry.end;
                self.offset = self.offset.saturating_add(1);
            }
            Err(_) => self.at = self.block.payload.len(),
        }
        Some(entry)
    }

    fn split_entry(&self) -> Result<Entry, Malformed> {
        let mut reader = ByteReader::new(&self.block.payload[self.at..]);
        let len = reader.u32()? as usize;
        let mut rest = ByteReader::new(reader.take(len)?);
        let time = self.block.base_time.saturating_add(rest.u32()?.into());
        let key_len = usize::from(rest.u16()?);
        let headers_len = rest.u32()? as usize;
        rest.take(key_len)?;
        rest.take(headers_len)?;
        let key_at = self.at + RECORD_HEADER_LEN;
        Ok(Entry {
            offset: self.offset,
            time,
            key_at,
            headers_at: key_at + key_len,
            value_at: key_at + key_len + headers_len,
            end: self.at + reader.at(),
        })
    }
}

impl Iterator for Records<'_> {
    type Item = Result<StoredRecord, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let payload = &self.block.payload;
        Some(self.split()?.and_then(|entry| {
            let headers = Headers::decode(payload.slice(entry.headers_at..entry.value_at))
                .map_err(|_| Malformed("a record's headers are malformed"))?;
            Ok(StoredRecord {
                offset: Offset(entry.offset),
                time: Timestamp(entry.time),
                record: Record {
                    key: payload.slice(entry.key_at..entry.headers_at),
                    value: payload.slice(entry.value_at..entry.end),
                    headers,
                },
            })
        }))
    }
}

/// A block that is being gathered.
#[derive(Debug)]
pub(in crate::storage) struct NewBlock {
    slot: Slot,
    kind: AppendKind,
    first: u64,
    base_time: u64,
    records: Vec<(u32, Record)>,
    payload_len: usize,
}

impl NewBlock {
    pub(in crate::storage) fn new(
        slot: Slot,
        kind: AppendKind,
        first: u64,
        base_time: u64,
    ) -> Self {
        Self {
            slot,
            kind,
            first,
            base_time,
            records: Vec::new(),
            payload_len: 0,
        }
    }

    /// Adds a record, or gives it back if it does not belong here: of another kind, too large, too late.
    pub(in crate::storage) fn push(
        &mut self,
        kind: AppendKind,
        time: u64,
        record: Record,
    ) -> Result<(), Record> {
        let len = stored_len(&record);
        let full = !self.records.is_empty() && self.payload_len + len > BLOCK_BYTES_MAX;
        match u32::try_from(time.saturating_sub(self.base_time)) {
            Ok(delta) if kind == self.kind && !full => {
                self.payload_len += len;
                self.records.push((delta, record));
                Ok(())
            }
            _ => Err(record),
        }
    }

    /// Returns how many bytes it will have.
    pub(in crate::storage) fn len(&self) -> usize {
        HEADER_LEN + self.payload_len
    }

    /// Writes the block at `place` of a file.
    pub(in crate::storage) fn encode(&self, out: &mut Vec<u8>, life: u64, place: u64) {
        let start = out.len();
        out.put_u8(TAG);
        out.put_u8(self.kind as u8);
        out.put_u16_le(self.slot.1);
        out.put_u32_le(self.slot.0);
        out.put_u64_le(self.first);
        out.put_u64_le(self.base_time);
        out.put_u32_le(len_u32(self.records.len()));
        out.put_u32_le(len_u32(self.payload_len));
        out.put_u32_le(0);
        for (delta, record) in &self.records {
            let headers = record.headers.encoded();
            out.put_u32_le(len_u32(stored_len(record) - 4));
            out.put_u32_le(*delta);
            out.put_u16_le(u16::try_from(record.key.len()).expect("checked by commit"));
            out.put_u32_le(len_u32(headers.len()));
            out.put_slice(&record.key);
            out.put_slice(headers);
            out.put_slice(&record.value);
        }
        let (head, payload) = out[start..].split_at(HEADER_LEN);
        let crc = block_crc(life, place, &head[..CRC_AT], payload);
        out[start + CRC_AT..start + HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
    }

    /// Returns the block as it reads back; `payload` is what [`NewBlock::encode`] wrote behind the header.
    pub(in crate::storage) fn stored(&self, place: u64, payload: Bytes) -> Block {
        let last = self.records.last().map_or(0, |(delta, _)| *delta);
        Block {
            slot: self.slot,
            kind: self.kind,
            first: self.first,
            count: len_u32(self.records.len()),
            base_time: self.base_time,
            last_time: self.base_time.saturating_add(last.into()),
            place,
            payload,
        }
    }
}

/// Returns how many bytes a record has in a block.
pub(in crate::storage) fn stored_len(record: &Record) -> usize {
    RECORD_HEADER_LEN + record.bytes_len()
}

fn block_crc(life: u64, place: u64, head: &[u8], payload: &[u8]) -> u32 {
    let seed = crc32c::crc32c_append(crc32c::crc32c(&life.to_le_bytes()), &place.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(seed, head), payload)
}
