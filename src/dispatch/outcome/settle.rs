//! Settles a record by its outcome: builds the commit, and offers it again when the log refuses it.
//!
//! A failure's error record and the settlement of its origin are one commit. While the log is busy or the disk is full,
//! the commit is offered again. The record stays open meanwhile, so a crash loses nothing. A too large error record is
//! offered without the target's answer. If the log still refuses, the job goes back to its queue and its settlement is
//! offered later.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{
    Cause, Failure, Outcome,
    error_record::{Size, error_record, retries},
};
use crate::dispatch::{
    DispatchContext,
    job::{Errand, Job, Redone},
    secret,
    settings::Settings,
};
use crate::{
    model::ids::PartitionId,
    storage::{Append, AppendKind, Commit, CommitError, Epoch, NewSettlement, Settle, Stream},
};

/// First wait after a refused commit.
const AGAIN_FIRST: Duration = Duration::from_millis(10);
/// Longest such wait.
const AGAIN_MAX: Duration = Duration::from_secs(2);

/// Settles the record of a job, under the settings of its attempt. Returns the job if the log refuses the settlement
/// for another reason than being busy or full; the caller has to offer it later.
pub(in crate::dispatch) async fn settle(
    shared: &Arc<DispatchContext>,
    settings: &Settings,
    job: Box<Job>,
    outcome: Outcome,
) -> Option<Box<Job>> {
    let back = match &outcome {
        Outcome::Delivered { status } => delivered(shared, job, *status).await,
        // Boxed, as it is large and rare.
        Outcome::Failed(failure) => Box::pin(failed(shared, settings, job, failure)).await,
    };
    back.map(|mut job| {
        job.unstored = Some(Box::new(outcome));
        job.came_back = true;
        job
    })
}

async fn delivered(shared: &Arc<DispatchContext>, job: Box<Job>, status: u16) -> Option<Box<Job>> {
    let settlement = |epoch| settlement(&job, epoch, NewSettlement::Delivered, Some(status));
    let commit = |epoch| Commit {
        settles: vec![settlement(epoch)],
        ..Commit::default()
    };
    match &job.errand {
        Errand::First(owned) => {
            let epoch = owned.lease.epoch;
            let ended = match shared.streams.engine().settle_soon(settlement(epoch)) {
                // Boxed, as it is large and rare.
                Err(CommitError::Busy) => {
                    Box::pin(patiently(shared, &job, |_| Ok(commit(epoch)))).await
                }
                answer => answer,
            };
            told(shared, job, ended)
        }
        Errand::Retry(retried) => {
            let ended = match retried.ends {
                Some(epoch) => patiently(shared, &job, |_| Ok(commit(epoch))).await,
                None => Ok(()),
            };
            let ended = match ended {
                // The record was settled meanwhile; the target has it, so it counts as delivered.
                Err(CommitError::AlreadySettled { .. }) => Ok(()),
                ended => ended,
            };
            answer(job, ended.map(|()| Redone::Delivered { status }));
            None
        }
    }
}

async fn failed(
    shared: &Arc<DispatchContext>,
    settings: &Settings,
    job: Box<Job>,
    failure: &Failure,
) -> Option<Box<Job>> {
    let cause = failure.cause;
    match &job.errand {
        Errand::First(owned) => {
            let epoch = Some(owned.lease.epoch);
            let ended = patiently(shared, &job, |size| {
                let (_, of) = error_stream(shared, settings, &job, cause)?;
                let kind = AppendKind::Routed;
                Ok(copy(shared, &job, (failure, size), of, epoch, kind))
            })
            .await;
            told(shared, job, ended)
        }
        Errand::Retry(retried) => {
            if settings.deferred_max.is_some() && failure.asks_for_later() {
                job.leave_lane();
                answer(job, Ok(Redone::LeftOpen { cause }));
                return None;
            }
            if has_nowhere_to_go(shared, settings, &job, cause) {
                let moved_to = None;
                answer(job, Ok(Redone::Failed { cause, moved_to }));
                return None;
            }
            let ends = retried.ends;
            let kind = match ends {
                Some(_) => AppendKind::Moved,
                None => AppendKind::ReplayFailed,
            };
            let mut moved_to = None;
            let ended = patiently(shared, &job, |size| {
                let (stream, of) = error_stream(shared, settings, &job, cause)?;
                // The last offered copy is the one that the log accepts.
                moved_to = Some(stream.name.clone());
                Ok(copy(shared, &job, (failure, size), of, ends, kind))
            })
            .await;
            let redone = match ended {
                // Only retention settles a record during its retry, because a purge waits for the retry.
                Err(CommitError::AlreadySettled { .. }) => Ok(Redone::Removed { cause }),
                ended => ended.map(|()| Redone::Failed { cause, moved_to }),
            };
            answer(job, redone);
            None
        }
    }
}

