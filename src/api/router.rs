//! Every route but the hot one.

use std::sync::Arc;

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    middleware::{Next, from_fn_with_state},
    response::Response,
    routing::{get, post},
};
use tokio::time::Instant;

use super::{
    Shared, admin, ledger,
    problem::{Code, Problem},
    records, reload, retry, streams, sync,
};

/// Every route that there is, with its methods as `Allow` names them. `POST /stream/sync` is answered before the
/// router; it stands here for the other methods.
#[cfg(test)]
pub(super) const ROUTES: [(&str, &str); 12] = [
    ("/stream/sync", "POST"),
    ("/stream/retry", "POST"),
    ("/v1/streams", "GET,HEAD,POST"),
    ("/v1/streams/{stream}", "GET,HEAD,PATCH,DELETE"),
    ("/v1/streams/{stream}/partitions", "GET,HEAD"),
    (
        "/v1/streams/{stream}/partitions/{partition}/records",
        "GET,HEAD",
    ),
    (
        "/v1/streams/{stream}/partitions/{partition}/records/{offset}",
        "GET,HEAD",
    ),
    ("/v1/ledger", "GET,HEAD"),
    ("/v1/reload", "POST"),
    ("/healthz", "GET,HEAD"),
    ("/readyz", "GET,HEAD"),
    ("/metrics", "GET,HEAD"),
];

pub(super) fn router(shared: Arc<Shared>) -> Router {
    let records = "/v1/streams/{stream}/partitions/{partition}/records";
    let record = "/v1/streams/{stream}/partitions/{partition}/records/{offset}";
    Router::new()
        .route(sync::PATH, post(unreached))
        .route("/stream/retry", post(retry::retry))
        .route("/v1/streams", get(streams::list).post(streams::create))
        .route(
            "/v1/streams/{stream}",
            get(streams::show)
                .patch(streams::change)
                .delete(streams::delete),
        )
        .route("/v1/streams/{stream}/partitions", get(streams::partitions))
        .route(records, get(records::list))
        .route(record, get(records::show))
        .route("/v1/ledger", get(ledger::show))
        .route("/v1/reload", post(reload::reload))
        .route("/healthz", get(admin::healthz))
        .route("/readyz", get(admin::readyz))
        .route("/metrics", get(admin::metrics))
        .route_layer(from_fn_with_state(shared.clone(), measured))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .with_state(shared)
}

async fn measured(
    State(shared): State<Arc<Shared>>,
    path: MatchedPath,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let response = next.run(request).await;
    let route = [("route", path.as_str().to_owned())];
    let seconds = shared.metrics.request_seconds.get_or_create(&route);
    seconds.observe(started.elapsed().as_secs_f64());
    response
}

/// `server.rs` answers this route before the router sees it.
async fn unreached() -> Problem {
    Problem::internal("the sync route came to the router")
}

async fn method_not_allowed() -> Problem {
    Problem::new(Code::MethodNotAllowed, "see the Allow header")
}

async fn not_found() -> Problem {
    Problem::new(Code::NotFound, "no route has this path")
}
