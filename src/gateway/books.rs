//! What `/metrics` shows of the log: backlogs, open records, whether it runs. Asked for at each scrape.

use std::time::Duration;

use async_trait::async_trait;

use crate::{
    clock::{Clock, Timestamp},
    log::Streams,
    place::StreamName,
    storage::{Health, Stream, shares::SHARES},
    telemetry::{Samples, Source, metrics},
};

/// The log's figures.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) streams: Streams,
    /// The stream that is dispatched; the records of all others wait for a redrive.
    pub(super) source: StreamName,
    pub(super) clock: Clock,
}

#[async_trait]
impl Source for Books {
    async fn sample(&self, samples: &mut Samples) {
        for stream in self.streams.engine().streams() {
            let label = [("stream", stream.name.as_str())];
            let open = self.open_len(&stream);
            if stream.name == self.source {
                let age = self.oldest_open(&stream).await;
                samples.set_count(metrics::BACKLOG_RECORDS, &label, open);
                samples.set(metrics::BACKLOG_SECONDS, &label, age.as_secs_f64());
            } else {
                samples.set_count(metrics::OPEN_RECORDS, &label, open);
            }
        }
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
    fn open_len(&self, stream: &Stream) -> u64 {
        let statuses = stream
            .all_partitions()
            .map(|of| self.streams.engine().status(of));
        statuses
            .flatten()
            .map(|status| status.counts.open_len())
            .sum()
    }

    /// Returns the age of the oldest record without an end: it lies at the low mark of its partition.
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
