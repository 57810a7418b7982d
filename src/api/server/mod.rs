//! Accepting connections, and one request from its head to its answer.
//!
//! Bounds: connections by a semaphore taken before `accept` (the rest waits in the kernel's queue), by the setting and by
//! their share of the descriptors, head and body by size and by time, answers by their bytes (`answers.rs`), and by time
//! where the client does not read (`client_io.rs`).

pub(super) mod answers;
pub(super) mod client_io;
pub(super) mod refusals;

use std::{
    convert::Infallible,
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body, response::Response};
use data_encoding::HEXLOWER;
use http::{HeaderMap, HeaderValue, Method, Request, header};
use hyper::{
    body::{Body as _, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tower_service::Service;

#[cfg(test)]
use crate::runtime::tasks;
use crate::{
    runtime::{
        descriptors::Shares,
        random,
        tasks::{Part, Tasks},
    },
    telemetry::metrics::show_zeros,
};

use super::{
    Api, ApiParts, EdgeState, Settings,
    access::{
        Door, Peer, cors,
        guard::{Guard, one},
    },
    admin,
    body::Bodies,
    data_streams,
    problem::{Code, Problem, REQUEST_ID},
    records, retry, router,
    server::{
        answers::Answers,
        client_io::{ClientIo, Manners, Patience},
        refusals::Refusals,
    },
    sync,
};

/// All headers of a request together, in bytes; longer ones are refused with 431.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// What hyper reads ahead of a client, and what it gathers to be written.
const BUFFER_BYTES_MAX: usize = 128 << 10;
/// How long an answer may lie in the system, all of it written and not acknowledged, before its connection is given up.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(60);
/// The wait after a failed accept (no more file descriptors, mostly).
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);
/// How often a failing accept is logged.
const ACCEPT_TOLD_EVERY: Duration = Duration::from_secs(10);

impl Api {
    /// Serves until `stop` fires; then no connection is accepted, requests under way are answered, and further ones
    /// on open connections get 503 `draining`. Connections end as tasks of `tasks`, so joining those is the drain.
    ///
    /// # Errors
    /// What the system says about the listener's own address.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: CancellationToken,
        tasks: &Tasks,
    ) -> io::Result<()> {
        let ApiParts {
            streams,
            ingest,
            push,
            users,
            retrier,
            waits,
            reloads,
            reports,
            metrics,
            sources,
        } = self.parts;
        let refusals = sync::REFUSALS.map(Code::word);
        show_zeros(&metrics.refused, "code", refusals);
        show_zeros(&metrics.closes, "code", data_streams::close_codes());
        let sync_route = [("route", "/stream/sync".to_owned())];
        let shared = Arc::new(EdgeState {
            streams,
            ingest,
            push,
            retrier,
            waits,
            reloads,
            reports,
            sync_seconds: metrics.request_seconds.get_or_create_owned(&sync_route),
            door: Door::new(users, metrics.failed_logins.clone()),
            metrics,
            sources,
            bodies: Bodies::new(self.settings.clone()),
            answers: Answers::default(),
            page_turns: records::Turns::default(),
            refusals: Refusals::default(),
            settings: self.settings,
            roles: self.roles,
            guard: Guard::new(listener.local_addr()?),
            ids: RequestIds::new(),
            stop: stop.clone(),
            tasks: tasks.clone(),
        });
        let router = router::router(shared.clone());
        let mut settings = shared.settings.follow();
        let share = Shares::of_process().connections;
        let mut connections = Places::new(settings.get().connections_max.min(share));
        let mut told = None;
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = settings.changed() => {
                    connections.set_max(settings.get().connections_max.min(share));
                    continue;
                }
                accepted = accept(&listener, &mut connections) => accepted,
            };
            let (stream, peer, permit) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // It may fail twenty times a second.
                    if told.is_none_or(|told: Instant| told.elapsed() >= ACCEPT_TOLD_EVERY) {
                        told = Some(Instant::now());
                        tracing::warn!(%error, "no connection could be accepted");
                    }
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                    continue;
                }
            };
            let connection = Connection {
                shared: shared.clone(),
                router: router.clone(),
                http: http(settings.get().request_timeout),
                peer,
            };
            tasks.spawn_guarded(Part::Connection, async move {
                connection.serve(stream).await;
                drop(permit);
            });
        }
    }
}

