//! JSON read without understanding it: how deep it goes, and the members of an object as they stand.

use std::{borrow::Cow, fmt};

use memchr::memchr2;
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// Objects and arrays inside each other, payload included. Most JSON readers have 128 as their bound, targets too.
pub const DEPTH_MAX: usize = 128;

/// Returns whether objects and arrays are at most [`DEPTH_MAX`] deep. It reads any bytes; only for JSON it means
/// something.
pub(crate) fn depth_is_legal(text: &[u8]) -> bool {
    // Hardly any text opens more than that at all, and counting takes a fraction of the time.
    if opened(text) <= DEPTH_MAX {
        return true;
    }
    let mut depth = 0_usize;
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'"' => loop {
                match rest.next() {
                    Some(b'"') | None => break,
                    Some(b'\\') => drop(rest.next()),
                    Some(_) => {}
                }
            },
            b'{' | b'[' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return false;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

/// Counts what opens an object or array. Parts whose count fits a byte are counted by many lanes of a vector at once.
fn opened(text: &[u8]) -> usize {
    let count = |part: &[u8]| {
        let opens = part.iter().map(|byte| u8::from(byte | 0x20 == b'{'));
        opens.fold(0, u8::wrapping_add)
    };
    text.chunks(usize::from(u8::MAX))
        .map(|part| usize::from(count(part)))
        .sum()
}

/// Where a text begins in the body that it is a part of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) lines_before: usize,
    /// In its first line.
    pub(crate) bytes_before: usize,
}

/// Says where in the body a text breaks that is no JSON, and quotes nothing; `None` if it is JSON, and of a wrong type.
/// `error` is what a reader of this text said.
pub(crate) fn broken(text: &str, error: &serde_json::Error, start: Start) -> Option<String> {
    if error.is_data() {
        // That reader stopped at the wrong type and saw nothing behind it: `[1` is no object, and no JSON either.
        let error = serde_json::from_str::<&RawValue>(text).err()?;
        return (!error.is_data()).then(|| broken(text, &error, start))?;
    }
    let (line, column) = (error.line(), error.column());
    // serde counts columns from 1: nothing was there.
    if (line, column) == (1, 0) {
        return Some("there is nothing to read".into());
    }
    let before = if line == 1 { start.bytes_before } else { 0 };
    let (line, column) = (start.lines_before + line, before + column);
    Some(format!(
        "this is not JSON: it breaks at line {line}, column {column}"
    ))
}

/// Returns what is behind the blanks of JSON, which are fewer than those of ASCII.
pub(crate) fn behind_blanks(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\n', '\r'])
}

/// Returns the text of the string that `text` begins with, and what is behind it; `None` if that is no string, or one with
/// escapes, or none of JSON.
pub(crate) fn plain_string(text: &str) -> Option<(&str, &str)> {
    let behind = text.strip_prefix('"')?;
    let end = memchr2(b'"', b'\\', behind.as_bytes())?;
    let (inside, behind) = behind.split_at(end);
    let is_plain = !inside.bytes().any(|byte| byte < b' ');
    let behind = behind.strip_prefix('"').filter(|_| is_plain)?;
    Some((inside, behind))
}

