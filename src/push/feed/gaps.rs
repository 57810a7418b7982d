//! Gaps: records that were removed before a client had them. Each gap that a client accepts is logged and counted.

use prometheus_client::metrics::counter::Counter;

use crate::model::ids::Partition;

use crate::push::resource::ResourceName;

/// Partition, first missing offset, first offset that is there again.
pub(in crate::push) type Missing = [(Partition, u64, u64)];

/// Logs and counts gaps. Clones share the count.
#[derive(Clone, Debug, Default)]
pub(in crate::push) struct Gaps(Counter);

impl Gaps {
    /// Returns the counter.
    pub(in crate::push) fn counter(&self) -> &Counter {
        &self.0
    }

    /// Logs and counts one gap. `missing` is empty if the log was made anew, because its missing records are unknown.
    pub(in crate::push) fn note(&self, data_stream: &ResourceName, missing: &Missing) {
        self.0.inc();
        let records: u64 = missing.iter().map(|(_, from, to)| to - from).sum();
        let places: Vec<_> = missing
            .iter()
            .take(8)
            .map(|(partition, from, to)| format!("{partition}:{from}..{to}"))
            .collect();
        let places = places.join(" ");
        tracing::warn!(
            %data_stream,
            records,
            places,
            "records are missing; clients continue after the gap, because qualityOfService is atMostOnce"
        );
    }
}
