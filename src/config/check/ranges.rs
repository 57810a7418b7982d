//! Ranges of the numbers among the settings, both ends included.

use std::ops::RangeInclusive;

use toml::{Table, Value};

use crate::config::Config;

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The log stores at most 32 MiB at once. A record must also fit with the cause of its failure, or it could never be
/// settled.
pub(in crate::config) const RECORD_BYTES_MAX: u64 = 31 * MIB;
/// The longest file that the journal makes ready.
pub(crate) const SEGMENT_BYTES_MAX: u64 = GIB;
/// The log stores the length of a key in two bytes.
const KEY_BYTES_MAX: u64 = 65_535;
/// More than a hundred years; 0 keeps records for ever.
const RETENTION_HOURS_MAX: u64 = 1_000_000;
/// Calls per second.
const RATE_MAX: u64 = 100_000;

/// Key, least and greatest value. A list of tables has one line for all its elements.
const RANGES: [(&str, u64, u64); 54] = [
    ("server.connections_max", 1, 1_000_000),
    ("server.request_timeout_ms", 10, HOUR_MS),
    ("server.answers_bytes_max", MIB, 64 * GIB),
    ("server.grace_ms", 0, HOUR_MS),
    ("log.segment_bytes", MIB, SEGMENT_BYTES_MAX),
    ("log.cache_bytes", 64 * KIB, 64 * GIB),
    ("log.queue_bytes_max", 64 * KIB, 16 * GIB),
    ("log.queue_len_max", 1, 10_000_000),
    ("log.dedup_len_max", 0, 10_000_000),
    ("log.dedup_age_hours", 1, 8_760),
    ("log.disk_free_bytes_min", 0, 1 << 40),
    ("log.streams_max", 1, 16_384),
    ("sync.record_bytes_max", KIB, RECORD_BYTES_MAX),
    ("sync.batch_bytes_max", KIB, RECORD_BYTES_MAX),
    ("sync.key_bytes_max", 1, KEY_BYTES_MAX),
    ("sync.headers_bytes_max", 0, MIB),
    ("sync.batch_len_max", 1, 100_000),
    ("dispatch.in_flight_max", 1, 10_000),
    ("dispatch.rate_per_second", 1, RATE_MAX),
    ("dispatch.attempts_max", 1, 1_000),
    ("dispatch.backoff_ms", 1, HOUR_MS),
    ("dispatch.backoff_ms_max", 1, DAY_MS),
    ("dispatch.retry_after_ms_max", 0, DAY_MS),
    ("dispatch.deferred_ms_max", 0, DAY_MS),
    ("dispatch.connect_timeout_ms", 1, HOUR_MS),
    ("dispatch.dns_ms", 0, HOUR_MS),
    ("dispatch.response_timeout_ms", 1, HOUR_MS),
    ("dispatch.attempt_timeout_ms", 1, HOUR_MS),
    ("dispatch.queue_len_max", 1, 10_000_000),
    ("dispatch.queue_bytes_max", KIB, 16 * GIB),
    ("dispatch.queues_bytes_max", KIB, 64 * GIB),
    ("dispatch.targets_max", 1, 100_000),
    ("dispatch.idle_connections_max", 0, 10_000),
    ("dispatch.idle_timeout_ms", 1, DAY_MS),
    ("retry.records_max", 1, 1_000_000_000),
    ("retry.time_budget_ms", 1, DAY_MS),
    ("retry.in_flight_max", 1, 10_000),
    ("retry.retries_max", 1, 1_000_000),
    ("retry.failing_calls_max", 0, 1_000_000),
    ("retention.source_hours", 0, RETENTION_HOURS_MAX),
    ("retention.error_hours", 0, RETENTION_HOURS_MAX),
    ("retention.interval_seconds", 1, 86_400),
    ("push.idle_array_ms", 0, HOUR_MS),
    ("push.clients_max", 1, 1_000_000),
    ("push.cursor_unused_days", 1, 3_650),
    ("push.create_status", 200, 201),
    ("streams.partitions", 1, 256),
    ("streams.retention_hours", 0, RETENTION_HOURS_MAX),
    ("targets.in_flight_max", 1, 10_000),
    ("targets.rate_per_second", 1, RATE_MAX),
    ("targets.attempts_max", 1, 1_000),
    ("targets.connect_timeout_ms", 1, HOUR_MS),
    ("targets.response_timeout_ms", 1, HOUR_MS),
    ("targets.attempt_timeout_ms", 1, HOUR_MS),
];

/// Returns the range of a key; `None` if any number is legal.
pub(in crate::config) fn range_of(section: &str, key: &str) -> Option<RangeInclusive<u64>> {
    let is_it = |of: &str| of.split_once('.') == Some((section, key));
    let found = RANGES.iter().find(|(of, ..)| is_it(of));
    found.map(|(_, least, most)| *least..=*most)
}

/// Returns every number that is out of its range: its key, and the legal range.
pub(in crate::config) fn out_of_range(config: &Config) -> Vec<(String, String)> {
    let values = Table::try_from(config).expect("what was read from TOML can be written as TOML");
    let mut wrong = Vec::new();
    let mut look = |path: String, value: Option<&Value>, range: RangeInclusive<u64>| {
        let number = value.and_then(Value::as_integer);
        let is_in = |number: &i64| u64::try_from(*number).is_ok_and(|n| range.contains(&n));
        if let Some(number) = number.filter(|number| !is_in(number)) {
            let (least, most) = (range.start(), range.end());
            let what = format!("is {number}, but must be {least} to {most}");
            wrong.push((path, what));
        }
    };
    for (of, least, most) in RANGES {
        let (section, key) = of.split_once('.').unwrap_or((of, ""));
        match values.get(section) {
            Some(Value::Array(elements)) => {
                for (at, element) in elements.iter().enumerate() {
                    let path = format!("{section}[{at}].{key}");
                    look(path, element.get(key), least..=most);
                }
            }
            Some(table) => look(of.to_owned(), table.get(key), least..=most),
            None => {}
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::schema::{Shape, shape};

    #[test]
    fn each_range_is_that_of_a_key_and_of_no_other() {
        for (at, (of, least, most)) in RANGES.iter().enumerate() {
            let (section, key) = of.split_once('.').unwrap();
            let keys = match shape(&[section]) {
                Some(Shape::Table(keys) | Shape::Tables(keys)) => keys,
                other => panic!("{of}: {other:?}"),
            };
            assert!(keys.contains(&key) && least < most, "{of}");
            assert!(RANGES[..at].iter().all(|(other, ..)| other != of), "{of}");
        }
        assert_eq!(range_of("streams", "partitions"), Some(1..=256));
        assert_eq!(range_of("server", "listen"), None);
    }

    #[test]
    fn the_defaults_are_in_range() {
        assert_eq!(out_of_range(&Config::default()), []);
    }
}
