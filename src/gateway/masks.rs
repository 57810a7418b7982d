//! Remembers former secret headers, because stored messages still have them: their values stay masked after
//! `secret_header` changes.
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
/// Names that are remembered, at most; each has at most 128 bytes.
const NAMES_LEN_MAX: usize = 256;

/// Adds the remembered names to the settings, and stores new ones. Names that are always masked are not stored.
///
/// # Errors
/// The commit failed; the settings have the names even so.
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
                "too many former secret headers are remembered: this one is masked only while secret_header names it"
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