fn http(head_timeout: Duration) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        // A client that has sent all may close that direction and still read the answer; but see `Manners::watch`.
        .half_close(true)
        // What it cannot read hyper answers by itself, without a body and with no say for us: a problem is what a
        // route answers. Its own bound of 100 headers costs nothing, any other would be memory for each request.
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(BUFFER_BYTES_MAX);
    http
}

async fn accept(
    listener: &TcpListener,
    connections: &mut Places,
) -> io::Result<(TcpStream, Peer, OwnedSemaphorePermit)> {
    let permit = connections.take().await?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, Peer(peer), permit))
}

/// Places for connections, up to a bound that can change.
struct Places {
    free: Arc<Semaphore>,
    /// Free ones and taken ones.
    len: usize,
    len_max: usize,
}

impl Places {
    fn new(len_max: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(len_max)),
            len: len_max,
            len_max,
        }
    }

    /// Changes the bound. Those that are taken and too many go as they come back.
    fn set_max(&mut self, len_max: usize) {
        self.len_max = len_max;
        match len_max.checked_sub(self.len) {
            Some(more) => {
                self.free.add_permits(more);
                self.len = len_max;
            }
            None => self.len -= self.free.forget_permits(self.len - len_max),
        }
    }

    /// Waits for a place.
    ///
    /// # Cancel safety
    /// A wait that is dropped has taken nothing.
    async fn take(&mut self) -> io::Result<OwnedSemaphorePermit> {
        loop {
            let permit = self.free.clone().acquire_owned().await;
            let permit = permit.map_err(io::Error::other)?;
            if self.len <= self.len_max {
                return Ok(permit);
            }
            permit.forget();
            self.len -= 1;
        }
    }
}

struct Connection {
    shared: Arc<EdgeState>,
    router: Router,
    http: http1::Builder,
    peer: Peer,
}

impl Connection {
    async fn serve(self, stream: TcpStream) {
        let set = stream
            .set_nodelay(true)
            .and_then(|()| SockRef::from(&stream).set_tcp_user_timeout(Some(UNREAD_TIMEOUT)));
        if let Err(error) = set {
            tracing::debug!(%error, "a connection was gone before it was served");
            return;
        }
        // A token of its own: each poll of a wait takes the token's lock.
        let stop = self.shared.stop.child_token();
        let manners = Arc::new(Manners::default());
        let io = ClientIo::new(stream, manners.clone());
        let service = service_fn(move |request| {
            let shared = self.shared.clone();
            let router = self.router.clone();
            #[cfg(test)]
            tasks::provoke(Part::Connection, request.uri().path().as_bytes());
            let manners = manners.clone();
            let peer = self.peer;
            async move { Ok::<_, Infallible>(respond(shared, router, request, peer, &manners).await) }
        });
        let served = self.http.serve_connection(TokioIo::new(io), service);
        let mut connection = pin!(served.with_upgrades());
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
        }
    }
}

