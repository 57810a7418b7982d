//! Disk space: the use of files (`usage`), freeing and compaction (`reclaim`, `rewrite`), files made ahead (`spare`), and
//! the thread that does this (`housekeeper`).

pub(in crate::storage) mod housekeeper;
pub(in crate::storage) mod reclaim;
pub(in crate::storage) mod rewrite;
pub(in crate::storage) mod spare;
pub(in crate::storage) mod usage;
