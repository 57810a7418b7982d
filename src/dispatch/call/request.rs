//! From a record to an HTTP request. It is made anew for each attempt and gone after it, and the secret with it. Pure.

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

use crate::model::{
    ids::MessageId,
    layout::CallParts,
    mask::is_hidden,
    message::{HEADERS_LEN_MAX, HEADERS_REFUSED},
    record::{Record, header as record_header},
    target::{Origin, TargetUrl, part},
};

/// A request in all but its secret, as HTTP/1.1 has it. It shares the record's memory.
#[derive(Debug)]
pub(crate) struct Call {
    /// The secret that the target wants.
    pub(crate) secret: Option<SecretRef>,
    /// Whom to call.
    pub(crate) origin: Origin,
    /// Without the secret.
    pub(crate) request: Request<Full<Bytes>>,
    /// The message's header names as they came; empty if all are in title case, as the connection writes them.
    pub(crate) names: Vec<Bytes>,
}

/// 128 bits in base32.
type IdempotencyKey = [u8; 26];

/// A secret by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SecretRef {
    /// The source that it belongs to.
    pub(crate) source: String,
    /// Its name there.
    pub(crate) name: String,
    /// The version that the record came with; `None` is the newest.
    pub(crate) version: Option<u32>,
}

/// The header in which a target gets its secret.
#[derive(Clone, Debug)]
pub(crate) struct SecretHeader {
    pub(crate) name: HeaderName,
    /// The name as the configuration has it, if the connection would write it in another case.
    spelled: Option<Bytes>,
}

impl SecretHeader {
    /// Reads a name; `None` if it is none of a header.
    pub(crate) fn new(text: &str) -> Option<Self> {
        let name = HeaderName::from_bytes(text.as_bytes()).ok()?;
        let spelled = (!is_title_case(text)).then(|| Bytes::copy_from_slice(text.as_bytes()));
        Some(Self { name, spelled })
    }
}

impl Default for SecretHeader {
    fn default() -> Self {
        Self {
            name: header::AUTHORIZATION,
            spelled: None,
        }
    }
}

/// Why no call can be made of a record. Names members and headers, never values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Invalid(pub(crate) String);

/// Headers that every request has; with a body it has a type and without one a length.
const OWN_HEADERS_LEN: usize = 6;

/// A shorter value is hardly one, and would be found in any text.
const CREDENTIAL_BYTES_MIN: usize = 4;
/// Values of flags, which are words of any text.
const FLAGS: [&str; 4] = ["true", "false", "null", "none"];

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("syncgate/", env!("CARGO_PKG_VERSION")));