async fn respond(
    shared: Arc<EdgeState>,
    router: Router,
    request: Request<Incoming>,
    peer: Peer,
    manners: &Manners,
) -> Response {
    let settings = shared.settings.get();
    let id = shared.ids.of(request.headers());
    let path = request.uri().path().to_owned();
    manners.watch(path == retry::PATH);
    let origin = cors::origin(&settings, request.headers());
    let changes = !is_safe(request.method());
    let has_body = !request.body().is_end_stream();
    let answered = {
        // Pinned here, because each move of it would copy some kilobytes for every request.
        let answered = pin!(answer(&shared, &settings, router, request, peer, &id));
        shared.tasks.panics().guard(Part::Request, answered).await
    };
    let answered = answered.unwrap_or_else(|| Err(Problem::internal("the handler panicked")));
    let render = |problem: Problem| {
        problem.tell(&shared.refusals, &id);
        problem.render(&path, &id, shared.push.now())
    };
    let answered =
        answered.and_then(|response| shared.answers.count(&settings, response, !changes));
    let mut response = answered.unwrap_or_else(render);
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let allow = response.headers_mut().remove(header::ALLOW);
        response = render(problem);
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
    }
    let status = response.status();
    let refuses = status.is_client_error() || status.is_server_error();
    let patience = response.extensions().get::<Patience>().copied();
    manners.answers(patience, has_body && refuses);
    if let Some(origin) = origin {
        cors::open(response.headers_mut(), origin);
    }
    if let Ok(id) = HeaderValue::from_maybe_shared(bytes::Bytes::from(id)) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

async fn answer(
    shared: &Arc<EdgeState>,
    settings: &Settings,
    mut router: Router,
    request: Request<Incoming>,
    peer: Peer,
    id: &str,
) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path();
    #[cfg(test)]
    tasks::provoke(Part::Request, path.as_bytes());
    if shared.stop.is_cancelled() && !admin::answers_while_draining(path) {
        return Err(Problem::draining());
    }
    shared.guard.check(settings, &parts)?;
    check_coding(&parts.headers)?;
    if path == sync::PATH && parts.method == Method::POST {
        let started = Instant::now();
        let answered = sync::answer(shared, settings, &parts, body, id).await;
        if let Err(problem) = &answered {
            debug_assert!(sync::REFUSALS.contains(&problem.code()));
            let code = [("code", problem.code().word().to_owned())];
            shared.metrics.refused.get_or_create(&code).inc();
        }
        shared.sync_seconds.observe(started.elapsed().as_secs_f64());
        return answered;
    }
    if let Some(response) = cors::preflight(settings, &parts) {
        return Ok(response);
    }
    let caller = shared.door.caller(settings, &parts).await?;
    parts.extensions.insert(caller);
    parts.extensions.insert(peer);
    let request = Request::from_parts(parts, Body::new(body));
    match router.call(request).await {
        Ok(response) => Ok(response),
        Err(never) => match never {},
    }
}

/// Returns whether a method changes nothing (RFC 9110 §9.2.1).
pub(super) fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Refuses transfer codings that hyper passes on undone: it undoes `chunked` and looks only whether that is the last one
/// (RFC 9112 §6.1).
fn check_coding(headers: &HeaderMap) -> Result<(), Problem> {
    if !headers.contains_key(header::TRANSFER_ENCODING) {
        return Ok(());
    }
    let coding = one(headers, &header::TRANSFER_ENCODING);
    let is_chunked = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    match coding {
        Ok(coding) if coding.is_none_or(is_chunked) => Ok(()),
        _ => Err(Problem::new(
            Code::NotImplemented,
            "the only transfer coding is chunked, once; for gzip take Content-Encoding",
        )),
    }
}

/// Names requests: what the sender said, if it is fit for a log line, else a number of our own.
#[derive(Debug)]
pub(super) struct RequestIds {
    prefix: String,
    next: AtomicU64,
}

impl RequestIds {
    pub(super) fn new() -> Self {
        let mut random = [0; 4];
        // Without random numbers ids repeat after a restart, which only makes a log harder to read.
        if random::fill(&mut random).is_err() {
            tracing::debug!("request ids begin without a random prefix");
        }
        Self {
            prefix: HEXLOWER.encode(&random),
            next: AtomicU64::new(1),
        }
    }

    fn of(&self, headers: &HeaderMap) -> String {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
        match given {
            Some(id) if (1..=128).contains(&id.len()) && id.bytes().all(legal) => id.to_owned(),
            _ => {
                let next = self.next.fetch_add(1, Ordering::Relaxed);
                let mut digits = itoa::Buffer::new();
                [&self.prefix, "-", digits.format(next)].concat()
            }
        }
    }
}
