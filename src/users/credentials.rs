//! What a name and a password may be. Pure.

use std::{fmt, sync::Arc};

use zeroize::Zeroizing;

/// Longest name of a user.
pub const NAME_BYTES_MAX: usize = 128;
/// Fewest characters of a password (OWASP ASVS 4.0, 2.1.1). At a thousand guesses a second, more than
/// [`Users`](super::Users) checks, as many random small letters last for millions of years.
pub const PASSWORD_CHARS_MIN: usize = 12;
/// Most characters of a password (OWASP ASVS 4.0, 2.1.2).
pub const PASSWORD_CHARS_MAX: usize = 128;

/// Name of a user: 1 to [`NAME_BYTES_MAX`] bytes without a colon and control characters, as Basic authentication can
/// carry it (RFC 7617, 2). Names that differ in a byte are different.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UserName(Arc<str>);

/// Why a text is no name of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameInvalid {
    /// It has no character.
    #[error("is empty; give a name of 1 to {NAME_BYTES_MAX} bytes")]
    Empty,
    /// It has more than [`NAME_BYTES_MAX`] bytes.
    #[error("is longer than {NAME_BYTES_MAX} bytes; give a shorter name")]
    TooLong,
    /// The name would end there.
    #[error(
        "has a colon, which would end the name in Basic authentication; give a name without one"
    )]
    Colon,
    /// No header may have it.
    #[error("has a control character, such as a line end; give a name without one")]
    Control,
}

impl UserName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`NameInvalid`] says what is wrong.
    pub fn new(name: &str) -> Result<Self, NameInvalid> {
        match name {
            "" => Err(NameInvalid::Empty),
            name if name.len() > NAME_BYTES_MAX => Err(NameInvalid::TooLong),
            name if name.contains(':') => Err(NameInvalid::Colon),
            name if name.contains(char::is_control) => Err(NameInvalid::Control),
            name => Ok(Self(name.into())),
        }
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A password that a user can get: [`PASSWORD_CHARS_MIN`] to [`PASSWORD_CHARS_MAX`] characters, no control character
/// (RFC 7617, 2). Never shown, and wiped from memory when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Zeroizing<String>);

/// Why a text can be no password. Says nothing about the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordInvalid {
    /// It has no character.
    #[error("is empty; give a password of {PASSWORD_CHARS_MIN} to {PASSWORD_CHARS_MAX} characters")]
    Empty,
    /// It has fewer than [`PASSWORD_CHARS_MIN`] characters.
    #[error(
        "is too short; give a password of {PASSWORD_CHARS_MIN} to {PASSWORD_CHARS_MAX} characters"
    )]
    TooShort,
    /// It has more than [`PASSWORD_CHARS_MAX`] characters.
    #[error(
        "is too long; give a password of {PASSWORD_CHARS_MIN} to {PASSWORD_CHARS_MAX} characters"
    )]
    TooLong,
    /// No client may send it.
    #[error("has a control character, such as a line end at its end; give a password without one")]
    Control,
}

impl Password {
    /// Checks a password.
    ///
    /// # Errors
    /// [`PasswordInvalid`] says what is wrong.
    pub fn new(password: &str) -> Result<Self, PasswordInvalid> {
        match password.chars().count() {
            0 => Err(PasswordInvalid::Empty),
            _ if password.contains(char::is_control) => Err(PasswordInvalid::Control),
            len if len < PASSWORD_CHARS_MIN => Err(PasswordInvalid::TooShort),
            len if len > PASSWORD_CHARS_MAX => Err(PasswordInvalid::TooLong),
            _ => Ok(Self(Zeroizing::new(password.to_owned()))),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_basic_authentication_can_carry() {
        for good in ["a", "Ada Lovelace", "ünïcode", &"x".repeat(NAME_BYTES_MAX)] {
            assert_eq!(UserName::new(good).unwrap().as_str(), good);
        }
        for (bad, why) in [
            ("", NameInvalid::Empty),
            (&*"x".repeat(NAME_BYTES_MAX + 1), NameInvalid::TooLong),
            ("a:b", NameInvalid::Colon),
            ("a\n", NameInvalid::Control),
            ("a\u{7f}", NameInvalid::Control),
            ("a\u{85}", NameInvalid::Control),
        ] {
            assert_eq!(UserName::new(bad), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn a_password_is_long_enough_and_has_a_bound() {
        for good in [
            "exactly12byt",
            "with: a colon",
            "ünïcödé is 1",
            &"x".repeat(PASSWORD_CHARS_MAX),
        ] {
            let password = Password::new(good).unwrap();
            assert_eq!(password.as_str(), good);
            assert_eq!(format!("{password:?}"), "***");
        }
        for (bad, why) in [
            ("", PasswordInvalid::Empty),
            ("only 11 cha", PasswordInvalid::TooShort),
            // 22 bytes, 11 characters.
            ("ööööööööööö", PasswordInvalid::TooShort),
            (
                &*"x".repeat(PASSWORD_CHARS_MAX + 1),
                PasswordInvalid::TooLong,
            ),
            ("with a line end\n", PasswordInvalid::Control),
        ] {
            assert_eq!(Password::new(bad), Err(why), "{bad:?}");
        }
    }
}
