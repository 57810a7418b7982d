//! Backoff: the wait of a record before its next call, and of an open breaker before its probe. Pure: the random number
//! is given.

use std::time::Duration;

/// The rule of waits: full jitter under a bound that doubles.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    /// Bound of the first wait.
    pub(crate) first: Duration,
    /// Bound of every wait.
    pub(crate) max: Duration,
}

impl Backoff {
    /// Returns the wait after the `attempt`th call (1 = the first) has failed: a `random` part of the bound, so that records
    /// that failed together do not come back together.
    pub(crate) fn delay(&self, attempt: u32, random: u64) -> Duration {
        part(self.bound(attempt), random)
    }

    /// Returns the pause of a breaker that has opened `failures` times in a row: at least half of the bound, because
    /// the target needs the time.
    pub(crate) fn pause(&self, failures: u32, random: u64) -> Duration {
        let half = self.bound(failures) / 2;
        half + part(half, random)
    }

    fn bound(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        self.first.saturating_mul(1 << doublings).min(self.max)
    }
}

fn part(whole: Duration, random: u64) -> Duration {
    let nanos = whole.as_nanos() * u128::from(random) / u128::from(u64::MAX);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff {
        first: Duration::from_millis(200),
        max: Duration::from_secs(30),
    };

    #[track_caller]
    fn check(attempt: u32, random: u64, expected_ms: u64) {
        let delay = BACKOFF.delay(attempt, random);
        assert_eq!(delay, Duration::from_millis(expected_ms), "{attempt}");
    }

    #[test]
    fn the_bound_doubles_up_to_the_greatest() {
        let bounds = [200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000];
        for (attempt, bound) in (1..).zip(bounds) {
            check(attempt, u64::MAX, bound);
            check(attempt, 0, 0);
        }
        check(u32::MAX, u64::MAX, 30_000);
        check(0, u64::MAX, 200);
        let half = BACKOFF.delay(2, u64::MAX / 2);
        assert_eq!(
            half.as_millis(),
            199,
            "a part of the bound, cut to whole ns"
        );
    }

    #[test]
    fn a_pause_is_at_least_half_of_its_bound() {
        let millis = |failures, random| BACKOFF.pause(failures, random).as_millis();
        assert_eq!((millis(1, 0), millis(1, u64::MAX)), (100, 200));
        assert_eq!((millis(3, 0), millis(3, u64::MAX)), (400, 800));
        assert_eq!((millis(99, 0), millis(99, u64::MAX)), (15_000, 30_000));
    }
}
