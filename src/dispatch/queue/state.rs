//! The state of a target for operators: its breaker and its last failure. Metrics are in `stats`.

use std::time::Duration;

use tokio::time::Instant;

use super::breaker::Stand;
use crate::dispatch::{outcome::Cause, target_id::TargetId};
use crate::runtime::clock::Timestamp;

/// The state of one target at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetState {
    /// The target.
    pub id: TargetId,
    /// Its breaker.
    pub breaker: BreakerState,
    /// When its breaker closed, or opened for the first time in a row; `None` if it never opened.
    pub since: Option<Timestamp>,
    /// Calls in flight.
    pub in_flight: usize,
    /// The last call that failed, of this queue or of one within the last hour.
    pub last_failure: Option<LastFailure>,
}

impl TargetState {
    /// A target without a queue.
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

/// The breaker of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls may begin.
    Closed,
    /// No call begins.
    Open {
        /// When one call may probe.
        until: Timestamp,
        /// The end comes from the target's `Retry-After`.
        is_asked: bool,
    },
    /// A probe is under way, or the next call is one.
    HalfOpen,
}

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastFailure {
    /// Why it failed.
    pub cause: Cause,
    /// The cause in a sentence; it may quote the target.
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
