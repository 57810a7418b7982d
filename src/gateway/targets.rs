//! Metrics of targets, sampled at each scrape.

use async_trait::async_trait;

use crate::{
    dispatch::Dispatcher,
    runtime::clock::Clock,
    telemetry::{Samples, Source, metrics},
};

/// Samples the dispatcher.
#[derive(Debug)]
pub(super) struct Targets {
    pub(super) dispatcher: Dispatcher,
    pub(super) clock: Clock,
}

#[async_trait]
impl Source for Targets {
    async fn sample(&self, samples: &mut Samples) {
        let now = self.clock.now();
        for target in self.dispatcher.targets() {
            let label = [("target", target.target.as_str())];
            let age = target
                .oldest
                .map(|oldest| now.since(oldest))
                .unwrap_or_default();
            samples.set_count(metrics::IN_FLIGHT, &label, target.in_flight as u64);
            let closed = u64::from(target.is_closed);
            samples.set_count(metrics::TARGET_CLOSED, &label, closed);
            samples.set_count(metrics::QUEUED, &label, target.queued_len as u64);
            samples.set(metrics::OLDEST_PENDING_SECONDS, &label, age.as_secs_f64());
        }
    }
}
