//! Counters of dispatch. Telemetry registers the families; handles are resolved once, so that a call costs no look-up.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

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
use crate::runtime::clock::Timestamp;

/// Counters of attempts.
#[derive(Debug)]
pub struct Stats {
    /// Attempts by outcome: `delivered`, `3xx`, `timeout` ……
    pub attempts: Family<OutcomeLabel, Counter>,
    /// Attempts by target.
    pub target_attempts: Family<TargetLabel, Counter>,
    /// Failed attempts by target and outcome.
    pub target_failures: Family<TargetOutcomeLabel, Counter>,
    /// Duration of attempts in seconds.
    pub attempt_seconds: Histogram,
    /// Records read from the log for dispatch. Records of lagging targets and keys count each time they are read.
    pub read_records: Counter,
    /// Settlements that the log did not take.
    pub lost_ends: Counter,
    /// Partitions whose dispatch is stopped at an unreadable record.
    pub unreadable_partitions: Gauge,
    /// Look-ups of host names.
    pub lookups: Counter,
    /// Host names that wait for a look-up because their share is used up.
    pub lookups_waiting: Gauge,
    handles: Vec<Counter>,
    /// Targets with series of their own.
    targets: Mutex<BTreeSet<String>>,
}

/// Targets with series of their own: the first ones called after the start. Each has up to 19 series, and a message may
/// name any host, so their number needs a bound.
const TARGETS_LEN_MAX: usize = 200;
/// All other targets together.
const OTHER_TARGETS: &str = "other";

/// Label of [`Stats::target_attempts`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TargetLabel {
    /// The target's name or origin.
    pub target: String,
}

/// Labels of [`Stats::target_failures`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TargetOutcomeLabel {
    /// The target's name or origin.
    pub target: String,
    /// The outcome in a word.
    pub outcome: &'static str,
}

/// Counters of one target.
#[derive(Clone, Debug)]
pub(super) struct TargetStats {
    attempts: Counter,
    failures: Family<TargetOutcomeLabel, Counter>,
    target: String,
}

impl TargetStats {
    fn count(&self, outcome: &Outcome) {
        self.attempts.inc();
        let class = match place(outcome) {
            0 => return,
            class @ 1..7 => CLASSES[class],
            _ => word(outcome),
        };
        let label = TargetOutcomeLabel {
            target: self.target.clone(),
            outcome: class,
        };
        self.failures.get_or_create(&label).inc();
    }
}

/// Label of [`Stats::attempts`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    /// The outcome in a word.
    pub outcome: &'static str,
}

/// The numbers of one queue at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetStatus {
    /// Its configured name, else its origin; `*` for all that share one queue.
    pub target: String,
    /// Its breaker is open, so no call begins.
    pub is_closed: bool,
    /// Calls in flight.
    pub in_flight: usize,
    /// Records in the queue.
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
            target_attempts: Family::default(),
            target_failures: Family::default(),
            targets: Mutex::default(),
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

    /// Returns the counters of a target; those of [`OTHER_TARGETS`] if there are enough with their own.
    pub(super) fn of_target(&self, name: String) -> TargetStats {
        // A set is whole between any two steps of it.
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        let has_own = targets.contains(&name)
            || targets.len() < TARGETS_LEN_MAX && targets.insert(name.clone());
        drop(targets);
        let target = if has_own {
            name
        } else {
            OTHER_TARGETS.to_owned()
        };
        let label = TargetLabel {
            target: target.clone(),
        };
        TargetStats {
            attempts: self.target_attempts.get_or_create_owned(&label),
            failures: self.target_failures.clone(),
            target,
        }
    }

    pub(super) fn count(&self, target: &TargetStats, outcome: &Outcome, took: Duration) {
        target.count(outcome);
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
        let target = stats.of_target("http://a".to_owned());
        for (outcome, word) in cases {
            stats.count(&target, &outcome, Duration::from_millis(1));
            let counter = stats
                .attempts
                .get_or_create(&OutcomeLabel { outcome: word });
            assert_eq!(counter.get(), 1, "{word}");
        }
    }
    #[test]
    fn a_target_is_counted_by_its_name_and_too_many_of_them_together() {
        let stats = Stats::default();
        let count = |name: &str, cause: Option<Cause>| {
            let outcome = match cause {
                None => Outcome::Delivered { status: 200 },
                Some(cause) => Outcome::Failed(Failure::new(cause, "")),
            };
            let target = stats.of_target(name.to_owned());
            stats.count(&target, &outcome, Duration::from_millis(1));
        };
        let attempts = |target: &str| {
            let target = target.to_owned();
            stats
                .target_attempts
                .get_or_create(&TargetLabel { target })
                .get()
        };
        let failures = |target: &str, outcome| {
            let target = target.to_owned();
            let label = TargetOutcomeLabel { target, outcome };
            stats.target_failures.get_or_create(&label).get()
        };
        count("orders", None);
        count("orders", Some(Cause::Status(503)));
        count("orders", Some(Cause::Timeout));
        for n in 1..TARGETS_LEN_MAX {
            count(&format!("http://{n}"), None);
        }
        count("http://one-more", Some(Cause::Dns));
        count("http://another", None);
        count("orders", None);
        assert_eq!(attempts("orders"), 4);
        assert_eq!(
            (failures("orders", "5xx"), failures("orders", "timeout")),
            (1, 1)
        );
        assert_eq!((attempts("other"), failures("other", "dns")), (2, 1));
        assert_eq!(attempts("http://another"), 0);
    }
}
