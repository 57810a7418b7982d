//! Every effective setting with its source, for operators.

use serde_json::{Map, Value};

use super::{
    Config, Loaded, SettingPlace, administrator,
    quantity::Unit,
    schema::{Shape, shape},
};

/// Shown in place of a credential.
const MASK: &str = "***";

/// An effective setting.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// Path of the key, as in `streams[0].name`.
    pub key: String,
    /// `null` for a setting that is absent and has no default.
    pub value: Value,
    /// The source of the value.
    pub origin: Origin,
    /// The unit of a quantity.
    pub unit: Option<Unit>,
}

/// The source of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file, a variable, an argument, or none of them.
    Said(SettingPlace),
    /// `[oci_sample]` gives the value.
    OciSample,
}

impl Loaded {
    /// Returns every setting in the order of `config/syncgate.toml`, then the variables of the first administrator if
    /// they are set. Values that are or may hold credentials are masked.
    #[must_use]
    pub fn settings(&self) -> Vec<Setting> {
        let (config, said) = (sections(&self.config), sections(&self.said));
        let mut settings = Vec::new();
        for (section, value) in config {
            let said = said.iter().find(|(name, _)| *name == section);
            let said = said.map_or(&Value::Null, |(_, value)| value);
            match (shape(&[section]), &value) {
                (Some(Shape::Table(keys)), Value::Object(values)) => {
                    self.add_table(section, keys, values, said, &mut settings);
                }
                (Some(Shape::Tables(keys)), Value::Array(elements)) => {
                    for (at, element) in elements.iter().enumerate() {
                        let path = format!("{section}[{at}]");
                        let said = said.get(at).unwrap_or(&Value::Null);
                        if let Some(values) = element.as_object() {
                            self.add_table(&path, keys, values, said, &mut settings);
                        }
                    }
                }
                (Some(Shape::Map), Value::Object(values)) => {
                    let keys: Vec<_> = values.keys().map(String::as_str).collect();
                    self.add_table(section, &keys, values, said, &mut settings);
                }
                // An absent `[oci_sample]`.
                _ => {}
            }
        }
        if let Some(administrator) = &self.administrator {
            let values = [administrator.name.to_string(), MASK.into()];
            let variables = administrator::VARIABLES.into_iter().zip(values);
            settings.extend(variables.map(|(name, value)| Setting {
                key: name.into(),
                value: value.into(),
                origin: Origin::Said(SettingPlace::Environment(name.into())),
                unit: None,
            }));
        }
        settings
    }

    fn add_table(
        &self,
        path: &str,
        keys: &[&str],
        values: &Map<String, Value>,
        said: &Value,
        settings: &mut Vec<Setting>,
    ) {
        for key in keys {
            let value = values.get(*key).cloned().unwrap_or_default();
            // An element of a list has many keys, of which few are set.
            if path.ends_with(']') && value.is_null() {
                continue;
            }
            let full = format!("{path}.{key}");
            let origin = match self.places.get(&full) {
                Some(place) => Origin::Said(place.clone()),
                None if said.get(key).unwrap_or(&Value::Null) == &value => {
                    Origin::Said(SettingPlace::Default)
                }
                None => Origin::OciSample,
            };
            settings.push(Setting {
                value: masked(&full, value),
                key: full,
                origin,
                unit: Unit::of_setting(key),
            });
        }
    }
}

/// Returns the sections in the order of the struct.
fn sections(config: &Config) -> Vec<(&'static str, Value)> {
    let mut values = serde_json::to_value(config).expect("settings are made of JSON's values");
    let Some(Shape::Table(names)) = shape(&[]) else {
        return Vec::new();
    };
    let take = |name: &&'static str| (*name, values[*name].take());
    names.iter().map(take).collect()
}

/// Masks the arguments of a command, because they may hold a token for a key store.
fn masked(key: &str, value: Value) -> Value {
    match (key, value) {
        ("secrets.master_key_command", Value::Array(words)) => {
            let word = |(at, word)| if at == 0 { word } else { MASK.into() };
            words.into_iter().enumerate().map(word).collect()
        }
        (_, value) => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, Sources, load};

    fn settings(text: &str, environment: &[(&str, &str)]) -> Vec<Setting> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("t.toml");
        std::fs::write(&file, text).unwrap();
        let owned = |(name, value): &(&str, &str)| ((*name).into(), (*value).into());
        let sources = Sources {
            file: Some(file),
            environment: environment.iter().map(owned).collect(),
            overrides: Overrides {
                data: Some("of-the-argument".into()),
                listen: None,
            },
        };
        load(sources).unwrap().settings()
    }

    #[track_caller]
    fn check(settings: &[Setting], key: &str, value: &str, origin: &str) {
        let setting = settings.iter().find(|setting| setting.key == key);
        let setting = setting.unwrap_or_else(|| panic!("no {key}"));
        assert_eq!(setting.value.to_string(), value, "{key}");
        let shown = match &setting.origin {
            Origin::OciSample => "[oci_sample]".into(),
            Origin::Said(place) => place.to_string(),
        };
        assert!(shown.ends_with(origin), "{key}: {shown}");
    }

    #[test]
    fn each_setting_has_its_source() {
        let all = settings(
            "[server]\ngrace_ms = \"5s\"\n[outcomes]\n404 = \"default\"\n\
             [[targets]]\nname = \"a\"\norigin = \"http://a\"\n\
             [oci_sample]\ncompat = true\ndata_stream_ocid = \"ocid1.a\"",
            &[("SYNCGATE_LOG__CACHE_BYTES", "32MiB")],
        );
        check(&all, "server.grace_ms", "5000", "t.toml, line 2");
        check(&all, "server.request_timeout_ms", "30000", "default");
        check(&all, "server.public_url", "null", "default");
        check(
            &all,
            "log.cache_bytes",
            "33554432",
            "SYNCGATE_LOG__CACHE_BYTES",
        );
        check(&all, "data.dir", "\"of-the-argument\"", "--data");
        check(&all, "outcomes.404", "\"default\"", "t.toml, line 4");
        check(&all, "targets[0].name", "\"a\"", "t.toml, line 6");
        check(&all, "targets[0].body_always", "false", "default");
        check(&all, "sync.answer", "\"text\"", "[oci_sample]");
        check(&all, "streams[0].ocid", "\"ocid1.a\"", "[oci_sample]");
        check(
            &all,
            "oci_sample.data_stream_ocid",
            "\"ocid1.a\"",
            "line 10",
        );
    }

    #[test]
    fn values_that_may_hold_credentials_are_masked() {
        let all = settings(
            "[secrets]\nmaster_key_command = [\"get-key\", \"--token\", \"t0ps3cret\"]",
            &[
                ("SYNCGATE_ADMIN_USER", "ada"),
                ("SYNCGATE_ADMIN_PASSWORD", "correct horse battery"),
            ],
        );
        let password = "SYNCGATE_ADMIN_PASSWORD";
        check(&all, password, "\"***\"", password);
        check(
            &all,
            "SYNCGATE_ADMIN_USER",
            "\"ada\"",
            "SYNCGATE_ADMIN_USER",
        );
        check(
            &all,
            "secrets.master_key_command",
            r#"["get-key","***","***"]"#,
            "line 2",
        );
    }
}
