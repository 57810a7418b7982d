//! A record on its way to its target, first dispatch or retry.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};
use tokio_util::{sync::CancellationToken, task::task_tracker::TaskTrackerToken};

use super::{
    lane::Lane,
    pace::{Pace, Waiting},
    target_queue::Wait,
};
use crate::dispatch::{
    outcome::{Cause, Outcome, table::CauseTable},
    target_id::TargetId,
};
use crate::{
    log::Streams,
    model::{
        ids::{MessageId, Offset, PartitionId, StreamName},
        record::{Record, header},
    },
    runtime::clock::Timestamp,
    storage::{CommitError, Epoch, Lease, Stream},
};

/// A record with all that its handling needs.
///
/// The record lies in memory of its own: a slice of what was read would keep a whole frame of the journal for as long as
/// the record waits.
#[derive(Debug)]
pub(crate) struct Job {
    /// The partition that the record lies in.
    pub(crate) of: PartitionId,
    /// Its offset there.
    pub(crate) offset: Offset,
    /// When it was stored there.
    pub(crate) time: Timestamp,
    /// The record.
    pub(crate) record: Record,
    /// The target; `None` if the record names none that can be called.
    pub(crate) origin: Option<TargetId>,
    /// What it has to wait for; `None` without a key or a target.
    pub(crate) lane: Option<Lane>,
    /// What has been tried.
    pub(crate) tried: Tried,
    /// Who wants to know.
    pub(crate) errand: Errand,
    /// What the last attempt came to, if the log did not take the end: it is offered again, and nothing is called.
    pub(crate) unstored: Option<Box<Outcome>>,
    /// That was so before, and the log has a line about it.
    pub(crate) came_back: bool,
}

/// Attempts of this dispatch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tried {
    /// How many.
    pub(crate) attempts: u32,
    /// How many of them the target has put off: see [`Job::defer`].
    pub(crate) deferred: u32,
    /// When the first call of this dispatch began, by the clock that waits are measured by.
    pub(crate) began: Option<Instant>,
    /// What the last one failed with.
    pub(crate) cause: Option<Cause>,
    /// When the first began.
    pub(crate) first_at: Option<Timestamp>,
    /// When the last began.
    pub(crate) last_at: Option<Timestamp>,
}

/// Why a record is handled.
#[derive(Debug)]
pub(crate) enum Errand {
    /// It is dispatched for the first time.
    First(Arc<Owned>),
    /// A retry asked for it.
    Retry(Retried),
}

/// What an owner and its jobs share.
#[derive(Debug)]
pub(crate) struct Owned {
    /// The stream that the partition is of.
    pub(crate) stream: Arc<Stream>,
    /// The right to settle.
    pub(crate) lease: Lease,
    /// Fires when the right is gone, or nothing can be settled any more.
    pub(crate) stop: CancellationToken,
    /// The owner has stopped: no job that waits is to begin. Every job asks, and to ask a token is to take its lock.
    pub(crate) is_over: AtomicBool,
    /// A job has gone whose end the log did not take: its record is open, and on no queue.
    pub(crate) lost_end: AtomicBool,
    /// Whoever takes the right back waits until the owner and all its jobs are gone.
    pub(crate) _alive: TaskTrackerToken,
}

/// What a retry gives along with a record.
#[derive(Debug)]
pub(crate) struct Retried {
    /// The stream that the record lies in.
    pub(crate) stream: Arc<Stream>,
    /// Where failures go.
    pub(crate) mapping: Arc<Mapping>,
    /// The lease under which the record ends with its retry; `None` if it has ended before and nothing ends now.
    pub(crate) ends: Option<Epoch>,
    /// Whether the call has begun.
    pub(crate) start: Start,
    /// The rate at which calls of the retry begin.
    pub(crate) pace: Option<Arc<Pace>>,
    /// It waits for its slot of that rate.
    pub(crate) waiting: Option<Waiting>,
    /// When a commit that the log refuses for now is given up.
    pub(crate) commit_by: Instant,
    /// Gets the answer.
    pub(crate) answer: oneshot::Sender<Redone>,
}

