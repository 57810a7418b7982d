//! Bad input gets a problem that names the field; nothing is stored, and the process lives on.

use reqwest::Method;
use serde_json::{Value, json};

use crate::testkit::{Answer, Gateway, StubTarget, keyed, message};

async fn post(gateway: &Gateway, body: impl Into<reqwest::Body>) -> Answer {
    let request = gateway
        .request(Method::POST, "/stream/sync")
        .header("content-type", "application/json");
    gateway.send(request.body(body)).await
}

fn errors(problem: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| (text(&error["pointer"]), text(&error["code"])))
        .collect()
}

#[tokio::test]
async fn each_wrong_field_is_named_by_its_pointer() {
    let gateway = Gateway::start();
    let change = |pointer: &str, value: Value| {
        let mut message = keyed("k", "http://127.0.0.1:9/x", json!(1));
        let (parent, member) = pointer.rsplit_once('/').unwrap();
        message.pointer_mut(parent).unwrap()[member] = value;
        message
    };
    let m = "/streamMessage";
    let cases = [
        (change("/streamKey", json!({})), "/streamKey", "wrong_type"),
        (
            change("/streamKey", json!("k".repeat(257))),
            "/streamKey",
            "too_long",
        ),
        (change("/more", json!(1)), "/more", "unknown_member"),
        (
            change("/streamMessage", json!("text")),
            "/streamMessage",
            "wrong_type",
        ),
        (
            change("/streamMessage", Value::Null),
            "/streamMessage",
            "wrong_type",
        ),
        (json!({"streamKey": "k"}), "/streamMessage", "required"),
        (
            change(&format!("{m}/targetRestApi"), json!(7)),
            "/streamMessage/targetRestApi",
            "wrong_type",
        ),
        (
            change(&format!("{m}/targetRestApi"), json!("")),
            "/streamMessage/targetRestApi",
            "url_invalid",
        ),
        (
            change(&format!("{m}/targetRestApi"), json!("orders/7")),
            "/streamMessage/targetRestApi",
            "url_invalid",
        ),
        (
            change(&format!("{m}/targetRestApi"), json!("http://a\r\nb/")),
            "/streamMessage/targetRestApi",
            "url_invalid",
        ),
        (
            change(&format!("{m}/targetRestApi"), json!("http://a/\u{0}")),
            "/streamMessage/targetRestApi",
            "url_invalid",
        ),
        (
            change(&format!("{m}/targetRestApi"), json!("ftp://a/")),
            "/streamMessage/targetRestApi",
            "scheme_not_allowed",
        ),
        (
            change(&format!("{m}/targetRestApi"), json!("file:///etc/passwd")),
            "/streamMessage/targetRestApi",
            "scheme_not_allowed",
        ),
        (
            change(&format!("{m}/targetRestApiOperation"), json!("post")),
            "/streamMessage/targetRestApiOperation",
            "method_not_allowed",
        ),
        (
            change(&format!("{m}/targetRestApiOperation"), json!("HEAD")),
            "/streamMessage/targetRestApiOperation",
            "method_not_allowed",
        ),
        (
            change(&format!("{m}/targetRestApiOperation"), json!(1)),
            "/streamMessage/targetRestApiOperation",
            "wrong_type",
        ),
        (
            change(&format!("{m}/vaultSecretName"), json!("a b")),
            "/streamMessage/vaultSecretName",
            "secret_name_invalid",
        ),
        (
            change(&format!("{m}/vaultSecretName"), json!("../x")),
            "/streamMessage/vaultSecretName",
            "secret_name_invalid",
        ),
        (
            change(&format!("{m}/vaultSecretName"), json!(5)),
            "/streamMessage/vaultSecretName",
            "wrong_type",
        ),
        (
            change(&format!("{m}/targetRestApiHeaders"), json!({"a": "b"})),
            "/streamMessage/targetRestApiHeaders",
            "wrong_type",
        ),
        (
            change(
                &format!("{m}/targetRestApiHeaders"),
                json!([{"key": "a\nb", "value": "c"}]),
            ),
            "/streamMessage/targetRestApiHeaders/0/key",
            "header_invalid",
        ),
        (
            change(
                &format!("{m}/targetRestApiHeaders"),
                json!([{"key": "a", "value": "b\r\nEvil: 1"}]),
            ),
            "/streamMessage/targetRestApiHeaders/0/value",
            "header_invalid",
        ),
        (
            change(
                &format!("{m}/targetRestApiHeaders"),
                json!([{"key": "a", "value": "b\u{0}"}]),
            ),
            "/streamMessage/targetRestApiHeaders/0/value",
            "header_invalid",
        ),
        (
            change(
                &format!("{m}/targetRestApiHeaders"),
                json!([{"key": "Host", "value": "b"}]),
            ),
            "/streamMessage/targetRestApiHeaders/0/key",
            "header_hop_by_hop",
        ),
        (
            change(
                &format!("{m}/targetRestApiHeaders"),
                json!([{"key": "Transfer-Encoding", "value": "chunked"}]),
            ),
            "/streamMessage/targetRestApiHeaders/0/key",
            "header_hop_by_hop",
        ),
        (
            change(&format!("{m}/targetRestApiHeaders"), json!([{"key": "a"}])),
            "/streamMessage/targetRestApiHeaders/0/value",
            "required",
        ),
        (
            change(
                &format!("{m}/targetRestApiHeaders"),
                json!([{"key": "a", "value": "x".repeat(16 << 10)}]),
            ),
            "/streamMessage/targetRestApiHeaders",
            "too_long",
        ),
    ];
    for (message, pointer, code) in cases {
        let problem = gateway
            .post("/stream/sync", &message)
            .await
            .problem(400, "invalid_message");
        assert_eq!(
            errors(&problem),
            [(pointer.to_owned(), code.to_owned())],
            "{message}"
        );
        assert!(problem["requestId"].is_string());
    }
    let all = json!({"streamKey": [], "streamMessage": {"targetRestApi": 1, "targetRestApiOperation": "x"}, "y": 1});
    let problem = gateway
        .post("/stream/sync", &all)
        .await
        .problem(400, "invalid_message");
    assert_eq!(errors(&problem).len(), 4, "{problem}");
    assert_eq!(gateway.records("DataSyncStream").await.len(), 0);
}

