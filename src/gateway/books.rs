//! Metrics of the log, sampled at each scrape: backlogs, open records, whether it runs.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::timeout;

use crate::{
    log::Streams,
    model::ids::StreamName,
    runtime::clock::{Clock, Timestamp},
    secrets::Secrets,
    storage::{Counts, Health, Stream, shares::SHARES},
    telemetry::{Samples, Source, metrics},
};

/// How long a scrape waits for the free space, because a disk that hangs must not block the other metrics.
const DISK_WAIT: Duration = Duration::from_secs(2);

/// Samples the log.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) streams: Streams,
    /// The dispatched stream; the records of all others wait for a retry.
    pub(super) source: StreamName,
    pub(super) clock: Clock,
    pub(super) secrets: Secrets,
}

#[async_trait]
impl Source for Books {
    async fn sample(&self, samples: &mut Samples) {
        for stream in self.streams.engine().streams() {
            let label = [("stream", stream.name.as_str())];
            let counts = self.counts(&stream);
            let open = counts.open_len();
            let ends = [
                ("delivered", counts.delivered),
                ("filtered", counts.filtered),
                ("moved", counts.routed + counts.moved),
                ("discarded", counts.discarded),
                ("expired", counts.expired),
                ("lost", counts.lost),
            ];
            for (end, len) in ends {
                let labels = [label[0], ("end", end)];
                samples.set_count(metrics::SETTLED_RECORDS, &labels, len);
            }
            if stream.name == self.source {
                let age = self.oldest_open(&stream).await;
                samples.set_count(metrics::BACKLOG_RECORDS, &label, open);
                samples.set(metrics::BACKLOG_SECONDS, &label, age.as_secs_f64());
            } else {
                samples.set_count(metrics::OPEN_RECORDS, &label, open);
            }
        }
        match timeout(DISK_WAIT, self.streams.engine().space()).await {
            Ok(Ok(space)) => samples.set_count(metrics::DISK_FREE_BYTES, &[], space.free_bytes),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the free space of the disk could not be read")
            }
            Err(_) => tracing::warn!("the free space of the disk could not be read in time"),
        }
        let tokens = self.secrets.tokens_len().await as u64;
        samples.set_count(metrics::SECRETS_KEPT, &[], tokens);
        let running = *self.streams.engine().health().borrow() == Health::Running;
        samples.set_count(metrics::LOG_RUNNING, &[], running.into());
        let shares = SHARES.iter().zip(self.streams.engine().share_bytes());
        for (share, bytes) in shares {
            let label = [("kind", share.kind)];
            samples.set_count(metrics::STATE_BYTES, &label, bytes as u64);
            samples.set_count(metrics::STATE_SHARE_BYTES, &label, share.bytes_max as u64);
        }
    }
}

impl Books {
    fn counts(&self, stream: &Stream) -> Counts {
        let mut counts = Counts::default();
        let partitions = stream.all_partitions();
        let statuses = partitions.map(|of| self.streams.engine().status(of));
        for status in statuses.flatten() {
            counts.add(&status.counts);
        }
        counts
    }

    /// Returns the age of the oldest open record, which is at the low watermark of its partition.
    async fn oldest_open(&self, stream: &Stream) -> Duration {
        let engine = self.streams.engine();
        let mut oldest: Option<Timestamp> = None;
        for of in stream.all_partitions() {
            let Ok(status) = engine.status(of) else {
                continue;
            };
            if status.low_mark >= status.bounds.tail {
                continue;
            }
            if let Ok(page) = engine.read(of, status.low_mark, 1).await
                && let Some(record) = page.records.first()
            {
                oldest = Some(oldest.map_or(record.time, |oldest| oldest.min(record.time)));
            }
        }
        oldest.map_or(Duration::ZERO, |oldest| self.clock.now().since(oldest))
    }
}
