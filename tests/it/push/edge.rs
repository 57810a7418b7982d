//! The edge of data streams: what their routes, handshakes and frames do where a client goes wrong, or away.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::raw::{ALL, Raw, create, handshake, masked, path, post, refused, send};
use crate::testkit::{Gateway, Place, poll, run_on, within};

#[tokio::test]
async fn each_fault_of_a_configuration_has_its_number() {
    let gateway = Gateway::start();
    for (body, number) in [
        ("[]", "OGG-12020"),
        ("7", "OGG-12020"),
        ("{}", "OGG-12018"),
        (r#"{"source":{}}"#, "OGG-12018"),
        (r#"{"source":{"trail":"Nothing"}}"#, "OGG-12018"),
        (r#"{"source":{"trail":"a1","path":"/x"}}"#, "OGG-12018"),
        (r#"{"source":{"trail":"a1"},"more":1}"#, "OGG-12018"),
        (
            r#"{"source":{"trail":"a1"},"bufferSize":10485761}"#,
            "OGG-12018",
        ),
    ] {
        let answer = send(&gateway, Method::POST, &path("s1"), body).await;
        refused(&answer, 400, "invalid_request", number);
    }
    let large = json!({"source": {"trail": "a1"}, "description": "x".repeat(256 << 10)});
    let answer = gateway.post(&path("s1"), &large).await;
    refused(&answer, 413, "body_too_large", "OGG-12004");
    let smallest = json!({"source": {"trail": "a1"}});
    for name in ["1s", ".s", "s%20s", "s%2f"] {
        let answer = gateway.post(&path(name), &smallest).await;
        assert_eq!(answer.status, 400, "{name}: {}", answer.body);
    }
    let list = gateway.get(ALL).await.ok();
    assert_eq!(list["response"]["items"], json!([]));
    gateway.post(&path(&"a".repeat(32)), &smallest).await.ok();
    for (method, at, allow) in [
        (Method::PUT, path("s1"), "GET,HEAD,POST,PATCH,DELETE"),
        (Method::POST, ALL.to_owned(), "GET,HEAD"),
        (Method::DELETE, path("s1/yaml"), "GET,HEAD,PATCH"),
    ] {
        let answer = send(&gateway, method, &at, "").await;
        assert_eq!(answer.headers["allow"], allow);
        refused(&answer, 405, "method_not_allowed", "OGG-12011");
    }
}

#[tokio::test]
async fn pages_of_data_streams_lead_to_each_other() {
    let gateway = Gateway::start();
    for name in ["s2", "s1", "s3"] {
        create(&gateway, name, json!({})).await;
    }
    let (mut at, mut names) = (format!("{ALL}?limit=2"), Vec::new());
    loop {
        let page = gateway.get(&at).await.ok();
        let items = page["response"]["items"].as_array().unwrap();
        names.extend(items.iter().map(|item| item["name"].clone()));
        let links = page["links"].as_array().unwrap();
        let next = links.iter().find(|link| link["rel"] == "next");
        let Some(next) = next else { break };
        assert_eq!(names.len(), 2);
        let href = next["href"].as_str().unwrap();
        at = href.strip_prefix(&gateway.url).unwrap().to_owned();
        assert_eq!(at, format!("{ALL}?limit=2&after=s2"));
    }
    assert_eq!(names, ["s1", "s2", "s3"]);
    for query in ["limit=0", "limit=1001", "limit=2&limit=2", "more=1"] {
        let answer = gateway.get(&format!("{ALL}?{query}")).await;
        refused(&answer, 400, "invalid_request", "OGG-12135");
    }
}

#[tokio::test]
async fn a_data_stream_is_made_with_200_for_clients_that_want_that() {
    let gateway = Gateway::with_config("[push]\ncreate_status = 200\n");
    let config = json!({"source": {"trail": "a1"}});
    let made = gateway.post(&path("s1"), &config).await;
    assert_eq!(made.status, 200);
    assert_eq!(made.headers["location"], path("s1"));
    let again = gateway.post(&path("s1"), &config).await;
    refused(&again, 409, "exists", "OGG-12004");
    let place = Place::with_config("[push]\ncreate_status = 202\n");
    let said = place.start_refused().await;
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(
        said.contains("push.create_status: is 202, but must be 200 to 201"),
        "{said}"
    );
}

/// What is wrong with the patch itself has other numbers than what is wrong with its result.
#[tokio::test]
async fn each_fault_of_a_patch_has_its_number_and_changes_nothing() {
    let gateway = Gateway::start();
    create(&gateway, "s1", json!({})).await;
    let before = gateway.get(&path("s1")).await;
    for (body, number) in [
        ("[]", "OGG-12020"),
        (r#"{"more":1}"#, "OGG-12018"),
        (r#"{"source":null}"#, "OGG-12321"),
        (r#"{"bufferSize":1}"#, "OGG-12321"),
    ] {
        let answer = send(&gateway, Method::PATCH, &path("s1"), body).await;
        refused(&answer, 400, "invalid_request", number);
    }
    let after = gateway.get(&path("s1")).await;
    assert_eq!(after.headers["etag"], before.headers["etag"]);
    assert_eq!(after.body, before.body);
    let stale = gateway.request(Method::DELETE, &path("s1"));
    let stale = gateway.send(stale.header("if-match", "\"0\"")).await;
    refused(&stale, 412, "changed_meanwhile", "OGG-12004");
}

#[tokio::test]
async fn a_layout_that_is_none_is_refused_whoever_wrote_the_document() {
    let gateway = Gateway::start();
    create(&gateway, "s1", json!({})).await;
    let at = path("s1/yaml");
    for own in [None, Some("asyncapi: 3.0.0\nchannels:\n  mine: {}\n")] {
        if let Some(own) = own {
            send(&gateway, Method::PATCH, &at, own).await.ok();
        }
        for query in ["layout=address", "layout=pathname&layout=pathname"] {
            let answer = gateway.get(&format!("{at}?{query}")).await;
            refused(&answer, 400, "invalid_request", "OGG-12135");
        }
    }
}

#[tokio::test]
async fn only_get_becomes_a_websocket() {
    let gateway = Gateway::start();
    create(&gateway, "s1", json!({})).await;
    let request = handshake(&gateway, Method::HEAD, &path("s1"));
    assert_eq!(request.send().await.unwrap().status(), 200);
    let own = gateway.url.clone();
    let request = handshake(&gateway, Method::GET, &path("s1"));
    let answer = within("101", request.header("origin", own).send()).await;
    assert_eq!(answer.unwrap().status(), 101);
    let answer = handshake(&gateway, Method::GET, &path("s2"));
    let answer = gateway.send(answer).await;
    refused(&answer, 404, "not_found", "OGG-12004");
    let foreign = handshake(&gateway, Method::GET, &path("s1"));
    let foreign = foreign.header("origin", "https://evil.example");
    let answer = gateway.send(foreign).await;
    refused(&answer, 403, "origin_not_allowed", "OGG-12004");
}

#[tokio::test]
async fn an_upgrade_over_http_1_0_is_ignored() {
    let gateway = Gateway::start();
    create(&gateway, "s1", json!({})).await;
    let at = gateway.url.strip_prefix("http://").unwrap();
    // RFC 9110 §7.8: a server ignores `Upgrade` there, whatever page it comes from.
    for origin in ["", "origin: https://evil.example\r\n"] {
        let mut stream = TcpStream::connect(at).await.unwrap();
        let ask = format!(
            "GET {}?begin=now HTTP/1.0\r\nhost: {at}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{origin}\r\n",
            path("s1")
        );
        stream.write_all(ask.as_bytes()).await.unwrap();
        let mut said = Vec::new();
        within("an answer", stream.read_to_end(&mut said))
            .await
            .unwrap();
        let said = String::from_utf8(said).unwrap();
        assert!(said.starts_with("HTTP/1.0 200 "), "{said}");
        assert!(said.contains("\"trail\":\"a1\""), "{said}");
    }
}

#[tokio::test]
async fn a_subscriber_too_many_is_told_to_come_later() {
    let gateway = Gateway::with_config("[push]\nclients_max = 1\n");
    create(&gateway, "s1", json!({})).await;
    let mut first = Raw::new(&gateway, "s1", "earliest").await;
    first.records(1).await;
    let answer = handshake(&gateway, Method::GET, &path("s1"));
    let answer = gateway.send(answer).await;
    assert!(answer.headers.contains_key("retry-after"));
    refused(&answer, 503, "queue_full", "OGG-12004");
    let status = async || {
        let list = gateway.get(ALL).await.ok();
        list["response"]["items"][0]["status"].clone()
    };
    assert_eq!(status().await, "running");
    drop(first);
    poll("the place to be free", async || {
        (status().await == "stopped").then_some(())
    })
    .await;
    Raw::new(&gateway, "s1", "now").await;
}

/// Where one begins at a time, the log is read before the client counts as there.
#[tokio::test]
async fn as_many_as_come_at_once_no_more_are_taken_than_there_may_be() {
    let gateway = Gateway::with_config("[push]\nclients_max = 3\n");
    create(&gateway, "s1", json!({})).await;
    post(&gateway, 1000).await;
    let come = (0..40).map(|_| {
        let at = format!("{}?begin=1999-01-01", path("s1"));
        let request = gateway.request(Method::GET, &at);
        request.header("accept", "text/event-stream").send()
    });
    let all = within("answers", futures_util::future::join_all(come)).await;
    let taken = all.iter().flatten().filter(|answer| answer.status() == 200);
    assert_eq!(taken.count(), 3);
}

#[tokio::test]
async fn text_in_pieces_is_ignored_and_what_is_too_long_in_sum_is_not() {
    let gateway = Gateway::start();
    create(&gateway, "s1", json!({})).await;
    let mut raw = Raw::new(&gateway, "s1", "now").await;
    raw.write(&masked(0x81, &[b'x'; 4096])).await;
    raw.write(&masked(0x01, b"in ")).await;
    // A ping may come between the pieces.
    raw.write(&masked(0x89, b"there?")).await;
    raw.write(&masked(0x80, b"pieces")).await;
    loop {
        match raw.frame().await.expect("it is open") {
            (10, payload) => break assert_eq!(payload, b"there?"),
            (opcode, _) => assert_eq!(opcode, 1),
        }
    }
    raw.write(&masked(0x01, &[b'x'; 4000])).await;
    raw.write(&masked(0x80, &[b'x'; 97])).await;
    // More is under way when the server has had enough.
    raw.write(&masked(0x89, b"more")).await;
    assert_eq!(raw.closed().await.0, 1009);
    for (what, frame) in [
        ("a ping of 126 bytes", masked(0x89, &[b'x'; 126])),
        ("a continuation of nothing", masked(0x80, b"hi")),
    ] {
        let mut raw = Raw::new(&gateway, "s1", "now").await;
        raw.write(&frame).await;
        assert_eq!(raw.closed().await.0, 1002, "{what}");
    }
    let mut polite = Raw::new(&gateway, "s1", "now").await;
    polite.write(&masked(0x88, b"\x03\xe8")).await;
    assert_eq!(polite.closed().await, (1000, String::new()));
}

#[tokio::test]
async fn a_client_that_is_killed_at_any_record_goes_on_behind_it_also_after_kill_9() {
    let gateway = Gateway::start();
    create(&gateway, "s1", json!({})).await;
    let grown = gateway.request(Method::PATCH, "/v1/streams/DataSyncStream");
    gateway
        .send(grown.json(&json!({"partitions": 3})))
        .await
        .ok();
    for _ in 0..5 {
        post(&gateway, 20).await;
    }
    let whole = Raw::new(&gateway, "s1", "earliest")
        .await
        .records(102)
        .await;
    let (mut parts, mut begin) = (Vec::new(), "earliest".to_owned());
    // Each time one more, so that frames are cut at many places.
    for count in 1..=11 {
        let mut raw = Raw::new(&gateway, "s1", &begin).await;
        parts.extend(raw.records(count).await);
        begin = raw.pos.unwrap();
    }
    let gateway = gateway.kill().start();
    let mut rest = Raw::new(&gateway, "s1", &begin).await;
    parts.extend(rest.records(102 - parts.len()).await);
    assert_eq!(parts, whole);
}

#[tokio::test]
async fn a_position_of_another_life_of_the_log_is_gone_unless_some_may_be_missed() {
    let gateway = Gateway::start();
    create(&gateway, "strict", json!({})).await;
    create(&gateway, "loose", json!({"qualityOfService": "atMostOnce"})).await;
    post(&gateway, 3).await;
    let mut positions = Vec::new();
    for name in ["strict", "loose"] {
        let mut raw = Raw::new(&gateway, name, "earliest").await;
        raw.records(3).await;
        positions.push(raw.pos.unwrap());
    }
    let place = gateway.stop().await;
    let (code, _, said) = run_on(&["doctor", "--restored"], &place.data());
    assert_eq!(code, Some(0), "{said}");
    let gateway = place.start();
    let at = format!("{}?begin={}", path("strict"), positions[0]);
    let answer = gateway.send(handshake(&gateway, Method::GET, &at)).await;
    refused(&answer, 410, "position_gone", "OGG-12004");
    let mut loose = Raw::new(&gateway, "loose", &positions[1]).await;
    assert_eq!(loose.records(2).await, ["ddl.1", "0.0"]);
    let metrics = gateway.get("/metrics").await.body;
    let metrics = metrics.as_str().unwrap();
    assert!(metrics.contains("syncgate_push_gaps_total 1"), "{metrics}");
}

#[tokio::test]
async fn no_frame_is_longer_than_the_buffer_and_nothing_is_lost_between_frames() {
    let gateway = Gateway::start();
    create(&gateway, "s1", json!({"bufferSize": 131_072})).await;
    for _ in 0..4 {
        post(&gateway, 1000).await;
    }
    let mut raw = Raw::new(&gateway, "s1", "0001-01-01").await;
    let (mut xids, mut frames) = (Vec::new(), 0);
    while xids.len() < 4001 {
        let (opcode, payload) = raw.frame().await.expect("it is open");
        if opcode != 1 {
            continue;
        }
        assert!(payload.len() <= 131_072, "{}", payload.len());
        let records: Vec<Value> = serde_json::from_slice(&payload).unwrap();
        let records = records.iter().filter(|record| record.get("pos").is_some());
        xids.extend(records.map(|record| record["xid"].as_str().unwrap().to_owned()));
        frames += 1;
    }
    let expected: Vec<_> = (0..4000).map(|n| format!("0.{n}")).collect();
    assert_eq!(xids[1..], expected);
    assert!(frames > 4, "{frames}");
}

#[tokio::test]
async fn silence_is_filled_with_empty_arrays_and_closes_are_counted() {
    let gateway = Gateway::with_config("[push]\nidle_array_ms = 20\n");
    create(&gateway, "s1", json!({})).await;
    let mut raw = Raw::new(&gateway, "s1", "now").await;
    while raw.frame().await.expect("it is open").1 != b"[]" {}
    raw.write(&masked(0x82, b"")).await;
    assert_eq!(raw.closed().await.0, 1003);
    let line = "syncgate_push_closes_total{code=\"1003\"} 1";
    poll("the count", async || {
        let metrics = gateway.get("/metrics").await.body;
        metrics.as_str().unwrap().contains(line).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_event_is_one_line_of_data_and_the_last_one_says_why_it_ends() {
    let gateway = Gateway::start();
    create(&gateway, "s1", json!({})).await;
    // What a source sends in several lines is one line here.
    let message = "{\n\"streamMessage\": {\n\"targetRestApi\": \"http://127.0.0.1:9/x\",\r\n\
        \"targetRestApiOperation\": \"POST\",\n\"targetRestApiPayload\": {\n\"n\":\r\n\"\u{2028}\"\r}}}";
    send(&gateway, Method::POST, "/stream/sync", message)
        .await
        .ok();
    for (method, close) in [
        (
            Some(Method::PATCH),
            r#"{"code":4412,"reason":"config_changed"}"#,
        ),
        (None, r#"{"code":1001,"reason":"drain"}"#),
    ] {
        let request = gateway.request(Method::GET, &path("s1"));
        let request = request.header("accept", "application/json;q=0.1, text/event-stream");
        let mut response = within("events", request.send()).await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        let mut text = String::new();
        while !(text.contains("\"0.0\"") && text.ends_with("\n\n")) {
            let chunk = within("a chunk", response.chunk()).await.unwrap();
            text += std::str::from_utf8(&chunk.expect("it is open")).unwrap();
        }
        assert!(!text.contains(['\r', '\u{2028}']), "{text:?}");
        for line in text.lines() {
            let known = ["retry: 2000", "data: [", "id: p1", ": idle"];
            assert!(line.is_empty() || known.iter().any(|known| line.starts_with(known)));
            if let Some(data) = line.strip_prefix("data: ") {
                serde_json::from_str::<Vec<Value>>(data).unwrap();
            }
        }
        match method {
            Some(method) => drop(send(&gateway, method, &path("s1"), "{}").await.ok()),
            None => gateway.signal("TERM"),
        }
        let mut end = String::new();
        while let Some(chunk) = within("the end", response.chunk()).await.unwrap() {
            end += std::str::from_utf8(&chunk).unwrap();
        }
        assert_eq!(end, format!("event: close\ndata: {close}\n\n"));
    }
    let (status, _) = gateway.ended().await;
    assert!(status.success());
}
