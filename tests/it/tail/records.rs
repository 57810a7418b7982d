//! Records of a real gateway, which comes and goes.

use std::{
    io::Read as _,
    process::Stdio,
    sync::{Arc, Mutex},
};

use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_tungstenite::{client_async, tungstenite::Message};

use super::Tail;
use crate::testkit::{Gateway, Place, keyed, poll, syncgate, within};

const S1: &str = "/services/v2/stream/s1";

/// An address that stays, in front of a gateway that comes and goes.
pub(super) struct Door {
    pub(super) url: String,
    open: Arc<Mutex<Option<String>>>,
    connections: Arc<Mutex<JoinSet<()>>>,
}

impl Door {
    pub(super) async fn to(gateway: &Gateway) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let door = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            open: Arc::default(),
            connections: Arc::default(),
        };
        door.open(gateway);
        let (open, connections) = (door.open.clone(), door.connections.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Some(address) = open.lock().unwrap().clone() else {
                    continue;
                };
                connections.lock().unwrap().spawn(forward(client, address));
            }
        });
        door
    }

    pub(super) fn open(&self, gateway: &Gateway) {
        let address = gateway.url.trim_start_matches("http://");
        *self.open.lock().unwrap() = Some(address.to_owned());
    }

    /// From now on nobody comes through, and who is in the middle is cut off.
    pub(super) fn close(&self) {
        *self.open.lock().unwrap() = None;
        self.connections.lock().unwrap().abort_all();
    }
}

async fn forward(mut client: TcpStream, address: String) {
    let Ok(mut gateway) = TcpStream::connect(address).await else {
        return;
    };
    let _cut = tokio::io::copy_bidirectional(&mut client, &mut gateway).await;
}

async fn made(gateway: &Gateway, members: &Value) {
    let mut config = json!({"source":{"trail":"DataSyncStream"}});
    let object = config.as_object_mut().unwrap();
    object.extend(members.as_object().unwrap().clone());
    assert_eq!(gateway.post(S1, &config).await.status, 201);
}

async fn patch(gateway: &Gateway, members: &Value) {
    let request = gateway.request(Method::PATCH, S1).json(members);
    gateway.send(request).await.ok();
}

/// Waits until so many clients read the data stream.
async fn clients(gateway: &Gateway, some: bool) {
    let status = if some { "running" } else { "stopped" };
    poll(&format!("the data stream to be {status}"), async || {
        let list = gateway.get("/services/v2/stream").await.ok();
        (list["response"]["items"][0]["status"] == status).then_some(())
    })
    .await;
}

async fn sync(gateway: &Gateway, keys: std::ops::Range<u32>) {
    for key in keys {
        let message = keyed(
            &format!("k{key}"),
            "http://127.0.0.1:9/x",
            json!({"n": key}),
        );
        gateway.sync(&message).await;
    }
}

fn expected(xids: std::ops::Range<u32>) -> Vec<String> {
    xids.map(|offset| format!("0.{offset}")).collect()
}

