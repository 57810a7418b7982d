//! Bytes of the journal: files (`segment`), frames, operations (`ops`), blocks of records, snapshots. `codec` has the
//! numbers, `scan` reads the frames of a file.

pub(in crate::storage) mod block;
pub(in crate::storage) mod codec;
pub(in crate::storage) mod frame;
pub(in crate::storage) mod ops;
pub(in crate::storage) mod scan;
pub(in crate::storage) mod segment;
pub(in crate::storage) mod snapshot;
