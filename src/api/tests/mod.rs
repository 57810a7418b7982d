//! The edge over real sockets, above an engine in memory.

mod access;
mod durable;
mod idempotency;
mod merged;
mod names;
mod records;
mod reload;
mod retry;
mod routes;
mod server;
mod status;
mod streams;
mod sync;

use std::{
    any::Any,
    collections::BTreeMap,
    io::Write as _,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
};
use tokio_util::sync::CancellationToken;

use super::{router::ROUTES, *};
use crate::{
    config::{self, Config},
    dispatch::{
        WaitingRecord, WaitsFor,
        tests::stub::{stand_still, until, while_seconds_pass},
    },
    ingest::NotPaused,
    model::{
        ids::{Offset, Partition, PartitionId, StreamId},
        record::{HeadersBuilder, Record, header},
    },
    push::{self, Push},
    retry::{PartitionReport, RetryReport, RetryRequest, Taken, Work},
    runtime::{
        clock::{Clock, Timestamp},
        tasks::Tasks,
    },
    secrets::{MasterKey, Secrets},
    status::Report,
    storage::{
        Append, AppendKind, Commit, CommitError, Engine, Epoch, Health, Log as _, MadeBy,
        NewSettlement, Settle, Stream, StreamConfig, memory::Memory,
    },
};

const GOOD: &str = r#"{"streamKey":"key1","streamMessage":{"vaultSecretName":"789","targetRestApi":"http://127.0.0.1:9/orders","targetRestApiOperation":"POST","targetRestApiPayload":{"orderid":"18jan","n": 1.10},"targetRestApiHeaders":[{"key":"Content-Type","value":"application/json"}]}}"#;

const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// Longest wait of a test for an answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct CannedRetries {
    asked: Mutex<Vec<RetryRequest>>,
    answers: Mutex<Vec<Result<RetryReport, crate::retry::Error>>>,
    running: Mutex<Option<Taken>>,
}

#[async_trait]
impl Retries for CannedRetries {
    async fn run(&self, request: RetryRequest) -> Result<RetryReport, crate::retry::Error> {
        self.asked.lock().unwrap().push(request);
        let answer = self.answers.lock().unwrap().pop();
        answer.expect("the test has no answer ready")
    }

    fn hold(
        &self,
        stream: &Stream,
        _: Arc<str>,
    ) -> Result<Box<dyn Any + Send>, crate::retry::Error> {
        match &*self.running.lock().unwrap() {
            Some(taken) if taken.stream == stream.name => {
                Err(crate::retry::Error::Running(taken.clone()))
            }
            _ => Ok(Box::new(())),
        }
    }
}

/// Gives one answer, then none.
#[derive(Debug, Default)]
struct CannedReloads(Mutex<Option<Result<Reloaded, ReloadError>>>);

#[async_trait]
impl Reloads for CannedReloads {
    async fn reload(&self) -> Result<Reloaded, ReloadError> {
        let answer = self.0.lock().unwrap().take();
        answer.unwrap_or_else(|| Ok(Reloaded::default()))
    }
}

/// Has one report, with every problem.
#[derive(Debug)]
struct CannedReports;

#[async_trait]
impl Reports for CannedReports {
    async fn report(&self) -> Arc<Report> {
        Arc::new(status::report())
    }
}

/// Returns the waits that a test has set; every other record waits for its turn.
#[derive(Debug, Default)]
struct CannedWaits(Mutex<Vec<WaitingRecord>>);

impl Waits for CannedWaits {
    fn waiting(
        &self,
        _: StreamId,
        is_sought: &dyn Fn(Partition, Offset) -> bool,
        len_max: usize,
    ) -> Vec<WaitingRecord> {
        let canned = self.0.lock().unwrap().clone().into_iter();
        let sought = canned.filter(|one| is_sought(one.partition, one.offset));
        sought.take(len_max).collect()
    }

    fn unqueued(&self, _: &Record) -> (WaitsFor, Option<Timestamp>) {
        (WaitsFor::Turn, None)
    }
}

struct Edge {
    address: SocketAddr,
    settings: Arc<Live<Settings>>,
    reloads: Arc<CannedReloads>,
    engine: Arc<Memory>,
    retries: Arc<CannedRetries>,
    waits: Arc<CannedWaits>,
    stop: CancellationToken,
    tasks: Tasks,
}

