//! What data streams may keep, and what they hide.

use reqwest::Method;
use serde_json::{Value, json};

use super::raw::{Raw, create, path, send};
use crate::testkit::{Gateway, StubTarget, keyed, message};

#[tokio::test]
async fn documents_fill_their_own_share_and_nobody_elses() {
    let gateway = Gateway::start();
    let long = "x".repeat(200 << 10);
    let mut made = 0;
    let full = loop {
        let name = format!("s{made}");
        create(&gateway, &name, json!({})).await;
        let at = format!("{}/yaml", path(&name));
        let document = gateway.get(&at).await.ok();
        let document = format!("# {long}\n{}", document.as_str().unwrap());
        let answer = send(&gateway, Method::PATCH, &at, document).await;
        if !answer.status.is_success() {
            break answer;
        }
        made += 1;
        assert!(made < 30, "{made} fit into 4 MiB");
    };
    assert!(made > 15, "{made}");
    assert_eq!(full.headers.get("retry-after"), None);
    assert_eq!(full.status, 507);
    let told = full.body.to_string();
    assert!(
        told.contains("urn:syncgate:problem:state_full") && told.contains("data_streams"),
        "{told}"
    );
    // Tokens and cursors have shares of their own.
    let target = StubTarget::start().await;
    let request = gateway
        .request(Method::POST, "/stream/sync")
        .header("authorization", "Bearer t1");
    gateway
        .send(request.json(&message(&target.url("/"), json!(1))))
        .await
        .ok();
    let at = "/v1/data-streams/s0/cursors/c1";
    gateway
        .send(
            gateway
                .request(Method::PUT, at)
                .json(&json!({"begin": "earliest"})),
        )
        .await
        .ok();
    // What goes makes room.
    send(&gateway, Method::DELETE, &path("s0"), "").await.ok();
    let last = path(&format!("s{made}"));
    let document = gateway.get(&format!("{last}/yaml")).await.ok();
    let document = format!("# {long}\n{}", document.as_str().unwrap());
    send(&gateway, Method::PATCH, &format!("{last}/yaml"), document)
        .await
        .ok();
}

/// Headers as a list, and as lenient mode takes them too.
fn shapes() -> Vec<Value> {
    vec![
        json!([{"key": "X-Own", "value": "SECRET-1"}, {"key": "X-Note", "value": "plain"}]),
        json!([{"key": "X-Own", "value": "SECRET-1"}, {"key": "X-Functions-Key", "value": "SECRET-2"}, {"key": "X-Note", "value": "plain"}]),
        json!({"X-Own": "SECRET-1", "Cookie": "a=SECRET-2", "X-Note": "plain"}),
        json!([
            ["X-Own", "SECRET-1"],
            ["Ocp-Apim-Subscription-Key", "SECRET-2"],
            ["X-Note", "plain"]
        ]),
        json!([{"name": "Private-Key", "value": "SECRET-1"}, {"X-Session-Id": "SECRET-2"}, {"name": "X-Note", "value": "plain"}]),
        json!(["Authorization: Bearer SECRET-1", "X-Note: plain"]),
    ]
}

#[tokio::test]
async fn masked_headers_are_shown_neither_pushed_nor_by_the_records() {
    let gateway =
        Gateway::with_config("[sync]\nlenient = true\n[push]\nmasked_headers = [\"X-Own\"]\n");
    create(&gateway, "s1", json!({})).await;
    let shapes = shapes();
    for headers in &shapes {
        let mut message = keyed("k", "http://127.0.0.1:9/x", json!({"n": 1}));
        message["streamMessage"]["targetRestApiHeaders"] = headers.clone();
        gateway.sync(&message).await;
    }
    let check = |shown: &str, at: usize| {
        assert!(!shown.contains("SECRET"), "{shown}");
        assert!(
            shown.contains("***") && shown.contains("plain"),
            "{at}: {shown}"
        );
    };
    let records = gateway.all_records("DataSyncStream").await;
    assert_eq!(records.len(), shapes.len());
    for (at, record) in records.iter().enumerate() {
        check(&record.to_string(), at);
        let one = format!("/v1/streams/DataSyncStream/partitions/0/records/{at}");
        check(&gateway.get(&one).await.ok().to_string(), at);
    }
    // The error records of those that no target can be called with.
    for stream in ["UnrecoverableErrorStream", "ServerUnavailableStream"] {
        for record in gateway.all_records(stream).await {
            check(&record.to_string(), 0);
        }
    }
    let mut socket = Raw::new(&gateway, "s1", "earliest").await;
    let mut seen = 0;
    while seen < shapes.len() {
        let (_, frame) = socket.frame().await.expect("a frame");
        let frame: Value = serde_json::from_slice(&frame).unwrap();
        for record in frame.as_array().unwrap() {
            let shown = record.to_string();
            if record.get("pos").is_some() && shown.contains("targetRestApiHeaders") {
                check(&shown, seen);
                seen += 1;
            }
        }
    }
}
