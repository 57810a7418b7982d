//! Finds what was sent as a credential in what a target answered. Pure.
//!
//! Some targets answer a refusal with what they were sent. The beginning of that answer goes into an error record, which
//! people read. So nothing of a body is kept in which a credential of its call is found; what the status line says (the
//! status and its meaning) is kept.
//!
//! Looked for are the whole value of each credential header, what follows its scheme word, the values of a cookie or of
//! parameters, and of `Basic` the user with the password, and the password alone. They are looked for in the body as it
//! is, and with JSON and script escapes, percent signs, and HTML references decoded, up to [`ROUNDS`] times over, and in
//! every run of base64 and hexadecimal digits. [`WINDOW_BYTES`] of a longer credential in a row are enough.
//!
//! Clients choose the credentials and targets the body, so the work has a bound that neither can move. A round looks at
//! [`KEPT_BYTES_MAX`] (2 KiB) of text, no decoding makes it longer, and its runs decode to four times 3/4 of it and twice
//! 1/2: 10 KiB. At each of these bytes at most [`WINDOW_BYTES`] lengths are looked up, in a set that is made once for a
//! call. So a body costs 4 rounds × 10 KiB × 16 = 655,360 look-ups at most. Credentials that are too many for a
//! small set cost the body, unread.

use std::{borrow::Cow, collections::HashSet};

use bytes::Bytes;

use crate::dispatch::outcome::{Failure, KEPT_BYTES_MAX};

/// What says that there was more.
const DROPPED: &str = "; its body held a credential of the call and is not kept";
/// What says that nobody has looked.
const UNREAD: &str =
    "; the call has too many credentials to look for in its body, which is not kept";
/// Bytes of all credentials of a call that are looked for.
const SENT_BYTES_MAX: usize = 16 * 1024;
/// Parts of all credentials of a call that are looked for.
const PARTS_LEN_MAX: usize = 64;
/// Bytes of these parts: a token that fills [`SENT_BYTES_MAX`] counts with its scheme and without.
const PARTS_BYTES_MAX: usize = 2 * SENT_BYTES_MAX;
/// A shorter part is looked for only as a word of its own: it may stand in any text by chance.
const WORD_BYTES_MAX: usize = 7;
/// A shorter part tells nothing.
const PART_BYTES_MIN: usize = 4;
/// So many bytes of a credential in a row are no chance.
const WINDOW_BYTES: usize = 16;
/// A shorter beginning of a credential at the cut end of a body tells nothing, and may be there by chance.
const BEGINNING_BYTES_MIN: usize = 4;
/// How often what was decoded is decoded again.
const ROUNDS: usize = 3;
/// Shorter runs of digits are not decoded.
const RUN_BYTES_MIN: usize = 6;
/// The longest escape: `\u003d` or `&#x0003d;`.
const ESCAPE_BYTES_MAX: usize = 10;
/// Parameters whose values name things and open nothing.
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

/// Returns everything of the credentials that must not be shown; `None` if that is too much to look for.
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

/// What is looked for in the texts of one call.
struct Sought<'a> {
    /// Short parts, and each window of the longer ones.
    pieces: HashSet<&'a [u8]>,
    /// The lengths of these pieces, each once.
    lens: Vec<usize>,
    /// Whether a piece begins with a byte.
    firsts: [bool; 256],
    /// How the parts begin, which shows at the cut end of a body. A longer beginning has a window in it.
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

/// Returns everything of a credential that must not be shown.
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
    // A credential that holds escapes itself is compared as it is, and as what a body becomes.
    let decoded = parts.iter().filter_map(|part| decoded(part));
    let decoded: Vec<_> = decoded.collect();
    parts.extend(decoded);
    // The whole of it counts, however short it is.
    let whole = rest.to_vec();
    parts.retain(|part| part.len() >= PART_BYTES_MIN || (!part.is_empty() && *part == whole));
    parts
}

