//! The rule of each member of a message; `envelope.rs` and `check.rs` apply the same rules.

use http::{HeaderName, HeaderValue};

use crate::{
    json::faults::{FieldCode, Wrong},
    model::{
        message::{HEADERS_LEN_MAX, HEADERS_REFUSED},
        target::{Origin, URL_BYTES_MAX, UrlInvalid},
    },
};

/// Longest host name DNS has.
const HOST_BYTES_MAX: usize = 253;

/// Checks `targetRestApi`.
pub(super) fn url(text: &str) -> Result<Origin, Wrong> {
    let invalid = |what: &str| (FieldCode::UrlInvalid, what.to_owned());
    if text.len() > URL_BYTES_MAX {
        let what = format!("a URL has at most {URL_BYTES_MAX} bytes");
        return Err((FieldCode::TooLong, what));
    }
    // The parser drops line breaks and outer blanks, so the gateway would call another URL than the stored one.
    let blank = |c: char| c.is_control() || c.is_whitespace();
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) && text.chars().any(blank) {
        return Err(invalid("a URL has no blanks and no control characters"));
    }
    let origin = Origin::of(text).map_err(|error| match error {
        UrlInvalid::Malformed(url::ParseError::RelativeUrlWithoutBase) => {
            invalid("the URL must be absolute")
        }
        UrlInvalid::Malformed(_) => invalid("this is not a URL"),
        UrlInvalid::Scheme => (FieldCode::SchemeNotAllowed, error.to_string()),
        _ => invalid(&error.to_string()),
    })?;
    if origin.host().len() > HOST_BYTES_MAX {
        return Err(invalid("the host name is too long"));
    }
    Ok(origin)
}

/// Checks `targetRestApiOperation`.
pub(super) fn operation(text: &str, allowed: &[String]) -> Result<(), Wrong> {
    if allowed.iter().any(|operation| operation == text) {
        return Ok(());
    }
    let what = format!("the operation must be one of {}", allowed.join(", "));
    Err((FieldCode::MethodNotAllowed, what))
}

/// Checks the name of a header.
pub(super) fn header_name(name: &str) -> Result<(), Wrong> {
    let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
        let what = "a header name has letters, digits and !#$%&'*+-.^_`|~";
        return Err((FieldCode::HeaderInvalid, what.into()));
    };
    if HEADERS_REFUSED.contains(&name.as_str()) {
        let what = format!("{name} belongs to the connection and cannot be set");
        return Err((FieldCode::HeaderHopByHop, what));
    }
    Ok(())
}

/// Checks the value of a header.
pub(super) fn header_value(value: &str) -> Result<(), Wrong> {
    match HeaderValue::from_bytes(value.as_bytes()) {
        Ok(_) => Ok(()),
        Err(_) => Err((
            FieldCode::HeaderInvalid,
            "a header value has no line breaks and no control characters".into(),
        )),
    }
}

/// Checks number and length of all headers together.
pub(super) fn headers_len<'a>(
    headers: impl Iterator<Item = (&'a str, &'a str)>,
    bytes_max: usize,
) -> Result<(), Wrong> {
    let (mut len, mut bytes) = (0, 0);
    for (name, value) in headers {
        len += 1;
        bytes += name.len() + value.len();
    }
    let what = if bytes > bytes_max {
        format!("the headers have {bytes} bytes, {bytes_max} are the most")
    } else if len > HEADERS_LEN_MAX {
        format!("there are {len} headers, {HEADERS_LEN_MAX} are the most")
    } else {
        return Ok(());
    };
    Err((FieldCode::TooLong, what))
}

/// Checks `vaultSecretName`; an empty one is none.
pub(super) fn secret_name(name: &str) -> Result<(), Wrong> {
    if name.is_empty() || crate::secrets::name_is_valid(name) {
        return Ok(());
    }
    let what = "a secret's name has 1 to 255 letters, digits, '_', '.' and '-'";
    Err((FieldCode::SecretNameInvalid, what.into()))
}

/// Checks the length of `streamKey`.
pub(super) fn key(key: &str, bytes_max: usize) -> Result<(), Wrong> {
    if key.len() <= bytes_max {
        return Ok(());
    }
    let what = format!("the key has {} bytes, {bytes_max} are the most", key.len());
    Err((FieldCode::TooLong, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_url(text: &str, expected: Result<&str, FieldCode>) {
        let origin = url(text).map(|origin| origin.to_string());
        let origin = origin.map_err(|(code, _)| code);
        assert_eq!(origin, expected.map(Into::into), "{text:?}");
    }

    #[test]
    fn urls() {
        check_url("http://a/b?c#d", Ok("http://a:80"));
        check_url(
            "HTTPS://Bücher.example:8443",
            Ok("https://xn--bcher-kva.example:8443"),
        );
        check_url("/relative", Err(FieldCode::UrlInvalid));
        check_url("", Err(FieldCode::UrlInvalid));
        check_url("http://", Err(FieldCode::UrlInvalid));
        check_url("http://u:p@a/", Err(FieldCode::UrlInvalid));
        check_url("ftp://a/", Err(FieldCode::SchemeNotAllowed));
        check_url("file:///etc/passwd", Err(FieldCode::SchemeNotAllowed));
        check_url("http://a/\r\nX: y", Err(FieldCode::UrlInvalid));
        check_url("http://a/\0", Err(FieldCode::UrlInvalid));
        check_url(" http://a/", Err(FieldCode::UrlInvalid));
        check_url("http://a/\u{85}b", Err(FieldCode::UrlInvalid));
        check_url(
            &format!("http://a/{}", "x".repeat(URL_BYTES_MAX)),
            Err(FieldCode::TooLong),
        );
        check_url(
            &format!("http://{}/", "x".repeat(254)),
            Err(FieldCode::UrlInvalid),
        );
    }

    #[test]
    fn all_headers_together_are_bounded_in_bytes_and_number() {
        let check = |len: usize, name: &str| headers_len((0..len).map(|_| (name, "")), 8_000);
        assert!(check(HEADERS_LEN_MAX, "ab").is_ok());
        let (code, what) = check(HEADERS_LEN_MAX + 1, "a").unwrap_err();
        assert_eq!(code, FieldCode::TooLong);
        assert!(what.starts_with("there are 4001 headers"), "{what}");
        assert!(check(8_001, "a").unwrap_err().1.contains("8001 bytes"));
    }

    #[test]
    fn headers() {
        for good in ["Content-Type", "x", "X-API_key", "Authorization"] {
            assert!(header_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a:b", "ä", "a\r\n", "a\0"] {
            assert_eq!(header_name(bad).unwrap_err().0, FieldCode::HeaderInvalid);
        }
        for bad in [
            "Host",
            "CONTENT-length",
            "te",
            "Transfer-Encoding",
            "expect",
            "Proxy-Authorization",
        ] {
            assert_eq!(header_name(bad).unwrap_err().0, FieldCode::HeaderHopByHop);
        }
        for good in ["", "a b", "ü", "\t"] {
            assert!(header_value(good).is_ok(), "{good:?}");
        }
        for bad in ["a\r\nb", "a\nb", "\0", "\u{7f}"] {
            assert!(header_value(bad).is_err(), "{bad:?}");
        }
    }
}
