//! Streams, the events of their life, and leases on their partitions.

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::{
    model::ids::{Incarnation, Offset, Partition, PartitionId, StreamId, StreamName},
    runtime::clock::Timestamp,
};

use super::commit::PurgeNote;

/// Events of a stream from which on a purge moves the last purge's event in place of adding one. Every change of the stream
/// writes all of them. Those who read the stream and are past that event hear of no further purge; nothing else is lost.
/// Growth adds events beyond the bound, as there are 255 of them at most, and a purge behind one of these adds one too.
pub const EVENTS_MAX: usize = if cfg!(test) { 128 } else { 65_536 };

/// A stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Its identity.
    pub id: StreamId,
    /// Its life.
    pub incarnation: Incarnation,
    /// Its name.
    pub name: StreamName,
    /// How many partitions it has, 1 to 256.
    pub partitions: u16,
    /// What can be changed about it.
    pub config: StreamConfig,
    /// Grows with every change.
    pub revision: u64,
    /// What happened to it as a whole, in order; takes no offset (`push-decisions.md` §2). About [`EVENTS_MAX`] at most.
    pub events: Vec<ControlEvent>,
    /// Why it was purged, the last time.
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

    /// Returns the last event by which it was purged.
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

    /// Returns this stream as it is once it was purged at that time, with these tails.
    pub(crate) fn after_purge(&self, time: Timestamp, tails: Vec<Offset>, note: PurgeNote) -> Self {
        let mut stream = self.clone();
        // Nobody asks for those of earlier purges, and these may be many.
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

    /// Returns whether this is its name or its `ocid`.
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

/// What can be changed about a stream. Stored as JSON in the journal, so members are only ever added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamConfig {
    /// Who made it, and so who may change it.
    pub made_by: MadeBy,
    /// How long records are kept; `None` = the default of the stream's kind.
    pub retention_hours: Option<u32>,
    /// How many bytes of records are kept; `None` = no bound by size.
    pub retention_bytes: Option<u64>,
    /// Another name under which it can be named in a retry.
    pub ocid: Option<String>,
}

/// Who made a stream.
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

/// Something that happened to a stream as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlEvent {
    /// What.
    pub kind: ControlEventKind,
    /// When.
    pub time: Timestamp,
    /// The tail of each partition at that moment. A purge that a later one has followed has none any more.
    pub tails: Vec<Offset>,
}

/// Kinds of [`ControlEvent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlEventKind {
    /// The stream was made with that many partitions.
    Created {
        /// How many.
        partitions: u16,
    },
    /// It has that many partitions now.
    Grown {
        /// How many.
        partitions: u16,
    },
    /// All its records were removed, up to the tails.
    Purged,
}

impl ControlEventKind {
    /// Returns how many partitions the stream has from then on, if that is what it says.
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
    /// Goes into every [`Settle`](super::Settle).
    pub epoch: Epoch,
}

/// What becomes of leases.
#[derive(Debug)]
pub enum LeaseEvent {
    /// The partition is ours.
    Granted(Lease),
    /// It will go elsewhere: let attempts end, then say so.
    Revoking(PartitionId, oneshot::Sender<()>),
    /// It is gone.
    Lost(PartitionId),
}
