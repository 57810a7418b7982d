//! The owner of a partition: reads it once, from the first record without an end on, and puts each record on the board of
//! its target.
//!
//! When the board of one target is full the owner waits, and with it all that is behind in its partition. What is not on
//! a board yet is in the log only.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tokio_util::task::TaskTracker;

use super::{
    Shared, call,
    job::{Errand, Job, Owned, Tried},
};
use crate::{
    place::{Offset, PartitionId},
    record::StoredRecord,
    storage::{Finished, ReadError, Stream},
};

/// What is read at a time.
const PAGE_BYTES: usize = 256 * 1024;
/// Ends looked at together when finished records are skipped.
const SKIP_LEN: u64 = 16_384;
/// First wait after a read has failed.
const READ_AGAIN_FIRST: Duration = Duration::from_millis(100);
/// Longest such wait.
const READ_AGAIN_MAX: Duration = Duration::from_secs(30);

/// Dispatches a partition until its lease is gone, its stream is deleted, or the gateway stops.
pub(super) async fn own(
    shared: Arc<Shared>,
    stream: Arc<Stream>,
    owned: Arc<Owned>,
    jobs: TaskTracker,
) {
    let stop = owned.stop.clone();
    let owner = Owner {
        of: owned.lease.of,
        shared,
        stream,
        owned,
        jobs,
    };
    let ended = stop.run_until_cancelled(owner.scan()).await;
    if let Some(Err(error)) = ended {
        tracing::debug!(of = %owner.of, %error, "partition is not dispatched any more");
    }
}

struct Owner {
    shared: Arc<Shared>,
    stream: Arc<Stream>,
    of: PartitionId,
    owned: Arc<Owned>,
    jobs: TaskTracker,
}

impl Owner {
    /// Never returns `Ok`; an error means that the partition is gone.
    async fn scan(&self) -> Result<(), ReadError> {
        let engine = self.shared.streams.engine().clone();
        let mut tail = engine.tail(self.of)?;
        let status = engine.status(self.of)?;
        let mut next = status.low_mark.max(status.bounds.earliest);
        let mut again = READ_AGAIN_FIRST;
        loop {
            // Only what was stored before this start can have an end already in great numbers.
            if next < status.bounds.tail {
                next = self.first_open(next, status.bounds.tail).await?;
            }
            match engine.read(self.of, next, PAGE_BYTES).await {
                Ok(page) if page.records.is_empty() => {
                    let moved = tail.wait_for(|tail| *tail > next).await;
                    moved.map_err(|_closed| ReadError::PartitionUnknown(self.of))?;
                }
                Ok(page) => {
                    let finished = engine.finished(self.of, next..page.next)?;
                    for stored in page.records {
                        self.give(stored, &finished).await;
                    }
                    next = page.next;
                    again = READ_AGAIN_FIRST;
                }
                Err(ReadError::Trimmed { earliest, .. }) => next = next.max(earliest),
                Err(gone @ ReadError::PartitionUnknown(_)) => return Err(gone),
                Err(error @ (ReadError::Damaged(_) | ReadError::Io(_))) => {
                    tracing::error!(of = %self.of, offset = next.0, %error, "cannot read; dispatch of this partition waits");
                    sleep(again).await;
                    again = (again * 2).min(READ_AGAIN_MAX);
                }
            }
        }
    }

    /// Returns the first record without an end.
    async fn first_open(&self, from: Offset, tail: Offset) -> Result<Offset, ReadError> {
        let mut next = from;
        while next < tail {
            let end = next.plus(SKIP_LEN).min(tail);
            let finished = self.shared.streams.engine().finished(self.of, next..end)?;
            let open = (next.0..end.0)
                .map(Offset)
                .find(|at| !finished.contains(*at));
            match open {
                Some(open) => return Ok(open),
                None => next = end,
            }
            tokio::task::yield_now().await;
        }
        Ok(next)
    }

    async fn give(&self, stored: StoredRecord, finished: &Finished) {
        if finished.contains(stored.offset) {
            return;
        }
        let errand = Errand::First {
            owned: self.owned.clone(),
            _count: self.jobs.token(),
        };
        let job = self.shared.job(&self.stream, self.of, &stored, errand);
        self.shared.enqueue(Box::new(job)).await;
    }
}

impl Shared {
    /// Makes a job of a record: copies it out of what was read, and looks where it goes. All else about its message is
    /// the worker's to find out, so that many cores do it, each where it needs it.
    pub(crate) fn job(
        &self,
        stream: &Arc<Stream>,
        of: PartitionId,
        stored: &StoredRecord,
        errand: Errand,
    ) -> Job {
        let record = stored.record.detached();
        Job {
            stream: stream.clone(),
            of,
            offset: stored.offset,
            time: stored.time,
            origin: call::origin(&record),
            record,
            tried: Tried::default(),
            errand,
        }
    }
}
