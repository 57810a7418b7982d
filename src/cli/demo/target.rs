//! The demo's own target: a real HTTP server that answers by path, until it is mended.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::tasks::Tasks;

/// A running target. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Target {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    mended: AtomicBool,
    calls: AtomicU64,
}

impl Target {
    /// Starts it on a free port of this machine.
    pub(super) async fn start(tasks: &Tasks, stop: CancellationToken) -> std::io::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let target = Self {
            address: listener.local_addr()?,
            state: Arc::default(),
        };
        let state = target.state.clone();
        let connections = tasks.clone();
        tasks.spawn("demo target", async move {
            while let Some(Ok((stream, _))) = stop.run_until_cancelled(listener.accept()).await {
                let (state, stop) = (state.clone(), stop.clone());
                connections.spawn("demo connection", async move {
                    let service = service_fn(move |request| answer(state.clone(), request));
                    let serving =
                        http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    // A connection that breaks is the gateway's to notice.
                    drop(stop.run_until_cancelled(serving).await);
                });
            }
        });
        Ok(target)
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// From now on everything is answered 200.
    pub(super) fn mend(&self) {
        self.state.mended.store(true, Ordering::Relaxed);
    }

    pub(super) fn calls_len(&self) -> u64 {
        self.state.calls.load(Ordering::Relaxed)
    }
}

async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Full<bytes::Bytes>>, Infallible> {
    let status = match request.uri().path() {
        _ if state.mended.load(Ordering::Relaxed) => 200,
        "/busy" => 503,
        "/missing" => 404,
        "/broken" => 500,
        _ => 200,
    };
    // A body is read before it is answered, so that the connection can be used again.
    drop(request.into_body().collect().await);
    state.calls.fetch_add(1, Ordering::Relaxed);
    let mut response = Response::new(Full::default());
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
    Ok(response)
}
