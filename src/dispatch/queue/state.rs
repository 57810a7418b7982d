//! How a target stands: what its breaker says, and what its last failure was. For people; metrics have `stats`.

use std::time::Duration;

use tokio::time::Instant;

use super::breaker::Stand;
use crate::dispatch::{outcome::Cause, target_id::TargetId};
use crate::runtime::clock::Timestamp;

/// A target that has or had a queue of its own, or has an entry in the configuration, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetState {
    /// The target.
    pub id: TargetId,
    /// Its breaker.
    pub breaker: BreakerState,
    /// When its breaker opened, the first time in a row, or closed; `None` if it never was open.
    pub since: Option<Timestamp>,
    /// Calls now.
    pub in_flight: usize,
    /// The last call that failed, of this queue or of one within the last hour.
    pub last_failure: Option<LastFailure>,
}

impl TargetState {
    /// One that has no queue now.
    pub(in crate::dispatch) fn idle(id: TargetId) -> Self {
        Self {
            id,
            breaker: BreakerState::Closed,
            since: None,
            in_flight: 0,
            last_failure: None,
        }
    }
}

/// Whether a target may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// It may.
    Closed,
    /// No call begins.
    Open {
        /// When one call may probe.
        until: Timestamp,
        /// The target has asked for that by `Retry-After`.
        is_asked: bool,
    },
    /// One call probes, or the next one will.
    HalfOpen,
}

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastFailure {
    /// Why it failed.
    pub cause: Cause,
    /// The same in a sentence. It may tell what the target said.
    pub reason: String,
    /// When the call began.
    pub at: Timestamp,
}

/// One moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub(in crate::dispatch) struct Moment {
    pub(in crate::dispatch) time: Timestamp,
    pub(in crate::dispatch) instant: Instant,
}

impl Moment {
    /// Returns the time of day of an instant.
    pub(in crate::dispatch) fn time_of(&self, instant: Instant) -> Timestamp {
        let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        let before = self.instant.saturating_duration_since(instant);
        let after = instant.saturating_duration_since(self.instant);
        Timestamp(self.time.0.saturating_sub(micros(before))).plus_micros(micros(after))
    }

    pub(in crate::dispatch) fn breaker(&self, stand: Stand) -> BreakerState {
        match stand {
            Stand::Closed => BreakerState::Closed,
            Stand::Open { until, is_asked } => BreakerState::Open {
                until: self.time_of(until),
                is_asked,
            },
            Stand::HalfOpen => BreakerState::HalfOpen,
        }
    }
}
