//! The HTTP server behind `syncgate target` and the demo: it answers by path and hands over each call.
//!
//! Bounds: connections by a semaphore taken before `accept`, heads by hyper's buffer, kept bytes of a body, and the time
//! in which a head and a body must arrive. Calls wait in a bounded channel, so a slow reader of them slows the callers.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    HeaderMap, Method, Request, Response,
    body::{Body as _, Incoming},
    header::RETRY_AFTER,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::answers::{Act, End, Rule};
use crate::runtime::{
    clock::{Clock, Timestamp},
    descriptors::RETRY_WAIT,
    tasks::Tasks,
};

/// Connections at the same time; further ones wait in the system's queue.
const CONNECTIONS_MAX: usize = 256;
/// A head with its headers.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Bytes kept of a body, as many as the largest record has by default. The rest is read and counted.
pub(super) const BODY_BYTES_KEPT: usize = 1 << 20;
/// Time limit for a head, and for a body.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// A running target. Clones share it.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    rules: Mutex<Arc<[Rule]>>,
    calls: AtomicU64,
    told: Option<mpsc::Sender<Call>>,
    connections: Arc<Semaphore>,
}

/// A call as it arrived.
#[derive(Debug)]
pub(in crate::cli) struct Call {
    pub(super) at: Timestamp,
    pub(super) method: Method,
    /// Path and query.
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    /// The first [`BODY_BYTES_KEPT`] bytes.
    pub(super) body: Bytes,
    /// Bytes of the whole body.
    pub(super) body_len: u64,
    pub(super) act: Act,
}

impl Server {
    /// Starts a target on a port of this machine; port 0 takes a free one. Each call is sent to `told`.
    ///
    /// # Errors
    /// What the system says about the port.
    pub(in crate::cli) async fn start(
        port: u16,
        rules: Vec<Rule>,
        told: Option<mpsc::Sender<Call>>,
        tasks: &Tasks,
        stop: CancellationToken,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let server = Self {
            address: listener.local_addr()?,
            shared: Arc::new(Shared {
                rules: Mutex::new(rules.into()),
                calls: AtomicU64::new(0),
                told,
                connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            }),
        };
        let accepting = accept(listener, server.shared.clone(), tasks.clone(), stop.clone());
        tasks.spawn("target", async move {
            let _stopped = stop.run_until_cancelled(accepting).await;
        });
        Ok(server)
    }

    /// Returns the URL of a path.
    pub(in crate::cli) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Replaces the rules, from the next call on.
    pub(in crate::cli) fn follow(&self, rules: Vec<Rule>) {
        *lock(&self.shared.rules) = rules.into();
    }

    /// Returns how many calls have arrived.
    pub(in crate::cli) fn calls_len(&self) -> u64 {
        self.shared.calls.load(Ordering::Relaxed)
    }
}

/// Locks the rules. A poisoned lock is fine, because the rules are replaced in one step.
fn lock(rules: &Mutex<Arc<[Rule]>>) -> std::sync::MutexGuard<'_, Arc<[Rule]>> {
    rules.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, tasks: Tasks, stop: CancellationToken) {
    // The semaphore is never closed.
    while let Ok(permit) = shared.connections.clone().acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            // Too many open files: another connection has to end first.
            sleep(RETRY_WAIT).await;
            continue;
        };
        let (shared, stop) = (shared.clone(), stop.clone());
        tasks.spawn("target connection", async move {
            // Ignore a broken connection: the caller notices it.
            drop(stop.run_until_cancelled(serve(stream, shared)).await);
            drop(permit);
        });
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) -> hyper::Result<()> {
    let service = service_fn(move |request| answer(shared.clone(), request));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READ_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

/// Answers a call once its body was read, so that the connection can be used again. An error closes the connection.
async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> io::Result<Response<Empty<Bytes>>> {
    let act = Act::of(request.uri().path(), &lock(&shared.rules).clone());
    let (head, body) = request.into_parts();
    let (body, body_len) = timeout(READ_TIMEOUT, read(body)).await??;
    shared.calls.fetch_add(1, Ordering::Relaxed);
    if let Some(told) = &shared.told {
        let path = head.uri.path_and_query().map(ToString::to_string);
        let call = Call {
            at: Clock::system().now(),
            method: head.method,
            path: path.unwrap_or_default(),
            headers: head.headers,
            body,
            body_len,
            act: act.clone(),
        };
        // Ignore send errors: a command that ends prints no more calls, but still answers.
        let _is_ending = told.send(call).await.is_err();
    }
    sleep(act.delay).await;
    match act.end {
        End::Answer {
            status,
            retry_after,
        } => {
            let mut response = Response::new(Empty::new());
            *response.status_mut() = status;
            if let Some(seconds) = retry_after {
                response.headers_mut().insert(RETRY_AFTER, seconds.into());
            }
            Ok(response)
        }
        End::Close => Err(io::Error::other("closed as a rule says")),
        End::Hang => std::future::pending().await,
    }
}

/// Reads a body to its end; returns the bytes that are kept, and how many there were.
async fn read(mut body: Incoming) -> io::Result<(Bytes, u64)> {
    let (mut kept, mut len) = (Vec::new(), 0);
    while !body.is_end_stream() {
        let Some(frame) = body.frame().await else {
            break;
        };
        let frame = frame.map_err(io::Error::other)?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        len += data.len() as u64;
        let room = BODY_BYTES_KEPT - kept.len();
        kept.extend_from_slice(&data[..data.len().min(room)]);
    }
    Ok((kept.into(), len))
}
