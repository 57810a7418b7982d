//! Reading: the newest frames in memory, the index of older blocks, and records from both.

pub(in crate::storage) mod blocks;
pub(in crate::storage) mod cache;
pub(in crate::storage) mod index;
pub(in crate::storage) mod lookup;
pub(in crate::storage) mod reader;
pub(in crate::storage) mod settled;
