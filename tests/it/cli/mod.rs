//! The command line from outside.

mod check;
mod commands;
mod config;
mod data_streams;
mod not_a_gateway;
mod on_terminal;
mod process;
mod retry;
mod streams;
mod sync;
mod target;
mod whole;
