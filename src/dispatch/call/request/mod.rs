//! Makes an HTTP request of a record. Each attempt makes its own, so a secret stays in memory only during an attempt.
//! Pure.

use std::hash::Hasher;

use bytes::Bytes;
use data_encoding::BASE32_NOPAD;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri,
    header::{self, Entry},
    uri::{Authority, Scheme},
};
use http_body_util::Full;
use siphasher::sip128::{Hasher128, SipHasher24};

use crate::dispatch::secret::{SecretHeader, SecretRef, is_title_case, secret_of};
use crate::model::{
    ids::MessageId,
    layout::CallParts,
    mask::is_hidden,
    message::{HEADERS_LEN_MAX, HEADERS_REFUSED},
    record::{Record, header as record_header},
    target::{Origin, TargetUrl, part},
};

/// A request without its secret, in the form of HTTP/1.1. It shares the record's memory.
#[derive(Debug)]
pub(crate) struct Call {
    /// The secret that the target wants.
    pub(crate) secret: Option<SecretRef>,
    /// The origin to call.
    pub(crate) origin: Origin,
    /// The request, without the secret.
    pub(crate) request: Request<Full<Bytes>>,
    /// The message's header names in their own case; empty if all are in title case, which the connection writes.
    pub(crate) names: Vec<Bytes>,
}

/// 128 bits in base32.
type IdempotencyKey = [u8; 26];

/// Why no call can be made of a record. Names members and headers, never values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Invalid(pub(crate) String);

/// Headers that Syncgate adds to a request: with a body it has a type, without one a length.
const OWN_HEADERS_LEN: usize = 6;

/// A shorter value is hardly a credential, and any text may contain it by chance.
const CREDENTIAL_BYTES_MIN: usize = 4;
/// Values of flags, which any text may contain.
const FLAGS: [&str; 4] = ["true", "false", "null", "none"];

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("syncgate/", env!("CARGO_PKG_VERSION")));

