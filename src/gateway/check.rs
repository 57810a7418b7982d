//! Checks whether a start would refuse the settings. Nothing is created, bound, run or locked.
//!
//! Three refusals only a start can find: another program has the address, the command for the master key fails, or
//! the disk takes no file. A damaged index is not an error, because a start rebuilds it.

use std::error::Error as _;

use crate::{
    config::{ConfigError, ConfigErrors, Loaded},
    secrets::{Commands, Kept, KeySource, Trial},
    storage::{
        local::open::at_rest::{AtRest, Peek},
        shares::TOKENS_PREFIX,
    },
    users,
};

use super::{settings_of, streams};

/// Checks the settings, the files that they name, and the data directory. Returns what could not be checked because a
/// running gateway has the directory.
///
/// # Errors
/// Every error of a start, in the same words.
pub(crate) fn check(loaded: &Loaded) -> Result<Vec<String>, ConfigErrors> {
    let config = &loaded.config;
    let (mut wrong, mut warnings) = (Vec::new(), Vec::new());
    wrong.extend(all_of(settings_of(loaded, config.server.listen)));
    let dir = &config.data.dir;
    let found = AtRest::peek(dir).unwrap_or_else(|error| {
        wrong.push(loaded.error("data.dir", error.to_string()));
        Peek::InUse
    });
    if loaded.administrator.is_none() {
        let open = all_of(loaded.check_open_mode());
        match &found {
            Peek::InUse => {
                let dir = dir.display();
                let unless = format!("the start refuses this unless a user is stored in {dir}");
                warnings.extend(open.iter().map(|wrong| format!("{unless}: {wrong}")));
            }
            Peek::There(at_rest) if !at_rest.state(users::STATE_PREFIX).is_empty() => {}
            Peek::There(_) | Peek::Nothing => wrong.extend(open),
        }
    }
    let mut kept = Kept::default();
    if let Peek::There(at_rest) = &found {
        kept = Kept::of(at_rest.state(TOKENS_PREFIX));
    }
    wrong.extend(key(loaded, &kept));
    let streams = match &found {
        Peek::InUse => Ok(()),
        Peek::Nothing => streams::check(config, |_| None),
        Peek::There(at_rest) => streams::check(config, |name| at_rest.partitions_of(name)),
    };
    if let Err(Ok(errors)) = streams.map_err(|error| error.of_settings(loaded)) {
        wrong.extend(errors.0);
    }
    match wrong.is_empty() {
        true => Ok(warnings),
        false => Err(ConfigErrors(wrong)),
    }
}

fn all_of<T>(checked: Result<T, ConfigErrors>) -> Vec<ConfigError> {
    checked.err().map_or_else(Vec::new, |wrong| wrong.0)
}

/// Checks that the master key can be used. Whether it opens the stored tokens, only the index of tokens tells.
fn key(loaded: &Loaded, kept: &Kept) -> Option<ConfigError> {
    let config = &loaded.config;
    let source = KeySource::of(&config.secrets, &config.data.dir);
    let key = match &source {
        KeySource::Command { .. } => "secrets.master_key_command",
        KeySource::Variable(_) => "secrets.master_key_env",
        KeySource::File(_) => "secrets.master_key_file",
    };
    match source.try_on(kept, &config.data.dir, Commands::Skipped) {
        Trial::Refused(error) => Some(loaded.error(
            key,
            match error.source() {
                Some(cause) => format!("{error}: {cause}"),
                None => error.to_string(),
            },
        )),
        Trial::Opens | Trial::NotNeeded | Trial::Skipped => None,
    }
}
