//! Up to where a pass is done in a partition. Pure.

use std::collections::BTreeSet;

use crate::place::Offset;

/// Where a pass stands in a partition.
pub(super) struct Progress {
    /// Everything below is done.
    pub(super) next: Offset,
    /// Done, but something before is not.
    ahead: BTreeSet<Offset>,
    /// Offsets that retention has taken.
    pub(super) trimmed: u64,
}

impl Progress {
    /// Begins with a record of which nothing is done.
    pub(super) fn from(next: Offset) -> Self {
        Self {
            next,
            ahead: BTreeSet::new(),
            trimmed: 0,
        }
    }

    /// Returns how many are done of which something before is not.
    pub(super) fn ahead_len(&self) -> usize {
        self.ahead.len()
    }

    /// Everything below `next` is done.
    pub(super) fn done_below(&mut self, next: Offset) {
        self.next = self.next.max(next);
    }

    pub(super) fn done(&mut self, offset: Offset) {
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
}
