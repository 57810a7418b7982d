//! The handshake of RFC 6455 §4.2. A subscription is refused before it, so that the refusal has a status.

use std::{sync::Arc, time::Duration};

use axum::{body::Body, extract::Request, response::Response};
use data_encoding::BASE64;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::{
    api::{
        EdgeState,
        problem::{Code, Problem},
        server::client_io::ClientIo,
    },
    push::Subscription,
    runtime::tasks::Part,
};

use super::session::{Manners, Session};

const VERSION: HeaderValue = HeaderValue::from_static("13");
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
/// The start as a position, because `now` and `earliest` mean another one at the next connection.
const POSITION: HeaderName = HeaderName::from_static("x-syncgate-position");
/// The subprotocol with one message for each record.
const CLOUD_EVENTS: &str = "cloudevents.json";

/// Answers with the switch of protocols, and starts the session.
pub(in crate::api::data_streams) fn upgrade(
    shared: &Arc<EdgeState>,
    mut request: Request,
    subscription: Subscription,
) -> Result<Response, Problem> {
    let accept = accept(request.headers())?;
    let data_stream = subscription.data_stream();
    let events =
        data_stream.resource.cloud_events_format && offers(request.headers(), CLOUD_EVENTS);
    let keep_alive = data_stream.resource.tcp_keep_alive_seconds;
    let manners = Manners {
        one_by_one: events,
        idle_array: shared.push.settings().idle_array,
    };
    let starts_at = subscription.pos();
    let upgraded = hyper::upgrade::on(&mut request);
    let stop = shared.stop.child_token();
    let closes = shared.metrics.closes.clone();
    let panics = shared.tasks.panics().clone();
    shared.tasks.spawn_guarded(Part::WebSocket, async move {
        let Ok(upgraded) = upgraded.await else {
            return;
        };
        let Ok(parts) = upgraded.downcast::<TokioIo<ClientIo>>() else {
            tracing::error!("upgraded connection has an unknown type");
            return;
        };
        let io = parts.io.into_inner().into_inner();
        let keep_alive = TcpKeepalive::new().with_time(Duration::from_secs(keep_alive.into()));
        if let Err(error) = SockRef::from(&io).set_tcp_keepalive(&keep_alive) {
            tracing::debug!(%error, "connection closed before its first frame");
            return;
        }
        let session = Session::new(io, parts.read_buf.to_vec(), subscription, manners).await;
        if let Some(close) = session.run(&stop, &panics).await {
            let code = [("code", close.code().to_string())];
            closes.get_or_create(&code).inc();
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, WEBSOCKET);
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(pos) = starts_at.and_then(|pos| HeaderValue::try_from(pos).ok()) {
        headers.insert(POSITION, pos);
    }
    if events {
        let protocol = HeaderValue::from_static(CLOUD_EVENTS);
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    Ok(response)
}

/// Returns whether a request asks for a WebSocket. HTTP/1.0 has no `Upgrade` (RFC 9110 §7.8).
pub(in crate::api::data_streams) fn is_meant(request: &Request) -> bool {
    let may_upgrade = request.version() >= Version::HTTP_11;
    may_upgrade && has_word(request.headers(), &header::UPGRADE, "websocket")
}

fn accept(headers: &HeaderMap) -> Result<HeaderValue, Problem> {
    let invalid = |what: &str| Problem::new(Code::InvalidRequest, what);
    if !has_word(headers, &header::CONNECTION, "upgrade") {
        return Err(invalid("a WebSocket handshake has Connection: Upgrade"));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION) != Some(&VERSION) {
        return Err(Problem::new(
            Code::UpgradeRequired,
            "the WebSocket version is 13 (Sec-WebSocket-Version)",
        ));
    }
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    let key = keys.next().filter(|_| keys.next().is_none());
    let key = key.filter(|key| {
        let decoded = BASE64.decode(key.as_bytes());
        decoded.is_ok_and(|decoded| decoded.len() == 16)
    });
    let key = key.ok_or_else(|| invalid("Sec-WebSocket-Key is 16 bytes in base64"))?;
    let accept = derive_accept_key(key.as_bytes());
    HeaderValue::from_maybe_shared(bytes::Bytes::from(accept)).map_err(Problem::internal)
}

fn offers(headers: &HeaderMap, protocol: &str) -> bool {
    let lists = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let mut offered = lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','));
    // Names of subprotocols are case-sensitive.
    offered.any(|name| name.trim() == protocol)
}

fn has_word(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let lists = headers.get_all(name).iter();
    let mut words = lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','));
    words.any(|other| other.trim().eq_ignore_ascii_case(word))
}
