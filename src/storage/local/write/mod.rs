//! Storing: calls that wait, commits of one frame, the open file, and the one thread that writes.

pub(in crate::storage) mod alone;
pub(in crate::storage) mod condition;
pub(in crate::storage) mod limits;
pub(in crate::storage) mod opened;
pub(in crate::storage) mod pending;
pub(in crate::storage) mod queue;
pub(in crate::storage) mod room;
pub(in crate::storage) mod writer;
