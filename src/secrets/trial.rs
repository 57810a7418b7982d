//! Whether a start can work with the configured master key, found out without a start.

use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::{Found, Kept, KeySource, MasterKeyError};

/// Whether a trial runs the command that prints the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commands {
    /// It is run, for 30 s at most.
    Run,
    /// It is not: it may ask for a password, or write to a log elsewhere.
    Skipped,
}

/// The result of a trial.
#[derive(Debug)]
pub enum Trial {
    /// The key is there, and opens the sealed tokens.
    Opens,
    /// Its file is missing, and no token is sealed: a start makes a new key.
    NotNeeded,
    /// A start with these settings and variables refuses, in these words.
    Refused(MasterKeyError),
    /// The command was skipped, so the key is not known.
    Skipped,
}

impl Trial {
    /// Returns whether the key opens the tokens; `None` if only another look can tell.
    #[must_use]
    pub fn opens(&self) -> Option<bool> {
        match self {
            Self::Opens | Self::NotNeeded => Some(true),
            Self::Refused(
                MasterKeyError::Missing { .. }
                | MasterKeyError::Wrong { .. }
                | MasterKeyError::Malformed { .. },
            ) => Some(false),
            Self::Refused(_) | Self::Skipped => None,
        }
    }
}

impl KeySource {
    /// Tries the key on the tokens of a data directory. Blocks for as long as the command takes.
    #[must_use]
    pub fn try_on(&self, kept: &Kept, data_dir: &Path, commands: Commands) -> Trial {
        if matches!(self, Self::Command { .. }) && commands == Commands::Skipped {
            return Trial::Skipped;
        }
        let data_dir = data_dir.to_owned();
        match self.find(&CancellationToken::new()) {
            Ok(Found::Key(master)) if kept.is_opened_by(&master) => Trial::Opens,
            Ok(Found::Key(_)) => Trial::Refused(MasterKeyError::Wrong {
                from: self.to_string(),
                data_dir,
            }),
            Ok(Found::Missing(_)) if kept.tokens_len() == 0 => Trial::NotNeeded,
            Ok(Found::Missing(file)) => Trial::Refused(MasterKeyError::Missing {
                path: file.path().into(),
                sealed_len: kept.tokens_len(),
                data_dir,
            }),
            Err(error) => Trial::Refused(error),
        }
    }
}
