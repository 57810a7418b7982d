//! Offsets as ranges, in order and apart from each other: those that were lost, those that a file still holds.

use std::{collections::BTreeMap, ops::Range};

use crate::storage::local::format::codec::{ByteReader, Malformed, put_varint};

/// A set of offsets that has few ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::storage) struct Ranges(
    /// End by start; no two of them touch.
    BTreeMap<u64, u64>,
);

impl Ranges {
    pub(in crate::storage) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns how many ranges there are.
    pub(in crate::storage) fn ranges_len(&self) -> usize {
        self.0.len()
    }

    /// Returns how many offsets it has.
    pub(in crate::storage) fn len(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }

    pub(in crate::storage) fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.0.iter().map(|(start, end)| *start..*end)
    }

    /// Returns the range that holds an offset.
    pub(in crate::storage) fn around(&self, offset: u64) -> Option<Range<u64>> {
        let (start, end) = self.0.range(..=offset).next_back()?;
        (offset < *end).then_some(*start..*end)
    }

    /// Takes a range in; it may overlap with what is there.
    pub(in crate::storage) fn add(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let Range { mut start, mut end } = range;
        while let Some((other, other_end)) = self.0.range(..=end).next_back()
            && *other_end >= start
        {
            let other = *other;
            start = start.min(other);
            end = end.max(*other_end);
            self.0.remove(&other);
        }
        self.0.insert(start, end);
    }

    /// Returns what of `range` is not in here.
    pub(in crate::storage) fn holes(&self, range: Range<u64>) -> Self {
        let mut holes = Self::default();
        let mut at = range.start;
        let before = self.0.range(..range.start).next_back();
        for (start, end) in before.into_iter().chain(self.0.range(range.clone())) {
            holes.add(at..*start);
            at = at.max(*end);
        }
        holes.add(at..range.end.max(at));
        holes
    }

    /// Returns what of these is not among `others`.
    pub(in crate::storage) fn without(&self, others: &Self) -> Self {
        let mut rest = Self::default();
        for range in self.iter() {
            rest.0.extend(others.holes(range).0);
        }
        rest
    }

    /// Forgets what lies below an offset.
    pub(in crate::storage) fn trim(&mut self, below: u64) {
        let cut = self.around(below);
        self.0 = self.0.split_off(&below);
        if let Some(cut) = cut {
            self.0.insert(below, cut.end);
        }
    }

    /// Writes the number of ranges, then gap and length of each.
    pub(in crate::storage) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.0.len() as u64);
        let mut at = 0;
        for (start, end) in &self.0 {
            put_varint(out, start - at);
            put_varint(out, end - start);
            at = *end;
        }
    }

    pub(in crate::storage) fn decode(reader: &mut ByteReader<'_>) -> Result<Self, Malformed> {
        const IMPOSSIBLE: Malformed = Malformed("a range of lost records is impossible");
        let mut ranges = Self::default();
        let mut at = 0u64;
        for number in 0..reader.varint()? {
            let gap = reader.varint()?;
            let start = at.checked_add(gap).ok_or(IMPOSSIBLE)?;
            let end = start.checked_add(reader.varint()?).ok_or(IMPOSSIBLE)?;
            if end == start || number > 0 && gap == 0 {
                return Err(IMPOSSIBLE);
            }
            ranges.0.insert(start, end);
            at = end;
        }
        Ok(ranges)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn offsets(ranges: &Ranges) -> BTreeSet<u64> {
        ranges.iter().flatten().collect()
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(200))]

        #[test]
        fn it_is_a_set_of_offsets(
            steps in proptest::collection::vec((0..60u64, 0..9u64, 0..10u8), 1..20),
            others in proptest::collection::vec((0..60u64, 0..9u64), 0..6),
            asked in (0..70u64, 0..30u64),
        ) {
            let (mut ranges, mut model) = (Ranges::default(), BTreeSet::new());
            for (at, len, kind) in steps {
                if kind == 0 {
                    ranges.trim(at);
                    model = model.split_off(&at);
                } else {
                    ranges.add(at..at + len);
                    model.extend(at..at + len);
                }
            }
            assert_eq!(offsets(&ranges), model);
            assert_eq!(ranges.len(), model.len() as u64);
            let apart = ranges.iter().zip(ranges.iter().skip(1));
            assert!(apart.into_iter().all(|(one, two)| one.end < two.start));
            for offset in 0..80 {
                let around = ranges.around(offset);
                assert_eq!(around.is_some(), model.contains(&offset));
                assert!(around.is_none_or(|range| range.contains(&offset)));
            }
            let asked = asked.0..asked.0 + asked.1;
            let wanted: BTreeSet<_> = asked.clone().filter(|at| !model.contains(at)).collect();
            assert_eq!(offsets(&ranges.holes(asked)), wanted);
            let mut other = Ranges::default();
            for (at, len) in others {
                other.add(at..at + len);
            }
            let wanted: BTreeSet<_> = model.difference(&offsets(&other)).copied().collect();
            assert_eq!(offsets(&ranges.without(&other)), wanted);
            let mut bytes = Vec::new();
            ranges.encode(&mut bytes);
            assert_eq!(Ranges::decode(&mut ByteReader::new(&bytes)).unwrap(), ranges);
            for cut in 0..bytes.len() {
                assert!(Ranges::decode(&mut ByteReader::new(&bytes[..cut])).is_err());
            }
        }
    }
}
