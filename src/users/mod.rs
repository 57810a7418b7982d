//! Users of the gateway's own routes, with name, password and role.
//!
//! The state keeps a user with its role and a digest of its password (argon2id, `digest.rs`), never the password. The first
//! administrator comes from the environment at the start. It wins over the stored user, because an operator who sets the
//! environment has all rights anyway. Without any user there is no [`Users`], and the gateway is in open mode.
//!
//! `gateway` calls [`Users::open`] at the start. The edge calls [`Users::verify`] for each request (`verify.rs`, with its
//! bounds).

mod credentials;
mod digest;
mod stored;
#[cfg(test)]
pub(crate) mod tests;
mod verify;

use std::{fmt, sync::Arc};

use bytes::Bytes;

pub use credentials::{
    NAME_BYTES_MAX, NameInvalid, PASSWORD_CHARS_MAX, PASSWORD_CHARS_MIN, Password, PasswordInvalid,
    UserName,
};
pub use verify::{Refused, User};

use crate::storage::{Commit, CommitError, Engine, StateChange};

use self::{
    digest::{Digest, NoRandom},
    stored::{PREFIX, Stored, key},
    verify::{Checks, off_this_thread},
};

/// Prefix of the state keys of users.
pub(crate) const STATE_PREFIX: &str = PREFIX;

/// The rights of a user. Each role includes the earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads names, counts and states.
    User,
    /// Also reads payloads, keys and causes, and retries records.
    Operator,
    /// Also changes streams, settings and users.
    Administrator,
}

impl Role {
    const ALL: [Self; 3] = [Self::User, Self::Operator, Self::Administrator];

    /// Returns the word for state, log lines and answers.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Operator => "operator",
            Self::Administrator => "administrator",
        }
    }

    fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.word() == word)
    }
}

/// The administrator of the environment.
#[derive(Clone, Debug)]
pub struct Administrator {
    /// `SYNCGATE_ADMIN_USER`
    pub name: UserName,
    /// `SYNCGATE_ADMIN_PASSWORD`
    pub password: Password,
}

/// Why the users cannot be used. The gateway then does not start, because it could let in the wrong callers.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A stored user cannot be read, because it is damaged or of a newer release.
    #[error("the stored user {0:?} cannot be read; a newer release may have written it")]
    Unreadable(String),
    /// The administrator of the environment could not be stored.
    #[error("cannot store the administrator of SYNCGATE_ADMIN_USER")]
    Commit(#[from] CommitError),
    /// The system gives no random numbers for a salt.
    #[error("the system gives no random numbers")]
    NoRandom,
}

impl From<NoRandom> for OpenError {
    fn from(NoRandom: NoRandom) -> Self {
        Self::NoRandom
    }
}

/// Handle to all users. Clones share everything.
#[derive(Clone)]
pub struct Users {
    engine: Arc<dyn Engine>,
    checks: Arc<Checks>,
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Users(***)")
    }
}

impl Users {
    /// Opens the users of an engine. It creates `administrator`, or gives the existing user this password and the role. Other
    /// users stay unchanged. Returns `None` without any user: open mode.
    ///
    /// The change is one commit. After a crash before it, the next start makes it.
    ///
    /// # Errors
    /// Each variant of [`OpenError`] says what is wrong.
    pub async fn open(
        engine: Arc<dyn Engine>,
        administrator: Option<&Administrator>,
    ) -> Result<Option<Self>, OpenError> {
        let (mut len, mut others) = (0, Vec::new());
        for (key, entry) in engine.list(PREFIX).await {
            let name = &key[PREFIX.len()..];
            if UserName::new(name).is_err() || Stored::read(&entry.value).is_none() {
                return Err(OpenError::Unreadable(name.into()));
            }
            len += 1;
            if administrator.is_some_and(|administrator| administrator.name.as_str() != name) {
                others.push(name.to_owned());
            }
        }
        let checks = Arc::new(Checks::new()?);
        match administrator {
            Some(administrator) => ensure(&*engine, &checks, administrator).await?,
            None if len == 0 => return Ok(None),
            None => {}
        }
        if !others.is_empty() {
            let others = others.join(", ");
            tracing::warn!(others, "users stay that SYNCGATE_ADMIN_USER does not name");
        }
        Ok(Some(Self { engine, checks }))
    }
}

/// Makes the stored administrator equal to that of the environment.
async fn ensure(
    engine: &dyn Engine,
    checks: &Arc<Checks>,
    administrator: &Administrator,
) -> Result<(), OpenError> {
    let Administrator { name, password } = administrator.clone();
    let entry = engine.get(&key(&name)).await;
    let revision = entry.as_ref().map_or(0, |entry| entry.revision);
    let before = entry.map(|entry| entry.value);
    let stored = before.as_ref().and_then(|value| Stored::read(value));
    let role_before = stored.as_ref().map(|stored| stored.role);
    // Keep a digest that fits the password, so that a start with the same variables writes nothing.
    let checks = checks.clone();
    let made = off_this_thread(move || {
        checks.with_memory(|memory| {
            let same = stored.filter(|stored| stored.digest.fits(password.as_str(), memory));
            match &same {
                Some(stored) if stored.digest.is_current() => Ok((stored.digest.clone(), true)),
                _ => Digest::of(password.as_str(), memory).map(|digest| (digest, same.is_some())),
            }
        })
    });
    let (digest, is_same) = made.await?;
    let stored = Stored {
        role: Role::Administrator,
        digest,
    };
    let value = stored.write();
    let changed = before.as_ref() != Some(&value);
    if changed {
        put(engine, &name, value, revision).await?;
    }
    let user = name.as_str();
    match role_before {
        None => tracing::info!(user, "administrator made, as SYNCGATE_ADMIN_USER says"),
        Some(_) if !is_same => tracing::info!(
            user,
            "password of the administrator changed, as SYNCGATE_ADMIN_PASSWORD says"
        ),
        Some(before) if before != Role::Administrator => {
            tracing::info!(user, "user made administrator, as SYNCGATE_ADMIN_USER says");
        }
        Some(_) if changed => tracing::info!(user, "digest of the password made anew"),
        Some(_) => {}
    }
    Ok(())
}

/// Stores a user, if its revision is still this one; 0 = a new user.
async fn put(
    engine: &dyn Engine,
    name: &UserName,
    value: Bytes,
    revision: u64,
) -> Result<(), CommitError> {
    let change = StateChange {
        key: key(name),
        value: Some(value),
        expected: Some(revision),
    };
    let commit = Commit {
        state: vec![change],
        ..Commit::default()
    };
    engine.commit(commit).await.map(drop)
}
