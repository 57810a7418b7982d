//! The command line from outside.

mod commands;
mod process;
mod retry;
mod sync;
mod whole;
