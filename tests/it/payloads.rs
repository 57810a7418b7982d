//! Payloads that JSON allows and many a reader refuses: half of a surrogate pair, numbers beyond every double, depth. Each
//! reader of the gateway shows them as they were sent, with their neighbours, and hides credentials beside them.

use std::process::Output;

use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::{client_async, tungstenite::Message};

use crate::testkit::{Act, Gateway, StubTarget, poll, syncgate, within};

const ERRORS: &str = "InternalserverErrorStream";
const SECRET: &str = "geheim-7";

/// Odd ones between plain ones.
fn payloads() -> Vec<String> {
    vec![
        r#"{"n":0}"#.to_owned(),
        r#"{"half":"\ud800","\udfff":["\udc00\ud800"]}"#.to_owned(),
        r#"{"large":1e400,"small":-1E-400,"digits":12345678901234567890.120}"#.to_owned(),
        "[".repeat(126) + &"]".repeat(126),
        r#"{"n":4}"#.to_owned(),
    ]
}

/// A gateway whose error stream has all of them, each with a credential beside it.
async fn failed(target: &StubTarget) -> Gateway {
    let gateway = Gateway::start();
    for (key, payload) in payloads().iter().enumerate() {
        let url = target.url("/x");
        let body = format!(
            r#"{{"streamKey":"k{key}","streamMessage":{{"targetRestApi":"{url}","targetRestApiOperation":"POST",
            "targetRestApiHeaders":[{{"key":"X-Api-Key","value":"{SECRET}"}}],"targetRestApiPayload":{payload}}}}}"#
        );
        let request = gateway.request(Method::POST, "/stream/sync").body(body);
        gateway.send(request).await.ok();
    }
    poll("five error records", async || {
        (gateway.count(ERRORS, "open").await == 5).then_some(())
    })
    .await;
    gateway
}

fn shown(payload: &str) -> String {
    format!(r#""targetRestApiPayload":{payload}"#)
}

/// Records of different keys fail in any order, so that none of them is known to be the last one.
fn all_came(text: &str) -> bool {
    payloads()
        .iter()
        .all(|payload| text.contains(&shown(payload)))
}

#[track_caller]
fn check_shown(text: &str) {
    for payload in &payloads() {
        let shown = shown(payload);
        assert!(text.contains(&shown), "{shown} is not in {text}");
    }
    assert!(!text.contains(SECRET), "{text}");
    // The schemas name the column, and no record has it.
    for base64 in [r#""valueBase64":""#, r#""DATA_BASE64":""#] {
        assert!(!text.contains(base64), "{text}");
    }
}

async fn run(gateway: &Gateway, arguments: &[&str]) -> String {
    let mut command = syncgate();
    command.args(arguments).args(["--url", &gateway.url]);
    let ended = tokio::task::spawn_blocking(move || command.output());
    let Output {
        status,
        stdout,
        stderr,
    } = within("an end", ended).await.unwrap().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert!(status.success(), "{arguments:?}: {said}");
    String::from_utf8(stdout).unwrap()
}

#[tokio::test]
async fn records_are_shown_as_they_were_sent_whatever_json_allows() {
    let target = StubTarget::with(|_| Act::status(500)).await;
    let gateway = failed(&target).await;
    let path = format!("/v1/streams/{ERRORS}/partitions/0/records");
    let response = gateway.request(Method::GET, &path).send();
    let page = within("a page", response).await.unwrap().text();
    check_shown(&page.await.unwrap());

    let text = run(&gateway, &["records", ERRORS]).await;
    let rows = text.lines().filter(|line| line.contains("POST"));
    let rows = rows.filter(|line| line.contains(&target.url("/x")));
    assert_eq!(rows.count(), 5, "{text}");
    let end = "5 records of the only partition, up to the end\n";
    assert!(text.ends_with(end), "{text}");
    let line = run(&gateway, &["records", ERRORS, "--output", "json"]).await;
    check_shown(&line);
    assert_eq!(line.lines().count(), 1);

    // Each is called again with the bytes that were sent.
    target.now(|_| Act::status(200));
    let report = gateway.retry(ERRORS, -1, 10).await;
    assert_eq!(report["processedmessages"], 5, "{report}");
    let bodies = target.calls().into_iter().skip(5).map(|call| call.body);
    let mut bodies: Vec<_> = bodies
        .map(|body| String::from_utf8(body.to_vec()).unwrap())
        .collect();
    let mut sent = payloads();
    bodies.sort_unstable();
    sent.sort_unstable();
    assert_eq!(bodies, sent);
}

#[tokio::test]
async fn subscribers_get_what_was_sent_whatever_json_allows() {
    let target = StubTarget::with(|_| Act::status(500)).await;
    let gateway = failed(&target).await;
    let plain = json!({"source": {"trail": ERRORS}});
    let events = json!({"source": {"trail": ERRORS}, "cloudEventsFormat": true});
    for (name, config) in [("s1", &plain), ("s2", &events)] {
        let path = format!("/services/v2/stream/{name}");
        assert_eq!(gateway.post(&path, config).await.status, 201);
        let address = gateway.url.trim_start_matches("http://");
        let stream = TcpStream::connect(address).await.unwrap();
        let url = format!("ws://{address}{path}?begin=earliest");
        let connected = within("a handshake", client_async(url, stream)).await;
        let (mut socket, _) = connected.unwrap();
        let mut came = String::new();
        while !all_came(&came) {
            if let Message::Text(text) = within("a frame", socket.next()).await.unwrap().unwrap() {
                came.push_str(&text);
            }
        }
        check_shown(&came);

        let request = gateway.request(Method::GET, &format!("{path}?begin=earliest"));
        let request = request.header("accept", "text/event-stream").send();
        let mut response = within("an answer", request).await.unwrap();
        let mut came = String::new();
        while !all_came(&came) {
            let chunk = within("an event", response.chunk()).await.unwrap().unwrap();
            came.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        check_shown(&came);

        // The making of the stream is the first one.
        let arguments = ["tail", name, "--begin", "earliest", "--count", "6"];
        let lines = run(&gateway, &[&arguments[..], &["--output", "json"]].concat()).await;
        check_shown(&lines);
        assert_eq!(lines.lines().count(), 6, "{lines}");
        let lines = run(&gateway, &arguments).await;
        for payload in &payloads() {
            let shown = lines.lines().any(|line| line.ends_with(payload));
            assert!(shown, "{payload} is not in {lines}");
        }
        assert!(!lines.contains(SECRET), "{lines}");
    }
}
