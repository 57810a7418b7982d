//! What is kept of a password: its argon2id digest, as a PHC string that names its own parameters.
//!
//! ```text
//! $argon2id$v=19$m=19456,t=2,p=1$<salt, 16 random bytes>$<digest, 32 bytes>
//! ```

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString},
};
use data_encoding::BASE64_NOPAD;

use crate::random;

/// OWASP's minimum for argon2id (Password Storage Cheat Sheet): 19 MiB, two passes, one lane.
pub(super) const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const SALT_BYTES: usize = 16;
const DIGEST_BYTES: usize = 32;

/// The digest of a password. Making and comparing one takes tens of milliseconds and [`MEMORY_KIB`] of memory: not for
/// threads of the runtime.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Digest(String);

/// The system has no random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random numbers")]
pub(super) struct NoRandom;

impl Digest {
    pub(super) fn of(password: &str) -> Result<Self, NoRandom> {
        let salt = SaltString::encode_b64(&random_bytes::<SALT_BYTES>()?);
        let salt = salt.expect("a salt of 16 bytes is neither too short nor too long");
        let digest = hasher().hash_password(password.as_bytes(), &salt);
        let digest =
            digest.expect("the parameters and the salt are legal, and passwords are short");
        Ok(Self(digest.to_string()))
    }

    /// A digest that no password has. Comparing with it takes as long as with any other.
    pub(super) fn decoy() -> Result<Self, NoRandom> {
        let salt = BASE64_NOPAD.encode(&random_bytes::<SALT_BYTES>()?);
        let digest = BASE64_NOPAD.encode(&random_bytes::<DIGEST_BYTES>()?);
        Ok(Self(format!("{}{salt}${digest}", beginning())))
    }

    /// Reads a digest; `None` if it is none of argon2id.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let parsed = PasswordHash::new(text).ok()?;
        let whole = parsed.salt.is_some() && parsed.hash.is_some();
        let legal = parsed.algorithm.as_str() == "argon2id" && Params::try_from(&parsed).is_ok();
        (whole && legal).then(|| Self(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether this is the digest of `password`. The comparison takes the same time wherever they differ.
    pub(super) fn fits(&self, password: &str) -> bool {
        let parsed = PasswordHash::new(&self.0);
        parsed.is_ok_and(|own| hasher().verify_password(password.as_bytes(), &own).is_ok())
    }

    /// Returns whether it was made with the parameters of this release.
    pub(super) fn is_current(&self) -> bool {
        self.0.starts_with(&beginning())
    }
}

/// Of every digest that is made now.
fn beginning() -> String {
    format!("$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}$")
}

fn hasher() -> Argon2<'static> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, Some(DIGEST_BYTES));
    let params = params.expect("OWASP's parameters are legal ones");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

fn random_bytes<const N: usize>() -> Result<[u8; N], NoRandom> {
    let mut bytes = [0; N];
    random::fill(&mut bytes).map_err(|_| NoRandom)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_fits_its_digest_and_no_two_digests_are_alike() {
        let digest = Digest::of("correct horse").unwrap();
        assert!(
            digest
                .as_str()
                .starts_with("$argon2id$v=19$m=19456,t=2,p=1$")
        );
        assert!(digest.is_current() && digest.fits("correct horse"));
        assert!(!digest.fits("correct hors") && !digest.fits("correct horse "));
        assert_ne!(
            digest.as_str(),
            Digest::of("correct horse").unwrap().as_str()
        );
        assert!(!digest.as_str().contains("horse"));
        assert!(Digest::parse(digest.as_str()) == Some(digest));
    }

    #[test]
    fn a_decoy_has_the_form_and_so_the_cost_of_any_digest() {
        let (decoy, real) = (
            Digest::decoy().unwrap(),
            Digest::of("correct horse").unwrap(),
        );
        assert!(decoy.is_current() && !decoy.fits("correct horse"));
        assert_eq!(decoy.as_str().len(), real.as_str().len());
        assert!(Digest::parse(decoy.as_str()).is_some());
    }

    /// A digest of another program with the parameters of RFC 9106, 4; it stays readable when ours change.
    #[test]
    fn digests_with_other_parameters_are_read_and_known_as_old() {
        let params = Params::new(64, 3, 4, Some(DIGEST_BYTES)).unwrap();
        let other = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let salt = SaltString::encode_b64(&[7; 16]).unwrap();
        let text = other
            .hash_password(b"correct horse", &salt)
            .unwrap()
            .to_string();
        let digest = Digest::parse(&text).unwrap();
        assert!(digest.fits("correct horse") && !digest.fits("other"));
        assert!(!digest.is_current());
        let weaker = text.replace("argon2id", "argon2d");
        for text in ["", "x", "$argon2id$v=19$m=19456,t=2,p=1$", &weaker] {
            assert!(Digest::parse(text).is_none(), "{text}");
        }
    }
}
