//! JSON text: checked, without blanks, and safe to be run as a script.
//!
//! What a subscriber gets is never a source's bytes unread: some clients `eval` it. [`compact`] copies a value only if it is
//! JSON in full, and the walkers below it read nothing but what it wrote.

use std::{borrow::Cow, cmp::Ordering, ops::Range};

use data_encoding::BASE64;
use memchr::{memchr, memchr2};

use crate::ingest::json::DEPTH_MAX;

/// A member of the object that [`compact`] has read, where it lies in what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// The name with its quotes.
    pub(super) name: Range<usize>,
    pub(super) value: Range<usize>,
}

/// What may come next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Value,
    ValueOrEnd,
    NameOrEnd,
    Name,
    CommaOrEnd,
}

/// What became of a text that is to be JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compacted {
    /// It is JSON, and there is nothing to leave out or to escape: nothing was appended.
    AsItStands,
    /// It is JSON, and was appended.
    Copied,
    Invalid,
}

/// Appends `text` without blanks to `out`, which is empty, unless it has none and can be taken as it stands; the members
/// of an object at the top are added to `members`, repeats kept.
///
/// Nothing stays in `out` if `text` is not JSON: if it is against the grammar, deeper than [`DEPTH_MAX`], or has one half
/// of a surrogate pair, which is no character and breaks strict readers.
/// U+2028 and U+2029 come out as escapes, everything else in a string and every number as it stands.
pub(super) fn compact(text: &[u8], out: &mut Vec<u8>, members: &mut Vec<Member>) -> Compacted {
    let plain = is_plain(text);
    let legal = plain || std::str::from_utf8(text).is_ok();
    let compacted = match legal {
        true => Compact::new(text, plain, out, members).run(),
        false => Compacted::Invalid,
    };
    if compacted == Compacted::Invalid {
        out.clear();
    }
    compacted
}

/// Returns whether a text is ASCII without control characters and backslashes, as most are: then every string in it ends
/// at the next quote.
fn is_plain(text: &[u8]) -> bool {
    let is_other = |byte: u8| u8::from(byte < b' ') | u8::from(byte == b'\\') | (byte & 0x80);
    // Whole chunks without a way out of them are looked at by vectors.
    let mut chunks = text.chunks(64);
    chunks.all(|chunk| chunk.iter().fold(0, |any, byte| any | is_other(*byte)) == 0)
}

struct Compact<'a> {
    text: &'a [u8],
    is_plain: bool,
    at: usize,
    /// What is before it has been copied or left out.
    copied: usize,
    out: &'a mut Vec<u8>,
    members: &'a mut Vec<Member>,
    /// A bit per open container, the innermost lowest: set for an object.
    open: u128,
    depth: usize,
}

const _: () = assert!(DEPTH_MAX <= u128::BITS as usize);

impl<'a> Compact<'a> {
    fn new(
        text: &'a [u8],
        is_plain: bool,
        out: &'a mut Vec<u8>,
        members: &'a mut Vec<Member>,
    ) -> Self {
        Self {
            text,
            is_plain,
            at: 0,
            copied: 0,
            out,
            members,
            open: 0,
            depth: 0,
        }
    }

    fn run(&mut self) -> Compacted {
        match self.is_json() {
            false => Compacted::Invalid,
            true if self.copied == 0 => Compacted::AsItStands,
            true => {
                self.flush();
                Compacted::Copied
            }
        }
    }

