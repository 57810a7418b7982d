//! CORS (Fetch standard) for the origins in `server.cors_origins`: pre-flight requests, and headers that let a page read an
//! answer.

use axum::{body::Body, response::Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request};

use super::guard::one;
use crate::api::{Settings, router};

/// Seconds for which a browser may cache the answer to a pre-flight.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");
const TRUE: HeaderValue = HeaderValue::from_static("true");
/// Response headers that a page may read.
const SHOWN: HeaderValue = HeaderValue::from_static(
    "Allow, ETag, Location, Retry-After, X-Message-Id, X-Request-Id, X-Syncgate-Position",
);
const VARY: HeaderValue = HeaderValue::from_static("Origin");
const VARY_PREFLIGHT: HeaderValue = HeaderValue::from_static(
    "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
);

/// Returns the origin of a request, if it is configured.
pub(in crate::api) fn origin(settings: &Settings, headers: &HeaderMap) -> Option<HeaderValue> {
    if settings.cors_origins.is_empty() {
        return None;
    }
    let origin = one(headers, &header::ORIGIN).ok()??;
    let text = origin.to_str().ok()?;
    let mut allowed = settings.cors_origins.iter();
    let is_allowed = allowed.any(|allowed| allowed.eq_ignore_ascii_case(text));
    is_allowed.then(|| origin.clone())
}

/// Answers a pre-flight of a configured origin for an existing path; `None` for any other request.
pub(in crate::api) fn preflight(settings: &Settings, request: &request::Parts) -> Option<Response> {
    if request.method != Method::OPTIONS {
        return None;
    }
    origin(settings, &request.headers)?;
    request.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    let methods = router::methods(request.uri.path())?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    let methods = HeaderValue::try_from(methods).ok()?;
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    // A page of a configured origin may do all that a program may, so allow every header.
    let asked: HeaderName = header::ACCESS_CONTROL_REQUEST_HEADERS;
    if let Ok(Some(asked)) = one(&request.headers, &asked) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    headers.insert(header::VARY, VARY_PREFLIGHT);
    Some(response)
}

/// Lets pages of a configured origin read an answer.
pub(in crate::api) fn open(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, SHOWN);
    headers.entry(header::VARY).or_insert(VARY);
}
