//! The same stream as Server-Sent Events (`push-decisions.md` §11).

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use tokio_util::sync::CancellationToken;

use crate::{api::Shared, push::Subscription};

use super::close::Close;

const EVENT_STREAM: &str = "text/event-stream";
const IDLE_EVERY: Duration = Duration::from_secs(15);
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What comes next on the connection.
enum Stage {
    Begin,
    Open,
    /// The rest of a frame, in reverse.
    Pieces(Vec<Bytes>),
    Over,
}

struct Events {
    subscription: Subscription,
    stop: CancellationToken,
    stage: Stage,
}

/// Returns whether a request wants events.
pub(super) fn is_meant(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(header::ACCEPT).iter();
    let mut media = lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','))
        .filter_map(|range| range.split(';').next());
    media.any(|media| media.trim().eq_ignore_ascii_case(EVENT_STREAM))
}

/// Answers with events, until something ends them.
pub(super) fn response(shared: &Arc<Shared>, subscription: Subscription) -> Response {
    let events = Events {
        subscription,
        stop: shared.stop.child_token(),
        stage: Stage::Begin,
    };
    let pieces = stream::unfold(events, |mut events| async move {
        let piece = events.next().await?;
        Some((Ok::<_, Infallible>(piece), events))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(BUFFERING, HeaderValue::from_static("no"));
    response
}

impl Events {
    async fn next(&mut self) -> Option<Bytes> {
        match &mut self.stage {
            Stage::Over => return None,
            Stage::Begin => {
                self.stage = Stage::Open;
                return Some(Bytes::from_static(b"retry: 2000\n\n"));
            }
            Stage::Pieces(pieces) => match pieces.pop() {
                Some(piece) => return Some(piece),
                None => self.stage = Stage::Open,
            },
            Stage::Open => {}
        }
        let close = tokio::select! {
            biased;
            () = self.stop.cancelled() => Close::Drain,
            frame = self.subscription.next() => match frame {
                Ok(frame) => {
                    let id = frame.last_pos().map(|pos| format!("\nid: {pos}"));
                    let end = id.unwrap_or_default() + "\n\n";
                    self.stage = Stage::Pieces(vec![end.into(), frame.text()]);
                    return Some(Bytes::from_static(b"data: "));
                }
                Err(end) => Close::told(&end),
            },
            () = tokio::time::sleep(IDLE_EVERY) => {
                return Some(Bytes::from_static(b": idle\n\n"));
            }
        };
        self.stage = Stage::Over;
        let (code, word) = (close.code(), close.word());
        Some(format!("event: close\ndata: {{\"code\":{code},\"reason\":\"{word}\"}}\n\n").into())
    }
}
