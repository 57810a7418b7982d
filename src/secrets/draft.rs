//! The changes of a submission's token, prepared before the commit that stores them.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

use bytes::Bytes;
use data_encoding::{BASE32_NOPAD, BASE64};

use crate::{
    model::target::Origin,
    runtime::clock::Timestamp,
    storage::{StateChange, shares::state_cost},
};

use super::{
    HeadUnreadable, SecretStore, TOKEN_BYTES_MAX, is_derived, lock, name_is_valid,
    room::{self, Victim, Way},
    sealed::About,
    version_index::{PASSED, TARGETS_LEN_MAX, Version, VersionIndex, index_key, version_key},
};

/// The secret that a record will use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    /// Its name, given or derived.
    pub name: Arc<str>,
    /// Its version.
    pub version: u32,
    /// Name of the state value of the version, to which the record's append refers.
    pub state_key: Arc<str>,
}

/// Result of [`super::Secrets::prepare`].
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The secret's name, given or derived.
    pub name: Arc<str>,
    /// Its version.
    pub version: u32,
    /// State changes to store with the record; empty if the token is known for this target.
    pub changes: Vec<StateChange>,
}

/// The part of a commit that stores the secrets of a submission.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Goes into [`crate::storage::Commit::state`].
    pub state: Vec<StateChange>,
    /// Goes into [`crate::storage::Commit::unreferred_since`].
    pub unreferred_since: Option<Timestamp>,
    /// The removed versions, for [`super::Secrets::stored`].
    pub gone: Vec<Arc<str>>,
}

/// Why a token cannot be kept. Nothing was stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrepareError {
    /// The name is not a legal name of a secret.
    #[error("a secret's name has 1 to 255 letters, digits, '_', '.' and '-'")]
    NameInvalid,
    /// The token is longer than a header may be.
    #[error("a token has at most {TOKEN_BYTES_MAX} bytes")]
    TokenTooLong,
    /// The secret has reached its bound of targets. The source can use another name.
    #[error("a secret can be bound to {TARGETS_LEN_MAX} targets")]
    TooManyTargets,
    /// The share of tokens is full, and open records need all of them. A later call succeeds once enough of these records are
    /// settled.
    #[error(
        "nothing was stored; tokens take their whole share of the state, and open records need all of them: deliver, retry or purge those, or use fewer tokens"
    )]
    Full,
    /// The share of tokens is full, and an unreadable open record may need any of them. A later call succeeds once the record
    /// can be read, or its loss is accepted.
    #[error(
        "nothing was stored; tokens take their whole share of the state, and an open record cannot be read, so nobody knows which of them it needs: stop the gateway and ask `syncgate doctor`"
    )]
    RecordsUnreadable,
    /// The share of tokens is full, and a search for removable ones is running.
    #[error("nothing was stored; room for the token is being made, so send it again in a moment")]
    MakingRoom,
    /// The stored index of this secret cannot be read, because it was changed from outside.
    #[error("the stored secret does not read")]
    Unreadable,
    /// The system gave no random numbers.
    #[error("the system has no random numbers")]
    NoRandom,
}

/// One token of one submission, and the secrets it becomes a version of.
pub struct Draft<'a> {
    shared: &'a SecretStore,
    source: &'a str,
    token: &'a str,
    touched: HashMap<Arc<str>, Touched>,
}

impl fmt::Debug for Draft<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Draft(***)")
    }
}

struct Touched {
    index: VersionIndex,
    index_revision: u64,
    version: u32,
    version_revision: u64,
    targets: BTreeSet<String>,
    state_key: Arc<str>,
    /// Stored cost of its two values.
    cost: usize,
    changed: bool,
    /// Another version of it is removed, which changes the index alone.
    loses: bool,
}

impl<'a> Draft<'a> {
    pub(super) fn new(shared: &'a SecretStore, source: &'a str, token: &'a str) -> Self {
        Self {
            shared,
            source,
            token,
            touched: HashMap::new(),
        }
    }

