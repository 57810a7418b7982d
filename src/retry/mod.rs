//! Retry: on request, a pass over a stream from a position calls each record once more and counts the results.
//!
//! Its records use the same queues, lanes and workers as first dispatches. A retried record of an error stream is
//! settled as delivered, or as moved to the copy that its failure left. A later pass skips it. The source stream is
//! replayed: the pass skips open records, which wait for their first dispatch, and settles nothing.
//!
//! A pass that runs out of time skips no record: `last_read_offset` lies before the first one that was not called.
//! Calls of different lanes overtake each other, so records after that offset may have been called. The next pass skips
//! the settled ones. In a replay, or with `redeliver`, it would call them again. To avoid that, such a pass queues no
//! more records once a call takes longer than the time left. Overtaken records are still called within 30 s after the
//! budget. The next pass repeats calls only after a stop, or if lanes held records up even longer.
//!
//! A pass waits at most two seconds for a target with an open breaker (`open.rs`). Then it leaves the target's records
//! open and goes on with other targets, so `last_read_offset` stays below the first record left. The next pass skips
//! the records settled after it. In a replay, or with `redeliver`, the next pass would skip none. So there the pass
//! ends in a partition at the first record left, and only calls in flight are repeated. A record whose target answers
//! 429, or 503 with `Retry-After`, is left open too and not counted as failed. Where dispatch puts no record off, that
//! answer is a failure like any other.
//!
//! If the first calls of a target in a pass all fail with the same cause, the pass ends as if its time were over.
//! Further calls would only move more records (`failing.rs`). Until a call has another outcome, at most as many calls
//! are in flight as may still fail. So no more records are moved than that.
//!
//! A failed record goes to the stream that the outcome table names, as after its first dispatch, unless the request
//! maps failures.
//!
//! With a group, a pass continues where the last pass of that group ended (`group.rs`).
//!
//! All settlements of a pass are stored before it reports. If the caller goes away, if the gateway stops, or after a
//! panic, the pass withdraws the records not called yet and waits for calls in flight. Then the partition is free for
//! the next pass.
//!
//! A partition has one pass at a time (`running.rs`). A dry run changes nothing, so it does not claim a partition.

mod failing;
mod filter;
mod group;
mod mapping;
mod open;
mod pass;
mod report;
mod running;
#[cfg(test)]
mod tests;

use std::{fmt, num::NonZeroU32, sync::Arc, time::Duration};

pub use failing::TargetFailing;
pub use filter::{Causes, Filter};
pub use group::{GROUPS_LEN_MAX, Group, GroupName, GroupNameInvalid, GroupStand, groups};
pub use mapping::{ErrorMapping, MappingInvalid};
pub use report::{GroupReport, PartitionReport, RetryReport, Stopped, Waiting};
pub use running::{RunningRetry, Taken, Work};
use tokio::{sync::oneshot, time::Instant};

use self::{
    failing::Failing,
    group::Standing,
    open::OpenTargets,
    pass::rate::Rate,
    running::{Claim, Running},
};
use crate::{
    config,
    dispatch::{
        DispatchContext, Dispatcher,
        job::{LeftLanes, Mapping},
    },
    model::ids::{Offset, PartitionId},
    runtime::{live::Live, tasks::Part},
    storage::{CommitError, Health, ReadError, Stream},
};

/// Handle to retries. Clones share everything.
#[derive(Clone)]
pub struct Retrier(Arc<Inner>);

struct Inner {
    shared: Arc<DispatchContext>,
    settings: Live<config::Retry>,
    running: Arc<Running>,
    /// Held while a group is created, so that the count of groups is exact.
    making_group: tokio::sync::Mutex<()>,
}

/// What to retry.
#[derive(Clone, Debug)]
pub struct RetryRequest {
    /// The stream.
    pub stream: Arc<Stream>,
    /// The partitions to pass over, one after the other.
    pub partitions: Vec<PartitionId>,
    /// The pass begins after this offset; `None` begins with the earliest record.
    pub after: Option<Offset>,
    /// The pass ends before this offset, of a single partition; `None` ends at the tail as of the start of the pass.
    pub before: Option<Offset>,
    /// The group whose position the pass continues and updates.
    pub group: Option<Group>,
    /// Records to call at most, over all partitions; skipped ones do not count. The setting `retry.records_max` bounds it.
    pub records_max: u64,
    /// The records to retry; others count as read.
    pub filter: Filter,
    /// The error streams of failures.
    pub mapping: ErrorMapping,
    /// Calls per second, at most; `None` leaves it to the rates of the targets.
    pub rate: Option<NonZeroU32>,
    /// Call settled records too.
    pub redeliver: bool,
    /// Only count the records that would be called.
    pub dry_run: bool,
    /// After this time no record is queued; calls in flight are waited for. A pass that has not advanced gets at least
    /// two seconds. The module says more about replays and `redeliver`. The setting `retry.time_budget_ms` bounds it.
    pub time_budget: Duration,
    /// The user of the request, or the address of an anonymous caller; shown to other callers meanwhile.
    pub by: Option<Arc<str>>,
}

