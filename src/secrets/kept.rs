//! The sealed secrets in the state: the key that they need, and their removal.

use std::{collections::BTreeSet, sync::Arc};

use data_encoding::BASE64;

use crate::storage::{Commit, CommitError, Engine, StateChange, StateEntry, shares::TOKENS_PREFIX};

use super::{
    MasterKey, is_derived,
    sealed::{About, Keys},
    version_index::{KEY_CHECK, PASSED, Version, VersionIndex},
};

/// The sealed secrets of an engine or of a directory. No value is opened here.
#[derive(Debug, Default)]
pub struct Kept {
    /// Source, name and version of each token.
    versions: BTreeSet<(Arc<str>, Arc<str>, u32)>,
    entries: Vec<(Arc<str>, StateEntry)>,
}

/// Whether a master key opens the stored secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// The mark shows that the secrets were sealed with this key.
    Marked,
    /// The mark is missing or of another key, and no sealed secret needs another key. Holds the revision of the mark.
    Unmarked(u64),
    /// The secrets were sealed with another key.
    Wrong,
}

impl Kept {
    /// Reads the state values whose names begin with [`TOKENS_PREFIX`].
    #[must_use]
    pub fn of(entries: Vec<(Arc<str>, StateEntry)>) -> Self {
        let versions = entries.iter().filter_map(|(key, _)| version_of(key));
        Self {
            versions: versions.collect(),
            entries,
        }
    }

    /// Returns the secrets of an engine.
    pub async fn in_engine(engine: &dyn Engine) -> Self {
        Self::of(engine.list(TOKENS_PREFIX).await)
    }

    /// Returns the number of sealed tokens.
    #[must_use]
    pub fn tokens_len(&self) -> usize {
        self.versions.len()
    }

    /// Returns whether a token of that secret is sealed.
    #[must_use]
    pub fn has(&self, source: &str, name: &str) -> bool {
        let first = (Arc::from(source), Arc::from(name), 0);
        let mut behind = self.versions.range(first..);
        behind
            .next()
            .is_some_and(|(of, named, _)| **of == *source && **named == *name)
    }

    /// Returns whether that key fits the stored secrets.
    #[must_use]
    pub fn is_opened_by(&self, master: &MasterKey) -> bool {
        self.fit(&Keys::of(master)) != Fit::Wrong
    }

    pub(super) fn fit(&self, keys: &Keys) -> Fit {
        let mark = self.entries.iter().find(|(key, _)| **key == *KEY_CHECK);
        match mark {
            Some((_, mark)) if mark.value[..] == keys.check()[..] => Fit::Marked,
            Some((_, mark)) if self.versions.is_empty() => Fit::Unmarked(mark.revision),
            Some(_) => Fit::Wrong,
            None if self.versions.is_empty() || self.any_opens(keys) => Fit::Unmarked(0),
            None => Fit::Wrong,
        }
    }

    /// Checks the key without the mark, which may be lost.
    fn any_opens(&self, keys: &Keys) -> bool {
        self.entries.iter().any(|(key, entry)| {
            let stored = serde_json::from_slice::<Version>(&entry.value);
            let (Some((source, name, version)), Ok(stored)) = (version_of(key), stored) else {
                return false;
            };
            let about = About {
                source: &source,
                name: &name,
                version,
                targets: &stored.targets,
            };
            let sealed = BASE64.decode(stored.sealed.as_bytes());
            sealed.is_ok_and(|sealed| keys.open(&sealed, &about).is_some())
        })
    }

    /// Removes all secrets in one commit, and returns the number of tokens. Later versions continue the numbers, so that no
    /// record finds another token under its version.
    ///
    /// # Errors
    /// The error of the commit.
    pub async fn forget(engine: &dyn Engine) -> Result<usize, CommitError> {
        let kept = Self::in_engine(engine).await;
        let passed = kept.passed();
        let gone = kept.entries.iter().filter(|(key, _)| **key != *PASSED);
        let mut state: Vec<_> = gone
            .map(|(key, _)| StateChange {
                key: key.clone(),
                value: None,
                expected: None,
            })
            .collect();
        if passed > 0 {
            state.push(StateChange {
                key: PASSED.into(),
                value: Some(passed.to_string().into()),
                expected: None,
            });
        }
        let commit = Commit {
            state,
            ..Commit::default()
        };
        engine.commit(commit).await?;
        Ok(kept.tokens_len())
    }

    /// Returns the greatest version of all names that a message can name.
    fn passed(&self) -> u32 {
        let of_versions = self.versions.iter();
        let of_versions = of_versions
            .filter(|(_, name, _)| !is_derived(name))
            .map(|(_, _, version)| *version);
        let of_heads = self.entries.iter().filter_map(|(key, entry)| {
            let name = key.strip_prefix(TOKENS_PREFIX)?.split_once('/')?.1;
            let index: VersionIndex = serde_json::from_slice(&entry.value).ok()?;
            (!is_derived(name)).then(|| index.newest())
        });
        let before = self.entries.iter().filter_map(|(key, entry)| {
            let text = std::str::from_utf8(&entry.value).ok()?;
            (**key == *PASSED).then(|| text.parse().ok())?
        });
        of_versions
            .chain(of_heads)
            .chain(before)
            .max()
            .unwrap_or_default()
    }
}

/// Returns source, name and version that a value's key names.
fn version_of(key: &str) -> Option<(Arc<str>, Arc<str>, u32)> {
    let mut parts = key.strip_prefix(TOKENS_PREFIX)?.split('/');
    let (source, name, version) = (parts.next()?, parts.next()?, parts.next()?);
    Some((source.into(), name.into(), version.parse().ok()?))
}
