//! Named cursors over real connections: acknowledged, lost, taken over, moved, shown.

use futures_util::SinkExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Message, http::Response};

use crate::testkit::{Answer, Gateway, poll, within};

use super::{Socket, made, next, open, pos, records, sync, xid};

const CURSORS: &str = "/v1/data-streams/s1/cursors";
const C1: &str = "/v1/data-streams/s1/cursors/c1";

async fn ack(socket: &mut Socket, pos: &str) {
    let text = json!({ "ack": pos }).to_string();
    socket.send(Message::Text(text.into())).await.unwrap();
}

fn xids(records: &[Value]) -> Vec<&str> {
    records.iter().map(xid).collect()
}

/// A stream with five messages and its making, which is a record too.
async fn with_five() -> Gateway {
    let gateway = Gateway::start();
    made(&gateway, &json!({})).await.ok();
    sync(&gateway, 0..5).await;
    gateway
}

async fn closed(mut socket: Socket) -> (u16, String) {
    // Silence is filled, so it is not the next frame alone that has a time.
    within("a close", async {
        loop {
            if let Err(closed) = next(&mut socket).await {
                return closed;
            }
        }
    })
    .await
}

#[track_caller]
fn refused(answer: &Response<Option<Vec<u8>>>, status: u16, word: &str) {
    let body: Value = serde_json::from_slice(answer.body().as_ref().unwrap()).unwrap();
    let kind = &body["messages"][0]["type"];
    assert_eq!(
        (answer.status().as_u16(), kind),
        (status, &json!(format!("urn:syncgate:problem:{word}")))
    );
}

async fn send(gateway: &Gateway, method: Method, path: impl AsRef<str>, body: Value) -> Answer {
    let request = gateway.request(method, path.as_ref());
    gateway.send(request.json(&body)).await
}

#[tokio::test]
async fn what_was_acknowledged_before_a_close_never_comes_again_and_the_rest_does() {
    let gateway = with_five().await;
    let mut first = open(&gateway, "?cursor=c1").await.unwrap();
    let all = records(&mut first, 6).await;
    ack(&mut first, pos(&all[2])).await;
    first.close(None).await.unwrap();
    // The answer to the close says that it is durable.
    while !matches!(
        futures_util::StreamExt::next(&mut first).await,
        None | Some(Err(_))
    ) {}
    let gateway = gateway.kill().start();
    // Later uses do not look at begin.
    let mut second = open(&gateway, "?cursor=c1&begin=earliest").await.unwrap();
    let rest = records(&mut second, 3).await;
    assert_eq!(xids(&rest), xids(&all[3..]));
    // At or before the last one: nothing. Not at all: everything comes again.
    ack(&mut second, pos(&all[0])).await;
    ack(&mut second, pos(&all[2])).await;
    drop(second);
    let again = poll("the cursor to be free", async || {
        open(&gateway, "?cursor=c1").await.ok()
    });
    let mut again = again.await;
    assert_eq!(records(&mut again, 3).await, rest);
}

#[tokio::test]
async fn a_cursor_that_was_made_for_now_stays_there_until_something_is_acknowledged() {
    let gateway = with_five().await;
    let first = open(&gateway, "?cursor=c1&begin=now").await.unwrap();
    drop(first);
    sync(&gateway, 5..7).await;
    let gateway = gateway.kill().start();
    let mut second = open(&gateway, "?cursor=c1&begin=now").await.unwrap();
    let records = records(&mut second, 2).await;
    assert_eq!(xids(&records), ["0.5", "0.6"]);
}

