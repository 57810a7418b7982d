//! Names of cursors.

use std::{fmt, str::FromStr, sync::Arc};

/// Name of a cursor: `^[A-Za-z][A-Za-z0-9_.-]{0,63}$`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CursorName(Arc<str>);

/// A text that is no name of a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a cursor's name has 1 to 64 characters: a letter, then letters, digits, '_', '.' and '-'")]
pub struct CursorNameInvalid;

impl CursorName {
    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CursorName {
    type Err = CursorNameInvalid;

    fn from_str(text: &str) -> Result<Self, CursorNameInvalid> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let first = text.starts_with(|c: char| c.is_ascii_alphabetic());
        match first && text.len() <= 64 && text.bytes().all(legal) {
            true => Ok(Self(text.into())),
            false => Err(CursorNameInvalid),
        }
    }
}

impl fmt::Display for CursorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_1_to_64_characters_of_the_pattern() {
        for good in ["c", "Warehouse-1.a_b", &"a".repeat(64)] {
            assert_eq!(good.parse::<CursorName>().unwrap().as_str(), good);
        }
        for bad in ["", "1c", "-c", "c/", "c c", "ü", &"a".repeat(65)] {
            assert_eq!(bad.parse::<CursorName>(), Err(CursorNameInvalid), "{bad}");
        }
    }
}
