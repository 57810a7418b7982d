//! The progress of a pass in a partition. Pure.

use std::collections::BTreeSet;

use crate::model::ids::Offset;

/// The progress of a pass in a partition.
pub(in crate::retry) struct Progress {
    /// All offsets below are done.
    pub(in crate::retry) next: Offset,
    /// Done offsets after one that is not done.
    ahead: BTreeSet<Offset>,
    /// The first offset that the pass left; `next` cannot pass it.
    left: Option<Offset>,
    /// Offsets that retention has trimmed.
    pub(in crate::retry) trimmed: u64,
}

impl Progress {
    /// Begins at an offset that is not done.
    pub(in crate::retry) fn from(next: Offset) -> Self {
        Self {
            next,
            ahead: BTreeSet::new(),
            left: None,
            trimmed: 0,
        }
    }

    /// Returns how many offsets are done after one that is not done.
    pub(in crate::retry) fn ahead_len(&self) -> usize {
        self.ahead.len()
    }

    /// Notes that all offsets below `next` are done.
    pub(in crate::retry) fn done_below(&mut self, next: Offset) {
        self.next = self.next.max(next);
    }

    /// Notes that the pass leaves an offset that is not done.
    pub(in crate::retry) fn leave(&mut self, offset: Offset) {
        if self.left.is_none_or(|left| offset < left) {
            self.left = Some(offset);
            drop(self.ahead.split_off(&offset));
        }
    }

    /// Returns whether an offset was left.
    pub(in crate::retry) fn has_left(&self) -> bool {
        self.left.is_some()
    }

    pub(in crate::retry) fn done(&mut self, offset: Offset) {
        if self.left.is_some_and(|left| offset > left) {
            return;
        }
        if offset != self.next {
            self.ahead.insert(offset);
            return;
        }
        self.next = self.next.next();
        while self.ahead.remove(&self.next) {
            self.next = self.next.next();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_the_part_without_a_gap() {
        let mut progress = Progress::from(Offset(5));
        for (done, next) in [(7, 5), (5, 6), (9, 6), (6, 8), (8, 10)] {
            progress.done(Offset(done));
            assert_eq!(progress.next, Offset(next), "after {done}");
        }
        assert!(progress.ahead.is_empty());
    }

    #[test]
    fn a_left_offset_holds_progress_and_later_ones_take_no_memory() {
        let mut progress = Progress::from(Offset(5));
        for done in [6, 8, 9] {
            progress.done(Offset(done));
        }
        assert!(!progress.has_left());
        progress.leave(Offset(7));
        assert_eq!((progress.ahead_len(), progress.has_left()), (1, true));
        for done in 8..100 {
            progress.done(Offset(done));
        }
        progress.leave(Offset(50));
        assert_eq!(progress.ahead_len(), 1);
        progress.done(Offset(5));
        assert_eq!(progress.next, Offset(7));
        progress.leave(Offset(7));
        assert_eq!(progress.next, Offset(7));
    }
}
