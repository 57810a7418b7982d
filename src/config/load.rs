//! Puts settings together: defaults, file, environment, arguments, the later ones winning.
//!
//! Each value is tried by itself against the struct that will hold it, so that one wrong value hides no other. A value
//! that is wrong leaves its default behind, and [`check`](super::check) then looks at how the values fit together.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use toml::{
    Spanned, Table, Value,
    de::{DeTable, DeValue, Deserializer},
};

use super::{
    Config, ConfigError, ConfigErrors, SettingPlace, administrator,
    check::{self, ranges::range_of},
    oci,
    quantity::Unit,
    schema::{Shape, shape},
};
use crate::{
    json::nearest::did_you_mean,
    runtime::files::{self, CONFIG_BYTES_MAX},
    users::Administrator,
};

/// Where settings come from.
#[derive(Clone, Default)]
pub struct Sources {
    /// The file; without one none is read.
    pub file: Option<PathBuf>,
    /// Environment variables; those that do not begin with `SYNCGATE_` are not looked at.
    pub environment: Vec<(String, String)>,
    /// Values of arguments.
    pub overrides: Overrides,
}

/// A variable may hold the master key, or a password.
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

/// Settings that arguments can give.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--data`
    pub data: Option<PathBuf>,
    /// `--listen`
    pub listen: Option<SocketAddr>,
}

/// Settings that were checked.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings, with those of `[oci_sample]` already where they belong.
    pub config: Config,
    /// The first administrator, if the environment names one.
    pub administrator: Option<Administrator>,
    /// What is legal but will not do what one may think.
    pub warnings: Vec<String>,
    /// Where all of it came from, to be read again.
    pub(super) sources: Sources,
    /// The settings as they were said, `[oci_sample]` and the rest side by side.
    pub(super) said: Config,
    pub(super) places: Places,
}

/// Where each value was said, by the path of its key.
pub(super) type Places = BTreeMap<String, SettingPlace>;

impl Sources {
    /// A file and arguments, with the environment of this process. Without a file, `SYNCGATE_CONFIG` names it. Variables
    /// that are not UTF-8 are read as far as they are.
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
/// Everything that is wrong, at once.
pub fn load(sources: Sources) -> Result<Loaded, ConfigErrors> {
    let mut loader = Loader::default();
    if let Some(file) = &sources.file {
        loader.add_file(file.clone());
    }
    loader.add_environment(sources.environment.clone());
    loader.add_overrides(sources.overrides.clone());
    loader.resolve(sources)
}

const PREFIX: &str = "SYNCGATE_";

/// Variable that names the configuration file, where no argument does.
const FILE_VARIABLE: &str = "SYNCGATE_CONFIG";

/// Variables of the commands that talk to a gateway; they are no settings of one.
const COMMAND_VARIABLES: [&str; 4] = [
    "SYNCGATE_URL",
    "SYNCGATE_TOKEN",
    "SYNCGATE_USER",
    "SYNCGATE_PASSWORD",
];

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
                    let message = "is there twice: a table or a key may stand in the file once, so put both together";
                    self.error(key, place(line), message);
                }
                _ => self.error("", place(line), error.message()),
            }
        }
        // What can be guessed of a broken file would only give errors that are none. What is there twice hides nothing: tables
        // are joined, and of two values the first one is looked at.
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
                // A section that is there but empty says something too: `[oci_sample]`.
                self.section(section);
            }
            (Some(_), _) => self.error(
                section,
                place_of(section),
                format!("must be a table: [{section}]"),
            ),
        }
    }

    /// Takes one element of a list of tables; its keys are tried one by one beside fillers for the required ones.
    ///
    /// A wrong element keeps its place in the list, so that the numbers of those behind it stay as in the file.
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

    /// Takes the first of `candidates` that the key can hold.
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
                // What is said of the last candidate, the plain text, is the easiest to understand.
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

    fn add_environment(&mut self, variables: Vec<(String, String)>) {
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

/// Takes `[oci_sample]` apart and looks how everything fits together; what does not is named beside it.
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
    /// Returns the file that was read.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.sources.file.as_deref()
    }

    /// Returns every key that was said, with the place where, by key.
    pub fn keys(&self) -> impl Iterator<Item = (&str, &SettingPlace)> {
        let places = self.places.iter();
        places.map(|(key, place)| (key.as_str(), place))
    }

    /// Returns an error about a key, with the place where it was said.
    pub fn error(&self, key: &str, message: impl Into<String>) -> ConfigError {
        let place = self.places.get(key).cloned();
        ConfigError {
            key: key.into(),
            place: place.unwrap_or(SettingPlace::Default),
            message: message.into(),
        }
    }
}

