//! Metrics: the one list of their names, handles to count with, and the text of `/metrics`.
//!
//! What happens often is counted where it happens, through a handle of [`Metrics`]. What is a state (a backlog, a
//! queue) costs nothing until someone looks: a [`Source`] is asked for it at each scrape.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text},
    metrics::{
        MetricType,
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::ConstGauge,
        histogram::Histogram,
        info::Info,
    },
    registry::{Metric, Registry},
};

use super::process;
use crate::clock::Clock;

/// A line of the list.
struct Listed {
    name: &'static str,
    kind: MetricType,
    help: &'static str,
}

const fn listed(name: &'static str, kind: MetricType, help: &'static str) -> Listed {
    Listed { name, kind, help }
}

/// Every metric that there is. The text adds `_total` to counters.
const LIST: &[Listed] = &[
    listed(
        ACCEPTED,
        MetricType::Counter,
        "Messages stored by POST /stream/sync",
    ),
    listed(
        REPEATED,
        MetricType::Counter,
        "Requests of POST /stream/sync that were answered as before, by their idempotency key",
    ),
    listed(
        REFUSED,
        MetricType::Counter,
        "Requests of POST /stream/sync that were refused, by problem code",
    ),
    listed(
        PUSH_CLOSES,
        MetricType::Counter,
        "Clients of data streams that were closed from here, on WebSockets and Server-Sent Events, by close code",
    ),
    listed(
        PUSH_GAPS,
        MetricType::Counter,
        "Gaps behind which clients of data streams went on, as qualityOfService atMostOnce says",
    ),
    listed(
        PANICS,
        MetricType::Counter,
        "Panics that ended the work of one client or target and nothing else, by part; each is a mistake of ours",
    ),
    listed(
        FAILED_LOGINS,
        MetricType::Counter,
        "Requests refused as their name or password was wrong",
    ),
    listed(
        REQUEST_SECONDS,
        MetricType::Histogram,
        "Time from a request's head to its answer, by route",
    ),
    listed(
        APPEND_SECONDS,
        MetricType::Histogram,
        "Time from a commit's queuing to its durability",
    ),
    listed(
        FSYNC_SECONDS,
        MetricType::Histogram,
        "Time of one fdatasync of a journal file",
    ),
    listed(
        JOURNAL_BYTES,
        MetricType::Counter,
        "Bytes written to journal files, those that are prepared ahead included",
    ),
    listed(
        BACKLOG_RECORDS,
        MetricType::Gauge,
        "Records that wait for their end, by stream that is dispatched",
    ),
    listed(
        BACKLOG_SECONDS,
        MetricType::Gauge,
        "Age of the oldest record that waits for its end, by stream that is dispatched",
    ),
    listed(
        OPEN_RECORDS,
        MetricType::Gauge,
        "Records that no redrive has delivered or moved, by error stream",
    ),
    listed(
        OLDEST_PENDING_SECONDS,
        MetricType::Gauge,
        "Age of the oldest record in a target's queue, by target",
    ),
    listed(
        ATTEMPTS,
        MetricType::Counter,
        "Calls of targets, by outcome",
    ),
    listed(
        ATTEMPT_SECONDS,
        MetricType::Histogram,
        "Time of one call of a target",
    ),
    listed(
        DISPATCH_READ_RECORDS,
        MetricType::Counter,
        "Records read from the log to be dispatched; those of targets and keys that are behind are read again",
    ),
    listed(
        LOOKUPS,
        MetricType::Counter,
        "Look-ups of targets' hosts that were made",
    ),
    listed(
        LOOKUPS_WAITING,
        MetricType::Gauge,
        "Hosts that wait for a look-up, because other look-ups of their zone or source have not ended",
    ),
    listed(
        TARGET_CLOSED,
        MetricType::Gauge,
        "1 while a target is not called because its breaker is open, by target",
    ),
    listed(
        IN_FLIGHT,
        MetricType::Gauge,
        "Calls of targets under way, by target",
    ),
    listed(
        QUEUED,
        MetricType::Gauge,
        "Records in memory that wait for their call, by target",
    ),
    listed(
        UNREADABLE_PARTITIONS,
        MetricType::Gauge,
        "Partitions whose dispatch waits at a place that cannot be read; the log says where, syncgate doctor why",
    ),
    listed(
        LOG_RUNNING,
        MetricType::Gauge,
        "1 while the log takes appends",
    ),
    listed(
        STATE_BYTES,
        MetricType::Gauge,
        "Bytes of state that the values of a kind take, by kind",
    ),
    listed(
        STATE_SHARE_BYTES,
        MetricType::Gauge,
        "Bytes of state that the values of a kind may take, by kind; beyond it they are refused as state_full or secrets_full",
    ),
    listed(
        SECRETS_GONE,
        MetricType::Counter,
        "Tokens that no open record needed and that gave way to new ones, as tokens had taken their whole share",
    ),
    listed(
        LOST_ENDS,
        MetricType::Counter,
        "Ends of records that the log did not take; each such record waits again, or is dispatched again",
    ),
    listed(
        LOG_LINES_DROPPED,
        MetricType::Counter,
        "Log lines that were dropped because standard error was not read fast enough",
    ),
    listed(
        RESIDENT_BYTES,
        MetricType::Gauge,
        "Resident memory of the process",
    ),
    listed(
        OPEN_FILES,
        MetricType::Gauge,
        "Open file descriptors of the process",
    ),
    listed(
        START_TIME_SECONDS,
        MetricType::Gauge,
        "Start of the process, seconds since 1970",
    ),
    listed(BUILD, MetricType::Info, "Version of the gateway"),
];

