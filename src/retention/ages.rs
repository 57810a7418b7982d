//! Ages of records by a wall clock that may jump.
//!
//! Clock jumps do not age records. Within a run ages follow the monotonic clock. From one run to the next they follow the
//! wall clock, up to [`DOWN_MAX`]. A larger difference of the wall clock is a gap, which adds no age.
//!
//! ```text
//! wall clock   2026-11-01 ──────► 2026-11-03 │ gap │ 2096-01-01 ─► 2096-01-02 │ gap │ 2026-11-04 ──────► now
//! ages                      2 days           │  0  │      1 day               │  0  │        …
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::runtime::clock::Timestamp;

/// Difference between wall clock and monotonic clock that counts as a jump.
const JUMP_MAX: Duration = Duration::from_secs(3_600);
/// The longest time between two runs that counts as age.
const DOWN_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Bound of known gaps. Beyond it the oldest gap counts as passed time.
const GAPS_LEN_MAX: usize = 64;

/// What is known of the wall clock. Stored as JSON, so members are only ever added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ages {
    /// The wall clock at the last look, in µs.
    seen: u64,
    /// Jumps of the wall clock, oldest first.
    gaps: Vec<ClockJump>,
}

/// A jump of the wall clock: no time has passed between the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ClockJump {
    from: u64,
    to: u64,
}

impl Ages {
    /// Begins without knowledge of the wall clock.
    pub(super) fn begin(now: Timestamp) -> Self {
        Self {
            seen: now.0,
            // Older records may have been written just now under a wrong clock, so a gap covers all earlier times.
            gaps: vec![ClockJump { from: 0, to: now.0 }],
        }
    }

    /// Looks at the wall clock, `passed` after the look before; `None` if that was in another run. Returns whether it
    /// had jumped.
    pub(super) fn look(&mut self, now: Timestamp, passed: Option<Duration>) -> bool {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let (expected, tolerance) = match passed {
            Some(passed) => (micros(passed), micros(JUMP_MAX)),
            None => (0, micros(DOWN_MAX)),
        };
        let due = self.seen.saturating_add(expected);
        let jumped = now.0 > due.saturating_add(tolerance)
            || now.0.saturating_add(micros(JUMP_MAX)) < self.seen;
        if jumped {
            self.gaps.push(ClockJump {
                from: due,
                to: now.0,
            });
            let excess = self.gaps.len().saturating_sub(GAPS_LEN_MAX);
            self.gaps.drain(..excess);
        }
        self.seen = now.0;
        jumped
    }

    /// Returns how long ago the clock was last looked at, by itself.
    pub(super) fn noted(&self) -> Timestamp {
        Timestamp(self.seen)
    }

    /// Returns what the wall clock said when records were written that are `age` old now.
    pub(super) fn before(&self, age: Duration) -> Timestamp {
        let mut left = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
        let mut end = self.seen;
        for gap in self.gaps.iter().rev() {
            let passed = end.saturating_sub(gap.to);
            if left <= passed {
                break;
            }
            left -= passed;
            end = gap.from;
        }
        Timestamp(end.saturating_sub(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000_000;

    fn hours(count: u64) -> Duration {
        Duration::from_secs(count * 3_600)
    }

    /// Looks once an hour for so long; the wall clock goes as it should.
    fn run(ages: &mut Ages, count: u64) {
        for _ in 0..count {
            let now = Timestamp(ages.seen + HOUR);
            assert!(!ages.look(now, Some(hours(1))));
        }
    }

    #[test]
    fn ages_are_what_the_clock_says_as_long_as_it_runs() {
        let mut ages = Ages::begin(Timestamp(1_000 * HOUR));
        run(&mut ages, 200);
        assert_eq!(ages.before(hours(150)), Timestamp(1_050 * HOUR));
        // Nothing that was there at the beginning is older than that.
        assert_eq!(ages.before(hours(200)), Timestamp(1_000 * HOUR));
        assert_eq!(ages.before(hours(201)), Timestamp(0));
    }

    #[test]
    fn a_clock_that_jumps_70_years_and_back_makes_nothing_old() {
        let mut ages = Ages::begin(Timestamp(500_000 * HOUR));
        run(&mut ages, 300);
        let ahead = Timestamp(ages.seen + 70 * 8_766 * HOUR);
        assert!(ages.look(ahead, Some(hours(1))));
        // Seven days ago was before the jump.
        assert_eq!(ages.before(hours(168)), Timestamp(500_133 * HOUR));
        run(&mut ages, 10);
        assert_eq!(ages.before(hours(5)), Timestamp(ahead.0 + 5 * HOUR));
        assert_eq!(ages.before(hours(168)), Timestamp(500_143 * HOUR));
        assert!(ages.look(Timestamp(500_311 * HOUR), Some(hours(0))));
        run(&mut ages, 20);
        assert_eq!(ages.before(hours(20)), Timestamp(500_311 * HOUR));
        assert_eq!(ages.before(hours(30)), ahead);
        assert_eq!(ages.before(hours(168)), Timestamp(500_163 * HOUR));
    }

    #[test]
    fn a_night_off_counts_and_a_month_off_is_a_day() {
        let mut ages = Ages::begin(Timestamp(1_000 * HOUR));
        run(&mut ages, 100);
        assert!(!ages.look(Timestamp(1_112 * HOUR), None));
        assert_eq!(ages.before(hours(40)), Timestamp(1_072 * HOUR));
        assert!(ages.look(Timestamp(1_812 * HOUR), None));
        assert_eq!(ages.before(hours(40)), Timestamp(1_072 * HOUR));
        run(&mut ages, 1);
        assert_eq!(ages.before(hours(40)), Timestamp(1_073 * HOUR));
    }

    #[test]
    fn small_corrections_are_no_jumps_and_gaps_are_bounded() {
        let mut ages = Ages::begin(Timestamp(1_000 * HOUR));
        for change in [HOUR / 2, HOUR * 3 / 2, HOUR, HOUR * 2] {
            let now = Timestamp(ages.seen + change);
            assert!(!ages.look(now, Some(hours(1))));
        }
        assert!(!ages.look(Timestamp(ages.seen - HOUR / 2), Some(hours(0))));
        for _ in 0..1_000 {
            assert!(ages.look(Timestamp(ages.seen + 100 * HOUR), Some(hours(0))));
        }
        assert_eq!(ages.gaps.len(), GAPS_LEN_MAX);
    }

    #[test]
    fn it_reads_back() {
        let mut ages = Ages::begin(Timestamp(7));
        ages.look(Timestamp(900 * HOUR), None);
        let stored = serde_json::to_vec(&ages).unwrap();
        assert_eq!(serde_json::from_slice::<Ages>(&stored).unwrap(), ages);
    }
}
