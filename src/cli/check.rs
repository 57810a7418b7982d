//! `syncgate check`: all errors and warnings of a configuration.

use serde_json::json;

use super::{Failure, Output, output, serve};
use crate::{
    config::{self, ConfigErrors, Loaded, SettingPlace},
    gateway,
};

pub(super) fn run(arguments: serve::Arguments, output: Output) -> Result<(), Failure> {
    let sources = arguments.sources();
    let checked = config::load(sources).and_then(|loaded| warnings(&loaded));
    match (checked, output) {
        (Ok(warnings), Output::Text) => {
            let lines: String = warnings
                .iter()
                .map(|warning| format!("warning: {warning}\n"))
                .collect();
            output::print(&format!("{lines}ok\n"))
        }
        (Ok(warnings), Output::Json) => {
            output::print_json(&json!({"ok": true, "errors": [], "warnings": warnings}))
        }
        (Err(errors), Output::Text) => Err(Failure::usage(errors)),
        (Err(errors), Output::Json) => {
            let list: Vec<_> = errors
                .0
                .iter()
                .map(|error| {
                    let line = match &error.place {
                        SettingPlace::File { line, .. } => *line,
                        SettingPlace::Environment(_) | SettingPlace::Argument(_) | SettingPlace::Default => None,
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

/// Returns warnings about settings that are valid but probably not intended.
///
/// # Errors
/// All errors that a start would refuse.
fn warnings(loaded: &Loaded) -> Result<Vec<String>, ConfigErrors> {
    let mut warnings = loaded.warnings.clone();
    warnings.extend(gateway::check(loaded)?);
    Ok(warnings)
}
