//! Targets whose breaker is open: a pass waits a little for one, then leaves its records to a later pass. Pure: the time is
//! given.
//!
//! A target is *shut* for the rest of the pass as soon as waiting makes no sense: it is open for longer than [`PATIENCE`],
//! or for twice that whoever probes it, or it is open after a call of this pass has found it unavailable. So a pass makes at
//! most one probe of a target that is open. It stays shut even if it answers others meanwhile: later records of a key must
//! not overtake one that was passed by.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    time::Duration,
};

use tokio::time::Instant;

use crate::dispatch::TargetId;

/// How long a pass waits for the probe of a target that is open.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// Targets that a report names; the records of more are only counted.
pub(super) const TARGETS_LEN_MAX: usize = 100;
/// More shut targets that a pass remembers. When there are as many, it leaves the records of every other target, too.
const OTHERS_LEN_MAX: usize = 65_536;

/// What a pass knows of targets that are open.
#[derive(Debug, Default)]
pub(super) struct OpenTargets {
    /// In the order in which they were seen to be open.
    seen: Vec<Seen>,
    places: HashMap<TargetId, usize>,
    /// Targets that are shut and not named: a record behind one that was left must not be called.
    others: HashSet<TargetId>,
    /// Records left of shut targets that are not named.
    others_len: u64,
    /// The first target of which a record was left.
    first: Option<TargetId>,
}

/// A target that is, or was, open.
#[derive(Debug)]
struct Seen {
    target: TargetId,
    /// Since when it is seen to be open; `None` if it is not.
    since: Option<Instant>,
    until: Instant,
    shut: bool,
    left_len: u64,
}

/// Records that a pass has left to a later one because of their target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Left {
    /// The target; `None` stands for all that are not named.
    pub(super) target: Option<TargetId>,
    /// How many records.
    pub(super) len: u64,
    /// No call of the target begins before then, as far as the pass has seen.
    pub(super) until: Option<Instant>,
}

impl OpenTargets {
    /// Notes until when a target is open, `None` if it is not; returns whether its records are left. `found` says that a
    /// call of this pass has just found it unavailable.
    pub(super) fn note(
        &mut self,
        target: &TargetId,
        open_until: Option<Instant>,
        found: bool,
        now: Instant,
    ) -> bool {
        let full = self.seen.len() >= TARGETS_LEN_MAX;
        let seen = match (self.places.entry(target.clone()), open_until) {
            (Entry::Occupied(place), _) => &mut self.seen[*place.get()],
            (Entry::Vacant(_), None) => {
                return self.others.contains(target) || self.others.len() >= OTHERS_LEN_MAX;
            }
            // It cannot be remembered that the pass waits for it.
            (Entry::Vacant(_), Some(_)) if full => {
                if self.others.len() < OTHERS_LEN_MAX {
                    self.others.insert(target.clone());
                }
                return true;
            }
            (Entry::Vacant(place), Some(until)) => {
                place.insert(self.seen.len());
                self.seen.push(Seen {
                    target: target.clone(),
                    since: None,
                    until,
                    shut: false,
                    left_len: 0,
                });
                let last = self.seen.len() - 1;
                &mut self.seen[last]
            }
        };
        match open_until {
            None => seen.since = None,
            Some(until) => {
                seen.until = until;
                let since = *seen.since.get_or_insert(now);
                seen.shut |= found || until > now + PATIENCE || now >= since + 2 * PATIENCE;
            }
        }
        seen.shut
    }

    /// Counts a record that is left.
    pub(super) fn leave(&mut self, target: &TargetId) {
        self.first.get_or_insert_with(|| target.clone());
        match self.places.get(target) {
            Some(place) => self.seen[*place].left_len += 1,
            None => self.others_len += 1,
        }
    }

    /// Returns the first target of which a record was left.
    pub(super) fn first(&self) -> Option<&TargetId> {
        self.first.as_ref()
    }

    /// Returns what was left, by target.
    pub(super) fn left(&self) -> impl Iterator<Item = Left> {
        let named = self.seen.iter().map(|seen| Left {
            target: Some(seen.target.clone()),
            len: seen.left_len,
            until: Some(seen.until),
        });
        let others = Left {
            target: None,
            len: self.others_len,
            until: None,
        };
        named.chain([others]).filter(|left| left.len > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(number: usize) -> TargetId {
        TargetId::of(&format!("http://t{number}/"))
    }

    /// What a pass sees of one target: at a millisecond, open until another, found so by a call of its own.
    #[track_caller]
    fn check(seen: &[(u64, Option<u64>, bool)], expected: &[bool]) {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut open = OpenTargets::default();
        let shut = seen
            .iter()
            .map(|(now, until, found)| open.note(&target(0), until.map(at), *found, at(*now)));
        assert_eq!(shut.collect::<Vec<_>>(), expected, "{seen:?}");
    }

    #[test]
    fn a_target_is_waited_for_a_little_and_no_more_after_a_call_of_the_pass_has_found_it_open() {
        let no = None;
        check(
            &[(0, no, false), (1, no, true), (2, no, false)],
            &[false; 3],
        );
        // The probe is soon due, and is answered.
        let soon = Some(200);
        check(
            &[(0, soon, false), (100, soon, false), (250, no, false)],
            &[false; 3],
        );
        // It is not: what comes behind it is left, even when others find it to answer again.
        let again = Some(650);
        check(
            &[(0, soon, false), (250, again, true), (300, no, false)],
            &[false, true, true],
        );
        // A call of the pass has opened it.
        check(&[(0, no, false), (5, soon, true)], &[false, true]);
        // It is open for long.
        check(
            &[(0, Some(2_000), false), (0, Some(2_001), false)],
            &[false, true],
        );
        // Others probe it again and again, or one probe hangs.
        check(
            &[
                (0, Some(300), false),
                (1_000, Some(1_300), false),
                (3_999, Some(100), false),
                (4_000, Some(100), false),
            ],
            &[false, false, false, true],
        );
        // The time begins anew when it was closed in between.
        check(
            &[
                (0, Some(300), false),
                (3_000, no, false),
                (4_000, Some(4_100), false),
                (7_999, Some(0), false),
            ],
            &[false; 4],
        );
    }

    #[test]
    fn what_is_left_is_counted_by_target_for_so_many_and_in_one_sum_for_the_rest() {
        let now = Instant::now();
        let far = now + Duration::from_secs(60);
        let mut open = OpenTargets::default();
        assert_eq!((open.first(), open.left().count()), (None, 0));
        for number in 0..TARGETS_LEN_MAX + 5 {
            assert!(open.note(&target(number), Some(far), false, now));
            if number != 1 {
                open.leave(&target(number));
            }
        }
        open.leave(&target(2));
        assert_eq!(open.first(), Some(&target(0)));
        // One that is not named stays shut like the others.
        for (number, is_shut) in [
            (0, true),
            (TARGETS_LEN_MAX, true),
            (TARGETS_LEN_MAX + 5, false),
        ] {
            assert_eq!(open.note(&target(number), None, false, now), is_shut);
        }
        let left: Vec<_> = open.left().collect();
        let one = |number, len| Left {
            target: Some(target(number)),
            len,
            until: Some(far),
        };
        assert_eq!(left[..3], [one(0, 1), one(2, 2), one(3, 1)]);
        let others = Left {
            target: None,
            len: 5,
            until: None,
        };
        assert_eq!(left.last(), Some(&others));
        assert_eq!(left.len(), TARGETS_LEN_MAX);
    }
}
