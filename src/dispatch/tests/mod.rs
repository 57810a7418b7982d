//! Dispatch over a real log and real sockets.

mod behind;
mod failures;
mod gates;
pub(crate) mod harness;
mod order;
mod reload;
mod requests;
pub(crate) mod stub;
mod targets;
mod tls;
