//! Metrics of data streams' readers, sampled at each scrape.

use async_trait::async_trait;

use crate::{
    push::Push,
    telemetry::{Samples, Source, metrics},
};

/// Cursors with a series of their own: the first ones by name of data stream and cursor.
const CURSORS_LEN_MAX: usize = 200;
/// All other cursors of a data stream together.
const OTHER_CURSORS: &str = "other";

/// Samples push.
#[derive(Debug)]
pub(super) struct Readers {
    pub(super) push: Push,
}

#[async_trait]
impl Source for Readers {
    async fn sample(&self, samples: &mut Samples) {
        let mut cursors_len = 0;
        for stream in self.push.readers() {
            let label = [("data_stream", stream.name.as_str())];
            let subscribers = stream.clients_len as u64;
            samples.set_count(metrics::SUBSCRIBERS, &label, subscribers);
            let mut other: Option<u64> = None;
            for cursor in &stream.cursors {
                cursors_len += 1;
                let lag = cursor.records_behind;
                if cursors_len > CURSORS_LEN_MAX {
                    other = other.max(Some(lag));
                    continue;
                }
                let labels = [label[0], ("cursor", cursor.name.as_str())];
                samples.set_count(metrics::CURSOR_LAG_RECORDS, &labels, lag);
            }
            if let Some(lag) = other {
                let labels = [label[0], ("cursor", OTHER_CURSORS)];
                samples.set_count(metrics::CURSOR_LAG_RECORDS, &labels, lag);
            }
        }
    }
}