    /// Adds the secret of a message to `target`: `name`, or a name derived from source and token.
    ///
    /// A known token keeps its version, and a new token becomes a new version. The version is then bound to `target`.
    ///
    /// # Errors
    /// [`PrepareError`]; then drop the draft.
    pub async fn add(&mut self, name: Option<&str>, target: &Origin) -> Result<Used, PrepareError> {
        if self.token.len() > TOKEN_BYTES_MAX {
            return Err(PrepareError::TokenTooLong);
        }
        let hot = self.hot_key(name, target);
        if let Some(used) = lock(&self.shared.hot).get(&hot) {
            return Ok(used);
        }
        let name: Arc<str> = match name {
            Some(name) if name_is_valid(name) => name.into(),
            Some(_) => return Err(PrepareError::NameInvalid),
            None => self.derived_name().into(),
        };
        if !self.touched.contains_key(&name) {
            let touched = self.load(&name).await?;
            self.touched.insert(name.clone(), touched);
        }
        let Some(touched) = self.touched.get_mut(&name) else {
            return Err(PrepareError::Unreadable);
        };
        let used = Used {
            name,
            version: touched.version,
            state_key: touched.state_key.clone(),
        };
        let target = target.to_string();
        if !touched.targets.contains(&target) {
            let room = touched.targets.len() < TARGETS_LEN_MAX;
            if !room || !touched.index.bind(&target, touched.version) {
                return Err(PrepareError::TooManyTargets);
            }
            touched.targets.insert(target);
            touched.changed = true;
        } else if !touched.changed {
            lock(&self.shared.hot).insert(hot, used.clone());
        }
        Ok(used)
    }

    /// Returns the changes to commit with the records, against the revisions that were read. Without space for them, the same
    /// commit removes other versions.
    ///
    /// A commit refused as [`crate::storage::CommitError::StateConflict`] has lost a race, and one refused as
    /// [`crate::storage::CommitError::StateFull`] a race for space. Then draft again.
    ///
    /// # Errors
    /// [`PrepareError::Full`], [`PrepareError::RecordsUnreadable`], [`PrepareError::MakingRoom`],
    /// [`PrepareError::NoRandom`].
    pub async fn into_changes(mut self) -> Result<Changes, PrepareError> {
        let state = self.all_changes()?;
        let cost = |change: &StateChange| {
            let value = change.value.as_deref();
            value.map_or(0, |value| state_cost(&change.key, value))
        };
        let new: usize = state.iter().map(cost).sum();
        let changed = self.touched.values().filter(|touched| touched.changed);
        let old: usize = changed.map(|touched| touched.cost).sum();
        let missing = match new.checked_sub(old) {
            Some(more) if more > 0 => room::missing(self.shared, more),
            _ => 0,
        };
        if missing == 0 {
            return Ok(Changes {
                state,
                ..Changes::default()
            });
        }
        let used = |key: &str| self.touched.values().any(|used| *used.state_key == *key);
        let Way { victims, since } = self.shared.make_way(missing, used).await?;
        let gone = victims.iter().map(|victim| victim.state_key.clone());
        let gone = gone.collect();
        let others = self.remove(&victims).await?;
        let mut state = self.all_changes()?;
        state.extend(others);
        Ok(Changes {
            state,
            unreferred_since: Some(since),
            gone,
        })
    }

    /// Removes versions from their indexes. Returns the changes of indexes that this draft does not change itself.
    async fn remove(&mut self, victims: &[Victim]) -> Result<Vec<StateChange>, PrepareError> {
        let mut changes = Vec::new();
        let mut indexes: HashMap<Arc<str>, (u64, VersionIndex)> = HashMap::new();
        for victim in victims {
            changes.push(StateChange {
                key: victim.state_key.clone(),
                value: None,
                expected: Some(victim.revision),
            });
            if *victim.source == *self.source
                && let Some(touched) = self.touched.get_mut(&victim.name)
            {
                touched.index.remove(victim.version);
                touched.loses = true;
                continue;
            }
            let key = index_key(&victim.source, &victim.name);
            if !indexes.contains_key(&key) {
                let index = self.shared.index(&victim.source, &victim.name).await;
                let Some(Ok((revision, index))) = index else {
                    continue;
                };
                indexes.insert(key.clone(), (revision, VersionIndex::clone(&index)));
            }
            if let Some((_, index)) = indexes.get_mut(&key) {
                index.remove(victim.version);
            }
        }
        let mut passed = None;
        for (key, (revision, index)) in indexes {
            let goes = index.is_empty() && self.is_last(&key, victims).await;
            if goes && !key.rsplit('/').next().is_some_and(is_derived) {
                passed = passed.max(Some(index.newest()));
            }
            let json = || Bytes::from(serde_json::to_vec(&index).expect("numbers always encode"));
            changes.push(StateChange {
                key,
                value: (!goes).then(json),
                expected: Some(revision),
            });
        }
        if let Some(passed) = passed {
            let (revision, before) = self.shared.passed().await?;
            if passed > before {
                changes.push(StateChange {
                    key: PASSED.into(),
                    value: Some(passed.to_string().into()),
                    expected: Some(revision),
                });
            }
        }
        Ok(changes)
    }

    /// Returns whether a index has no version but those that go.
    async fn is_last(&self, index: &str, victims: &[Victim]) -> bool {
        let versions = self.shared.engine.list(&format!("{index}/")).await;
        let goes = |key: &Arc<str>| victims.iter().any(|victim| victim.state_key == *key);
        versions.iter().all(|(key, _)| goes(key))
    }

