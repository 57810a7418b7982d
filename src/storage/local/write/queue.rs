//! The queue before the writer: requests with an answer, and settlements without one.
//!
//! A push takes one short lock. It wakes the writer only if the writer sleeps, so that pushes during an `fdatasync` cost no
//! system call.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::{
    model::ids::{Incarnation, Offset, PartitionId, StreamId, StreamName},
    storage::{
        Commit, CommitError, Committed, OpenRecords, PurgeNote, Purged, Settle, Stream,
        StreamConfig, StreamError,
    },
};

use crate::storage::local::lock;

/// Bound of queued settlements. Beyond it the caller has to commit its settlement and wait.
const SETTLES_LEN_MAX: usize = 65_536;

/// Answer to a commit.
pub(in crate::storage) type CommitAnswer = oneshot::Sender<Result<Committed, CommitError>>;
/// Answer to the change of a stream.
pub(in crate::storage) type StreamAnswer<T> = oneshot::Sender<Result<T, StreamError>>;

/// One request to store.
#[derive(Debug)]
pub(in crate::storage) enum Request {
    Commit {
        commit: Commit,
        bytes: usize,
        answer: CommitAnswer,
    },
    Trim {
        of: PartitionId,
        below: Offset,
        answer: oneshot::Sender<Result<(), CommitError>>,
    },
    Create {
        id: StreamId,
        incarnation: Incarnation,
        name: StreamName,
        partitions: u16,
        config: StreamConfig,
        answer: StreamAnswer<Arc<Stream>>,
    },
    Change {
        id: StreamId,
        partitions: u16,
        config: StreamConfig,
        revision: Option<u64>,
        answer: StreamAnswer<Arc<Stream>>,
    },
    Renew {
        id: StreamId,
        incarnation: Incarnation,
        answer: StreamAnswer<Arc<Stream>>,
    },
    Purge {
        id: StreamId,
        open: OpenRecords,
        note: PurgeNote,
        answer: StreamAnswer<Purged>,
    },
    Delete {
        id: StreamId,
        revision: Option<u64>,
        open: OpenRecords,
        answer: StreamAnswer<()>,
    },
}

impl Request {
    pub(in crate::storage) fn bytes(&self) -> usize {
        match self {
            Self::Commit { bytes, .. } => *bytes,
            Self::Trim { .. }
            | Self::Create { .. }
            | Self::Change { .. }
            | Self::Renew { .. }
            | Self::Purge { .. }
            | Self::Delete { .. } => 0,
        }
    }

    /// Answers with an error; nothing was stored.
    pub(in crate::storage) fn refuse(self, error: CommitError) {
        // Ignore send errors: the caller may have gone away.
        let _told = match self {
            Self::Commit { answer, .. } => answer.send(Err(error)).is_ok(),
            Self::Trim { answer, .. } => answer.send(Err(error)).is_ok(),
            Self::Create { answer, .. }
            | Self::Change { answer, .. }
            | Self::Renew { answer, .. } => answer.send(Err(error.into())).is_ok(),
            Self::Purge { answer, .. } => answer.send(Err(error.into())).is_ok(),
            Self::Delete { answer, .. } => answer.send(Err(error.into())).is_ok(),
        };
    }
}

/// Result of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::storage) enum Taken {
    /// Requests or settlements were taken.
    Work,
    /// The time has passed without work.
    Idle,
    /// The queue is closed and empty.
    Closing,
    /// The engine was dropped.
    Dropped,
}

/// The queue.
#[derive(Debug)]
pub(in crate::storage) struct Queue {
    inner: Mutex<Inner>,
    wake: Condvar,
    len_max: usize,
    bytes_max: usize,
    /// Wakes a test that drives the writer step by step.
    #[cfg(test)]
    pub(in crate::storage) pushed: tokio::sync::Notify,
}

#[derive(Debug, Default)]
struct Inner {
    requests: VecDeque<Request>,
    settles: Vec<Settle>,
    /// Requests here and in the writer.
    len: usize,
    bytes: usize,
    sleep: Sleep,
    closing: bool,
    dropped: bool,
    stopped: Option<Arc<str>>,
}

/// Which pushes wake the writer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sleep {
    #[default]
    Awake,
    /// A request. Settlements need no wake-up, because the timer is short.
    Short,
    /// A request or a settlement.
    Long,
}

impl Queue {
    pub(in crate::storage) fn new(len_max: usize, bytes_max: usize) -> Self {
        Self {
            inner: Mutex::default(),
            wake: Condvar::new(),
            len_max,
            bytes_max,
            #[cfg(test)]
            pushed: tokio::sync::Notify::new(),
        }
    }