    fn is_json(&mut self) -> bool {
        let mut next = Next::Value;
        // Of the member at the top that is being read.
        let mut name = 0..0;
        let mut value_start = 0;
        loop {
            self.blanks();
            let Some(&byte) = self.text.get(self.at) else {
                return false;
            };
            let mut ended = false;
            match (next, byte) {
                (Next::Value | Next::ValueOrEnd, b'{' | b'[') => {
                    if self.depth == DEPTH_MAX {
                        return false;
                    }
                    self.depth += 1;
                    self.open = self.open << 1 | u128::from(byte == b'{');
                    self.at += 1;
                    next = match byte {
                        b'{' => Next::NameOrEnd,
                        _ => Next::ValueOrEnd,
                    };
                    continue;
                }
                (Next::Value | Next::ValueOrEnd, b'"') => {
                    if !self.string() {
                        return false;
                    }
                    ended = true;
                }
                (Next::Value, _) | (Next::ValueOrEnd, b'-' | b'0'..=b'9' | b'a'..=b'z') => {
                    if !self.plain() {
                        return false;
                    }
                    ended = true;
                }
                (Next::NameOrEnd | Next::Name, b'"') => {
                    let start = self.position();
                    if !self.string() {
                        return false;
                    }
                    let end = self.position();
                    self.blanks();
                    if self.text.get(self.at) != Some(&b':') {
                        return false;
                    }
                    self.at += 1;
                    self.blanks();
                    if self.depth == 1 {
                        name = start..end;
                        value_start = self.position();
                    }
                    next = Next::Value;
                }
                (Next::CommaOrEnd, b',') => {
                    self.at += 1;
                    next = match self.open & 1 {
                        1 => Next::Name,
                        _ => Next::Value,
                    };
                }
                (Next::CommaOrEnd | Next::NameOrEnd, b'}') if self.open & 1 == 1 => {
                    self.close();
                    ended = true;
                }
                (Next::CommaOrEnd | Next::ValueOrEnd, b']') if self.open & 1 == 0 => {
                    self.close();
                    ended = true;
                }
                _ => return false,
            }
            if !ended {
                continue;
            }
            if self.depth == 0 {
                break;
            }
            if self.depth == 1 && self.open & 1 == 1 {
                let value = value_start..self.position();
                let name = name.clone();
                self.members.push(Member { name, value });
            }
            next = Next::CommaOrEnd;
        }
        self.blanks();
        self.at == self.text.len()
    }

    fn close(&mut self) {
        self.at += 1;
        self.depth -= 1;
        self.open >>= 1;
    }

    /// Where the next byte will lie in `out`.
    fn position(&self) -> usize {
        self.out.len() + (self.at - self.copied)
    }

    fn flush(&mut self) {
        self.out.extend_from_slice(&self.text[self.copied..self.at]);
        self.copied = self.at;
    }

    fn blanks(&mut self) {
        let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        if self.text.get(self.at).is_some_and(is_blank) {
            self.flush();
            while self.text.get(self.at).is_some_and(is_blank) {
                self.at += 1;
            }
            self.copied = self.at;
        }
    }

    /// A number, or one of three words.
    fn plain(&mut self) -> bool {
        let rest = &self.text[self.at..];
        let len = match rest[0] {
            b't' if rest.starts_with(b"true") => 4,
            b'f' if rest.starts_with(b"false") => 5,
            b'n' if rest.starts_with(b"null") => 4,
            _ => match number_len(rest) {
                Some(len) => len,
                None => return false,
            },
        };
        self.at += len;
        true
    }

    fn string(&mut self) -> bool {
        self.at += 1;
        if self.is_plain {
            let end = quote_at(&self.text[self.at..]);
            self.at += end.map_or(0, |end| end + 1);
            return end.is_some();
        }
        loop {
            self.at += plain_len(&self.text[self.at..]);
            match self.text.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return true;
                }
                Some(b'\\') => match escape(&self.text[self.at..]) {
                    Some((_, len)) => self.at += len,
                    None => return false,
                },
                Some(0xe2) => match separator(&self.text[self.at..]) {
                    Some(escaped) => {
                        self.flush();
                        self.out.extend_from_slice(escaped);
                        self.at += 3;
                        self.copied = self.at;
                    }
                    None => self.at += 1,
                },
                _ => return false,
            }
        }
    }
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Gives a byte that is zero its high bit; above the first one there may be more.
fn zero(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & HIGH
}

/// Returns where the first quote is. Most strings are short, and a search by vectors has to get going first.
fn quote_at(text: &[u8]) -> Option<usize> {
    const SHORT: usize = 3;
    let (words, _) = text.as_chunks::<8>();
    for (n, chunk) in words.iter().take(SHORT).enumerate() {
        let found = zero(u64::from_le_bytes(*chunk) ^ (ONES * u64::from(b'"')));
        if found != 0 {
            return Some(8 * n + found.trailing_zeros() as usize / 8);
        }
    }
    let from = 8 * words.len().min(SHORT);
    memchr(b'"', &text[from..]).map(|at| from + at)
}

