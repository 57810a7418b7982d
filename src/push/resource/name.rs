//! Names of data streams.

use std::{fmt, str::FromStr, sync::Arc};

/// Name of a data stream: `^[A-Za-z][A-Za-z0-9_.-]{0,31}$`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceName(Arc<str>);

/// A text that is no name of a data stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a data stream's name has 1 to 32 characters: a letter, then letters, digits, '_', '.' and '-'"
)]
pub struct ResourceNameInvalid;

impl ResourceName {
    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the path of the data stream.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/services/v2/stream/{self}")
    }
}

impl FromStr for ResourceName {
    type Err = ResourceNameInvalid;

    fn from_str(text: &str) -> Result<Self, ResourceNameInvalid> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let first = text.starts_with(|c: char| c.is_ascii_alphabetic());
        match first && text.len() <= 32 && text.bytes().all(legal) {
            true => Ok(Self(text.into())),
            false => Err(ResourceNameInvalid),
        }
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_1_to_32_characters_of_the_pattern() {
        for good in ["s", "S1.a_b-c", &"a".repeat(32)] {
            assert_eq!(good.parse::<ResourceName>().unwrap().as_str(), good);
        }
        for bad in ["", "1s", ".s", "s/", "s s", "ü", &"a".repeat(33)] {
            assert_eq!(
                bad.parse::<ResourceName>(),
                Err(ResourceNameInvalid),
                "{bad}"
            );
        }
        let name: ResourceName = "s1".parse().unwrap();
        assert_eq!(name.path(), "/services/v2/stream/s1");
    }
}