fn holds(body: &[u8], sought: &Sought<'_>) -> bool {
    // Most calls have no credential, and most words are too short to be one.
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

/// Returns whether a text shows any of the parts, or may at its cut end.
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

/// Returns whether nothing that belongs to a word stands beside these bytes.
fn is_word(text: &[u8], at: usize, len: usize) -> bool {
    let is_part = |at: Option<&u8>| at.is_some_and(u8::is_ascii_alphanumeric);
    let before = at.checked_sub(1).and_then(|before| text.get(before));
    !is_part(before) && !is_part(text.get(at + len))
}

/// Returns whether a text ends with a beginning of the part, be it within an escape.
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

/// Returns what a run of digits stands for in base64 and in hexadecimal, and whether that shows a part. Where the run
/// begins with other text, its digits begin later.
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

/// Returns the longest pieces that consist of digits of base64, of either alphabet.
fn runs(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let runs = text.split(|byte| value(*byte, 6).is_none());
    runs.filter(|run| run.len() >= RUN_BYTES_MIN)
}

/// Decodes digits of so many bits each, up to the first byte that is none.
fn digits(text: &[u8], bits: u32) -> Vec<u8> {
    let (mut bytes, mut held, mut held_bits) = (Vec::with_capacity(text.len()), 0_u32, 0);
    for value in text.iter().map_while(|byte| value(*byte, bits)) {
        held = (held << bits | value) & 0xffff;
        held_bits += bits;
        if held_bits >= 8 {
            held_bits -= 8;
            bytes.push((held >> held_bits).to_le_bytes()[0]);
        }
    }
    bytes
}

fn value(digit: u8, bits: u32) -> Option<u32> {
    if bits == 4 {
        return char::from(digit).to_digit(16);
    }
    let value = match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    };
    Some(value.into())
}

