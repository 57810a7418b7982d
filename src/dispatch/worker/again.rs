//! Decides whether and when a record is called again after a failed call.

use tokio::time::Instant;

use crate::dispatch::{
    job::{Job, Wait},
    outcome::{Cause, Failure, Outcome},
    settings::{Settings, TargetSettings},
};
use crate::runtime::random;

/// Returns when a failed record is called again, if it is. The target has put it off, or it has attempts left.
pub(super) fn again(
    job: &mut Job,
    failure: &Failure,
    all: &Settings,
    settings: &TargetSettings,
) -> Option<(Instant, Wait)> {
    let (now, asked) = (Instant::now(), failure.retry_after);
    let random = random::u64().unwrap_or(u64::MAX);
    if failure.asks_for_later()
        && let Some(deferred_max) = all.deferred_max
    {
        let own = |deferred| all.backoff.pause(deferred, random);
        let due = job.defer(asked, own, deferred_max, now);
        if due.is_some() {
            return due;
        }
    }
    if !failure.cause.is_transient() {
        return None;
    }
    let own = all
        .backoff
        .delay(job.may_try_again(settings.attempts_max)?, random);
    match asked.filter(|asked| *asked > own) {
        Some(asked) => Some((now + asked, Wait::Asked)),
        None => Some((now + own, Wait::Backoff)),
    }
}

/// Returns whether the target was called. An invalid or blocked record, or one without its secret, is never sent.
pub(super) fn has_called(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Delivered { .. } => true,
        Outcome::Failed(failure) => !matches!(
            failure.cause,
            Cause::Invalid | Cause::Secret | Cause::Blocked
        ),
    }
}
