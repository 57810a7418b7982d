//! Targets with an open breaker: a pass waits up to 2 s for one, then leaves its records to a later pass. Pure: the
//! time is given.
//!
//! The pass *shuts* a target for its rest when more waiting is useless. The breaker stays open for longer than
//! [`PATIENCE`], or was seen open for twice that, or a call of this pass found the target unavailable. So a pass makes
//! at most one probe of such a target. The target stays shut even if it answers other callers, because later records of
//! a key must not overtake one that was left.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    time::Duration,
};

use tokio::time::Instant;

use crate::dispatch::TargetId;

/// How long a pass waits for the probe of a target.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// Targets that a report names; records of further targets are only counted.
pub(super) const TARGETS_LEN_MAX: usize = 100;
/// Further shut targets that a pass keeps. With more, it leaves the records of all targets not seen yet.
const OTHERS_LEN_MAX: usize = 65_536;

/// The targets that a pass has seen open.
#[derive(Debug, Default)]
pub(super) struct OpenTargets {
    /// In the order in which they were seen open.
    seen: Vec<Seen>,
    places: HashMap<TargetId, usize>,
    /// Shut targets that are not named. They are kept because later records must not overtake a record that was left.
    others: HashSet<TargetId>,
    /// Records left of targets that are not named.
    others_len: u64,
    /// The first target with a record left.
    first: Option<TargetId>,
}

/// A target that was seen open.
#[derive(Debug)]
struct Seen {
    target: TargetId,
    /// Since when it was seen open; `None` if it is closed.
    since: Option<Instant>,
    until: Instant,
    shut: bool,
    left_len: u64,
}

/// Records that a pass has left because of their target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Left {
    /// The target; `None` stands for all that are not named.
    pub(super) target: Option<TargetId>,
    /// How many records.
    pub(super) len: u64,
    /// When the breaker may admit a call, as last seen.
    pub(super) until: Option<Instant>,
}

impl OpenTargets {
    /// Notes until when a target's breaker is open, `None` if it is closed; returns whether the target is shut. `found`
    /// means that a call of this pass has just found it unavailable.
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
            // Shut at once, because there is no room to note the wait.
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

    /// Counts a record as left.
    pub(super) fn leave(&mut self, target: &TargetId) {
        self.first.get_or_insert_with(|| target.clone());
        match self.places.get(target) {
            Some(place) => self.seen[*place].left_len += 1,
            None => self.others_len += 1,
        }
    }

    /// Returns the first target with a record left.
    pub(super) fn first(&self) -> Option<&TargetId> {
        self.first.as_ref()
    }

    /// Returns the records left, by target.
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
    fn records_left_are_counted_by_target_up_to_a_bound_and_in_one_sum_for_the_rest() {
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
