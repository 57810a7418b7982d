//! The files and variables that a copy needs on another machine, and the commands that restore and start it there.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf, absolute},
};

use serde_json::{Value, json};

use crate::{
    cli::{Failure, next, output::counted},
    config::{Loaded, SettingPlace},
    secrets::{Kept, KeyFile, KeySource, MasterKeyError, Trial},
};

/// The place of a copy's master key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeyPlace {
    /// Nothing is sealed in the copy, so a start makes a new key file.
    Nowhere,
    /// The copy holds the key; a start looks for it at this path.
    InCopy(PathBuf),
    /// The key is in a file.
    File(PathBuf),
    /// The key is in an environment variable of this name.
    Variable(String),
    /// This program prints it.
    Command(String),
}

impl KeyPlace {
    pub(super) fn of(source: &KeySource, kept: &Kept, in_copy: bool) -> Self {
        match source {
            KeySource::Command { program, .. } => Self::Command(program.clone()),
            KeySource::Variable(name) => Self::Variable(name.clone()),
            KeySource::File(file) if in_copy => Self::InCopy(file.path().into()),
            KeySource::File(_) if kept.tokens_len() == 0 => Self::Nowhere,
            KeySource::File(file) => Self::File(file.path().into()),
        }
    }
}

/// Everything a restore needs beside the copy. Paths are absolute.
#[derive(Debug)]
pub(super) struct Needs {
    tokens_len: usize,
    key: KeyPlace,
    /// Whether the present key opens the tokens; `None` if it was not tried.
    key_opens: Option<bool>,
    /// The present key is another one.
    key_is_wrong: bool,
    /// The file, and the sections and keys that it sets.
    config: Option<(PathBuf, Vec<String>)>,
    /// Environment variables with settings.
    variables: Vec<String>,
    /// Other files that settings name, with the key.
    files: Vec<(&'static str, PathBuf)>,
    /// The directory in which the commands must run, because settings name files relative to it.
    working_dir: Option<PathBuf>,
    commands: Vec<String>,
}

impl Needs {
    pub(super) fn of(
        settings: &Loaded,
        copy: &Path,
        key: KeyPlace,
        tokens_len: usize,
        trial: &Trial,
    ) -> Result<Self, Failure> {
        let config = &settings.config;
        let (copy, data) = (whole(copy)?, whole(&config.data.dir)?);
        let (mut keys, mut variables) = (BTreeSet::new(), BTreeSet::new());
        for (key, place) in settings.keys() {
            match place {
                SettingPlace::File { .. } => drop(keys.insert(short(key))),
                SettingPlace::Environment(name) => drop(variables.insert(name.clone())),
                SettingPlace::Argument(_) | SettingPlace::Default => {}
            }
        }
        // The commands name the directory.
        variables.remove("SYNCGATE_DATA__DIR");
        let mut files = Vec::new();
        if let Some(file) = &config.dispatch.ca_file {
            files.push(("dispatch.ca_file", file.clone()));
        }
        let mut named: Vec<&Path> = files.iter().map(|(_, file)| &**file).collect();
        named.extend(config.secrets.master_key_file.as_deref());
        let working_dir = match named.iter().any(|file| file.is_relative()) {
            true => Some(whole(Path::new("."))?),
            false => None,
        };
        for (_, file) in &mut files {
            *file = whole(file)?;
        }
        let key = match key {
            KeyPlace::InCopy(path) => KeyPlace::InCopy(whole(&path)?),
            KeyPlace::File(path) => KeyPlace::File(whole(&path)?),
            other => other,
        };
        let file = settings.file().map(whole).transpose()?;
        let commands = commands(&copy, &data, file.as_deref(), &key);
        Ok(Self {
            tokens_len,
            key,
            key_opens: trial.opens(),
            key_is_wrong: trial.opens() == Some(false)
                && !matches!(trial, Trial::Refused(MasterKeyError::Missing { .. })),
            config: file.map(|file| (file, keys.into_iter().collect())),
            variables: variables.into_iter().collect(),
            files,
            working_dir,
            commands,
        })
    }

    pub(super) fn json(&self) -> Value {
        let key = match &self.key {
            KeyPlace::Nowhere => Value::Null,
            KeyPlace::InCopy(path) => json!({"file": path, "inCopy": true}),
            KeyPlace::File(path) => json!({"file": path, "inCopy": false}),
            KeyPlace::Variable(name) => json!({"variable": name}),
            KeyPlace::Command(program) => json!({"command": program}),
        };
        let config = self.config.as_ref();
        json!({
            "tokens": self.tokens_len,
            "needs": {
                "masterKey": key,
                "masterKeyFits": self.key_opens,
                "configFile": config.map(|(file, _)| file),
                "settings": config.map(|(_, keys)| keys),
                "variables": self.variables,
                "files": self.files.iter().map(|(_, file)| file).collect::<Vec<_>>(),
                "workingDirectory": self.working_dir,
            },
            "commands": self.commands,
        })
    }

