//! Loads settings: defaults, file, environment, arguments; later sources win.
//!
//! Each value is tried alone against the struct that will hold it, so one wrong value hides no other error. A wrong
//! value leaves its default, and [`check`](super::check) then checks that the values fit together.

mod environment;
mod lines;
mod trial;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use toml::{
    Table, Value,
    de::{DeTable, Deserializer},
};

use self::{
    environment::{FILE_VARIABLE, PREFIX},
    lines::note_lines,
    trial::{default_of, fillers, needed, stand_in, try_values},
};
use super::{
    Config, ConfigError, ConfigErrors, SettingPlace, administrator, check, oci,
    quantity::Unit,
    schema::{Shape, shape},
};
use crate::{
    json::nearest::did_you_mean,
    runtime::files::{self, CONFIG_BYTES_MAX},
    users::Administrator,
};

/// The sources of settings.
#[derive(Clone, Default)]
pub struct Sources {
    /// The configuration file, if there is one.
    pub file: Option<PathBuf>,
    /// Environment variables; only those with the prefix `SYNCGATE_` count.
    pub environment: Vec<(String, String)>,
    /// Values from arguments.
    pub overrides: Overrides,
}

/// Shows no values, because a variable may hold the master key or a password.
impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.environment.iter().map(|(name, _)| name).collect();
        f.debug_struct("Sources")
            .field("file", &self.file)
            .field("environment", &names)
            .field("overrides", &self.overrides)
            .finish()
    }
}

/// Settings from arguments.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--data`
    pub data: Option<PathBuf>,
    /// `--listen`
    pub listen: Option<SocketAddr>,
}

/// Checked settings.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings; `[oci_sample]` is merged into the others.
    pub config: Config,
    /// The first administrator, if the environment names one.
    pub administrator: Option<Administrator>,
    /// Warnings about legal settings with a surprising effect.
    pub warnings: Vec<String>,
    /// The sources, for a reload.
    pub(super) sources: Sources,
    /// The settings of the sources, before `[oci_sample]` is merged.
    pub(super) said: Config,
    pub(super) places: Places,
}

/// The source of each value, by the path of its key.
pub(super) type Places = BTreeMap<String, SettingPlace>;

impl Sources {
    /// Returns a file and arguments, with the environment of this process. `SYNCGATE_CONFIG` names the file if `file`
    /// is `None`. In variables that are not UTF-8, wrong bytes become U+FFFD.
    #[must_use]
    pub fn of_process(file: Option<PathBuf>, overrides: Overrides) -> Self {
        let lossy = |text: OsString| text.to_string_lossy().into_owned();
        // `add_environment` refuses an empty name.
        let named = std::env::var_os(FILE_VARIABLE).filter(|file| !file.is_empty());
        Self {
            file: file.or(named.map(PathBuf::from)),
            environment: std::env::vars_os()
                .map(|(name, value)| (lossy(name), lossy(value)))
                .filter(|(name, _)| name.starts_with(PREFIX))
                .collect(),
            overrides,
        }
    }
}

/// Reads and checks all settings.
///
/// # Errors
/// Every error, at once.
pub fn load(sources: Sources) -> Result<Loaded, ConfigErrors> {
    let mut loader = Loader::default();
    if let Some(file) = &sources.file {
        loader.add_file(file.clone());
    }
    loader.add_environment(sources.environment.clone());
    loader.add_overrides(sources.overrides.clone());
    loader.resolve(sources)
}

#[derive(Default)]
struct Loader {
    merged: Table,
    places: Places,
    errors: Vec<ConfigError>,
}

impl Loader {
    fn error(&mut self, key: impl Into<String>, place: SettingPlace, message: impl Into<String>) {
        self.errors.push(ConfigError {
            key: key.into(),
            place,
            message: message.into(),
        });
    }

    fn add_file(&mut self, path: PathBuf) {
        let place = |line| SettingPlace::File {
            path: path.clone(),
            line,
        };
        let text = match files::read_text(&path, CONFIG_BYTES_MAX) {
            Ok(text) => text,
            Err(error) => return self.error("", place(None), format!("cannot be read: {error}")),
        };
        let line_of = |at: usize| 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
        let (tree, broken) = DeTable::parse_recoverable(&text);
        for error in &broken {
            let line = error.span().map(|span| line_of(span.start));
            match error.span().and_then(|span| text.get(span)) {
                Some(key) if is_of_duplicate(error) => {
                    let message = "is repeated: a table or a key may stand in the file once, so put both together";
                    self.error(key, place(line), message);
                }
                _ => self.error("", place(line), error.message()),
            }
        }
        // A broken file is not read further, because its keys would be guesses. Repeated keys are no obstacle: tables
        // are joined, and the first of two values is checked.
        if !broken.iter().all(is_of_duplicate) {
            return;
        }
        let mut lines = BTreeMap::new();
        note_lines(tree.get_ref(), "", &line_of, &mut lines);
        let values = match Table::deserialize(Deserializer::from(tree)) {
            Ok(values) => values,
            Err(error) => {
                let line = error.span().map(|span| line_of(span.start));
                return self.error("", place(line), error.message());
            }
        };
        for (key, value) in values {
            let place_of = |path: &str| place(lines.get(path).copied());
            self.add_section(&key, value, &place_of);
        }
    }

