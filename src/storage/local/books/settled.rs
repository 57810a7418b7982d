//! Which records of a partition have an end: everything below the low mark, and single ones above it as bits.
//!
//! ```text
//! stored  low mark, number of chunks, then for each: number, form u8
//!         form 0: all ended; 1: runs, their number, then (gap, length) for each; 2: 2,048 bytes of bits
//! ```

use std::{collections::BTreeMap, ops::Range};

use bytes::BufMut;

use crate::{model::ids::Offset, storage::SettledOffsets};

use crate::storage::local::format::codec::{ByteReader, Malformed, put_varint};

/// Offsets in a chunk. Memory is one bit per offset of the chunks that are neither open nor ended as a whole.
const CHUNK_LEN: u64 = 16_384;
const WORDS: usize = 256;
/// Runs cost about 3 bytes each; with more of them the bits are smaller.
const RUNS_MAX: usize = 512;

const FORM_FULL: u8 = 0;
const FORM_RUNS: u8 = 1;
const FORM_BITS: u8 = 2;

/// The ended records of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::storage) struct SettledSet {
    low: u64,
    chunks: BTreeMap<u64, Chunk>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Chunk {
    Full,
    Some { words: Box<[u64; WORDS]>, len: u64 },
}

impl SettledSet {
    /// Returns the first offset without an end.
    pub(in crate::storage) fn low_mark(&self) -> u64 {
        self.low
    }

    /// Returns how many offsets it has.
    pub(in crate::storage) fn len(&self) -> u64 {
        let above = self.chunks.iter().map(|(number, chunk)| {
            let from = self.low.saturating_sub(number * CHUNK_LEN);
            chunk.count(from.min(CHUNK_LEN)..CHUNK_LEN)
        });
        self.low + above.sum::<u64>()
    }

    pub(in crate::storage) fn contains(&self, offset: u64) -> bool {
        offset < self.low
            || self
                .chunks
                .get(&(offset / CHUNK_LEN))
                .is_some_and(|chunk| chunk.contains(offset % CHUNK_LEN))
    }

    /// Notes an end; returns whether it is new.
    pub(in crate::storage) fn insert(&mut self, offset: u64) -> bool {
        if offset < self.low {
            return false;
        }
        if offset == self.low && !self.chunks.contains_key(&(offset / CHUNK_LEN)) {
            // The common case, records ending in order, takes no memory at all.
            self.low += 1;
            self.raise();
            return true;
        }
        let chunk = self.chunks.entry(offset / CHUNK_LEN).or_default();
        let new = chunk.insert(offset % CHUNK_LEN);
        self.raise();
        new
    }

    /// Raises the low mark to `below`; returns how many records below it had no end.
    pub(in crate::storage) fn trim(&mut self, below: u64) -> u64 {
        if below <= self.low {
            return 0;
        }
        let mut open = below - self.low;
        for (number, chunk) in self.chunks.range(..=below / CHUNK_LEN) {
            let start = number * CHUNK_LEN;
            let from = self.low.saturating_sub(start).min(CHUNK_LEN);
            let to = (below - start).min(CHUNK_LEN);
            open -= chunk.count(from..to);
        }
        self.chunks = self.chunks.split_off(&(below / CHUNK_LEN));
        self.low = below;
        self.raise();
        open
    }

    /// Returns the ends of `offsets`, which must be a range of sensible length.
    pub(in crate::storage) fn of(&self, offsets: Range<u64>) -> SettledOffsets {
        let len = crate::storage::local::format::codec::to_usize(
            offsets.end.saturating_sub(offsets.start),
        );
        let mut settled = SettledOffsets::none(Offset(offsets.start), len);
        for offset in offsets {
            if self.contains(offset) {
                settled.set(Offset(offset));
            }
        }
        settled
    }

    /// Returns the first offsets of a range that have no end, `len_max` at most.
    pub(in crate::storage) fn open(&self, offsets: Range<u64>, len_max: usize) -> Vec<Offset> {
        let mut open = Vec::new();
        let mut at = offsets.start.max(self.low);
        while at < offsets.end && open.len() < len_max {
            let number = at / CHUNK_LEN;
            let found = match self.chunks.get(&number) {
                None => Some(at % CHUNK_LEN),
                Some(chunk) => chunk.first_open(at % CHUNK_LEN),
            };
            at = number * CHUNK_LEN + found.unwrap_or(CHUNK_LEN);
            if found.is_some() && at < offsets.end {
                open.push(Offset(at));
                at += 1;
            }
        }
        open
    }