/// Why a retry has no report.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A retry or a purge of a partition is running; nothing was done.
    #[error("{0}")]
    Running(Taken),
    /// There is no such partition; nothing was done.
    #[error("partition {0} is unknown")]
    PartitionUnknown(PartitionId),
    /// The offset to begin behind is not below the tail, so no pass can have come to it; nothing was done.
    #[error(
        "{after} cannot have been read: the tail of partition {} is {tail}; give a number below it, or -1 for the \
         earliest record",
        of.partition
    )]
    BeyondTail {
        /// What was asked for.
        after: Offset,
        /// The partition.
        of: PartitionId,
        /// Its tail.
        tail: Offset,
    },
    /// Another node may settle its records; nothing was done.
    #[error("the lease on {0} is not ours")]
    NotLeased(PartitionId),
    /// The first record cannot be read; nothing was done.
    #[error(transparent)]
    Read(ReadError),
    /// The log takes no settlements; nothing was done.
    #[error(transparent)]
    LogRefuses(CommitError),
    /// The log did not take the settlement of a record. Earlier settlements are stored; open records are retried next
    /// time.
    #[error("a settlement was not stored: {0}")]
    NotStored(CommitError),
    /// The stream has as many groups as it may, and all were used lately; nothing was done.
    #[error(
        "the stream has {GROUPS_LEN_MAX} groups, all used in the last 30 days; go on with one of them"
    )]
    GroupsFull,
    /// The stored group is unreadable, which only a bug can cause.
    #[error("the stored position of group {0} is unreadable")]
    GroupUnreadable(GroupName),
    /// The log did not take the new position of the group. Settlements are stored; the group keeps its old position.
    #[error("the position of the group was not stored: {0}")]
    GroupNotStored(CommitError),
    /// A bug ended the pass by a panic. Settlements so far are stored; no call of the pass is in flight.
    #[error("a panic has ended the retry")]
    Panicked,
    /// The gateway stops. Settlements so far are stored.
    #[error("the gateway is stopping")]
    Stopping,
}

impl Retrier {
    /// Retries over a dispatcher's queues.
    #[must_use]
    pub fn new(dispatcher: &Dispatcher, settings: config::Retry) -> Self {
        let shared = dispatcher.shared.clone();
        let (tidying, stop) = (shared.clone(), shared.stop.clone());
        shared.tasks.spawn("retry groups", async move {
            stop.run_until_cancelled(group::keep_tidy(tidying)).await;
        });
        Self(Arc::new(Inner {
            shared,
            settings: Live::new(settings),
            running: Arc::default(),
            making_group: tokio::sync::Mutex::default(),
        }))
    }

    /// Replaces the settings, for passes that begin from now on.
    pub fn reload(&self, settings: config::Retry) {
        self.0.settings.set(Arc::new(settings));
    }

