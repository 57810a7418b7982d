//! Checks passwords in bounded time and memory, for any number of callers.
//!
//! A digest costs tens of milliseconds of a core and 19 MiB. So few digests run at once, and few requests wait for one, for a
//! short time. A cache holds verified callers under a keyed hash, which costs a microsecond, so known callers do not wait
//! behind guesses. An unknown name costs as much as a wrong password.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ring::hmac;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::{
    Role, UserName, Users,
    digest::{Digest, Memory, NoRandom},
    stored::{Stored, key},
};
use crate::runtime::{cache::Cache, random};

/// Bound of concurrent digests; half of the cores, if that is less. Each uses 19 MiB, which are kept for reuse.
const AT_ONCE_MAX: usize = 4;
/// Bound of waiting requests. Further ones are refused at once.
const WAITING_LEN_MAX: usize = 64;
/// How long a request waits for a digest.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// Size of the cache of verified callers. Each entry takes about 100 bytes.
pub(super) const KNOWN_LEN_MAX: usize = 1024;

/// An authenticated user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: UserName,
    /// The role.
    pub role: Role,
}

/// Why a name and a password are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The user does not exist, or has another password. Only the log says which.
    #[error("the name or the password is wrong")]
    Wrong(Option<UserName>),
    /// Too many passwords are being checked. This one was not.
    #[error("too many passwords are being checked at this moment")]
    Busy,
}

/// The bounds of the checks, and the cache of their results.
pub(super) struct Checks {
    /// Key of the hashes, made at the start, in memory only.
    key: hmac::Key,
    /// Keyed hashes of stored user, name and password. A changed password changes the stored user, so older entries no longer
    /// match.
    known: Mutex<Cache<[u8; 32], ()>>,
    pub(super) waiting: Semaphore,
    pub(super) running: Arc<Semaphore>,
    decoy: Digest,
    /// Those that no digest is made in; with the others no more than [`AT_ONCE_MAX`].
    memories: Mutex<Vec<Memory>>,
}

impl Checks {
    pub(super) fn new() -> Result<Self, NoRandom> {
        let mut key = [0; 32];
        random::fill(&mut key).map_err(|_| NoRandom)?;
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Ok(Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            known: Mutex::new(Cache::new(KNOWN_LEN_MAX)),
            waiting: Semaphore::new(WAITING_LEN_MAX),
            running: Arc::new(Semaphore::new((cores / 2).clamp(1, AT_ONCE_MAX))),
            decoy: Digest::decoy()?,
            memories: Mutex::default(),
        })
    }

    fn proof(&self, stored: &[u8], name: &str, password: &str) -> [u8; 32] {
        let mut mac = hmac::Context::with_key(&self.key);
        for part in [stored, name.as_bytes(), password.as_bytes()] {
            mac.update(&part.len().to_le_bytes());
            mac.update(part);
        }
        let tag = mac.sign();
        tag.as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Cache<[u8; 32], ()>> {
        // The cache is whole between any two steps of it.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compares on another thread, when it is this one's turn.
    async fn compare(
        self: &Arc<Self>,
        proof: &[u8; 32],
        digest: Option<Digest>,
        password: &str,
    ) -> Result<bool, Refused> {
        let place = self.waiting.try_acquire().map_err(|_full| Refused::Busy)?;
        let turn = self.running.clone().acquire_owned();
        let turn = tokio::time::timeout(WAIT_MAX, turn).await;
        let turn = turn.ok().and_then(Result::ok).ok_or(Refused::Busy)?;
        drop(place);
        // An earlier request with the same password may have filled the cache meanwhile.
        if digest.is_some() && self.known().get(proof).is_some() {
            return Ok(true);
        }
        let digest = digest.unwrap_or_else(|| self.decoy.clone());
        let password = Zeroizing::new(password.to_owned());
        let checks = self.clone();
        let fits = off_this_thread(move || {
            // Held until the digest is made, even if the client has gone.
            let _turn = turn;
            checks.with_memory(|memory| digest.fits(&password, memory))
        });
        Ok(fits.await)
    }

    /// Runs what makes digests. Only who has a turn calls it, or who calls it before there is anyone else.
    pub(super) fn with_memory<T>(&self, work: impl FnOnce(&mut Memory) -> T) -> T {
        let mut memory = self.memories().pop().unwrap_or_default();
        let done = work(&mut memory);
        self.memories().push(memory);
        done
    }

    pub(super) fn memories(&self) -> MutexGuard<'_, Vec<Memory>> {
        // The list is whole between any two steps of it.
        self.memories.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Users {
    /// Returns the user of this name, if that is its password.
    ///
    /// # Errors
    /// [`Refused`]: the two are wrong, or it could not be looked at.
    ///
    /// # Cancel safety
    /// A call that is dropped has changed nothing; a comparison under way ends, and counts until then.
    pub async fn verify(&self, name: &str, password: &str) -> Result<User, Refused> {
        let name = UserName::new(name).ok();
        let entry = match &name {
            Some(name) => self.engine.get(&key(name)).await,
            None => None,
        };
        // A user that this release cannot read came after the start. It lets no caller in.
        let found = name.zip(entry).and_then(|(name, entry)| {
            let stored = Stored::read(&entry.value)?;
            Some((name, stored, entry.value))
        });
        let checks = &self.checks;
        let Some((name, Stored { role, digest }, value)) = found else {
            checks.compare(&[0; 32], None, password).await?;
            return Err(Refused::Wrong(None));
        };
        let proof = checks.proof(&value, name.as_str(), password);
        let is_known = checks.known().get(&proof).is_some();
        if is_known || checks.compare(&proof, Some(digest), password).await? {
            if !is_known {
                checks.known().insert(proof, ());
            }
            return Ok(User { name, role });
        }
        Err(Refused::Wrong(Some(name)))
    }
}

/// Runs what keeps a core busy for tens of milliseconds.
pub(super) async fn off_this_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}