#[tokio::test]
async fn records_are_printed_as_they_come_and_as_they_were_sent() {
    let gateway = Gateway::start();
    made(&gateway, &json!({})).await;
    sync(&gateway, 0..2).await;
    let mut now = Tail::start(&gateway.url, &["s1", "--output", "json"]);
    clients(&gateway, true).await;
    let body = r#"{"streamKey":"k\u2028é","streamMessage":{"targetRestApi":"http://127.0.0.1:9/x",
        "targetRestApiOperation":"POST","targetRestApiPayload":{ "a": 1.10e+2, "b": 12345678901234567890.120,
        "t":"line\nline" }}}"#;
    let request = gateway.request(Method::POST, "/stream/sync").body(body);
    let answer = gateway.send(request).await.ok();
    assert_eq!(answer["offset"], 2);
    let line = now.line().await;
    assert!(
        line.contains(r#"{"a":1.10e+2,"b":12345678901234567890.120,"t":"line\nline"}"#),
        "{line}"
    );
    // Another client that reads the same gets these bytes.
    let address = gateway.url.trim_start_matches("http://");
    let stream = TcpStream::connect(address).await.unwrap();
    let request = format!("ws://{address}{S1}?begin=earliest");
    let (mut socket, _) = within("a handshake", client_async(request, stream))
        .await
        .unwrap();
    let printed: Value = serde_json::from_str(&line).unwrap();
    let pos = printed["pos"].as_str().unwrap();
    let sent = loop {
        match within("a frame", socket.next()).await.unwrap().unwrap() {
            Message::Text(text) if text.contains(pos) => break text,
            _ => {}
        }
    };
    assert!(sent.contains(&*line), "{line} is not in {sent}");

    let all = Tail::start(
        &gateway.url,
        &[
            "s1", "--begin", "earliest", "--count", "4", "--output", "json", "--all",
        ],
    );
    let (code, lines, said) = all.end().await;
    assert_eq!((code, said.as_str()), (Some(0), ""));
    let records: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(records[0]["$schema"].is_string(), "{}", records[0]);
    assert_eq!(records[1]["op_type"], "STREAM_METADATA");
    let changes = records.iter().filter(|record| record.get("pos").is_some());
    assert_eq!(changes.count(), 4, "schemas and metadata do not count");
    assert_eq!(lines.last(), Some(&line));

    now.interrupt();
    let (code, lines, said) = now.end().await;
    assert_eq!((code, lines.len()), (Some(0), 0), "{said}");
    assert!(
        said.starts_with("note: stopped; the last record printed has pos p1"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
    drop(socket);
    clients(&gateway, false).await;
}

#[tokio::test]
async fn people_get_a_line_for_each_record_and_no_more_than_they_asked_for() {
    let gateway = Gateway::start();
    made(&gateway, &json!({})).await;
    sync(&gateway, 0..3).await;
    let tail = Tail::start(&gateway.url, &["s1", "--begin", "earliest", "--count", "3"]);
    let (code, lines, said) = tail.end().await;
    assert_eq!((code, said.as_str(), lines.len()), (Some(0), "", 3));
    assert!(
        lines[0].ends_with(
            "  SYNCGATE.DataSyncStream  DDL  ddl.1  CREATE STREAM DataSyncStream PARTITIONS 1"
        ),
        "{}",
        lines[0]
    );
    assert!(
        lines[2].ends_with(
            r#"  SYNCGATE.DataSyncStream  INSERT  0.1    k1  POST http://127.0.0.1:9/x {"n":1}"#
        ),
        "{}",
        lines[2]
    );
    // Behind a record of which the position is known.
    let tail = Tail::start(
        &gateway.url,
        &[
            "s1",
            "--begin",
            "1999-01-01",
            "--count",
            "3",
            "--output",
            "json",
        ],
    );
    let (_, lines, _) = tail.end().await;
    let second: Value = serde_json::from_str(&lines[1]).unwrap();
    let begin = second["pos"].as_str().unwrap();
    let tail = Tail::start(
        &gateway.url,
        &["s1", "--begin", begin, "--count", "1", "--output", "json"],
    );
    assert_eq!(tail.end().await.1, lines[2..]);
}

#[tokio::test]
async fn it_goes_on_behind_what_it_printed_after_a_crash_of_the_gateway() {
    let mut gateway = Gateway::start();
    made(&gateway, &json!({})).await;
    sync(&gateway, 0..5).await;
    let door = Door::to(&gateway).await;
    let mut tail = Tail::start(
        &door.url,
        &["s1", "--begin", "earliest", "--output", "json"],
    );
    assert_eq!(tail.xids(1).await, ["ddl.1"]);
    assert_eq!(tail.xids(5).await, expected(0..5));
    for round in 1..4 {
        let first = 10 * round - 5;
        door.close();
        // Of these nobody hears before the end.
        sync(&gateway, first..first + 5).await;
        gateway = match round {
            3 => gateway.stop().await.start(),
            _ => gateway.kill().start(),
        };
        tail.says("connecting again in").await;
        door.open(&gateway);
        sync(&gateway, first + 5..first + 10).await;
        assert_eq!(tail.xids(10).await, expected(first..first + 10));
    }
    // Stopped while the connection is there: it is told so.
    gateway.stop().await;
    tail.says("(1001 drain").await;
    tail.interrupt();
    assert_eq!(tail.end().await.0, Some(0));
}

#[tokio::test]
async fn what_is_posted_before_the_first_record_came_is_not_skipped_with_the_connection() {
    let gateway = Gateway::start();
    made(&gateway, &json!({})).await;
    sync(&gateway, 0..2).await;
    let door = Door::to(&gateway).await;
    let mut tail = Tail::start(&door.url, &["s1", "--output", "json"]);
    clients(&gateway, true).await;
    for first in [2, 4] {
        door.close();
        clients(&gateway, false).await;
        sync(&gateway, first..first + 2).await;
        tail.says("connecting again in").await;
        door.open(&gateway);
        assert_eq!(tail.xids(2).await, expected(first..first + 2));
    }
}

#[tokio::test]
async fn a_changed_configuration_is_read_again_and_costs_no_record() {
    let gateway = Gateway::start();
    made(&gateway, &json!({})).await;
    let door = Door::to(&gateway).await;
    let mut tail = Tail::start(&door.url, &["s1", "--output", "json"]);
    clients(&gateway, true).await;
    let meta = |fields: Value| json!({"encoding":{"json":{"metaFields":fields}}});
    sync(&gateway, 0..1).await;
    assert_eq!(tail.xids(1).await, expected(0..1));
    patch(&gateway, &meta(json!({"pos":"where"}))).await;
    tail.says("(4412 config_changed").await;
    sync(&gateway, 1..2).await;
    let record = tail.record().await;
    assert_eq!(record["xid"], "0.1");
    assert!(
        record["where"].is_string() && record.get("pos").is_none(),
        "{record}"
    );
    patch(&gateway, &json!({"cloudEventsFormat":true})).await;
    sync(&gateway, 2..3).await;
    let event = tail.record().await;
    assert_eq!(
        (&event["specversion"], &event["data"]["xid"]),
        (&json!("1.0"), &json!("0.2"))
    );
    // Without positions it goes on as long as nothing is lost, and says so.
    let off = json!({"cloudEventsFormat":null,"encoding":{"json":{"metaFields":{"pos":false}}}});
    patch(&gateway, &off).await;
    tail.says("if the connection is lost this command ends")
        .await;
    sync(&gateway, 3..4).await;
    assert_eq!(tail.xids(1).await, expected(3..4));
    door.close();
    tail.fails(1, "metaFields.pos is off").await;
}

#[tokio::test]
async fn what_cannot_be_is_told_and_ends_it() {
    let gateway = Gateway::start();
    made(&gateway, &json!({})).await;
    let fails = async |arguments: &[&str], code, words: &str| {
        let tail = Tail::start(&gateway.url, arguments);
        tail.fails(code, words).await;
    };
    let lists = ["data-streams ls", "streams ls"]
        .map(|list| format!("syncgate {list} --url {}", gateway.url));
    let none = |name: &str| {
        let lists = lists.join(", or: ");
        format!("error: no data stream and no stream is called `{name}`; list them with: {lists}\n")
    };
    fails(&["s2"], 1, &none("s2")).await;
    fails(
        &["DataSyncStrem"],
        1,
        "no stream is called `DataSyncStrem`; did you mean `DataSyncStream`?",
    )
    .await;
    fails(
        &["s1", "--begin", "yesterday"],
        1,
        "(the gateway answered 400 begin_invalid)",
    )
    .await;
    fails(
        &["s1", "--begin", "yesterday"],
        1,
        "begin is earliest, now, a time",
    )
    .await;
    fails(&["s1", "--begin", ""], 1, "400 begin_invalid").await;
    fails(&["a/b?c"], 1, &none("a/b?c")).await;
    fails(&["s1", "--count", "0"], 2, "--count").await;
    fails(&["s1", "--takeover"], 2, "--cursor").await;
    fails(&[], 2, "NAME").await;
    let nobody = Tail::start("http://127.0.0.1:1", &["s1"]);
    nobody
        .fails(1, "no gateway answers at http://127.0.0.1:1/")
        .await;

    let mut tail = Tail::start(&gateway.url, &["s1", "--output", "json"]);
    clients(&gateway, true).await;
    sync(&gateway, 0..1).await;
    let pos = tail.record().await["pos"].as_str().unwrap().to_owned();
    gateway.send(gateway.request(Method::DELETE, S1)).await.ok();
    let (code, lines, said) = tail.end().await;
    assert_eq!((code, lines.len()), (Some(1), 0));
    assert!(said.contains("(4404 deleted"), "{said}");
    assert!(
        said.ends_with(&format!("the last record printed has pos {pos}\n")),
        "{said}"
    );

    made(
        &gateway,
        &json!({"encoding":{"json":{"metaFields":{"pos":false}}}}),
    )
    .await;
    let off = Tail::start(&gateway.url, &["s1", "--begin", "earliest"]);
    clients(&gateway, true).await;
    off.interrupt();
    assert_eq!(off.end().await.0, Some(0));
}

#[tokio::test]
async fn only_users_read_where_there_are_users() {
    let place = Place::new()
        .env("SYNCGATE_ADMIN_USER", "ada")
        .env("SYNCGATE_ADMIN_PASSWORD", "correct horse battery");
    let gateway = place.start();
    let config = json!({"source":{"trail":"DataSyncStream"}});
    let create = gateway.request(Method::POST, S1).json(&config);
    let create = create.basic_auth("ada", Some("correct horse battery"));
    assert_eq!(gateway.send(create).await.status, 201);
    sync(&gateway, 0..1).await;
    let arguments = ["s1", "--begin", "earliest", "--count", "2"];
    let none = Tail::start(&gateway.url, &arguments);
    none.fails(1, "(the gateway answered 401 unauthenticated")
        .await;
    let wrong = [
        ("SYNCGATE_USER", "ada"),
        ("SYNCGATE_PASSWORD", "wrong horse"),
    ];
    let (code, _, said) = Tail::start_with(&gateway.url, &arguments, &wrong)
        .end()
        .await;
    assert_eq!(code, Some(1));
    assert!(
        said.contains("set SYNCGATE_USER and SYNCGATE_PASSWORD"),
        "{said}"
    );
    assert!(!said.contains("horse"), "{said}");
    let right = [
        ("SYNCGATE_USER", "ada"),
        ("SYNCGATE_PASSWORD", "correct horse battery"),
    ];
    let (code, lines, said) = Tail::start_with(&gateway.url, &arguments, &right)
        .end()
        .await;
    assert_eq!((code, lines.len(), said.as_str()), (Some(0), 2, ""));
}

#[tokio::test]
async fn a_reader_that_goes_ends_it_without_a_word_also_while_nothing_comes() {
    let gateway = Gateway::start();
    made(&gateway, &json!({})).await;
    let mut child = syncgate()
        .args(["tail", "s1", "--url", &gateway.url])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    clients(&gateway, true).await;
    drop(child.stdout.take());
    // No record comes: only its pipe can tell.
    let status = poll("its end", async || child.try_wait().unwrap()).await;
    let mut said = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert_eq!((status.code(), said.as_str()), (Some(0), ""));
    // The connection was closed, and not left.
    clients(&gateway, false).await;
}

#[tokio::test]
async fn whatever_ends_it_the_next_command_goes_on_where_it_stopped() {
    let gateway = Gateway::start();
    made(&gateway, &json!({})).await;
    sync(&gateway, 0..2).await;
    let arguments = ["s1", "--begin", "earliest", "--output", "json"];
    let mut first = Tail::start(&gateway.url, &arguments);
    let made = first.record().await;
    assert_eq!(made["op_type"], "DDL");
    assert_eq!(first.xids(2).await, expected(0..2));
    first.interrupt();
    let (code, _, said) = first.end().await;
    assert_eq!(code, Some(0), "{said}");
    sync(&gateway, 2..4).await;
    let (_, next) = said
        .trim_end()
        .split_once("go on behind it with: ")
        .unwrap();
    // The reader goes after a record; the rest of the lines were written, or can be had again.
    let run = |command: &str| {
        let ended = std::process::Command::new("sh")
            .args(["-c", &command.replacen("syncgate", "\"$BINARY\"", 1)])
            .env("BINARY", syncgate().get_program())
            .output();
        let ended = ended.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(ended.stdout), text(ended.stderr))
    };
    let (out, said) = run(&format!("{next} | head -1"));
    assert!(out.contains(&expected(2..3)[0]), "{out}");
    let told = "note: the reader of the output has gone; the last record printed has pos p1";
    assert!(said.starts_with(told), "{said}");
    assert!(
        said.contains("; go on behind it with: syncgate tail s1 --begin p1"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
    let (out, said) = run(&format!("{next} --count 2"));
    let xids: Vec<_> = out
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["xid"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!((xids, &*said), (expected(2..4), ""));
}

#[tokio::test]
async fn columns_stay_in_place_where_there_is_no_key() {
    let gateway = Gateway::start();
    made(&gateway, &json!({})).await;
    for key in ["order-17", "", "k"] {
        let message = keyed(key, "http://127.0.0.1:9/x", json!(1));
        gateway.sync(&message).await;
    }
    let arguments = ["s1", "--begin", "earliest", "--count", "4"];
    let (_, lines, _) = Tail::start(&gateway.url, &arguments).end().await;
    let calls: Vec<_> = lines[1..].iter().map(|line| line.find("POST ")).collect();
    assert!(calls[0].is_some(), "{lines:?}");
    assert_eq!(calls, [calls[0]; 3], "{lines:?}");
    let words: Vec<_> = lines[2].split_whitespace().collect();
    assert_eq!(words[4..6], ["-", "POST"], "{lines:?}");
}

#[tokio::test]
async fn with_a_cursor_it_goes_on_behind_what_it_printed_the_last_time() {
    let gateway = Gateway::start();
    let config = json!({"source": {"trail": "a1"}});
    gateway.post(S1, &config).await.ok();
    let one = |n| keyed("k", "http://127.0.0.1:9/x", json!({ "n": n }));
    gateway.sync_all(&Vec::from_iter((0..6).map(one))).await;
    let with = |more: &[&'static str]| {
        let common = ["s1", "--cursor", "c1", "--output", "json"];
        [&common[..], more].concat()
    };
    let first = with(&["--begin", "earliest", "--count", "3"]);
    let mut tail = Tail::start(&gateway.url, &first);
    assert_eq!(tail.xids(3).await, ["ddl.1", "0.0", "0.1"]);
    assert_eq!(tail.end().await.0, Some(0));
    let mut tail = Tail::start(&gateway.url, &with(&["--begin", "earliest"]));
    assert_eq!(tail.xids(4).await, ["0.2", "0.3", "0.4", "0.5"]);
    // Another one is refused, or takes it over.
    let refused = Tail::start(&gateway.url, &with(&[]));
    refused.fails(1, "cursor_in_use").await;
    let acked = poll("the last ack", async || {
        let shown = gateway.get("/v1/data-streams/s1/cursors").await.body;
        (shown["items"][0]["recordsBehind"] == 0).then_some(())
    });
    acked.await;
    let mut other = Tail::start(&gateway.url, &with(&["--takeover"]));
    let (code, lines, said) = tail.end().await;
    assert_eq!((code, lines), (Some(1), Vec::new()), "{said}");
    assert!(said.contains("taken"), "{said}");
    gateway.sync_all(&[one(6)]).await;
    assert_eq!(other.xids(1).await, ["0.6"]);
}
