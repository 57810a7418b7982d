//! The requests that a target receives.

use serde_json::json;
use tokio::sync::mpsc;

use super::{
    harness::{DEFAULT, Harness, SOURCE, header, message, record},
    stub::{Raw, StubTarget, raw_target, value, within},
};

#[tokio::test]
async fn a_call_has_exactly_what_the_message_says() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|_| {}).await;
    let value = format!(
        r#"{{"vaultSecretName":"good","targetRestApi":"{}","targetRestApiOperation":"PUT","targetRestApiPayload": {{ "ä" : 1.10 }},
        "targetRestApiHeaders":[{{"key":"X-Two","value":"1"}},{{"key":"Authorization","value":"mine"}},{{"key":"x-two","value":"2"}}]}}"#,
        target.url("/a%20b?c=d&e")
    );
    let mut sent = record(
        "k",
        &json!(null),
        &[
            ("traceparent", "00-t"),
            ("secret-name", "good"),
            ("secret-version", "3"),
        ],
    );
    sent.value = value.into();
    gateway.append(SOURCE, 0, vec![sent]).await;
    let call = target.next_call().await;
    assert_eq!(
        (call.method.as_str(), call.path.as_str()),
        ("PUT", "/a%20b?c=d&e")
    );
    assert_eq!(call.body, r#"{ "ä" : 1.10 }"#);
    let expected = [
        ("host", vec![target.address.to_string()]),
        ("x-two", vec!["1".into(), "2".into()]),
        ("authorization", vec!["Bearer 3".into()]),
        ("traceparent", vec!["00-t".into()]),
        (
            "user-agent",
            vec![format!("syncgate/{}", env!("CARGO_PKG_VERSION"))],
        ),
        ("content-length", vec!["15".into()]),
        ("content-type", vec!["application/json".into()]),
        ("connection", vec![]),
    ];
    for (name, values) in expected {
        assert_eq!(call.header(name), values, "{name}");
    }
    let mut names: Vec<_> = call.headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    let all = [
        "authorization",
        "content-length",
        "content-type",
        "host",
        "idempotency-key",
        "traceparent",
        "user-agent",
        "x-two",
    ];
    assert_eq!(names, all);
    call.answer(201);
    assert_eq!(gateway.settled().await.delivered, 1);
}

#[tokio::test]
async fn header_names_go_out_as_they_came_and_repeats_in_their_order() {
    let (give, mut heads) = mpsc::channel(8);
    let target = raw_target(move |stream| {
        let give = give.clone();
        async move {
            let mut raw = Raw::new(stream);
            while let Some(head) = raw.request().await {
                give.send(head).await.unwrap();
                raw.say("HTTP/1.1 204 No Content\r\n\r\n").await;
            }
        }
    });
    let mut cased = message(target.await, "/SOAPAction:x");
    // Larger than what a socket takes in one piece.
    cased["targetRestApiPayload"] = json!("soapaction: x\r\n".repeat(300_000));
    let mut plain = cased.clone();
    plain["targetRestApiHeaders"] = json!([{"key": "soapaction", "value": "3"}]);
    let mut titled = cased.clone();
    titled["targetRestApiHeaders"] = json!([{"key": "X-Api-Version", "value": "4"}]);
    let lines = [
        ("SOAPAction", "urn:soapaction: 1"),
        ("x-A", "1"),
        ("Content-Type", "text/xml"),
        ("X-a", "2"),
        ("user-AGENT", "me"),
        ("x-a", "3"),
    ];
    let headers = lines.map(|(key, value)| json!({"key": key, "value": value}));
    cased["targetRestApiHeaders"] = json!(headers);
    let gateway = Harness::start(|config| config.dispatch.in_flight_max = 1).await;
    for message in [&cased, &plain, &titled, &cased] {
        gateway.sync("k", message).await;
        let head = within("a call", heads.recv()).await.unwrap();
        assert!(head.starts_with("POST /SOAPAction:x HTTP/1.1\r\nHost: "));
        if message == &plain {
            assert!(head.contains("\r\nsoapaction: 3\r\n"), "{head}");
            continue;
        }
        if message == &titled {
            assert!(head.contains("\r\nX-Api-Version: 4\r\n"), "{head}");
            continue;
        }
        let ours = ["Host", "Idempotency-Key", "Content-Length"];
        let (own, sent): (Vec<_>, Vec<_>) = head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "))
            .partition(|(name, _)| ours.contains(name));
        assert_eq!(own.len(), ours.len(), "{head}");
        // Those of one name stand together.
        let expected = [0, 1, 3, 5, 2, 4].map(|at| lines[at]);
        assert_eq!(sent, expected, "{head}");
        assert!(value(&head, "user-agent").is_some());
    }
    assert_eq!(gateway.settled().await.delivered, 4);
}

#[tokio::test]
async fn methods_with_and_without_a_body() {
    let mut target = StubTarget::start().await;
    let address = target.address;
    let gateway = Harness::start(|config| config.dispatch.in_flight_max = 1).await;
    for method in ["POST", "PUT", "PATCH", "DELETE", "GET"] {
        let mut message = message(address, "/x");
        message["targetRestApiOperation"] = json!(method);
        gateway.sync("", &message).await;
    }
    for (method, body) in [
        ("POST", r#"{"path":"/x"}"#),
        ("PUT", r#"{"path":"/x"}"#),
        ("PATCH", r#"{"path":"/x"}"#),
        ("DELETE", ""),
        ("GET", ""),
    ] {
        let call = target.next_call().await;
        assert_eq!(
            (call.method.as_str(), &call.body[..]),
            (method, body.as_bytes())
        );
        let of_body: &[&str] = match body.is_empty() {
            true => &[],
            false => &["application/json"],
        };
        assert_eq!(call.header("content-type"), of_body, "{method}");
        call.answer(200);
    }
    assert_eq!(target.connections_len(), 1, "the connection is kept");
}

#[tokio::test]
async fn a_secret_that_cannot_be_sent_is_a_cause_and_no_call() {
    let target = StubTarget::always(200).await;
    let gateway = Harness::start(|_| {}).await;
    let cases = ["gone", "foreign", "sealed", "crlf"];
    for name in cases {
        let mut message = message(target, "/x");
        message["vaultSecretName"] = json!(name);
        gateway.sync("k", &message).await;
    }
    let reasons = [
        "not known",
        "not for this target",
        "cannot be opened",
        "no header value",
    ];
    for (at, reason) in (0..).zip(reasons) {
        let failed = gateway.record_at(DEFAULT, at).await;
        assert_eq!(header(&failed, "cause-class"), "secret");
        assert_eq!(header(&failed, "attempts"), "0");
        assert!(header(&failed, "cause-reason").contains(reason));
    }
}

#[tokio::test]
async fn a_token_that_the_target_answers_with_is_not_in_the_error_record() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|_| {}).await;
    let message = message(target.address, "/x");
    let secret = [("secret-name", "good"), ("secret-version", "314159")];
    gateway
        .append(SOURCE, 0, vec![record("k", &message, &secret)])
        .await;
    let call = target.next_call().await;
    let sent = call.header("authorization")[0].to_owned();
    assert_eq!(sent, "Bearer 314159");
    call.answer_with(401, &[], &format!("{{\"you_sent\":\"{sent}\"}}"));
    gateway.settled().await;
    let failed = gateway.record_at(DEFAULT, 0).await;
    assert_eq!(header(&failed, "cause-body"), "-");
    let reason = header(&failed, "cause-reason");
    assert!(
        reason.contains("401") && reason.contains("is not kept"),
        "{reason}"
    );
}
