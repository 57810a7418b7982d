//! A panic in the work of one client ends that work only. The tests run a whole gateway on real sockets; a record or
//! a request provokes a panic in each kind of work.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, http::StatusCode};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};
use tokio_util::sync::CancellationToken;

use super::Gateway;
use crate::{
    config::{Overrides, Sources, load},
    runtime::tasks::{Part, Tasks},
    telemetry::LogLevel,
};

const DEADLINE: Duration = Duration::from_secs(60);
const S1: &str = "/services/v2/stream/s1";

/// A gateway with one seat for subscribers and two connections, so that a lost one is noticed. A retry calls one
/// record at a time.
struct Whole {
    address: SocketAddr,
    stop: CancellationToken,
    tasks: Tasks,
    target: SocketAddr,
    /// How many calls the target has had; it answers 503 while its switch is off.
    calls: Arc<AtomicUsize>,
    is_up: Arc<AtomicUsize>,
    _dir: tempfile::TempDir,
}

impl Whole {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("syncgate.toml");
        let config =
            "[server]\nconnections_max = 2\n[push]\nclients_max = 1\n[retry]\nin_flight_max = 1\n";
        std::fs::write(&file, config).unwrap();
        let sources = Sources {
            file: Some(file),
            overrides: Overrides {
                data: Some(dir.path().join("data")),
                listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            },
            ..Sources::default()
        };
        let loaded = load(sources).unwrap();
        let gateway = Box::pin(Gateway::bind(loaded, LogLevel::default())).await;
        let gateway = gateway.unwrap();
        let (tasks, stop) = (Tasks::new(), CancellationToken::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let whole = Self {
            address: gateway.address(),
            stop: stop.clone(),
            tasks: tasks.clone(),
            target: listener.local_addr().unwrap(),
            calls: Arc::default(),
            is_up: Arc::default(),
            _dir: dir,
        };
        let (calls, is_up) = (whole.calls.clone(), whole.is_up.clone());
        let answer = move || async move {
            calls.fetch_add(1, Ordering::SeqCst);
            match is_up.load(Ordering::SeqCst) {
                0 => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::OK,
            }
        };
        let serving = stop.clone();
        tasks.spawn("target", async move {
            let router = Router::new().fallback(answer);
            let served = axum::serve(listener, router).into_future();
            drop(serving.run_until_cancelled(served).await);
        });
        tasks.spawn("gateway", async move {
            // A gateway that stops by itself fails the test.
            gateway.run(stop).await.unwrap();
        });
        whole
    }

    /// Sends a request on a connection of its own, and returns all that comes until that ends.
    async fn raw(&self, request: &str) -> String {
        let mut connection = TcpStream::connect(self.address).await.unwrap();
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = timeout(DEADLINE, connection.read_to_end(&mut answer)).await;
        read.expect("an answer, or an end").unwrap();
        String::from_utf8(answer).unwrap()
    }

    async fn get(&self, path: &str) -> String {
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        self.raw(&head).await
    }

