//! Takes a token out of what a target said. Pure.
//!
//! Some targets answer a refusal with what they were sent. The beginning of that answer goes into an error record, which
//! people read, so the token that was sent must not be in it.

use std::borrow::Cow;

use bytes::Bytes;

use super::outcome::KEPT_BYTES_MAX;

const MASK: &[u8] = b"***";
/// A shorter beginning of a token at the cut end of a body tells nothing, and may be there by chance.
const BEGINNING_BYTES_MIN: usize = 4;

/// Returns a body with `***` in place of the secret; of one with a scheme word (`Bearer …`), in place of what follows it.
///
/// It is found as it was sent and as JSON with escaped slashes, also where the end of the kept body cuts it.
pub(crate) fn redact(body: Bytes, secret: &[u8]) -> Bytes {
    let token = match secret.iter().position(|byte| *byte == b' ') {
        Some(blank) if blank + 1 < secret.len() => &secret[blank + 1..],
        _ => secret,
    };
    let mut clean: Cow<'_, [u8]> = Cow::Borrowed(&body);
    let was_cut = body.len() >= KEPT_BYTES_MAX;
    for token in [token, &escaped(token)] {
        if let Some(replaced) = replaced(&clean, token, was_cut) {
            clean = Cow::Owned(replaced);
        }
    }
    match clean {
        Cow::Owned(clean) => clean.into(),
        Cow::Borrowed(_) => body,
    }
}

fn escaped(token: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(token.len());
    for byte in token {
        if *byte == b'/' {
            escaped.push(b'\\');
        }
        escaped.push(*byte);
    }
    escaped
}

/// Returns the text without the token, or `None` if it is not in there.
fn replaced(text: &[u8], token: &[u8], was_cut: bool) -> Option<Vec<u8>> {
    if token.is_empty() {
        return None;
    }
    let (mut clean, mut at) = (Vec::new(), 0);
    while at < text.len() {
        let rest = &text[at..];
        let cut_here = was_cut && rest.len() >= BEGINNING_BYTES_MIN && token.starts_with(rest);
        let len = if rest.starts_with(token) {
            token.len()
        } else if cut_here {
            rest.len()
        } else {
            clean.push(rest[0]);
            at += 1;
            continue;
        };
        clean.extend_from_slice(MASK);
        at += len;
    }
    (clean != text).then_some(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(secret: &str, body: &str, expected: &str) {
        let clean = redact(Bytes::copy_from_slice(body.as_bytes()), secret.as_bytes());
        assert_eq!(std::str::from_utf8(&clean).unwrap(), expected);
    }

    #[test]
    fn a_token_is_taken_out_wherever_it_stands() {
        check("Bearer abc", "", "");
        check("Bearer abc", "no such token", "no such token");
        check("Bearer abc", "abc: Bearer abc!", "***: Bearer ***!");
        check("abc", "xabcabcx", "x******x");
        check(
            "Basic a/b=",
            r#"{"sent":"Basic a\/b="}"#,
            r#"{"sent":"Basic ***"}"#,
        );
        check("Bearer ", "Bearer ", "***");
        check("", "body", "body");
    }

    #[test]
    fn the_beginning_of_a_token_is_taken_out_where_the_body_was_cut() {
        let filled = |end: &str| "x".repeat(KEPT_BYTES_MAX - end.len()) + end;
        let kept = |end: &str, len: usize| "x".repeat(KEPT_BYTES_MAX - len) + end;
        check("Bearer secret", &filled("secre"), &kept("***", 5));
        check("Bearer secret", &filled("sec"), &filled("sec"));
        check("Bearer secret", "a short secre", "a short secre");
    }
}
