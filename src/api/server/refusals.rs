//! Limits log lines about refused requests: one line for each code and interval, with the number of requests.
//!
//! A client can cause refusals as fast as it can send. A line for each would fill the disk and hide everything else.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Interval between two lines of one code.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

/// Counts refusals since the last line of each code.
#[derive(Debug, Default)]
pub(in crate::api) struct Refusals(Mutex<BTreeMap<&'static str, Untold>>);

#[derive(Debug, Default)]
struct Untold {
    len: u64,
    told_at: Option<Instant>,
}

impl Refusals {
    /// Counts a refusal. If a line is due, returns how many there were since the last line, with this one.
    pub(in crate::api) fn note(&self, kind: &'static str) -> Option<u64> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let untold = all.entry(kind).or_default();
        untold.len += 1;
        let now = Instant::now();
        let heard = |at: Instant| now.duration_since(at) < TELL_INTERVAL;
        if untold.told_at.is_some_and(heard) {
            return None;
        }
        untold.told_at = Some(now);
        Some(std::mem::take(&mut untold.len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_kind_has_one_line_in_an_interval_which_counts_the_others() {
        let refusals = Refusals::default();
        assert_eq!(refusals.note("a"), Some(1));
        assert_eq!((refusals.note("a"), refusals.note("a")), (None, None));
        assert_eq!(refusals.note("b"), Some(1));
        tokio::time::advance(TELL_INTERVAL).await;
        assert_eq!((refusals.note("a"), refusals.note("a")), (Some(3), None));
        assert_eq!(refusals.note("b"), Some(1));
    }
}
