//! `syncgate config default|show`: the reference of all settings, and the settings in effect with their origin.

use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    Failure, Output,
    output::{self, Table},
    serve,
};
use crate::config::{Config, Origin, Setting, SettingPlace};

/// Every setting at its default, with its unit and effect.
const REFERENCE: &str = include_str!("../../config/syncgate.toml");

/// The meaning of the columns, at the end of the help.
const COLUMNS: &str = "\
Columns:
  SETTING  section and name, as in the file
  VALUE    value in effect; secrets are masked
  ORIGIN   file, variable or argument that set it, or default";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Prints every setting at its default, with unit and effect, as a file to start from.
    Default,
    /// Shows every setting as `serve` would read it with the same arguments and variables, and its origin: the file, a
    /// variable, an argument, or the default.
    #[command(after_help = COLUMNS)]
    Show(serve::Arguments),
}

pub(super) fn run(command: Command, output: Output) -> Result<(), Failure> {
    match (command, output) {
        (Command::Default, Output::Text) => output::print(REFERENCE),
        (Command::Default, Output::Json) => {
            let defaults = serde_json::to_value(Config::default());
            output::print_json(&defaults.map_err(|error| Failure::failed_by(&error))?)
        }
        (Command::Show(arguments), output) => show(arguments, output),
    }
}

fn show(arguments: serve::Arguments, output: Output) -> Result<(), Failure> {
    let loaded = arguments.settings()?;
    let settings = loaded.settings();
    if output == Output::Json {
        let list: Vec<_> = settings.iter().map(as_json).collect();
        return output::print_json(&json!({"settings": list, "warnings": loaded.warnings}));
    }
    for warning in &loaded.warnings {
        output::say(&format!("warning: {warning}"));
    }
    let mut table = Table::new(&["SETTING", "VALUE", "ORIGIN"]);
    for setting in &settings {
        table.row([
            setting.key.clone(),
            value_text(setting),
            origin_text(&setting.origin),
        ]);
    }
    output::print(&table.text())
}

fn as_json(setting: &Setting) -> Value {
    let (origin, line) = match &setting.origin {
        Origin::OciSample => ("oci_sample", None),
        Origin::Said(SettingPlace::Default) => ("default", None),
        Origin::Said(SettingPlace::File { line, .. }) => ("file", *line),
        Origin::Said(SettingPlace::Environment(_)) => ("variable", None),
        Origin::Said(SettingPlace::Argument(_)) => ("argument", None),
    };
    let name = match &setting.origin {
        Origin::Said(SettingPlace::File { path, .. }) => Some(path.display().to_string()),
        Origin::Said(SettingPlace::Environment(name)) => Some(name.clone()),
        Origin::Said(SettingPlace::Argument(name)) => Some((*name).to_owned()),
        Origin::OciSample | Origin::Said(SettingPlace::Default) => None,
    };
    json!({
        "key": setting.key,
        "value": setting.value,
        "origin": {"kind": origin, "name": name, "line": line},
    })
}

/// Returns a string without quotes, a list with commas, a quantity with its unit: `67108864 (64MiB)`.
fn value_text(setting: &Setting) -> String {
    let text = output::cell(&setting.value, "");
    match (&setting.value, setting.unit) {
        (Value::Number(number), Some(unit)) => match number.as_u64() {
            Some(number) => format!("{text} ({})", unit.words(number)),
            None => text,
        },
        (Value::Array(elements), _) if !elements.is_empty() => {
            let elements = elements.iter().map(|element| output::cell(element, ""));
            elements.collect::<Vec<_>>().join(", ")
        }
        _ => text,
    }
}

fn origin_text(origin: &Origin) -> String {
    match origin {
        Origin::OciSample => "[oci_sample]".into(),
        Origin::Said(place) => place.to_string(),
    }
}
