//! Dispatch over a real log and real sockets.

mod answers;
mod behind;
mod breaker;
mod connections;
mod damage;
mod deferral;
mod failures;
mod growth;
pub(crate) mod harness;
mod hints;
mod http2;
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