    /// Queues a request.
    pub(in crate::storage) fn push(&self, request: Request) -> Result<(), CommitError> {
        let bytes = request.bytes();
        let asleep = {
            let mut inner = lock::mutex(&self.inner);
            inner.takes_more()?;
            // One commit may exceed the bound of bytes; the queue takes it when it is empty.
            let full = inner.len >= self.len_max
                || (inner.len > 0 && inner.bytes.saturating_add(bytes) > self.bytes_max);
            if full {
                return Err(CommitError::Busy);
            }
            inner.requests.push_back(request);
            inner.len += 1;
            inner.bytes += bytes;
            std::mem::take(&mut inner.sleep) != Sleep::Awake
        };
        #[cfg(test)]
        self.pushed.notify_one();
        if asleep {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Queues a settlement for the next frame.
    pub(in crate::storage) fn push_settle(&self, settle: Settle) -> Result<(), CommitError> {
        let asleep = {
            let mut inner = lock::mutex(&self.inner);
            inner.takes_more()?;
            if inner.settles.len() >= SETTLES_LEN_MAX {
                return Err(CommitError::Busy);
            }
            inner.settles.push(settle);
            // The first settlement wakes a writer in a long sleep, which then sleeps 5 ms for more of them.
            inner.sleep == Sleep::Long && {
                inner.sleep = Sleep::Awake;
                true
            }
        };
        #[cfg(test)]
        self.pushed.notify_one();
        if asleep {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Waits for work and appends all of it to `requests` and `settles`.
    ///
    /// `settles_wait` is how long settlements wait for a request, `idle` how long to wait for any work.
    pub(in crate::storage) fn take(
        &self,
        requests: &mut VecDeque<Request>,
        settles: &mut Vec<Settle>,
        settles_wait: Duration,
        idle: Option<Duration>,
    ) -> Taken {
        let start = Instant::now();
        let mut settles_end = None;
        let mut inner = lock::mutex(&self.inner);
        loop {
            if inner.dropped {
                return Taken::Dropped;
            }
            let ends = !inner.settles.is_empty() || !settles.is_empty();
            let ends_due = ends && {
                let end = *settles_end.get_or_insert_with(|| Instant::now() + settles_wait);
                inner.closing || Instant::now() >= end
            };
            if !inner.requests.is_empty() || ends_due {
                requests.append(&mut inner.requests);
                let room = SETTLES_LEN_MAX.saturating_sub(settles.len());
                let some = inner.settles.len().min(room);
                settles.extend(inner.settles.drain(..some));
                return Taken::Work;
            }
            if inner.closing {
                return Taken::Closing;
            }
            let end = if ends {
                settles_end
            } else {
                idle.map(|idle| start + idle)
            };
            let now = Instant::now();
            if end.is_some_and(|end| end <= now) {
                return Taken::Idle;
            }
            inner.sleep = if ends { Sleep::Short } else { Sleep::Long };
            inner = match end {
                Some(end) => {
                    let waited = self.wake.wait_timeout(inner, end - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self
                    .wake
                    .wait(inner)
                    .unwrap_or_else(PoisonError::into_inner),
            };
            inner.sleep = Sleep::Awake;
        }
    }

    /// Subtracts stored requests from the bounds.
    pub(in crate::storage) fn release(&self, len: usize, bytes: usize) {
        let mut inner = lock::mutex(&self.inner);
        inner.len -= len;
        inner.bytes -= bytes;
    }

    /// Refuses all later pushes for that reason, and returns the queued requests.
    pub(in crate::storage) fn stop(&self, reason: &Arc<str>) -> VecDeque<Request> {
        let mut inner = lock::mutex(&self.inner);
        inner.stopped.get_or_insert_with(|| reason.clone());
        inner.settles.clear();
        std::mem::take(&mut inner.requests)
    }

    /// Refuses later pushes. The writer stores the queued requests and ends.
    pub(in crate::storage) fn close(&self) {
        lock::mutex(&self.inner).closing = true;
        self.wake.notify_all();
    }

    pub(in crate::storage) fn is_closing(&self) -> bool {
        lock::mutex(&self.inner).closing
    }

    /// Lets the writer end without storing the queued requests.
    pub(in crate::storage) fn abandon(&self) {
        lock::mutex(&self.inner).dropped = true;
        self.wake.notify_all();
    }
}

impl Inner {
    fn takes_more(&self) -> Result<(), CommitError> {
        match &self.stopped {
            Some(reason) => Err(CommitError::Stopped(reason.clone())),
            None if self.closing || self.dropped => {
                Err(CommitError::Stopped(crate::storage::local::CLOSED.into()))
            }
            None => Ok(()),
        }
    }
}
