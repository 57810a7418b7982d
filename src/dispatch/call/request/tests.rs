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
    Call::new(record, message_id(1), &SecretHeader::default(), false).map_err(|invalid| invalid.0)
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
    let own =
        json!([{"key": "Authorization", "value": "mine"}, {"key": "X-Api-Key", "value": "old"}]);
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
fn a_record_that_cannot_be_called_is_refused_without_its_values() {
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
        (with("targetRestApi", json!("SECRET")), "not a URL"),
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
        (header("x a", "SECRET"), "not a header name"),
        (header(":path", "SECRET"), "not a header name"),
        (header("", "SECRET"), "not a header name"),
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
