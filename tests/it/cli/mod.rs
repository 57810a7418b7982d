//! The command line from outside.

mod commands;
mod config;
mod on_terminal;
mod process;
mod retry;
mod sync;
mod whole;
