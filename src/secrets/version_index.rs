//! What is kept of a secret in state: one index, and one entry for each version.
//!
//! ```text
//! secret/passed                      the greatest version that a name which is gone has had, as decimal digits
//! secret/key-check                   32 bytes that tell the master key from another
//! secret/<source>/<name>             index, JSON: which token is which version, which version goes to which target
//! secret/<source>/<name>/<version>   JSON: the bound targets and the sealed value
//! ```
//!
//! The index is a claim that speeds things up; what a version's own entry says is authenticated and wins.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

/// Where it is kept how many versions names have had that are gone: one of these names that comes again goes on behind
/// that, so that no record finds another token under its version.
pub(super) const PASSED: &str = "secret/passed";

/// Where the value lies that tells the master key from another.
pub(super) const KEY_CHECK: &str = "secret/key-check";

/// Targets that one secret, or one version of it, can be bound to. With [`DIGESTS_LEN_MAX`] it keeps every entry below
/// the 256 KiB of a state value, hosts of 253 characters included.
pub(super) const TARGETS_LEN_MAX: usize = 512;
/// Tokens by which a version is found again; when there are more, the oldest one counts as new if it comes again.
pub(super) const DIGESTS_LEN_MAX: usize = 1024;

/// A secret as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct VersionIndex {
    /// Form of this entry.
    v: u8,
    /// The greatest version.
    newest: u32,
    /// Digest of each known token, and its version, in the order of versions.
    digests: Vec<(String, u32)>,
    /// The greatest version that may go to a target.
    bound: BTreeMap<String, u32>,
}

impl VersionIndex {
    /// A index whose first version comes behind that one.
    pub(super) fn behind(version: u32) -> Self {
        Self {
            newest: version,
            ..Self::default()
        }
    }

    /// Returns the greatest version that there was.
    pub(super) fn newest(&self) -> u32 {
        self.newest
    }

    /// Returns the versions that a message gets which names the secret and brings no token.
    pub(super) fn newest_versions(&self) -> impl Iterator<Item = u32> {
        self.bound.values().copied()
    }

    /// Forgets a version. Targets whose newest one it was have none until a token is presented for them again.
    pub(super) fn remove(&mut self, version: u32) {
        self.digests.retain(|(_, known)| *known != version);
        self.bound.retain(|_, bound| *bound != version);
    }

    /// Returns whether it knows of no version any more.
    pub(super) fn is_empty(&self) -> bool {
        self.digests.is_empty() && self.bound.is_empty()
    }

    /// Returns the version of a token, given its digest.
    pub(super) fn version_of(&self, digest: &str) -> Option<u32> {
        let equal = |known: &str| {
            // The digests are keyed, so their bytes tell nothing; the time shall not either.
            let pairs = known.bytes().zip(digest.bytes());
            known.len() == digest.len() && pairs.fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
        };
        self.digests
            .iter()
            .fold(None, |found, (known, version)| match equal(known) {
                true => Some(*version),
                false => found,
            })
    }

    /// Gives a new token the next version.
    pub(super) fn add(&mut self, digest: String) -> u32 {
        self.v = 1;
        self.newest = self.newest.saturating_add(1);
        if self.digests.len() >= DIGESTS_LEN_MAX {
            self.digests.remove(0);
        }
        self.digests.push((digest, self.newest));
        self.newest
    }

    /// Notes that a version may go to a target; returns whether there was room.
    pub(super) fn bind(&mut self, target: &str, version: u32) -> bool {
        if let Some(bound) = self.bound.get_mut(target) {
            *bound = version.max(*bound);
            return true;
        }
        if self.bound.len() >= TARGETS_LEN_MAX {
            return false;
        }
        self.bound.insert(target.into(), version);
        true
    }

    /// Returns the newest version that may go to a target.
    pub(super) fn version_for(&self, target: &str) -> Option<u32> {
        self.bound.get(target).copied()
    }
}

/// One token of a secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Version {
    /// Form of this entry.
    pub(super) v: u8,
    /// Where it may go; part of what the seal authenticates.
    pub(super) targets: BTreeSet<String>,
    /// The sealed value as base64.
    pub(super) sealed: String,
}

/// Returns the state key of a index.
pub(super) fn index_key(source: &str, name: &str) -> Arc<str> {
    format!("secret/{source}/{name}").into()
}

/// Returns the state key of a version.
pub(super) fn version_key(source: &str, name: &str, version: u32) -> Arc<str> {
    format!("secret/{source}/{name}/{version}").into()
}

/// Returns whether a state key is one of [`version_key`]. Neither a source nor a name has a `/`.
pub(super) fn is_version(key: &str) -> bool {
    key.matches('/').count() == 3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::STATE_BYTES_MAX;

    #[test]
    fn a_token_finds_its_version_and_a_target_its_newest_one() {
        let mut index = VersionIndex::default();
        assert_eq!(index.version_of("a"), None);
        assert_eq!((index.add("a".into()), index.add("b".into())), (1, 2));
        assert_eq!(
            (index.version_of("a"), index.version_of("b")),
            (Some(1), Some(2))
        );
        assert!(index.bind("x", 2) && index.bind("x", 1) && index.bind("y", 1));
        assert_eq!(
            (index.version_for("x"), index.version_for("y")),
            (Some(2), Some(1))
        );
        assert_eq!(index.version_for("z"), None);
    }

    #[test]
    fn the_fullest_head_fits_into_a_state_value() {
        let mut index = VersionIndex::default();
        for version in 0..DIGESTS_LEN_MAX + 10 {
            index.add(format!("{version:024}"));
        }
        for target in 0..TARGETS_LEN_MAX {
            assert!(index.bind(&format!("https://{target:0>253}:65535"), u32::MAX));
        }
        assert!(!index.bind("one too many", 1));
        assert_eq!(index.version_of(&format!("{:024}", 3)), None);
        assert!(serde_json::to_vec(&index).unwrap().len() < STATE_BYTES_MAX);
    }
}
