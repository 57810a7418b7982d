//! All routes except `POST /stream/sync`, which the server answers before the router.

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::{MatchedPath, Request, State},
    middleware::{Next, from_fn, from_fn_with_state},
    response::Response,
    routing::{get, post},
};
use tokio::time::Instant;

use super::{
    EdgeState,
    access::{Caller, Who},
    admin, data_streams, docs, ledger,
    problem::{Code, Problem},
    records, reload, retry,
    server::answers,
    status,
    streams::{self, purge},
    sync,
};

/// A route: its path, and its methods in the order of `Allow`, each with the callers that may use it.
pub(super) type Route = (&'static str, &'static [(&'static str, Who)]);

/// Every route. `/stream/sync` is here for its other methods.
pub(super) const ROUTES: [Route; 24] = [
    ("/stream/sync", &[("POST", Who::Source)]),
    ("/stream/retry", &[("POST", Who::Operator)]),
    (
        "/v1/streams",
        &[("GET,HEAD", Who::User), ("POST", Who::Administrator)],
    ),
    (
        "/v1/streams/{stream}",
        &[
            ("GET,HEAD", Who::User),
            ("PATCH,DELETE", Who::Administrator),
        ],
    ),
    (
        "/v1/streams/{stream}/purge",
        &[("POST", Who::Administrator)],
    ),
    (
        "/v1/streams/{stream}/partitions",
        &[("GET,HEAD", Who::User)],
    ),
    (
        "/v1/streams/{stream}/partitions/{partition}/records",
        &[("GET,HEAD", Who::Operator)],
    ),
    (
        "/v1/streams/{stream}/partitions/{partition}/records/{offset}",
        &[("GET,HEAD", Who::Operator)],
    ),
    ("/v1/status", &[("GET,HEAD", Who::User)]),
    ("/v1/ledger", &[("GET,HEAD", Who::User)]),
    ("/v1/reload", &[("POST", Who::Administrator)]),
    ("/services/v2/stream", &[("GET,HEAD", Who::User)]),
    (
        "/services/v2/stream/{name}",
        &[
            ("GET,HEAD", Who::Operator),
            ("POST,PATCH,DELETE", Who::Administrator),
        ],
    ),
    (
        "/services/v2/stream/{name}/yaml",
        &[("GET,HEAD", Who::User), ("PATCH", Who::Administrator)],
    ),
    (
        "/v1/data-streams/{name}/cursors",
        &[("GET,HEAD", Who::User)],
    ),
    (
        "/v1/data-streams/{name}/cursors/{cursor}",
        &[("GET,HEAD", Who::User), ("PUT,DELETE", Who::Operator)],
    ),
    (
        "/v1/data-streams/{name}/cursors/{cursor}/ack",
        &[("POST", Who::Operator)],
    ),
    ("/asyncapi.yaml", &[("GET,HEAD", Who::User)]),
    ("/docs", &[("GET,HEAD", Who::Public)]),
    ("/docs/", &[("GET,HEAD", Who::Public)]),
    ("/docs/{page}", &[("GET,HEAD", Who::Public)]),
    ("/healthz", &[("GET,HEAD", Who::Public)]),
    ("/readyz", &[("GET,HEAD", Who::Public)]),
    ("/metrics", &[("GET,HEAD", Who::User)]),
];

/// Routes whose answers may use the space kept for status answers.
const LOOKS: [&str; 5] = [
    "/v1/status",
    "/v1/ledger",
    "/metrics",
    "/healthz",
    "/readyz",
];

pub(super) fn router(shared: Arc<EdgeState>) -> Router {
    let records = "/v1/streams/{stream}/partitions/{partition}/records";
    let record = "/v1/streams/{stream}/partitions/{partition}/records/{offset}";
    Router::new()
        .route(sync::PATH, post(unreached))
        .route(retry::PATH, post(retry::retry))
        .route("/v1/streams", get(streams::list).post(streams::create))
        .route(
            "/v1/streams/{stream}",
            get(streams::show)
                .patch(streams::change)
                .delete(streams::delete),
        )
        .route("/v1/streams/{stream}/purge", post(purge::purge))
        .route("/v1/streams/{stream}/partitions", get(streams::partitions))
        .route(records, get(records::list))
        .route(record, get(records::show))
        .route("/v1/status", get(status::show))
        .route("/v1/ledger", get(ledger::show))
        .route("/v1/reload", post(reload::reload))
        .route("/services/v2/stream", get(data_streams::list))
        .route(
            "/services/v2/stream/{name}",
            get(data_streams::show)
                .post(data_streams::create)
                .patch(data_streams::change)
                .delete(data_streams::delete),
        )
        .route(
            "/services/v2/stream/{name}/yaml",
            get(data_streams::yaml).patch(data_streams::change_yaml),
        )
        .route(
            "/v1/data-streams/{name}/cursors",
            get(data_streams::cursors::list),
        )
        .route(
            "/v1/data-streams/{name}/cursors/{cursor}",
            get(data_streams::cursors::show)
                .put(data_streams::cursors::put)
                .delete(data_streams::cursors::delete),
        )
        .route(
            "/v1/data-streams/{name}/cursors/{cursor}/ack",
            post(data_streams::cursors::ack),
        )
        .route("/asyncapi.yaml", get(data_streams::all_yaml))
        .route("/docs", get(docs::index))
        .route("/docs/", get(docs::to_index))
        .route("/docs/{page}", get(docs::page))
        .route("/healthz", get(admin::healthz))
        .route("/readyz", get(admin::readyz))
        .route("/metrics", get(admin::show_metrics))
        .route_layer(from_fn(permitted))
        .route_layer(from_fn_with_state(shared.clone(), measured))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .with_state(shared)
}

/// Refuses a caller that may not use the route.
async fn permitted(
    path: MatchedPath,
    Extension(caller): Extension<Caller>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    if let Some(who) = who(path.as_str(), request.method().as_str()) {
        caller.check(who)?;
    }
    Ok(next.run(request).await)
}

/// Returns the callers that may use a route; `None` if the route does not have this method.
fn who(path: &str, method: &str) -> Option<Who> {
    match ROUTES.iter().find(|(of, _)| *of == path) {
        Some((_, methods)) => methods
            .iter()
            .find(|(names, _)| names.split(',').any(|name| name == method))
            .map(|(_, who)| *who),
        // A route that is missing from the table must not be open to everyone.
        None => Some(Who::Administrator),
    }
}

/// Returns the methods of a path, as `Allow` names them; `None` if no route has the path.
pub(super) fn methods(path: &str) -> Option<String> {
    let (_, methods) = ROUTES.iter().find(|(route, _)| fits(route, path))?;
    let methods: Vec<&str> = methods
        .iter()
        .flat_map(|(names, _)| names.split(','))
        .collect();
    Some(methods.join(", "))
}

/// Returns whether a path matches a route, whose variable parts are in braces.
fn fits(route: &str, path: &str) -> bool {
    let (mut parts, mut named) = (route.split('/'), path.split('/'));
    loop {
        match (parts.next(), named.next()) {
            (None, None) => return true,
            (Some(part), Some(name)) if part == name => {}
            (Some(part), Some(name)) if part.starts_with('{') && !name.is_empty() => {}
            _ => return false,
        }
    }
}

async fn measured(
    State(shared): State<Arc<EdgeState>>,
    path: MatchedPath,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let mut response = next.run(request).await;
    if LOOKS.contains(&path.as_str()) {
        answers::mark_look(&mut response);
    }
    let route = [("route", path.as_str().to_owned())];
    let seconds = shared.metrics.request_seconds.get_or_create(&route);
    seconds.observe(started.elapsed().as_secs_f64());
    response
}

/// The handler of `POST /stream/sync`, which `server/mod.rs` answers before the router.
async fn unreached() -> Problem {
    Problem::internal("the sync route came to the router")
}

async fn method_not_allowed() -> Problem {
    Problem::new(Code::MethodNotAllowed, "see the Allow header")
}

async fn not_found() -> Problem {
    Problem::new(Code::NotFound, "no route has this path")
}
