//! Data streams by hand: requests of which each part is chosen, and a WebSocket that sends what no library would.

use data_encoding::BASE64;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use crate::testkit::{Answer, Gateway, keyed, within};

pub(super) const ALL: &str = "/services/v2/stream";

pub(super) fn path(name: &str) -> String {
    format!("{ALL}/{name}")
}

/// Makes a data stream of `DataSyncStream` with these members beside its trail.
pub(super) async fn create(gateway: &Gateway, name: &str, more: Value) {
    let mut config = json!({"source": {"trail": "a1"}});
    let members = config.as_object_mut().unwrap();
    members.extend(more.as_object().unwrap().clone());
    gateway.post(&path(name), &config).await.ok();
}

/// Posts that many messages in one commit; nobody takes them.
pub(super) async fn post(gateway: &Gateway, count: usize) {
    let one = |n| keyed(&format!("k{n}"), "http://127.0.0.1:9/x", json!({ "n": n }));
    let all: Vec<_> = (0..count).map(one).collect();
    gateway.sync_all(&all).await;
}

pub(super) async fn send(
    gateway: &Gateway,
    method: Method,
    at: &str,
    body: impl Into<String>,
) -> Answer {
    gateway
        .send(gateway.request(method, at).body(body.into()))
        .await
}

/// Checks status, word and number of the first message of an envelope.
#[track_caller]
pub(super) fn refused(answer: &Answer, status: u16, word: &str, number: &str) {
    let body = &answer.body;
    assert_eq!(answer.status.as_u16(), status, "{body}");
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(body["$schema"], "api:standardResponse");
    let message = &body["messages"][0];
    let told = (message["type"].as_str(), message["code"].as_str());
    let word = format!("urn:syncgate:problem:{word}");
    assert_eq!(told, (Some(&*word), Some(number)), "{body}");
}

/// A handshake as an ordinary request.
pub(super) fn handshake(gateway: &Gateway, method: Method, at: &str) -> RequestBuilder {
    gateway
        .request(method, at)
        .header("connection", "keep-alive, Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", BASE64.encode(&[7; 16]))
}

/// A WebSocket by hand, as no library would send what some of these send.
pub(super) struct Raw {
    pub(super) stream: TcpStream,
    /// Position of the last record.
    pub(super) pos: Option<String>,
}

impl Raw {
    pub(super) async fn new(gateway: &Gateway, name: &str, begin: &str) -> Self {
        Self::over(TcpSocket::new_v4().unwrap(), gateway, name, begin).await
    }

    /// One that has hardly any room for what it does not read.
    pub(super) async fn slow(gateway: &Gateway, name: &str, begin: &str) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        Self::over(socket, gateway, name, begin).await
    }

    async fn over(socket: TcpSocket, gateway: &Gateway, name: &str, begin: &str) -> Self {
        let at = gateway.url.strip_prefix("http://").unwrap();
        let mut stream = socket.connect(at.parse().unwrap()).await.unwrap();
        let key = BASE64.encode(&[7; 16]);
        let head = format!(
            "GET {}?begin={begin} HTTP/1.1\r\nhost: {at}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n\r\n",
            path(name)
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(within("a handshake", stream.read_u8()).await.unwrap());
        }
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "{answer:?}");
        Self { stream, pos: None }
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Opcode and payload of the next frame; nothing at the end.
    pub(super) async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut frame = self.whole_frame().await?;
        assert_eq!(
            frame[0] & 0xf0,
            0x80,
            "whole messages without reserved bits"
        );
        let head_len = match frame[1] {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        let payload = frame.split_off(head_len);
        Some((frame[0] & 0x0f, payload))
    }

    /// Every byte of the next frame; nothing at the end.
    pub(super) async fn whole_frame(&mut self) -> Option<Vec<u8>> {
        let read = async {
            let mut frame = vec![self.stream.read_u8().await.ok()?];
            frame.push(self.stream.read_u8().await.unwrap());
            let more = match frame[1] {
                126 => 2,
                127 => 8,
                short => {
                    assert!(short < 126, "a server masks nothing");
                    0
                }
            };
            let mut len = vec![0; more];
            self.stream.read_exact(&mut len).await.unwrap();
            let told = len
                .iter()
                .fold(0, |len, byte| len << 8 | usize::from(*byte));
            frame.extend(len);
            let head_len = frame.len();
            let payload_len = match more {
                0 => usize::from(frame[1]),
                _ => told,
            };
            frame.resize(head_len + payload_len, 0);
            self.stream
                .read_exact(&mut frame[head_len..])
                .await
                .unwrap();
            Some(frame)
        };
        within("a frame", read).await
    }

    /// `xid`s of records until there are that many; a frame that has more is cut there, as by a client that dies.
    pub(super) async fn records(&mut self, count: usize) -> Vec<String> {
        let mut all = Vec::new();
        // Silence is filled, so it is not the next frame alone that has a time.
        within(&format!("{count} records"), async {
            while all.len() < count {
                let (opcode, payload) = self.frame().await.expect("it is open");
                if opcode != 1 {
                    assert_eq!(opcode, 9, "{payload:?}");
                    continue;
                }
                let frame: Vec<Value> = serde_json::from_slice(&payload).unwrap();
                // Schemas and metadata have no position.
                let records = frame.iter().filter(|record| record.get("pos").is_some());
                for record in records.take(count - all.len()) {
                    all.push(record["xid"].as_str().unwrap().to_owned());
                    self.pos = Some(record["pos"].as_str().unwrap().to_owned());
                }
            }
        })
        .await;
        all
    }

    /// Code and reason of the close; behind it nothing comes but the end.
    pub(super) async fn closed(mut self) -> (u16, String) {
        loop {
            let (opcode, payload) = self.frame().await.expect("a close before the end");
            if opcode == 8 {
                assert_eq!(self.frame().await, None);
                let (code, reason) = payload.split_first_chunk().unwrap();
                let reason = String::from_utf8(reason.to_vec()).unwrap();
                return (u16::from_be_bytes(*code), reason);
            }
        }
    }
}

/// A frame of a client with that first byte, masked as it must be.
pub(super) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..126 => frame.push(0x80 | u8::try_from(len).unwrap()),
        len => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(len).unwrap().to_be_bytes());
        }
    }
    let mask = [1, 2, 3, 4];
    frame.extend(mask);
    let masks = mask.iter().cycle();
    frame.extend(payload.iter().zip(masks).map(|(a, b)| a ^ b));
    frame
}
