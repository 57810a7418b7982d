//! A job: one record on its way to its target, for its first dispatch or a retry.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};
use tokio_util::{sync::CancellationToken, task::task_tracker::TaskTrackerToken};

use super::{
    outcome::{Cause, Outcome, table::CauseTable},
    pace::{Pace, Waiting},
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

/// A record and the state of its dispatch.
///
/// The record is a copy, because a slice of the page would keep a whole frame of the journal in memory while the record
/// waits.
#[derive(Debug)]
pub(crate) struct Job {
    /// The partition of the record.
    pub(crate) of: PartitionId,
    /// Its offset there.
    pub(crate) offset: Offset,
    /// When it was stored there.
    pub(crate) time: Timestamp,
    /// The record.
    pub(crate) record: Record,
    /// The target; `None` if the record names none that can be called.
    pub(crate) origin: Option<TargetId>,
    /// Its lane; `None` without a key or a target.
    pub(crate) lane: Option<Lane>,
    /// Attempts so far.
    pub(crate) tried: Tried,
    /// The reason of the dispatch, with the receiver of its result.
    pub(crate) errand: Errand,
    /// The last outcome, if the log did not take its settlement. It is offered again without another call.
    pub(crate) unstored: Option<Box<Outcome>>,
    /// The log refused a settlement before, and a log line says so.
    pub(crate) came_back: bool,
}

/// A target and a key; records of one lane keep their order.
///
/// It is a keyed digest of both, so that lanes are compared without their records. Two keys with the same digest would
/// only wait for each other. Callers cannot provoke that, because the digest's key is random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Lane(pub(super) u64);

impl Lane {
    /// Returns the lane of a key at a target; only lanes made with the same `state` can be compared.
    pub(crate) fn new(state: &RandomState, target: &TargetId, key: &[u8]) -> Self {
        Self(state.hash_one((target, key)))
    }
}

/// The reason of a wait outside the lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// The next attempt, after our own backoff.
    Backoff,
    /// The next attempt, after the target's `Retry-After`.
    Asked,
    /// A slot of a retry's rate.
    Paced,
}

/// Attempts of this dispatch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tried {
    /// How many.
    pub(crate) attempts: u32,
    /// Attempts that the target has put off: see [`Job::defer`].
    pub(crate) deferred: u32,
    /// When the first call of this dispatch began, by the monotonic clock.
    pub(crate) began: Option<Instant>,
    /// Cause of the last failure.
    pub(crate) cause: Option<Cause>,
    /// When the first began.
    pub(crate) first_at: Option<Timestamp>,
    /// When the last began.
    pub(crate) last_at: Option<Timestamp>,
}

/// The reason of a dispatch.
#[derive(Debug)]
pub(crate) enum Errand {
    /// The first dispatch of an open record.
    First(Arc<Owned>),
    /// A retry.
    Retry(Retried),
}

/// State that an owner and its jobs share.
#[derive(Debug)]
pub(crate) struct Owned {
    /// The stream of the partition.
    pub(crate) stream: Arc<Stream>,
    /// The lease, which allows settlements.
    pub(crate) lease: Lease,
    /// Fires when the lease is lost, or no settlement can be stored any more.
    pub(crate) stop: CancellationToken,
    /// The owner has stopped, so no waiting job may begin. Not a token, because every job asks and asking a token takes
    /// its lock.
    pub(crate) is_over: AtomicBool,
    /// A job was dropped whose settlement the log did not take. Its record is open and on no queue.
    pub(crate) lost_end: AtomicBool,
    /// A revoked lease is given back when the owner and all its jobs are gone.
    pub(crate) _alive: TaskTrackerToken,
}

/// State that a retry gives along with a record.
#[derive(Debug)]
pub(crate) struct Retried {
    /// The stream of the record.
    pub(crate) stream: Arc<Stream>,
    /// The error streams of failures.
    pub(crate) mapping: Arc<Mapping>,
    /// The epoch of the lease under which the record is settled; `None` if it is settled already.
    pub(crate) ends: Option<Epoch>,
    /// Whether the call has begun.
    pub(crate) start: Start,
    /// The rate at which calls of the retry begin.
    pub(crate) pace: Option<Arc<Pace>>,
    /// Counts the job while it waits for a slot of that rate.
    pub(crate) waiting: Option<Waiting>,
    /// When to give up a commit that the log keeps refusing.
    pub(crate) commit_by: Instant,
    /// Receives the result.
    pub(crate) answer: oneshot::Sender<Redone>,
}

