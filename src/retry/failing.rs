//! Ends a pass when the first calls of a target all fail with the same cause. Pure.

use std::collections::{HashMap, hash_map::Entry};

use crate::dispatch::{Cause, TargetId};

/// Targets that a pass keeps; calls of further targets are not counted.
const TARGETS_LEN_MAX: usize = 1_000;

/// The first calls of each target of a pass.
pub(super) struct Failing {
    /// Calls that have to fail; 0 turns the rule off.
    calls_max: u32,
    targets: HashMap<TargetId, Seen>,
}

/// A target whose first calls in a pass all failed with the same cause, which ended the pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetFailing {
    /// The target.
    pub target: TargetId,
    /// The cause of each of these calls.
    pub cause: Cause,
    /// How many calls.
    pub calls: u32,
}

enum Seen {
    /// All calls so far have failed with the same cause.
    Alike { cause: Cause, calls: u32 },
    /// A call was delivered or failed with another cause, so the target cannot end the pass.
    Answers,
}

impl Failing {
    pub(super) fn new(calls_max: u32) -> Self {
        Self {
            calls_max,
            targets: HashMap::new(),
        }
    }

    /// Returns how many calls of a target may be in flight, so that no more fail than end the pass; `None` sets no
    /// bound.
    pub(super) fn room(&self, target: &TargetId) -> Option<usize> {
        let calls = match self.targets.get(target) {
            Some(Seen::Answers) => return None,
            Some(Seen::Alike { calls, .. }) => *calls,
            None if self.targets.len() >= TARGETS_LEN_MAX => return None,
            None => 0,
        };
        let room = self.calls_max.saturating_sub(calls);
        (self.calls_max > 0).then(|| usize::try_from(room).unwrap_or(usize::MAX))
    }

    /// Notes the result of a call, `None` for a delivered one; returns the target when it ends the pass.
    pub(super) fn note(
        &mut self,
        target: &TargetId,
        failed: Option<Cause>,
    ) -> Option<TargetFailing> {
        if self.calls_max == 0 {
            return None;
        }
        let full = self.targets.len() >= TARGETS_LEN_MAX;
        let seen = match self.targets.entry(target.clone()) {
            Entry::Occupied(seen) => seen.into_mut(),
            Entry::Vacant(_) if full => return None,
            Entry::Vacant(first) => first.insert(match failed {
                Some(cause) => Seen::Alike { cause, calls: 0 },
                None => Seen::Answers,
            }),
        };
        let Seen::Alike { cause, calls } = seen else {
            return None;
        };
        if failed != Some(*cause) {
            *seen = Seen::Answers;
            return None;
        }
        *calls += 1;
        (*calls == self.calls_max).then(|| TargetFailing {
            target: target.clone(),
            cause: *cause,
            calls: *calls,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOWN: Option<Cause> = Some(Cause::Status(503));

    fn target(number: usize) -> TargetId {
        TargetId::of(&format!("http://t{number}/"))
    }

    /// Notes the calls, each with its target's number; returns after how many the pass is over.
    #[track_caller]
    fn check(calls_max: u32, calls: &[(usize, Option<Cause>)], expected: Option<usize>) {
        let mut failing = Failing::new(calls_max);
        let over = |(number, failed): &(usize, _)| failing.note(&target(*number), *failed);
        let told: Vec<_> = calls.iter().map(over).collect();
        let over = told.iter().position(Option::is_some);
        assert_eq!(over.map(|at| at + 1), expected, "{calls:?}");
        if let Some(Some(told)) = over.map(|at| &told[at]) {
            let (number, cause) = calls[expected.unwrap() - 1];
            let failing = TargetFailing {
                target: target(number),
                cause: cause.unwrap(),
                calls: calls_max,
            };
            assert_eq!(*told, failing);
        }
    }

    #[test]
    fn a_target_whose_first_calls_fail_alike_is_worth_no_more() {
        let timeout = Some(Cause::Timeout);
        check(3, &[(0, DOWN); 3], Some(3));
        check(3, &[(0, timeout); 2], None);
        check(1, &[(0, timeout)], Some(1));
        check(0, &[(0, DOWN); 9], None);
        // Each target by itself.
        let two = [(0, DOWN), (1, DOWN), (0, DOWN), (1, DOWN), (1, DOWN)];
        check(3, &two, Some(5));
        // One that differs is enough, and later ones do not count.
        for other in [None, timeout, Some(Cause::Status(500))] {
            for at in 0..3 {
                let mut calls = [(0, DOWN); 12];
                calls[at].1 = other;
                check(3, &calls, None);
            }
        }
    }

    #[test]
    fn so_many_targets_are_remembered() {
        let mut calls: Vec<_> = (0..TARGETS_LEN_MAX).map(|at| (at, None)).collect();
        calls.extend([(TARGETS_LEN_MAX, DOWN); 9]);
        check(3, &calls, None);
    }
}
