//! What dispatch counts. Telemetry registers the families; handles are resolved once, so that a call costs no look-up.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
};

use super::outcome::{Cause, Outcome};
use crate::clock::Timestamp;

/// Counters of attempts.
#[derive(Debug)]
pub struct Stats {
    /// Attempts by what they came to: `delivered`, `3xx`, `timeout` …
    pub attempts: Family<OutcomeLabel, Counter>,
    /// How long an attempt took, in seconds.
    pub attempt_seconds: Histogram,
    /// Records read from the log to dispatch them; those of targets and keys that are behind are read again.
    pub read_records: Counter,
    /// Ends that the log did not take.
    pub lost_ends: Counter,
    /// Partitions of which something cannot be read: their dispatch waits there.
    pub unreadable_partitions: Gauge,
    /// Look-ups of hosts that were made.
    pub lookups: Counter,
    /// Hosts that wait for a look-up, because their share is used up.
    pub lookups_waiting: Gauge,
    handles: Vec<Counter>,
}

/// Label of [`Stats::attempts`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    /// The outcome in a word.
    pub outcome: &'static str,
}

/// A target in numbers, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetStatus {
    /// Its configured name, else its origin; `*` for all that share one queue.
    pub target: String,
    /// Nothing is called for now: its breaker is open.
    pub is_closed: bool,
    /// Calls now.
    pub in_flight: usize,
    /// Records that wait in memory.
    pub queued_len: usize,
    /// Their bytes.
    pub queued_bytes: usize,
    /// When the oldest record that waits or is in flight was stored.
    pub oldest: Option<Timestamp>,
}

const CLASSES: [&str; 7] = ["delivered", "1xx", "2xx", "3xx", "4xx", "5xx", "other"];

impl Default for Stats {
    fn default() -> Self {
        let attempts = Family::<OutcomeLabel, Counter>::default();
        let handles = CLASSES
            .into_iter()
            .chain(Cause::WITHOUT_STATUS.map(Cause::word))
            .map(|outcome| attempts.get_or_create(&OutcomeLabel { outcome }).clone())
            .collect();
        Self {
            attempts,
            // 0.5 ms to 65 s.
            attempt_seconds: Histogram::new(exponential_buckets(0.0005, 2.0, 18)),
            read_records: Counter::default(),
            lost_ends: Counter::default(),
            unreadable_partitions: Gauge::default(),
            lookups: Counter::default(),
            lookups_waiting: Gauge::default(),
            handles,
        }
    }
}

impl Stats {
    pub(super) fn read(&self, records_len: usize) {
        self.read_records.inc_by(records_len as u64);
    }

    pub(super) fn count(&self, outcome: &Outcome, took: Duration) {
        if let Some(handle) = self.handles.get(place(outcome)) {
            handle.inc();
        }
        self.attempt_seconds.observe(took.as_secs_f64());
    }
}

/// Returns the outcome's place in the list of handles.
fn place(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Delivered { .. } => 0,
        Outcome::Failed(failure) => match failure.cause {
            Cause::Status(status) => usize::from(status / 100).clamp(1, 6),
            other => {
                let word = Cause::WITHOUT_STATUS.iter().position(|one| *one == other);
                CLASSES.len() + word.unwrap_or_default()
            }
        },
    }
}

/// Returns the word under which an outcome is counted and logged.
pub(super) fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Delivered { .. } => CLASSES[0],
        Outcome::Failed(failure) => failure.cause.word(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::outcome::Failure;

    #[test]
    fn every_outcome_is_counted_under_its_own_word() {
        let stats = Stats::default();
        let failed = |cause| Outcome::Failed(Failure::new(cause, ""));
        let cases = [
            (Outcome::Delivered { status: 204 }, "delivered"),
            (failed(Cause::Status(404)), "4xx"),
            (failed(Cause::Status(700)), "other"),
            (failed(Cause::Dns), "dns"),
            (failed(Cause::Internal), "internal"),
        ];
        for (outcome, word) in cases {
            stats.count(&outcome, Duration::from_millis(1));
            let counter = stats
                .attempts
                .get_or_create(&OutcomeLabel { outcome: word });
            assert_eq!(counter.get(), 1, "{word}");
        }
    }
}