/// The error streams of a retry's failures.
#[derive(Debug)]
pub(crate) struct Mapping {
    /// The request's `errormapping`. Causes that it does not name go to the default stream. `None` uses the outcome
    /// table.
    pub(crate) streams: Option<CauseTable<Arc<Stream>>>,
    /// A record that has failed this many retries goes to the unrecoverable stream, and stays there unchanged.
    pub(crate) retries_max: u32,
    /// Lanes in which the retry has left a record open. Later records of these lanes are not called, because the order
    /// of the lane would be lost.
    pub(crate) left_lanes: LeftLanes,
}

/// A set of lanes, at most one for each answer of a retry.
#[derive(Debug, Default)]
pub(crate) struct LeftLanes(Mutex<HashSet<Lane>>);

impl LeftLanes {
    fn lock(&self) -> MutexGuard<'_, HashSet<Lane>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The result of a retried record.
#[derive(Debug)]
pub(crate) enum Redone {
    /// The target accepted it.
    Delivered {
        /// The HTTP status.
        status: u16,
    },
    /// Its call failed.
    Failed {
        /// Why.
        cause: Cause,
        /// The stream that has the record's copy; `None` if the record stays in its stream.
        moved_to: Option<StreamName>,
    },
    /// The target asks to be called later; the record stays open.
    LeftOpen {
        /// Cause of its answer.
        cause: Cause,
    },
    /// The call failed, and retention has removed the record meanwhile, so no copy is stored.
    Removed {
        /// Why.
        cause: Cause,
    },
    /// The log did not take the settlement; the record stays open.
    NotStored(CommitError),
}

/// Whether a job may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// It begins now.
    Now,
    /// It begins at this time or later.
    Later(Instant),
    /// It is withdrawn, or its owner is gone.
    Never,
}

/// Whether a worker has begun a retry's job, or the retry has withdrawn it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Start(Arc<AtomicU8>);

const WAITING: u8 = 0;
const STARTED: u8 = 1;
const WITHDRAWN: u8 = 2;

impl Start {
    /// Begins the job; `false` if it was withdrawn.
    pub(crate) fn begin(&self) -> bool {
        self.leave_waiting_for(STARTED)
    }

    /// Withdraws the job, also repeatedly; `false` if it has begun.
    pub(crate) fn withdraw(&self) -> bool {
        self.leave_waiting_for(WITHDRAWN) || self.is_withdrawn()
    }

    /// Makes a begun job wait again, because its call could not begin.
    pub(crate) fn put_back(&self) {
        let state = &self.0;
        let changed = state.compare_exchange(STARTED, WAITING, Ordering::AcqRel, Ordering::Acquire);
        debug_assert!(changed.is_ok(), "only a begun job is put back");
    }

    /// Returns whether the job was neither begun nor withdrawn.
    pub(crate) fn is_waiting(&self) -> bool {
        self.0.load(Ordering::Acquire) == WAITING
    }

    /// Returns whether the job was withdrawn.
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
    /// Returns the stream of the record.
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

    /// Returns whether it is the first dispatch of an open record.
    pub(crate) fn is_first(&self) -> bool {
        matches!(self.errand, Errand::First(_))
    }

    /// Returns whether its retry has withdrawn it.
    pub(crate) fn is_withdrawn(&self) -> bool {
        matches!(&self.errand, Errand::Retry(retried) if retried.start.is_withdrawn())
    }

    /// Returns whether its owner has stopped, or its retry has withdrawn it.
    pub(crate) fn is_abandoned(&self) -> bool {
        match &self.errand {
            Errand::First(owned) => owned.is_over.load(Ordering::Acquire),
            Errand::Retry(retried) => retried.start.is_withdrawn(),
        }
    }

    /// Begins the job if it may begin now.
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

    /// Notes that the retry leaves the record open. Call it before the lane goes on.
    pub(crate) fn leave_lane(&self) {
        if let (Errand::Retry(retried), Some(lane)) = (&self.errand, self.lane) {
            retried.mapping.left_lanes.lock().insert(lane);
        }
    }

    /// Makes a begun job wait again, because no call was made; it can begin again or be withdrawn.
    pub(crate) fn put_back(&mut self) {
        if let Errand::Retry(retried) = &self.errand {
            retried.start.put_back();
        }
    }

    /// Returns how many attempts have counted so far, if one more is allowed by `attempts_max`. Attempts that the
    /// target has put off do not count.
    pub(crate) fn may_try_again(&self, attempts_max: u32) -> Option<u32> {
        let counted = self.tried.attempts - self.tried.deferred;
        let attempts_max = match &self.errand {
            Errand::First(_) => attempts_max,
            Errand::Retry(_) => 1,
        };
        (counted < attempts_max).then_some(counted)
    }

    /// Notes that the target has put the last call off; returns when the next one is due. That is after the wait that
    /// the target asks for and at least after `own`, but no later than `deferred_max` after the first call. Returns
    /// `None` if that time is over, if the target asks for more than is left, or for a retry; the failure is final
    /// then.
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
mod tests;
