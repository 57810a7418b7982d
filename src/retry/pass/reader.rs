//! Reads a partition for a pass: its records, and which of them are settled.

use std::collections::VecDeque;

use crate::retry::Error;
use crate::{
    dispatch::DispatchContext,
    model::{
        ids::{Offset, PartitionId},
        record::StoredRecord,
    },
    storage::{ReadError, SettledOffsets},
};

/// Size of a page.
const PAGE_BYTES: usize = 256 * 1024;
/// Offsets whose settlements are looked up together.
const ENDS_LEN: u64 = 16_384;

/// The result of a read at an offset.
#[derive(Debug)]
pub(in crate::retry) enum Read {
    Record(StoredRecord),
    /// The records up to this offset were lost.
    Lost(Offset),
}

/// The reader of a partition.
pub(in crate::retry) struct PassReader {
    pub(in crate::retry) of: PartitionId,
    /// The reader ends before this offset.
    pub(in crate::retry) tail: Offset,
    page: VecDeque<StoredRecord>,
    settled: SettledOffsets,
    settled_to: Offset,
}

impl PassReader {
    pub(in crate::retry) fn new(of: PartitionId, start: Offset, tail: Offset) -> Self {
        Self {
            of,
            tail,
            page: VecDeque::new(),
            settled: SettledOffsets::default(),
            settled_to: start,
        }
    }

    /// Returns whether the settlements from `at` on have to be looked up first.
    pub(in crate::retry) fn wants_ends(&self, at: Offset) -> bool {
        at >= self.settled_to
    }

    /// Looks up which of the next records are settled.
    pub(in crate::retry) fn look_up_ends(
        &mut self,
        shared: &DispatchContext,
        at: Offset,
    ) -> Result<(), Error> {
        self.settled_to = at.plus(ENDS_LEN).min(self.tail);
        let ends = at..self.settled_to;
        self.settled = shared
            .streams
            .engine()
            .settled_offsets(self.of, ends)
            .map_err(unread)?;
        Ok(())
    }

    /// Returns whether a record is settled, among the offsets looked up.
    pub(in crate::retry) fn has_ended(&self, at: Offset) -> bool {
        self.settled.contains(at)
    }

    /// Returns the record at an offset; earlier ones cannot be read afterwards.
    pub(in crate::retry) async fn read(
        &mut self,
        shared: &DispatchContext,
        at: Offset,
    ) -> Result<Read, ReadError> {
        while self.page.front().is_some_and(|stored| stored.offset < at) {
            self.page.pop_front();
        }
        if self.page.is_empty() {
            let page = shared
                .streams
                .engine()
                .read(self.of, at, PAGE_BYTES)
                .await?;
            self.page = page.records.into();
            if self.page.is_empty() && page.next > at {
                return Ok(Read::Lost(page.next));
            }
        }
        // Below the tail there is a record, unless the stream is gone.
        let Some(record) = self.page.pop_front() else {
            return Err(ReadError::PartitionUnknown(self.of));
        };
        if record.offset > at {
            let lost = Read::Lost(record.offset);
            self.page.push_front(record);
            return Ok(lost);
        }
        Ok(Read::Record(record))
    }
}

/// What it means for the pass that something cannot be read.
pub(in crate::retry) fn unread(error: ReadError) -> Error {
    match error {
        ReadError::PartitionUnknown(of) => Error::PartitionUnknown(of),
        other => Error::Read(other),
    }
}
