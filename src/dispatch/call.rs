//! From a record to an HTTP request. What does not change between attempts is made once ([`Call`]); the secret is put in
//! at each attempt, so it is never kept. Pure.

use bytes::Bytes;
use data_encoding::BASE32_NOPAD;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::Full;
use sha2::{Digest, Sha256};

use crate::{
    message::{self, HEADERS_LEN_MAX, HEADERS_REFUSED, Message},
    record::{Record, header as record_header},
    target::{Origin, TargetUrl, part},
};

/// A request in all but its secret. It shares the record's memory, so that making requests of it copies next to nothing.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// The secret that the target wants.
    pub(crate) secret: Option<SecretRef>,
    method: Method,
    url: TargetUrl,
    /// What the message and we have to say, in order, with repeats; no secret.
    headers: Vec<(HeaderName, HeaderValue)>,
    /// `None` if the message has its own.
    idempotency_key: Option<IdempotencyKey>,
    body: Bytes,
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

/// Why no call can be made of a record. Names members and headers, never values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Invalid(pub(crate) String);

/// A shorter value, such as `true`, is hardly one, and would be found in any text.
const CREDENTIAL_BYTES_MIN: usize = 8;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("syncgate/", env!("CARGO_PKG_VERSION")));

impl Call {
    /// Reads a record. `message_id` is that of the first record; `token_header` is the header that secrets travel in;
    /// `body_always` says whether the target gets the payload with DELETE and GET too.
    pub(crate) fn new(
        record: &Record,
        message_id: &str,
        token_header: &HeaderName,
        body_always: bool,
    ) -> Result<Self, Invalid> {
        let message = Message::parse(&record.value).map_err(|error| malformed(&error))?;
        let method = method(&message.target_rest_api_operation)?;
        let url = TargetUrl::read(&message.target_rest_api, &record.value)
            .map_err(|error| Invalid(format!("targetRestApi cannot be called: {error}")))?;
        let secret = secret_of(record, &message);

        let payload = message.target_rest_api_payload;
        let takes_body = !matches!(method, Method::DELETE | Method::GET);
        let body = match payload {
            Some(payload) if takes_body || body_always => {
                record.value.slice_ref(payload.get().as_bytes())
            }
            _ => Bytes::new(),
        };
        if message.headers().nth(HEADERS_LEN_MAX).is_some() {
            return Err(Invalid(format!("more than {HEADERS_LEN_MAX} headers")));
        }
        let mut headers = Vec::with_capacity(8);
        for (name, value) in message.headers() {
            let (name, value) = checked(name, value, &record.value)?;
            if secret.is_none() || name != token_header {
                headers.push((name, value));
            }
        }
        let lacks = |headers: &[(HeaderName, _)], name: &HeaderName| {
            headers.iter().all(|(there, _)| there != name)
        };
        let idempotency_key =
            lacks(&headers, &IDEMPOTENCY_KEY).then(|| idempotency_key(message_id));
        let mut add = |name: HeaderName, value: HeaderValue| {
            if lacks(&headers, &name) {
                headers.push((name, value));
            }
        };
        if takes_body && body.is_empty() {
            // hyper leaves it out for an empty body, and some servers then answer 411.
            add(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        if let Some(value) = record.headers.get(record_header::TRACEPARENT)
            && let Ok(value) = HeaderValue::from_maybe_shared(part(value, record.headers.encoded()))
        {
            add(TRACEPARENT, value);
        }
        add(header::USER_AGENT, USER_AGENT);
        Ok(Self {
            secret,
            method,
            url,
            headers,
            idempotency_key,
            body,
        })
    }

    /// Returns whom to call.
    pub(crate) fn origin(&self) -> &Origin {
        &self.url.origin
    }

    /// Returns the request for a connection of HTTP/1.1, or of HTTP/2 (`absolute`).
    pub(crate) fn request(
        &self,
        secret: Option<(&HeaderName, HeaderValue)>,
        absolute: bool,
    ) -> Request<Full<Bytes>> {
        let mut headers = HeaderMap::with_capacity(self.headers.len() + 3);
        let uri = if absolute {
            self.absolute_uri()
        } else {
            headers.insert(header::HOST, self.url.authority.clone());
            Uri::from(self.url.path.clone())
        };
        for (name, value) in &self.headers {
            headers.append(name, value.clone());
        }
        if let Some(key) = &self.idempotency_key {
            let value = HeaderValue::from_bytes(key).expect("base32 is visible ASCII");
            headers.insert(IDEMPOTENCY_KEY, value);
        }
        if let Some((name, value)) = secret {
            headers.insert(name, value);
        }
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        request
    }

    /// Returns the credentials among the caller's headers.
    pub(crate) fn credentials(&self) -> impl Iterator<Item = &[u8]> {
        let named = self.headers.iter();
        named
            .filter(|(name, _)| message::is_credential(name.as_str()))
            .map(|(_, value)| value.as_bytes())
            .filter(|value| value.len() >= CREDENTIAL_BYTES_MIN)
    }

    fn absolute_uri(&self) -> Uri {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(if self.url.origin.https() {
            http::uri::Scheme::HTTPS
        } else {
            http::uri::Scheme::HTTP
        });
        parts.authority = self.url.authority.as_bytes().try_into().ok();
        parts.path_and_query = Some(self.url.path.clone());
        Uri::from_parts(parts).unwrap_or_else(|_| Uri::from(self.url.path.clone()))
    }
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
    noted.and_then(|text| Origin::of(text).ok()).or_else(|| {
        let message = Message::parse(&record.value).ok()?;
        Origin::of(&message.target_rest_api).ok()
    })
}

/// Returns the secret that a record's target wants.
pub(super) fn secret(record: &Record) -> Option<SecretRef> {
    secret_of(record, &Message::parse(&record.value).ok()?)
}

/// What ingest wrote beside the message wins: a derived name and the version stand only there.
fn secret_of(record: &Record, message: &Message<'_>) -> Option<SecretRef> {
    let headers = &record.headers;
    let (name, version) = match headers.get(record_header::SECRET_NAME) {
        Some(name) => (name, headers.get(record_header::SECRET_VERSION)),
        None => (message.secret_name()?, None),
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
fn idempotency_key(message_id: &str) -> IdempotencyKey {
    let digest = Sha256::digest(message_id.as_bytes());
    let mut text = IdempotencyKey::default();
    BASE32_NOPAD.encode_mut(&digest[..16], &mut text);
    text.make_ascii_lowercase();
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::record::{Headers, HeadersBuilder};

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
        Call::new(record, "first", &header::AUTHORIZATION, false).map_err(|invalid| invalid.0)
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

    #[test]
    fn the_callers_headers_go_out_with_repeats_and_ours_only_where_they_are_missing() {
        let headers = json!([{"key": "X-A", "value": "1"}, {"key": "x-b", "value": "ä"}, {"key": "x-a", "value": "2"}]);
        let made = call(&record(
            &message("POST", headers),
            &[("traceparent", "00-t")],
        ))
        .unwrap();
        let request = made.request(None, false);
        assert_eq!(request.uri(), "/a/b?c=d");
        assert_eq!(seen(&request, "host"), ["api.example"]);
        assert_eq!(seen(&request, "x-a"), ["1", "2"]);
        assert_eq!(seen(&request, "x-b"), ["ä"]);
        assert_eq!(seen(&request, "traceparent"), ["00-t"]);
        assert_eq!(seen(&request, "user-agent"), [USER_AGENT.to_str().unwrap()]);
        assert_eq!(
            seen(&request, "idempotency-key"),
            [str::from_utf8(&idempotency_key("first")).unwrap()]
        );
        assert_eq!(seen(&request, "content-type"), [""; 0]);
        let absolute = made.request(None, true);
        assert_eq!(absolute.uri(), "https://api.example/a/b?c=d");
        assert_eq!(seen(&absolute, "host"), [""; 0]);

        let own = json!([{"key": "Idempotency-Key", "value": "mine"}, {"key": "Traceparent", "value": "00-m"},
                         {"key": "User-Agent", "value": "me"}]);
        let made = call(&record(&message("POST", own), &[("traceparent", "00-t")])).unwrap();
        let request = made.request(None, false);
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
        let value = HeaderValue::from_static("Bearer x");
        let request = made.request(Some((&header::AUTHORIZATION, value)), false);
        assert_eq!(seen(&request, "authorization"), ["Bearer x"]);
        let made = call(&record(&message("POST", own), &[])).unwrap();
        assert_eq!(made.secret, None);
        let request = made.request(None, false);
        assert_eq!(seen(&request, "authorization"), ["mine"]);
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
            let made = Call::new(&record, "id", &header::AUTHORIZATION, always).unwrap();
            assert_eq!(made.body, expected, "{operation}");
            assert_eq!(made.request(None, false).method(), operation);
        }
        let bare = json!({"targetRestApi": "http://a", "targetRestApiOperation": "PUT"});
        let request = call(&record(&bare, &[])).unwrap().request(None, false);
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
        assert_eq!(call(&record).unwrap().body, r#"{ "ä" :1.10 }"#);
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
    fn the_idempotency_key_is_the_base32_of_a_digest() {
        let key = idempotency_key("abc");
        // First 16 bytes of SHA-256("abc"): ba7816bf8f01cfea414140de5dae2223.
        assert_eq!(&key, b"xj4bnp4pahh6uqkbidpf3lrcem");
        assert_ne!(idempotency_key("abd"), key);
    }
}
