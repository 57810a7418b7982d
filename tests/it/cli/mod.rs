//! The command line from outside.

mod commands;
mod data_streams;
mod on_terminal;
mod process;
mod retry;
mod sync;
mod whole;