/// Returns the length of the object that `text` begins with; `None` if that is no object, or one without end. It reads any
/// text; only for JSON it means something.
pub(crate) fn object_len(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    if bytes.first() != Some(&b'{') {
        return None;
    }
    let (mut depth, mut at) = (0_usize, 0);
    loop {
        match bytes.get(at)? {
            b'"' => {
                at += 1;
                loop {
                    at += memchr2(b'"', b'\\', bytes.get(at..)?)?;
                    if bytes[at] == b'"' {
                        break;
                    }
                    at += 2;
                }
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
}

/// An object's members in their order, repeats kept, values as they stand.
#[derive(Debug)]
pub(crate) struct Members<'a>(pub(crate) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    /// Reads an object; `None` if the text is something else.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Returns the last member of that name: what a reader sees that keeps one of them.
    pub(crate) fn last(&self, name: &str) -> Option<&'a RawValue> {
        let mut named = self.0.iter().rev().filter(|(n, _)| n == name);
        named.next().map(|(_, value)| *value)
    }

    /// Returns how many members have that name.
    pub(crate) fn count(&self, name: &str) -> usize {
        self.0.iter().filter(|(n, _)| n == name).count()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnObject;
        impl<'de> Visitor<'de> for AnObject {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some((Text(name), value)) = map.next_entry::<Text<'de>, &RawValue>()? {
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(AnObject)
    }
}

/// Returns the elements of an array as they stand; `None` if there are more than `len_max`, of which no more is read.
pub(crate) fn elements(
    text: &str,
    len_max: usize,
) -> Result<Option<Vec<&RawValue>>, serde_json::Error> {
    struct UpTo<'s>(usize, &'s mut bool);
    impl<'de> Visitor<'de> for UpTo<'_> {
        type Value = Vec<&'de RawValue>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut elements = Vec::new();
            while let Some(element) = list.next_element()? {
                if elements.len() == self.0 {
                    *self.1 = true;
                    return Err(de::Error::custom("there are too many"));
                }
                elements.push(element);
            }
            Ok(elements)
        }
    }
    let mut too_many = false;
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = reader
        .deserialize_seq(UpTo(len_max, &mut too_many))
        .and_then(|elements| reader.end().map(|()| elements));
    match read {
        Ok(elements) => Ok(Some(elements)),
        Err(_) if too_many => Ok(None),
        Err(error) => Err(error),
    }
}

/// A string, borrowed where it has no escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Returns the string that `value` is; `None` if it is something else.
pub(crate) fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    let Text(text) = serde_json::from_str(value.get()).ok()?;
    Some(text)
}

/// Returns whether `value` is `null`.
pub(crate) fn is_null(value: &RawValue) -> bool {
    value.get() == "null"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_containers_and_not_what_is_in_strings() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(depth_is_legal(nested(DEPTH_MAX).as_bytes()));
        assert!(!depth_is_legal(nested(DEPTH_MAX + 1).as_bytes()));
        assert!(!depth_is_legal(
            (r#"{"a":"#.repeat(10_000) + "1").as_bytes()
        ));
        let text = format!(r#"{{"a":"{}\"{}"}}"#, "[".repeat(500), "{".repeat(500));
        assert!(depth_is_legal(text.as_bytes()));
        assert!(
            depth_is_legal(br#"["\\",[]]"#) && depth_is_legal(b"\"") && depth_is_legal(b"\"\\")
        );
        assert!(depth_is_legal("[[]]".repeat(1000).as_bytes()));
    }

    #[test]
    fn elements_are_read_up_to_a_bound() {
        let read = |text| elements(text, 2).map(|all| all.map(|all| all.len()));
        for (text, expected) in [("[]", 0), (" [1, {\"a\":[]}] ", 2)] {
            assert_eq!(read(text).unwrap(), Some(expected), "{text}");
        }
        // What stands behind the first that is too many is not looked at.
        for text in ["[1,2,3]", "[1,2,3 and so on"] {
            assert_eq!(read(text).unwrap(), None, "{text}");
        }
        for text in ["[1,2", "[1,2]x", "[1,,2]", "{}", "1", ""] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn members_keep_order_repeats_and_bytes() {
        let members = Members::parse(r#"{"a": 1.10, "\u0062": {"x":[ ]}, "a":null}"#).unwrap();
        let all: Vec<_> = members.0.iter().map(|(n, v)| (&**n, v.get())).collect();
        assert_eq!(all, [("a", "1.10"), ("b", r#"{"x":[ ]}"#), ("a", "null")]);
        assert_eq!(members.last("a").unwrap().get(), "null");
        assert_eq!(members.count("a"), 2);
        for other in ["[]", "1", "null", "", "{", "{}x"] {
            assert!(Members::parse(other).is_none(), "{other}");
        }
    }
}
