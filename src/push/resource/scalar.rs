//! A JSON value that has no parts.

/// A JSON value that has no parts.
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
