//! Dispatch over a real log and real sockets.

mod answers;
mod breaker;
mod checkpoints;
mod connections;
mod damage;
mod deferral;
mod failures;
mod growth;
pub(crate) mod harness;
mod http2;
mod lagging;
mod lookups;
mod lost_ends;
mod order;
mod outage;
mod prefixes;
mod purge;
mod rate;
mod reload;
mod requests;
mod shares;
pub(crate) mod stub;
mod targets;
mod tls;
