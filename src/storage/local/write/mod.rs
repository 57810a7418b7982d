//! Storing: the queue of requests, the commits of one frame, the open file, and the writer thread.
//!
//! `limits` checks sizes before the queue. `queue` holds requests. `pending` checks the commits of one frame, `alone` the
//! requests that take a frame of their own. `writer` runs the loop, `room` makes the next file, `opened` is the open file.
//! `condition` keeps the health of the log.

pub(in crate::storage) mod alone;
pub(in crate::storage) mod condition;
pub(in crate::storage) mod limits;
pub(in crate::storage) mod opened;
pub(in crate::storage) mod pending;
pub(in crate::storage) mod queue;
pub(in crate::storage) mod room;
pub(in crate::storage) mod writer;
