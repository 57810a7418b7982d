//! Bytes of the journal: blocks, operations, frames, snapshots and the files that hold them.

pub(in crate::storage) mod block;
pub(in crate::storage) mod codec;
pub(in crate::storage) mod frame;
pub(in crate::storage) mod ops;
pub(in crate::storage) mod scan;
pub(in crate::storage) mod segment;
pub(in crate::storage) mod snapshot;
