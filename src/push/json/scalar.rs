//! A JSON value that is neither object nor array.

use serde_json::value::RawValue;

use crate::json::scan;

/// A JSON value that is neither object nor array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A legal JSON number by its digits, so that nothing is rounded.
    Number(String),
    /// A string.
    String(String),
}

impl Scalar {
    /// Returns the scalar in `value`; `None` for an object, an array, or a string with half of a surrogate pair.
    #[must_use]
    pub fn of(value: &RawValue) -> Option<Self> {
        let text = value.get();
        match text.bytes().next()? {
            b'n' => Some(Self::Null),
            b't' => Some(Self::Bool(true)),
            b'f' => Some(Self::Bool(false)),
            b'"' => scan::string(value).map(|text| Self::String(text.into_owned())),
            b'{' | b'[' => None,
            _ => Some(Self::Number(text.to_owned())),
        }
    }
}
