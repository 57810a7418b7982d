//! Hides what was sent as a credential in what a target answers: some answer with the request, or with the token that
//! they did not like. Pure.

use std::borrow::Cow;

use bytes::Bytes;

/// Takes the place of a credential.
const MASK: &[u8] = b"***";
/// A shorter text is no credential, and would be found in any answer.
const CREDENTIAL_BYTES_MIN: usize = 4;
/// The same for what follows the scheme in `Bearer abc`: an ordinary word is not to be hidden.
const WORD_BYTES_MIN: usize = 8;

/// Returns the body with every credential hidden, also one that the body's end cuts off, or whose slashes JSON has escaped.
pub(crate) fn hidden<'a>(body: Bytes, credentials: impl IntoIterator<Item = &'a [u8]>) -> Bytes {
    let mut needles: Vec<Cow<'_, [u8]>> = Vec::new();
    for credential in credentials {
        let word = credential.rsplit(|byte| *byte == b' ').next();
        let word = word.filter(|word| word.len() >= WORD_BYTES_MIN);
        for needle in [Some(credential), word].into_iter().flatten() {
            needles.push(needle.into());
            if needle.contains(&b'/') {
                needles.push(escaped(needle).into());
            }
        }
    }
    needles.retain(|needle| needle.len() >= CREDENTIAL_BYTES_MIN);
    let mut rest = &body[..];
    let mut shown = Vec::new();
    while let [first, behind @ ..] = rest {
        let len = needles
            .iter()
            .filter_map(|needle| found(rest, needle))
            .max();
        if let Some(len) = len {
            shown.extend_from_slice(MASK);
            rest = &rest[len..];
        } else {
            shown.push(*first);
            rest = behind;
        }
    }
    if shown == body { body } else { shown.into() }
}

fn escaped(credential: &[u8]) -> Vec<u8> {
    let slash = |byte: &u8| {
        if *byte == b'/' {
            b"\\/".to_vec()
        } else {
            vec![*byte]
        }
    };
    credential.iter().flat_map(slash).collect()
}

/// Returns how much of `text` is the credential, if it begins with it or, cut off, is the beginning of it.
fn found(text: &[u8], credential: &[u8]) -> Option<usize> {
    let len = text.len().min(credential.len());
    (len >= CREDENTIAL_BYTES_MIN && text[..len] == credential[..len]).then_some(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: &str, expected: &str) {
        let credentials = [
            "Bearer tok-en+1234567",
            "plainkey",
            "Basic YWxh/GRpbg==",
            "abc",
        ];
        let credentials = credentials.map(str::as_bytes);
        let shown = hidden(Bytes::copy_from_slice(body.as_bytes()), credentials);
        assert_eq!(String::from_utf8_lossy(&shown), expected);
    }

    #[test]
    fn credentials_are_hidden_wherever_they_stand() {
        check("", "");
        check("no such order", "no such order");
        check(
            r#"{"authorization":"Bearer tok-en+1234567","x":1}"#,
            r#"{"authorization":"***","x":1}"#,
        );
        check("token tok-en+1234567 is wrong", "token *** is wrong");
        check(r#"{"sent":"Basic YWxh\/GRpbg=="}"#, r#"{"sent":"***"}"#);
        check("plainkeyplainkeytok-en+1234567", "*********");
        check("tok-en+123456", "***");
        check("the end cuts it: Bear", "the end cuts it: ***");
        check("tok-en+12345x", "tok-en+12345x");
        check("abc is too short to be one", "abc is too short to be one");
    }
}
