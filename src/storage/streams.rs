//! Streams, the events of their life, and leases on their partitions.

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::{
    model::ids::{Incarnation, Offset, Partition, PartitionId, StreamId, StreamName},
    runtime::clock::Timestamp,
};

use super::commit::PurgeNote;

/// Number of events from which a purge replaces the event of the last purge and adds none. The bound exists because every
/// change of the stream writes all events.
///
/// Readers beyond the replaced event miss the later purge, and nothing else. Growth adds events beyond the bound (255 at
/// most), and so does a purge directly after a growth.
pub const EVENTS_MAX: usize = if cfg!(test) { 128 } else { 65_536 };

/// A stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Its identity.
    pub id: StreamId,
    /// Changes when the same offsets come to mean other records.
    pub incarnation: Incarnation,
    /// Its name.
    pub name: StreamName,
    /// How many partitions it has, 1 to 256.
    pub partitions: u16,
    /// The settings that can be changed.
    pub config: StreamConfig,
    /// Grows with every change.
    pub revision: u64,
    /// Its life events in order; they take no offsets. About [`EVENTS_MAX`] at most.
    pub events: Vec<ControlEvent>,
    /// The reason of the last purge.
    pub last_purge: Option<PurgeNote>,
}

impl Stream {
    /// Returns one of its partitions; `None` if it has none of that number.
    #[must_use]
    pub fn partition(&self, partition: Partition) -> Option<PartitionId> {
        (partition.0 < self.partitions).then_some(PartitionId {
            stream: self.id,
            partition,
        })
    }

    /// Returns the event of the last purge.
    #[must_use]
    pub fn purged(&self) -> Option<&ControlEvent> {
        let mut events = self.events.iter().rev();
        events.find(|event| event.kind == ControlEventKind::Purged)
    }

    /// Returns the first offset of a partition that no purge has removed.
    #[must_use]
    pub fn purged_below(&self, partition: Partition) -> Offset {
        let tails = self.purged().map(|event| &event.tails);
        let tail = tails.and_then(|tails| tails.get(usize::from(partition.0)));
        tail.copied().unwrap_or_default()
    }

    /// Returns this stream as it is after a purge at that time with these tails.
    pub(crate) fn after_purge(&self, time: Timestamp, tails: Vec<Offset>, note: PurgeNote) -> Self {
        let mut stream = self.clone();
        // Readers use only the last purge, and the tails of all purges could be large.
        let purges = stream.events.iter_mut();
        let purges = purges.filter(|event| event.kind == ControlEventKind::Purged);
        purges.for_each(|event| event.tails = Vec::new());
        let last = stream.events.last();
        if stream.events.len() >= EVENTS_MAX
            && last.is_some_and(|last| last.kind == ControlEventKind::Purged)
        {
            stream.events.pop();
        }
        stream.events.push(ControlEvent {
            kind: ControlEventKind::Purged,
            time,
            tails,
        });
        stream.last_purge = Some(note);
        stream
    }

    /// Returns whether `text` is its name or its `ocid`.
    #[must_use]
    pub fn is_called(&self, text: &str) -> bool {
        self.name.as_str() == text || self.config.ocid.as_deref() == Some(text)
    }

    /// Returns all its partitions.
    pub fn all_partitions(&self) -> impl Iterator<Item = PartitionId> + use<> {
        let stream = self.id;
        (0..self.partitions).map(move |partition| PartitionId {
            stream,
            partition: Partition(partition),
        })
    }
}

/// The settings of a stream. Stored as JSON in the journal, so members are only ever added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamConfig {
    /// The maker, which decides which callers may change it.
    pub made_by: MadeBy,
    /// How long records are kept; `None` = the default of the stream's kind.
    pub retention_hours: Option<u32>,
    /// How many bytes of records are kept; `None` = no bound by size.
    pub retention_bytes: Option<u64>,
    /// A second name, which a retry may use.
    pub ocid: Option<String>,
}

/// The maker of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MadeBy {
    /// The first start.
    #[default]
    Start,
    /// An entry of `[[streams]]`.
    Config,
    /// A call of the API.
    Api,
}

/// An event in the life of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlEvent {
    /// The kind of event.
    pub kind: ControlEventKind,
    /// Time of the event.
    pub time: Timestamp,
    /// The tail of each partition at that time; empty for a purge before the last one.
    pub tails: Vec<Offset>,
}

/// Kinds of [`ControlEvent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlEventKind {
    /// The stream was made.
    Created {
        /// Number of partitions.
        partitions: u16,
    },
    /// The stream has more partitions.
    Grown {
        /// Number of partitions.
        partitions: u16,
    },
    /// All records up to the tails were removed.
    Purged,
}

impl ControlEventKind {
    /// Returns the new number of partitions, if the event changes it.
    #[must_use]
    pub fn partitions(self) -> Option<u16> {
        match self {
            Self::Created { partitions } | Self::Grown { partitions } => Some(partitions),
            Self::Purged => None,
        }
    }
}

/// Number of a lease on one partition; a later holder has a greater one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub u64);

/// The right to settle records of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The partition.
    pub of: PartitionId,
    /// The holder puts it into every [`Settle`](super::Settle).
    pub epoch: Epoch,
}

/// A change of a lease.
#[derive(Debug)]
pub enum LeaseEvent {
    /// This process holds the lease now.
    Granted(Lease),
    /// The lease will move to another process. The dispatcher lets running attempts end and then answers.
    Revoking(PartitionId, oneshot::Sender<()>),
    /// This process has lost the lease.
    Lost(PartitionId),
}
