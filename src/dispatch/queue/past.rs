//! The last state of targets whose queues were removed, because operators look for targets that were called a moment
//! ago. Pure.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::state::{BreakerState, LastFailure, Moment, TargetState};
use crate::dispatch::target_id::TargetId;

/// How long the state of a target is kept after its queue was removed.
const KEPT: Duration = Duration::from_secs(3_600);
/// Targets kept; a further one replaces the oldest.
const LEN_MAX: usize = 256;

/// The state of a target when its queue was removed.
#[derive(Clone, Debug)]
pub(super) struct Stood {
    /// When its breaker closed, if it had been open.
    pub(super) closed: Option<Instant>,
    pub(super) last_failure: Option<LastFailure>,
}

/// Targets without a queue that had one within the last hour.
#[derive(Debug, Default)]
pub(super) struct Past(HashMap<TargetId, (Instant, Stood)>);

impl Past {
    /// Keeps the state of a target. A queue without a failure keeps the last failure of the queue before it.
    pub(super) fn keep(&mut self, target: TargetId, mut stood: Stood, now: Instant) {
        self.forget(now);
        if stood.last_failure.is_none() {
            stood.last_failure = self.last_failure(&target).cloned();
        }
        self.0.insert(target, (now, stood));
        if self.0.len() > LEN_MAX {
            let first = self.0.iter().min_by_key(|(_, (went, _))| *went);
            let first = first.map(|(target, _)| target.clone());
            if let Some(first) = first {
                self.0.remove(&first);
            }
        }
    }

    /// Removes entries that are older than [`KEPT`].
    pub(super) fn forget(&mut self, now: Instant) {
        self.0
            .retain(|_, (went, _)| now.saturating_duration_since(*went) < KEPT);
    }

    /// Returns the kept states.
    pub(super) fn states(&self, now: Moment) -> impl Iterator<Item = TargetState> {
        self.0.iter().map(move |(target, (_, stood))| TargetState {
            // A breaker is removed with its queue, so the target would be called now.
            breaker: BreakerState::Closed,
            since: stood.closed.map(|closed| now.time_of(closed)),
            last_failure: stood.last_failure.clone(),
            ..TargetState::idle(target.clone())
        })
    }

    /// Returns the kept last failure of a target.
    pub(super) fn last_failure(&self, target: &TargetId) -> Option<&LastFailure> {
        let (_, stood) = self.0.get(target)?;
        stood.last_failure.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{dispatch::Cause, runtime::clock::Timestamp};

    fn target(number: usize) -> TargetId {
        TargetId::of(&format!("http://t{number}"))
    }

    fn stood() -> Stood {
        Stood {
            closed: None,
            last_failure: Some(LastFailure {
                cause: Cause::Timeout,
                reason: "too slow".into(),
                at: Timestamp(1),
            }),
        }
    }

    #[tokio::test]
    async fn a_target_is_remembered_for_an_hour_and_not_more_of_them_than_there_may_be() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut past = Past::default();
        past.keep(target(0), stood(), at(0));
        past.keep(target(1), stood(), at(1_800));
        past.forget(at(3_599));
        assert!(past.last_failure(&target(0)).is_some());
        past.forget(at(3_600));
        assert!(past.last_failure(&target(0)).is_none());
        assert_eq!(past.last_failure(&target(1)), stood().last_failure.as_ref());
        for number in (2..).take(LEN_MAX) {
            past.keep(target(number), stood(), at(3_600 + number as u64));
        }
        assert_eq!(past.0.len(), LEN_MAX);
        assert!(past.last_failure(&target(1)).is_none());
        let now = Moment {
            time: Timestamp(9),
            instant: at(5_000),
        };
        let mut states = past.states(now);
        assert!(states.all(|state| state.breaker == BreakerState::Closed));
    }
}
