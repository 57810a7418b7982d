//! What every part runs on: tasks, the clock, settings that are replaced, a cache, random numbers, files and
//! their descriptors, histograms of durations.

pub(crate) mod cache;
pub mod clock;
pub(crate) mod descriptors;
pub(crate) mod files;
pub(crate) mod latency;
pub mod live;
pub(crate) mod random;
pub mod tasks;
