//! Recent commits by their ids, bounded in number, memory and age.
//!
//! Age is the sum of the times between commits with ids, at most one hour from one to the next. So a clock jump makes the
//! table forget nothing, and a replay remembers the same ids.

use std::collections::{HashMap, VecDeque};

use crate::storage::local::format::ops::DedupEntry;

/// An id belongs to a stream: the same digest in another stream is another append.
type Key = (u32, [u8; 16]);

/// An entry that takes more memory than this, beside what all take, counts as several.
const ENTRY_BYTES: usize = 128;

/// What the time from one commit to the next counts as, at most.
const GAP_MAX_US: u64 = 3_600_000_000;

/// The table.
#[derive(Debug, Default)]
pub(in crate::storage) struct Dedup {
    entries: HashMap<Key, DedupEntry>,
    /// By age; an id that was used again after its time is in here twice.
    order: VecDeque<Aged>,
    /// What all of `order` counts as.
    len: usize,
    len_max: usize,
    age_max_us: u64,
    /// When the newest came.
    time: u64,
    /// How much time had passed until then.
    passed: u64,
}

#[derive(Debug)]
struct Aged {
    key: Key,
    time: u64,
    /// How much time had passed until it came.
    passed: u64,
    /// As how many entries it counts.
    len: usize,
}

impl Dedup {
    pub(in crate::storage) fn new(len_max: usize, age_hours: u32) -> Self {
        Self {
            len_max,
            age_max_us: u64::from(age_hours) * 3_600_000_000,
            ..Self::default()
        }
    }

    /// Returns the commit of that id, if it is not too old at `time`.
    pub(in crate::storage) fn get(
        &self,
        stream: u32,
        id: [u8; 16],
        time: u64,
    ) -> Option<&DedupEntry> {
        let entry = self.entries.get(&(stream, id))?;
        self.remembers(entry.time, time).then_some(entry)
    }

    /// Returns whether entries of `then` are remembered at `now`.
    pub(in crate::storage) fn remembers(&self, then: u64, now: u64) -> bool {
        let forgotten = self
            .order
            .partition_point(|aged| !self.is_recent(aged, now));
        let oldest = self.order.get(forgotten);
        oldest.is_some_and(|oldest| oldest.time <= then)
    }

    fn is_recent(&self, aged: &Aged, now: u64) -> bool {
        self.passed_at(now) - aged.passed < self.age_max_us
    }

    fn passed_at(&self, now: u64) -> u64 {
        self.passed + now.saturating_sub(self.time).min(GAP_MAX_US)
    }

    pub(in crate::storage) fn insert(&mut self, entry: DedupEntry) {
        let now = entry.time;
        self.passed = match self.order.is_empty() {
            true => 0,
            false => self.passed_at(now),
        };
        self.time = self.time.max(now);
        let aged = Aged {
            key: (entry.stream, entry.id),
            time: entry.time,
            passed: self.passed,
            len: 1 + (entry.reply.len() + size_of_val(&*entry.places)) / ENTRY_BYTES,
        };
        self.len += aged.len;
        self.entries.insert(aged.key, entry);
        self.order.push_back(aged);
        while let Some(oldest) = self.order.front() {
            let fits = self.len <= self.len_max && self.is_recent(oldest, now);
            if fits {
                break;
            }
            let (key, time) = (oldest.key, oldest.time);
            self.len -= oldest.len;
            self.order.pop_front();
            if self.entries.get(&key).is_some_and(|e| e.time == time) {
                self.entries.remove(&key);
            }
        }
    }

    pub(in crate::storage) fn remove_stream(&mut self, stream: u32) {
        self.entries.retain(|(of, _), _| *of != stream);
        self.order.retain(|aged| aged.key.0 != stream);
        self.len = self.order.iter().map(|aged| aged.len).sum();
    }

