//! `POST /stream/sync`.

use super::*;

#[tokio::test]
async fn a_message_is_answered_with_its_partition_and_offset() {
    let edge = Edge::plain().await;
    let answer = edge.sync(GOOD).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    let id = body["messageId"].as_str().unwrap();
    assert_eq!(answer.header("x-message-id"), id);
    assert_eq!(answer.header("content-type"), "application/json");
    assert!(id.parse::<crate::model::ids::MessageId>().is_ok());
    let expected = json!({"status": "success", "stream": "DataSyncStream", "partition": "0", "offset": 0, "messageId": id,
        "warnings": [{"code": "secret_unknown", "detail": body["warnings"][0]["detail"]}]});
    assert_eq!(body, expected);
    let with_token = [
        ("authorization", "Bearer TOPSECRET"),
        ("x-request-id", "my.id-1"),
    ];
    let answer = edge.send("POST", "/stream/sync", &with_token, GOOD).await;
    assert_eq!(answer.json()["offset"], 1);
    assert_eq!(answer.json()["warnings"], json!([]));
    assert_eq!(answer.header("x-request-id"), "my.id-1");
    assert!(
        !answer.text().contains("TOPSECRET") && !edge.engine.state_text().contains("TOPSECRET")
    );
}

#[tokio::test]
async fn success_is_plain_text_if_the_client_accepts_it() {
    let edge = Edge::plain().await;
    for (accept, text) in [
        ("text/plain", true),
        ("text/html, TEXT/plain;q=0.9", true),
        ("application/json, text/plain", false),
        ("*/*", false),
    ] {
        let answer = edge
            .send("POST", "/stream/sync", &[("accept", accept)], GOOD)
            .await;
        assert_eq!(
            answer.text() == "success",
            text,
            "{accept}: {}",
            answer.text()
        );
        assert!(!answer.header("x-message-id").is_empty());
    }
    let edge = Edge::start(|config| config.sync.answer = config::Answer::Text).await;
    assert_eq!(edge.sync(GOOD).await.text(), "success");
    let json = [("accept", "application/json")];
    assert_eq!(
        edge.send("POST", "/stream/sync", &json, GOOD).await.json()["status"],
        "success"
    );
    let compat = |config: &mut Config| {
        config.oci_sample = Some(config::OciSample {
            compat: true,
            ..config::OciSample::default()
        });
    };
    let edge = Edge::start(compat).await;
    let answer = edge
        .sync(r#"{"streamKey":1,"streamMessage":{},"other":2}"#)
        .await;
    assert_eq!(
        (answer.text(), answer.header("content-type")),
        ("success", "text/plain")
    );
}

#[tokio::test]
async fn batches_come_as_arrays_and_as_lines() {
    let edge = Edge::plain().await;
    let answer = edge.sync(format!("[{GOOD},{GOOD}]")).await;
    let results = answer.json();
    assert_eq!(results["status"], "success");
    assert_eq!(results["results"][1]["offset"], 1);
    assert_eq!(answer.header("x-message-id"), "");
    let lines = format!("{GOOD}\n{GOOD}\n");
    let kind = [("content-type", "Application/x-ndjson; charset=utf-8")];
    let answer = edge.send("POST", "/stream/sync", &kind, &lines).await;
    assert_eq!(answer.json()["results"].as_array().unwrap().len(), 2);
    let answer = edge
        .send("POST", "/stream/sync", &kind, format!("{GOOD}\n{{}}"))
        .await;
    let problem = answer.check_problem(400, "invalid_message");
    assert_eq!(problem["errors"][0]["pointer"], "/1/streamMessage");
    assert_eq!(problem["errors"][0]["code"], "required");
}

#[tokio::test]
async fn a_bad_message_gets_every_fault_and_no_echo() {
    let edge = Edge::plain().await;
    let body = r#"{"streamKey":7,"streamMessage":{"vaultSecretName":"a TOPSECRET","targetRestApi":"TOPSECRET","targetRestApiOperation":"TOPSECRET"}}"#;
    let answer = edge.sync(body).await;
    let problem = answer.check_problem(400, "invalid_message");
    assert_eq!(problem["errors"].as_array().unwrap().len(), 4);
    assert!(!answer.text().contains("TOPSECRET"), "{}", answer.text());
    for body in ["", "{", "x", &"[".repeat(10_000)] {
        edge.sync(body).await.check_problem(400, "invalid_message");
    }
    let problem = edge
        .sync(b"\xff{}")
        .await
        .check_problem(400, "invalid_message");
    assert_eq!(problem["errors"][0]["code"], "not_utf8");
    assert_eq!(
        edge.engine
            .status(edge.partition("DataSyncStream", 0))
            .unwrap()
            .bounds
            .tail,
        Offset(0)
    );
}

#[tokio::test]
async fn a_named_secret_does_not_go_to_another_target() {
    let edge = Edge::plain().await;
    edge.send(
        "POST",
        "/stream/sync",
        &[("authorization", "Bearer TOPSECRET")],
        GOOD,
    )
    .await;
    let evil = GOOD.replace("127.0.0.1:9", "evil.example");
    let answer = edge.sync(evil).await;
    answer.check_problem(403, "secret_not_for_target");
    assert!(!answer.text().contains("TOPSECRET"));
}

#[tokio::test]
async fn errors_of_the_log_become_statuses() {
    let edge = Edge::plain().await;
    let of = edge.partition("DataSyncStream", 0);
    for (error, status, code) in [
        (CommitError::Busy, 503, "queue_full"),
        (CommitError::DiskFull, 507, "disk_full"),
        (
            CommitError::Stopped("TOPSECRET path".into()),
            503,
            "log_stopped",
        ),
        (
            CommitError::MaybeStored("TOPSECRET path".into()),
            503,
            "maybe_stored",
        ),
        (
            CommitError::TooLarge {
                what: "record",
                bytes: 2,
                bytes_max: 1,
            },
            413,
            "body_too_large",
        ),
        (CommitError::PartitionUnknown(of), 404, "stream_unknown"),
        (CommitError::Fenced(of), 500, "internal"),
    ] {
        edge.engine.refuse(error);
        let answer = edge.sync(GOOD).await;
        answer.check_problem(status, code);
        assert!(!answer.text().contains("TOPSECRET"), "{}", answer.text());
    }
    assert_eq!(edge.sync(GOOD).await.json()["offset"], 0);
    let metrics = edge.get("/metrics").await;
    assert!(
        metrics
            .text()
            .contains("syncgate_accepted_messages_total 1\n"),
        "{}",
        metrics.text()
    );
    assert!(
        metrics
            .text()
            .contains("syncgate_refused_requests_total{code=\"queue_full\"} 1\n")
    );
    assert!(
        metrics
            .text()
            .contains("syncgate_http_request_seconds_count{route=\"/stream/sync\"} 8\n")
    );
    assert!(metrics.text().ends_with("# EOF\n"));
}

#[tokio::test]
async fn bodies_have_a_bound_and_types_that_are_read() {
    let edge = Edge::start(|config| config.sync.batch_bytes_max = 2000).await;
    let pad = |len: usize| format!("{GOOD}{}", " ".repeat(len - GOOD.len()));
    assert_eq!(edge.sync(pad(2000)).await.status, 200);
    edge.sync(pad(2001))
        .await
        .check_problem(413, "body_too_large");
    // Without a declared length the bound is found while reading.
    let chunk = |len: usize| format!("{len:x}\r\n{}\r\n", " ".repeat(len));
    let chunked = "POST /stream/sync HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let endless = format!("{chunked}{0}{0}{1}", chunk(900), chunk(300));
    edge.raw(endless).await.check_problem(413, "body_too_large");
    let split = format!(
        "{chunked}{:x}\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        40,
        &GOOD[..40],
        GOOD.len() - 40,
        &GOOD[40..]
    );
    assert_eq!(edge.raw(split).await.status, 200);
    let gzip = |plain: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(plain.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let packed = [("content-encoding", "gzip")];
    assert_eq!(
        edge.send("POST", "/stream/sync", &packed, gzip(&pad(2000)))
            .await
            .status,
        200
    );
    let bomb = gzip(&pad(3_000_000));
    edge.send("POST", "/stream/sync", &packed, bomb)
        .await
        .check_problem(413, "body_too_large");
    for (name, value) in [
        ("content-encoding", "br"),
        ("content-type", "multipart/form-data; boundary=x"),
    ] {
        let answer = edge
            .send("POST", "/stream/sync", &[(name, value)], GOOD)
            .await;
        answer.check_problem(415, "unsupported_media_type");
    }
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json",
        "x",
    ] {
        let answer = edge
            .send("POST", "/stream/sync", &[("content-type", kind)], GOOD)
            .await;
        assert_eq!(answer.status, 200, "{kind}");
    }
}

#[tokio::test]
async fn odd_headers_are_refused() {
    let edge = Edge::plain().await;
    let token = |token| [("authorization", token)];
    edge.send("POST", "/stream/sync", &token("Bearer ü"), GOOD)
        .await
        .check_problem(400, "invalid_request");
    let long = "t".repeat(20_000);
    edge.send("POST", "/stream/sync", &token(&long), GOOD)
        .await
        .check_problem(431, "headers_too_large");
    let twice = [("authorization", "a"), ("authorization", "b")];
    edge.send("POST", "/stream/sync", &twice, GOOD)
        .await
        .check_problem(400, "invalid_request");
    assert_eq!(
        edge.send("POST", "/stream/sync", &token(""), GOOD)
            .await
            .status,
        200
    );
    let huge = "h".repeat(70_000);
    assert_eq!(
        edge.send("POST", "/stream/sync", &token(&huge), GOOD)
            .await
            .status,
        431
    );
    edge.post("/stream/sync?x=1", GOOD)
        .await
        .check_problem(400, "invalid_request");
    for (id, kept) in [
        ("a-b_c.9", true),
        ("a b", false),
        ("", false),
        (&*"x".repeat(129), false),
    ] {
        let answer = edge
            .send("GET", "/healthz", &[("x-request-id", id)], "")
            .await;
        assert_eq!(answer.header("x-request-id") == id, kept, "{id}");
        assert!(!answer.header("x-request-id").is_empty());
    }
}

#[test]
fn a_message_without_an_answer_of_the_log_may_be_stored() {
    let problem = problem::Problem::from(crate::ingest::Error::Unanswered);
    assert_eq!(problem.code().word(), "maybe_stored");
    let response = crate::api::server::render::render(&problem, "/stream/sync", "id", Timestamp(1));
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "60");
}
