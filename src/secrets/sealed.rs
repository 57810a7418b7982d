//! Sealing: XChaCha20-Poly1305 over the value, with its name, version and targets as authenticated data.
//!
//! ```text
//! sealed   nonce 24 bytes, random; ciphertext; tag 16 bytes
//! about    "syncgate secret 1", then source, name, version (u32) and each bound target in order, every text behind its
//!          length (u32); all numbers little-endian
//! ```
//!
//! A sealed value does not open under another name or version, or with another target in the stored list.

use std::{collections::BTreeSet, fmt};

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use ring::hmac;
use zeroize::Zeroizing;

use super::MasterKey;
use crate::runtime::random;

const NONCE_BYTES: usize = 24;

/// The authenticated data of a sealed value.
#[derive(Clone, Copy, Debug)]
pub(super) struct About<'a> {
    pub(super) source: &'a str,
    pub(super) name: &'a str,
    pub(super) version: u32,
    pub(super) targets: &'a BTreeSet<String>,
}

impl About<'_> {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"syncgate secret 1".to_vec();
        let mut text = |text: &str| {
            bytes.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
            bytes.extend(text.as_bytes());
        };
        text(self.source);
        text(self.name);
        for target in self.targets {
            text(target);
        }
        bytes.extend(self.version.to_le_bytes());
        bytes
    }
}

/// The three keys derived from the master key, each for one purpose.
pub(super) struct Keys {
    cipher: XChaCha20Poly1305,
    digest: hmac::Key,
    check: [u8; 32],
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(***)")
    }
}

impl Keys {
    pub(super) fn of(master: &MasterKey) -> Self {
        let derive =
            |purpose: &[u8]| Zeroizing::new(bytes(&hmac::sign(&keyed(master.bytes()), purpose)));
        Self {
            cipher: XChaCha20Poly1305::new((&*derive(b"syncgate seal 1")).into()),
            digest: keyed(&derive(b"syncgate digest 1")),
            check: *derive(b"syncgate check 1"),
        }
    }

    /// Returns a mark that identifies the master key and reveals nothing about it.
    pub(super) fn check(&self) -> &[u8; 32] {
        &self.check
    }

    /// Returns a keyed digest. `purpose` separates the digests of different uses.
    pub(super) fn digest(&self, purpose: &[u8], parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = hmac::Context::with_key(&self.digest);
        mac.update(purpose);
        for part in parts {
            mac.update(&part.len().to_le_bytes());
            mac.update(part);
        }
        bytes(&mac.sign())
    }

    /// Returns nonce, ciphertext and tag; `None` only if the system has no random numbers.
    pub(super) fn seal(&self, plain: &str, about: &About<'_>) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_BYTES];
        random::fill(&mut nonce).ok()?;
        let payload = Payload {
            msg: plain.as_bytes(),
            aad: &about.bytes(),
        };
        let sealed = self.cipher.encrypt(XNonce::from_slice(&nonce), payload);
        let mut bytes = nonce.to_vec();
        bytes.extend(sealed.ok()?);
        Some(bytes)
    }

    /// Returns the value; `None` if anything about it is not as it was sealed.
    pub(super) fn open(&self, sealed: &[u8], about: &About<'_>) -> Option<Zeroizing<String>> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE_BYTES)?;
        let payload = Payload {
            msg: sealed,
            aad: &about.bytes(),
        };
        let plain = Zeroizing::new(
            self.cipher
                .decrypt(XNonce::from_slice(nonce), payload)
                .ok()?,
        );
        let text = std::str::from_utf8(&plain).ok()?;
        Some(Zeroizing::new(text.to_owned()))
    }
}

fn keyed(key: &[u8; 32]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, key)
}

fn bytes(tag: &hmac::Tag) -> [u8; 32] {
    tag.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about<'a>(version: u32, targets: &'a BTreeSet<String>) -> About<'a> {
        About {
            source: "default",
            name: "n",
            version,
            targets,
        }
    }

    #[test]
    fn a_value_opens_only_as_what_it_was_sealed_as() {
        let keys = Keys::of(&MasterKey::from_bytes([1; 32]));
        let targets = BTreeSet::from(["http://a:80".to_owned()]);
        let more = BTreeSet::from(["http://a:80".to_owned(), "http://evil:80".to_owned()]);
        let right = about(1, &targets);
        let sealed = keys.seal("Bearer x", &right).unwrap();
        assert_eq!(
            keys.open(&sealed, &right).as_deref().map(String::as_str),
            Some("Bearer x")
        );
        let wrong = [
            about(2, &targets),
            about(1, &more),
            About { name: "m", ..right },
            About {
                source: "other",
                ..right
            },
            // The border between two texts is bound too.
            About {
                source: "defaultn",
                name: "",
                ..right
            },
        ];
        for wrong in wrong {
            assert!(keys.open(&sealed, &wrong).is_none(), "{wrong:?}");
        }
        let other = Keys::of(&MasterKey::from_bytes([2; 32]));
        assert!(other.open(&sealed, &right).is_none());
        assert_ne!(other.check(), keys.check());
    }

    #[test]
    fn every_prefix_and_every_changed_bit_is_refused() {
        let keys = Keys::of(&MasterKey::from_bytes([1; 32]));
        let targets = BTreeSet::new();
        let sealed = keys.seal("token", &about(1, &targets)).unwrap();
        for cut in 0..sealed.len() {
            assert!(keys.open(&sealed[..cut], &about(1, &targets)).is_none());
        }
        for at in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[at / 8] ^= 1 << (at % 8);
            assert!(keys.open(&changed, &about(1, &targets)).is_none());
        }
    }

    #[test]
    fn the_same_value_never_seals_to_the_same_bytes() {
        let keys = Keys::of(&MasterKey::from_bytes([1; 32]));
        let targets = BTreeSet::new();
        let seal = || keys.seal("token", &about(1, &targets)).unwrap();
        assert_ne!(seal(), seal());
        assert!(!seal().windows(5).any(|bytes| bytes == b"token"));
    }
}