impl Edge {
    async fn start(change: impl FnOnce(&mut Config)) -> Self {
        let engine = Memory::new();
        let mut config = Config::default();
        change(&mut config);
        for (_, name) in config.roles.all() {
            let made = engine.create_stream(name.clone(), 1, StreamConfig::default());
            made.await.unwrap();
        }
        Self::over(engine.clone(), engine, &config).await
    }

    /// Starts with a log; the test uses `engine`.
    async fn over(log: Arc<dyn Engine>, engine: Arc<Memory>, config: &Config) -> Self {
        Self::with_users(None, log, engine, config).await
    }

    async fn with_users(
        users: Option<Users>,
        log: Arc<dyn Engine>,
        engine: Arc<Memory>,
        config: &Config,
    ) -> Self {
        let master = MasterKey::from_bytes([7; 32]);
        let secrets = Secrets::open(log.clone(), &master).await.unwrap();
        let streams = Streams::new(log);
        let retries = Arc::new(CannedRetries::default());
        let reloads = Arc::new(CannedReloads::default());
        let waits = Arc::new(CannedWaits::default());
        let (stop, tasks) = (CancellationToken::new(), Tasks::new());
        let clock = Clock::manual(Timestamp(1));
        let push = Push::open(streams.clone(), clock, push::Settings::from(config), &tasks);
        let push = push.await.unwrap();
        let parts = ApiParts {
            push,
            ingest: Ingest::new(streams.clone(), secrets, config, &tasks),
            streams,
            users,
            retrier: retries.clone(),
            waits: waits.clone(),
            reloads: reloads.clone(),
            reports: Arc::new(CannedReports),
            metrics: Metrics::new(&Clock::manual(Timestamp(1))),
            sources: Vec::new(),
        };
        let settings = Arc::new(Live::new(Settings::new(config).unwrap()));
        let api = Api::new(parts, settings.clone(), &config.roles);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stopping, of_api) = (stop.clone(), tasks.clone());
        tasks.spawn("api", async move {
            api.serve(listener, stopping, &of_api).await.unwrap();
        });
        Self {
            address,
            settings,
            reloads,
            engine,
            retries,
            waits,
            stop,
            tasks,
        }
    }

    async fn plain() -> Self {
        Self::start(|_| {}).await
    }

    /// Sends raw bytes, and reads until the server closes.
    async fn raw(&self, request: impl AsRef<[u8]>) -> Reply {
        let mut connection = TcpStream::connect(self.address).await.unwrap();
        // The server may answer and close before it has read everything.
        drop(connection.write_all(request.as_ref()).await);
        Reply::read(&mut connection).await
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Reply {
        let body = body.as_ref();
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n",
            body.len()
        );
        if !headers.iter().any(|(name, _)| *name == "host") {
            request += "host: localhost\r\n";
        }
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        let mut request = (request + "\r\n").into_bytes();
        request.extend(body);
        self.raw(request).await
    }

    async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], "").await
    }

    async fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Reply {
        self.send("POST", path, &[], body).await
    }

    async fn sync(&self, body: impl AsRef<[u8]>) -> Reply {
        self.post("/stream/sync", body).await
    }

    fn stream(&self, name: &str) -> Arc<Stream> {
        self.engine.stream(&name.parse().unwrap()).unwrap()
    }

    fn partition(&self, stream: &str, partition: u16) -> PartitionId {
        self.stream(stream).partition(Partition(partition)).unwrap()
    }

    /// Sends a request on a connection of its own, and reads nothing.
    async fn open(&self, path: &str, headers: &str) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut open = socket.connect(self.address).await.unwrap();
        let ask = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
        open.write_all(ask.as_bytes()).await.unwrap();
        open
    }

    async fn append(&self, stream: &str, records: Vec<Record>) {
        self.append_to(stream, 0, records).await;
    }

    async fn append_to(&self, stream: &str, partition: u16, records: Vec<Record>) {
        let append = Append {
            of: self.partition(stream, partition),
            records,
            kind: AppendKind::Accepted,
            refers: Vec::new(),
        };
        let commit = Commit {
            appends: vec![append],
            ..Commit::default()
        };
        self.engine.commit(commit).await.unwrap();
    }

    async fn settle(&self, stream: &str, offset: u64) {
        let settle = Settle {
            of: self.partition(stream, 0),
            offset: Offset(offset),
            end: NewSettlement::Delivered,
            attempts: 1,
            status: Some(200),
            epoch: Epoch(1),
        };
        let commit = Commit {
            settles: vec![settle],
            ..Commit::default()
        };
        self.engine.commit(commit).await.unwrap();
    }
}

