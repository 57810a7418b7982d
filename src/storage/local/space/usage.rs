//! The use of each sealed file, which decides when the file can be freed or compacted.
//!
//! A file is needed for its retained records, for settlements of retained records, and for ids of recent appends. State,
//! streams, counts and settled sets are in the snapshot of every later file.

use std::collections::{BTreeMap, HashMap};

use bytes::BufMut;

use crate::storage::local::{
    books::Books,
    format::{
        block::Slot,
        codec::{ByteReader, Malformed, put_varint},
    },
};

/// What a partition has in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::storage) struct Share {
    pub(in crate::storage) first: u64,
    /// Behind the last one.
    pub(in crate::storage) end: u64,
    pub(in crate::storage) bytes: u64,
}

impl Share {
    pub(in crate::storage) fn add(&mut self, first: u64, end: u64, bytes: u64) {
        self.first = self.first.min(first);
        self.end = self.end.max(end);
        self.bytes += bytes;
    }

    /// Returns about how many of its bytes are for offsets from `earliest` on.
    fn live_bytes(&self, earliest: u64) -> u64 {
        let all = self.end.saturating_sub(self.first);
        let live = self.end.saturating_sub(self.first.max(earliest));
        if live == all {
            return self.bytes;
        }
        let part = u128::from(self.bytes) * u128::from(live) / u128::from(all.max(1));
        u64::try_from(part).unwrap_or(u64::MAX)
    }
}

/// What a sealed file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::storage) struct SegmentUsage {
    pub(in crate::storage) records: BTreeMap<Slot, Share>,
    /// Ends, by the offsets of the records that ended.
    pub(in crate::storage) ends: BTreeMap<Slot, Share>,
    /// Time of the newest dedup entry; 0 = there is none.
    pub(in crate::storage) dedup_time: u64,
    /// When the file was begun, by the clock of then.
    pub(in crate::storage) created: u64,
}

impl SegmentUsage {
    /// Returns how many bytes records and ends have.
    pub(in crate::storage) fn bytes(&self) -> u64 {
        let shares = self.records.values().chain(self.ends.values());
        shares.map(|share| share.bytes).sum()
    }

    /// Returns about how many of them are of records that are still there.
    pub(in crate::storage) fn live_bytes(&self, books: &Books) -> u64 {
        let shares = self.records.iter().chain(&self.ends);
        shares
            .filter_map(|(slot, share)| {
                let partition = books.partition(*slot)?;
                Some(share.live_bytes(partition.earliest))
            })
            .sum()
    }

    /// Returns whether nothing in it is needed at `now`.
    pub(in crate::storage) fn is_dead(&self, books: &Books, now: u64) -> bool {
        let is_gone = |(slot, share): (&Slot, &Share)| {
            let partition = books.partition(*slot);
            partition.is_none_or(|partition| partition.earliest >= share.end)
        };
        let forgotten = self.dedup_time == 0 || !books.dedup.remembers(self.dedup_time, now);
        forgotten && self.records.iter().all(is_gone)
    }

    pub(in crate::storage) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.dedup_time);
        out.put_u64_le(self.created);
        for shares in [&self.records, &self.ends] {
            put_varint(out, shares.len() as u64);
            for ((stream, partition), share) in shares {
                put_varint(out, (*stream).into());
                put_varint(out, (*partition).into());
                put_varint(out, share.first);
                put_varint(out, share.end);
                put_varint(out, share.bytes);
            }
        }
    }

    pub(in crate::storage) fn decode(reader: &mut ByteReader<'_>) -> Result<Self, Malformed> {
        let (dedup_time, created) = (reader.u64()?, reader.u64()?);
        let mut both = [BTreeMap::new(), BTreeMap::new()];
        for shares in &mut both {
            for _ in 0..reader.varint()? {
                let slot = (reader.small()?, reader.small()?);
                let share = Share {
                    first: reader.varint()?,
                    end: reader.varint()?,
                    bytes: reader.varint()?,
                };
                shares.insert(slot, share);
            }
        }
        let [records, ends] = both;
        Ok(Self {
            records,
            ends,
            dedup_time,
            created,
        })
    }
}

/// What every sealed file holds, by number. One entry per file and partition with something in it.
#[derive(Debug, Default)]
pub(in crate::storage) struct Usage(BTreeMap<u64, SegmentUsage>);

impl Usage {
    pub(in crate::storage) fn set(&mut self, number: u64, usage: SegmentUsage) {
        self.0.insert(number, usage);
    }

    pub(in crate::storage) fn remove(&mut self, number: u64) {
        self.0.remove(&number);
    }

    pub(in crate::storage) fn get(&self, number: u64) -> Option<&SegmentUsage> {
        self.0.get(&number)
    }

    /// Returns the files, oldest first.
    pub(in crate::storage) fn iter(&self) -> impl Iterator<Item = (u64, &SegmentUsage)> {
        self.0.iter().map(|(number, usage)| (*number, usage))
    }

    /// Returns where partitions of a stream have to begin so that about `bytes_max` bytes of their records are left:
    /// whole files are counted, the newest first, until they are too many.
    pub(in crate::storage) fn cut(&self, stream: u32, bytes_max: u64) -> HashMap<Slot, u64> {
        let mut bytes = 0u64;
        let mut begins = HashMap::new();
        for usage in self.0.values().rev() {
            let shares = usage.records.range((stream, 0)..=(stream, u16::MAX));
            if bytes < bytes_max {
                bytes += shares.map(|(_, share)| share.bytes).sum::<u64>();
                continue;
            }
            for (slot, share) in shares {
                let begin: &mut u64 = begins.entry(*slot).or_default();
                *begin = (*begin).max(share.end);
            }
        }
        begins
    }

