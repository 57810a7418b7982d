//! A subscription as Server-Sent Events.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use prometheus_client::metrics::{counter::Counter, family::Family};
use tokio_util::sync::CancellationToken;

use crate::{
    api::{EdgeState, server::client_io::Patience},
    push::Subscription,
    runtime::tasks::{Panics, Part},
    telemetry::metrics::Label,
};

use super::close::Close;

const EVENT_STREAM: &str = "text/event-stream";
const IDLE_EVERY: Duration = Duration::from_secs(15);
/// A client that takes no data for so long is disconnected, as at a WebSocket.
const STALL_MAX: Duration = Duration::from_secs(30);
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The next piece of the connection.
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
    /// Counts closes by `code`.
    closes: Family<Label, Counter>,
}

/// Returns whether a request accepts Server-Sent Events.
pub(in crate::api) fn is_meant(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(header::ACCEPT).iter();
    let mut media = lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','))
        .filter_map(|range| range.split(';').next());
    media.any(|media| media.trim().eq_ignore_ascii_case(EVENT_STREAM))
}

/// Answers with events until the subscription ends.
pub(super) fn response(shared: &Arc<EdgeState>, subscription: Subscription) -> Response {
    let events = Events {
        subscription,
        stop: shared.stop.child_token(),
        stage: Stage::Begin,
        closes: shared.metrics.closes.clone(),
    };
    let pieces = events.guarded(shared.tasks.panics().clone());
    let pieces = pieces.map(Ok::<_, Infallible>);
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(BUFFERING, HeaderValue::from_static("no"));
    response.extensions_mut().insert(Patience(STALL_MAX));
    response
}

impl Events {
    /// Returns all pieces. A panic ends the events with the close code `internal`, so that the client reconnects.
    fn guarded(self, panics: Panics) -> impl Stream<Item = Bytes> {
        stream::unfold((self, panics), |(mut events, panics)| async move {
            let piece = match panics.guard(Part::Sse, events.next()).await {
                Some(piece) => piece?,
                None => events.close(Close::Internal),
            };
            Some((piece, (events, panics)))
        })
    }

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
                    #[cfg(test)]
                    crate::runtime::tasks::provoke(Part::Sse, &frame.text());
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
        Some(self.close(close))
    }

    /// Returns the last piece, with the close code.
    fn close(&mut self, close: Close) -> Bytes {
        self.stage = Stage::Over;
        let (code, word) = (close.code(), close.word());
        let label = [("code", code.to_string())];
        self.closes.get_or_create(&label).inc();
        format!("event: close\ndata: {{\"code\":{code},\"reason\":\"{word}\"}}\n\n").into()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::{
        config::Config,
        log::Streams,
        push::{Asked, Push, Settings},
        runtime::{
            clock::{Clock, Timestamp},
            tasks::Tasks,
        },
        storage::{Engine, Log as _, StreamConfig, memory::Memory},
    };

    async fn push(tasks: &Tasks) -> Push {
        let engine = Memory::new();
        let name = Config::default().roles.source;
        let made = engine.create_stream(name, 1, StreamConfig::default());
        made.await.unwrap();
        let streams = Streams::new(engine as Arc<dyn Engine>);
        let clock = Clock::manual(Timestamp(1));
        let settings = Settings::from(&Config::default());
        let push = Push::open(streams, clock, settings, tasks).await.unwrap();
        let made = push.create("s1".parse().unwrap(), br#"{"source":{"trail":"a1"}}"#);
        made.await.unwrap();
        push
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_filled_with_comments_and_the_end_says_why() {
        let tasks = Tasks::new();
        let push = push(&tasks).await;
        let name = "s1".parse().unwrap();
        let subscription = push.subscribe(&name, Asked::default());
        let mut events = Events {
            subscription: subscription.await.unwrap(),
            stop: CancellationToken::new(),
            stage: Stage::Begin,
            closes: Family::default(),
        };
        let text = |piece: Option<Bytes>| String::from_utf8(piece.unwrap().to_vec()).unwrap();
        assert_eq!(text(events.next().await), "retry: 2000\n\n");
        // The schemas, which have no position, and the record of the stream's creation.
        for id in ["\n\n", "\nid: p1"] {
            assert_eq!(text(events.next().await), "data: ");
            assert!(text(events.next().await).starts_with('['));
            let end = text(events.next().await);
            assert!(end.starts_with(id) && end.ends_with("\n\n"), "{end:?}");
        }
        let begun = Instant::now();
        for second in [15, 30, 45] {
            let idle = timeout(Duration::from_secs(3600), events.next()).await;
            assert_eq!(text(idle.unwrap()), ": idle\n\n");
            assert_eq!(begun.elapsed().as_secs(), second);
        }
        events.stop.cancel();
        let close = "event: close\ndata: {\"code\":1001,\"reason\":\"drain\"}\n\n";
        assert_eq!(text(events.next().await), close);
        assert_eq!(events.next().await, None);
        let closes = events
            .closes
            .get_or_create_owned(&[("code", "1001".to_owned())]);
        assert_eq!(closes.get(), 1);
    }
}