    async fn post(&self, path: &str, body: &Value) -> String {
        let body = body.to_string();
        let len = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {len}\r\n\r\n"
        );
        self.raw(&(head + &body)).await
    }

    /// Posts a message with that payload.
    async fn sync(&self, payload: &str) {
        let url = format!("http://{}/x", self.target);
        let message = json!({"targetRestApi": url, "targetRestApiOperation": "POST", "targetRestApiPayload": payload});
        let submission = json!({"streamMessage": message});
        let answer = self.post("/stream/sync", &submission).await;
        check_status(&answer, 200);
    }

    /// Reads until the gateway ends the stream.
    async fn events(&self, query: &str) -> String {
        let head = format!(
            "GET {S1}?{query} HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\nconnection: close\r\n\r\n"
        );
        // The seat of the last client is free a moment after its connection ended.
        let answered = async {
            loop {
                let answer = self.raw(&head).await;
                if !answer.starts_with("HTTP/1.1 503 ") {
                    return answer;
                }
            }
        };
        timeout(DEADLINE, answered).await.expect("a free place")
    }

    async fn socket(&self, query: &str) -> WebSocketStream<TcpStream> {
        let url = format!("ws://localhost{S1}?{query}");
        let connected = async {
            loop {
                let stream = TcpStream::connect(self.address).await.unwrap();
                match client_async(&url, stream).await {
                    Ok((socket, _)) => return socket,
                    Err(_refused) => tokio::task::yield_now().await,
                }
            }
        };
        timeout(DEADLINE, connected).await.expect("a free place")
    }

    async fn check_panics(&self, expected: &[(Part, u64)]) {
        let metrics = self.get("/metrics").await;
        for (part, count) in expected {
            let line = format!("syncgate_panics_total{{part=\"{}\"}} {count}", part.word());
            assert!(
                metrics.lines().any(|one| one.trim() == line),
                "{line}\n{metrics}"
            );
        }
    }

    async fn end(self) {
        check_status(&self.get("/readyz").await, 200);
        self.stop.cancel();
        assert_eq!(self.tasks.join(DEADLINE).await, 0);
        let failed = futures_util::FutureExt::now_or_never(self.tasks.failed());
        assert_eq!(failed, None, "the gateway ended by itself");
    }
}

fn asks_for(part: Part) -> String {
    format!("panic-on-purpose:{}.", part.word())
}

#[track_caller]
fn check_status(answer: &str, status: u16) {
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {status} ")),
        "{answer}"
    );
}

/// Returns the code with which a socket is closed.
async fn closed(socket: &mut WebSocketStream<TcpStream>) -> u16 {
    loop {
        let message = timeout(DEADLINE, socket.next()).await.expect("a message");
        if let Message::Close(frame) = message.expect("a close").unwrap() {
            return frame.unwrap().code.into();
        }
    }
}

/// Reads until a text has come.
async fn comes(socket: &mut WebSocketStream<TcpStream>, wanted: &str) -> String {
    let mut came = String::new();
    while !came.contains(wanted) {
        let message = timeout(DEADLINE, socket.next()).await.expect(wanted);
        match message.expect(wanted).unwrap() {
            Message::Text(text) => came.push_str(&text),
            Message::Close(frame) => panic!("closed: {frame:?}"),
            _ => {}
        }
    }
    came
}