/// Where a retry's failures go.
#[derive(Debug)]
pub(crate) struct Mapping {
    /// `errormapping`; what it does not name goes to the default stream. `None` leaves all failures to the outcome table.
    pub(crate) streams: Option<CauseTable<Arc<Stream>>>,
    /// A record that has failed so many retries goes to the unrecoverable stream, and stays there as it is.
    pub(crate) retries_max: u32,
    /// Lanes of which the retry has left a record open. What it has given out behind that is not called: the order of the
    /// lane would be lost.
    pub(crate) left_lanes: LeftLanes,
}

/// Lanes, at most one for each answer that a retry has got.
#[derive(Debug, Default)]
pub(crate) struct LeftLanes(Mutex<HashSet<Lane>>);

impl LeftLanes {
    fn lock(&self) -> MutexGuard<'_, HashSet<Lane>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of a retried record.
#[derive(Debug)]
pub(crate) enum Redone {
    /// The target took it.
    Delivered {
        /// The HTTP status.
        status: u16,
    },
    /// It did not.
    Failed {
        /// Why.
        cause: Cause,
        /// The stream that has the record's copy; `None` says that the record stays where it is.
        moved_to: Option<StreamName>,
    },
    /// The target asks to be called again later; the record is as open as before.
    LeftOpen {
        /// What it answered.
        cause: Cause,
    },
    /// It did not, and retention has removed the record meanwhile: no copy is stored.
    Removed {
        /// Why.
        cause: Cause,
    },
    /// The log did not take the end; the record is as open as before.
    NotStored(CommitError),
}

/// Whether a handling begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// It does.
    Now,
    /// Not before then.
    Later(Instant),
    /// Nobody wants it any more.
    Never,
}

/// Whether a job has been taken up: by the worker, or back by who gave it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Start(Arc<AtomicU8>);

const WAITING: u8 = 0;
const STARTED: u8 = 1;
const WITHDRAWN: u8 = 2;

impl Start {
    /// Says that the call begins; `false` if the job was withdrawn.
    pub(crate) fn begin(&self) -> bool {
        self.leave_waiting_for(STARTED)
    }

    /// Takes the job back, perhaps once more; `false` if the call has begun.
    pub(crate) fn withdraw(&self) -> bool {
        self.leave_waiting_for(WITHDRAWN) || self.is_withdrawn()
    }

    /// Says that the call could not begin: it is as if nothing had happened yet.
    pub(crate) fn put_back(&self) {
        let state = &self.0;
        let changed = state.compare_exchange(STARTED, WAITING, Ordering::AcqRel, Ordering::Acquire);
        debug_assert!(changed.is_ok(), "only who has begun puts back");
    }

    /// Returns whether neither has happened yet.
    pub(crate) fn is_waiting(&self) -> bool {
        self.0.load(Ordering::Acquire) == WAITING
    }

    /// Returns whether the job was taken back.
    pub(crate) fn is_withdrawn(&self) -> bool {
        self.0.load(Ordering::Acquire) == WITHDRAWN
    }