    /// Returns where partitions of a stream have to begin so that files that had ended before `since` hold nothing of
    /// them.
    ///
    /// A file had ended when the next one was begun. What the clock said then counts only if it fits what it says now,
    /// and what it said before and after: a clock that ran ahead or went back for a while must neither make records old
    /// nor keep them for ever.
    pub(in crate::storage) fn older(
        &self,
        stream: u32,
        since: u64,
        now: u64,
    ) -> HashMap<Slot, u64> {
        let past = |created: u64| (created <= now).then_some(created);
        let mut earliest_after = u64::MAX;
        let mut fits: BTreeMap<u64, u64> = BTreeMap::new();
        for (number, usage) in self.0.iter().rev() {
            if let Some(created) = past(usage.created) {
                if created <= earliest_after {
                    fits.insert(*number, created);
                }
                earliest_after = earliest_after.min(created);
            }
        }
        let mut latest_before = 0;
        let mut first_kept = 0;
        for (number, usage) in &self.0 {
            if let Some(created) = past(usage.created) {
                let fits = fits.get(number).is_some_and(|fit| *fit >= latest_before);
                latest_before = latest_before.max(created);
                if fits && created <= since {
                    first_kept = *number;
                }
            }
        }
        let mut begins = HashMap::new();
        for usage in self.0.range(..first_kept).map(|(_, usage)| usage) {
            for (slot, share) in usage.records.range((stream, 0)..=(stream, u16::MAX)) {
                begins.insert(*slot, share.end);
            }
        }
        begins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(first: u64, end: u64, bytes: u64) -> Share {
        Share { first, end, bytes }
    }

    fn usage(records: &[(Slot, Share)]) -> SegmentUsage {
        SegmentUsage {
            records: records.iter().copied().collect(),
            ends: BTreeMap::from([((3, 1), share(7, 9, 40))]),
            dedup_time: 5,
            created: 1,
        }
    }

    #[test]
    fn usage_reads_back_and_no_prefix_does() {
        let usage = usage(&[((0, 0), share(1, 300, 70_000)), ((2, 9), share(0, 1, 1))]);
        let mut bytes = Vec::new();
        usage.encode(&mut bytes);
        assert_eq!(
            SegmentUsage::decode(&mut ByteReader::new(&bytes)).unwrap(),
            usage
        );
        for len in 0..bytes.len() {
            assert!(SegmentUsage::decode(&mut ByteReader::new(&bytes[..len])).is_err());
        }
    }

    #[test]
    fn live_bytes_go_down_with_the_offsets_that_are_left() {
        let all = share(100, 200, 1_000);
        for (earliest, live) in [(0, 1_000), (100, 1_000), (150, 500), (200, 0), (900, 0)] {
            assert_eq!(all.live_bytes(earliest), live, "{earliest}");
        }
    }

    #[test]
    fn files_are_old_by_what_the_clock_said_unless_it_cannot_have_been_right() {
        let cases: [(&[u64], u64, u64); 8] = [
            (&[10, 20, 30], 25, 1),
            (&[10, 20, 30], 20, 1),
            (&[10, 20, 30], 19, 0),
            (&[10, 20, 30], 99, 2),
            // It ran ahead for a while.
            (&[10, 900, 20, 30], 25, 2),
            // It went back for a while; when the files around that were written nobody knows.
            (&[10, 20, 3, 40, 50], 25, 0),
            (&[10, 20, 3, 40, 50], 45, 3),
            // It ran ahead by little, and is there now.
            (&[10, 60, 20, 70], 25, 0),
        ];
        for (created, since, old_len) in cases {
            let mut all = Usage::default();
            for (number, created) in (0..).zip(created) {
                let records = [((0, 0), share(number * 10, number * 10 + 10, 100))];
                let usage = SegmentUsage {
                    created: *created,
                    ..usage(&records)
                };
                all.set(number, usage);
            }
            let older = all.older(0, since, 100).get(&(0, 0)).copied();
            assert_eq!(
                older.unwrap_or_default(),
                old_len * 10,
                "{created:?} {since}"
            );
        }
    }

    #[test]
    fn a_cut_leaves_at_least_the_bytes_asked_for() {
        let mut all = Usage::default();
        all.set(1, usage(&[((0, 0), share(0, 10, 100))]));
        all.set(
            2,
            usage(&[((0, 0), share(10, 20, 100)), ((1, 0), share(0, 5, 900))]),
        );
        all.set(
            3,
            usage(&[((0, 0), share(20, 30, 100)), ((0, 1), share(0, 1, 50))]),
        );
        let cut = |bytes_max| all.cut(0, bytes_max);
        assert_eq!(cut(1_000), HashMap::new());
        assert_eq!(cut(200), HashMap::from([((0, 0), 10)]));
        assert_eq!(cut(150), HashMap::from([((0, 0), 20)]));
        assert_eq!(cut(151), HashMap::from([((0, 0), 10)]));
        assert_eq!(cut(0), HashMap::from([((0, 0), 30), ((0, 1), 1)]));
    }
}
