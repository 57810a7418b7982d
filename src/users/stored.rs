//! A user in the state.
//!
//! ```text
//! user/<name>   JSON: role and digest of the password
//! ```

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Role, UserName, digest::Digest};

/// Prefix of the state keys of users.
pub(super) const PREFIX: &str = "user/";

/// A user as it is stored.
#[derive(Clone)]
pub(super) struct Stored {
    pub(super) role: Role,
    pub(super) digest: Digest,
}

#[derive(Serialize, Deserialize)]
struct Form {
    /// Version of the format.
    v: u8,
    role: String,
    digest: String,
}

/// The only version of the format that this release writes and reads.
const FORM: u8 = 1;

impl Stored {
    /// Reads a value; `None` if this release cannot.
    pub(super) fn read(value: &[u8]) -> Option<Self> {
        let form: Form = serde_json::from_slice(value).ok()?;
        (form.v == FORM).then_some(())?;
        Some(Self {
            role: Role::of_word(&form.role)?,
            digest: Digest::parse(&form.digest)?,
        })
    }

    pub(super) fn write(&self) -> Bytes {
        let form = Form {
            v: FORM,
            role: self.role.word().into(),
            digest: self.digest.as_str().into(),
        };
        let written = serde_json::to_vec(&form);
        written.expect("numbers and texts can be written").into()
    }
}

/// Returns the state key of a user.
pub(super) fn key(name: &UserName) -> Arc<str> {
    format!("{PREFIX}{name}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of version 1, which every later release reads.
    const FORM_1: &str = r#"{"v":1,"role":"operator","digest":"$argon2id$v=19$m=19456,t=2,p=1$BwcHBwcHBwcHBwcHBwcHBw$BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc"}"#;

    #[test]
    fn what_was_written_is_read_and_all_else_is_refused() {
        let stored = Stored::read(FORM_1.as_bytes()).unwrap();
        assert_eq!(stored.role, Role::Operator);
        assert_eq!(stored.write(), FORM_1);
        for end in 0..FORM_1.len() {
            assert!(Stored::read(&FORM_1.as_bytes()[..end]).is_none(), "{end}");
        }
        for (part, other) in [
            ("\"v\":1", "\"v\":2"),
            ("operator", "root"),
            ("argon2id", "argon2i"),
            ("\"role\"", "\"rule\""),
        ] {
            let changed = FORM_1.replace(part, other);
            assert!(Stored::read(changed.as_bytes()).is_none(), "{changed}");
        }
    }
}