impl Call {
    /// Reads a record. `message_id` is that of the first record; `secret_header` is the header in which the target gets
    /// the secret, and that the message itself cannot set then; `body_always` says whether the target gets the payload with DELETE and GET too.
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
            // Lagging those of the message: if it names this header, its spelling wins.
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
            // hyper leaves it out for an empty body, and some servers then answer 411.
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

/// Most messages name headers as in `Content-Type` or none, and cost no allocation here.
fn names_as_they_came(parts: &CallParts<'_>, whole: &Bytes) -> Vec<Bytes> {
    if parts.headers.iter().all(|(name, _)| is_title_case(name)) {
        return Vec::new();
    }
    let names = parts.headers.iter();
    names.map(|(name, _)| part(name, whole)).collect()
}

/// Returns whether each word of a name, and only its first letter, begins with a capital: as the connection writes names.
fn is_title_case(name: &str) -> bool {
    let mut begins = true;
    name.bytes().all(|byte| {
        let is_right = match begins {
            true => !byte.is_ascii_lowercase(),
            false => !byte.is_ascii_uppercase(),
        };
        begins = byte == b'-';
        is_right
    })
}

/// Returns the request as HTTP/2 has it: whom to call stands in the URI.
pub(crate) fn absolute(mut request: Request<Full<Bytes>>, origin: &Origin) -> Request<Full<Bytes>> {
    let authority = request.headers_mut().remove(header::HOST);
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(match origin.https() {
        true => Scheme::HTTPS,
        false => Scheme::HTTP,
    });
    parts.authority = authority.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    // What an origin and a path were read from makes a URI.
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    request
}

/// Returns the credentials among the headers of a record's message, those that `more` names included.
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

/// serde's own text can quote what it found; only what it says of names goes on.
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

/// Returns where a record goes. Ingest wrote it beside the message; a record without that is read.
pub(crate) fn origin(record: &Record) -> Option<Origin> {
    let noted = record.headers.get(record_header::TARGET);
    noted
        .and_then(|text| Origin::of(text).ok())
        .or_else(|| Origin::of(&CallParts::of(record).ok()?.url).ok())
}

/// Returns the secret that a record's target wants.
pub(in crate::dispatch) fn secret(record: &Record) -> Option<SecretRef> {
    let parts = CallParts::of(record).ok()?;
    secret_of(record, parts.secret_name.as_deref())
}

/// What ingest wrote beside the message wins: a derived name and the version stand only there.
fn secret_of(record: &Record, name: Option<&str>) -> Option<SecretRef> {
    let headers = &record.headers;
    let (name, version) = match headers.get(record_header::SECRET_NAME) {
        Some(name) => (name, headers.get(record_header::SECRET_VERSION)),
        None => (name?, None),
    };
    Some(SecretRef {
        source: headers
            .get(record_header::SOURCE)
            .unwrap_or("default")
            .into(),
        name: name.into(),
        version: version.and_then(|version| version.parse().ok()),
    })
}

fn checked(name: &str, value: &str, whole: &Bytes) -> Result<(HeaderName, HeaderValue), Invalid> {
    let shown = || name.chars().take(64).collect::<String>();
    let header = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| Invalid(format!("{:?} is no header name", shown())))?;
    if HEADERS_REFUSED.contains(&header.as_str()) {
        let name = header.as_str();
        return Err(Invalid(format!("header {name} cannot be set by a message")));
    }
    let value = HeaderValue::from_maybe_shared(part(value, whole))
        .map_err(|_| Invalid(format!("header {} has a value that HTTP forbids", shown())))?;
    Ok((header, value))
}