    fn raise(&mut self) {
        loop {
            let number = self.low / CHUNK_LEN;
            let Some(chunk) = self.chunks.get(&number) else {
                return;
            };
            match chunk.first_open(self.low % CHUNK_LEN) {
                Some(at) => {
                    self.low = number * CHUNK_LEN + at;
                    return;
                }
                None => {
                    self.low = (number + 1) * CHUNK_LEN;
                    self.chunks.remove(&number);
                }
            }
        }
    }

    pub(in crate::storage) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.low);
        put_varint(out, self.chunks.len() as u64);
        for (number, chunk) in &self.chunks {
            put_varint(out, *number);
            let Chunk::Some { words, .. } = chunk else {
                out.put_u8(FORM_FULL);
                continue;
            };
            match chunk.runs() {
                Some(runs) => {
                    out.put_u8(FORM_RUNS);
                    put_varint(out, runs.len() as u64);
                    for (gap, len) in runs {
                        put_varint(out, gap);
                        put_varint(out, len);
                    }
                }
                None => {
                    out.put_u8(FORM_BITS);
                    for word in words.iter() {
                        out.put_u64_le(*word);
                    }
                }
            }
        }
    }

    pub(in crate::storage) fn decode(reader: &mut ByteReader<'_>) -> Result<Self, Malformed> {
        let low = reader.varint()?;
        let mut chunks = BTreeMap::new();
        for _ in 0..reader.varint()? {
            let number = reader.varint()?;
            if number >= u64::MAX / CHUNK_LEN {
                return Err(Malformed("a settled set has an impossible chunk"));
            }
            let chunk = match reader.u8()? {
                FORM_FULL => Chunk::Full,
                FORM_RUNS => Chunk::from_runs(reader)?,
                FORM_BITS => {
                    let mut words = Box::new([0; WORDS]);
                    for word in words.iter_mut() {
                        *word = reader.u64()?;
                    }
                    Chunk::from_words(words)
                }
                _ => return Err(Malformed("a settled set is of an unknown form")),
            };
            chunks.insert(number, chunk);
        }
        let mut set = Self { low, chunks };
        set.raise();
        Ok(set)
    }
}

impl Default for Chunk {
    fn default() -> Self {
        Self::from_words(Box::new([0; WORDS]))
    }
}

impl Chunk {
    fn from_words(words: Box<[u64; WORDS]>) -> Self {
        let len = words.iter().map(|word| u64::from(word.count_ones())).sum();
        if len == CHUNK_LEN {
            Self::Full
        } else {
            Self::Some { words, len }
        }
    }

    fn from_runs(reader: &mut ByteReader<'_>) -> Result<Self, Malformed> {
        let mut words = Box::new([0; WORDS]);
        let mut at = 0u64;
        for _ in 0..reader.varint()? {
            let start = at.saturating_add(reader.varint()?);
            let end = start.saturating_add(reader.varint()?);
            if start >= end || end > CHUNK_LEN {
                return Err(Malformed("a settled set has an impossible run"));
            }
            for bit in start..end {
                let (word, mask) = position(bit);
                words[word] |= mask;
            }
            at = end;
        }
        Ok(Self::from_words(words))
    }

    fn contains(&self, at: u64) -> bool {
        match self {
            Self::Full => true,
            Self::Some { words, .. } => {
                let (word, mask) = position(at);
                words[word] & mask != 0
            }
        }
    }

    fn insert(&mut self, at: u64) -> bool {
        let Self::Some { words, len } = self else {
            return false;
        };
        let (word, mask) = position(at);
        if words[word] & mask != 0 {
            return false;
        }
        words[word] |= mask;
        *len += 1;
        if *len == CHUNK_LEN {
            *self = Self::Full;
        }
        true
    }

    fn first_open(&self, from: u64) -> Option<u64> {
        let Self::Some { words, .. } = self else {
            return None;
        };
        let (mut word, mask) = position(from);
        // Bits below `from` count as set.
        let mut bits = words[word] | (mask - 1);
        loop {
            if bits != u64::MAX {
                return Some(word as u64 * 64 + u64::from(bits.trailing_ones()));
            }
            word += 1;
            bits = *words.get(word)?;
        }
    }

