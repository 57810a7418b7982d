//! Remembers the headers in which targets got secrets: what was stored while `secret_header` named one is shown to nobody,
//! also when the setting is gone.
//!
//! ```text
//! masks/secret-headers   state: names in lower case, one a line
//! ```

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::{
    config::Config,
    model::message,
    storage::{Commit, CommitError, Engine, StateChange},
};

const KEY: &str = "masks/secret-headers";
/// Names that are remembered; 128 bytes each at most.
const NAMES_LEN_MAX: usize = 256;

/// Adds the names of before to the settings, and stores those that are new. Names that are masked anyway are not stored.
///
/// # Errors
/// What hindered the commit. The settings have the names all the same.
pub(super) async fn remember(engine: &dyn Engine, config: &mut Config) -> Result<(), CommitError> {
    let entry = engine.get(KEY).await;
    let revision = entry.as_ref().map_or(0, |entry| entry.revision);
    let stored = entry.map(|entry| entry.value).unwrap_or_default();
    let stored = String::from_utf8_lossy(&stored);
    let mut names: BTreeSet<String> = stored.lines().map(str::to_owned).collect();
    let known_len = names.len();
    for target in &config.targets {
        let name = target.secret_header.as_deref().unwrap_or_default();
        let name = name.to_ascii_lowercase();
        if name.is_empty() || message::is_credential(&name) || names.contains(&name) {
            continue;
        }
        if names.len() < NAMES_LEN_MAX {
            names.insert(name);
        } else {
            tracing::warn!(
                header = name,
                "too many headers have been a secret_header: this one is masked only as long as it is one"
            );
        }
    }
    config.former_secret_headers = names.iter().cloned().collect();
    if names.len() == known_len {
        return Ok(());
    }
    let text = names.into_iter().collect::<Vec<_>>().join("\n");
    let change = StateChange {
        key: KEY.into(),
        value: Some(Bytes::from(text)),
        expected: Some(revision),
    };
    let commit = Commit {
        state: vec![change],
        ..Commit::default()
    };
    engine.commit(commit).await.map(drop)
}
