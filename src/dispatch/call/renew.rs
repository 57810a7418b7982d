//! Chooses the version of a secret that a retry sends, because the token that a record came with may have expired.
//!
//! A record whose last cause was 401, 403 or `secret`, or whose own version is gone, is retried with the newest version
//! of its secret that is bound to its target. The job's record then names that version, so the call and the copy after
//! a failure agree. A token never goes to a target that it was not presented for. If a newer version is bound to other
//! targets only, the failure's reason says so.

use super::credentials::{CredentialError, Credentials};
use crate::dispatch::{
    job::Job,
    outcome::{Cause, Outcome, error_record::cause},
    secret::{self, SecretRef},
};
use crate::model::record::header;

/// A version that is newer than the sent one but not bound to the record's target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dispatch) struct Unbound(u32);

/// Makes a retried record name the newest version of its secret if that may help.
///
/// Only a version that opens for this target replaces the old one. A record without a version is left alone, because
/// each call takes the newest.
pub(in crate::dispatch) async fn renew(
    credentials: &dyn Credentials,
    job: &mut Job,
) -> Option<Unbound> {
    if job.is_first() {
        return None;
    }
    let secret = secret::secret(&job.record)?;
    let SecretRef {
        source,
        name,
        version: Some(own),
    } = secret
    else {
        return None;
    };
    let target = job.origin.as_ref()?.origin();
    if !cause(&job.record).is_some_and(is_about_secret) {
        let opened = credentials.reveal(&source, &name, Some(own), target).await;
        // The version was removed, for example by `doctor --forget-secrets`.
        let is_gone = matches!(opened, Err(CredentialError::Unknown));
        if !is_gone {
            return None;
        }
    }
    let newest = credentials.newest(&source, &name, target).await?;
    let mut sent = own;
    if let Some(version) = newest.for_target.filter(|version| *version != own) {
        let opened = credentials.reveal(&source, &name, Some(version), target);
        if opened.await.is_ok() {
            sent = version;
            let version = version.to_string();
            let named = [(header::SECRET_VERSION, &*version)];
            job.record.headers = job.record.headers.with(named);
        }
    }
    let is_unbound = newest.of_all > sent.max(newest.for_target.unwrap_or(0));
    is_unbound.then_some(Unbound(newest.of_all))
}

impl Unbound {
    /// Adds to the reason of a failure about the secret why the newest version was not sent.
    pub(in crate::dispatch) fn tell(self, mut outcome: Outcome) -> Outcome {
        if let Outcome::Failed(failure) = &mut outcome
            && is_about_secret(failure.cause)
        {
            failure.reason = format!(
                "{}; version {} of the secret is newer, but was never presented for this target",
                failure.reason, self.0
            )
            .into();
        }
        outcome
    }
}

/// Returns whether another token may change the outcome of a call.
fn is_about_secret(cause: Cause) -> bool {
    matches!(cause, Cause::Status(401 | 403) | Cause::Secret)
}
