//! Streams of records: the only door to records for everything above the engine.
//!
//! Finds streams by name or id, chooses the partition of a key (`partitioner`), and opens readers (`reader`). Callers:
//! ingest, dispatch, retry, push and the API.

mod partitioner;
mod reader;

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

pub use reader::LogReader;

use crate::{
    model::ids::{MessageId, Offset, Partition, PartitionId, Position, StreamName},
    storage::{Engine, ReadError, Stream},
};

/// Handle to all streams. Clones share everything.
#[derive(Clone, Debug)]
pub struct Streams {
    engine: Arc<dyn Engine>,
    /// Counter for records without a key. One counter for all streams spreads them evenly enough.
    turn: Arc<AtomicU32>,
}

impl Streams {
    /// Makes a handle on an engine.
    #[must_use]
    pub fn new(engine: Arc<dyn Engine>) -> Self {
        Self {
            engine,
            turn: Arc::default(),
        }
    }

    /// Returns the engine, for commits and state.
    #[must_use]
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// Returns the stream of that name.
    #[must_use]
    pub fn by_name(&self, name: &StreamName) -> Option<Arc<Stream>> {
        self.engine.stream(name)
    }

    /// Returns the stream of that name or `ocid`.
    #[must_use]
    pub fn resolve(&self, text: &str) -> Option<Arc<Stream>> {
        let named = text.parse().ok().and_then(|name| self.engine.stream(&name));
        named.or_else(|| {
            self.engine
                .streams()
                .into_iter()
                .find(|stream| stream.config.ocid.as_deref() == Some(text))
        })
    }

    /// Returns the partition for a record: by its key as Kafka's default partitioner does, or round-robin without a key.
    #[must_use]
    pub fn partition_for(&self, stream: &Stream, key: &[u8]) -> PartitionId {
        let partition = match (stream.partitions, key) {
            (0 | 1, _) => 0,
            (partitions, []) => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                u16::try_from(turn % u32::from(partitions)).unwrap_or_default()
            }
            (partitions, key) => Self::partition_of(key, partitions).0,
        };
        PartitionId {
            stream: stream.id,
            partition: Partition(partition),
        }
    }

    /// Returns the partition of a key among `partitions`.
    #[must_use]
    pub fn partition_of(key: &[u8], partitions: u16) -> Partition {
        Partition(partitioner::partition(key, partitions))
    }

    /// Returns the id of the message at a place of its own stream.
    #[must_use]
    pub fn message_id(stream: &Stream, partition: Partition, offset: Offset) -> MessageId {
        MessageId {
            of: PartitionId {
                stream: stream.id,
                partition,
            },
            incarnation: stream.incarnation,
            offset,
        }
    }

    /// Opens a reader.
    ///
    /// # Errors
    /// [`ReadError::PartitionUnknown`], and [`ReadError::Trimmed`] for an offset below the earliest.
    pub fn cursor(&self, of: PartitionId, position: Position) -> Result<LogReader, ReadError> {
        let bounds = self.engine.status(of)?.bounds;
        let next = match position {
            Position::Earliest => bounds.earliest,
            Position::Tail => bounds.tail,
            Position::At(offset) => offset,
            Position::After(offset) => offset.next(),
        };
        if next < bounds.earliest {
            return Err(ReadError::Trimmed {
                wanted: next,
                earliest: bounds.earliest,
            });
        }
        Ok(LogReader::new(
            self.engine.clone(),
            of,
            next,
            self.engine.tail(of)?,
        ))
    }
}
