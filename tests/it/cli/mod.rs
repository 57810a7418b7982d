//! The command line from outside.

mod commands;
mod process;
mod sync;
mod whole;
