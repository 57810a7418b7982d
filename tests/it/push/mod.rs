//! Data streams: made and changed over HTTP, read over WebSocket and as Server-Sent Events.

mod begin;
mod bounds;
mod closes;
mod cursors;
mod document;
mod edge;
mod events;
mod kept;
mod kills;
mod lost;
mod purge;
mod raw;
mod shapes;
mod shared;

use std::collections::BTreeMap;

use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, client::IntoClientRequest as _, http::Response},
};

use crate::testkit::{Answer, Gateway, Place, keyed, within};

const S1: &str = "/services/v2/stream/s1";

pub(crate) type Socket = WebSocketStream<TcpStream>;

fn address(gateway: &Gateway) -> String {
    gateway.url.trim_start_matches("http://").to_owned()
}

/// Makes the data stream `s1` of the source stream, with these members.
async fn made(gateway: &Gateway, members: &Value) -> Answer {
    let mut body = json!({"source":{"trail":"a1"}});
    let object = body.as_object_mut().unwrap();
    object.extend(members.as_object().unwrap().clone());
    gateway.post(S1, &body).await
}

/// Opens a WebSocket; the answer if it is refused.
pub(crate) async fn open(
    gateway: &Gateway,
    query: &str,
) -> Result<Socket, Box<Response<Option<Vec<u8>>>>> {
    open_with(gateway, query, &[]).await
}