    fn add_section(
        &mut self,
        section: &str,
        value: Value,
        place_of: &dyn Fn(&str) -> SettingPlace,
    ) {
        match (shape(&[section]), value) {
            (None, _) => {
                let near = did_you_mean(section, sections().iter().copied());
                self.error(section, place_of(section), format!("unknown section{near}"));
            }
            (Some(Shape::Tables(keys)), Value::Array(elements)) => {
                for (at, element) in elements.into_iter().enumerate() {
                    self.add_element(section, at, keys, element, place_of);
                }
            }
            (Some(Shape::Tables(_)), _) => self.error(
                section,
                place_of(section),
                format!("must be a list of tables: [[{section}]]"),
            ),
            (Some(shape), Value::Table(table)) => {
                for (key, value) in table {
                    let path = format!("{section}.{key}");
                    let place = place_of(&path);
                    match shape {
                        Shape::Table(keys) if !keys.contains(&key.as_str()) => {
                            let near = did_you_mean(&key, keys.iter().copied());
                            self.error(path, place, format!("unknown key{near}"));
                        }
                        _ => self.add_value(section, &key, vec![value], place),
                    }
                }
                // An empty section counts too, such as `[oci_sample]`.
                self.section(section);
            }
            (Some(_), _) => self.error(
                section,
                place_of(section),
                format!("must be a table: [{section}]"),
            ),
        }
    }

    /// Adds one element of a list of tables. Its keys are tried one by one, beside fillers for the required ones.
    ///
    /// A wrong element stays in the list, so that the elements after it keep the indices that they have in the file.
    fn add_element(
        &mut self,
        section: &str,
        at: usize,
        keys: &[&str],
        element: Value,
        place_of: &dyn Fn(&str) -> SettingPlace,
    ) {
        let own_path = format!("{section}[{at}]");
        let own_place = place_of(&own_path);
        let mut right = stand_in(section, at);
        let Value::Table(mut element) = element else {
            self.error(own_path, own_place, "must be a table");
            return self.push_element(section, right);
        };
        let errors_before = self.errors.len();
        for (key, value) in &mut element {
            let path = format!("{own_path}.{key}");
            let place = place_of(&path);
            if !keys.contains(&key.as_str()) {
                let near = did_you_mean(key, keys.iter().copied());
                self.error(path, place, format!("unknown key{near}"));
                continue;
            }
            match counted(key, value.clone()) {
                Ok(counted) => *value = counted,
                Err(message) => {
                    self.error(path, place, message);
                    continue;
                }
            }
            let mut alone: Table = fillers(section)
                .iter()
                .map(|(key, filler)| ((*key).to_owned(), Value::from(*filler)))
                .collect();
            alone.insert(key.clone(), value.clone());
            match try_values(section, key, Value::Array(vec![alone.into()])) {
                Ok(()) => {
                    right.insert(key.clone(), value.clone());
                    self.places.insert(path, place);
                }
                Err(message) => self.error(path, place, message),
            }
        }
        for (key, example) in needed(section) {
            if !element.contains_key(*key) {
                let path = format!("{own_path}.{key}");
                let message = format!(
                    "is missing; each [[{section}]] needs it, such as {key} = \"{example}\""
                );
                self.error(path, own_place.clone(), message);
            }
        }
        if self.errors.len() == errors_before {
            self.places.insert(own_path, own_place);
            right = element;
        }
        self.push_element(section, right);
    }

    fn push_element(&mut self, section: &str, element: Table) {
        let list = self.merged.entry(section).or_insert(Value::Array(vec![]));
        if let Value::Array(list) = list {
            list.push(element.into());
        }
    }