    /// Passes over the partitions and returns the report.
    ///
    /// # Errors
    /// Each variant of [`Error`] says what was done.
    ///
    /// # Cancel safety
    /// When the call is dropped, its pass calls no further record. A task of its own settles the calls in flight.
    pub async fn run(&self, request: RetryRequest) -> Result<RetryReport, Error> {
        let inner = &self.0;
        if inner.shared.stop.is_cancelled() {
            return Err(Error::Stopping);
        }
        match &*inner.shared.streams.engine().health().borrow() {
            Health::Running | Health::SpaceLow => {}
            Health::DiskFull => return Err(Error::LogRefuses(CommitError::DiskFull)),
            Health::DiskStalled => return Err(Error::LogRefuses(CommitError::Busy)),
            Health::Stopped(why) => {
                return Err(Error::LogRefuses(CommitError::Stopped(why.clone())));
            }
        }
        inner.check_after(&request)?;
        let claim = match request.dry_run {
            true => None,
            false => {
                let by = request.by.clone();
                Some(inner.claim(&request.stream, &request.partitions, Work::Retry, by)?)
            }
        };
        let settings = inner.settings.get();
        let stop = inner.shared.stop.child_token();
        let _hangs_up = stop.clone().drop_guard();
        let time_budget = Duration::from_millis(settings.time_budget_ms);
        let pass = pass::Pass {
            shared: inner.shared.clone(),
            stop,
            in_flight_max: settings.in_flight_max.max(1),
            records_max: request.records_max.min(settings.records_max),
            by: Instant::now() + request.time_budget.min(time_budget),
            least_by: Instant::now() + pass::TIME_LEAST,
            mapping: Arc::new(Mapping {
                streams: request.mapping.0,
                retries_max: settings.retries_max,
                left_lanes: LeftLanes::default(),
            }),
            replay: request.stream.name == inner.shared.settings.get().roles.source,
            stream: request.stream,
            after: request.after,
            before: request.before,
            group: None,
            filter: request.filter,
            redeliver: request.redeliver,
            dry_run: request.dry_run,
            rate: request.rate.map(Rate::new),
            failing: Failing::new(settings.failing_calls_max),
            open: OpenTargets::default(),
            look_at: Instant::now(),
            is_cut: false,
            report: RetryReport::default(),
            running: claim.is_some().then(|| inner.running.clone()),
            here: None,
        };
        let (answer, answered) = oneshot::channel();
        let this = inner.clone();
        let stop = inner.shared.stop.clone();
        inner.shared.tasks.spawn_guarded(Part::Retry, async move {
            let report = match request.group {
                None => pass.run(&request.partitions).await,
                Some(group) => this.run_with(group, pass, &request.partitions).await,
            };
            drop(claim);
            // Ignore send errors: the caller may have gone away, and the work is stored.
            drop(answer.send(report));
        });
        // The task ended without an answer, by a panic or at the end of the runtime.
        answered
            .await
            .unwrap_or_else(|_| match stop.is_cancelled() {
                true => Err(Error::Stopping),
                false => Err(Error::Panicked),
            })
    }
}

impl Retrier {
    /// Claims all partitions of a stream for a purge by `by`, until the returned value is dropped.
    ///
    /// # Errors
    /// [`Error::Running`] if one is under way there, or another purge.
    pub fn hold(&self, stream: &Stream, by: Option<Arc<str>>) -> Result<Held, Error> {
        let partitions: Vec<_> = stream.all_partitions().collect();
        let claim = self.0.claim(stream, &partitions, Work::Purge, by)?;
        Ok(Held { _claim: claim })
    }

    /// Returns the running retries with their progress, by stream and partition, without dry runs.
    #[must_use]
    pub fn running(&self) -> Vec<RunningRetry> {
        self.0.running.retries()
    }
}

/// A claim on a stream; no retry of the stream begins while it lives.
#[derive(Debug)]
pub struct Held {
    _claim: Claim,
}

impl fmt::Debug for Retrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retrier").finish_non_exhaustive()
    }
}

impl Inner {
    /// An offset that no pass can have read is a slip, or one of a stream that was made again. To answer that all is read
    /// would hide that, and the records that come there later would be passed over.
    fn check_after(&self, request: &RetryRequest) -> Result<(), Error> {
        let Some(after) = request.after else {
            return Ok(());
        };
        for of in &request.partitions {
            let status = self.shared.streams.engine().status(*of);
            let tail = status.map_err(pass::reader::unread)?.bounds.tail;
            if after >= tail {
                return Err(Error::BeyondTail {
                    after,
                    of: *of,
                    tail,
                });
            }
        }
        Ok(())
    }

    async fn run_with(
        &self,
        group: Group,
        mut pass: pass::Pass,
        partitions: &[PartitionId],
    ) -> Result<RetryReport, Error> {
        let (stream, dry_run) = (pass.stream.id, pass.dry_run);
        let making = &self.making_group;
        let group = Standing::open(&self.shared, making, stream, group, dry_run).await?;
        pass.group = Some(group);
        pass.run(partitions).await
    }

    fn claim(
        &self,
        stream: &Stream,
        partitions: &[PartitionId],
        work: Work,
        by: Option<Arc<str>>,
    ) -> Result<Claim, Error> {
        let since = self.shared.clock.now();
        let taken = |of| Taken {
            stream: stream.name.clone(),
            of,
            work,
            since,
            by: by.clone(),
        };
        let claim = self.running.take(partitions, taken);
        claim.map_err(Error::Running)
    }
}