/// Returns a value in which the text of a quantity, such as `64MiB`, is a number in the unit that the key names.
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

/// What the elements of a list must have, with a value that is always legal.
fn fillers(section: &str) -> &'static [(&'static str, &'static str)] {
    match section {
        "streams" => &[("name", "any")],
        "targets" => &[("name", "any"), ("origin", "http://any")],
        _ => &[],
    }
}

/// What the elements of a list must have, with an example.
fn needed(section: &str) -> &'static [(&'static str, &'static str)] {
    match section {
        "streams" => &[("name", "Orders")],
        "targets" => &[
            ("name", "orders"),
            ("origin", "https://orders.example:8443"),
        ],
        _ => &[],
    }
}

/// Values for what a wrong element lacks. The number in them keeps two such elements apart. Nothing runs with them: the
/// error of the element ends the load.
fn stand_in(section: &str, at: usize) -> Table {
    let required = fillers(section).iter();
    let mut values: Table = required
        .map(|(key, filler)| ((*key).to_owned(), format!("{filler}-{at}").into()))
        .collect();
    if section == "targets" {
        // The wrong key may have been meant as the prefix; the origin alone may be that of another target.
        values.insert("path_prefix".into(), format!("/any-{at}").into());
    }
    values
}

/// Tries a section in which `key` is what may be wrong.
fn try_values(section: &str, key: &str, values: Value) -> Result<(), String> {
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

fn default_of(section: &str, key: &str) -> Option<String> {
    let defaults = Table::try_from(Config::default()).ok()?;
    match defaults.get(section)?.get(key)? {
        Value::Array(list) if list.is_empty() => Some("[]".into()),
        value => Some(value.to_string()),
    }
}

/// In a pod, Kubernetes sets these for a service that is called `syncgate`.
fn is_of_kubernetes(rest: &str) -> bool {
    ["SERVICE_HOST", "SERVICE_PORT", "PORT"].contains(&rest)
        || rest.starts_with("SERVICE_PORT_")
        || rest.starts_with("PORT_")
}

/// Returns why the value of a variable is refused. An empty value would name the working directory, or no file at all.
fn is_none(text: &str) -> Option<&'static str> {
    if text.trim().is_empty() {
        return Some("is empty; give a value, or unset the variable");
    }
    // Bytes that are not UTF-8 have become this character by now, so the value would be another one.
    let is_other = text.contains(char::REPLACEMENT_CHARACTER);
    is_other.then_some("is not UTF-8; write it in UTF-8")
}

/// Returns section and key that a variable's name, without the prefix, stands for.
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
    // Who forgets the section means the key.
    let rest = name.strip_prefix(PREFIX).unwrap_or(name);
    let by_key = known
        .iter()
        .find(|known| known.split_once("__").is_some_and(|(_, key)| key == rest));
    match by_key {
        Some(known) => format!("; did you mean \"{PREFIX}{known}\"?"),
        // Compared without the prefix, which would make all of them alike.
        None => did_you_mean(rest, known.iter().map(String::as_str))
            .replace("mean \"", &format!("mean \"{PREFIX}")),
    }
}

/// Returns whether a file is broken only because something is there twice.
fn is_of_duplicate(error: &toml::de::Error) -> bool {
    error.message() == "duplicate key"
}

/// Notes the line of every key, by path.
fn note_lines(
    table: &DeTable<'_>,
    under: &str,
    line_of: &dyn Fn(usize) -> usize,
    lines: &mut BTreeMap<String, usize>,
) {
    for (key, value) in table {
        let path = match under {
            "" => key.get_ref().to_string(),
            under => format!("{under}.{}", key.get_ref()),
        };
        lines.insert(path.clone(), line_of(key.span().start));
        note_lines_of_value(value, &path, line_of, lines);
    }
}

fn note_lines_of_value(
    value: &Spanned<DeValue<'_>>,
    path: &str,
    line_of: &dyn Fn(usize) -> usize,
    lines: &mut BTreeMap<String, usize>,
) {
    match value.get_ref() {
        DeValue::Table(table) => note_lines(table, path, line_of, lines),
        DeValue::Array(elements) => {
            for (at, element) in elements.iter().enumerate() {
                let path = format!("{path}[{at}]");
                lines.insert(path.clone(), line_of(element.span().start));
                note_lines_of_value(element, &path, line_of, lines);
            }
        }
        _ => {}
    }
}
