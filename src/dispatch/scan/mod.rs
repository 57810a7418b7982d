//! Reads partitions for dispatch: the owner of a partition, lagging targets, the checkpoint, and the growth barrier.

pub(super) mod checkpoint;
pub(super) mod growth_barrier;
pub(super) mod lagging;
pub(super) mod owner;
