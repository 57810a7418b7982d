//! What a submission's token changes: worked out before the commit, stored by it.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use data_encoding::{BASE32_NOPAD, BASE64};

use crate::{storage::StateChange, target::Origin};

use super::{
    HeadUnreadable, Shared, TOKEN_BYTES_MAX, VERSIONS_LEN_MAX,
    head::{Head, TARGETS_LEN_MAX, Version, head_key, version_key},
    lock, name_is_valid,
    sealed::About,
};

/// The secret that a record will use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    /// Its name, given or derived.
    pub name: Arc<str>,
    /// Its version.
    pub version: u32,
    /// Name of the state value that holds the version: what the record's append refers to.
    pub state_key: Arc<str>,
}

/// What [`super::Secrets::prepare`] found out.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The secret's name, given or derived.
    pub name: Arc<str>,
    /// Its version.
    pub version: u32,
    /// What must be stored with the record; empty if the token is known for this target.
    pub changes: Vec<StateChange>,
}

/// Why a token cannot be kept. Nothing was stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrepareError {
    /// No secret can have that name.
    #[error("a secret's name has 1 to 255 letters, digits, '_', '.' and '-'")]
    NameInvalid,
    /// The token is longer than a header can be.
    #[error("a token has at most {TOKEN_BYTES_MAX} bytes")]
    TokenTooLong,
    /// The secret is bound to as many targets as it can be; another name has room.
    #[error("a secret can be bound to {TARGETS_LEN_MAX} targets")]
    TooManyTargets,
    /// There are as many versions as can be kept.
    #[error("there is no room for another token ({VERSIONS_LEN_MAX} are kept at most)")]
    Full,
    /// The stored head of this secret does not read: it was changed behind our back.
    #[error("the stored secret does not read")]
    Unreadable,
    /// The system gave no random numbers.
    #[error("the system has no random numbers")]
    NoRandom,
}

/// One token of one submission, and the secrets it becomes a version of.
pub struct Draft<'a> {
    shared: &'a Shared,
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
    head: Head,
    head_revision: u64,
    version: u32,
    version_revision: u64,
    targets: BTreeSet<String>,
    state_key: Arc<str>,
    changed: bool,
}

impl<'a> Draft<'a> {
    pub(super) fn new(shared: &'a Shared, source: &'a str, token: &'a str) -> Self {
        Self {
            shared,
            source,
            token,
            touched: HashMap::new(),
        }
    }

    /// Says which secret a message to `target` uses: `name`, or one derived from source and token.
    ///
    /// The same token is the same version, another one a new version; the version is then bound to `target`.
    ///
    /// # Errors
    /// [`PrepareError`]; the draft is then to be dropped.
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
            if !room || !touched.head.bind(&target, touched.version) {
                return Err(PrepareError::TooManyTargets);
            }
            touched.targets.insert(target);
            touched.changed = true;
        } else if !touched.changed {
            lock(&self.shared.hot).insert(hot, used.clone());
        }
        Ok(used)
    }

    /// Returns what must be committed with the records, against the revisions that were read.
    ///
    /// A commit that is refused as [`crate::storage::CommitError::StateConflict`] lost a race: draft again.
    ///
    /// # Errors
    /// [`PrepareError::Full`], [`PrepareError::NoRandom`].
    pub async fn finish(self) -> Result<Vec<StateChange>, PrepareError> {
        let changed = self.touched.iter().filter(|(_, touched)| touched.changed);
        let made = changed.filter(|(_, touched)| touched.version_revision == 0);
        let made = made.count();
        if made > 0 {
            // Counted before the commit: one that is refused makes the count too high until it is taken anew.
            let len = self.shared.versions_len.fetch_add(made, Ordering::Relaxed);
            if len + made > VERSIONS_LEN_MAX
                && self.shared.count_versions().await + made > VERSIONS_LEN_MAX
            {
                return Err(PrepareError::Full);
            }
        }
        let mut changes = Vec::new();
        for (name, touched) in &self.touched {
            if touched.changed {
                changes.extend(self.changes(name, touched)?);
            }
        }
        Ok(changes)
    }

    fn changes(&self, name: &str, touched: &Touched) -> Result<[StateChange; 2], PrepareError> {
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
        let change = |key: Arc<str>, value: serde_json::Result<Vec<u8>>, expected| StateChange {
            key,
            value: Some(Bytes::from(value.expect("texts and numbers always encode"))),
            expected: Some(expected),
        };
        Ok([
            change(
                touched.state_key.clone(),
                serde_json::to_vec(&version),
                touched.version_revision,
            ),
            change(
                head_key(self.source, name),
                serde_json::to_vec(&touched.head),
                touched.head_revision,
            ),
        ])
    }

    async fn load(&self, name: &str) -> Result<Touched, PrepareError> {
        let (head_revision, mut head) = match self.shared.head(self.source, name).await {
            Some(Ok((revision, head))) => (revision, Head::clone(&head)),
            Some(Err(HeadUnreadable)) => return Err(PrepareError::Unreadable),
            None => (0, Head::default()),
        };
        let digest = self.token_digest(name);
        if let Some(version) = head.version_of(&digest) {
            let state_key = version_key(self.source, name, version);
            let entry = self.shared.engine.get(&state_key).await;
            let stored = entry.and_then(|entry| {
                let stored: Version = serde_json::from_slice(&entry.value).ok()?;
                Some((entry.revision, stored))
            });
            let (version_revision, stored) = stored.ok_or(PrepareError::Unreadable)?;
            // A target that somebody wrote into the file must not be sealed in by the next honest submission.
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
                head,
                head_revision,
                version,
                version_revision,
                targets: stored.targets,
                state_key,
                changed: false,
            });
        }
        let version = head.add(digest);
        Ok(Touched {
            head,
            head_revision,
            version,
            version_revision: 0,
            targets: BTreeSet::new(),
            state_key: version_key(self.source, name, version),
            changed: true,
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

    /// 100 bits: enough that two tokens never meet under one name.
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
