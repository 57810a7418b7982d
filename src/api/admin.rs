//! Health, readiness, metrics.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{StatusCode, Uri, header};

use crate::storage::{
    Engine, Health,
    shares::{self, SHARES},
};

use super::{Settings, Shared, problem::Problem, query::Query, wire};

/// Where the metrics are.
pub(super) const METRICS: &str = "/metrics";

/// Returns whether a path is one of a probe of health or readiness.
pub(super) fn is_probe(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz")
}

/// Returns whether a path is answered whatever `Host` a request has.
pub(super) fn is_for_any_host(settings: &Settings, path: &str) -> bool {
    is_probe(path) || path == METRICS && settings.metrics_public
}

/// Returns whether a path is answered as ever while the gateway stops.
pub(super) fn answers_while_draining(path: &str) -> bool {
    is_probe(path) || path == METRICS
}

pub(super) async fn healthz(uri: Uri) -> Result<Response, Problem> {
    Query::parse(&uri, &[])?;
    Ok(Json(wire::State { status: "ok" }).into_response())
}

pub(super) async fn readyz(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
) -> Result<Response, Problem> {
    Query::parse(&uri, &[])?;
    let mut reasons = Vec::new();
    match &*shared.streams.engine().health().borrow() {
        Health::Running => {}
        Health::SpaceLow => reasons.push("disk_free_min"),
        Health::DiskFull => reasons.push("disk_full"),
        Health::DiskStalled => reasons.push("disk_stalled"),
        Health::Stopped(_) => reasons.push("log_stopped"),
    }
    if shared.stop.is_cancelled() {
        reasons.push("draining");
    }
    let secrets_full_percent = full_percent(&**shared.streams.engine(), shares::TOKENS);
    Ok(match reasons.is_empty() {
        true => Json(wire::Ready {
            status: "ready",
            secrets_full_percent,
        })
        .into_response(),
        false => {
            let reasons = Json(wire::NotReady {
                reasons,
                secrets_full_percent,
            });
            (StatusCode::SERVICE_UNAVAILABLE, reasons).into_response()
        }
    })
}

/// Returns how much of its share of the state a kind takes.
fn full_percent(engine: &dyn Engine, kind: &str) -> usize {
    let mut shares = SHARES.iter().zip(engine.share_bytes());
    let share = shares.find(|(share, _)| share.kind == kind);
    share.map_or(0, |(share, bytes)| bytes * 100 / share.bytes_max)
}

pub(super) async fn metrics(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
) -> Result<Response, Problem> {
    Query::parse(&uri, &[])?;
    let text = shared.metrics.render(&shared.sources).await;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}