    fn leave_waiting_for(&self, state: u8) -> bool {
        self.0
            .compare_exchange(WAITING, state, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

impl Job {
    /// Returns the stream that the record lies in.
    pub(crate) fn stream(&self) -> &Stream {
        match &self.errand {
            Errand::First(owned) => &owned.stream,
            Errand::Retry(retried) => &retried.stream,
        }
    }

    /// Returns the id of the message, that of its first record.
    pub(crate) fn message_id(&self) -> MessageId {
        let noted = self.record.headers.get(header::MESSAGE_ID);
        noted
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(|| Streams::message_id(self.stream(), self.of.partition, self.offset))
    }

    /// Returns whether it is the record's first dispatch, which ends it.
    pub(crate) fn is_first(&self) -> bool {
        matches!(self.errand, Errand::First(_))
    }

    /// Returns whether the retry that gave it has taken it back.
    pub(crate) fn is_withdrawn(&self) -> bool {
        matches!(&self.errand, Errand::Retry(retried) if retried.start.is_withdrawn())
    }

    /// Returns whether nobody wants it any more: its owner is over, or the retry that gave it has taken it back.
    pub(crate) fn is_abandoned(&self) -> bool {
        match &self.errand {
            Errand::First(owned) => owned.is_over.load(Ordering::Acquire),
            Errand::Retry(retried) => retried.start.is_withdrawn(),
        }
    }

    /// Begins the handling, if this is the time for it.
    pub(crate) fn begin(&mut self, now: Instant) -> Begin {
        let begins = match &mut self.errand {
            Errand::First(owned) => !owned.is_over.load(Ordering::Acquire),
            Errand::Retry(retried) => {
                let left = &retried.mapping.left_lanes;
                if self.lane.is_some_and(|lane| left.lock().contains(&lane)) {
                    retried.start.withdraw();
                }
                if let Some(pace) = &retried.pace
                    && !retried.start.is_withdrawn()
                    && let Err(at) = pace.begin(now, &mut retried.waiting)
                {
                    return Begin::Later(at);
                }
                retried.start.begin()
            }
        };
        match begins {
            true => Begin::Now,
            false => Begin::Never,
        }
    }

    /// The retry leaves the record open. To be told before the lane goes on.
    pub(crate) fn leave_lane(&self) {
        if let (Errand::Retry(retried), Some(lane)) = (&self.errand, self.lane) {
            retried.mapping.left_lanes.lock().insert(lane);
        }
    }

    /// Takes back that the handling has begun: nothing was called, and it begins again later or is withdrawn.
    pub(crate) fn put_back(&mut self) {
        if let Errand::Retry(retried) = &self.errand {
            retried.start.put_back();
        }
    }

    /// Returns how many attempts have counted so far, if there may be one more, of `attempts_max` that are set for its
    /// target. What the target has put off does not count.
    pub(crate) fn may_try_again(&self, attempts_max: u32) -> Option<u32> {
        let counted = self.tried.attempts - self.tried.deferred;
        let attempts_max = match &self.errand {
            Errand::First(_) => attempts_max,
            Errand::Retry(_) => 1,
        };
        (counted < attempts_max).then_some(counted)
    }

    /// Notes that the target has put the last call off, and returns when the next one is due: after what it asks for and
    /// at least after `own`, but no later than `deferred_max` after the first call of this dispatch. `None` if that time is
    /// over, or the target asks for more than is left of it: the failure is the record's end then. A retry's is in any case.
    pub(crate) fn defer(
        &mut self,
        asked: Option<Duration>,
        own: impl FnOnce(u32) -> Duration,
        deferred_max: Duration,
        now: Instant,
    ) -> Option<(Instant, Wait)> {
        let latest = self.tried.began?.checked_add(deferred_max)?;
        let left = latest.saturating_duration_since(now);
        let asked = asked.unwrap_or_default();
        if !self.is_first() || left.is_zero() || asked > left {
            return None;
        }
        self.tried.deferred += 1;
        let own = own(self.tried.deferred);
        let wait = match asked > own {
            true => Wait::Asked,
            false => Wait::Backoff,
        };
        Some((now + asked.max(own).min(left), wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_begun_or_withdrawn_but_never_both() {
        let start = Start::default();
        assert!(start.begin());
        assert!(!start.withdraw() && !start.begin());
        let start = Start::default();
        assert!(start.clone().withdraw());
        assert!(!start.begin());
    }

    #[test]
    fn a_job_whose_call_could_not_begin_can_be_begun_again_and_withdrawn() {
        let start = Start::default();
        for _ in 0..2 {
            assert!(start.begin());
            start.put_back();
            assert!(start.is_waiting());
        }
        assert!(start.withdraw() && !start.begin());
    }
}
