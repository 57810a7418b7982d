//! The binary: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    syncgate::cli::run(syncgate::cli::Cli::parse())
}
