//! Decodes the forms in which a body may hold a credential: escapes, percent signs, HTML references, digits. Pure.

/// Shorter runs of digits are not decoded.
const RUN_BYTES_MIN: usize = 6;

/// Returns the longest runs of base64 digits, of either alphabet.
pub(super) fn runs(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let runs = text.split(|byte| value(*byte, 6).is_none());
    runs.filter(|run| run.len() >= RUN_BYTES_MIN)
}

/// Decodes digits of `bits` bits each, up to the first other byte.
pub(super) fn digits(text: &[u8], bits: u32) -> Vec<u8> {
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
pub(super) fn decoded(text: &[u8]) -> Option<Vec<u8>> {
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

/// Adds the value of an escape: a byte for a percent sign, a character for the others.
fn push(decoded: &mut Vec<u8>, value: u32, is_byte: bool) {
    match (u8::try_from(value), char::from_u32(value)) {
        (Ok(byte), _) if is_byte || byte.is_ascii() => decoded.push(byte),
        (_, Some(character)) => {
            decoded.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
        (_, None) => {}
    }
}

/// Reads an escape after its backslash; the returned length includes the backslash.
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

/// Reads an HTML reference after its `&`.
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

/// Reads at least `least` and at most `most` digits; returns the number and the count of digits.
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
