//! What is kept of a password: its argon2id digest, as a PHC string that names its own parameters.
//!
//! ```text
//! $argon2id$v=19$m=19456,t=2,p=1$<salt, 16 random bytes>$<digest, 32 bytes>
//! ```

use argon2::{
    Algorithm, Argon2, Block, Params, Version,
    password_hash::{Output, PasswordHash, Salt},
};
use data_encoding::BASE64_NOPAD;

use crate::runtime::random;

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

/// What argon2 works in. It is used again and again: freed, the allocator would keep as much for every thread that ever
/// made a digest.
#[derive(Default)]
pub(super) struct Memory(Vec<Block>);

impl Memory {
    fn digest(&mut self, password: &str, salt: &[u8], params: Params) -> Option<Output> {
        self.0.resize(params.block_count(), Block::new());
        let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let mut digest = [0; DIGEST_BYTES];
        let blocks = &mut self.0;
        let made =
            hasher.hash_password_into_with_memory(password.as_bytes(), salt, &mut digest, blocks);
        // The first blocks would let a guess be tried at a small part of the cost.
        self.0.fill(Block::new());
        made.ok()?;
        Output::new(&digest).ok()
    }
}

impl Digest {
    pub(super) fn of(password: &str, memory: &mut Memory) -> Result<Self, NoRandom> {
        let salt = random_bytes::<SALT_BYTES>()?;
        let params = Params::new(MEMORY_KIB, PASSES, LANES, Some(DIGEST_BYTES));
        let params = params.expect("OWASP's parameters are legal ones");
        let digest = memory.digest(password, &salt, params);
        let digest =
            digest.expect("salt and digest are as long as they may be, passwords are short");
        let salt = BASE64_NOPAD.encode(&salt);
        Ok(Self(format!("{}{salt}${digest}", beginning())))
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
        let len = parsed.hash.map(|digest| digest.len());
        let whole = parsed.salt.is_some() && len == Some(DIGEST_BYTES);
        let legal = parsed.algorithm.as_str() == "argon2id" && Params::try_from(&parsed).is_ok();
        (whole && legal).then(|| Self(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether this is the digest of `password`. The comparison takes the same time wherever they differ.
    pub(super) fn fits(&self, password: &str, memory: &mut Memory) -> bool {
        self.compare(password, memory).unwrap_or(false)
    }

    fn compare(&self, password: &str, memory: &mut Memory) -> Option<bool> {
        let own = PasswordHash::new(&self.0).ok()?;
        let mut salt = [0; Salt::MAX_LENGTH];
        let salt = own.salt?.decode_b64(&mut salt).ok()?;
        let params = Params::try_from(&own).ok()?;
        let digest = memory.digest(password, salt, params)?;
        Some(digest == own.hash?)
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

fn random_bytes<const N: usize>() -> Result<[u8; N], NoRandom> {
    let mut bytes = [0; N];
    random::fill(&mut bytes).map_err(|_| NoRandom)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::{PasswordHasher, SaltString};

    use super::*;

    fn of(password: &str) -> Digest {
        Digest::of(password, &mut Memory::default()).unwrap()
    }

    fn fits(digest: &Digest, password: &str) -> bool {
        digest.fits(password, &mut Memory::default())
    }

    #[test]
    fn only_the_password_fits_its_digest_and_no_two_digests_are_alike() {
        let digest = of("correct horse");
        assert!(
            digest
                .as_str()
                .starts_with("$argon2id$v=19$m=19456,t=2,p=1$")
        );
        assert!(digest.is_current() && fits(&digest, "correct horse"));
        assert!(!fits(&digest, "correct hors") && !fits(&digest, "correct horse "));
        assert_ne!(digest.as_str(), of("correct horse").as_str());
        assert!(!digest.as_str().contains("horse"));
        assert!(Digest::parse(digest.as_str()) == Some(digest));
    }

    /// What is made is what the crate itself takes for the digest, and memory that was used does not show.
    #[test]
    fn digests_are_those_of_everybody_else() {
        let mut memory = Memory::default();
        for password in ["correct horse", "another one", "correct horse"] {
            let digest = Digest::of(password, &mut memory).unwrap();
            let parsed = PasswordHash::new(digest.as_str()).unwrap();
            assert!(
                parsed
                    .verify_password(&[&Argon2::default()], password)
                    .is_ok()
            );
            assert!(digest.fits(password, &mut memory));
            assert!(
                memory
                    .0
                    .iter()
                    .all(|block| block.as_ref().iter().all(|word| *word == 0))
            );
        }
    }

    #[test]
    fn a_decoy_has_the_form_and_so_the_cost_of_any_digest() {
        let (decoy, real) = (Digest::decoy().unwrap(), of("correct horse"));
        assert!(decoy.is_current() && !fits(&decoy, "correct horse"));
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
        assert!(fits(&digest, "correct horse") && !fits(&digest, "other"));
        assert!(!digest.is_current());
        let weaker = text.replace("argon2id", "argon2d");
        for text in ["", "x", "$argon2id$v=19$m=19456,t=2,p=1$", &weaker] {
            assert!(Digest::parse(text).is_none(), "{text}");
        }
    }
}