struct Reply {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Reply {
    async fn read(connection: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        let read = connection.read_to_end(&mut bytes);
        drop(
            tokio::time::timeout(ANSWER_PATIENCE, read)
                .await
                .expect("an answer"),
        );
        let end = bytes
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .expect("a whole head");
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = head.lines();
        let status = lines
            .next()
            .unwrap()
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_lowercase(), value.to_owned())
        };
        let headers: BTreeMap<_, _> = lines.map(header).collect();
        let body = &bytes[end + 4..];
        let is_chunked = headers
            .get("transfer-encoding")
            .is_some_and(|coding| coding == "chunked");
        Self {
            status,
            body: match is_chunked {
                true => unchunked(body).concat(),
                false => body.to_vec(),
            },
            headers,
        }
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}", self.text()))
    }

    /// Checks that this is a complete problem with that code.
    #[track_caller]
    fn check_problem(&self, status: u16, code: &str) -> Value {
        if self.header("content-type") == "application/json" {
            return self.check_enveloped(status, code);
        }
        assert_eq!(
            (self.status, self.header("content-type")),
            (status, "application/problem+json"),
            "{}",
            self.text()
        );
        let problem = self.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["type"], format!("urn:syncgate:problem:{code}"));
        assert_eq!(problem["status"], status);
        assert_eq!(problem["requestId"], self.header("x-request-id"));
        assert!(
            problem["errors"].is_array()
                && problem["title"].is_string()
                && problem["detail"].is_string()
        );
        assert!(problem["instance"].as_str().unwrap().starts_with('/'));
        let told = [429, 503, 507].contains(&status) || code == "idempotency_in_flight";
        assert_eq!(self.headers.contains_key("retry-after"), told, "{problem}");
        problem
    }

    /// The same for a problem in the envelope of data streams; `detail` is its title.
    #[track_caller]
    fn check_enveloped(&self, status: u16, code: &str) -> Value {
        let answer = self.json();
        let message = &answer["messages"][0];
        assert_eq!(
            (self.status, &answer["links"]),
            (status, &json!([])),
            "{answer}"
        );
        assert_eq!(answer["$schema"], "api:standardResponse");
        assert_eq!(
            message["type"],
            format!("urn:syncgate:problem:{code}"),
            "{answer}"
        );
        assert_eq!(message["severity"], "ERROR");
        assert!(message["code"].as_str().unwrap().starts_with("OGG-"));
        let title = message["title"].as_str().unwrap();
        let detail = title.split_once(": ").map_or(title, |(_, detail)| detail);
        json!({"detail": detail})
    }

    #[track_caller]
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// Reads a whole answer to [`HEALTH`].
async fn is_served(open: &mut TcpStream) {
    let mut said = Vec::new();
    while !said.ends_with(b"\"ok\"}") {
        let byte = tokio::time::timeout(ANSWER_PATIENCE, open.read_u8());
        said.push(byte.await.expect("an answer").unwrap());
    }
}

/// Checks that a connection gets no answer while another one gets many.
async fn waits(open: &TcpStream, served: &mut TcpStream) {
    for _ in 0..20 {
        served.write_all(HEALTH).await.unwrap();
        is_served(served).await;
    }
    let early = open.try_read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(early, Err(std::io::ErrorKind::WouldBlock));
}

/// Returns the chunks of a whole body (RFC 9112 §7.1).
#[track_caller]
fn unchunked(mut body: &[u8]) -> Vec<Vec<u8>> {
    let mut chunks = Vec::new();
    loop {
        let end = body.windows(2).position(|two| two == b"\r\n");
        let (len, rest) = body.split_at(end.expect("a whole body"));
        let len = usize::from_str_radix(std::str::from_utf8(len).unwrap(), 16).unwrap();
        if len == 0 {
            return chunks;
        }
        chunks.push(rest[2..2 + len].to_vec());
        body = &rest[2 + len + 2..];
    }
}

/// Partition 0 of the unavailable or the default stream, as a retry or a purge has taken it.
fn taken(edge: &Edge, stream: &str, work: Work) -> Taken {
    Taken {
        stream: stream.parse().unwrap(),
        of: edge.partition(stream, 0),
        work,
        since: Timestamp::parse("2026-01-02T03:04:05Z").unwrap(),
        by: Some("alice".into()),
    }
}

fn record(key: &str, value: &str) -> Record {
    let mut headers = HeadersBuilder::default();
    headers.push(header::SOURCE, "default");
    Record {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        headers: headers.build(),
    }
}
