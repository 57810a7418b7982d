//! Secrets: the tokens for targets, kept by name, sealed at rest, never printed.
//!
//! A source presents a token in a request header; ingest stores it here in the commit that stores the record. Each
//! other token under a name is a new version, and a record keeps the version it came with. A version is bound to the
//! targets (scheme, host, port) that it was presented for. A submission with the token adds a target; one with only the
//! name cannot. Callers: ingest ([`Secrets::draft`], [`Secrets::allowed`]) and `dispatch/call` ([`Secrets::reveal`]).
//!
//! Bounds: the share of the state for all secrets (`storage::shares`); for each secret its targets, and the tokens that
//! find an older version again (`version_index`). When the share is full, new versions replace versions that no open
//! record needs (`room`).
//!
//! `draft` prepares the changes of a submission, `sealed` seals values. `master` finds the master key, `master_command`
//! runs its command, `trial` tries the key without a start, `kept` reads secrets of a directory at rest.

mod draft;
mod kept;
mod master;
mod master_command;
mod room;
mod sealed;
mod settings;
#[cfg(test)]
mod tests;
mod trial;
mod version_index;

use std::{
    collections::BTreeSet,
    fmt,
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use data_encoding::BASE64;
use prometheus_client::metrics::counter::Counter;
use zeroize::Zeroizing;

pub use draft::{Changes, Draft, PrepareError, Prepared, Used};
pub use kept::Kept;
pub use master::{Found, KeyFile, KeySource, MasterKey, MasterKeyError};
pub use settings::Settings;
pub use trial::{Commands, Trial};

use crate::{
    model::target::Origin,
    runtime::cache::Cache,
    storage::{Commit, CommitError, Engine, StateChange, shares},
};

use self::{
    kept::Fit,
    room::Room,
    sealed::{About, Keys},
    version_index::{KEY_CHECK, PASSED, Version, VersionIndex, index_key, version_key},
};

/// Longest token in bytes, bounded by a request header.
pub const TOKEN_BYTES_MAX: usize = 16 << 10;
/// Number of cached tokens that need no further storing.
const HOT_LEN_MAX: usize = 4096;
/// Opened values kept for calls.
const OPENED_LEN_MAX: usize = 256;
/// Number of parsed indexes in memory.
const HEADS_LEN_MAX: usize = 256;

/// Handle to all secrets. Clones share everything.
#[derive(Clone, Debug)]
pub struct Secrets {
    shared: Arc<SecretStore>,
}

struct SecretStore {
    engine: Arc<dyn Engine>,
    keys: Keys,
    /// Held by the one submission that searches for room.
    room: tokio::sync::Mutex<Room>,
    /// Number of versions that were replaced to make room.
    gone: Counter,
    /// By digest of source, name, token and target: what [`Draft::add`] answered when nothing was to be stored.
    hot: Mutex<Cache<[u8; 32], Used>>,
    /// By state key of the version.
    opened: Mutex<Cache<Arc<str>, Arc<Opened>>>,
    /// By state key of the index, with its revision.
    indexes: Mutex<Cache<Arc<str>, IndexAt>>,
}

impl fmt::Debug for SecretStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(***)")
    }
}

/// An index and its revision.
type IndexAt = (u64, Arc<VersionIndex>);

/// The stored index was changed from outside. Its versions keep their values, and the name does not start again at 1.
#[derive(Clone, Copy, Debug)]
struct HeadUnreadable;

struct Opened {
    value: Zeroizing<String>,
    targets: BTreeSet<String>,
}

/// Why the secrets cannot be used. The gateway then does not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The secrets were sealed with another key.
    #[error("the master key is not the one that the stored tokens were sealed with")]
    WrongKey,
    /// The mark of the master key could not be stored.
    #[error("cannot store the mark of the master key")]
    Commit(#[from] CommitError),
}

/// The secret is there, but not for this target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the secret is not bound to this target")]
pub struct NotForTarget;

/// Why a secret cannot go to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevealError {
    /// There is no secret of that name, or no such version.
    #[error("there is no such secret")]
    Unknown,
    /// The secret was never presented for this target.
    #[error("the secret is not bound to this target")]
    NotForTarget,
    /// The stored value does not open, because it was changed from outside.
    #[error("the stored secret does not open")]
    Unreadable,
}

/// A secret's value; derefs to the text of the header. Wiped from memory when the last copy is dropped.
#[derive(Clone)]
pub struct Revealed(Arc<Opened>);