impl Call {
    /// Reads a record. `message_id` is that of the first record. `secret_header` is the header for the secret; a
    /// message with a secret cannot set it itself. With `body_always` the payload is sent with DELETE and GET too.
    pub(crate) fn new(
        record: &Record,
        message_id: MessageId,
        secret_header: &SecretHeader,
        body_always: bool,
    ) -> Result<Self, Invalid> {
        let parts = CallParts::of(record).map_err(|error| malformed(&error))?;
        let method = method(&parts.operation)?;
        let url = TargetUrl::read(&parts.url, &record.value)
            .map_err(|error| Invalid(format!("targetRestApi cannot be called: {error}")))?;
        let secret = secret_of(record, parts.secret_name.as_deref());
        let takes_body = !matches!(method, Method::DELETE | Method::GET);
        let body = match parts.payload {
            Some(payload) if takes_body || body_always => record.value.slice_ref(payload),
            _ => Bytes::new(),
        };
        if parts.headers.len() > HEADERS_LEN_MAX {
            return Err(Invalid(format!("more than {HEADERS_LEN_MAX} headers")));
        }
        let mut names = names_as_they_came(&parts, &record.value);
        if secret.is_some() {
            // After the names of the message, so that the message's spelling of this header wins.
            names.extend(secret_header.spelled.clone());
        }
        let mut headers = HeaderMap::with_capacity(parts.headers.len() + OWN_HEADERS_LEN);
        headers.insert(header::HOST, url.authority);
        for (name, value) in &parts.headers {
            let (name, value) = checked(name, value, &record.value)?;
            if secret.is_none() || name != secret_header.name {
                headers.append(name, value);
            }
        }
        if takes_body && body.is_empty() {
            // hyper omits the length of an empty body, and some servers then answer 411.
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        if !body.is_empty()
            && let Entry::Vacant(missing) = headers.entry(header::CONTENT_TYPE)
        {
            // A payload is JSON; without a type some frameworks do not read it, and answer 415.
            missing.insert(HeaderValue::from_static("application/json"));
        }
        if let Entry::Vacant(missing) = headers.entry(IDEMPOTENCY_KEY) {
            let key = HeaderValue::from_bytes(&idempotency_key(message_id));
            missing.insert(key.expect("base32 is visible ASCII"));
        }
        if let Some(value) = record.headers.get(record_header::TRACEPARENT)
            && let Ok(value) = HeaderValue::from_maybe_shared(part(value, record.headers.encoded()))
            && let Entry::Vacant(missing) = headers.entry(TRACEPARENT)
        {
            missing.insert(value);
        }
        headers.entry(header::USER_AGENT).or_insert(USER_AGENT);

        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from(url.path);
        *request.headers_mut() = headers;
        Ok(Self {
            secret,
            origin: url.origin,
            request,
            names,
        })
    }
}

/// Returns the message's header names if any is not in title case. Most messages need no allocation here.
fn names_as_they_came(parts: &CallParts<'_>, whole: &Bytes) -> Vec<Bytes> {
    if parts.headers.iter().all(|(name, _)| is_title_case(name)) {
        return Vec::new();
    }
    let names = parts.headers.iter();
    names.map(|(name, _)| part(name, whole)).collect()
}

/// Returns the request in the form of HTTP/2, with the authority in the URI.
pub(crate) fn absolute(mut request: Request<Full<Bytes>>, origin: &Origin) -> Request<Full<Bytes>> {
    let authority = request.headers_mut().remove(header::HOST);
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(match origin.https() {
        true => Scheme::HTTPS,
        false => Scheme::HTTP,
    });
    parts.authority = authority.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    // Cannot fail: the parts were read from a valid URL.
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    request
}

/// Returns the credentials among the headers of a record's message, also those of the headers in `more`.
pub(crate) fn credentials(record: &Record, more: &[String]) -> Vec<Bytes> {
    let headers = CallParts::of(record).map(|parts| parts.headers);
    let headers = headers.unwrap_or_default();
    headers
        .iter()
        .filter(|(name, value)| is_looked_for(value) && is_hidden(name, more))
        .map(|(_, value)| part(value, &record.value))
        .collect()
}

fn is_looked_for(value: &str) -> bool {
    let mut flags = FLAGS.iter();
    value.len() >= CREDENTIAL_BYTES_MIN
        && !flags.any(|flag| value.trim_ascii().eq_ignore_ascii_case(flag))
}

/// Returns the reason of a malformed message. serde's text may quote values, so only its texts about names are kept.
fn malformed(error: &serde_json::Error) -> Invalid {
    let text = error.to_string();
    let named = ["missing field", "duplicate field"]
        .iter()
        .any(|start| text.starts_with(start));
    let (line, column) = (error.line(), error.column());
    Invalid(if named {
        format!("streamMessage: {text}")
    } else if error.is_data() {
        format!("streamMessage has a member of a wrong type before line {line} column {column}")
    } else {
        format!("streamMessage is no JSON object of UTF-8 at line {line} column {column}")
    })
}

fn method(text: &str) -> Result<Method, Invalid> {
    match text {
        "POST" => Ok(Method::POST),
        "PUT" => Ok(Method::PUT),
        "PATCH" => Ok(Method::PATCH),
        "DELETE" => Ok(Method::DELETE),
        "GET" => Ok(Method::GET),
        _ => Err(Invalid(
            "targetRestApiOperation is none of POST, PUT, PATCH, DELETE, GET".into(),
        )),
    }
}

fn checked(name: &str, value: &str, whole: &Bytes) -> Result<(HeaderName, HeaderValue), Invalid> {
    let shown = || name.chars().take(64).collect::<String>();
    let header = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| Invalid(format!("{:?} is not a header name", shown())))?;
    if HEADERS_REFUSED.contains(&header.as_str()) {
        let name = header.as_str();
        return Err(Invalid(format!("header {name} cannot be set by a message")));
    }
    let value = HeaderValue::from_maybe_shared(part(value, whole))
        .map_err(|_| Invalid(format!("header {} has a value that HTTP forbids", shown())))?;
    Ok((header, value))
}

/// Returns the key of a message: the same for every copy of its first record, so that a target can accept the message
/// once.
fn idempotency_key(message_id: MessageId) -> IdempotencyKey {
    // Ids are unique already. The digest makes the key short and hides our offsets from the target.
    let mut digest = SipHasher24::new_with_key(b"syncgate message");
    digest.write(&message_id.bytes());
    let mut text = IdempotencyKey::default();
    BASE32_NOPAD.encode_mut(&digest.finish128().as_bytes(), &mut text);
    text.make_ascii_lowercase();
    text
}

#[cfg(test)]
mod tests;
