//! Accepts connections, and takes each request from its headers to its answer.
//!
//! Bounds:
//! - connections: the setting, and their share of the descriptors. A semaphore is taken before `accept`, so further
//!   connections wait in the queue of the kernel.
//! - headers and bodies: size and time.
//! - answers: bytes of all (`answers.rs`), and time if the client does not read (`client_io/`).

pub(super) mod answers;
pub(super) mod client_io;
pub(super) mod refusals;
pub(super) mod render;

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

/// Bytes of all headers of a request. A request with more gets 431.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Bytes that hyper reads ahead of a client, and bytes that it gathers before a write.
const BUFFER_BYTES_MAX: usize = 128 << 10;
/// How long the kernel may hold a written answer that the client does not acknowledge.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(60);
/// The wait after a failed accept. Mostly no file descriptor is free.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);
/// Interval of log lines about failed accepts.
const ACCEPT_TOLD_EVERY: Duration = Duration::from_secs(10);

impl Api {
    /// Serves until `stop` fires. Then it accepts no connection, answers requests under way, and refuses further requests on
    /// open connections with 503 `draining`. Connections are tasks of `tasks`; joining them ends the drain.
    ///
    /// # Errors
    /// The system does not tell the address of the listener.
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
        let mut connections = Permits::new(settings.get().connections_max.min(share));
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
                    // The backoff lets it fail twenty times a second, so limit the log lines.
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
        // A client may close its sending half and still read the answer. `Manners::watch` changes that for a request.
        .half_close(true)
        // hyper itself answers a request that it cannot parse, without a problem as its body. Its own bound of 100 headers
        // costs nothing; another bound would cost memory for each request.
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(BUFFER_BYTES_MAX);
    http
}

async fn accept(
    listener: &TcpListener,
    connections: &mut Permits,
) -> io::Result<(TcpStream, Peer, OwnedSemaphorePermit)> {
    let permit = connections.take().await?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, Peer(peer), permit))
}

/// A semaphore for connections, with a bound that can change.
struct Permits {
    free: Arc<Semaphore>,
    /// Permits that exist, free or taken.
    len: usize,
    len_max: usize,
}

impl Permits {
    fn new(len_max: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(len_max)),
            len: len_max,
            len_max,
        }
    }

    /// Changes the bound. Taken permits beyond it are dropped when they come back.
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

    /// Waits for a permit.
    ///
    /// # Cancel safety
    /// A dropped wait has taken no permit.
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
            tracing::debug!(%error, "connection closed before its first request");
            return;
        }
        // A child token, because each poll of a wait locks the token, and all connections would share one lock.
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
            tracing::debug!(%error, "connection ended early");
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
        // Pinned here, because each move of this future copies some kilobytes.
        let answered = pin!(answer(&shared, &settings, router, request, peer, &id));
        shared.tasks.panics().guard(Part::Request, answered).await
    };
    let answered = answered.unwrap_or_else(|| Err(Problem::internal("the handler panicked")));
    let render = |problem: Problem| {
        render::log(&problem, &shared.refusals, &id);
        render::render(&problem, &path, &id, shared.push.now())
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

/// Refuses transfer codings that hyper does not decode. It decodes `chunked` and checks only that this is the last coding
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
            "the only transfer coding is chunked, once; send gzip as Content-Encoding",
        )),
    }
}

/// Makes request ids: the id that the client sent, if it is safe in a log line, else a number.
#[derive(Debug)]
pub(super) struct RequestIds {
    prefix: String,
    next: AtomicU64,
}

impl RequestIds {
    pub(super) fn new() -> Self {
        let mut random = [0; 4];
        // Without a random prefix the ids repeat after a restart. That only makes logs harder to read.
        if random::fill(&mut random).is_err() {
            tracing::debug!("no random prefix for request ids: they repeat after a restart");
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
