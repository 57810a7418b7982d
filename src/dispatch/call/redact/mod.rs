//! Redaction: drops the body of an answer in which a credential of the call is found. Pure.
//!
//! Some targets echo the request in a refusal. The beginning of the answer goes into an error record, which people
//! read. So a body with a credential of its call is not kept; the status and its meaning are.
//!
//! The search looks for the whole value of each credential header, the part after its scheme word, and the values of
//! cookies and parameters. Of `Basic` it looks for the user with the password, and for the password alone. It searches
//! the body unchanged, then with JSON and script escapes, percent signs and HTML references decoded, up to [`ROUNDS`]
//! times. It also decodes every run of base64 and hexadecimal digits. [`WINDOW_BYTES`] of a longer credential in a row
//! are enough.
//!
//! Clients choose the credentials and targets choose the body, so the work has a fixed bound. A round reads
//! [`KEPT_BYTES_MAX`] (2 KiB) of text, and no decoding makes it longer. Its runs decode to four times 3/4 of it and
//! twice 1/2: 10 KiB. At each of these bytes at most [`WINDOW_BYTES`] lengths are looked up, in a set made once for a
//! call. So a body costs at most 4 rounds × 10 KiB × 16 = 655,360 look-ups. If a call has too many credentials for a
//! small set, its body is dropped unread.

mod decode;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, collections::HashSet};

use bytes::Bytes;

use self::decode::{decoded, digits, runs};
use crate::dispatch::outcome::{Failure, KEPT_BYTES_MAX};

/// Added to the reason when a credential was found.
const DROPPED: &str = "; its body held a credential of the call and is not kept";
/// Added to the reason when the body was not searched.
const UNREAD: &str =
    "; the call has too many credentials to look for in its body, which is not kept";
/// Bytes of all credentials of a call that are looked for.
const SENT_BYTES_MAX: usize = 16 * 1024;
/// Parts of all credentials of a call that are looked for.
const PARTS_LEN_MAX: usize = 64;
/// Bytes of these parts: a token that fills [`SENT_BYTES_MAX`] counts with its scheme and without.
const PARTS_BYTES_MAX: usize = 2 * SENT_BYTES_MAX;
/// A part of at most this length counts only as a whole word, because any text may contain it by chance.
const WORD_BYTES_MAX: usize = 7;
/// A shorter part reveals nothing.
const PART_BYTES_MIN: usize = 4;
/// This many bytes of a credential in a row are no coincidence.
const WINDOW_BYTES: usize = 16;
/// A shorter beginning of a credential at the cut end of a body reveals nothing, and may be there by chance.
const BEGINNING_BYTES_MIN: usize = 4;
/// How often decoded text is decoded again.
const ROUNDS: usize = 3;
/// The longest escape: `\u003d` or `&#x0003d;`.
const ESCAPE_BYTES_MAX: usize = 10;
/// Parameters whose values are names and no credentials.
const NAMES: [&str; 9] = [
    "username",
    "realm",
    "uri",
    "algorithm",
    "qop",
    "path",
    "domain",
    "expires",
    "signedheaders",
];

/// Returns the failure without its body if that holds any of the credentials that were sent.
pub(crate) fn redact<'a>(failure: Failure, sent: impl Iterator<Item = &'a [u8]>) -> Failure {
    if failure.body.is_empty() {
        return failure;
    }
    let why = match all_parts(sent) {
        None => UNREAD,
        Some(parts) if holds(&failure.body, &Sought::new(&parts)) => DROPPED,
        Some(_) => return failure,
    };
    Failure {
        body: Bytes::new(),
        reason: Cow::Owned(format!("{}{why}", failure.reason)),
        ..failure
    }
}

/// Returns all parts of the credentials that must not be shown; `None` if they are too many to look for.
fn all_parts<'a>(sent: impl Iterator<Item = &'a [u8]>) -> Option<HashSet<Vec<u8>>> {
    let (mut all, mut sent_bytes) = (HashSet::new(), 0);
    for credential in sent {
        sent_bytes += credential.len();
        if sent_bytes > SENT_BYTES_MAX {
            return None;
        }
        all.extend(parts(credential));
        if all.len() > PARTS_LEN_MAX {
            return None;
        }
    }
    (all.iter().map(Vec::len).sum::<usize>() <= PARTS_BYTES_MAX).then_some(all)
}

/// The parts to look for in the texts of one call.
struct Sought<'a> {
    /// Short parts, and each window of the longer ones.
    pieces: HashSet<&'a [u8]>,
    /// The lengths of these pieces, each once.
    lens: Vec<usize>,
    /// Whether a piece begins with a byte.
    firsts: [bool; 256],
    /// The beginnings of the parts, for the cut end of a body. A longer beginning contains a window.
    beginnings: Vec<&'a [u8]>,
    #[cfg(test)]
    lookups: std::cell::Cell<usize>,
}

impl<'a> Sought<'a> {
    fn new(parts: &'a HashSet<Vec<u8>>) -> Self {
        let windows = |part: &'a Vec<u8>| part.windows(part.len().min(WINDOW_BYTES));
        let pieces: HashSet<&[u8]> = parts.iter().flat_map(windows).collect();
        let is_used = |len: &usize| {
            parts
                .iter()
                .any(|part| part.len().min(WINDOW_BYTES) == *len)
        };
        let mut firsts = [false; 256];
        for piece in &pieces {
            firsts[usize::from(piece[0])] = true;
        }
        Self {
            pieces,
            lens: (1..=WINDOW_BYTES).filter(is_used).collect(),
            firsts,
            beginnings: parts
                .iter()
                .map(|part| &part[..part.len().min(WINDOW_BYTES)])
                .collect(),
            #[cfg(test)]
            lookups: std::cell::Cell::default(),
        }
    }