#[tokio::test]
async fn a_panic_in_a_connection_or_a_request_ends_that_one() {
    let whole = Whole::start().await;
    // More often than there are connections.
    for _ in 0..3 {
        let path = format!("/{}", asks_for(Part::Connection));
        assert_eq!(whole.get(&path).await, "", "no answer, and the end");
    }
    let path = format!("/{}", asks_for(Part::Request));
    let both = format!(
        "GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\nGET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    );
    let answers = whole.raw(&both).await;
    check_status(&answers, 500);
    assert!(answers.contains("urn:syncgate:problem:internal"));
    assert!(answers.contains("HTTP/1.1 200 "), "{answers}");
    let counted = [(Part::Connection, 3), (Part::Request, 1)];
    whole.check_panics(&counted).await;
    whole.end().await;
}

#[tokio::test]
async fn a_panic_in_a_session_or_in_events_gives_back_the_place_and_the_cursor() {
    let whole = Whole::start().await;
    let config = json!({"source": {"trail": "DataSyncStream"}});
    check_status(&whole.post(S1, &config).await, 201);
    for _ in 0..2 {
        let mut socket = whole.socket("begin=earliest&cursor=c1").await;
        let text = asks_for(Part::WebSocket);
        socket.send(Message::text(text)).await.unwrap();
        assert_eq!(closed(&mut socket).await, 1011);
    }
    whole.sync(&asks_for(Part::Sse)).await;
    for _ in 0..2 {
        let events = whole.events("begin=earliest").await;
        check_status(&events, 200);
        let close = "event: close\ndata: {\"code\":1011,\"reason\":\"internal\"}\n\n";
        assert!(events.contains(close), "{events}");
        assert!(events.ends_with("\r\n0\r\n\r\n"), "the answer is whole");
    }
    // The record provokes a panic in Server-Sent Events only, so a WebSocket client gets it.
    let mut socket = whole.socket("begin=earliest&cursor=c1").await;
    comes(&mut socket, &asks_for(Part::Sse)).await;
    let counted = [(Part::WebSocket, 2), (Part::Sse, 2)];
    whole.check_panics(&counted).await;
    let metrics = whole.get("/metrics").await;
    let closes = "syncgate_push_closes_total{code=\"1011\"} 4";
    assert!(metrics.contains(closes), "{metrics}");
    drop(socket);
    whole.end().await;
}

#[tokio::test]
async fn a_panic_in_a_frame_or_a_page_ends_its_waiting_subscribers() {
    let whole = Whole::start().await;
    let config = json!({"source": {"trail": "DataSyncStream"}, "bufferSize": 131_072});
    check_status(&whole.post(S1, &config).await, 201);
    // The third one is in a page that is read ahead.
    let large = "x".repeat(700_000);
    whole.sync(&large).await;
    whole.sync(&large).await;
    whole.sync(&asks_for(Part::Page)).await;
    let mut socket = whole.socket("begin=earliest").await;
    comes(&mut socket, &asks_for(Part::Page)).await;
    drop(socket);
    whole.check_panics(&[(Part::Frame, 0)]).await;
    let metrics = whole.get("/metrics").await;
    let none = "syncgate_panics_total{part=\"page\"} 0";
    assert!(!metrics.contains(none), "{metrics}");

    whole.sync(&asks_for(Part::Frame)).await;
    let mut socket = whole.socket("begin=earliest").await;
    assert_eq!(closed(&mut socket).await, 1011);
    drop(socket);
    let events = whole.events("begin=earliest").await;
    assert!(events.contains("{\"code\":1011,"), "{events}");
    let mut behind = whole.socket("begin=now").await;
    whole.sync("behind it").await;
    comes(&mut behind, "behind it").await;
    drop(behind);
    whole.end().await;
}

#[tokio::test]
async fn a_panic_in_a_retry_frees_its_partition_and_leaves_nothing_under_way() {
    let whole = Whole::start().await;
    for payload in ["first", "second", &asks_for(Part::Retry), "last"] {
        whole.sync(payload).await;
    }
    let path = "/v1/streams/ServerUnavailableStream/partitions/0/records";
    let moved = async { while !whole.get(path).await.contains("\"tail\":4") {} };
    timeout(DEADLINE, moved).await.expect("four error records");
    assert_eq!(whole.calls.load(Ordering::SeqCst), 4);
    whole.is_up.store(1, Ordering::SeqCst);
    let retry = async |after: i64| {
        let body = json!({"streamOCIDToRetry": "ServerUnavailableStream", "noOfMessagesToProcess": 10,
            "readAfterOffset": after, "readPartition": "0", "errormapping": []});
        whole.post("/stream/retry", &body).await
    };
    // Records in flight were taken back, or were called and are settled when the answer comes.
    let ended = async || {
        let page = whole.get(path).await;
        let ended = page.matches("\"settled\":true").count();
        assert_eq!(whole.calls.load(Ordering::SeqCst), 4 + ended, "{page}");
        ended
    };
    check_status(&retry(-1).await, 500);
    let first = ended().await;
    assert!((1..=2).contains(&first), "the second waits for the first");
    check_status(&retry(-1).await, 500);
    let before = ended().await;
    let answer = retry(2).await;
    check_status(&answer, 200);
    assert!(answer.contains("\"processedmessages\":1"), "{answer}");
    assert_eq!(ended().await, before + 1, "nothing was called in between");
    whole.check_panics(&[(Part::Retry, 2)]).await;
    whole.end().await;
}