/// Same text for the same first record, whatever happens to it later: what a target needs to take it exactly once.
fn idempotency_key(message_id: MessageId) -> IdempotencyKey {
    // Ids differ by themselves; the digest makes the key short and tells the target nothing of our offsets.
    let mut digest = SipHasher24::new_with_key(b"syncgate message");
    digest.write(&message_id.bytes());
    let mut text = IdempotencyKey::default();
    BASE32_NOPAD.encode_mut(&digest.finish128().as_bytes(), &mut text);
    text.make_ascii_lowercase();
    text
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http_body_util::BodyExt;
    use serde_json::{Value, json};

    use super::*;
    use crate::model::{
        ids::{Incarnation, Offset, Partition, PartitionId, StreamId},
        record::{Headers, HeadersBuilder},
    };

    fn record(value: &Value, headers: &[(&str, &str)]) -> Record {
        let mut builder = HeadersBuilder::default();
        for (name, value) in headers {
            builder.push(name, value);
        }
        Record {
            key: "k".into(),
            value: value.to_string().into(),
            headers: builder.build(),
        }
    }

    fn call(record: &Record) -> Result<Call, String> {
        Call::new(record, message_id(1), &SecretHeader::default(), false)
            .map_err(|invalid| invalid.0)
    }

    fn message_id(offset: u64) -> MessageId {
        MessageId {
            of: PartitionId {
                stream: StreamId([1; 16]),
                partition: Partition(3),
            },
            incarnation: Incarnation(7),
            offset: Offset(offset),
        }
    }

    fn message(operation: &str, headers: Value) -> Value {
        json!({"targetRestApi": "https://Api.Example/a/b?c=d#e", "targetRestApiOperation": operation,
               "targetRestApiPayload": {"n": 1}, "targetRestApiHeaders": headers})
    }

    fn seen(request: &Request<Full<Bytes>>, name: &str) -> Vec<String> {
        let values = request.headers().get_all(name).iter();
        values
            .map(|value| String::from_utf8(value.as_bytes().to_vec()).unwrap())
            .collect()
    }

    fn body(call: Call) -> Bytes {
        let whole = call.request.into_body().collect().now_or_never();
        whole.expect("it is there at once").unwrap().to_bytes()
    }

    #[test]
    fn the_callers_headers_go_out_with_repeats_and_ours_only_where_they_are_missing() {
        let headers = json!([{"key": "X-A", "value": "1"}, {"key": "x-b", "value": "ä"}, {"key": "x-a", "value": "2"}]);
        let made = call(&record(
            &message("POST", headers),
            &[("traceparent", "00-t")],
        ))
        .unwrap();
        let (request, origin) = (made.request, made.origin);
        assert_eq!(request.uri(), "/a/b?c=d");
        assert_eq!(seen(&request, "host"), ["api.example"]);
        assert_eq!(seen(&request, "x-a"), ["1", "2"]);
        assert_eq!(seen(&request, "x-b"), ["ä"]);
        assert_eq!(seen(&request, "traceparent"), ["00-t"]);
        assert_eq!(seen(&request, "user-agent"), [USER_AGENT.to_str().unwrap()]);
        assert_eq!(
            seen(&request, "idempotency-key"),
            [str::from_utf8(&idempotency_key(message_id(1))).unwrap()]
        );
        assert_eq!(seen(&request, "content-type"), ["application/json"]);
        let absolute = absolute(request, &origin);
        assert_eq!(absolute.uri(), "https://api.example/a/b?c=d");
        assert_eq!(seen(&absolute, "host"), [""; 0]);

        let own = json!([{"key": "Idempotency-Key", "value": "mine"}, {"key": "Traceparent", "value": "00-m"},
                         {"key": "User-Agent", "value": "me"}]);
        let made = call(&record(&message("POST", own), &[("traceparent", "00-t")])).unwrap();
        let request = made.request;
        for (name, expected) in [
            ("idempotency-key", "mine"),
            ("traceparent", "00-m"),
            ("user-agent", "me"),
        ] {
            assert_eq!(seen(&request, name), [expected]);
        }
    }

    #[test]
    fn the_secret_is_exactly_one_header() {
        let own = json!([{"key": "AUTHORIZATION", "value": "mine"}]);
        let named = [
            ("secret-name", "s"),
            ("secret-version", "3"),
            ("source", "shop"),
        ];
        let made = call(&record(&message("POST", own.clone()), &named)).unwrap();
        let secret = SecretRef {
            source: "shop".into(),
            name: "s".into(),
            version: Some(3),
        };
        assert_eq!(made.secret, Some(secret));
        assert_eq!(seen(&made.request, "authorization"), [""; 0]);
        let made = call(&record(&message("POST", own), &[])).unwrap();
        assert_eq!(made.secret, None);
        assert_eq!(seen(&made.request, "authorization"), ["mine"]);
    }

    #[test]
    fn a_target_that_wants_its_secret_in_another_header_gets_the_messages_authorization() {
        let own = json!([{"key": "Authorization", "value": "mine"}, {"key": "X-Api-Key", "value": "old"}]);
        let named = record(&message("POST", own.clone()), &[("secret-name", "s")]);
        let header = SecretHeader::new("X-API-Key").unwrap();
        let made = Call::new(&named, message_id(1), &header, false).unwrap();
        assert_eq!(seen(&made.request, "authorization"), ["mine"]);
        assert_eq!(seen(&made.request, "x-api-key"), [""; 0]);
        assert_eq!(made.names, ["X-API-Key"]);
        // Without a secret there is nothing to make room for.
        let made = Call::new(
            &record(&message("POST", own), &[]),
            message_id(1),
            &header,
            false,
        );
        let made = made.unwrap();
        assert_eq!(seen(&made.request, "x-api-key"), ["old"]);
        assert!(made.names.is_empty());
        assert!(SecretHeader::new("x key").is_none());
    }

    #[test]
    fn delete_and_get_have_a_body_only_if_the_target_wants_it() {
        for (operation, always, expected) in [
            ("POST", false, "{\"n\":1}"),
            ("DELETE", false, ""),
            ("GET", false, ""),
            ("DELETE", true, "{\"n\":1}"),
        ] {
            let record = record(&message(operation, json!([])), &[]);
            let made = Call::new(&record, message_id(1), &SecretHeader::default(), always).unwrap();
            assert_eq!(made.request.method(), operation);
            assert_eq!(body(made), expected, "{operation}");
        }
        let bare = json!({"targetRestApi": "http://a", "targetRestApiOperation": "PUT"});
        let request = call(&record(&bare, &[])).unwrap().request;
        assert_eq!(seen(&request, "content-length"), ["0"]);
    }

    #[test]
    fn the_payload_is_sent_byte_for_byte() {
        let value = r#"{"targetRestApi":"http://a/","targetRestApiOperation":"PUT","targetRestApiPayload": { "ä" :1.10 }}"#;
        let record = Record {
            key: Bytes::new(),
            value: value.into(),
            headers: Headers::default(),
        };
        assert_eq!(body(call(&record).unwrap()), r#"{ "ä" :1.10 }"#);
    }

    #[test]
    fn what_cannot_be_called_is_refused_without_its_values() {
        let with = |name: &str, value: Value| {
            let mut message = message("POST", json!([]));
            message[name] = value;
            message
        };
        let header = |name: &str, value: &str| {
            with(
                "targetRestApiHeaders",
                json!([{"key": name, "value": value}]),
            )
        };
        let cases = [
            (json!([]), "wrong type"),
            (
                json!({"targetRestApi": "http://a"}),
                "targetRestApiOperation",
            ),
            (with("targetRestApi", Value::Null), "wrong type"),
            (with("targetRestApi", json!("SECRET")), "no URL"),
            (with("targetRestApi", json!("ftp://a/")), "neither http"),
            (
                with("targetRestApi", json!("http://u:SECRET@a/")),
                "user name",
            ),
            (
                with("targetRestApiOperation", json!("post")),
                "targetRestApiOperation",
            ),
            (
                with("targetRestApiOperation", json!("TRACE")),
                "targetRestApiOperation",
            ),
            (with("targetRestApiHeaders", json!([{"key": "a"}])), "value"),
            (with("targetRestApiHeaders", json!("SECRET")), "wrong type"),
            (header("Host", "SECRET"), "header host"),
            (header("Content-Length", "5"), "header content-length"),
            (header("connection", "close"), "header connection"),
            (
                header("Transfer-Encoding", "chunked"),
                "header transfer-encoding",
            ),
            (header("x a", "SECRET"), "no header name"),
            (header(":path", "SECRET"), "no header name"),
            (header("", "SECRET"), "no header name"),
            (header("x-a", "SECRET\r\nx: y"), "header x-a"),
            (header("x-a", "SECRET\0"), "header x-a"),
        ];
        for (message, expected) in cases {
            let reason = call(&record(&message, &[])).unwrap_err();
            assert!(reason.contains(expected), "{message}: {reason}");
            assert!(!reason.contains("SECRET"), "{reason}");
        }
    }

    #[test]
    fn the_credentials_of_a_message_are_found_by_the_names_of_its_headers() {
        let headers = json!([{"key": "X-Api-Key", "value": "12345678"}, {"key": "x-note", "value": "no secret"},
                             {"key": "X-Password", "value": "hunter2"}, {"key": "X-Pin-Token", "value": "123"},
                             {"key": "X-Session", "value": "True"}, {"key": "cookie", "value": "a=\"long\""}]);
        let record = record(&message("POST", headers), &[]);
        assert_eq!(
            credentials(&record, &[]),
            ["12345678", "hunter2", "a=\"long\""]
        );
        let more = credentials(&record, &["X-Note".into()]);
        assert_eq!(more, ["12345678", "no secret", "hunter2", "a=\"long\""]);
    }

    #[test]
    fn the_idempotency_key_is_the_base32_of_a_digest() {
        let id = message_id(5);
        // SipHash-2-4-128 over 16 bytes 01, 7 as 8 bytes, 3 as 2 and 5 as 8; it never changes.
        assert_eq!(&idempotency_key(id), b"vmeo6qtauhxdvtlcod2kwv3j3m");
        assert_ne!(idempotency_key(message_id(6)), idempotency_key(id));
    }
}
