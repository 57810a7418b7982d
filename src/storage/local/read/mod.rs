//! Reading: the newest frames in memory, the index of older blocks, and records from both.
//!
//! `reader` reads records. `cache` keeps the newest frames, `blocks` the places of blocks without an index entry, `index`
//! those of older files. `lookup` finds a block in all three, `settled` finds settlements.

pub(in crate::storage) mod blocks;
pub(in crate::storage) mod cache;
pub(in crate::storage) mod index;
pub(in crate::storage) mod lookup;
pub(in crate::storage) mod reader;
pub(in crate::storage) mod settled;
