//! Writes a problem: its answer, and its line in the log.

use axum::{body::Body, response::Response};
use http::{HeaderValue, StatusCode, header};

use crate::runtime::clock::Timestamp;

use super::refusals::Refusals;
use crate::api::{
    access::is_below,
    data_streams,
    problem::{Code, Problem},
    wire,
};

/// Paths whose answers have the envelope of the data stream protocol.
const ENVELOPED: &str = "/services/v2";

/// The challenge of every 401. Names and passwords are UTF-8 (RFC 7617 §2.1).
const BASIC: HeaderValue = HeaderValue::from_static("Basic realm=\"syncgate\", charset=\"UTF-8\"");

/// Logs a failure of the gateway, at most one line for each code and interval.
pub(super) fn log(problem: &Problem, refusals: &Refusals, request_id: &str) {
    let (status, code, _) = problem.code.parts();
    if !status.is_server_error() || problem.code == Code::NotImplemented {
        tracing::debug!(request_id, code, "request refused");
        return;
    }
    let Some(requests) = refusals.note(code) else {
        return;
    };
    match &problem.cause {
        Some(cause) => {
            tracing::error!(
                request_id,
                code,
                cause = &**cause,
                requests,
                "request failed"
            );
        }
        None => tracing::warn!(request_id, code, requests, "request refused"),
    }
}

/// Writes the answer: below [`ENVELOPED`] in the envelope of the data stream protocol, else as RFC 9457.
pub(in crate::api) fn render(
    problem: &Problem,
    path: &str,
    request_id: &str,
    now: Timestamp,
) -> Response {
    let (status, code, title) = problem.code.parts();
    let mut response = match is_below(path, ENVELOPED) {
        true => data_streams::problem(
            &data_streams::Wrong {
                status,
                word: code,
                number: problem.number.or(problem.code.number()),
                title,
                detail: &problem.detail,
                faults: problem
                    .errors
                    .iter()
                    .map(|error| (&*error.pointer, &*error.detail))
                    .collect(),
            },
            now,
        ),
        false => plain(problem, path, request_id),
    };
    let headers = response.headers_mut();
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, BASIC);
    }
    if problem.code == Code::UpgradeRequired {
        let version = HeaderValue::from_static("13");
        headers.insert(header::SEC_WEBSOCKET_VERSION, version);
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    if let Some(secs) = problem.retry_after_secs {
        headers.insert(header::RETRY_AFTER, secs.into());
    }
    response
}

fn plain(problem: &Problem, path: &str, request_id: &str) -> Response {
    let (status, code, title) = problem.code.parts();
    let errors = problem.errors.iter().map(|error| wire::FieldErrorView {
        pointer: &error.pointer,
        code: error.code,
        detail: &error.detail,
    });
    let view = wire::ProblemView {
        r#type: format!("urn:syncgate:problem:{code}"),
        title,
        status: status.as_u16(),
        detail: &problem.detail,
        instance: path,
        code,
        errors: errors.collect(),
        request_id,
        earliest: problem.earliest,
        since: problem
            .running
            .as_ref()
            .map(|taken| taken.since.to_string()),
        by: problem
            .running
            .as_ref()
            .and_then(|taken| taken.by.as_deref()),
    };
    let body = serde_json::to_vec(&view).unwrap_or_default();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
