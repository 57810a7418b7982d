//! A target: a real HTTP server that does as it is told and hands over each call it gets.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinHandle,
};

use super::within;

/// One call as it arrived.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its number: 0 for the first call of this target.
    pub number: usize,
    pub method: Method,
    /// Path and query.
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Call {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values
            .next()?
            .to_str()
            .expect("a header of visible characters");
        assert!(values.next().is_none(), "{name} stands there twice");
        Some(value)
    }
}

/// What the target does with a call.
#[derive(Clone, Debug)]
pub enum Act {
    /// Answers with that status and headers; the body is `answer <status>`.
    Answer(u16, Vec<(&'static str, String)>),
    /// Answers with that status and no body.
    Bare(u16),
    /// Answers 200 once [`StubTarget::release`] has given this call its turn.
    Hold,
    /// Never answers.
    Hang,
    /// Closes the connection without an answer.
    Reset,
}

impl Act {
    pub fn status(status: u16) -> Self {
        Self::Answer(status, Vec::new())
    }
}

type Rule = dyn Fn(&Call) -> Act + Send + Sync;

struct Inner {
    rule: Mutex<Arc<Rule>>,
    calls: Mutex<Vec<Call>>,
    arrived: watch::Sender<usize>,
    released: Semaphore,
    /// Answers with 200 that were written by the rule `Answer`, in order of answering.
    answered: Mutex<Vec<(usize, u16)>>,
    connections: AtomicUsize,
    in_flight: AtomicUsize,
    in_flight_max: AtomicUsize,
}

/// The target. Dropping it stops the server.
pub struct StubTarget {
    inner: Arc<Inner>,
    port: u16,
    seen: AtomicUsize,
    server: JoinHandle<()>,
}

impl Drop for StubTarget {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl StubTarget {
    /// A target that answers 200 to everything.
    pub async fn start() -> Self {
        Self::with(|_| Act::status(200)).await
    }

    /// A target that answers each call by its path: `/status/404` with 404, `/hang`, `/reset`, `/hold`, else 200.
    pub async fn by_path() -> Self {
        Self::with(act_by_path).await
    }

    pub async fn with(rule: impl Fn(&Call) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let inner = Arc::new(Inner {
            rule: Mutex::new(Arc::new(rule)),
            calls: Mutex::default(),
            arrived: watch::Sender::new(0),
            released: Semaphore::new(0),
            answered: Mutex::default(),
            connections: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            in_flight_max: AtomicUsize::new(0),
        });
        let server = tokio::spawn(accept(listener, inner.clone()));
        Self {
            inner,
            port,
            seen: AtomicUsize::new(0),
            server,
        }
    }

    /// Changes what it does from the next call on.
    pub fn now(&self, rule: impl Fn(&Call) -> Act + Send + Sync + 'static) {
        *self.inner.rule.lock().unwrap() = Arc::new(rule);
    }

    /// Lets `count` held calls be answered.
    pub fn release(&self, count: usize) {
        self.inner.released.add_permits(count);
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Waits for the next call that this method has not returned yet.
    pub async fn next_call(&self) -> Call {
        let at = self.seen.fetch_add(1, Ordering::Relaxed);
        self.wait_for_calls(at + 1).await;
        self.inner.calls.lock().unwrap()[at].clone()
    }

    /// Waits until so many calls have arrived in all.
    pub async fn wait_for_calls(&self, count: usize) {
        let mut arrived = self.inner.arrived.subscribe();
        within(&format!("call {count} of the target"), async {
            arrived
                .wait_for(|arrived| *arrived >= count)
                .await
                .expect("the target is there");
        })
        .await;
    }

    /// Every call until now.
    pub fn calls(&self) -> Vec<Call> {
        self.inner.calls.lock().unwrap().clone()
    }

    /// Number and status of each call that was answered, in order of answering.
    pub fn answered(&self) -> Vec<(usize, u16)> {
        self.inner.answered.lock().unwrap().clone()
    }

    /// Connections that were opened until now.
    pub fn connections_len(&self) -> usize {
        self.inner.connections.load(Ordering::Relaxed)
    }

    /// The most calls that were open at one moment.
    pub fn in_flight_max(&self) -> usize {
        self.inner.in_flight_max.load(Ordering::Relaxed)
    }
}

fn act_by_path(call: &Call) -> Act {
    match call.path.split('?').next().unwrap_or_default() {
        "/hang" => Act::Hang,
        "/reset" => Act::Reset,
        "/hold" => Act::Hold,
        path => match path.strip_prefix("/status/") {
            Some(status) => Act::status(status.parse().expect("a status in the path")),
            None => Act::status(200),
        },
    }
}

async fn accept(listener: TcpListener, inner: Arc<Inner>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        inner.connections.fetch_add(1, Ordering::Relaxed);
        connections.spawn(connection(stream, inner.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(stream: TcpStream, inner: Arc<Inner>) {
    let _nodelay = stream.set_nodelay(true);
    let service = service_fn(|request| serve(request, inner.clone()));
    let served =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // A caller that was killed, or a reset on purpose: both end the connection with an error.
    let _ended = served.await;
}

struct InFlight<'a>(&'a Inner);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn serve(
    request: Request<Incoming>,
    inner: Arc<Inner>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let (head, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map_err(std::io::Error::other)?
        .to_bytes();
    let now = inner.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
    let _in_flight = InFlight(&inner);
    inner.in_flight_max.fetch_max(now, Ordering::Relaxed);
    let call = {
        let mut calls = inner.calls.lock().unwrap();
        let path = head
            .uri
            .path_and_query()
            .map_or_else(String::new, ToString::to_string);
        let number = calls.len();
        calls.push(Call {
            number,
            method: head.method,
            path,
            headers: head.headers,
            body,
        });
        inner.arrived.send_replace(calls.len());
        calls[calls.len() - 1].clone()
    };
    let rule = inner.rule.lock().unwrap().clone();
    let mut bare = false;
    let (status, headers) = match rule(&call) {
        Act::Answer(status, headers) => (status, headers),
        Act::Bare(status) => {
            bare = true;
            (status, Vec::new())
        }
        Act::Hold => {
            inner
                .released
                .acquire()
                .await
                .expect("never closed")
                .forget();
            (200, Vec::new())
        }
        Act::Hang => std::future::pending::<Result<_, Infallible>>()
            .await
            .unwrap_or_default(),
        Act::Reset => return Err(std::io::Error::other("reset on purpose")),
    };
    inner.answered.lock().unwrap().push((call.number, status));
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    let body = if bare || status == 204 || status == 304 {
        Bytes::new()
    } else {
        Bytes::from(format!("answer {status}"))
    };
    Ok(response.body(Full::new(body)).expect("a legal response"))
}