const ACCEPTED: &str = "syncgate_accepted_messages";
const REPEATED: &str = "syncgate_repeated_requests";
const REFUSED: &str = "syncgate_refused_requests";
/// Gaps of data streams.
pub const PUSH_GAPS: &str = "syncgate_push_gaps";
const PUSH_CLOSES: &str = "syncgate_push_closes";
/// Panics in the work of one client, by `part`.
pub const PANICS: &str = "syncgate_panics";
const FAILED_LOGINS: &str = "syncgate_failed_logins";
const REQUEST_SECONDS: &str = "syncgate_http_request_seconds";
/// Time from a commit's queuing to its durability.
pub const APPEND_SECONDS: &str = "syncgate_append_seconds";
/// Time of one `fdatasync` of the journal.
pub const FSYNC_SECONDS: &str = "syncgate_fsync_seconds";
/// Records read from the log to be dispatched.
pub const DISPATCH_READ_RECORDS: &str = "syncgate_dispatch_read_records";
/// Look-ups of hosts.
pub const LOOKUPS: &str = "syncgate_lookups";
/// Hosts that wait for one.
pub const LOOKUPS_WAITING: &str = "syncgate_lookups_waiting";
/// Calls of targets, by `outcome`.
pub const ATTEMPTS: &str = "syncgate_attempts";
/// Time of one call of a target.
pub const ATTEMPT_SECONDS: &str = "syncgate_attempt_seconds";
const RESIDENT_BYTES: &str = "syncgate_process_resident_bytes";
const OPEN_FILES: &str = "syncgate_process_open_files";
const START_TIME_SECONDS: &str = "syncgate_process_start_time_seconds";
const BUILD: &str = "syncgate_build";

/// Bytes written to the journal.
pub const JOURNAL_BYTES: &str = "syncgate_journal_bytes";
/// Records that wait for their end, by `stream`.
pub const BACKLOG_RECORDS: &str = "syncgate_backlog_records";
/// Age of the oldest of them, by `stream`.
pub const BACKLOG_SECONDS: &str = "syncgate_backlog_seconds";
/// Open records of an error stream, by `stream`.
pub const OPEN_RECORDS: &str = "syncgate_open_records";
/// Age of the oldest queued record, by `target`.
pub const OLDEST_PENDING_SECONDS: &str = "syncgate_target_oldest_pending_seconds";
/// Calls under way, by `target`.
pub const IN_FLIGHT: &str = "syncgate_in_flight";
/// 1 while nothing is called, by `target`.
pub const TARGET_CLOSED: &str = "syncgate_target_closed";
/// Records queued in memory, by `target`.
pub const QUEUED: &str = "syncgate_queued";
/// Partitions whose dispatch waits at damage.
pub const UNREADABLE_PARTITIONS: &str = "syncgate_unreadable_partitions";
/// 1 while the log takes appends.
pub const LOG_RUNNING: &str = "syncgate_log_running";
/// What state values take, by `kind`.
pub const STATE_BYTES: &str = "syncgate_state_bytes";
/// What they may take, by `kind`.
pub const STATE_SHARE_BYTES: &str = "syncgate_state_share_bytes";
/// Tokens that gave way to new ones.
pub const SECRETS_GONE: &str = "syncgate_secrets_gone";
/// Ends that the log did not take.
pub const LOST_ENDS: &str = "syncgate_lost_ends";
/// Log lines that were dropped.
pub const LOG_LINES_DROPPED: &str = "syncgate_log_lines_dropped";

