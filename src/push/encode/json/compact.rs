//! Checks that a text is JSON, and copies it without blanks if it has any, in one pass.

use std::ops::Range;

use crate::json::faults::DEPTH_MAX;

use super::text::{escape, number_len, plain_len, quote_at, separator};

/// A member of the object that [`compact`] has read: where it lies in the compact text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::push::encode) struct Member {
    /// The name with its quotes.
    pub(in crate::push::encode) name: Range<usize>,
    pub(in crate::push::encode) value: Range<usize>,
}

/// The tokens that may come next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Value,
    ValueOrEnd,
    NameOrEnd,
    Name,
    CommaOrEnd,
}

/// The result of [`compact`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::push::encode) enum Compacted {
    /// The text is compact JSON: nothing was appended.
    AsItStands,
    /// The text is JSON, and a compact copy was appended.
    Copied,
    Invalid,
}

/// Appends `text` without blanks to `out`, which must be empty; a text that is compact already is not copied. Members
/// of an object at the top are added to `members`, repeats kept.
///
/// If `text` is not JSON, or deeper than [`DEPTH_MAX`], `out` stays empty. U+2028 and U+2029 are written as escapes.
/// Every other character of a string, and every number, stays unchanged.
pub(in crate::push::encode) fn compact(
    text: &[u8],
    out: &mut Vec<u8>,
    members: &mut Vec<Member>,
) -> Compacted {
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

/// Returns whether a text is ASCII without control characters and backslashes. Most texts are, and then every string
/// ends at the next quote.
fn is_plain(text: &[u8]) -> bool {
    let is_other = |byte: u8| u8::from(byte < b' ') | u8::from(byte == b'\\') | (byte & 0x80);
    // The compiler vectorises whole chunks, because the loop over a chunk has no early exit.
    let mut chunks = text.chunks(64);
    chunks.all(|chunk| chunk.iter().fold(0, |any, byte| any | is_other(*byte)) == 0)
}

struct Compact<'a> {
    text: &'a [u8],
    is_plain: bool,
    at: usize,
    /// Everything before this index was copied or left out.
    copied: usize,
    out: &'a mut Vec<u8>,
    members: &'a mut Vec<Member>,
    /// One bit per open container, the innermost lowest: set for an object.
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
        // The name and value of the top member that is being read.
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
                (Next::CommaOrEnd, b',') => next = self.comma(),
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
            // Fast path: most texts have no blank before the comma.
            next = match self.text.get(self.at) {
                Some(b',') => self.comma(),
                _ => Next::CommaOrEnd,
            };
        }
        self.blanks();
        self.at == self.text.len()
    }

    fn comma(&mut self) -> Next {
        self.at += 1;
        match self.open & 1 {
            1 => Next::Name,
            _ => Next::Value,
        }
    }

    fn close(&mut self) {
        self.at += 1;
        self.depth -= 1;
        self.open >>= 1;
    }

    /// Returns where the next byte will lie in the compact text.
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

    /// Reads a number, `true`, `false` or `null`.
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