/// Returns whether a record of the unrecoverable stream has failed all its retries. It gets no copy in its own stream,
/// because a loop of retries would follow its own copies without end.
fn has_nowhere_to_go(
    shared: &DispatchContext,
    settings: &Settings,
    job: &Job,
    cause: Cause,
) -> bool {
    let Errand::Retry(retried) = &job.errand else {
        return false;
    };
    retries(job) > retried.mapping.retries_max.into()
        && error_stream(shared, settings, job, cause).is_ok_and(|(_, of)| of == job.of)
}

/// Returns the commit that appends the record's copy to its error stream and settles the record.
fn copy(
    shared: &DispatchContext,
    job: &Job,
    (failure, size): (&Failure, Size),
    of: PartitionId,
    ends: Option<Epoch>,
    kind: AppendKind,
) -> Commit {
    let refers = secret::secret(&job.record)
        .map(|s| shared.credentials.state_keys(&s.source, &s.name, s.version))
        .unwrap_or_default();
    let append = Append {
        of,
        records: vec![error_record(job, failure, size, shared.clock.now())],
        kind,
        refers,
    };
    let end = match kind {
        AppendKind::Moved => NewSettlement::Moved { append: 0 },
        _ => NewSettlement::Routed { append: 0 },
    };
    let settlement = ends.map(|epoch| settlement(job, epoch, end, failure.cause.status()));
    Commit {
        appends: vec![append],
        settles: settlement.into_iter().collect(),
        ..Commit::default()
    }
}

fn settlement(job: &Job, epoch: Epoch, end: NewSettlement, status: Option<u16>) -> Settle {
    Settle {
        of: job.of,
        offset: job.offset,
        end,
        attempts: job.tried.attempts,
        status,
        epoch,
    }
}

/// Returns the error stream of a cause and the record's partition there, which has the number of the origin's
/// partition.
///
/// If that stream was deleted or has too few partitions, the stream of the default role is used, else that of any role
/// with this partition.
fn error_stream(
    shared: &DispatchContext,
    settings: &Settings,
    job: &Job,
    cause: Cause,
) -> Result<(Arc<Stream>, PartitionId), CommitError> {
    let roles = &settings.roles;
    let by_name = |name| shared.streams.by_name(name);
    let wanted = match &job.errand {
        Errand::First(_) => by_name(settings.outcomes.stream(cause)),
        Errand::Retry(retried) if retries(job) >= retried.mapping.retries_max.into() => {
            by_name(&roles.unrecoverable)
        }
        Errand::Retry(retried) => match &retried.mapping.streams {
            None => by_name(settings.outcomes.stream(cause)),
            Some(given) => match given.find(cause) {
                // Looked up by id, because the mapping holds the stream as it was when the retry began.
                Some(mapped) => shared.streams.engine().stream_by_id(mapped.id),
                None => by_name(&roles.default),
            },
        },
    };
    let partition = job.of.partition;
    let placed = |stream: Arc<Stream>| stream.partition(partition).map(|of| (stream, of));
    if let Some(found) = wanted.clone().and_then(placed) {
        return Ok(found);
    }
    let stands_in = [
        &roles.default,
        &roles.unavailable,
        &roles.internal,
        &roles.unrecoverable,
    ]
    .into_iter()
    .find_map(|name| by_name(name).and_then(placed));
    let Some(found) = stands_in else {
        tracing::error!(
            %partition, %cause,
            "no error stream has this partition; the record stays open until one has"
        );
        return Err(CommitError::Busy);
    };
    tracing::warn!(
        message_id = %job.message_id(),
        wanted = wanted.map(|stream| stream.name.to_string()),
        used = %found.0.name,
        %partition,
        %cause,
        "the error stream is unknown or has too few partitions; another one is used"
    );
    Ok(found)
}