#[tokio::test]
async fn one_bad_message_refuses_its_whole_batch_and_is_named() {
    let gateway = Gateway::start();
    let mut batch = vec![message("http://127.0.0.1:9/", json!(1)); 20];
    batch[17]["streamMessage"]
        .as_object_mut()
        .unwrap()
        .remove("targetRestApi");
    let problem = gateway
        .post("/stream/sync", &Value::Array(batch.clone()))
        .await
        .problem(400, "invalid_message");
    assert_eq!(
        errors(&problem),
        [(
            "/17/streamMessage/targetRestApi".to_owned(),
            "required".to_owned()
        )]
    );
    let lines: Vec<_> = batch.iter().map(Value::to_string).collect();
    let request = gateway
        .request(Method::POST, "/stream/sync")
        .header("content-type", "application/x-ndjson");
    let problem = gateway
        .send(request.body(lines.join("\n")))
        .await
        .problem(400, "invalid_message");
    assert_eq!(
        errors(&problem),
        [(
            "/17/streamMessage/targetRestApi".to_owned(),
            "required".to_owned()
        )]
    );
    let many = Value::Array(vec![message("http://127.0.0.1:9/", json!(1)); 1001]);
    gateway
        .post("/stream/sync", &many)
        .await
        .problem(400, "invalid_message");
    gateway
        .post("/stream/sync", &json!([]))
        .await
        .problem(400, "invalid_message");
    assert_eq!(gateway.records("DataSyncStream").await.len(), 0);
}

