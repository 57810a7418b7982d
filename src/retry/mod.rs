//! Retry: a pass over a stream from a position, on request: each record is called again, once, and counted.
//!
//! Its records go through the same queues, lanes and workers as first dispatches. Every stream but the source stream has a
//! settled set, which is its set of ends: a retried record ends as delivered, or as moved to the copy that its failure
//! left; a later pass skips it. The source stream is replayed: a record that still waits for its first dispatch is
//! skipped, and nothing ends.
//!
//! A pass that its time cuts leaves no record out: `last_read_offset` lies before the first one that was not called. Calls
//! of different lanes overtake each other, so records behind it may have been called. Those that ended are skipped by the
//! next pass. In a replay, or with `redeliver`, it would call them again; to avoid that, such a pass gives out no more
//! records once one has taken longer than there is time left, and what was overtaken is still called within 30 s after
//! the budget. Only what lanes hold up even longer, and a stop, leave records that the next pass calls again.
//!
//! A pass waits at most two seconds for a target whose breaker is open (`open.rs`). Then it leaves the target's records as
//! they are, and goes on with those of other targets, so `last_read_offset` stays below the first one that it left. The
//! next pass skips what this one has settled behind it. In a replay, or with `redeliver`, nothing would be skipped; so
//! there the pass ends in a partition with the first record that it leaves, and only what was under way behind it is called
//! again. A record whose target answers 429, or 503 with `Retry-After`, is left in the same way: it stays where it is, and
//! no failure of it is counted. Where dispatch puts nothing off, that answer is a failure like any other.
//!
//! A target whose first calls in a pass all fail alike ends the pass as if its time were over: what would come behind
//! them would only be moved. Until one of its calls comes out otherwise, no more calls are under way than may still fail.
//! So no more records than these are moved.
//!
//! A record that fails goes where the outcome table says, as after its first dispatch, unless the request maps failures.
//!
//! With a group a pass goes on where the last one of that group came to (`group.rs`).
//!
//! All ends of a pass are stored before its report is given. A caller that goes away ends its pass as a stop of the gateway
//! does: records that were not called are taken back, and calls under way are waited for. A panic ends its pass in the same
//! way. Then the partition is free for the next pass.
//!
//! One pass at a time goes over a partition (`running.rs`). A dry run changes nothing, so it needs no partition for itself.

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
        queue::job::{LeftLanes, Mapping},
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
    /// Held by whoever makes a group.
    making_group: tokio::sync::Mutex<()>,
}

/// What to retry.
#[derive(Clone, Debug)]
pub struct RetryRequest {
    /// The stream.
    pub stream: Arc<Stream>,
    /// Its partitions to pass over, one after the other.
    pub partitions: Vec<PartitionId>,
    /// The last offset that is not wanted any more; `None` begins with the earliest record.
    pub after: Option<Offset>,
    /// The first offset that is not wanted any more, of a single partition; `None` ends with the tail, as it is when the pass
    /// begins.
    pub before: Option<Offset>,
    /// What the pass goes on with, and where it leaves how far it came.
    pub group: Option<Group>,
    /// Records to call at most, over all partitions; skipped ones do not count. The setting `retry.records_max` bounds it.
    pub records_max: u64,
    /// Which records; the others count as read.
    pub filter: Filter,
    /// Where failures go.
    pub mapping: ErrorMapping,
    /// Calls that begin in a second, at most; `None` leaves it to the targets.
    pub rate: Option<NonZeroU32>,
    /// Call settled records too.
    pub redeliver: bool,
    /// Count what would be called, call nothing, change nothing.
    pub dry_run: bool,
    /// After this time no record is given out; calls that have begun are waited for. A pass that has come no further has at
    /// least two seconds. Where records are called again (a
    /// replay, or `redeliver`) there is more to it, see the module. The setting `retry.time_budget_ms` bounds it.
    pub time_budget: Duration,
    /// The user who asks, or the address of a caller without a name; told to others who ask meanwhile.
    pub by: Option<Arc<str>>,
}

/// Why there is no report.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A retry of a partition is running, or it is held; nothing was done.
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
    /// The log takes no ends; nothing was done.
    #[error(transparent)]
    LogRefuses(CommitError),
    /// The log did not take the end of a record. Ends before it are stored; records without one are retried again.
    #[error("an end was not stored: {0}")]
    NotStored(CommitError),
    /// The stream has as many groups as it may, and all were used lately; nothing was done.
    #[error(
        "the stream has {GROUPS_LEN_MAX} groups, all used in the last 30 days; go on with one of them"
    )]
    GroupsFull,
    /// Where the group stands cannot be read: only a mistake of ours makes it so.
    #[error("what is stored of group {0} cannot be read")]
    GroupUnreadable(GroupName),
    /// The log did not take how far the group came. Ends so far are stored; the group stands where it stood.
    #[error("where the group stands was not stored: {0}")]
    GroupNotStored(CommitError),
    /// A mistake of ours ended the pass. Ends so far are stored; nothing of it is under way any more.
    #[error("a panic has ended the retry")]
    Panicked,
    /// The gateway stops. Ends so far are stored.
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

    /// Takes other settings, for passes that begin from now on.
    pub fn reload(&self, settings: config::Retry) {
        self.0.settings.set(Arc::new(settings));
    }

    /// Passes over the partitions and returns what came of it.
    ///
    /// # Errors
    /// Each variant of [`Error`] says what was done.
    ///
    /// # Cancel safety
    /// When the call is dropped its pass calls no further record. What was under way is settled, as a task of its own.
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
            // The caller may have gone away; the work that was done is stored regardless.
            drop(answer.send(report));
        });
        // The task has ended without an answer: by a panic, or with the runtime.
        answered
            .await
            .unwrap_or_else(|_| match stop.is_cancelled() {
                true => Err(Error::Stopping),
                false => Err(Error::Panicked),
            })
    }
}

impl Retrier {
    /// Keeps retries away from a stream, for a purge that `by` asks for, until the answer is dropped.
    ///
    /// # Errors
    /// [`Error::Running`] if one is under way there, or another purge.
    pub fn hold(&self, stream: &Stream, by: Option<Arc<str>>) -> Result<Held, Error> {
        let partitions: Vec<_> = stream.all_partitions().collect();
        let claim = self.0.claim(stream, &partitions, Work::Purge, by)?;
        Ok(Held { _claim: claim })
    }

    /// Returns the retries that run now, by stream and partition, and how far each is. Dry runs are not among them.
    #[must_use]
    pub fn running(&self) -> Vec<RunningRetry> {
        self.0.running.retries()
    }
}

/// No retry begins in this stream as long as it is there.
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
