//! Queues of targets: lanes, breaker, rate, the memory budget of all queues, and the state that operators see.

pub(super) mod breaker;
pub(super) mod budget;
pub(super) mod lane;
mod past;
pub(super) mod state;
pub(super) mod target_queue;
pub(super) mod targets;
pub(super) mod waiting;
