//! Metrics: the one list of their names, handles to count with, and the text of `/metrics`.
//!
//! Frequent events are counted where they happen, through a handle of [`Metrics`]. A state (a backlog, a queue) is
//! sampled at each scrape through a [`Source`], so it costs nothing in between.

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

#[cfg(test)]
mod docs;
mod names;
mod prometheus;

use self::names::{
    ACCEPTED, BUILD, CPU_SECONDS, FAILED_LOGINS, FILES_MAX, LIST, Listed, OPEN_FILES, PUSH_CLOSES,
    REFUSED, REPEATED, REQUEST_SECONDS, RESIDENT_BYTES, START_TIME_SECONDS, THREADS, VIRTUAL_BYTES,
};
pub use self::{
    names::{
        APPEND_SECONDS, ATTEMPT_SECONDS, ATTEMPTS, BACKLOG_RECORDS, BACKLOG_SECONDS,
        CURSOR_LAG_RECORDS, DISK_FREE_BYTES, DISPATCH_READ_RECORDS, FSYNC_SECONDS, IN_FLIGHT,
        JOURNAL_BYTES, LOG_LINES_DROPPED, LOG_RUNNING, LOOKUPS, LOOKUPS_WAITING, LOST_ENDS,
        OLDEST_PENDING_SECONDS, OPEN_RECORDS, PANICS, PUSH_GAPS, QUEUED, RELOAD_SUCCESSFUL,
        RELOAD_TIME_SECONDS, SECRETS_GONE, SECRETS_KEPT, SETTLED_RECORDS, STATE_BYTES,
        STATE_SHARE_BYTES, SUBSCRIBERS, TARGET_ATTEMPTS, TARGET_CLOSED, TARGET_FAILURES,
        UNREADABLE_PARTITIONS,
    },
    prometheus::text as prometheus_text,
};
use super::process;
use crate::runtime::{clock::Clock, latency};

/// One label.
pub type Label = [(&'static str, String); 1];

/// Sets the counter of each value of a label to zero, because an alert cannot see a series that does not exist yet.
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
    /// Requests of `POST /stream/sync` that got the answer of an earlier request with their idempotency key.
    pub repeated: Counter,
    /// Refused requests of `POST /stream/sync`, by problem `code`.
    pub refused: Family<Label, Counter>,
    /// Clients of data streams that the gateway closed, by `code`.
    pub closes: Family<Label, Counter>,
    /// Requests with wrong credentials.
    pub failed_logins: Counter,
    /// Time of a request, by `route`.
    pub request_seconds: Family<Label, Histogram, fn() -> Histogram>,
    /// Locked to add a metric and to write the text; counting needs no lock.
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
            request_seconds: Family::new_with_constructor(latency::histogram as fn() -> Histogram),
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

    /// Registers a metric that another part owns. `name` is one of the names of this module.
    pub fn adopt(&self, name: &'static str, metric: impl Metric) {
        let listed = LIST.iter().find(|listed| listed.name == name);
        debug_assert!(listed.is_some(), "{name} is not in the list of metrics");
        let help = listed.map_or("", |listed| listed.help);
        self.registry().register(name, help, metric);
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        // No step leaves a registry half changed, so a poisoned lock is harmless.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the OpenMetrics text of the counters and of the sources' samples.
    pub async fn render(&self, sources: &[Arc<dyn Source>]) -> String {
        let mut samples = Samples::default();
        samples.set(START_TIME_SECONDS, &[], self.started_seconds);
        let figures = [
            (CPU_SECONDS, process::cpu_seconds()),
            (RESIDENT_BYTES, process::resident_bytes().map(as_f64)),
            (VIRTUAL_BYTES, process::virtual_bytes().map(as_f64)),
            (OPEN_FILES, process::open_files_len().map(as_f64)),
            (FILES_MAX, process::files_max().map(as_f64)),
            (THREADS, process::threads_len().map(as_f64)),
        ];
        for (name, figure) in figures {
            // This system has no such file.
            if let Some(figure) = figure {
                samples.set(name, &[], figure);
            }
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

/// A part that gives samples at each scrape.
#[async_trait]
pub trait Source: fmt::Debug + Send + Sync + 'static {
    /// Adds its samples, within milliseconds, because the scrape waits.
    async fn sample(&self, samples: &mut Samples);
}

/// The samples of one scrape.
#[derive(Debug, Default)]
pub struct Samples(BTreeMap<&'static str, Vec<Figure>>);

type Figure = (Vec<(&'static str, String)>, f64);

impl Samples {
    /// Adds one sample. `name` is one of the names of this module; others are left out of the text.
    pub fn set(&mut self, name: &'static str, labels: &[(&'static str, &str)], value: f64) {
        let labels = labels
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        self.0.entry(name).or_default().push((labels, value));
    }

    /// Adds a whole number.
    pub fn set_count(&mut self, name: &'static str, labels: &[(&'static str, &str)], value: u64) {
        self.set(name, labels, as_f64(value));
    }
}

impl Collector for Samples {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Listed {
            name, kind, help, ..
        } in LIST
        {
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
    use crate::runtime::{clock::Timestamp, tasks::Panics};

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
                SETTLED_RECORDS,
                DISK_FREE_BYTES,
                SUBSCRIBERS,
                CURSOR_LAG_RECORDS,
                SECRETS_KEPT,
                RELOAD_SUCCESSFUL,
                RELOAD_TIME_SECONDS,
                TARGET_ATTEMPTS,
                TARGET_FAILURES,
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
            let histogram = latency::histogram();
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
        let ours = |name: &&str| name.starts_with("syncgate_") || name.starts_with("process_");
        assert!(listed.iter().all(ours));
        for line in [
            "syncgate_accepted_messages_total 1",
            "syncgate_panics_total{part=\"websocket\"} 0",
            "syncgate_refused_requests_total{code=\"x\"} 1",
            "syncgate_backlog_records{stream=\"s\"} 7.0",
            "syncgate_journal_bytes_total{stream=\"s\"} 7.0",
            "process_start_time_seconds 5.0",
            "syncgate_append_seconds_bucket{le=\"0.001\"} 1",
        ] {
            assert!(
                text.lines().any(|shown| shown == line),
                "{line} is not in\n{text}"
            );
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