    fn all_changes(&self) -> Result<Vec<StateChange>, PrepareError> {
        let mut changes = Vec::new();
        for (name, touched) in &self.touched {
            if touched.changed {
                changes.push(self.version_change(name, touched)?);
            }
            if touched.changed || touched.loses {
                let index = serde_json::to_vec(&touched.index);
                changes.push(StateChange {
                    key: index_key(self.source, name),
                    value: Some(Bytes::from(index.expect("texts and numbers always encode"))),
                    expected: Some(touched.index_revision),
                });
            }
        }
        Ok(changes)
    }

    fn version_change(&self, name: &str, touched: &Touched) -> Result<StateChange, PrepareError> {
        let about = About {
            source: self.source,
            name,
            version: touched.version,
            targets: &touched.targets,
        };
        let sealed = self.shared.keys.seal(self.token, &about);
        let version = Version {
            v: 1,
            targets: touched.targets.clone(),
            sealed: BASE64.encode(&sealed.ok_or(PrepareError::NoRandom)?),
        };
        let value = serde_json::to_vec(&version).expect("texts and numbers always encode");
        Ok(StateChange {
            key: touched.state_key.clone(),
            value: Some(value.into()),
            expected: Some(touched.version_revision),
        })
    }

    async fn load(&self, name: &str) -> Result<Touched, PrepareError> {
        let (index_revision, mut index) = match self.shared.index(self.source, name).await {
            Some(Ok((revision, index))) => (revision, VersionIndex::clone(&index)),
            Some(Err(HeadUnreadable)) => return Err(PrepareError::Unreadable),
            None if is_derived(name) => (0, VersionIndex::default()),
            // Looked at after the index: one that has just gone has left its mark before.
            None => (0, VersionIndex::behind(self.shared.passed().await?.1)),
        };
        let key = index_key(self.source, name);
        let stored = self.shared.engine.get(&key).await;
        let index_cost = stored.map_or(0, |stored| state_cost(&key, &stored.value));
        let digest = self.token_digest(name);
        if let Some(version) = index.version_of(&digest) {
            let state_key = version_key(self.source, name, version);
            let entry = self.shared.engine.get(&state_key).await;
            let stored = entry.and_then(|entry| {
                let stored: Version = serde_json::from_slice(&entry.value).ok()?;
                let cost = state_cost(&state_key, &entry.value);
                Some((entry.revision, stored, cost))
            });
            let (version_revision, stored, cost) = stored.ok_or(PrepareError::Unreadable)?;
            // Open the value first. Otherwise the next submission would seal a target that was forged in the stored list.
            let about = About {
                source: self.source,
                name,
                version,
                targets: &stored.targets,
            };
            let sealed = BASE64.decode(stored.sealed.as_bytes()).unwrap_or_default();
            if self.shared.keys.open(&sealed, &about).is_none() {
                return Err(PrepareError::Unreadable);
            }
            return Ok(Touched {
                index,
                index_revision,
                version,
                version_revision,
                targets: stored.targets,
                state_key,
                cost: index_cost + cost,
                changed: false,
                loses: false,
            });
        }
        let version = index.add(digest);
        Ok(Touched {
            index,
            index_revision,
            version,
            version_revision: 0,
            targets: BTreeSet::new(),
            state_key: version_key(self.source, name, version),
            cost: index_cost,
            changed: true,
            loses: false,
        })
    }

    fn hot_key(&self, name: Option<&str>, target: &Origin) -> [u8; 32] {
        let purpose: &[u8] = if name.is_some() {
            b"hot"
        } else {
            b"hot, no name"
        };
        let parts: [&[u8]; 6] = [
            self.source.as_bytes(),
            name.unwrap_or_default().as_bytes(),
            self.token.as_bytes(),
            target.host().as_bytes(),
            &target.port().to_le_bytes(),
            &[u8::from(target.https())],
        ];
        self.shared.keys.digest(purpose, &parts)
    }

    /// 100 bits, so that two tokens never get the same name.
    fn derived_name(&self) -> String {
        let parts = [self.source.as_bytes(), self.token.as_bytes()];
        let mut text = BASE32_NOPAD.encode(&self.shared.keys.digest(b"name", &parts));
        text.truncate(20);
        text.make_ascii_lowercase();
        format!("auto-{text}")
    }

    fn token_digest(&self, name: &str) -> String {
        let parts = [self.source, name, self.token].map(str::as_bytes);
        BASE64.encode(&self.shared.keys.digest(b"token", &parts)[..16])
    }
}
