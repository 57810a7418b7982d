//! The open records of a partition: those without an end. What has ended is passed over without being read.

use tokio::task::yield_now;

use crate::{
    place::{Offset, PartitionId},
    record::StoredRecord,
    storage::{Engine, ReadError},
};

/// A page ends early rather than hold more than this; `next` says where to go on.
const PAGE_BYTES_MAX: usize = 4 << 20;
/// Asked of the log at a time.
const READ_BYTES: usize = 1 << 20;
/// Ends looked up together.
const ENDS_LEN: u64 = 16_384;
/// Offsets looked at for one page, about 0.1 s of work. A page over more ends early; `next` says where to go on.
const LOOKED_AT_MAX: u64 = 1 << 22;

/// Returns open records from an offset on, and where to go on.
///
/// # Errors
/// As [`crate::storage::Log::read`]: an offset below the earliest one is [`ReadError::Trimmed`].
pub(super) async fn read(
    engine: &dyn Engine,
    of: PartitionId,
    from: Offset,
    limit: usize,
) -> Result<(Vec<StoredRecord>, Offset), ReadError> {
    let status = engine.status(of)?;
    let (earliest, tail) = (status.bounds.earliest, status.bounds.tail);
    if from < earliest {
        return Err(ReadError::Trimmed {
            wanted: from,
            earliest,
        });
    }
    let mut page = Page {
        next: from.max(status.low_mark.min(tail)),
        limit,
        records: Vec::new(),
        bytes: 0,
    };
    let until = tail.min(page.next.plus(LOOKED_AT_MAX));
    while page.next < until && !page.is_full() {
        let end = page.next.plus(ENDS_LEN).min(until);
        page.read_to(engine, of, end).await?;
        yield_now().await;
    }
    Ok((page.records, page.next))
}

struct Page {
    records: Vec<StoredRecord>,
    bytes: usize,
    limit: usize,
    next: Offset,
}

impl Page {
    fn is_full(&self) -> bool {
        self.records.len() >= self.limit || self.bytes >= PAGE_BYTES_MAX
    }

    async fn read_to(
        &mut self,
        engine: &dyn Engine,
        of: PartitionId,
        end: Offset,
    ) -> Result<(), ReadError> {
        let finished = engine.finished(of, self.next..end)?;
        while self.next < end && !self.is_full() {
            let at = self.next;
            if finished.contains(at) {
                self.next = at.next();
                continue;
            }
            // A record that stands alone among others is read alone.
            let alone = at.next() >= end || finished.contains(at.next());
            let bytes = if alone { 1 } else { READ_BYTES };
            let found = match engine.read(of, at, bytes).await {
                Ok(found) => found,
                // Retention was here just now.
                Err(ReadError::Trimmed { earliest, .. }) if earliest > at => {
                    self.next = earliest;
                    continue;
                }
                Err(error) => return Err(error),
            };
            // Nothing but lost records may be left before the tail.
            self.next = found.next.max(at.next());
            for record in found.records {
                if record.offset >= end || self.is_full() {
                    self.next = record.offset.min(end);
                    break;
                }
                self.next = record.offset.next();
                if !finished.contains(record.offset) {
                    self.bytes += record.record.bytes_len();
                    // A slice keeps its frame alive, and this page may be small beside that.
                    self.records.push(StoredRecord {
                        record: record.record.detached(),
                        ..record
                    });
                }
            }
        }
        Ok(())
    }
}
