//! Opening a directory: its lock, its journal read from the first frame on, and looks that change nothing.

pub mod at_rest;
pub(in crate::storage) mod exposure;
pub(in crate::storage) mod opening;
pub(in crate::storage) mod recovery;
