//! What waits for a target: its queue with lanes, its breaker and rate, and the memory that all queues share.

pub(crate) mod backoff;
pub(super) mod breaker;
pub(super) mod budget;
pub(crate) mod job;
pub(super) mod lane;
pub(crate) mod pace;
pub(super) mod state;
pub(super) mod target_queue;
pub(super) mod targets;
pub(super) mod waiting;
