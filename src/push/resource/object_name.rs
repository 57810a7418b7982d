//! Names of objects, and patterns of them.

use std::{fmt, str::FromStr, sync::Arc};

use crate::model::ids::StreamName;

use super::glob;

/// Longest name or pattern, in bytes.
const BYTES_MAX: usize = 255;

/// Name of an object: two or three parts of `[A-Za-z][A-Za-z0-9_$]*` joined by dots; case-sensitive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectName(Arc<str>);

/// A text that is no name of an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the name of an object has two or three parts joined by dots, each a letter, then letters, digits, '_' and '$', \
     and at most {BYTES_MAX} bytes"
)]
pub struct ObjectNameInvalid;

impl ObjectName {
    /// Returns the name of a stream's append table: the namespace (`[push] namespace`), then the stream with `_` for
    /// `-`.
    ///
    /// # Errors
    /// [`ObjectNameInvalid`] if the namespace is not a legal part, or the name is too long. A stream's name is never
    /// the cause.
    pub fn append_table(namespace: &str, stream: &StreamName) -> Result<Self, ObjectNameInvalid> {
        let stream = stream.as_str().replace('-', "_");
        match part_is_legal(namespace) {
            true => format!("{namespace}.{stream}").parse(),
            false => Err(ObjectNameInvalid),
        }
    }

    /// Returns a name for the table of a stream that was deleted.
    pub(in crate::push) fn unnamed() -> Self {
        Self("SYNCGATE.STREAM".into())
    }

    /// Returns the whole name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns catalog, if there is one, schema and table.
    #[must_use]
    pub fn parts(&self) -> (Option<&str>, &str, &str) {
        let (schema, table) = self.0.rsplit_once('.').unwrap_or(("", &self.0));
        match schema.split_once('.') {
            Some((catalog, schema)) => (Some(catalog), schema, table),
            None => (None, schema, table),
        }
    }
}

impl FromStr for ObjectName {
    type Err = ObjectNameInvalid;

    fn from_str(text: &str) -> Result<Self, ObjectNameInvalid> {
        match is_legal(text, part_is_legal) {
            true => Ok(Self(text.into())),
            false => Err(ObjectNameInvalid),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A pattern of object names, `*` for any run of characters within a part; `*` alone fits all names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectPattern(Arc<str>);

/// A text that no name of an object can fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this must be \"*\", or two or three parts joined by dots, each of letters, digits, '_', '$' and '*', and at most \
     {BYTES_MAX} bytes"
)]
pub struct ObjectPatternInvalid;

impl ObjectPattern {
    /// Returns the text as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether the name fits. Takes time linear in both.
    #[must_use]
    pub fn fits(&self, name: &ObjectName) -> bool {
        let (mut pattern, mut name) = (self.0.split('.'), name.0.split('.'));
        if &*self.0 == "*" {
            return true;
        }
        loop {
            match (pattern.next(), name.next()) {
                (None, None) => return true,
                (Some(pattern), Some(part)) if glob::fits(pattern, part) => {}
                _ => return false,
            }
        }
    }
}

impl FromStr for ObjectPattern {
    type Err = ObjectPatternInvalid;

    fn from_str(text: &str) -> Result<Self, ObjectPatternInvalid> {
        let legal = |part: &str| {
            let known = |byte| byte == b'*' || byte_is_legal(byte);
            !part.is_empty() && part.bytes().all(known)
        };
        match text == "*" || is_legal(text, legal) {
            true => Ok(Self(text.into())),
            false => Err(ObjectPatternInvalid),
        }
    }
}

fn is_legal(text: &str, part_is_legal: fn(&str) -> bool) -> bool {
    let parts = text.split('.').count();
    text.len() <= BYTES_MAX && (2..=3).contains(&parts) && text.split('.').all(part_is_legal)
}

fn part_is_legal(part: &str) -> bool {
    part.starts_with(|c: char| c.is_ascii_alphabetic()) && part.bytes().all(byte_is_legal)
}

fn byte_is_legal(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ObjectName {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_has_two_or_three_parts() {
        for good in ["A.B", "a.b.c", "S1.T$_9", "Z.z_"] {
            assert_eq!(name(good).as_str(), good);
        }
        let long = format!("A.{}", "b".repeat(254));
        for bad in [
            "", "A", "A.", ".A", "A..B", "A.B.C.D", "1.A", "A._b", "A.$", "A.ü", "A.b c", "A.*",
            &long,
        ] {
            assert_eq!(bad.parse::<ObjectName>(), Err(ObjectNameInvalid), "{bad}");
        }
        assert!(long[..255].parse::<ObjectName>().is_ok());
        assert_eq!(name("A.B").parts(), (None, "A", "B"));
        assert_eq!(name("A.B.C").parts(), (Some("A"), "B", "C"));
    }

    #[test]
    fn the_append_table_is_named_after_the_stream() {
        let table = |namespace: &str, stream: &str| {
            let table = ObjectName::append_table(namespace, &stream.parse().unwrap());
            table.map(|table| table.to_string())
        };
        assert_eq!(table("SYNCGATE", "a-b_c").unwrap(), "SYNCGATE.a_b_c");
        for bad in ["", "A.B", "1", "*"] {
            assert_eq!(table(bad, "ab"), Err(ObjectNameInvalid), "{bad}");
        }
    }

    #[track_caller]
    fn check(pattern: &str, good: &[&str], bad: &[&str]) {
        let pattern: ObjectPattern = pattern.parse().unwrap();
        for text in good {
            assert!(pattern.fits(&name(text)), "{pattern:?} {text}");
        }
        for text in bad {
            assert!(!pattern.fits(&name(text)), "{pattern:?} {text}");
        }
    }

    #[test]
    fn a_star_stays_within_its_part_and_alone_fits_all() {
        check("*", &["A.B", "A.B.C"], &[]);
        check(
            "SALES.ORD*",
            &["SALES.ORD", "SALES.ORDERS"],
            &["SALES.OR", "sales.ORD", "X.SALES.ORD"],
        );
        check("*.*", &["A.B"], &["A.B.C"]);
        check("A.*.*", &["A.B.C"], &["A.B", "B.B.C"]);
        check("*S.T", &["S.T", "XS.T"], &["S.TT"]);
    }

    #[test]
    fn a_pattern_that_no_name_can_fit_is_refused() {
        let long = format!("A.{}", "*".repeat(254));
        for bad in [
            "", "A", "**", "A*", "A.B.C.D", "A..B", "A.b-c", "A.ü", &long,
        ] {
            assert_eq!(
                bad.parse::<ObjectPattern>(),
                Err(ObjectPatternInvalid),
                "{bad}"
            );
        }
        assert!(long[..255].parse::<ObjectPattern>().is_ok());
    }
}