    /// Takes the first of `candidates` that is legal for the key.
    fn add_value(&mut self, section: &str, key: &str, candidates: Vec<Value>, place: SettingPlace) {
        let path = format!("{section}.{key}");
        let mut wrong = None;
        for value in candidates {
            let value = match counted(key, value) {
                Ok(value) => value,
                Err(message) => {
                    wrong = Some(message);
                    continue;
                }
            };
            let alone = Table::from_iter([(key.to_owned(), value.clone())]);
            match try_values(section, key, alone.into()) {
                Ok(()) => {
                    self.section(section).insert(key.to_owned(), value);
                    self.places.insert(path, place);
                    return;
                }
                // The last candidate is the plain text, whose error is the clearest.
                Err(message) => wrong = Some(message),
            }
        }
        if let Some(mut message) = wrong {
            if let Some(example) = default_of(section, key) {
                message = format!("{message}; the default is {example}");
            }
            self.error(path, place, message);
        }
    }

    fn section(&mut self, section: &str) -> &mut Table {
        let entry = self.merged.entry(section);
        match entry.or_insert_with(|| Table::new().into()) {
            Value::Table(table) => table,
            _ => unreachable!("only tables are put here: lists of tables go through add_element"),
        }
    }

    fn add_overrides(&mut self, overrides: Overrides) {
        if let Some(dir) = overrides.data {
            let dir = Value::String(dir.to_string_lossy().into_owned());
            self.add_value("data", "dir", vec![dir], SettingPlace::Argument("--data"));
        }
        if let Some(listen) = overrides.listen {
            let listen = Value::String(listen.to_string());
            let place = SettingPlace::Argument("--listen");
            self.add_value("server", "listen", vec![listen], place);
        }
    }

    fn resolve(mut self, sources: Sources) -> Result<Loaded, ConfigErrors> {
        let said = Config::deserialize(Value::Table(self.merged.clone()));
        let said = said.unwrap_or_else(|error| {
            self.error("", SettingPlace::Default, error.message());
            Config::default()
        });
        let (loaded, wrong) = assemble(sources, said, self.places);
        self.errors.extend(wrong);
        if self.errors.is_empty() {
            return Ok(loaded);
        }
        self.errors
            .sort_by(|a, b| (&a.place, &a.key).cmp(&(&b.place, &b.key)));
        Err(ConfigErrors(self.errors))
    }
}

/// Merges `[oci_sample]` into the other sections, and checks that the settings fit together. Returns the errors too.
pub(super) fn assemble(
    sources: Sources,
    said: Config,
    places: Places,
) -> (Loaded, Vec<ConfigError>) {
    let (mut findings, mut warnings) = (Vec::new(), Vec::new());
    let mut config = said.clone();
    if let Some(dir) = &sources.overrides.data {
        // The setting is text, and the path may not be UTF-8.
        config.data.dir.clone_from(dir);
    }
    let is_said = |path: &str| places.contains_key(path);
    oci::apply(&mut config, &is_said, &mut findings, &mut warnings);
    check::check(&config, &mut findings);
    let (administrator, wrong_variables) = administrator::read(&sources.environment);
    let loaded = Loaded {
        config,
        administrator,
        warnings,
        sources,
        said,
        places,
    };
    let wrong = findings.into_iter().map(|finding| {
        let said = |key: &&String| loaded.places.contains_key(*key);
        let key = finding.keys.iter().find(said).or(finding.keys.first());
        loaded.error(key.map_or("", String::as_str), finding.message)
    });
    let wrong = wrong.chain(wrong_variables).collect();
    (loaded, wrong)
}

impl Loaded {
    /// Returns the file.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.sources.file.as_deref()
    }

    /// Returns every key that a source gives, and that source, sorted by key.
    pub fn keys(&self) -> impl Iterator<Item = (&str, &SettingPlace)> {
        let places = self.places.iter();
        places.map(|(key, place)| (key.as_str(), place))
    }

    /// Returns an error about a key, with the source of its value.
    pub fn error(&self, key: &str, message: impl Into<String>) -> ConfigError {
        let place = self.places.get(key).cloned();
        ConfigError {
            key: key.into(),
            place: place.unwrap_or(SettingPlace::Default),
            message: message.into(),
        }
    }
}

/// Converts a quantity such as `"64MiB"` to a number, in the unit of the key's name.
fn counted(key: &str, value: Value) -> Result<Value, String> {
    match (Unit::of_setting(key), value) {
        (Some(unit), Value::String(text)) => {
            let number = unit.read_with_unit(&text)?;
            let number = i64::try_from(number).map_err(|_| format!("\"{text}\" is too large"))?;
            Ok(Value::Integer(number))
        }
        (_, value) => Ok(value),
    }
}

fn sections() -> &'static [&'static str] {
    match shape(&[]) {
        Some(Shape::Table(keys)) => keys,
        _ => &[],
    }
}

/// Returns whether the error is only about a repeated key or table.
fn is_of_duplicate(error: &toml::de::Error) -> bool {
    error.message() == "duplicate key"
}
