//! Settings from environment variables: `SYNCGATE_SECTION__KEY`.

use toml::{Table, Value};

use super::{Loader, sections};
use crate::{
    config::{
        SettingPlace, administrator, check,
        schema::{Shape, shape},
    },
    json::nearest::did_you_mean,
};

pub(super) const PREFIX: &str = "SYNCGATE_";

/// Variable with the path of the configuration file; an argument wins over it.
pub(super) const FILE_VARIABLE: &str = "SYNCGATE_CONFIG";

/// Variables of the commands that call a gateway; they are not settings.
const COMMAND_VARIABLES: [&str; 4] = [
    "SYNCGATE_URL",
    "SYNCGATE_TOKEN",
    "SYNCGATE_USER",
    "SYNCGATE_PASSWORD",
];

impl Loader {
    pub(super) fn add_environment(&mut self, variables: Vec<(String, String)>) {
        let mut unknown = Vec::new();
        for (name, text) in variables {
            let Some(rest) = name.strip_prefix(PREFIX) else {
                continue;
            };
            let of_others = [&COMMAND_VARIABLES[..], &administrator::VARIABLES].concat();
            if of_others.contains(&name.as_str()) || is_of_kubernetes(rest) {
                continue;
            }
            let key = key_of_variable(rest);
            if let Some(why) = is_none(&text).filter(|_| key.is_some() || name == FILE_VARIABLE) {
                let path = key.map(|(section, key)| format!("{section}.{key}"));
                self.error(
                    path.unwrap_or_default(),
                    SettingPlace::Environment(name),
                    why,
                );
                continue;
            }
            match key {
                Some((section, key)) => {
                    let mut candidates = Vec::new();
                    let literal = format!("x = {text}").parse::<Table>();
                    candidates.extend(literal.ok().and_then(|mut table| table.remove("x")));
                    let list = text.split(',').map(|part| Value::from(part.trim()));
                    candidates.push(Value::Array(list.collect()));
                    candidates.push(Value::String(text));
                    self.add_value(section, &key, candidates, SettingPlace::Environment(name));
                }
                None if name == FILE_VARIABLE => {}
                None => unknown.push(name),
            }
        }
        let master_key = self
            .merged
            .get("secrets")
            .and_then(|secrets| secrets.get("master_key_env"))
            .and_then(Value::as_str)
            .map(ToOwned::to_owned);
        for name in unknown {
            if master_key.as_deref() != Some(&name) {
                let message = format!(
                    "unknown variable; settings are {PREFIX}SECTION__KEY{}",
                    near_variable(&name)
                );
                self.error("", SettingPlace::Environment(name), message);
            }
        }
    }
}

/// Kubernetes sets these variables in a pod, for a service named `syncgate`.
fn is_of_kubernetes(rest: &str) -> bool {
    ["SERVICE_HOST", "SERVICE_PORT", "PORT"].contains(&rest)
        || rest.starts_with("SERVICE_PORT_")
        || rest.starts_with("PORT_")
}

/// Returns why a variable's value is refused. An empty value would name the working directory, or no file.
fn is_none(text: &str) -> Option<&'static str> {
    if text.trim().is_empty() {
        return Some("is empty; give a value, or unset the variable");
    }
    // Bytes that are not UTF-8 were replaced by this character, so the value would differ from what was meant.
    let is_other = text.contains(char::REPLACEMENT_CHARACTER);
    is_other.then_some("is not UTF-8; write it in UTF-8")
}

/// Returns the section and key that a variable means; `rest` is its name without the prefix.
fn key_of_variable(rest: &str) -> Option<(&'static str, String)> {
    let (section, key) = rest.split_once("__")?;
    let same = |name: &&&str| name.eq_ignore_ascii_case(section);
    let section = sections().iter().find(same)?;
    match shape(&[section])? {
        Shape::Table(keys) => {
            let key = keys.iter().find(|name| name.eq_ignore_ascii_case(key))?;
            Some((section, (*key).to_owned()))
        }
        Shape::Map => {
            let key = check::outcome_key(key).map_or_else(|| key.to_lowercase(), Into::into);
            Some((section, key))
        }
        Shape::Tables(_) | Shape::Leaf => None,
    }
}

fn near_variable(name: &str) -> String {
    let of_administrator = administrator::VARIABLES.iter();
    let mut known: Vec<_> = of_administrator
        .chain([&FILE_VARIABLE])
        .filter_map(|name| name.strip_prefix(PREFIX).map(str::to_owned))
        .collect();
    for section in sections() {
        if let Some(Shape::Table(keys)) = shape(&[section]) {
            let variable = |key: &&str| format!("{section}__{key}").to_uppercase();
            known.extend(keys.iter().map(variable));
        }
    }
    // A name without the section probably means the key.
    let rest = name.strip_prefix(PREFIX).unwrap_or(name);
    let by_key = known
        .iter()
        .find(|known| known.split_once("__").is_some_and(|(_, key)| key == rest));
    match by_key {
        Some(known) => format!("; did you mean \"{PREFIX}{known}\"?"),
        // The prefix is left out, because with it all names would be similar.
        None => did_you_mean(rest, known.iter().map(String::as_str))
            .replace("mean \"", &format!("mean \"{PREFIX}")),
    }
}
