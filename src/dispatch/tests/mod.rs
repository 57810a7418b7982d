//! Dispatch over a real log and real sockets.

mod behind;
mod damage;
mod failures;
mod gates;
mod growth;
pub(crate) mod harness;
mod hints;
mod order;
mod purge;
mod reload;
mod requests;
mod shares;
pub(crate) mod stub;
mod targets;
mod tls;