#[tokio::test]
async fn bodies_that_are_no_messages_are_refused() {
    let gateway = Gateway::start();
    let deep = format!(
        r#"{{"streamMessage":{{"targetRestApi":"http://a/","targetRestApiOperation":"POST","targetRestApiPayload":{}1{}}}}}"#,
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    let bodies: [&[u8]; 9] = [
        b"",
        b"{",
        b"nul",
        b"7",
        b"\"text\"",
        b"{\"streamMessage\":{}} trailing",
        b"{\"streamMessage\":\xff\xfe}",
        b"{\"streamKey\":\"\xc3\x28\",\"streamMessage\":{}}",
        deep.as_bytes(),
    ];
    for body in bodies {
        let answer = post(&gateway, body.to_vec()).await;
        assert_eq!(
            answer.status,
            400,
            "{:?}: {}",
            String::from_utf8_lossy(&body[..body.len().min(60)]),
            answer.body
        );
        answer.problem(400, "invalid_message");
    }
    assert_eq!(gateway.records("DataSyncStream").await.len(), 0);
    gateway.get("/healthz").await.ok();
}

#[tokio::test]
async fn a_mebibyte_is_stored_and_one_byte_more_is_not() {
    let target = StubTarget::start().await;
    let gateway = Gateway::start();
    let (mut fits, mut over) = (0, 2 << 20);
    let sized = |len: usize| message(&target.url("/x"), "x".repeat(len).into());
    // The limit is about key, value and record headers together, so the border is looked for.
    while over - fits > 1 {
        let middle = fits + (over - fits) / 2;
        let answer = gateway.post("/stream/sync", &sized(middle)).await;
        match answer.status.as_u16() {
            200 => fits = middle,
            _ => {
                answer.problem(413, "body_too_large");
                over = middle;
            }
        }
    }
    assert!(
        (1 << 20) - fits < 1024 && fits < 1 << 20,
        "the border is at {fits}"
    );
    gateway.drained("DataSyncStream").await;
    let largest = target.calls().iter().map(|call| call.body.len()).max();
    assert_eq!(largest, Some(fits + 2));
    let body = format!("{}{}", " ".repeat(8 << 20), sized(1));
    post(&gateway, body).await.problem(413, "body_too_large");
}

#[tokio::test]
async fn headers_and_types_of_the_request_are_checked() {
    let gateway = Gateway::start();
    let body = message("http://127.0.0.1:9/", json!(1)).to_string();
    let request = |name: &str, value: &str| {
        gateway
            .request(Method::POST, "/stream/sync")
            .header(name, value)
            .body(body.clone())
    };
    gateway
        .send(request("content-type", "multipart/form-data; boundary=x"))
        .await
        .problem(415, "unsupported_media_type");
    gateway
        .send(request("content-encoding", "br"))
        .await
        .problem(415, "unsupported_media_type");
    gateway
        .send(request("content-type", "application/x-www-form-urlencoded"))
        .await
        .ok();
    gateway
        .send(request("origin", "https://evil.example"))
        .await
        .problem(403, "origin_not_allowed");
    gateway
        .send(request("host", "evil.example"))
        .await
        .problem(421, "host_not_allowed");
    let answer = gateway.send(request("x-request-id", "my-id.7")).await;
    assert_eq!(answer.headers["x-request-id"], "my-id.7");
    let answer = gateway.send(request("x-request-id", "no good")).await;
    assert_ne!(answer.headers["x-request-id"], "no good");
    gateway
        .send(gateway.request(Method::GET, "/stream/sync"))
        .await
        .problem(405, "method_not_allowed");
    gateway.get("/v1/nothing").await.problem(404, "not_found");
}

#[tokio::test]
async fn odd_places_are_refused_by_name() {
    let gateway = Gateway::start();
    gateway
        .get("/v1/streams/Nowhere")
        .await
        .problem(404, "stream_unknown");
    gateway
        .get("/v1/streams/DataSyncStream/partitions/9/records")
        .await
        .problem(404, "partition_unknown");
    gateway
        .get("/v1/streams/DataSyncStream/partitions/x/records")
        .await
        .problem(404, "partition_unknown");
    gateway
        .get("/v1/streams/DataSyncStream/partitions/0/records/0")
        .await
        .problem(404, "not_found");
    gateway
        .get("/v1/streams/DataSyncStream/partitions/0/records/18446744073709551615")
        .await
        .problem(404, "not_found");
    for query in [
        "from=-1",
        "from=x",
        "limit=0",
        "limit=1001",
        "limit=x",
        "at=yesterday",
        "from=99999999999999999999",
        "more=1",
    ] {
        let path = format!("/v1/streams/DataSyncStream/partitions/0/records?{query}");
        let problem = gateway.get(&path).await.problem(400, "invalid_request");
        assert!(
            problem
                .to_string()
                .contains(query.split('=').next().unwrap()),
            "{query}: {problem}"
        );
    }
    // Times as RFC 3339 §5.6 allows them, in small letters too.
    for query in [
        "from=9223372036854775808",
        "at=2026-01-02T03:04:05Z",
        "at=2026-01-02t03:04:05.5z",
    ] {
        let path = format!("/v1/streams/DataSyncStream/partitions/0/records?{query}");
        let page = gateway.get(&path).await.ok();
        assert_eq!(page["items"], json!([]), "{query}");
    }
}

#[tokio::test]
async fn broken_json_is_told_by_line_and_column_on_every_route() {
    let gateway = Gateway::start();
    let config = json!({"source": {"trail": "a1"}});
    gateway.post("/services/v2/stream/s1", &config).await.ok();
    // The second colon of the third line.
    let broken = "{\n  \"a\": 1,\n  \"b\": : 2\n}";
    let told = "this is not JSON: it breaks at line 3, column 8";
    for (method, path) in [
        (Method::POST, "/stream/sync"),
        (Method::POST, "/stream/retry"),
        (Method::POST, "/v1/streams"),
        (Method::PATCH, "/v1/streams/DataSyncStream"),
        (Method::POST, "/v1/streams/DataSyncStream/purge"),
        (Method::POST, "/v1/reload"),
        (Method::POST, "/services/v2/stream/s2"),
        (Method::PATCH, "/services/v2/stream/s1"),
        (Method::PUT, "/v1/data-streams/s1/cursors/c1"),
        (Method::POST, "/v1/data-streams/s1/cursors/c1/ack"),
    ] {
        let request = gateway.request(method, path).body(broken);
        let answer = gateway.send(request).await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.body);
        assert!(
            answer.body.to_string().contains(told),
            "{path}: {}",
            answer.body
        );
    }
    let batch = format!("[\n{},\n{{]", message("http://127.0.0.1:9/", json!(1)));
    let problem = post(&gateway, batch).await.problem(400, "invalid_message");
    let told = "this is not JSON: it breaks at line 3, column 2";
    assert_eq!(problem["detail"], told, "{problem}");
    assert_eq!(gateway.records("DataSyncStream").await.len(), 0);
}