/// Returns how many bytes of a string come before a quote, a backslash, a control character or a byte 0xE2.
fn plain_len(text: &[u8]) -> usize {
    let mut at = 0;
    for chunk in text.as_chunks::<8>().0 {
        let word = u64::from_le_bytes(*chunk);
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        let found = control
            | zero(word ^ (ONES * u64::from(b'"')))
            | zero(word ^ (ONES * u64::from(b'\\')))
            | zero(word ^ (ONES * 0xe2));
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0xe2 | 0..b' ');
    let rest = &text[at..];
    at + rest.iter().position(is_special).unwrap_or(rest.len())
}

/// Returns the escape of the line or paragraph separator that the text begins with.
fn separator(text: &[u8]) -> Option<&'static [u8]> {
    match text {
        [0xe2, 0x80, 0xa8, ..] => Some(b"\\u2028"),
        [0xe2, 0x80, 0xa9, ..] => Some(b"\\u2029"),
        _ => None,
    }
}

/// Reads the escape that the text begins with: its character and its length.
fn escape(text: &[u8]) -> Option<(char, usize)> {
    let character = match text.get(1)? {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let first = unit(text)?;
            if !(0xd800..0xe000).contains(&first) {
                return Some((char::from_u32(first)?, 6));
            }
            let second = unit(text.get(6..)?)?;
            if first >= 0xdc00 || !(0xdc00..0xe000).contains(&second) {
                return None;
            }
            let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
            return Some((char::from_u32(code)?, 12));
        }
        _ => return None,
    };
    Some((character, 2))
}

/// Reads `\uXXXX`.
fn unit(text: &[u8]) -> Option<u32> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    digits.iter().try_fold(0, |unit, digit| {
        Some(unit << 4 | char::from(*digit).to_digit(16)?)
    })
}

/// Returns the length of the number that the text begins with.
pub(super) fn number_len(text: &[u8]) -> Option<usize> {
    let digits = |from: usize| {
        let rest = text.get(from..).unwrap_or_default();
        rest.iter().take_while(|byte| byte.is_ascii_digit()).count()
    };
    let mut at = usize::from(text.first() == Some(&b'-'));
    at += match text.get(at)? {
        b'0' => 1,
        b'1'..=b'9' => digits(at),
        _ => return None,
    };
    if text.get(at) == Some(&b'.') {
        let fraction = digits(at + 1);
        if fraction == 0 {
            return None;
        }
        at += 1 + fraction;
    }
    if matches!(text.get(at), Some(b'e' | b'E')) {
        at += 1 + usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        let exponent = digits(at);
        if exponent == 0 {
            return None;
        }
        at += exponent;
    }
    Some(at)
}

/// Appends `text` as a string with its quotes.
pub(super) fn push_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    push_escaped(text.as_bytes(), out);
    out.push(b'"');
}

/// Appends UTF-8 as the inside of a string.
pub(super) fn push_escaped(mut text: &[u8], out: &mut Vec<u8>) {
    loop {
        let (plain, rest) = text.split_at(plain_len(text));
        out.extend_from_slice(plain);
        let Some(&byte) = rest.first() else { return };
        let mut len = 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0xe2 => match separator(rest) {
                Some(escaped) => {
                    out.extend_from_slice(escaped);
                    len = 3;
                }
                None => out.push(byte),
            },
            _ => {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.push(DIGITS[usize::from(byte >> 4)]);
                out.push(DIGITS[usize::from(byte & 15)]);
            }
        }
        text = &rest[len..];
    }
}

/// Appends `text` as a string of base64 with padding.
pub(super) fn push_base64(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let start = out.len();
    out.resize(start + BASE64.encode_len(bytes.len()), 0);
    BASE64.encode_mut(bytes, &mut out[start..]);
    out.push(b'"');
}

/// Returns the string that `text`, a string with its quotes, stands for; `None` if it is none.
pub(super) fn unquoted(text: &[u8]) -> Option<Cow<'_, str>> {
    let inside = text.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let inside = std::str::from_utf8(inside).ok()?;
    let Some(first) = inside.find('\\') else {
        return Some(Cow::Borrowed(inside));
    };
    let mut string = String::with_capacity(inside.len());
    let (plain, mut rest) = inside.split_at(first);
    string.push_str(plain);
    while !rest.is_empty() {
        let (character, len) = escape(rest.as_bytes())?;
        string.push(character);
        rest = &rest[len..];
        let (plain, behind) = rest.split_at(rest.find('\\').unwrap_or(rest.len()));
        string.push_str(plain);
        rest = behind;
    }
    Some(Cow::Owned(string))
}

