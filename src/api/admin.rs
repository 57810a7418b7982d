//! Health, readiness, metrics.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, Uri, header};

use crate::{
    storage::{
        Engine, Health,
        shares::{self, SHARES},
    },
    telemetry::metrics,
};

use super::{EdgeState, Settings, problem::Problem, query::Query, wire};

/// Path of the metrics.
pub(super) const METRICS: &str = "/metrics";

/// Returns whether a path is a health or readiness probe.
pub(super) fn is_probe(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz")
}

/// Returns whether a path is answered for every `Host`.
pub(super) fn is_for_any_host(settings: &Settings, path: &str) -> bool {
    is_probe(path) || path == METRICS && settings.metrics_public
}

/// Returns whether a path is still answered while the gateway stops.
pub(super) fn answers_while_draining(path: &str) -> bool {
    is_probe(path) || path == METRICS
}

pub(super) async fn healthz(uri: Uri) -> Result<Response, Problem> {
    Query::parse(&uri, &[])?;
    Ok(Json(wire::State { status: "ok" }).into_response())
}

pub(super) async fn readyz(
    State(shared): State<Arc<EdgeState>>,
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

/// Returns how full the share of a kind of state is, in percent.
fn full_percent(engine: &dyn Engine, kind: &str) -> usize {
    let mut shares = SHARES.iter().zip(engine.share_bytes());
    let share = shares.find(|(share, _)| share.kind == kind);
    share.map_or(0, |(share, bytes)| bytes * 100 / share.bytes_max)
}

pub(super) async fn show_metrics(
    State(shared): State<Arc<EdgeState>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    Query::parse(&uri, &[])?;
    let text = shared.metrics.render(&shared.sources).await;
    let (kind, text) = match wants_prometheus_text(&headers) {
        true => (
            "text/plain; version=0.0.4; charset=utf-8",
            metrics::prometheus_text(&text),
        ),
        false => (
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            text,
        ),
    };
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// Returns whether `Accept` ranks plain text above OpenMetrics (RFC 9110 §12.5.1). A range such as `*/*` names neither.
fn wants_prometheus_text(headers: &HeaderMap) -> bool {
    let rank = |name: &str| {
        let lists = headers.get_all(header::ACCEPT).iter();
        let ranges = lists
            .filter_map(|list| list.to_str().ok())
            .flat_map(|list| list.split(','));
        let of_name = |range: &str| {
            let mut parts = range.split(';').map(str::trim);
            let is_named = parts.next()?.eq_ignore_ascii_case(name);
            let weight = parts.find_map(|part| {
                let (name, weight) = part.split_once('=')?;
                name.trim().eq_ignore_ascii_case("q").then_some(weight)
            });
            let weight = weight.map_or(Ok(1.0), |weight| weight.trim().parse::<f32>());
            is_named.then(|| weight.unwrap_or(0.0))
        };
        ranges.filter_map(of_name).fold(0.0, f32::max)
    };
    rank("text/plain") > rank("application/openmetrics-text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_the_format_that_accept_ranks_higher() {
        let cases = [
            (&[][..], false),
            (&["*/*"], false),
            (&["text/plain"], true),
            (&["Text/Plain; charset=utf-8", "*/*;q=0.1"], true),
            (&["application/openmetrics-text"], false),
            (
                &[
                    "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5",
                ],
                false,
            ),
            (
                &["application/openmetrics-text;q=0.2, text/plain;q=0.3"],
                true,
            ),
            (&["text/plain;q=x"], false),
        ];
        for (accept, expected) in cases {
            let mut headers = HeaderMap::new();
            for value in accept {
                headers.append(header::ACCEPT, value.parse().unwrap());
            }
            assert_eq!(wants_prometheus_text(&headers), expected, "{accept:?}");
        }
    }
}
