//! Measures and splits JSON without building a tree: its depth, and the raw members of an object.

use std::{borrow::Cow, fmt};

use memchr::memchr2;
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::faults::DEPTH_MAX;

/// Returns whether objects and arrays are at most [`DEPTH_MAX`] deep. For bytes that are not JSON the result has no meaning.
pub(crate) fn depth_is_legal(text: &[u8]) -> bool {
    // Few texts have more brackets than that in all, and counting them is much faster than the loop below.
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

/// Counts opening brackets. Chunks of 255 bytes keep the count in a byte, so the compiler can use vector instructions.
fn opened(text: &[u8]) -> usize {
    let count = |part: &[u8]| {
        let opens = part.iter().map(|byte| u8::from(byte | 0x20 == b'{'));
        opens.fold(0, u8::wrapping_add)
    };
    text.chunks(usize::from(u8::MAX))
        .map(|part| usize::from(count(part)))
        .sum()
}

/// Start of a text in its body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) lines_before: usize,
    /// Bytes before it in its first line.
    pub(crate) bytes_before: usize,
}

/// Says where in the body a text stops being JSON, and quotes nothing; `None` if it is JSON of a wrong type. `error` is the
/// error of a reader of this text.
pub(crate) fn broken(text: &str, error: &serde_json::Error, start: Start) -> Option<String> {
    if error.is_data() {
        // The reader stopped at the wrong type and did not read the rest: `[1` is not an object, and not JSON either.
        let error = serde_json::from_str::<&RawValue>(text).err()?;
        return (!error.is_data()).then(|| broken(text, &error, start))?;
    }
    let (line, column) = (error.line(), error.column());
    // serde counts columns from 1, so column 0 means an empty text.
    if (line, column) == (1, 0) {
        return Some("there is nothing to read".into());
    }
    let before = if line == 1 { start.bytes_before } else { 0 };
    let (line, column) = (start.lines_before + line, before + column);
    Some(format!(
        "this is not JSON: it breaks at line {line}, column {column}"
    ))
}

/// Returns the text after leading white space of JSON, which has fewer characters than that of ASCII.
pub(crate) fn after_blanks(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\n', '\r'])
}

/// Returns the string at the start of `text`, and the rest; `None` if there is no string, or one with escapes.
pub(crate) fn plain_string(text: &str) -> Option<(&str, &str)> {
    let rest = text.strip_prefix('"')?;
    let end = memchr2(b'"', b'\\', rest.as_bytes())?;
    let (inside, rest) = rest.split_at(end);
    let is_plain = !inside.bytes().any(|byte| byte < b' ');
    let rest = rest.strip_prefix('"').filter(|_| is_plain)?;
    Some((inside, rest))
}

/// Returns the length of the object at the start of `text`; `None` if there is no object, or no end of it. For text that is
/// not JSON the result has no meaning.
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

/// Members of an object in order, with repeats and raw values.
#[derive(Debug)]
pub(crate) struct Members<'a>(pub(crate) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    /// Reads an object; `None` if the text is something else.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Returns the last member of that name, which most readers keep.
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

/// Returns the raw elements of an array; `None` if there are more than `len_max`. Reading stops at the bound.
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

/// A string, borrowed if it has no escapes.
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
        // The text after the first element that is too many is not read.
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
