//! Tries one value at a time against the struct that will hold it.

use serde::Deserialize;
use toml::{Table, Value};

use crate::config::{Config, check::ranges::range_of};

/// Required keys of an element of a list, each with a value that is always legal.
pub(super) fn fillers(section: &str) -> &'static [(&'static str, &'static str)] {
    match section {
        "streams" => &[("name", "any")],
        "targets" => &[("name", "any"), ("origin", "http://any")],
        _ => &[],
    }
}

/// Required keys of an element of a list, each with an example.
pub(super) fn needed(section: &str) -> &'static [(&'static str, &'static str)] {
    match section {
        "streams" => &[("name", "Orders")],
        "targets" => &[
            ("name", "orders"),
            ("origin", "https://orders.example:8443"),
        ],
        _ => &[],
    }
}

/// Returns values for the required keys of a wrong element; `at` keeps two such elements distinct. They are never
/// used, because the error of the element ends the load.
pub(super) fn stand_in(section: &str, at: usize) -> Table {
    let required = fillers(section).iter();
    let mut values: Table = required
        .map(|(key, filler)| ((*key).to_owned(), format!("{filler}-{at}").into()))
        .collect();
    if section == "targets" {
        // The wrong key may be the prefix, and without a prefix the origin may repeat that of another target.
        values.insert("path_prefix".into(), format!("/any-{at}").into());
    }
    values
}

/// Tries a section with one value, which is that of `key`.
pub(super) fn try_values(section: &str, key: &str, values: Value) -> Result<(), String> {
    let alone = Table::from_iter([(section.to_owned(), values)]);
    match Config::deserialize(Value::Table(alone)) {
        Ok(_) => Ok(()),
        Err(error) => {
            let right = match range_of(section, key) {
                Some(range) => format!("{} to {}", range.start(), range.end()),
                None => "0 or more".to_owned(),
            };
            let mut message = error.message().to_owned();
            for number in ["usize", "u64", "u32", "u16"] {
                message = message.replace(
                    &format!("expected {number}"),
                    &format!("expected a whole number, {right}"),
                );
            }
            Err(message)
        }
    }
}

pub(super) fn default_of(section: &str, key: &str) -> Option<String> {
    let defaults = Table::try_from(Config::default()).ok()?;
    match defaults.get(section)?.get(key)? {
        Value::Array(list) if list.is_empty() => Some("[]".into()),
        value => Some(value.to_string()),
    }
}
