//! Reads all JSON that the grammar of RFC 8259 allows: also half surrogate pairs, numbers of any size, and any depth.
//! `serde_json::Value` refuses all three, and one such payload would make a whole page of records unreadable.
//!
//! For text that is shown to people: half a surrogate pair becomes U+FFFD.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// Returns the members of an object in order, with repeats and raw values; `None` if the text is not an object.
pub(crate) fn members(text: &str) -> Option<Vec<(Cow<'_, str>, &RawValue)>> {
    let Members(members) = serde_json::from_str(text).ok()?;
    Some(members.into_iter().map(named).collect())
}

fn named<'a>((name, value): (&'a RawValue, &'a RawValue)) -> (Cow<'a, str>, &'a RawValue) {
    (string(name).unwrap_or_default(), value)
}

/// Returns the last member of that name, which most readers keep.
pub(crate) fn member<'a>(
    members: &[(Cow<'a, str>, &'a RawValue)],
    name: &str,
) -> Option<&'a RawValue> {
    let mut named = members.iter().rev().filter(|(n, _)| n == name);
    named.next().map(|(_, value)| *value)
}

/// Returns the raw elements of an array; `None` if the text is not an array.
pub(crate) fn elements(text: &str) -> Option<Vec<&RawValue>> {
    serde_json::from_str(text).ok()
}

/// Returns the string that `value` is; `None` if it is something else.
pub(crate) fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    let Text(text) = serde_json::from_str(value.get()).ok()?;
    Some(text)
}

/// Names are raw too, because half a surrogate pair in a name read as a string would refuse the object.
struct Members<'a>(Vec<(&'a RawValue, &'a RawValue)>);

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
                while let Some(member) = map.next_entry::<&RawValue, &RawValue>()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(AnObject)
    }
}

/// A string, borrowed if it has no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AString;
        impl<'de> Visitor<'de> for AString {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Text<'de>, E> {
                Ok(Text(lossy(bytes)))
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(lossy(bytes).into_owned())))
            }
        }
        // As bytes, serde_json returns half a surrogate pair as three bytes, in the way of UTF-8.
        deserializer.deserialize_bytes(AString)
    }
}

fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Err(error) = std::str::from_utf8(rest) {
        let (legal, half) = rest.split_at(error.valid_up_to());
        text.push_str(std::str::from_utf8(legal).unwrap_or_default());
        text.push('\u{fffd}');
        rest = half.get(3..).unwrap_or_default();
    }
    text.push_str(std::str::from_utf8(rest).unwrap_or_default());
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_the_grammar_allows_is_read() {
        let deep = "[".repeat(1_000) + &"]".repeat(1_000);
        let text = format!(
            r#" {{"a\ud800" : "\udc00x\u0041", "b":1e400,"\ud83d\ude00":{deep} , "b": ["\ud800",-0]}}"#
        );
        let members = members(&text).unwrap();
        let names: Vec<_> = members.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["a\u{fffd}", "b", "\u{1f600}", "b"]);
        assert_eq!(string(members[0].1).as_deref(), Some("\u{fffd}xA"));
        assert_eq!(members[2].1.get(), deep);
        let last = member(&members, "b").unwrap();
        assert_eq!(last.get(), r#"["\ud800",-0]"#);
        let elements = elements(last.get()).unwrap();
        assert_eq!(string(elements[0]).as_deref(), Some("\u{fffd}"));
        assert_eq!(string(elements[1]), None);
    }

    #[test]
    fn text_that_is_not_json_is_not_read() {
        for text in ["", "{", "[]", "1", r#"{"\x":1}"#, r#"{"a":01}"#, "{}x"] {
            assert!(members(text).is_none(), "{text}");
        }
        for text in ["", "[", "{}", "[01]", r#"["\u12"]"#] {
            assert!(elements(text).is_none(), "{text}");
        }
    }
}