/// Commits, and offers a refused commit again while the log is busy or the disk is full. A retry does so until its
/// deadline. A first dispatch does so until the gateway stops, and for a busy log until the grace time ends. A too
/// large commit is offered in its smallest size.
async fn patiently(
    shared: &DispatchContext,
    job: &Job,
    mut commit: impl FnMut(Size) -> Result<Commit, CommitError>,
) -> Result<(), CommitError> {
    let (mut wait, mut size) = (AGAIN_FIRST, Size::Whole);
    loop {
        let refused = match commit(size) {
            Ok(commit) => match shared.streams.engine().commit(commit).await {
                Ok(_) => return Ok(()),
                Err(refused) => refused,
            },
            Err(refused) => refused,
        };
        let again = match &refused {
            CommitError::Busy | CommitError::DiskFull => true,
            // The error stream was deleted after it was looked up; the next look-up finds another.
            CommitError::PartitionUnknown(of) => *of != job.of,
            CommitError::TooLarge { .. } if size == Size::Whole => {
                size = Size::Least;
                continue;
            }
            CommitError::TooLarge { .. }
            | CommitError::AlreadySettled { .. }
            | CommitError::Fenced(_)
            | CommitError::StateConflict { .. }
            | CommitError::StateFull { .. }
            | CommitError::Stopped(_)
            | CommitError::MaybeStored(_) => false,
        };
        let stops = shared.stop.is_cancelled();
        let late = match &job.errand {
            // The call is made already. Giving its settlement up would repeat it after the next start.
            Errand::First(_) if stops => !matches!(refused, CommitError::Busy),
            Errand::First(owned) => owned.stop.is_cancelled(),
            Errand::Retry(retried) => stops || Instant::now() >= retried.commit_by,
        };
        if !again || late {
            return Err(refused);
        }
        match stops {
            true => sleep(wait).await,
            false => drop(shared.stop.run_until_cancelled(sleep(wait)).await),
        }
        wait = (wait * 2).min(AGAIN_MAX);
    }
}

/// Handles the log's answer for a first dispatch. Returns the job if its settlement has to be offered again.
fn told(
    shared: &DispatchContext,
    job: Box<Job>,
    ended: Result<(), CommitError>,
) -> Option<Box<Job>> {
    let Errand::First(owned) = &job.errand else {
        return None;
    };
    let error = ended.err()?;
    let comes_back = match &error {
        // Discarded meanwhile, for example by a purge. Logged at debug, because a purge may discard many records.
        CommitError::AlreadySettled { .. } => {
            tracing::debug!(message_id = %job.message_id(), %error, "the record was settled meanwhile");
            return None;
        }
        // The lease went to another owner, which dispatches the record again, or the stream was deleted, or the log has
        // stopped.
        CommitError::Fenced(_)
        | CommitError::PartitionUnknown(_)
        | CommitError::Stopped(_)
        | CommitError::MaybeStored(_) => {
            owned.lost_end.store(true, Ordering::Release);
            owned.stop.cancel();
            false
        }
        // The gateway stops or the lease is lost; the next owner dispatches the record again.
        CommitError::Busy | CommitError::DiskFull => {
            owned.lost_end.store(true, Ordering::Release);
            false
        }
        CommitError::TooLarge { .. }
        | CommitError::StateConflict { .. }
        | CommitError::StateFull { .. } => true,
    };
    if !job.came_back {
        shared.stats.lost_ends.inc();
    }
    if job.came_back && comes_back {
        return Some(job);
    }
    tracing::warn!(
        message_id = %job.message_id(),
        stream = %job.stream().name,
        partition = job.of.partition.0,
        offset = job.offset.0,
        %error,
        comes_back,
        "the record's settlement was not stored"
    );
    comes_back.then_some(job)
}

fn answer(job: Box<Job>, redone: Result<Redone, CommitError>) {
    if let Errand::Retry(retried) = job.errand {
        let redone = redone.unwrap_or_else(Redone::NotStored);
        // Ignore send errors: the caller may have gone away, and the settlement is stored.
        drop(retried.answer.send(redone));
    }
}
