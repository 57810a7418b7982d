//! Names of headers in settings: which headers may carry a credential.

use http::HeaderName;

use crate::model::message::HEADERS_REFUSED;

/// A longer name is a mistake, and would be sent with every call.
const NAME_BYTES_MAX: usize = 128;
/// Headers that HTTP, the gateway, proxies or targets read, echo or log. A credential in one of them would be shown.
const TAKEN: [&str; 34] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "expect",
    "forwarded",
    "host",
    "idempotency-key",
    "if-match",
    "if-none-match",
    "keep-alive",
    "origin",
    "prefer",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "referer",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
];
const TAKEN_BEGINNINGS: [&str; 3] = ["access-control-", "sec-", "x-message-id"];
/// Headers that the gateway reads in requests of its own clients.
const OURS: [&str; 2] = ["last-event-id", "x-api-key"];

/// Checks that requests can bring a token in a header of that name.
///
/// # Errors
/// What is wrong, and what would be right.
pub(in crate::config) fn check_token_header(name: &str) -> Result<(), String> {
    const RIGHT: &str = "take authorization, or a header such as x-target-token";
    check(name, &OURS, RIGHT)
}

/// Checks that a target can get its secret in a header of that name.
///
/// # Errors
/// What is wrong, and what would be right.
pub(in crate::config) fn check_secret_header(name: &str) -> Result<(), String> {
    const RIGHT: &str = "take Authorization, or a header such as X-Api-Key";
    if name.len() > NAME_BYTES_MAX {
        return Err(format!(
            "has {} bytes, but a name has at most {NAME_BYTES_MAX}; {RIGHT}",
            name.len()
        ));
    }
    check(name, &HEADERS_REFUSED, RIGHT)
}

fn check(name: &str, more: &[&str], right: &str) -> Result<(), String> {
    let lower = name.to_ascii_lowercase();
    let is_taken = TAKEN.iter().chain(more).any(|taken| *taken == lower)
        || TAKEN_BEGINNINGS
            .iter()
            .any(|first| lower.starts_with(first));
    if name.parse::<HeaderName>().is_err() {
        Err(format!(
            "\"{name}\" is not a header name: give letters, digits and hyphens; {right}"
        ))
    } else if is_taken {
        Err(format!(
            "\"{name}\" is reserved for HTTP, proxies or the gateway; {right}"
        ))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_with_a_meaning_of_its_own_carries_no_credential() {
        for name in ["Authorization", "x-target-token", "Cookie"] {
            assert_eq!(check_token_header(name), Ok(()), "{name}");
            assert_eq!(check_secret_header(name), Ok(()), "{name}");
        }
        // The caller's own key, and the target's.
        assert!(check_token_header("X-Api-Key").is_err());
        assert_eq!(check_secret_header("X-API-KEY"), Ok(()));
        let refused = TAKEN.iter().chain(&HEADERS_REFUSED);
        for name in refused.chain(&["Sec-Fetch-Mode", "X-Message-Id", "", "a b", "a:", "ä"]) {
            assert!(check_secret_header(name).is_err(), "{name}");
            assert!(check_secret_header(&name.to_uppercase()).is_err(), "{name}");
        }
        assert!(check_secret_header(&"x".repeat(129)).is_err());
    }
}