#[tokio::test]
async fn a_cursor_has_one_client_and_another_takes_it_over_only_if_it_says_so() {
    let gateway = with_five().await;
    let mut first = open(&gateway, "?cursor=c1").await.unwrap();
    let all = records(&mut first, 6).await;
    ack(&mut first, pos(&all[1])).await;
    poll("the acknowledgement", async || {
        let shown = gateway.get(CURSORS).await.body;
        (shown["items"][0]["pos"] == json!(pos(&all[1]))).then_some(())
    })
    .await;
    let second = open(&gateway, "?cursor=c1").await.unwrap_err();
    refused(&second, 409, "cursor_in_use");
    for (method, body) in [
        (Method::PUT, json!({"begin": "earliest"})),
        (Method::DELETE, json!({})),
    ] {
        let answer = send(&gateway, method, C1, body).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.body["code"]),
            (409, &json!("cursor_in_use"))
        );
    }
    let mut third = open(&gateway, "?cursor=c1&takeover=true").await.unwrap();
    let (code, reason) = closed(first).await;
    assert_eq!(code, 4409);
    assert!(reason.starts_with("taken_over pos=p1"), "{reason}");
    let rest = records(&mut third, 4).await;
    assert_eq!(xids(&rest), xids(&all[2..]));
    // Another data stream's cursor of that name is another one.
    gateway
        .post(
            "/services/v2/stream/s2",
            &json!({"source": {"trail": "a1"}}),
        )
        .await
        .ok();
    let other = gateway.get("/v1/data-streams/s2/cursors").await.body;
    assert_eq!(other, json!({"items": [], "next": null}));
}

