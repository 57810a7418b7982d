//! The generator: keep-alive connections in a closed loop, as cheap as it can be since it shares the cores.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

pub const CONNECTIONS: usize = 64;
const KEYS: usize = 1_000;
const BATCH_LEN: usize = 1_000;
/// Two have one read and one written at any time; more would only wait.
const BATCH_CONNECTIONS: usize = 4;

/// Prepared requests.
pub struct Load {
    target: String,
    requests: Arc<Vec<Vec<u8>>>,
}

/// A seed-shaped message of about 500 bytes.
pub fn message(target: &str, key: &str) -> String {
    let mut message = format!(
        r#"{{"streamKey":"{key}","streamMessage":{{"vaultSecretName":"","targetRestApi":"{target}/latest/orders","targetRestApiOperation":"POST","targetRestApiPayload":{{"orderid":"18jan","PO":"18jan","lines":"PADDING"}},"targetRestApiHeaders":[{{"key":"Content-Type","value":"application/json"}}]}}}}"#
    );
    let padding = "x".repeat(500usize.saturating_sub(message.len() - 7));
    message = message.replace("PADDING", &padding);
    message
}

fn request(body: &str, content_type: &str) -> Vec<u8> {
    let len = body.len();
    format!("POST /stream/sync HTTP/1.1\r\nhost: localhost\r\ncontent-type: {content_type}\r\ncontent-length: {len}\r\n\r\n{body}").into_bytes()
}

impl Load {
    pub fn new(target: &str) -> Self {
        let requests = (0..KEYS)
            .map(|key| request(&message(target, &format!("key-{key}")), "application/json"));
        Self {
            target: target.into(),
            requests: Arc::new(requests.collect()),
        }
    }

    /// Posts for a while from all connections; returns how many were accepted. Every answer has to be 200.
    pub async fn run(&self, address: &str, time: Duration) -> usize {
        let until = Instant::now() + time;
        let accepted = Arc::new(AtomicUsize::new(0));
        let mut connections = JoinSet::new();
        for connection in 0..CONNECTIONS {
            let (requests, accepted, address) =
                (self.requests.clone(), accepted.clone(), address.to_owned());
            connections.spawn(async move {
                let mut connection = Connection::open(&address, connection).await;
                let mut count = 0;
                while Instant::now() < until {
                    connection.exchange(&requests[connection.turn % KEYS]).await;
                    connection.turn += 17;
                    count += 1;
                }
                accepted.fetch_add(count, Ordering::Relaxed);
            });
        }
        while let Some(ended) = connections.join_next().await {
            ended.unwrap();
        }
        accepted.load(Ordering::Relaxed)
    }

    /// Posts batches of 1,000 lines for a while from some connections; returns how many messages were accepted.
    pub async fn run_batches(&self, address: &str, time: Duration) -> usize {
        let lines: Vec<_> = (0..BATCH_LEN)
            .map(|n| message(&self.target, &format!("key-{n}")))
            .collect();
        let batch = Arc::new(request(&lines.join("\n"), "application/x-ndjson"));
        let until = Instant::now() + time;
        let mut connections = JoinSet::new();
        for turn in 0..BATCH_CONNECTIONS {
            let (batch, address) = (batch.clone(), address.to_owned());
            connections.spawn(async move {
                let mut connection = Connection::open(&address, turn).await;
                let mut count = 0;
                while Instant::now() < until {
                    connection.exchange(&batch).await;
                    count += BATCH_LEN;
                }
                count
            });
        }
        let mut accepted = 0;
        while let Some(ended) = connections.join_next().await {
            accepted += ended.unwrap();
        }
        accepted
    }

    /// Posts `count` messages with keys of their own in batches of 1,000.
    pub async fn post_backlog(&self, address: &str, count: usize) {
        post_backlog(address, count, &[&self.target]).await;
    }

    /// Posts a message every so often for a while, one after the other; returns how many.
    pub async fn run_paced(&self, address: &str, every: Duration, time: Duration) -> usize {
        let mut connection = Connection::open(address, 0).await;
        let mut ticks = tokio::time::interval(every);
        let until = Instant::now() + time;
        let mut count = 0;
        while Instant::now() < until {
            ticks.tick().await;
            connection.exchange(&self.requests[count % KEYS]).await;
            count += 1;
        }
        count
    }
}

/// Posts `count` messages with keys of their own in batches of 1,000, to one target after the other.
pub async fn post_backlog(address: &str, count: usize, targets: &[&str]) {
    let mut connection = Connection::open(address, 0).await;
    for first in (0..count).step_by(1_000) {
        let lines: Vec<_> = (first..first + 1_000)
            .map(|n| message(targets[n % targets.len()], &format!("backlog-{n}")))
            .collect();
        connection
            .exchange(&request(&lines.join("\n"), "application/x-ndjson"))
            .await;
    }
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    turn: usize,
}

impl Connection {
    async fn open(address: &str, turn: usize) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            buffer: vec![0; 256 << 10],
            turn,
        }
    }

    async fn exchange(&mut self, request: &[u8]) {
        self.stream.write_all(request).await.unwrap();
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await.unwrap();
            assert!(read > 0, "the server closed the connection");
            filled += read;
            if let Some(whole) = response_len(&self.buffer[..filled]) {
                let head = String::from_utf8_lossy(&self.buffer[..filled.min(400)]);
                assert!(self.buffer.starts_with(b"HTTP/1.1 200"), "{head}");
                assert!(whole <= self.buffer.len(), "a response of {whole} bytes");
                if filled == whole {
                    return;
                }
            }
        }
    }
}

/// Length of the response, once its head is there.
fn response_len(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).unwrap();
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().unwrap())
    });
    Some(head + length.expect("a content-length"))
}