    pub(super) fn text(&self) -> String {
        let mut items = vec![self.key_text()];
        if let Some((file, keys)) = &self.config {
            let file = file.display();
            items.push(match keys.is_empty() {
                true => format!("the configuration file {file}, which sets nothing yet"),
                false => format!(
                    "the configuration file {file}, which sets {}",
                    keys.join(", ")
                ),
            });
        }
        for name in &self.variables {
            items.push(format!("the environment variable {name}, as it is here"));
        }
        for (key, file) in &self.files {
            items.push(format!("the file {} ({key})", file.display()));
        }
        let mut text = "The copy needs:\n".to_owned();
        for item in items {
            text += &format!("- {item}\n");
        }
        let place = match &self.working_dir {
            Some(dir) => format!(" in {}", dir.display()),
            None => String::new(),
        };
        text += &format!(
            "\nTo restore and start it on an empty machine, with the copy and all of that at the same paths, run{place}:\n\n"
        );
        for command in &self.commands {
            text += &format!("    {command}\n");
        }
        text
    }

    fn key_text(&self) -> String {
        let tokens = match self.tokens_len {
            0 => "no token is".into(),
            1 => "1 token is".into(),
            len => format!("{} are", counted(len as u64, "token")),
        };
        let lost = match self.tokens_len {
            0 => "sealed with it yet",
            _ => "sealed with it, and lost without it",
        };
        match &self.key {
            KeyPlace::Nowhere => {
                "no master key, as no token is sealed in it: the start makes a new one".into()
            }
            KeyPlace::InCopy(_) if self.tokens_len == 0 => {
                "no other master key than the one in the copy: no token is sealed with it yet"
                    .into()
            }
            KeyPlace::InCopy(_) => format!(
                "no other master key than the one in the copy: {tokens} sealed with it, so keep the copy as secret as they \
                 are"
            ),
            KeyPlace::File(path) if self.key_is_wrong => format!(
                "the right master key in the file {}; the one that is there now is another one: {tokens} {lost}{}",
                path.display(),
                self.brought_text()
            ),
            KeyPlace::File(path) => format!(
                "the master key file {}, which is {}: {tokens} {lost}, so keep it elsewhere too{}",
                path.display(),
                match path.exists() {
                    true => "not in the copy",
                    false => "missing here",
                },
                self.brought_text()
            ),
            KeyPlace::Variable(name) => {
                format!("the environment variable {name} with the master key: {tokens} {lost}")
            }
            KeyPlace::Command(program) => format!(
                "the command {program}, which prints the master key (secrets.master_key_command): {tokens} {lost}"
            ),
        }
    }

    fn brought_text(&self) -> &'static str {
        match self.key_is_brought() {
            true => "; have it as ./master.key where you run the commands",
            false => "",
        }
    }

    /// Returns whether the key must be installed after the restore, because it belongs in the data directory.
    fn key_is_brought(&self) -> bool {
        let brings = |command: &String| command.starts_with("install ");
        self.commands.iter().any(brings)
    }
}

fn commands(copy: &Path, data: &Path, config: Option<&Path>, key: &KeyPlace) -> Vec<String> {
    let options = match config {
        Some(config) => format!("--config {} --data {}", quoted(config), quoted(data)),
        None => format!("--data {}", quoted(data)),
    };
    let mut commands = vec![format!(
        "syncgate backup restore {} {options}",
        quoted(copy)
    )];
    let own = data.join(KeyFile::NAME);
    let install =
        |from: &Path, to: &Path| format!("install -D -m 600 {} {}", quoted(from), quoted(to));
    match key {
        KeyPlace::File(path) if path.starts_with(data) => {
            commands.push(install(Path::new(KeyFile::NAME), path));
        }
        KeyPlace::InCopy(path) if *path != own => {
            commands.push(install(&copy.join(KeyFile::NAME), path));
        }
        _ => {}
    }
    commands.push(format!("syncgate serve {options}"));
    commands
}

fn whole(path: &Path) -> Result<PathBuf, Failure> {
    absolute(path).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))
}

/// Returns the name of a setting, without the number or the name of an entry of a list or a map.
fn short(key: &str) -> String {
    let key = key.split('[').next().unwrap_or(key);
    let levels_len = if key.starts_with("outcomes.") { 1 } else { 2 };
    let levels: Vec<_> = key.split('.').take(levels_len).collect();
    levels.join(".")
}

/// Returns a path as a shell reads it.
fn quoted(path: &Path) -> String {
    next::quoted(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_without_the_entries_of_lists_and_maps() {
        for (key, expected) in [
            ("data.dir", "data.dir"),
            ("targets[17].origin", "targets"),
            ("outcomes.404", "outcomes"),
            ("push.trails.a1", "push.trails"),
        ] {
            assert_eq!(short(key), expected);
        }
    }
}
