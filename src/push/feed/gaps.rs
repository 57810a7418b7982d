//! Gaps: records that clients go on behind without having had them. Each is logged and counted; none passes in silence.

use prometheus_client::metrics::counter::Counter;

use crate::model::ids::Partition;

use crate::push::resource::ResourceName;

/// Partition, first offset that is missing, first one that is not.
pub(in crate::push) type Missing = [(Partition, u64, u64)];

/// Tells of gaps. Clones count together.
#[derive(Clone, Debug, Default)]
pub(in crate::push) struct Gaps(Counter);

impl Gaps {
    /// Returns how many there were.
    pub(in crate::push) fn counter(&self) -> &Counter {
        &self.0
    }

    /// Takes note of one; a log that was made anew has nothing of which it could say that it is missing.
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
            "clients go on behind a gap, as qualityOfService atMostOnce says"
        );
    }
}
