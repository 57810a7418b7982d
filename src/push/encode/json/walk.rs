//! Walks over compact JSON, the output of [`super::compact`].

use memchr::{memchr, memchr2};

/// Returns where the value that starts at `at` ends; `text` is compact JSON.
pub(in crate::push::encode) fn value_end(text: &[u8], mut at: usize) -> usize {
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

/// Calls `each` with every string in `text`, names of members included; `text` is compact JSON.
pub(in crate::push::encode) fn strings<'a>(text: &'a [u8], mut each: impl FnMut(&'a [u8])) {
    let mut at = 0;
    while let Some(found) = text.get(at..).and_then(|rest| memchr(b'"', rest)) {
        let start = at + found;
        at = string_end(text, start);
        each(&text[start..at]);
    }
}

/// Returns the nesting depth of `text`, which is compact JSON.
pub(in crate::push::encode) fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest, mut at) = (0_usize, 0, 0);
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => at = string_end(text, at),
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
                at += 1;
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            _ => at += 1,
        }
    }
    deepest
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

/// Calls `each` with name and value of every member of the object `text`, which is compact JSON.
pub(in crate::push::encode) fn members<'a>(
    text: &'a [u8],
    mut each: impl FnMut(&'a [u8], &'a [u8]),
) {
    let mut at = 1;
    while text.get(at) == Some(&b'"') {
        let name_end = string_end(text, at);
        let end = value_end(text, name_end + 1);
        each(&text[at..name_end], &text[name_end + 1..end]);
        at = end + 1;
    }
}
