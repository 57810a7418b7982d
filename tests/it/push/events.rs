//! Server-Sent Events: where they start, what each has, and how they end (`push-decisions.md` §11).

use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::raw::{Raw, create, handshake, path, post, refused, send};
use crate::testkit::{Gateway, within};

/// A connection with events.
struct Events {
    response: Response,
    text: String,
}

/// One event, or a comment or a setting between them.
#[derive(Debug, Default, PartialEq)]
struct Event {
    name: Option<String>,
    id: Option<String>,
    data: Option<String>,
    other: Vec<String>,
}

impl Events {
    async fn open(gateway: &Gateway, at: &str, last: Option<&str>) -> Self {
        let mut request = gateway.request(Method::GET, at);
        request = request.header("accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = within("an answer", request.send()).await.unwrap();
        assert_eq!(response.status(), 200);
        for (name, value) in [
            ("content-type", "text/event-stream"),
            ("cache-control", "no-store"),
            ("x-accel-buffering", "no"),
        ] {
            assert_eq!(response.headers()[name], value);
        }
        let mut events = Self {
            response,
            text: String::new(),
        };
        let first = events.next().await.unwrap();
        assert_eq!(first.other, ["retry: 2000"]);
        events
    }

    /// The next event; nothing at the end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let mut event = Event::default();
                for line in block.split('\n') {
                    match line.split_once(": ") {
                        Some(("event", name)) => event.name = Some(name.into()),
                        Some(("id", id)) => event.id = Some(id.into()),
                        Some(("data", data)) => event.data = Some(data.into()),
                        _ => event.other.push(line.into()),
                    }
                }
                self.text = rest.to_owned();
                return Some(event);
            }
            let Some(chunk) = within("a chunk", self.response.chunk()).await.unwrap() else {
                assert_eq!(self.text, "", "an event in parts");
                return None;
            };
            self.text += std::str::from_utf8(&chunk).unwrap();
        }
    }

    /// `xid`s of records until there are that many, and the id behind them; events have the id of their last record.
    async fn records(&mut self, count: usize) -> (Vec<String>, String) {
        let (mut all, mut last) = (Vec::new(), String::new());
        while all.len() < count {
            let event = self.next().await.expect("it is open");
            assert_eq!(event.name, None);
            let records: Vec<Value> = serde_json::from_str(&event.data.unwrap()).unwrap();
            let pos = records.last().and_then(|record| record["pos"].as_str());
            assert_eq!(event.id.as_deref(), pos, "{records:?}");
            last = pos.unwrap_or_default().into();
            let records = records.iter().filter(|record| record.get("pos").is_some());
            all.extend(records.map(|record| record["xid"].as_str().unwrap().to_owned()));
        }
        assert_eq!(all.len(), count);
        (all, last)
    }

    /// Code and reason of the event that ends it; behind it nothing comes.
    async fn closed(mut self) -> Value {
        let event = self.next().await.expect("an event before the end");
        assert_eq!((event.name.as_deref(), event.id), (Some("close"), None));
        assert_eq!(self.next().await, None);
        serde_json::from_str(&event.data.unwrap()).unwrap()
    }
}

#[tokio::test]
async fn the_id_of_the_last_event_wins_over_begin() {
    let gateway = Gateway::start();
    create(&gateway, "s1", json!({})).await;
    create(&gateway, "s2", json!({})).await;
    post(&gateway, 3).await;
    let at = path("s1");
    // The schemas have no id: whoever has had nothing else begins as it did before.
    let (all, _) = Events::open(&gateway, &at, None).await.records(4).await;
    assert_eq!(all, ["ddl.1", "0.0", "0.1", "0.2"]);
    let mut raw = Raw::new(&gateway, "s1", "earliest").await;
    raw.records(2).await;
    let second = raw.pos.unwrap();
    let mut last = String::new();
    for begin in ["", "?begin=earliest", "?begin=now", "?begin=never"] {
        let mut events = Events::open(&gateway, &format!("{at}{begin}"), Some(&second)).await;
        let (rest, id) = events.records(2).await;
        assert_eq!(rest, all[2..], "{begin}");
        last = id;
    }
    let mut events = Events::open(&gateway, &at, Some(&last)).await;
    let socket = handshake(&gateway, Method::GET, &format!("{at}?begin=now"));
    let socket = socket
        .header("last-event-id", &second)
        .send()
        .await
        .unwrap();
    let starts_at = &socket.headers()["x-syncgate-position"];
    assert_eq!(starts_at, last.as_str(), "it is for events alone");
    post(&gateway, 1).await;
    assert_eq!(events.records(1).await.0, ["0.3"]);
    for (at, last, status, word) in [
        (path("s1"), "never", 400, "begin_invalid"),
        (path("s2"), second.as_str(), 409, "position_foreign"),
    ] {
        let request = gateway.request(Method::GET, &format!("{at}?begin=earliest"));
        let request = request.header("accept", "text/event-stream");
        let answer = gateway.send(request.header("last-event-id", last)).await;
        let number = if status == 400 {
            "OGG-12135"
        } else {
            "OGG-12004"
        };
        refused(&answer, status, word, number);
    }
}

#[tokio::test]
async fn whoever_has_a_cursor_goes_on_behind_what_it_has_acknowledged_until_another_one_comes() {
    let gateway = Gateway::start();
    create(&gateway, "s1", json!({})).await;
    post(&gateway, 3).await;
    let at = format!("{}?cursor=c1&begin=earliest", path("s1"));
    let mut first = Events::open(&gateway, &at, None).await;
    let (all, last) = first.records(4).await;
    assert_eq!(all, ["ddl.1", "0.0", "0.1", "0.2"]);
    let ack = json!({ "ack": last }).to_string();
    let cursor = "/v1/data-streams/s1/cursors/c1/ack";
    let acked = send(&gateway, Method::POST, cursor, ack).await;
    assert_eq!(acked.status, 204, "{}", acked.body);
    let request = gateway.request(Method::GET, &at);
    let request = request.header("accept", "text/event-stream");
    let answer = gateway.send(request).await;
    refused(&answer, 409, "cursor_in_use", "OGG-12004");
    let mut second = Events::open(&gateway, &format!("{at}&takeover=true"), None).await;
    let close = json!({ "code": 4409, "reason": "taken_over" });
    assert_eq!(first.closed().await, close);
    post(&gateway, 1).await;
    assert_eq!(second.records(1).await.0, ["0.3"]);
    let gone = send(&gateway, Method::DELETE, &path("s1"), "").await;
    gone.ok();
    let close = json!({ "code": 4404, "reason": "deleted" });
    assert_eq!(second.closed().await, close);
}
