//! What every part runs on: tasks, the clock, settings that are replaced, a cache, random numbers, files and their descriptors.

pub(crate) mod cache;
pub mod clock;
pub(crate) mod descriptors;
pub(crate) mod files;
pub mod live;
pub(crate) mod random;
pub mod tasks;