/// One label.
pub type Label = [(&'static str, String); 1];

/// Shows a counter for each value of its label at zero, because an alert cannot see a series that is not there yet.
pub fn show_zeros(
    counters: &Family<Label, Counter>,
    label: &'static str,
    values: impl IntoIterator<Item = impl ToString>,
) {
    for value in values {
        drop(counters.get_or_create_owned(&[(label, value.to_string())]));
    }
}

/// Handles to count with. Clones share everything.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Messages stored by `POST /stream/sync`.
    pub accepted: Counter,
    /// Requests of `POST /stream/sync` that were answered as before.
    pub repeated: Counter,
    /// Refused requests of `POST /stream/sync`, by problem `code`.
    pub refused: Family<Label, Counter>,
    /// Clients of data streams that were closed from here, by `code`.
    pub closes: Family<Label, Counter>,
    /// Requests with wrong credentials.
    pub failed_logins: Counter,
    /// Time of a request, by `route`.
    pub request_seconds: Family<Label, Histogram, fn() -> Histogram>,
    /// Locked to add a metric and to write the text; counting goes past it.
    registry: Arc<Mutex<Registry>>,
    started_seconds: f64,
}

impl Metrics {
    /// Makes all metrics, at zero.
    #[must_use]
    pub fn new(clock: &Clock) -> Self {
        let metrics = Self {
            accepted: Counter::default(),
            repeated: Counter::default(),
            refused: Family::default(),
            closes: Family::default(),
            failed_logins: Counter::default(),
            request_seconds: Family::new_with_constructor(latency as fn() -> Histogram),
            registry: Arc::default(),
            started_seconds: Duration::from_micros(clock.now().0).as_secs_f64(),
        };
        metrics.adopt(ACCEPTED, metrics.accepted.clone());
        metrics.adopt(REPEATED, metrics.repeated.clone());
        metrics.adopt(REFUSED, metrics.refused.clone());
        metrics.adopt(PUSH_CLOSES, metrics.closes.clone());
        metrics.adopt(FAILED_LOGINS, metrics.failed_logins.clone());
        metrics.adopt(REQUEST_SECONDS, metrics.request_seconds.clone());
        metrics.adopt(BUILD, Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        metrics
    }

    /// Shows a metric that another part owns and counts with. `name` is one of the names of this module.
    pub fn adopt(&self, name: &'static str, metric: impl Metric) {
        let listed = LIST.iter().find(|listed| listed.name == name);
        debug_assert!(listed.is_some(), "{name} is not in the list of metrics");
        let help = listed.map_or("", |listed| listed.help);
        self.registry().register(name, help, metric);
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        // A registry is whole between any two steps of it.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the OpenMetrics text: what was counted, and what the sources say now.
    pub async fn render(&self, sources: &[Arc<dyn Source>]) -> String {
        let mut samples = Samples::default();
        samples.set(START_TIME_SECONDS, &[], self.started_seconds);
        if let Some(bytes) = process::resident_bytes() {
            samples.set(RESIDENT_BYTES, &[], as_f64(bytes));
        }
        if let Some(files) = process::open_files_len() {
            samples.set(OPEN_FILES, &[], as_f64(files as u64));
        }
        for source in sources {
            source.sample(&mut samples).await;
        }
        let mut asked = Registry::default();
        asked.register_collector(Box::new(samples));
        let mut all = String::new();
        let written = text::encode_registry(&mut all, &self.registry())
            .and_then(|()| text::encode_registry(&mut all, &asked))
            .and_then(|()| text::encode_eof(&mut all));
        if written.is_err() {
            tracing::error!("metrics could not be written as text");
        }
        all
    }
}

/// Something that is asked at each scrape.
#[async_trait]
pub trait Source: fmt::Debug + Send + Sync + 'static {
    /// Adds its figures. It should answer within milliseconds: a scrape waits for it.
    async fn sample(&self, samples: &mut Samples);
}

/// Figures of one scrape.
#[derive(Debug, Default)]
pub struct Samples(BTreeMap<&'static str, Vec<Figure>>);

type Figure = (Vec<(&'static str, String)>, f64);

impl Samples {
    /// Notes one figure. `name` is one of the names of this module; the text leaves out what is not in its list.
    pub fn set(&mut self, name: &'static str, labels: &[(&'static str, &str)], value: f64) {
        let labels = labels
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        self.0.entry(name).or_default().push((labels, value));
    }

    /// Notes a whole number.
    pub fn set_count(&mut self, name: &'static str, labels: &[(&'static str, &str)], value: u64) {
        self.set(name, labels, as_f64(value));
    }
}

impl Collector for Samples {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Listed { name, kind, help } in LIST {
            let Some(figures) = self.0.get(name) else {
                continue;
            };
            let mut metric = encoder.encode_descriptor(name, help, None, *kind)?;
            match (&figures[..], kind) {
                ([(labels, value)], MetricType::Counter) if labels.is_empty() => {
                    ConstCounter::new(*value).encode(metric)?;
                }
                ([(labels, value)], _) if labels.is_empty() => {
                    ConstGauge::new(*value).encode(metric)?;
                }
                (figures, MetricType::Counter) => {
                    for (labels, value) in figures {
                        ConstCounter::new(*value).encode(metric.encode_family(labels)?)?;
                    }
                }
                (figures, _) => {
                    for (labels, value) in figures {
                        ConstGauge::new(*value).encode(metric.encode_family(labels)?)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// From a quarter of a millisecond to a minute and more: a local write and a slow target in one scale.
pub(crate) fn latency() -> Histogram {
    Histogram::new([
        0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
        10.0, 30.0, 60.0,
    ])
}

#[expect(
    clippy::cast_precision_loss,
    reason = "above 2^53 the last digits of a figure do not matter"
)]
fn as_f64(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::Timestamp, tasks::Panics};

    #[derive(Debug)]
    struct Everything;

    #[async_trait]
    impl Source for Everything {
        async fn sample(&self, samples: &mut Samples) {
            for name in [
                JOURNAL_BYTES,
                BACKLOG_RECORDS,
                BACKLOG_SECONDS,
                OPEN_RECORDS,
                OLDEST_PENDING_SECONDS,
                TARGET_CLOSED,
                IN_FLIGHT,
                QUEUED,
                LOG_RUNNING,
                UNREADABLE_PARTITIONS,
                STATE_BYTES,
                STATE_SHARE_BYTES,
                LOOKUPS_WAITING,
            ] {
                samples.set_count(name, &[("stream", "s")], 7);
            }
        }
    }

    #[tokio::test]
    async fn every_name_of_the_list_is_shown_and_no_other() {
        let metrics = Metrics::new(&Clock::manual(Timestamp(5_000_000)));
        let label = |name: &'static str| [(name, "x".to_owned())];
        metrics.accepted.inc();
        metrics.refused.get_or_create(&label("code")).inc();
        metrics.closes.get_or_create(&label("code")).inc();
        let attempts = Family::<Label, Counter>::default();
        attempts.get_or_create(&label("outcome")).inc();
        metrics.adopt(ATTEMPTS, attempts);
        metrics.adopt(DISPATCH_READ_RECORDS, Counter::<u64>::default());
        metrics.adopt(LOOKUPS, Counter::<u64>::default());
        metrics.adopt(PUSH_GAPS, Counter::<u64>::default());
        metrics.adopt(SECRETS_GONE, Counter::<u64>::default());
        metrics.adopt(LOST_ENDS, Counter::<u64>::default());
        metrics.adopt(PANICS, Panics::default().counters().clone());
        metrics.adopt(LOG_LINES_DROPPED, Counter::<u64>::default());
        for name in [APPEND_SECONDS, FSYNC_SECONDS, ATTEMPT_SECONDS] {
            let histogram = latency();
            histogram.observe(0.001);
            metrics.adopt(name, histogram);
        }
        metrics
            .request_seconds
            .get_or_create(&label("route"))
            .observe(0.1);
        let text = metrics.render(&[Arc::new(Everything)]).await;
        let mut shown: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
            .collect();
        let mut listed: Vec<_> = LIST.iter().map(|listed| listed.name).collect();
        shown.sort_unstable();
        listed.sort_unstable();
        assert_eq!(shown, listed, "{text}");
        assert!(listed.iter().all(|name| name.starts_with("syncgate_")));
        for line in [
            "syncgate_accepted_messages_total 1",
            "syncgate_panics_total{part=\"websocket\"} 0",
            "syncgate_refused_requests_total{code=\"x\"} 1",
            "syncgate_backlog_records{stream=\"s\"} 7.0",
            "syncgate_journal_bytes_total{stream=\"s\"} 7.0",
            "syncgate_process_start_time_seconds 5.0",
            "syncgate_append_seconds_bucket{le=\"0.001\"} 1",
        ] {
            assert!(
                text.lines().any(|shown| shown == line),
                "{line} is not in\n{text}"
            );
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn the_readme_names_every_metric_and_no_other() {
        let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
        let readme = std::fs::read_to_string(readme).unwrap();
        let rows = readme
            .lines()
            .filter(|line| line.starts_with("| `syncgate_"));
        let mut named: Vec<_> = rows
            .flat_map(|row| row.split('`').filter(|part| part.starts_with("syncgate_")))
            .map(|name| name.split('{').next().unwrap_or_default())
            .map(|name| name.trim_end_matches("_total").trim_end_matches("_info"))
            .collect();
        let mut listed: Vec<_> = LIST.iter().map(|listed| listed.name).collect();
        named.sort_unstable();
        listed.sort_unstable();
        assert_eq!(named, listed);
    }
}
