//! The command line from outside: the real binary, real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    missing_docs,
    unreachable_pub,
    reason = "test code"
)]

mod commands;
mod process;