#[tokio::test]
async fn a_broken_line_is_told_by_its_line_of_the_body() {
    let gateway = Gateway::start();
    let good = message("http://127.0.0.1:9/", json!(1));
    let body = format!("{good}\r\n\n  {{\"streamKey\" 1}}\r\n{good}\n");
    for kind in [
        "application/x-ndjson",
        "application/jsonl",
        "application/jsonlines; charset=utf-8",
        "Application/X-JsonLines",
    ] {
        let request = gateway.request(Method::POST, "/stream/sync");
        let request = request.header("content-type", kind).body(body.clone());
        let problem = gateway.send(request).await;
        let problem = problem.problem(400, "invalid_message");
        // Empty lines are no messages, but lines of the body.
        assert_eq!(problem["errors"][0]["pointer"], "/1", "{problem}");
        let told = "this is not JSON: it breaks at line 3, column 16";
        assert_eq!(problem["detail"], told, "{kind}: {problem}");
        let lines = format!("{good}\n{good}");
        let request = gateway.request(Method::POST, "/stream/sync");
        let request = request.header("content-type", kind).body(lines);
        let stored = gateway.send(request).await.ok();
        assert_eq!(stored["results"].as_array().unwrap().len(), 2, "{stored}");
    }
}

#[tokio::test]
async fn a_byte_order_mark_before_a_body_is_taken() {
    let gateway = Gateway::start();
    let marked = |body: &Value| format!("\u{feff}{body}");
    let one = keyed("k", "http://127.0.0.1:9/x", json!(1));
    let stored = post(&gateway, marked(&one)).await.ok();
    assert_eq!(stored["offset"], 0, "{stored}");
    let batch = post(&gateway, marked(&json!([one, one]))).await.ok();
    assert_eq!(batch["results"].as_array().unwrap().len(), 2, "{batch}");
    let records = gateway.records("DataSyncStream").await;
    assert_eq!(records.len(), 3);
    assert_eq!(records[0]["value"], one["streamMessage"]);
    for (path, body) in [
        ("/v1/streams", json!({"name": "Orders"})),
        ("/services/v2/stream/s1", json!({"source": {"trail": "a1"}})),
        ("/v1/streams/Orders/purge", json!({"reason": "empty"})),
        ("/v1/reload", json!({})),
    ] {
        let request = gateway.request(Method::POST, path).body(marked(&body));
        gateway.send(request).await.ok();
    }
}