/// Returns whether `text` is a string, with its quotes, that stands for `wanted`.
pub(super) fn is_text(text: &[u8], wanted: &str) -> bool {
    let inside = text.strip_prefix(b"\"");
    let inside = inside.and_then(|rest| rest.strip_suffix(b"\""));
    // A text of another length can only stand for it by escapes.
    inside.is_some_and(|inside| match inside.len().cmp(&wanted.len()) {
        Ordering::Less => false,
        Ordering::Equal => inside == wanted.as_bytes(),
        Ordering::Greater => {
            inside.contains(&b'\\') && unquoted(text).is_some_and(|text| text == wanted)
        }
    })
}

/// Returns where the value that starts at `at` ends; `text` is what [`compact`] wrote.
pub(super) fn value_end(text: &[u8], mut at: usize) -> usize {
    let mut depth = 0_usize;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => at = string_end(text, at),
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            b',' | b':' => at += 1,
            _ => {
                let rest = &text[at..];
                let is_end = |byte: &u8| matches!(byte, b',' | b'}' | b']');
                at += rest.iter().position(is_end).unwrap_or(rest.len());
            }
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// Returns where the string that starts at `at` ends.
fn string_end(text: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    loop {
        let Some(found) = text.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) else {
            return text.len();
        };
        at += found;
        if text[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
}

/// Calls `each` with name and value of every member of the object `text`, which [`compact`] wrote.
pub(super) fn members<'a>(text: &'a [u8], mut each: impl FnMut(&'a [u8], &'a [u8])) {
    let mut at = 1;
    while text.get(at) == Some(&b'"') {
        let name_end = string_end(text, at);
        let end = value_end(text, name_end + 1);
        each(&text[at..name_end], &text[name_end + 1..end]);
        at = end + 1;
    }
}

/// Calls `each` with every value of the array `text`, which [`compact`] wrote.
pub(super) fn elements<'a>(text: &'a [u8], mut each: impl FnMut(&'a [u8])) {
    let mut at = 1;
    while at + 1 < text.len() {
        let end = value_end(text, at);
        each(&text[at..end]);
        at = end + 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn compacted(text: &[u8]) -> Option<String> {
        let mut out = Vec::new();
        let compacted = compact(text, &mut out, &mut Vec::new());
        let copied = out.clone();
        let string = |bytes: &[u8]| Some(String::from_utf8(bytes.to_vec()).unwrap());
        match compacted {
            Compacted::Copied => string(&copied),
            _ if !copied.is_empty() => panic!("something was left"),
            Compacted::AsItStands => string(text),
            Compacted::Invalid => None,
        }
    }

    #[test]
    fn what_is_json_is_copied_without_blanks_and_everything_else_refused() {
        for (text, expected) in [
            (
                " { \"a\" : [ 1 , -0.10E+05 ] , \"a\" : null }\r\n",
                r#"{"a":[1,-0.10E+05],"a":null}"#,
            ),
            (
                "\"a\u{2028} b\u{2029}\u{2030}\"",
                "\"a\\u2028 b\\u2029\u{2030}\"",
            ),
            ("{\"\u{2028}\":\"\u{2028}\"}", "{\"\\u2028\":\"\\u2028\"}"),
            (r#""\ud83d\ude00 \u0041\/""#, r#""\ud83d\ude00 \u0041\/""#),
            ("[]", "[]"),
            ("{ }", "{}"),
            ("[ [ ] , { } ]", "[[],{}]"),
            ("1e999999999", "1e999999999"),
            ("true", "true"),
        ] {
            assert_eq!(compacted(text.as_bytes()).as_deref(), Some(expected));
        }
        for text in [
            "",
            " ",
            "{",
            "[",
            "[1,]",
            "{,}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{1:1}",
            "[1 2]",
            "[1]]",
            "{]",
            "[}",
            "01",
            "+1",
            ".5",
            "1.",
            "1e",
            "--1",
            "-",
            "nul",
            "nullx",
            "tru",
            "'a'",
            "\"a",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\u{1}\"",
            "\"a\nb\"",
            "NaN",
            "[1,2]//",
            "\u{feff}1",
            "alert(1)",
            "{\"a\":1}{}",
            "\u{a0}1",
            r#""\ud800""#,
            r#""\udc00""#,
            r#""\ud800\ud800""#,
            r#"{"\ud800":1}"#,
            "\"\\",
            "[\"a\":1]",
            "{\"a\",1}",
        ] {
            assert_eq!(compacted(text.as_bytes()), None, "{text}");
        }
        assert_eq!(compacted(b"\"\xff\""), None);
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(compacted(nested(DEPTH_MAX).as_bytes()).is_some());
        assert!(compacted(nested(DEPTH_MAX + 1).as_bytes()).is_none());
        assert!(compacted("[".repeat(1_000_000).as_bytes()).is_none());
    }

    #[test]
    fn members_of_the_top_are_found_where_they_lie() {
        let spaced = " { \"a\" : { \"n\" : 1 } , \"\u{2028}\" : [ 1 , 2 ] , \"b\" : \"x\" }";
        let dense = r#"{"a":{"n":1},"\u2028":[1,2],"b":"x"}"#;
        for (text, expected) in [(spaced, Compacted::Copied), (dense, Compacted::AsItStands)] {
            let (mut out, mut members) = (Vec::new(), Vec::new());
            assert_eq!(compact(text.as_bytes(), &mut out, &mut members), expected);
            let read = match expected {
                Compacted::Copied => &out,
                _ => text.as_bytes(),
            };
            let text = |range: &Range<usize>| std::str::from_utf8(&read[range.clone()]).unwrap();
            let found = members.iter().map(|m| (text(&m.name), text(&m.value)));
            assert_eq!(
                Vec::from_iter(found),
                [
                    ("\"a\"", "{\"n\":1}"),
                    ("\"\\u2028\"", "[1,2]"),
                    ("\"b\"", "\"x\"")
                ]
            );
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            Just(Value::from("\u{2028}\"\\\u{1}")),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..5)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_copy_says_the_same_and_is_walked_in_full(value in value(), pretty: bool) {
            let text = if pretty { serde_json::to_string_pretty(&value).unwrap() } else { value.to_string() };
            let copy = compacted(text.as_bytes()).unwrap();
            prop_assert!(!copy.contains(['\u{2028}', '\u{2029}']), "a separator");
            prop_assert_eq!(&serde_json::from_str::<Value>(&copy).unwrap(), &value);
            prop_assert_eq!(value_end(copy.as_bytes(), 0), copy.len());
            let read = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap();
            match &value {
                Value::Object(object) => {
                    let mut found = serde_json::Map::new();
                    members(copy.as_bytes(), |name, value| {
                        found.insert(unquoted(name).unwrap().into_owned(), read(value));
                    });
                    prop_assert_eq!(&found, object);
                }
                Value::Array(array) => {
                    let mut found = Vec::new();
                    elements(copy.as_bytes(), |value| found.push(read(value)));
                    prop_assert_eq!(&found, array);
                }
                Value::String(string) => prop_assert_eq!(&unquoted(copy.as_bytes()).unwrap(), string),
                _ => {}
            }
        }

        #[test]
        fn any_text_is_refused_or_means_the_same(text in r#"[\[\]{}",:0-9eE.\-+ \\untrfalsd/\x00-\x20]{0,24}"#) {
            // A number may be too large for serde_json, never for us.
            let copy = compacted(text.as_bytes());
            if let Ok(value) = serde_json::from_str::<Value>(&text) {
                prop_assert_eq!(serde_json::from_str::<Value>(&copy.unwrap()).unwrap(), value);
            } else if let Some(copy) = copy {
                prop_assert!(serde_json::from_str::<&serde_json::value::RawValue>(&copy).is_ok());
            }
        }

        #[test]
        fn a_string_reads_back(text: String) {
            let mut out = Vec::new();
            push_string(&text, &mut out);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text.clone());
            prop_assert_eq!(unquoted(&out).unwrap(), text);
        }
    }
}
