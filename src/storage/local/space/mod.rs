//! Space of the disk: what files are needed for, which are freed or written again, and files made ahead.

pub(in crate::storage) mod housekeeper;
pub(in crate::storage) mod reclaim;
pub(in crate::storage) mod rewrite;
pub(in crate::storage) mod spare;
pub(in crate::storage) mod usage;