#[tokio::test]
async fn what_is_no_acknowledgement_of_something_sent_closes_the_connection() {
    let gateway = with_five().await;
    for (begin, text) in [
        ("earliest", "hello"),
        ("earliest", "{}"),
        ("earliest", r#"{"ack":7}"#),
        ("earliest", r#"{"ack":"p1AAAA"}"#),
        ("earliest", r#"{"ack":"x","more":1}"#),
    ] {
        let mut socket = open(
            &gateway,
            &format!("?cursor=wrong&takeover=true&begin={begin}"),
        )
        .await
        .unwrap();
        socket.send(Message::text(text)).await.unwrap();
        assert_eq!(closed(socket).await.0, 4400, "{text}");
    }
}

#[tokio::test]
async fn cursors_are_listed_with_their_lag_moved_and_removed() {
    let gateway = with_five().await;
    for (name, begin) in [("c1", "earliest"), ("c2", "now")] {
        let put = send(
            &gateway,
            Method::PUT,
            format!("{CURSORS}/{name}"),
            json!({"begin": begin}),
        );
        assert_eq!(put.await.ok()["name"], name);
    }
    let listed = gateway.get(CURSORS).await.body;
    let items = listed["items"].as_array().unwrap();
    let shown: Vec<_> = items
        .iter()
        .map(|item| (&item["name"], &item["recordsBehind"], &item["connected"]))
        .collect();
    let (no, c1, c2) = (json!(false), json!("c1"), json!("c2"));
    assert_eq!(shown, [(&c1, &json!(5), &no), (&c2, &json!(0), &no)]);
    assert_eq!(items[0]["ackedAt"], Value::Null);
    let page = gateway.get(&format!("{CURSORS}?limit=1")).await.body;
    assert_eq!(
        (page["items"].as_array().unwrap().len(), &page["next"]),
        (1, &c1)
    );
    let page = gateway.get(&format!("{CURSORS}?after=c1")).await.body;
    assert_eq!(
        (&page["items"][0]["name"], &page["next"]),
        (&c2, &Value::Null)
    );

    let mut reader = open(&gateway, "").await.unwrap();
    let all = records(&mut reader, 6).await;
    // For those who cannot say it on their connection.
    let acked = send(
        &gateway,
        Method::POST,
        format!("{C1}/ack"),
        json!({"ack": pos(&all[3])}),
    );
    assert_eq!(acked.await.status, 204);
    let gateway = gateway.kill().start();
    let item = &gateway.get(CURSORS).await.body["items"][0];
    assert_eq!(
        (&item["recordsBehind"], &item["pos"]),
        (&json!(2), &json!(pos(&all[3])))
    );
    assert_ne!(item["ackedAt"], Value::Null);
    let mut socket = open(&gateway, "?cursor=c1").await.unwrap();
    assert_eq!(xids(&records(&mut socket, 2).await), ["0.3", "0.4"]);
    assert_eq!(
        gateway.get(CURSORS).await.body["items"][0]["connected"],
        true
    );
    socket.close(None).await.unwrap();
    drop(socket);

    poll("the cursor to be free", async || {
        let moved = send(&gateway, Method::PUT, C1, json!({"begin": pos(&all[4])})).await;
        (moved.status == 200).then_some(())
    })
    .await;
    let mut socket = open(&gateway, "?cursor=c1&begin=earliest").await.unwrap();
    assert_eq!(xids(&records(&mut socket, 1).await), ["0.4"]);

    for (path, status) in [("c2", 204), ("c2", 404), ("nobody", 404), ("1", 404)] {
        let gone = send(
            &gateway,
            Method::DELETE,
            format!("{CURSORS}/{path}"),
            json!({}),
        )
        .await;
        assert_eq!(gone.status, status, "{path}");
    }
    // They go with their data stream.
    send(&gateway, Method::DELETE, super::S1, json!({}))
        .await
        .ok();
    made(&gateway, &json!({})).await.ok();
    assert_eq!(gateway.get(CURSORS).await.body["items"], json!([]));
}

#[tokio::test]
async fn a_cursor_is_made_by_an_empty_object_and_shown_alone() {
    let gateway = with_five().await;
    gateway.get(C1).await.problem(404, "not_found");
    let put = async |body: Value| send(&gateway, Method::PUT, C1, body).await.ok();
    let made = put(json!({})).await;
    assert_eq!(
        (&made["name"], &made["recordsBehind"]),
        (&json!("c1"), &json!(5))
    );
    let shown = gateway.get(C1).await.ok();
    assert_eq!(
        (&shown["name"], &shown["pos"]),
        (&made["name"], &made["pos"])
    );
    // One that is there is not moved, as that would send everything again.
    let moved = put(json!({"begin": "now"})).await;
    assert_eq!(moved["recordsBehind"], 0);
    assert_eq!(put(json!({})).await["pos"], moved["pos"]);
    assert_eq!(gateway.get(C1).await.ok()["pos"], moved["pos"]);
    // A client may have it.
    let _reader = open(&gateway, "?cursor=c1").await.unwrap();
    assert_eq!(put(json!({})).await["connected"], true);
    let listed = gateway.get(CURSORS).await.ok();
    assert_eq!(listed["items"][0], gateway.get(C1).await.ok());
    for path in ["1x", "nobody"] {
        let path = format!("{CURSORS}/{path}");
        gateway.get(&path).await.problem(404, "not_found");
    }
    let unknown = gateway.get(&format!("{C1}?limit=1")).await;
    unknown.problem(400, "invalid_request");
}

#[tokio::test]
async fn wrong_cursors_and_positions_are_named() {
    let gateway = with_five().await;
    for (query, word) in [
        ("?cursor=", "invalid_request"),
        ("?cursor=1x", "invalid_request"),
        ("?cursor=c1&cursor=c1", "invalid_request"),
        ("?takeover=true", "invalid_request"),
        ("?cursor=c1&takeover=yes", "invalid_request"),
        ("?cursor=c1&begin=never", "begin_invalid"),
    ] {
        let answer = open(&gateway, query).await.unwrap_err();
        refused(&answer, 400, word);
    }
    // None of these has made one.
    assert_eq!(gateway.get(CURSORS).await.body["items"], json!([]));
    let put = async |body: Value| send(&gateway, Method::PUT, C1, body).await;
    for (body, pointer) in [
        (json!({"begin": 1}), "/begin"),
        (json!({"begin": "never"}), "/begin"),
        (json!({"begin": "now", "to": "now"}), "/to"),
    ] {
        let answer = put(body).await;
        assert_eq!(answer.status, 400);
        assert_eq!(answer.body["errors"][0]["pointer"], pointer);
    }
    put(json!({"begin": "earliest"})).await.ok();
    gateway
        .post(
            "/services/v2/stream/s2",
            &json!({"source": {"trail": "a1"}}),
        )
        .await
        .ok();
    put(json!({"begin": "now"})).await.ok();
    let now = gateway.get(CURSORS).await.body["items"][0]["pos"].clone();
    for (path, ack, status, code) in [
        (C1.to_owned(), json!("p1xx"), 400, "begin_invalid"),
        (C1.to_owned(), json!("now"), 400, "begin_invalid"),
        (
            CURSORS.to_owned() + "/nobody",
            now.clone(),
            404,
            "not_found",
        ),
        (
            "/v1/data-streams/s2/cursors/c1".into(),
            now,
            409,
            "position_foreign",
        ),
    ] {
        let answer = send(
            &gateway,
            Method::POST,
            format!("{path}/ack"),
            json!({"ack": ack}),
        )
        .await;
        assert_eq!(
            (answer.status.as_u16(), &answer.body["code"]),
            (status, &json!(code))
        );
    }
}
