//! What no gateway does when it is asked to: a stand-in that ends connections in each of the ways that there are.

use std::collections::VecDeque;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role},
    },
};

use super::Tail;
use crate::testkit::within;

/// What becomes of one handshake.
enum Act {
    /// Status, further headers, word and title of the problem.
    Refuse(u16, &'static str, &'static str),
    /// The connection is cut off behind it.
    Cut,
    /// These messages, then so many of the client are waited for, then this close. Without a code the client closes.
    Serve(&'static [&'static str], usize, Option<(u16, &'static str)>),
}

/// Stands for a gateway; each handshake is the next act.
struct Scripted {
    url: String,
    /// The query of each handshake.
    asked: mpsc::Receiver<String>,
    /// What clients said; `close CODE` at the end.
    heard: mpsc::Receiver<String>,
}

impl Scripted {
    async fn start(acts: impl IntoIterator<Item = Act>) -> Self {
        let mut acts: VecDeque<_> = acts.into_iter().collect();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (asks, asked) = mpsc::channel(100);
        let (hears, heard) = mpsc::channel(100);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let head = head(&mut stream).await;
                if !head.contains("upgrade: websocket") {
                    answer(&mut stream, 200, "", &json!({"response":{}})).await;
                    continue;
                }
                let query = head.split([' ', '?']).nth(2).unwrap().to_owned();
                asks.send(query).await.unwrap();
                let act = acts.pop_front().expect("no more handshakes than acts");
                act.play(stream, &head, &hears).await;
            }
        });
        Self { url, asked, heard }
    }

    async fn asked(&mut self) -> String {
        within("a handshake", self.asked.recv()).await.unwrap()
    }

    async fn heard(&mut self) -> String {
        within("a message of the client", self.heard.recv())
            .await
            .unwrap()
    }
}

impl Act {
    async fn play(self, mut stream: TcpStream, head: &str, hears: &mpsc::Sender<String>) {
        let (messages, wait_for, close) = match self {
            Self::Refuse(status, headers, word) => {
                let kind = format!("urn:syncgate:problem:{word}");
                let body = json!({"messages":[{"type":kind,"title":"No: because"}]});
                return answer(&mut stream, status, headers, &body).await;
            }
            Self::Cut => (&[][..], 0, None),
            Self::Serve(messages, wait_for, close) => (messages, wait_for, close),
        };
        let mut lines = head.lines();
        let key = lines
            .find_map(|line| line.strip_prefix("sec-websocket-key: "))
            .unwrap();
        let accept = derive_accept_key(key.as_bytes());
        let switch = format!(
            "HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\n"
        );
        stream.write_all(switch.as_bytes()).await.unwrap();
        if matches!(self, Self::Cut) {
            return;
        }
        let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
        for message in messages {
            socket.send(Message::text(*message)).await.unwrap();
        }
        for _ in 0..wait_for {
            hear(&mut socket, hears).await;
        }
        if let Some((code, reason)) = close {
            let close = CloseFrame {
                code: code.into(),
                reason: reason.into(),
            };
            socket.close(Some(close)).await.unwrap();
        }
        while hear(&mut socket, hears).await {}
    }
}

/// Tells what comes next; false if that is nothing.
async fn hear(socket: &mut WebSocketStream<TcpStream>, hears: &mpsc::Sender<String>) -> bool {
    let heard = match within("a message of the client", socket.next()).await {
        Some(Ok(Message::Text(text))) => text.to_string(),
        Some(Ok(Message::Close(Some(frame)))) => format!("close {}", u16::from(frame.code)),
        _ => return false,
    };
    hears.send(heard).await.unwrap();
    true
}

/// Reads the head of a request; only the names of headers are written in lower case.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within("a request", stream.read_u8()).await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

async fn answer(stream: &mut TcpStream, status: u16, headers: &str, body: &Value) {
    let body = body.to_string();
    let len = body.len();
    let answer = format!(
        "HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {len}\r\n{headers}\r\n{body}"
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
}

const A: &str = r#"[{"pos":"p1a","xid":"a"}]"#;
const B: &str = r#"[{"pos":"p1b","xid":"b"}]"#;
const C: &str = r#"[{"pos":"p1c","xid":"c"}]"#;
const AB: &str = r#"[{"pos":"p1a","xid":"a"},{"pos":"p1b","xid":"b"}]"#;
const BEGIN: [&str; 5] = ["s1", "--begin", "earliest", "--output", "json"];

#[tokio::test]
async fn every_end_that_passes_is_followed_by_a_connection_behind_the_last_record() {
    let mut gateway = Scripted::start([
        Act::Serve(&[A], 0, Some((1011, "internal"))),
        Act::Cut,
        Act::Refuse(503, "retry-after: 1\r\n", "queue_full"),
        Act::Serve(&["[]", B], 0, Some((4408, "stalled pos=p1b"))),
        Act::Serve(&[], 0, Some((4429, "too_many"))),
        Act::Serve(&[C], 0, None),
    ])
    .await;
    let mut tail = Tail::start(&gateway.url, &BEGIN);
    assert_eq!(tail.xids(3).await, ["a", "b", "c"]);
    for begin in ["earliest", "p1a", "p1a", "p1a", "p1b", "p1b"] {
        assert_eq!(gateway.asked().await, format!("begin={begin}"));
    }
    tail.interrupt();
    // The answers to closes came before.
    for heard in ["close 1011", "close 4408", "close 4429", "close 1000"] {
        assert_eq!(gateway.heard().await, heard);
    }
    let (code, lines, said) = tail.end().await;
    assert_eq!((code, lines.len()), (Some(0), 0));
    let told = [
        "(1011 internal); connecting again in 0.",
        "the connection broke",
        "because (the gateway answered 503 queue_full); connecting again in 1.",
        "(4408 stalled pos=p1b); connecting again in 0.",
        "(4429 too_many); connecting again in 0.",
        "note: stopped; the last record printed has pos p1c; go on behind it with: syncgate tail s1 --begin p1c --output json --url",
    ];
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), told.len(), "{said}");
    for (line, told) in lines.iter().zip(told) {
        assert!(line.contains(told), "{told} is not in {line}");
    }
}

