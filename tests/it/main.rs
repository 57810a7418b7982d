//! The product from outside: the real binary, real sockets, real files.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::missing_panics_doc,
    missing_docs,
    unreachable_pub,
    reason = "test code"
)]

mod testkit;

// Tests begin in the order of their names. This one takes a minute on the fastest machine, so it begins first and the
// others run beside it.
#[path = "storm.rs"]
mod a_storm;
mod backup;
mod bad_input;
mod cli;
mod clients;
mod crash;
mod data_dir;
mod dependencies;
mod dns;
mod docs;
mod doctor;
mod edge;
mod errors;
mod flow;
mod forgotten;
mod idempotency;
mod lifecycle;
mod limits;
mod loss;
mod open_mode;
mod open_records;
mod page_load;
mod payloads;
mod purge;
mod push;
mod records;
mod reload;
mod retry;
mod status;
mod streams;
mod tail;
mod tokens;
mod upgrade;
mod users;
mod verify;
mod warnings;