    fn has(&self, piece: &[u8]) -> bool {
        #[cfg(test)]
        self.lookups.set(self.lookups.get() + 1);
        self.pieces.contains(piece)
    }
}

/// Returns the parts of a credential that must not be shown.
fn parts(credential: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = vec![credential.to_vec()];
    let trimmed = credential.trim_ascii();
    let of_scheme = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
    let (scheme, rest) = match trimmed.iter().position(|byte| !of_scheme(byte)) {
        Some(end) if trimmed[end] == b' ' => (&trimmed[..end], trimmed[end..].trim_ascii()),
        _ => (&trimmed[..0], trimmed),
    };
    parts.push(rest.to_vec());
    if scheme.eq_ignore_ascii_case(b"basic") {
        let pair = digits(rest, 6);
        if let Some(colon) = pair.iter().position(|byte| *byte == b':') {
            parts.push(pair[colon + 1..].to_vec());
        }
        parts.push(pair);
    }
    for part in rest.split(|byte| matches!(byte, b' ' | b',' | b';')) {
        if let Some(equals) = part.iter().position(|byte| *byte == b'=') {
            let (name, value) = (&part[..equals], &part[equals + 1..]);
            let value = value.trim_ascii();
            let value = value.strip_prefix(b"\"").unwrap_or(value);
            let value = value.strip_suffix(b"\"").unwrap_or(value);
            let names = |known: &str| name.trim_ascii().eq_ignore_ascii_case(known.as_bytes());
            if !NAMES.iter().any(|known| names(known)) {
                parts.push(value.to_vec());
            }
        }
    }
    // A credential with escapes is looked for unchanged and decoded, as bodies are.
    let decoded = parts.iter().filter_map(|part| decoded(part));
    let decoded: Vec<_> = decoded.collect();
    parts.extend(decoded);
    // The whole credential counts, however short it is.
    let whole = rest.to_vec();
    parts.retain(|part| part.len() >= PART_BYTES_MIN || (!part.is_empty() && *part == whole));
    parts
}

fn holds(body: &[u8], sought: &Sought<'_>) -> bool {
    // Most calls have no credential, and most runs are too short to be one.
    let Some(least) = sought.lens.first() else {
        return false;
    };
    let was_cut = body.len() >= KEPT_BYTES_MAX;
    let is_long = |run: &&[u8]| was_cut || run.len() * 3 / 4 >= *least;
    let mut text = Cow::Borrowed(body);
    for _ in 0..=ROUNDS {
        if shows(&text, sought, was_cut)
            || runs(&text)
                .filter(is_long)
                .any(|run| shows_decoded(run, sought, &text, was_cut))
        {
            return true;
        }
        match decoded(&text) {
            Some(next) => text = Cow::Owned(next),
            None => break,
        }
    }
    false
}

/// Returns whether a text contains a part, or may contain one at its cut end.
fn shows(text: &[u8], sought: &Sought<'_>, was_cut: bool) -> bool {
    let found = text.iter().enumerate().any(|(at, first)| {
        sought.firsts[usize::from(*first)]
            && sought.lens.iter().any(|len| {
                let piece = text.get(at..at + len);
                piece.is_some_and(|piece| {
                    (*len > WORD_BYTES_MAX || is_word(text, at, *len)) && sought.has(piece)
                })
            })
    });
    let mut beginnings = sought.beginnings.iter();
    found || (was_cut && beginnings.any(|part| is_cut(text, part)))
}

/// Returns whether these bytes are a whole word.
fn is_word(text: &[u8], at: usize, len: usize) -> bool {
    let is_part = |at: Option<&u8>| at.is_some_and(u8::is_ascii_alphanumeric);
    let before = at.checked_sub(1).and_then(|before| text.get(before));
    !is_part(before) && !is_part(text.get(at + len))
}

/// Returns whether a text ends with a beginning of the part, also before a cut escape.
fn is_cut(text: &[u8], part: &[u8]) -> bool {
    let tail = &text[text.len().saturating_sub(ESCAPE_BYTES_MAX)..];
    let escape = tail
        .iter()
        .rposition(|byte| matches!(byte, b'\\' | b'%' | b'&'));
    let whole = escape.map(|at| &text[..text.len() - tail.len() + at]);
    [Some(text), whole].into_iter().flatten().any(|text| {
        let longest = part.len().min(text.len());
        (BEGINNING_BYTES_MIN..=longest).any(|len| text.ends_with(&part[..len]))
    })
}

/// Returns whether a run of digits contains a part when decoded as base64 or hexadecimal. Each alignment is tried,
/// because the run may begin with other text.
fn shows_decoded(run: &[u8], sought: &Sought<'_>, text: &[u8], was_cut: bool) -> bool {
    let at_end = run.as_ptr_range().end == text.as_ptr_range().end;
    let cut = was_cut && at_end;
    let base64 = (0..4).map(|from| digits(&run[from..], 6));
    let is_hex = run.iter().all(u8::is_ascii_hexdigit);
    let hex = (0..2)
        .filter(|_| is_hex)
        .map(|from| digits(&run[from..], 4));
    base64.chain(hex).any(|bytes| shows(&bytes, sought, cut))
}