async fn open_with(
    gateway: &Gateway,
    query: &str,
    headers: &[(&'static str, &str)],
) -> Result<Socket, Box<Response<Option<Vec<u8>>>>> {
    let address = address(gateway);
    let mut request = format!("ws://{address}{S1}{query}")
        .into_client_request()
        .unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let stream = TcpStream::connect(&address).await.unwrap();
    // What is said in two parts is heard at once.
    stream.set_nodelay(true).unwrap();
    match within("a handshake", client_async(request, stream)).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => Err(response),
        Err(error) => panic!("{error}"),
    }
}

/// The next message of a server; its close code if it closes.
async fn next(socket: &mut Socket) -> Result<Vec<Value>, (u16, String)> {
    loop {
        match within("a frame", socket.next()).await {
            Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
            Some(Ok(Message::Close(Some(frame)))) => {
                return Err((frame.code.into(), frame.reason.to_string()));
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Reads until `count` records with positions have come.
pub(crate) async fn records(socket: &mut Socket, count: usize) -> Vec<Value> {
    let mut records = Vec::new();
    // Silence is filled, so it is not the next frame alone that has a time.
    within(&format!("{count} records"), async {
        while records.len() < count {
            let frame = next(socket).await.unwrap().into_iter();
            records.extend(frame.filter(|record| record.get("pos").is_some()));
        }
    })
    .await;
    assert_eq!(records.len(), count);
    records
}

pub(crate) fn xid(record: &Value) -> &str {
    record["xid"].as_str().unwrap()
}

fn pos(record: &Value) -> &str {
    record["pos"].as_str().unwrap()
}

async fn sync(gateway: &Gateway, keys: std::ops::Range<u32>) {
    for key in keys {
        gateway
            .sync(&keyed(
                &format!("k{key}"),
                "http://127.0.0.1:9/x",
                json!({"n": key}),
            ))
            .await;
    }
}

#[tokio::test]
async fn a_data_stream_is_made_shown_changed_and_deleted_and_outlives_a_restart() {
    let gateway = Gateway::start();
    let created = made(&gateway, &json!({"description":"orders"})).await;
    assert_eq!(
        (created.status.as_u16(), &created.headers["location"]),
        (201, &S1.parse().unwrap())
    );
    assert_eq!(created.body["$schema"], "api:standardResponse");
    assert_eq!(created.body["response"]["bufferSize"], 1_048_576);
    let rels: Vec<_> = created.body["links"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| &l["rel"])
        .collect();
    assert_eq!(rels, ["self", "canonical", "describedby"]);
    assert_eq!(made(&gateway, &json!({})).await.status, 409);

    let patch = |body: Value, tag: &str| {
        gateway
            .request(Method::PATCH, S1)
            .header("if-match", tag)
            .json(&body)
    };
    let tag = created.headers["etag"].to_str().unwrap().to_owned();
    let stale = gateway
        .send(patch(json!({"bufferSize":131_072}), "\"0\""))
        .await;
    assert_eq!(
        (stale.status.as_u16(), &stale.body["messages"][0]["code"]),
        (412, &json!("OGG-12004"))
    );
    let changed = gateway
        .send(patch(
            json!({"bufferSize":131_072,"description":null}),
            &tag,
        ))
        .await;
    assert_eq!(
        (
            changed.status.as_u16(),
            changed.body["response"].get("description")
        ),
        (200, None)
    );
    for (body, code) in [
        (json!({"bufferSize":131_071}), "OGG-12321"),
        (json!([]), "OGG-12020"),
    ] {
        let wrong = gateway
            .send(gateway.request(Method::PATCH, S1).json(&body))
            .await;
        assert_eq!(
            (wrong.status.as_u16(), &wrong.body["messages"][0]["code"]),
            (400, &json!(code)),
            "{body}"
        );
    }

    let gateway = gateway.stop().await.start();
    let shown = gateway.get(S1).await;
    assert_eq!(shown.body["response"], changed.body["response"]);
    assert_ne!(shown.headers["etag"], tag);
    let list = gateway.get("/services/v2/stream").await.body;
    assert_eq!(list["response"]["items"][0]["name"], "s1");
    assert_eq!(list["response"]["items"][0]["status"], "stopped");
    assert_eq!(
        gateway
            .send(gateway.request(Method::DELETE, S1))
            .await
            .status,
        200
    );
    assert_eq!(gateway.get(S1).await.status, 404);
    assert_eq!(
        gateway
            .send(gateway.request(Method::DELETE, S1))
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn what_is_wrong_with_a_configuration_is_named_member_by_member() {
    let gateway = Gateway::start();
    let wrong = made(
        &gateway,
        &json!({"bufferSize":1,"rulez":[],"qualityOfService":"often"}),
    )
    .await;
    assert_eq!(wrong.status.as_u16(), 400);
    let titles = wrong.body["messages"].to_string();
    for name in ["/bufferSize", "/rulez", "/qualityOfService"] {
        assert!(titles.contains(name), "{titles}");
    }
    let unknown = gateway
        .post(S1, &json!({"source":{"trail":"Nowhere"}}))
        .await;
    assert!(
        unknown.body.to_string().contains("/source/trail"),
        "{}",
        unknown.body
    );
    let long = format!("/services/v2/stream/{}", "s".repeat(33));
    assert_eq!(
        gateway
            .post(&long, &json!({"source":{"trail":"a1"}}))
            .await
            .status,
        400
    );
    assert_eq!(
        gateway.get("/services/v2/stream").await.body["response"]["items"],
        json!([])
    );
}

#[tokio::test]
async fn a_client_gets_schemas_then_every_record_and_goes_on_behind_any_of_them() {
    let gateway = Gateway::start();
    made(&gateway, &json!({})).await;
    sync(&gateway, 0..5).await;
    let mut first = open(&gateway, "?begin=earliest").await.unwrap();
    let preamble = next(&mut first).await.unwrap();
    assert_eq!(preamble[1]["op_type"], "STREAM_METADATA");
    assert!(preamble.iter().all(|record| record.get("pos").is_none()));
    let mut all = records(&mut first, 6).await;
    assert_eq!(all[0]["ddl"], "CREATE STREAM DataSyncStream PARTITIONS 1");
    // It grows while clients read, and is still in one order.
    let grown = gateway
        .request(Method::PATCH, "/v1/streams/DataSyncStream")
        .json(&json!({"partitions":4}));
    assert_eq!(gateway.send(grown).await.status, 200);
    sync(&gateway, 5..25).await;
    all.extend(records(&mut first, 21).await);
    assert_eq!(
        all[6]["ddl"],
        "ALTER STREAM DataSyncStream SET PARTITIONS 4"
    );
    let times: Vec<_> = all
        .iter()
        .map(|record| record["op_ts"].as_str().unwrap())
        .collect();
    assert!(times.is_sorted());
    let mut next_of = BTreeMap::new();
    for record in all.iter().filter(|record| record.get("ddl").is_none()) {
        let (partition, offset) = xid(record).split_once('.').unwrap();
        let expected = next_of.entry(partition.to_owned()).or_insert(0_u64);
        assert_eq!(offset.parse(), Ok(*expected), "{partition}");
        *expected += 1;
    }
    assert_eq!(next_of.values().sum::<u64>(), 25);
    // Killed at any record, a client that comes again gets strictly what is behind it, with the same bytes.
    drop(first);
    for (at, record) in all.iter().enumerate().step_by(3) {
        let mut again = open(&gateway, &format!("?begin={}", pos(record)))
            .await
            .unwrap();
        let rest = records(&mut again, all.len() - at - 1).await;
        assert_eq!(rest, all[at + 1..], "behind {}", xid(record));
    }
}

#[tokio::test]
async fn a_client_starts_now_or_at_a_time() {
    let gateway = Gateway::start();
    made(&gateway, &json!({})).await;
    sync(&gateway, 0..3).await;
    let mut now = open(&gateway, "?begin=now").await.unwrap();
    let mut late = open(&gateway, "?begin=2999-01-01").await.unwrap();
    let mut all = open(&gateway, "?begin=1999-01-01").await.unwrap();
    let unknown = open(&gateway, "?begin=1999-01-01&format=json").await;
    assert_eq!(unknown.unwrap_err().status(), 400);
    let of_all = records(&mut all, 4).await;
    let time = of_all[2]["op_ts"].as_str().unwrap();
    let time = time.to_lowercase();
    let mut at = open(&gateway, &format!("?begin={time}")).await.unwrap();
    let of_time = records(&mut at, 2).await;
    assert_eq!(of_time, of_all[2..]);
    next(&mut now).await.unwrap();
    next(&mut late).await.unwrap();
    sync(&gateway, 3..4).await;
    assert_eq!(xid(&records(&mut now, 1).await[0]), "0.3");
    // The one that waits for a time has got nothing of this: its next message is the end.
    gateway.signal("TERM");
    assert_eq!(next(&mut late).await, Err((1001, "drain".into())));
}

#[tokio::test]
async fn a_beginning_that_cannot_be_is_refused_before_the_upgrade() {
    let gateway = Gateway::start();
    made(&gateway, &json!({})).await;
    sync(&gateway, 0..1).await;
    let mut first = open(&gateway, "").await.unwrap();
    let last = pos(&records(&mut first, 2).await[1]).to_owned();
    let refused = |refused: Box<Response<Option<Vec<u8>>>>| {
        let status = refused.status().as_u16();
        let body: Value = serde_json::from_slice(refused.body().as_deref().unwrap_or(b"null"))
            .unwrap_or_default();
        (
            status,
            body["messages"][0]["type"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        )
    };
    for begin in ["p1abc", "yesterday", "2026-13-01", &last[..last.len() - 1]] {
        let (status, _) = refused(
            open(&gateway, &format!("?begin={begin}"))
                .await
                .unwrap_err(),
        );
        assert_eq!(status, 400, "{begin}");
    }
    let twice = open(&gateway, "?begin=now&begin=now").await.unwrap_err();
    assert_eq!(refused(twice).0, 400);
    // Of another resource.
    let other = gateway
        .post("/services/v2/stream/s2", &json!({"source":{"trail":"a1"}}))
        .await;
    assert_eq!(other.status, 201);
    let events = |path: &str, begin: &str| {
        let request = gateway.request(Method::GET, &format!("{path}?begin={begin}"));
        gateway.send(request.header("accept", "text/event-stream"))
    };
    let foreign = events("/services/v2/stream/s2", &last).await;
    assert_eq!(
        (
            foreign.status.as_u16(),
            &foreign.body["messages"][0]["type"]
        ),
        (409, &json!("urn:syncgate:problem:position_foreign"))
    );
    // Of a stream that is another one now: the journal was deleted and made again.
    let place = gateway.stop().await;
    std::fs::remove_dir_all(place.data().join("journal")).unwrap();
    std::fs::remove_dir_all(place.data().join("index")).unwrap();
    let gateway = place.start();
    made(&gateway, &json!({})).await;
    let gone = open(&gateway, &format!("?begin={last}")).await.unwrap_err();
    assert_eq!(refused(gone).0, 400, "its key was another one");

    for (headers, status) in [
        ([("origin", "https://evil.example")], 403),
        ([("sec-websocket-version", "8")], 426),
        ([("sec-websocket-key", "short")], 400),
        ([("connection", "keep-alive")], 400),
    ] {
        let (told, _) = refused(open_with(&gateway, "", &headers).await.unwrap_err());
        assert_eq!(told, status, "{headers:?}");
    }
}

#[tokio::test]
async fn a_client_is_told_why_it_is_closed() {
    let gateway = Gateway::start();
    made(&gateway, &json!({})).await;
    sync(&gateway, 0..1).await;
    let mut changed = open(&gateway, "").await.unwrap();
    let last = pos(&records(&mut changed, 2).await[1]).to_owned();
    let patch = gateway
        .request(Method::PATCH, S1)
        .json(&json!({"description":"x"}));
    assert_eq!(gateway.send(patch).await.status, 200);
    let (code, reason) = next(&mut changed).await.unwrap_err();
    assert_eq!((code, reason), (4412, format!("config_changed pos={last}")));
    // The position is good for the new configuration.
    let mut again = open(&gateway, &format!("?begin={last}")).await.unwrap();
    next(&mut again).await.unwrap();
    assert_eq!(
        gateway
            .send(gateway.request(Method::DELETE, S1))
            .await
            .status,
        200
    );
    assert_eq!(next(&mut again).await, Err((4404, "deleted".into())));

    made(&gateway, &json!({})).await;
    let said = |message: Message| {
        let gateway = &gateway;
        async move {
            let mut socket = open(gateway, "?begin=now").await.unwrap();
            next(&mut socket).await.unwrap();
            for _ in 0..11 {
                // It may have closed meanwhile.
                if socket.send(message.clone()).await.is_err() {
                    break;
                }
            }
            next(&mut socket).await.unwrap_err().0
        }
    };
    assert_eq!(said(Message::binary(vec![1])).await, 1003);
    assert_eq!(said(Message::text("x".repeat(4097))).await, 1009);
    assert_eq!(said(Message::text("hello")).await, 4429);
    let mut polite = open(&gateway, "?begin=now").await.unwrap();
    next(&mut polite).await.unwrap();
    polite.send(Message::text("hello")).await.unwrap();
    polite.close(None).await.unwrap();
    assert!(matches!(
        within("the answer", polite.next()).await,
        None | Some(Ok(Message::Close(_)))
    ));
}

#[tokio::test]
async fn broken_frames_end_their_connection_and_nothing_else() {
    let gateway = Gateway::start();
    made(&gateway, &json!({})).await;
    let mut other = open(&gateway, "?begin=now").await.unwrap();
    next(&mut other).await.unwrap();
    for (frame, code) in [
        // Not masked; a control frame in parts; a reserved bit; an unknown kind; text that is not UTF-8.
        (&b"\x81\x01x"[..], 1002_u16),
        (b"\x09\x80\0\0\0\0", 1002),
        (b"\xc1\x81\0\0\0\0x", 1002),
        (b"\x83\x80\0\0\0\0", 1002),
        (b"\x81\x81\0\0\0\0\xff", 1007),
    ] {
        let mut raw = TcpStream::connect(address(&gateway)).await.unwrap();
        let request = format!(
            "GET {S1}?begin=now HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
            address(&gateway)
        );
        raw.write_all(request.as_bytes()).await.unwrap();
        raw.write_all(frame).await.unwrap();
        let mut read = Vec::new();
        within("the end", raw.read_to_end(&mut read)).await.unwrap();
        let close = [&[0x88, 2][..], &code.to_be_bytes()].concat();
        assert!(
            read.ends_with(&close),
            "{frame:?}: {:?}",
            &read[read.len().saturating_sub(8)..]
        );
    }
    sync(&gateway, 0..1).await;
    assert_eq!(records(&mut other, 1).await.len(), 1);
}

#[tokio::test]
async fn server_sent_events_are_the_same_frames() {
    let gateway = Gateway::start();
    made(&gateway, &json!({})).await;
    sync(&gateway, 0..2).await;
    let events = |last: Option<String>| {
        let request = gateway.request(Method::GET, &format!("{S1}?begin=earliest"));
        let request = request.header("accept", "text/event-stream");
        match last {
            Some(last) => request.header("last-event-id", last),
            None => request,
        }
    };
    let mut response = within("an answer", events(None).send()).await.unwrap();
    assert_eq!(response.headers()["cache-control"], "no-store");
    let mut text = String::new();
    while text.matches("data: ").count() < 2 || !text.ends_with("\n\n") {
        let chunk = within("a chunk", response.chunk()).await.unwrap().unwrap();
        text += std::str::from_utf8(&chunk).unwrap();
    }
    assert!(text.starts_with("retry: 2000\n\ndata: ["), "{text}");
    let frame = text.split("\n\n").nth(2).unwrap();
    let (data, id) = frame
        .strip_prefix("data: ")
        .unwrap()
        .split_once("\nid: ")
        .unwrap();
    let sent: Vec<Value> = serde_json::from_str(data).unwrap();
    assert_eq!((sent.len(), pos(&sent[2])), (3, id));
    let second = pos(&sent[1]).to_owned();
    let mut again = within("an answer", events(Some(second)).send())
        .await
        .unwrap();
    let mut text = String::new();
    while text.matches("data: ").count() < 2 || !text.ends_with("\n\n") {
        let chunk = within("a chunk", again.chunk()).await.unwrap().unwrap();
        text += std::str::from_utf8(&chunk).unwrap();
    }
    let data = text
        .split("\n\n")
        .nth(2)
        .unwrap()
        .split_once('\n')
        .unwrap()
        .0;
    let rest: Vec<Value> = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(rest, sent[2..]);
    assert_eq!(
        gateway
            .send(gateway.request(Method::DELETE, S1))
            .await
            .status,
        200
    );
    let mut end = String::new();
    while let Some(chunk) = within("the end", again.chunk()).await.unwrap() {
        end += std::str::from_utf8(&chunk).unwrap();
    }
    assert_eq!(
        end,
        "event: close\ndata: {\"code\":4404,\"reason\":\"deleted\"}\n\n"
    );
}

#[tokio::test]
async fn cloud_events_come_one_by_one_to_who_asks_for_that() {
    let gateway = Gateway::start();
    made(&gateway, &json!({"cloudEventsFormat":true})).await;
    sync(&gateway, 0..2).await;
    let asked = [("sec-websocket-protocol", "other, cloudevents.json")];
    let mut socket = open_with(&gateway, "", &asked).await.unwrap();
    let mut kinds = Vec::new();
    while kinds.len() < 9 {
        let Some(Ok(Message::Text(text))) = within("an event", socket.next()).await else {
            panic!("no event");
        };
        let event: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(event["specversion"], "1.0");
        kinds.push(event["type"].as_str().unwrap().to_owned());
    }
    assert_eq!(
        kinds[6..],
        ["ddl", "insert", "insert"].map(|kind| format!("syncgate.datastream.{kind}.v1"))
    );
    let mut arrays = open(&gateway, "").await.unwrap();
    assert!(
        next(&mut arrays)
            .await
            .unwrap()
            .iter()
            .all(|event| event["data"].is_object())
    );
}

#[tokio::test]
async fn the_document_is_ours_until_a_person_gives_another() {
    let place = Place::with_config("[server]\npublic_url = \"http://127.0.0.1:9002\"\n");
    let gateway = place.start();
    made(&gateway, &json!({})).await;
    let text = |path: &str| {
        let request = gateway.request(Method::GET, path);
        async move { request.send().await.unwrap().text().await.unwrap() }
    };
    let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/asyncapi/syncgate.yaml");
    let kept = std::fs::read_to_string(kept).unwrap();
    assert_eq!(text("/asyncapi.yaml").await, kept);
    assert_eq!(text(&format!("{S1}/yaml")).await, kept);
    assert!(
        text(&format!("{S1}/yaml?layout=pathname"))
            .await
            .contains("pathname: ")
    );
    let put = |text: &str| {
        let request = gateway.request(Method::PATCH, &format!("{S1}/yaml"));
        gateway.send(
            request
                .header("content-type", "application/yaml")
                .body(text.to_owned()),
        )
    };
    assert_eq!(
        put("asyncapi: 2.6.0\nchannels: {a: {}}\n").await.status,
        400
    );
    assert_eq!(
        put("asyncapi: 3.0.0\nchannels: {a: &x {}, b: *x}\n")
            .await
            .status,
        400
    );
    let own = "asyncapi: 3.0.0\nchannels: {a: {}}\n";
    assert_eq!(put(own).await.status, 200);
    assert_eq!(text(&format!("{S1}/yaml")).await, own);
    let patch = gateway
        .request(Method::PATCH, S1)
        .json(&json!({"description":"x"}));
    assert_eq!(gateway.send(patch).await.status, 200);
    assert_eq!(text(&format!("{S1}/yaml")).await, kept);
}
