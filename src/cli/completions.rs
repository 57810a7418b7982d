//! `syncgate completions SHELL`: the script that completes commands and options.

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};
use serde_json::json;

use super::{Cli, Failure, Output, output};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The shell. For bash: syncgate completions bash > /usr/share/bash-completion/completions/syncgate
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments, output: Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    generate(
        arguments.shell,
        &mut Cli::command(),
        "syncgate",
        &mut script,
    );
    let script = String::from_utf8_lossy(&script);
    match output {
        Output::Text => output::print_verbatim(&script),
        Output::Json => {
            let shell = arguments.shell.to_string();
            output::print_json(&json!({"shell": shell, "script": script}))
        }
    }
}
