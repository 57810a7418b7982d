//! A reader of one partition: reads from a position on, and waits at the tail.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{
    model::ids::{Offset, PartitionId},
    storage::{Engine, Page, ReadError},
};

/// An open reader of one partition: the next offset, in memory only.
#[derive(Debug)]
pub struct LogReader {
    engine: Arc<dyn Engine>,
    of: PartitionId,
    next: Offset,
    tail: watch::Receiver<Offset>,
}

impl LogReader {
    pub(super) fn new(
        engine: Arc<dyn Engine>,
        of: PartitionId,
        next: Offset,
        tail: watch::Receiver<Offset>,
    ) -> Self {
        Self {
            engine,
            of,
            next,
            tail,
        }
    }

    /// Returns the next offset.
    #[must_use]
    pub fn next(&self) -> Offset {
        self.next
    }

    /// Moves to `offset`.
    pub fn seek(&mut self, offset: Offset) {
        self.next = offset;
    }

    /// Returns the next records and moves past them; an empty page at the tail.
    ///
    /// # Errors
    /// As [`crate::storage::Log::read`]; the reader has then not moved.
    pub async fn read(&mut self, bytes_max: usize) -> Result<Page, ReadError> {
        let page = self.engine.read(self.of, self.next, bytes_max).await?;
        self.next = self.next.max(page.next);
        Ok(page)
    }

    /// Waits until there is a record to read.
    ///
    /// # Errors
    /// [`ReadError::PartitionUnknown`] if the stream was deleted meanwhile.
    ///
    /// # Cancel safety
    /// Dropping the call loses nothing.
    pub async fn ready(&mut self) -> Result<(), ReadError> {
        let next = self.next;
        let moved = self.tail.wait_for(|tail| *tail > next).await;
        moved
            .map(drop)
            .map_err(|_closed| ReadError::PartitionUnknown(self.of))
    }
}