    fn count(&self, range: Range<u64>) -> u64 {
        match self {
            Self::Full => range.end.saturating_sub(range.start),
            Self::Some { words, .. } => {
                let mut count = 0;
                let mut at = range.start;
                while at < range.end {
                    let (word, mask) = position(at);
                    let end = (at / 64 + 1) * 64;
                    let mut bits = words[word] & !(mask - 1);
                    if end > range.end {
                        bits &= position(range.end).1 - 1;
                    }
                    count += u64::from(bits.count_ones());
                    at = end;
                }
                count
            }
        }
    }

    /// Returns the first that is in the set, at `from` or behind it.
    fn first_ended(&self, from: u64) -> Option<u64> {
        let Self::Some { words, .. } = self else {
            return Some(from);
        };
        let (mut word, mask) = position(from);
        let mut bits = words[word] & !(mask - 1);
        while bits == 0 {
            word += 1;
            bits = *words.get(word)?;
        }
        Some(word as u64 * 64 + u64::from(bits.trailing_zeros()))
    }

    /// Returns gap and length of each run, or `None` if the bits are smaller.
    fn runs(&self) -> Option<Vec<(u64, u64)>> {
        let (mut runs, mut end) = (Vec::new(), 0);
        while end < CHUNK_LEN
            && let Some(start) = self.first_ended(end)
        {
            if runs.len() == RUNS_MAX {
                return None;
            }
            let open = self.first_open(start).unwrap_or(CHUNK_LEN);
            runs.push((start - end, open - start));
            end = open;
        }
        Some(runs)
    }
}

fn position(at: u64) -> (usize, u64) {
    (
        crate::storage::local::format::codec::to_usize(at / 64),
        1 << (at % 64),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn stored(set: &SettledSet) -> SettledSet {
        let mut bytes = Vec::new();
        set.encode(&mut bytes);
        for cut in (0..bytes.len()).rev().step_by(97) {
            assert!(SettledSet::decode(&mut ByteReader::new(&bytes[..cut])).is_err());
        }
        SettledSet::decode(&mut ByteReader::new(&bytes)).unwrap()
    }

    #[test]
    fn ends_in_order_take_no_memory() {
        let mut set = SettledSet::default();
        for offset in 0..3 * CHUNK_LEN {
            assert!(set.insert(offset));
        }
        assert_eq!(set.low_mark(), 3 * CHUNK_LEN);
        assert!(set.chunks.is_empty());
        assert!(!set.insert(7));
    }

    #[test]
    fn one_open_record_holds_the_low_mark_and_full_chunks_take_no_bits() {
        let mut set = SettledSet::default();
        for offset in 1..3 * CHUNK_LEN {
            assert!(set.insert(offset));
        }
        assert_eq!(set.low_mark(), 0);
        assert_eq!(set.chunks[&1], Chunk::Full);
        assert_eq!(stored(&set), set);
        let open = [0, 3 * CHUNK_LEN, 3 * CHUNK_LEN + 1].map(Offset);
        assert_eq!(set.open(0..3 * CHUNK_LEN + 2, 9), open);
        assert!(set.insert(0));
        assert_eq!(set.low_mark(), 3 * CHUNK_LEN);
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(24))]

        #[test]
        fn it_is_a_set_of_offsets(
            steps in proptest::collection::vec((0..3 * CHUNK_LEN, 1..200u64, 0..20u8), 1..60),
        ) {
            let (mut set, mut model, mut low) = (SettledSet::default(), BTreeSet::new(), 0);
            for (at, len, kind) in steps {
                if kind == 0 {
                    let open = (low..at).filter(|offset| !model.contains(offset)).count() as u64;
                    assert_eq!(set.trim(at), open);
                    low = low.max(at);
                    model.extend(0..at);
                } else {
                    for offset in (at..at + len).step_by(usize::from(kind % 3) + 1) {
                        assert_eq!(set.insert(offset), model.insert(offset));
                    }
                }
                while model.contains(&low) {
                    low += 1;
                }
                assert_eq!(set.low_mark(), low);
            }
            assert_eq!(set.len(), low + model.range(low..).count() as u64);
            let read = stored(&set);
            let end = 3 * CHUNK_LEN + 300;
            for offset in 0..end {
                assert_eq!(read.contains(offset), model.contains(&offset));
            }
            let open: Vec<_> = (0..end).filter(|offset| !model.contains(offset)).map(Offset).collect();
            assert_eq!(read.open(0..end, usize::MAX), open);
            let middle = open.len() / 2;
            let from = open[middle].0;
            assert_eq!(read.open(from..end, 2), open[middle..].iter().take(2).copied().collect::<Vec<_>>());
            assert_eq!(read.open(from..from, 2), []);
        }
    }
}
