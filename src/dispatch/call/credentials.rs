//! The interface through which dispatch opens secrets. `secrets` implements it.

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

    /// Returns the newest versions of a secret; `None` if it does not exist.
    async fn newest(&self, source: &str, name: &str, target: &Origin) -> Option<NewestVersions>;

    /// Returns the keys of the state values of this secret. A record that names the secret refers to them, also from an
    /// error stream.
    fn state_keys(&self, source: &str, name: &str, version: Option<u32>) -> Vec<Arc<str>>;
}

/// The newest versions of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewestVersions {
    /// The newest of all.
    pub of_all: u32,
    /// The newest that may go to the given target; `None` if no version may.
    pub for_target: Option<u32>,
}

/// An opened secret: overwritten in memory when dropped, never shown.
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

/// Why a secret was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// No secret has this name and version.
    #[error("the secret is not known")]
    Unknown,
    /// It is bound to other targets.
    #[error("the secret is not for this target")]
    NotForTarget,
    /// It is stored but cannot be decrypted.
    #[error("the secret cannot be opened")]
    Unreadable,
}
