//! The product from outside: the real binary, real sockets, real files.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::missing_panics_doc,
    missing_docs,
    unreachable_pub,
    reason = "test code"
)]

mod harness;

mod bad_input;
mod cli;
mod clients;
mod crash;
mod doctor;
mod errors;
mod flow;
mod idempotency;
mod lifecycle;
mod limits;
mod loss;
mod purge;
mod push;
mod readme;
mod reload;
mod retry;
mod storm;
mod streams;
mod tail;
mod users;
mod verify;
