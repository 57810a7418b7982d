//! Reload: reads the settings again while the gateway runs, and splits the changes into applied ones and those that
//! need a restart.
//!
//! The sources are read and checked exactly as at the start. Settings that need a restart keep the value of the
//! start, and the applied ones must fit with those.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde::Deserialize;
use toml::{Table, Value};

use super::{
    Config, ConfigErrors, Loaded,
    load::{assemble, load},
};

/// Keys that keep their value until the process ends, because a socket, a file or the content of a file depends on
/// them. A reload applies all others. `*` stands for any text.
pub const NEEDS_RESTART: [&str; 10] = [
    "server.listen",
    "server.public_url",
    "push.*",
    "data.*",
    "log.*",
    "secrets.*",
    "logging.format",
    "roles.*",
    "oci_sample.*_stream_ocid",
    // A change of a prefix makes all of `[[targets]]` wait: see `prefixes`.
    "targets*.path_prefix",
];

/// The result of a reload.
#[derive(Clone, Debug)]
pub struct Reloaded {
    /// The settings that now hold.
    pub loaded: Loaded,
    /// Applied keys, as in a file: `dispatch.in_flight_max`, `outcomes.401`, `targets[0].origin`; `targets[0]` for an
    /// element that was added or removed.
    pub applied: BTreeSet<String>,
    /// Keys whose new value needs a restart.
    pub needs_restart: BTreeSet<String>,
}

impl Loaded {
    /// Reads the sources again, and compares them with these settings.
    ///
    /// # Errors
    /// Every error, at once.
    pub fn reload(&self) -> Result<Reloaded, ConfigErrors> {
        let read = load(self.sources.clone())?;
        let (before, after) = (table(&self.said), table(&read.said));
        let targets_wait = prefixes(&before) != prefixes(&after);
        let waits =
            |key: &String| needs_restart(key) || targets_wait && key.starts_with("targets[");
        let (needs_restart, applied): (BTreeSet<_>, BTreeSet<_>) =
            changed(&before, &after).into_iter().partition(waits);
        let loaded = match needs_restart.is_empty() {
            true => read,
            false => keep(read, &needs_restart, &before)?,
        };
        Ok(Reloaded {
            loaded,
            applied,
            needs_restart,
        })
    }
}

/// Returns the path prefixes of targets with their origins. Dispatch keeps the prefixes of the start, and without its
/// prefix an element would mean other URLs than in the file. So if any prefix differs, the whole list of targets
/// waits for a restart.
fn prefixes(config: &Table) -> BTreeSet<(&str, &str)> {
    let targets = config.get("targets").and_then(Value::as_array);
    let targets = targets.into_iter().flatten();
    targets
        .filter_map(|target| {
            let prefix = target.get("path_prefix")?.as_str()?;
            Some((target.get("origin")?.as_str()?, prefix))
        })
        .collect()
}

pub(super) fn needs_restart(key: &str) -> bool {
    let fits = |pattern: &&str| match pattern.split_once('*') {
        Some((start, end)) => key.starts_with(start) && key.ends_with(end),
        None => key == *pattern,
    };
    NEEDS_RESTART.iter().any(fits)
}

/// Restores the keys that need a restart, and checks that the others fit with them.
fn keep(read: Loaded, keys: &BTreeSet<String>, before: &Table) -> Result<Loaded, ConfigErrors> {
    let mut said = table(&read.said);
    for key in keys {
        if key.starts_with("targets[") {
            match before.get("targets") {
                Some(targets) => drop(said.insert("targets".into(), targets.clone())),
                None => drop(said.remove("targets")),
            }
            continue;
        }
        // No key of a list is among them.
        let (section, key) = key.split_once('.').unwrap_or((key, ""));
        let value = before.get(section).and_then(|section| section.get(key));
        if let Some(Value::Table(section)) = said.get_mut(section) {
            match value {
                Some(value) => section.insert(key.into(), value.clone()),
                None => section.remove(key),
            };
        }
    }
    let said = Config::deserialize(Value::Table(said))
        .map_err(|error| ConfigErrors(vec![read.error("", error.message())]))?;
    let (loaded, mut wrong) = assemble(read.sources, said, read.places);
    if wrong.is_empty() {
        return Ok(loaded);
    }
    let kept: Vec<_> = keys.iter().map(String::as_str).collect();
    let kept = kept.join(", ");
    for error in &mut wrong {
        error.message += &format!(
            "; until a restart {kept} is as it was at the start: restart, or reload what fits with that first"
        );
    }
    Err(ConfigErrors(wrong))
}

/// Returns every section with its keys, except keys without a value.
fn table(config: &Config) -> Table {
    let mut config = config.clone();
    // An absent section is equal to an empty one.
    config.oci_sample.get_or_insert_default();
    Table::try_from(config).expect("what was read from TOML can be written as TOML")
}

fn changed(before: &Table, after: &Table) -> BTreeSet<String> {
    let mut changed = BTreeSet::new();
    for (section, after) in after {
        match (before.get(section), after) {
            (Some(Value::Table(before)), Value::Table(after)) => {
                changed_keys(section, before, after, &mut changed);
            }
            (Some(Value::Array(before)), Value::Array(after)) => {
                changed_elements(section, before, after, &mut changed);
            }
            _ => unreachable!("a section is a table or a list in every configuration"),
        }
    }
    changed
}

fn changed_keys(of: &str, before: &Table, after: &Table, changed: &mut BTreeSet<String>) {
    let keys = before.keys().chain(after.keys());
    let differs = |key: &&String| before.get(*key) != after.get(*key);
    changed.extend(keys.filter(differs).map(|key| format!("{of}.{key}")));
}

/// Elements are compared by name, at any index.
fn changed_elements(of: &str, before: &[Value], after: &[Value], changed: &mut BTreeSet<String>) {
    let find = |list: &[Value], element: &Value| {
        let same = |other: &&Value| other.get("name") == element.get("name");
        list.iter().find(same).and_then(Value::as_table).cloned()
    };
    for (at, element) in before.iter().enumerate() {
        if find(after, element).is_none() {
            changed.insert(format!("{of}[{at}]"));
        }
    }
    for (at, element) in after.iter().enumerate() {
        match (find(before, element), element.as_table()) {
            (Some(before), Some(after)) => {
                changed_keys(&format!("{of}[{at}]"), &before, after, changed);
            }
            _ => {
                changed.insert(format!("{of}[{at}]"));
            }
        }
    }
}
