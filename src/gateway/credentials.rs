//! Gives dispatch the secrets that ingest stored.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    dispatch::{Credential, CredentialError, Credentials, NewestVersions},
    model::target::Origin,
    secrets::{RevealError, Secrets},
};

/// The secret store, as dispatch's trait.
#[derive(Debug)]
pub(crate) struct FromSecrets(pub(crate) Secrets);

#[async_trait]
impl Credentials for FromSecrets {
    async fn reveal(
        &self,
        source: &str,
        name: &str,
        version: Option<u32>,
        target: &Origin,
    ) -> Result<Credential, CredentialError> {
        let revealed = self.0.reveal(source, name, version, target).await;
        revealed
            .map(|value| Credential::new(String::from(&*value)))
            .map_err(|error| match error {
                RevealError::Unknown => CredentialError::Unknown,
                RevealError::NotForTarget => CredentialError::NotForTarget,
                RevealError::Unreadable => CredentialError::Unreadable,
            })
    }

    async fn newest(&self, source: &str, name: &str, target: &Origin) -> Option<NewestVersions> {
        let (of_all, for_target) = self.0.newest(source, name, target).await?;
        Some(NewestVersions { of_all, for_target })
    }

    fn state_keys(&self, source: &str, name: &str, version: Option<u32>) -> Vec<Arc<str>> {
        // A record without a version gets the newest one at its call, and keeps no version from being removed.
        let key = version.map(|version| Secrets::state_key(source, name, version));
        key.into_iter().collect()
    }
}
