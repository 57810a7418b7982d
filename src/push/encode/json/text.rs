//! Strings and numbers of JSON text: their ends, their encoding, their values.

use std::{borrow::Cow, cmp::Ordering};

use data_encoding::BASE64;
use memchr::memchr;

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Sets the high bit of each zero byte. Above the lowest zero byte, other bytes may be marked too.
fn zero(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & HIGH
}

/// Returns the index of the first quote. Most strings are short, so bytes are tried one by one before a vectorised
/// search.
pub(super) fn quote_at(text: &[u8]) -> Option<usize> {
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

/// Returns how many bytes come before a quote, a backslash, a control character or a byte 0xE2.
pub(super) fn plain_len(text: &[u8]) -> usize {
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

/// Returns the escape of U+2028 or U+2029, if the text begins with one of them.
pub(super) fn separator(text: &[u8]) -> Option<&'static [u8]> {
    match text {
        [0xe2, 0x80, 0xa8, ..] => Some(b"\\u2028"),
        [0xe2, 0x80, 0xa9, ..] => Some(b"\\u2029"),
        _ => None,
    }
}

/// Reads the escape at the start of the text: its code point and its length.
///
/// Half of a surrogate pair is a code point, which JSON allows (RFC 8259 §8.2), but no character.
pub(super) fn escape(text: &[u8]) -> Option<(u32, usize)> {
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
            let second = match first {
                0xd800..0xdc00 => text.get(6..).and_then(unit),
                _ => None,
            };
            return Some(match second {
                Some(second @ 0xdc00..0xe000) => {
                    let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                    (code, 12)
                }
                _ => (first, 6),
            });
        }
        _ => return None,
    };
    Some((character.into(), 2))
}

/// Reads `\uXXXX`.
fn unit(text: &[u8]) -> Option<u32> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    digits.iter().try_fold(0, |unit, digit| {
        Some(unit << 4 | char::from(*digit).to_digit(16)?)
    })
}

/// Returns the length of the number at the start of the text.
pub(in crate::push::encode) fn number_len(text: &[u8]) -> Option<usize> {
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

/// Appends `text` as a JSON string.
pub(in crate::push::encode) fn push_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    push_escaped(text.as_bytes(), out);
    out.push(b'"');
}

/// Appends UTF-8 as the content of a JSON string, without quotes.
pub(in crate::push::encode) fn push_escaped(mut text: &[u8], out: &mut Vec<u8>) {
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

/// Appends bytes as a JSON string of base64 with padding.
pub(in crate::push::encode) fn push_base64(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let start = out.len();
    out.resize(start + BASE64.encode_len(bytes.len()), 0);
    BASE64.encode_mut(bytes, &mut out[start..]);
    out.push(b'"');
}

/// Returns the value of a JSON string; `None` if `text` is no JSON string, or has half of a surrogate pair.
pub(in crate::push::encode) fn unquoted(text: &[u8]) -> Option<Cow<'_, str>> {
    match decoded(text)? {
        Cow::Borrowed(inside) => std::str::from_utf8(inside).ok().map(Cow::Borrowed),
        Cow::Owned(inside) => String::from_utf8(inside).ok().map(Cow::Owned),
    }
}

/// Returns the value of a JSON string, with U+FFFD for each half of a surrogate pair; `None` if `text` is no JSON
/// string.
pub(in crate::push::encode) fn unquoted_lossy(text: &[u8]) -> Option<Cow<'_, str>> {
    if let Some(text) = unquoted(text) {
        return Some(text);
    }
    let bytes = decoded(text)?;
    let mut string = String::with_capacity(bytes.len());
    let mut rest = &*bytes;
    while let Err(error) = std::str::from_utf8(rest) {
        let (legal, half) = rest.split_at(error.valid_up_to());
        string.push_str(std::str::from_utf8(legal).ok()?);
        string.push('\u{fffd}');
        rest = half.get(3..)?;
    }
    string.push_str(std::str::from_utf8(rest).ok()?);
    Some(Cow::Owned(string))
}

/// Returns the value of a JSON string in UTF-8; half of a surrogate pair becomes the three bytes that UTF-8 would
/// give it. So byte order is code point order. `None` if `text` is no JSON string.
pub(in crate::push::encode) fn decoded(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    let inside = text.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let Some(first) = memchr(b'\\', inside) else {
        return Some(Cow::Borrowed(inside));
    };
    let mut bytes = Vec::with_capacity(inside.len());
    let (plain, mut rest) = inside.split_at(first);
    bytes.extend_from_slice(plain);
    while !rest.is_empty() {
        let (code, len) = escape(rest)?;
        push_code(code, &mut bytes);
        rest = &rest[len..];
        let (plain, behind) = rest.split_at(memchr(b'\\', rest).unwrap_or(rest.len()));
        bytes.extend_from_slice(plain);
        rest = behind;
    }
    Some(Cow::Owned(bytes))
}

fn push_code(code: u32, out: &mut Vec<u8>) {
    match char::from_u32(code) {
        Some(character) => {
            let mut buffer = [0; 4];
            out.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes());
        }
        None => {
            let tail = |shift: u32| 0x80 | (code >> shift & 0x3f).to_le_bytes()[0];
            out.extend([0xe0 | (code >> 12 & 0xf).to_le_bytes()[0], tail(6), tail(0)]);
        }
    }
}

/// Returns whether `text` is a JSON string with the value `wanted`.
pub(in crate::push::encode) fn is_text(text: &[u8], wanted: &str) -> bool {
    let inside = text.strip_prefix(b"\"");
    let inside = inside.and_then(|rest| rest.strip_suffix(b"\""));
    // A text of another length can be equal only if it has escapes.
    inside.is_some_and(|inside| match inside.len().cmp(&wanted.len()) {
        Ordering::Less => false,
        Ordering::Equal => inside == wanted.as_bytes(),
        Ordering::Greater => {
            memchr(b'\\', inside).is_some() && unquoted(text).is_some_and(|text| text == wanted)
        }
    })
}
