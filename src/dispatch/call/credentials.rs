//! What dispatch needs of whoever keeps the secrets.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use zeroize::Zeroizing;

use crate::model::target::Origin;

/// Opens secrets for calls.
#[async_trait]
pub trait Credentials: fmt::Debug + Send + Sync + 'static {
    /// Returns the header value to send to `target`; `version` `None` is the newest.
    ///
    /// # Errors
    /// Each variant of [`CredentialError`] is the cause `secret` of an error record; no call is made.
    async fn reveal(
        &self,
        source: &str,
        name: &str,
        version: Option<u32>,
        target: &Origin,
    ) -> Result<Credential, CredentialError>;

    /// Returns which versions of a secret are its newest ones; `None` if there is no such secret.
    async fn newest(&self, source: &str, name: &str, target: &Origin) -> Option<NewestVersions>;

    /// Returns the names of the state values that a record needs which names this secret: its copy in an error stream
    /// needs them too.
    fn state_keys(&self, source: &str, name: &str, version: Option<u32>) -> Vec<Arc<str>>;
}

/// The newest versions of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewestVersions {
    /// The newest of all.
    pub of_all: u32,
    /// The newest that may go to the target that was asked about; `None` if no version may.
    pub for_target: Option<u32>,
}

/// An opened secret: overwritten in memory when it goes, never shown.
pub struct Credential(Zeroizing<String>);

impl Credential {
    /// Takes an opened secret.
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(Zeroizing::new(value))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Why a secret is not given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// There is none of that name and version.
    #[error("the secret is not known")]
    Unknown,
    /// It is bound to other targets.
    #[error("the secret is not for this target")]
    NotForTarget,
    /// It is stored, but does not open.
    #[error("the secret cannot be opened")]
    Unreadable,
}
