//! Dispatch over a real log and real sockets.

mod behind;
mod failures;
pub(crate) mod harness;
mod order;
mod requests;
pub(crate) mod stub;
mod targets;
mod tls;