    /// Puts entries from before all others in front, oldest first.
    pub(in crate::storage) fn prepend(&mut self, older: Vec<DedupEntry>) {
        let newer: Vec<_> = self
            .order
            .drain(..)
            .filter_map(|aged| self.entries.remove(&aged.key))
            .collect();
        (self.len, self.time) = (0, 0);
        for entry in older.into_iter().chain(newer) {
            self.insert(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn entry(id: u8, time: u64) -> DedupEntry {
        DedupEntry {
            id: [id; 16],
            stream: 0,
            time,
            places: [(0, id.into(), 1)].into(),
            reply: Bytes::new(),
        }
    }

    #[test]
    fn ids_are_forgotten_by_number_and_by_age() {
        let hour = 3_600_000_000;
        let mut dedup = Dedup::new(2, 1);
        dedup.insert(entry(1, 0));
        dedup.insert(entry(2, 10));
        assert!(dedup.get(0, [1; 16], hour - 1).is_some());
        assert!(dedup.get(0, [1; 16], hour).is_none());
        assert!(dedup.get(1, [1; 16], 0).is_none());
        dedup.insert(entry(3, 20));
        assert!(dedup.get(0, [1; 16], 30).is_none());
        assert!(dedup.get(0, [2; 16], 30).is_some());
    }

    #[test]
    fn a_clock_that_jumps_makes_nothing_be_forgotten() {
        let hour = 3_600_000_000;
        let mut dedup = Dedup::new(10, 3);
        dedup.insert(entry(1, hour));
        let later = 700_000 * hour;
        assert!(dedup.get(0, [1; 16], later).is_some());
        dedup.insert(entry(2, later));
        dedup.insert(entry(3, later + hour));
        assert!(dedup.get(0, [1; 16], later + hour).is_some());
        assert!(dedup.remembers(hour, later + hour));
        dedup.insert(entry(4, later + 2 * hour));
        assert!(dedup.get(0, [1; 16], later + 2 * hour).is_none());
        assert!(dedup.get(0, [2; 16], later + 2 * hour).is_some());
        assert!(!dedup.remembers(hour, later + 2 * hour));
        assert!(dedup.remembers(later, later + 2 * hour));
    }

    #[test]
    fn an_id_used_again_after_its_time_counts_from_then() {
        let hour = 3_600_000_000;
        let mut dedup = Dedup::new(2, 1);
        dedup.insert(entry(1, 0));
        dedup.insert(entry(1, 2 * hour));
        dedup.insert(entry(2, 2 * hour));
        assert!(dedup.get(0, [1; 16], 2 * hour + 1).is_some());
    }

    #[test]
    fn older_entries_go_first() {
        let mut dedup = Dedup::new(2, 1);
        dedup.insert(entry(3, 30));
        dedup.prepend(vec![entry(1, 10), entry(2, 20)]);
        assert!(dedup.get(0, [1; 16], 40).is_none());
        assert!(dedup.get(0, [2; 16], 40).is_some());
        assert!(dedup.get(0, [3; 16], 40).is_some());
    }

    #[test]
    fn a_large_entry_counts_as_several_until_it_is_gone() {
        let mut dedup = Dedup::new(4, 1);
        let large = |id| DedupEntry {
            reply: vec![0; 300].into(),
            ..entry(id, id.into())
        };
        dedup.insert(entry(1, 1));
        dedup.insert(large(2));
        assert!(dedup.get(0, [1; 16], 2).is_some());
        dedup.insert(large(3));
        assert!(dedup.get(0, [2; 16], 3).is_none());
        dedup.insert(entry(4, 4));
        assert!(dedup.get(0, [3; 16], 4).is_some());
        dedup.remove_stream(0);
        assert_eq!((dedup.len, dedup.order.len()), (0, 0));
        dedup.insert(large(5));
        dedup.prepend(vec![entry(4, 4)]);
        assert!(dedup.get(0, [4; 16], 5).is_some());
        assert!(dedup.get(0, [5; 16], 5).is_some());
    }
}
