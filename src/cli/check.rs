//! `syncgate check`: everything that is wrong with a configuration.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{Failure, Output, output};
use crate::config::{self, Overrides, Place, Sources};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The file; without it SYNCGATE_CONFIG names one, else defaults and environment are checked.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(arguments: Arguments, output: Output) -> Result<(), Failure> {
    let sources = Sources::of_process(arguments.config, Overrides::default());
    match (config::load(sources), output) {
        (Ok(loaded), Output::Text) => {
            let warnings = loaded.warnings.iter();
            let lines: String = warnings
                .map(|warning| format!("warning: {warning}\n"))
                .collect();
            output::print(&format!("{lines}ok\n"))
        }
        (Ok(loaded), Output::Json) => {
            output::print_json(&json!({"ok": true, "errors": [], "warnings": loaded.warnings}))
        }
        (Err(errors), Output::Text) => Err(Failure::usage(errors)),
        (Err(errors), Output::Json) => {
            let list: Vec<_> = errors
                .0
                .iter()
                .map(|error| {
                    let line = match &error.place {
                        Place::File { line, .. } => *line,
                        Place::Environment(_) | Place::Argument(_) | Place::Default => None,
                    };
                    let place = error.place.to_string();
                    json!({"key": error.key, "place": place, "line": line, "message": error.message})
                })
                .collect();
            output::print_json(&json!({"ok": false, "errors": list, "warnings": []}))?;
            let count = u64::try_from(errors.0.len()).unwrap_or(u64::MAX);
            Err(Failure::usage(format!(
                "the configuration has {}",
                output::counted(count, "error")
            )))
        }
    }
}