#[tokio::test]
async fn a_missing_member_that_is_nearly_there_is_named() {
    let gateway = Gateway::start();
    let wrong = json!({"streamMesage": {}, "streamKey": "k"});
    let inner = json!({"streamMessage": {
        "targetRestAPIs": "http://127.0.0.1:9/x", "targetRestApiOperation": "POST",
        "targetRestApiHeaders": [{"key": "a", "valeu": "b"}] }});
    let retry = json!({"streamOCIDToRetry": "DataSyncStream", "noOfMesagesToProcess": 1, "readAfterOffset": -1,
        "readPartition": "0", "errormapping": []});
    let missing = |wrong: &str, meant: &str| {
        format!("the member is missing; there is \"{wrong}\": did you mean \"{meant}\"?")
    };
    for (path, body, pointer, detail) in [
        (
            "/stream/sync",
            &wrong,
            "/streamMessage",
            missing("streamMesage", "streamMessage"),
        ),
        (
            "/stream/sync",
            &inner,
            "/streamMessage/targetRestApi",
            missing("targetRestAPIs", "targetRestApi"),
        ),
        (
            "/stream/sync",
            &inner,
            "/streamMessage/targetRestApiHeaders/0/value",
            missing("valeu", "value"),
        ),
        (
            "/stream/retry",
            &retry,
            "/noOfMessagesToProcess",
            missing("noOfMesagesToProcess", "noOfMessagesToProcess"),
        ),
        (
            "/v1/streams",
            &json!({"nmae": "Orders"}),
            "/name",
            missing("nmae", "name"),
        ),
    ] {
        let answer = gateway.post(path, body).await;
        assert_eq!(answer.status, 400, "{}", answer.body);
        let told = answer.body["errors"].as_array().unwrap();
        let told = told.iter().find(|error| error["pointer"] == pointer);
        let told = told.unwrap_or_else(|| panic!("{pointer}: {}", answer.body));
        assert_eq!(told["detail"], *detail, "{told}");
    }
    let answer = gateway
        .post("/v1/streams", &json!({"nmae": "Orders"}))
        .await;
    let unknown = &answer.body["errors"][0];
    assert_eq!(unknown["pointer"], "/nmae", "{unknown}");
    let detail = unknown["detail"].as_str().unwrap();
    assert!(detail.ends_with("; did you mean \"name\"?"), "{detail}");
}
