//! The base of all parts: tasks, clock, live settings, cache, random numbers, histograms of durations, files,
//! certificates, file descriptors.

pub(crate) mod authorities;
pub(crate) mod cache;
pub mod clock;
pub(crate) mod descriptors;
pub(crate) mod files;
pub(crate) mod latency;
pub mod live;
pub(crate) mod random;
pub mod tasks;