/// Returns a text with its escapes decoded once; `None` if it has none.
fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let (mut at, mut any) = (0, false);
    while let Some(byte) = text.get(at) {
        let escape = match byte {
            b'\\' => backslash(&text[at + 1..]),
            b'%' => number(&text[at + 1..], 16, 2, 2).map(|(value, len)| (value, len + 1)),
            b'&' => reference(&text[at + 1..]).map(|(value, len)| (value, len + 1)),
            _ => None,
        };
        match escape {
            Some((value, len)) => {
                any = true;
                push(&mut decoded, value, *byte == b'%');
                at += len;
            }
            None => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    any.then_some(decoded)
}

/// Adds what an escape stands for. A percent sign stands for a byte, the others for a character.
fn push(decoded: &mut Vec<u8>, value: u32, is_byte: bool) {
    match (u8::try_from(value), char::from_u32(value)) {
        (Ok(byte), _) if is_byte || byte.is_ascii() => decoded.push(byte),
        (_, Some(character)) => {
            decoded.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
        (_, None) => {}
    }
}

/// Reads what follows a backslash; its length has the backslash in it.
fn backslash(text: &[u8]) -> Option<(u32, usize)> {
    let (first, rest) = text.split_first()?;
    let counted = |found: Option<(u32, usize)>| found.map(|(value, len)| (value, len + 2));
    match first {
        b'u' => counted(number(rest, 16, 4, 4)),
        b'x' => counted(number(rest, 16, 2, 2)),
        b'n' => Some((u32::from(b'\n'), 2)),
        b'r' => Some((u32::from(b'\r'), 2)),
        b't' => Some((u32::from(b'\t'), 2)),
        other if other.is_ascii_punctuation() => Some((u32::from(*other), 2)),
        _ => None,
    }
}

/// Reads what follows `&`.
fn reference(text: &[u8]) -> Option<(u32, usize)> {
    const NAMED: [(&[u8], u8); 7] = [
        (b"amp;", b'&'),
        (b"lt;", b'<'),
        (b"gt;", b'>'),
        (b"quot;", b'"'),
        (b"apos;", b'\''),
        (b"equals;", b'='),
        (b"sol;", b'/'),
    ];
    if let Some((name, value)) = NAMED.iter().find(|(name, _)| text.starts_with(name)) {
        return Some((u32::from(*value), name.len()));
    }
    let digits = text.strip_prefix(b"#")?;
    let hex = digits.strip_prefix(b"x").or(digits.strip_prefix(b"X"));
    let (value, len) = match hex {
        Some(digits) => number(digits, 16, 1, 6).map(|(value, len)| (value, len + 2))?,
        None => number(digits, 10, 1, 7).map(|(value, len)| (value, len + 1))?,
    };
    (text.get(len) == Some(&b';')).then_some((value, len + 1))
}

/// Reads at least `least` and at most `most` digits; returns the number and how many they were.
fn number(text: &[u8], radix: u32, least: usize, most: usize) -> Option<(u32, usize)> {
    let digits = text.iter().take(most);
    let digits = digits.map_while(|byte| char::from(*byte).to_digit(radix));
    let (mut value, mut len) = (0_u32, 0);
    for digit in digits {
        value = value * radix + digit;
        len += 1;
    }
    (len >= least).then_some((value, len))
}

#[cfg(test)]
mod tests {
    use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};

    use super::*;

    fn kept(secret: &str, body: &[u8]) -> bool {
        let failure = Failure::answered(401, Bytes::copy_from_slice(body), None);
        let reason = failure.reason.clone();
        let clean = redact(failure, [secret.as_bytes()].into_iter());
        match clean.body.is_empty() {
            true => assert_eq!(clean.reason, format!("{reason}{DROPPED}")),
            false => assert_eq!((&clean.body[..], clean.reason), (body, reason)),
        }
        !clean.body.is_empty()
    }

    #[track_caller]
    fn found(secret: &str, body: impl AsRef<[u8]>) {
        let body = body.as_ref();
        assert!(!kept(secret, body), "{}", String::from_utf8_lossy(body));
    }

    #[track_caller]
    fn not_found(secret: &str, body: impl AsRef<[u8]>) {
        let body = body.as_ref();
        assert!(kept(secret, body), "{}", String::from_utf8_lossy(body));
    }

    const TOKEN: &str = "Bearer dG9r/ZW4tb2Y=tHE+x";

    #[test]
    fn a_token_is_found_however_it_is_written() {
        let token = &TOKEN[7..];
        found(TOKEN, format!("you sent {token}!"));
        found(TOKEN, format!(r#"{{"sent":"{TOKEN}"}}"#));
        found(TOKEN, token.replace('/', r"\/"));
        found(TOKEN, token.replace('=', r"\u003d").replace('/', r"\u002F"));
        found(TOKEN, token.replace('=', r"\x3d"));
        found(
            TOKEN,
            token
                .replace('=', "%3D")
                .replace('/', "%2f")
                .replace('+', "%2B"),
        );
        found(
            TOKEN,
            token
                .replace('=', "&#61;")
                .replace('/', "&#x2f;")
                .replace('+', "&#x0002B;"),
        );
        // A page that quotes JSON that quotes a header.
        found(TOKEN, token.replace('=', r"\\u003d"));
        found(TOKEN, token.replace('=', "%255Cu003d"));
        found(TOKEN, token.replace('=', "&amp;#61;"));
        let all: String = token.bytes().map(|byte| format!(r"\u{byte:04x}")).collect();
        found(TOKEN, format!(r#"{{"a":"{all}"}}"#));
        // Encoded, alone and among other things.
        for text in [
            token.to_owned(),
            TOKEN.to_owned(),
            format!(r#"{{"a":"{TOKEN}"}}"#),
        ] {
            let text = text.as_bytes();
            found(TOKEN, BASE64.encode(text));
            found(TOKEN, format!("x={}", BASE64URL_NOPAD.encode(text)));
            found(TOKEN, format!("request/{}.", BASE64URL_NOPAD.encode(text)));
            found(TOKEN, HEXLOWER.encode(text));
            found(TOKEN, format!("0{}", HEXUPPER.encode(text)));
            found(
                TOKEN,
                BASE64
                    .encode(text)
                    .replace('=', r"\u003d")
                    .replace('/', r"\/"),
            );
        }
        // A good part of it is enough.
        found(TOKEN, format!("token {}... is not known", &token[..16]));
        not_found(TOKEN, format!("token {}... is not known", &token[..9]));
        not_found(TOKEN, "no such token");
        not_found(TOKEN, "Bearer realm=\"x\", error=\"invalid_token\"");
        assert!(
            redact(
                Failure::answered(500, Bytes::new(), None),
                [TOKEN.as_bytes()].into_iter()
            )
            .reason
            .ends_with("Error")
        );
    }

    #[test]
    fn the_parts_of_a_credential_are_found() {
        let basic = format!("Basic {}", BASE64.encode("robot:pass=wörd".as_bytes()));
        found(&basic, "user robot, password pass=wörd");
        found(&basic, r#"{"password":"pass\u003dw\u00f6rd"}"#);
        found(&basic, &basic[6..]);
        not_found(&basic, "user robot is not known");
        let cookie = "session=8a7b6c5d4e; theme=dark; id=\"q1w2e3r4t5\"";
        found(cookie, "session 8a7b6c5d4e is over");
        found(cookie, "id q1w2e3r4t5");
        // A short part counts as a word of its own.
        found(cookie, "theme 'dark'");
        not_found(cookie, "the darkness");
        let digest =
            r#"Digest username="operations", realm="api.example.com", response="6629fae49393a053""#;
        found(digest, "6629fae49393a053");
        not_found(digest, "operations at api.example.com may not do this");
        // Escapes of its own.
        found("abc%3Ddefgh", "abc%3Ddefgh");
        found("abc%3Ddefgh", "abc=defgh");
        // A short token counts whole.
        found("Bearer abc", "token abc is wrong");
        not_found("Bearer abc", "xabcabcx");
        found("hunter2", "password 'hunter2' is wrong");
        not_found("hunter2", "shunter20");
        not_found("Bearer ", "anything");
        not_found("", "anything");
    }

    #[test]
    fn the_beginning_of_a_token_is_found_where_the_body_was_cut() {
        let filled = |end: &str| ".".repeat(KEPT_BYTES_MAX - end.len()) + end;
        let secret = "Bearer secret=token";
        for end in [
            "secre",
            r"secret\u003dto",
            r"secret\u00",
            "secret%3",
            "secret&#6",
        ] {
            found(secret, filled(end));
            not_found(secret, format!("short {}", &end[..5]));
        }
        not_found(secret, filled("sec"));
        found(
            secret,
            filled(&format!(" {}", &BASE64.encode(secret.as_bytes())[..18])),
        );
    }

    #[test]
    fn a_body_is_dropped_unread_where_the_credentials_are_too_many() {
        let dropped = |secret: String| {
            let failure = Failure::answered(401, Bytes::from_static(b"not you"), None);
            let clean = redact(failure, [secret.as_bytes()].into_iter());
            (clean.body.is_empty(), clean.reason.ends_with(UNREAD))
        };
        let cookie =
            |len: usize| -> String { (0..len).map(|at| format!("n{at}=value-{at};")).collect() };
        assert_eq!(dropped(cookie(2_300)), (true, true));
        assert_eq!(dropped(cookie(PARTS_LEN_MAX)), (true, true));
        // The whole counts as well.
        assert_eq!(dropped(cookie(PARTS_LEN_MAX - 1)), (false, false));
        let token = |len: usize| format!("Bearer {}", "t".repeat(len - 7));
        assert_eq!(dropped(token(SENT_BYTES_MAX)), (false, false));
        assert_eq!(dropped(token(SENT_BYTES_MAX + 1)), (true, true));
        assert_eq!(dropped("t".repeat(8 << 20)), (true, true));
    }

    #[test]
    fn the_work_for_a_body_has_a_bound_that_nobody_moves() {
        // Parts of every length, all of which begin as every byte of every text does.
        let of_len = |len: usize| format!("a{len}={};", "A".repeat(len));
        let cookie: String = (1..=15).map(of_len).collect();
        let long = format!("{}b", "A".repeat(15_000));
        let sent = [cookie.as_bytes(), long.as_bytes()];
        let parts = all_parts(sent.into_iter()).unwrap();
        let mut most = 0;
        for body in [
            "A".repeat(KEPT_BYTES_MAX),
            "\\u0041".repeat(KEPT_BYTES_MAX / 6),
            "%2541".repeat(KEPT_BYTES_MAX / 5),
            "QUFB".repeat(KEPT_BYTES_MAX / 4),
            "AAAAAA.".repeat(KEPT_BYTES_MAX / 7),
            "z".repeat(KEPT_BYTES_MAX),
        ] {
            for kept in 0..2 {
                let mut sought = Sought::new(&parts);
                if kept == 1 {
                    // Nothing is ever found, so nothing ends the work early.
                    sought.pieces.clear();
                    sought.beginnings.clear();
                    sought.firsts = [true; 256];
                    sought.lens = (1..=WINDOW_BYTES).collect();
                }
                holds(body.as_bytes(), &sought);
                most = most.max(sought.lookups.get());
            }
        }
        assert!(most > 10 * KEPT_BYTES_MAX, "{most}");
        assert!(
            most <= (ROUNDS + 1) * 5 * KEPT_BYTES_MAX * WINDOW_BYTES,
            "{most}"
        );
    }

    #[test]
    fn nothing_makes_it_fail() {
        for body in [
            &b"\\"[..],
            b"%",
            b"&",
            b"&#",
            b"&#x;",
            b"&#99999999;",
            b"\\u12",
            b"\\ud800",
            b"%zz",
            b"\xff\xfe%ff",
            b"====",
            b"\\",
        ] {
            for secret in [
                "Basic ====",
                "Basic !",
                "=",
                ";;=;",
                "\\u0041\\u0041",
                "%",
                "Bearer \\",
            ] {
                // Whether it is found does not matter here.
                kept(secret, body);
            }
        }
    }
}