#[tokio::test]
async fn every_other_end_is_told_and_there_is_no_further_connection() {
    const CUT: Act = Act::Serve(&[A], 0, Some((1001, "drain")));
    let close = |code, word| vec![Act::Serve(&[A], 0, Some((code, word)))];
    for (acts, words) in [
        (close(1009, ""), "(1009): the client broke the protocol"),
        (close(4400, "bad_message"), "(4400 bad_message): "),
        (
            close(4401, "unauthorized"),
            "(4401 unauthorized): the user has no access any more",
        ),
        (
            close(4403, "forbidden"),
            "(4403 forbidden): the user may not",
        ),
        (
            close(4409, "taken_over"),
            "(4409 taken_over): another client",
        ),
        (
            close(4410, "position_gone"),
            "begin with the earliest record that is left: syncgate tail s1 --begin earliest --output json --url",
        ),
        (
            vec![CUT, Act::Refuse(400, "", "begin_invalid")],
            "because\n       (the gateway answered 400 begin_invalid)",
        ),
        (
            vec![CUT, Act::Refuse(401, "", "unauthenticated")],
            "set SYNCGATE_USER",
        ),
        (
            vec![CUT, Act::Refuse(403, "", "forbidden")],
            "because\n       (the gateway answered 403 forbidden)",
        ),
        (
            vec![CUT, Act::Refuse(404, "", "not_found")],
            "because\n       (the gateway answered 404 not_found)",
        ),
        (
            vec![CUT, Act::Refuse(409, "", "position_foreign")],
            "409 position_foreign",
        ),
        (
            vec![CUT, Act::Refuse(410, "", "position_gone")],
            "410 position_gone",
        ),
        (
            vec![Act::Serve(&[A, "{}"], 0, None)],
            "not an array of records",
        ),
    ] {
        let gateway = Scripted::start(acts).await;
        let (code, lines, said) = Tail::start(&gateway.url, &BEGIN).end().await;
        assert_eq!((code, lines.len()), (Some(1), 1), "{words}: {said}");
        assert!(said.contains(words), "{words} is not in {said}");
        assert!(
            said.contains("the last record printed has pos p1a"),
            "{said}"
        );
        // What is gone cannot be gone on with.
        let is_gone = ["404 not_found", "(4410 ", "410 position_gone"];
        let is_gone = is_gone.iter().any(|gone| said.contains(gone));
        let next = format!(
            "go on behind it with: syncgate tail s1 --begin p1a --output json --url {}\n",
            gateway.url
        );
        assert_eq!(said.ends_with(&next), !is_gone, "{said}");
    }
    // Whatever it is, the first handshake is not tried again.
    let first = Scripted::start([Act::Refuse(503, "retry-after: 1\r\n", "queue_full")]).await;
    let refused = Tail::start(&first.url, &BEGIN);
    refused
        .fails(
            1,
            "error: because\n       (the gateway answered 503 queue_full)",
        )
        .await;
    // Nothing was printed, and now is another place by now.
    let unknown = Scripted::start([Act::Cut]).await;
    let lost = Tail::start(&unknown.url, &["s1"]);
    lost.fails(1, "the gateway did not send the position of now")
        .await;
    // Records of another shape may be those of a configuration that has just changed, once.
    let other = Act::Serve(&[r#"[{"where":"p1a"}]"#], 1, None);
    let again = Act::Serve(&[r#"[{"where":"p1a"}]"#], 1, None);
    let shaped = Scripted::start([other, again]).await;
    let told = Tail::start(&shaped.url, &BEGIN);
    told.fails(1, "error: a record came in another shape").await;
}

#[tokio::test]
async fn a_cursor_is_acked_behind_what_was_printed_and_taken_over_once() {
    let in_use = || Act::Refuse(409, "", "cursor_in_use");
    let mut gateway = Scripted::start([
        Act::Serve(&[AB], 1, Some((1001, "drain"))),
        in_use(),
        Act::Serve(&[C], 0, None),
    ])
    .await;
    let arguments = [&BEGIN[..], &["--cursor", "c.1", "--takeover"]].concat();
    let mut tail = Tail::start(&gateway.url, &arguments);
    assert_eq!(tail.xids(3).await, ["a", "b", "c"]);
    assert_eq!(
        gateway.asked().await,
        "begin=earliest&cursor=c.1&takeover=true"
    );
    for _ in 0..2 {
        assert_eq!(gateway.asked().await, "begin=p1b&cursor=c.1");
    }
    tail.interrupt();
    assert_eq!(tail.end().await.0, Some(0));
    let mut heard = Vec::new();
    while let Ok(text) = gateway.heard.try_recv() {
        heard.push(text);
    }
    let expected = [
        r#"{"ack":"p1b"}"#,
        "close 1001",
        r#"{"ack":"p1c"}"#,
        "close 1000",
    ];
    assert_eq!(heard, expected);

    let first = Scripted::start([in_use()]).await;
    let refused = Tail::start(&first.url, &["s1", "--cursor", "c"]);
    refused
        .fails(
            1,
            "because\n       (the gateway answered 409 cursor_in_use)",
        )
        .await;
}
