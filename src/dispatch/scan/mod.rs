//! Reading a partition for dispatch: its owner, targets that lag, the checkpoint for the next start, and the growth barrier.

pub(super) mod checkpoint;
pub(super) mod growth_barrier;
pub(super) mod lagging;
pub(super) mod owner;
