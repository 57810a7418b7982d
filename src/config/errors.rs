//! Errors of a configuration: all at once, each with its key and its source.

use std::{fmt, path::PathBuf};

/// All errors; never empty. Shown as one line for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

/// One error. Shown as `config.toml, line 12: dispatch.in_flight_max: …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Path of the key, as in `streams[0].name`; empty if the error is about a whole file.
    pub key: String,
    /// The source of the value.
    pub place: SettingPlace,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// The source of a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SettingPlace {
    /// In the file.
    File {
        /// The file.
        path: PathBuf,
        /// Line from 1; `None` if the error is about the whole file.
        line: Option<usize>,
    },
    /// In an environment variable of this name.
    Environment(String),
    /// In this argument.
    Argument(&'static str),
    /// No source: a default does not fit other settings.
    Default,
}

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            let end_of_line = if at == 0 { "" } else { "\n" };
            write!(f, "{end_of_line}{error}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            key,
            place,
            message,
        } = self;
        match place {
            SettingPlace::Default => {}
            place => write!(f, "{place}: ")?,
        }
        match key.as_str() {
            "" => {}
            key => write!(f, "{key}: ")?,
        }
        f.write_str(message)
    }
}

impl fmt::Display for SettingPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File {
                path,
                line: Some(line),
            } => write!(f, "{}, line {line}", path.display()),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::Environment(name) => f.write_str(name),
            Self::Argument(name) => f.write_str(name),
            Self::Default => f.write_str("default"),
        }
    }
}