impl Deref for Revealed {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0.value
    }
}

impl fmt::Debug for Revealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Returns whether `name` can name a secret: 1 to 255 of `[A-Za-z0-9_.-]`.
#[must_use]
pub fn name_is_valid(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (1..=255).contains(&name.len()) && name.bytes().all(legal)
}

/// Prefix and length of derived names.
const DERIVED: (&str, usize) = ("auto-", 25);

/// Returns whether the name was derived from the token, so that no message names the secret.
#[must_use]
pub fn is_derived(name: &str) -> bool {
    name.starts_with(DERIVED.0) && name.len() == DERIVED.1
}

impl Secrets {
    /// Opens the secrets of an engine. A mark of the master key is stored with the first one; as long as anything is sealed,
    /// the key must fit it.
    ///
    /// # Errors
    /// [`OpenError::WrongKey`], or what hindered storing the mark.
    pub async fn open(engine: Arc<dyn Engine>, master: &MasterKey) -> Result<Self, OpenError> {
        let keys = Keys::of(master);
        match Kept::in_engine(&*engine).await.fit(&keys) {
            Fit::Marked => {}
            Fit::Wrong => return Err(OpenError::WrongKey),
            Fit::Unmarked(revision) => {
                let mark = StateChange {
                    key: KEY_CHECK.into(),
                    value: Some(Bytes::copy_from_slice(keys.check())),
                    expected: Some(revision),
                };
                let commit = Commit {
                    state: vec![mark],
                    ..Commit::default()
                };
                match engine.commit(commit).await {
                    Ok(_) | Err(CommitError::StateConflict { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
                // Another caller may have opened them with another key at the same moment.
                let mark = engine.get(KEY_CHECK).await;
                if mark.is_none_or(|mark| mark.value[..] != keys.check()[..]) {
                    return Err(OpenError::WrongKey);
                }
            }
        }
        Ok(Self {
            shared: Arc::new(SecretStore {
                engine,
                keys,
                room: tokio::sync::Mutex::default(),
                gone: Counter::default(),
                hot: Mutex::new(Cache::new(HOT_LEN_MAX)),
                opened: Mutex::new(Cache::new(OPENED_LEN_MAX)),
                indexes: Mutex::new(Cache::new(HEADS_LEN_MAX)),
            }),
        })
    }

    /// Returns how many tokens are kept, each version of a secret counted.
    pub async fn tokens_len(&self) -> usize {
        let entries = self.shared.engine.list(shares::TOKENS_PREFIX).await;
        let versions = entries
            .iter()
            .filter(|(key, _)| version_index::is_version(key));
        versions.count()
    }

    /// Returns the counter of versions that were replaced to make room. The gateway exports it.
    #[must_use]
    pub fn gone(&self) -> &Counter {
        &self.shared.gone
    }

    /// Notes that the changes of a draft were stored, and drops replaced versions from memory.
    pub fn stored(&self, gone: &[Arc<str>]) {
        for key in gone {
            self.shared.opened().remove(key);
            self.shared.gone.inc();
        }
    }

    /// Notes that a commit was refused as [`CommitError::StateConflict`] for that value. The next draft then reads the stored
    /// value.
    pub fn conflicted(&self, key: &str) {
        if key.starts_with(shares::TOKENS_PREFIX) {
            lock(&self.shared.hot).retain(|used: &Used| *used.state_key != *key);
        }
    }

    /// Begins a draft for a submission. Nothing is stored before the caller commits [`Draft::into_changes`].
    #[must_use]
    pub fn draft<'a>(&'a self, source: &'a str, token: &'a str) -> Draft<'a> {
        Draft::new(&self.shared, source, token)
    }

    /// Takes note of one token for one target; see [`Draft::add`].
    ///
    /// # Errors
    /// As [`Draft::add`] and [`Draft::into_changes`].
    pub async fn prepare(
        &self,
        source: &str,
        name: Option<&str>,
        token: &str,
        target: &Origin,
    ) -> Result<Prepared, PrepareError> {
        let mut draft = self.draft(source, token);
        let used = draft.add(name, target).await?;
        Ok(Prepared {
            name: used.name,
            version: used.version,
            changes: draft.into_changes().await?.state,
        })
    }

    /// Returns whether a secret that a message only names is known. An unknown one is bound to nothing yet.
    ///
    /// # Errors
    /// [`NotForTarget`] if it is known and was never presented for this target.
    pub async fn allowed(
        &self,
        source: &str,
        name: &str,
        target: &Origin,
    ) -> Result<bool, NotForTarget> {
        match self.shared.index(source, name).await {
            None | Some(Err(HeadUnreadable)) => Ok(false),
            Some(Ok((_, index))) if index.version_for(&target.to_string()).is_some() => Ok(true),
            Some(Ok(_)) => Err(NotForTarget),
        }
    }

    /// Returns the value of a version for a call of `target`; without a version, the newest one bound to it.
    ///
    /// # Errors
    /// [`RevealError`] says why the call cannot be made.
    pub async fn reveal(
        &self,
        source: &str,
        name: &str,
        version: Option<u32>,
        target: &Origin,
    ) -> Result<Revealed, RevealError> {
        let target = target.to_string();
        let version = match version {
            Some(version) => version,
            None => {
                let index = self.shared.index(source, name).await;
                let index = index.ok_or(RevealError::Unknown)?;
                let (_, index) = index.map_err(|HeadUnreadable| RevealError::Unreadable)?;
                index
                    .version_for(&target)
                    .ok_or(RevealError::NotForTarget)?
            }
        };
        if !name_is_valid(name) {
            return Err(RevealError::Unknown);
        }
        let key = version_key(source, name, version);
        let cached = self.shared.opened().get(&key);
        // A target that the cached copy lacks may have been added since.
        if let Some(opened) = cached.filter(|opened| opened.targets.contains(&target)) {
            return Ok(Revealed(opened));
        }
        let entry = self.shared.engine.get(&key).await;
        let entry = entry.ok_or(RevealError::Unknown)?;
        let stored: Version =
            serde_json::from_slice(&entry.value).map_err(|_| RevealError::Unreadable)?;
        let about = About {
            source,
            name,
            version,
            targets: &stored.targets,
        };
        let sealed = BASE64.decode(stored.sealed.as_bytes()).unwrap_or_default();
        let value = self.shared.keys.open(&sealed, &about);
        let value = value.ok_or(RevealError::Unreadable)?;
        // Opening the value has proved that the list of targets is the sealed one, so check the target only now.
        if !stored.targets.contains(&target) {
            return Err(RevealError::NotForTarget);
        }
        let opened = Arc::new(Opened {
            value,
            targets: stored.targets,
        });
        self.shared.opened().insert(key, opened.clone());
        Ok(Revealed(opened))
    }

    /// Returns the newest version of a secret, and the newest one that is bound to `target`; `None` for a secret that is
    /// unknown, or whose index does not read.
    pub async fn newest(
        &self,
        source: &str,
        name: &str,
        target: &Origin,
    ) -> Option<(u32, Option<u32>)> {
        let (_, index) = self.shared.index(source, name).await?.ok()?;
        Some((index.newest(), index.version_for(&target.to_string())))
    }

    /// Returns the name of the state value that holds a version: what records that use it refer to.
    #[must_use]
    pub fn state_key(source: &str, name: &str, version: u32) -> Arc<str> {
        version_key(source, name, version)
    }
}

impl SecretStore {
    /// Returns index and revision of a secret; `None` also for a name that no secret can have.
    async fn index(&self, source: &str, name: &str) -> Option<Result<IndexAt, HeadUnreadable>> {
        if !name_is_valid(name) {
            return None;
        }
        let key = index_key(source, name);
        let entry = self.engine.get(&key).await?;
        let cached = lock(&self.indexes).get(&key);
        if let Some(index) = cached.filter(|(revision, _)| *revision == entry.revision) {
            return Some(Ok(index));
        }
        let Ok(index) = serde_json::from_slice::<VersionIndex>(&entry.value) else {
            return Some(Err(HeadUnreadable));
        };
        let index = (entry.revision, Arc::new(index));
        lock(&self.indexes).insert(key, index.clone());
        Some(Ok(index))
    }

    /// Returns revision and number of the greatest version that a name which is gone has had.
    async fn passed(&self) -> Result<(u64, u32), PrepareError> {
        let Some(entry) = self.engine.get(PASSED).await else {
            return Ok((0, 0));
        };
        let text = std::str::from_utf8(&entry.value).ok();
        let version = text.and_then(|text| text.parse().ok());
        version
            .map(|version| (entry.revision, version))
            .ok_or(PrepareError::Unreadable)
    }

    fn opened(&self) -> std::sync::MutexGuard<'_, Cache<Arc<str>, Arc<Opened>>> {
        lock(&self.opened)
    }
}

/// The caches stay usable after a panic, because each change is a single call.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
