//! One connection and the exchanges on it.
//!
//! A connection has one owner, a worker, which drives it in its own task. So an exchange wakes no other task. A worker
//! without a job keeps polling its connection. So it notices when the target closes the connection, before the next
//! record is sent on it.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::Either;
use http::{
    HeaderMap, Request, Response,
    header::{DATE, RETRY_AFTER, TRANSFER_ENCODING},
};
use http_body_util::Full;
use hyper::{
    body::{Body as _, Incoming},
    client::conn::{http1, http2},
    rt::Executor,
};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    unanswered::Unanswered,
    wire::{Notes, Wire},
};
use crate::dispatch::outcome::{Cause, Failure, KEPT_BYTES_MAX};
use crate::runtime::tasks::{self, Tasks};

type Io = TokioIo<Wire>;
type Body = Full<Bytes>;

/// Bytes read of a response body; a longer body closes its connection.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// How long a body is read that ends with its connection. The head has decided the outcome, and many such bodies never
/// end.
const DRAIN: Duration = Duration::from_secs(1);
/// Largest head of a response.
pub(in crate::dispatch) const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Headers of a response over HTTP/1.1. It is hyper's own bound, because with any other hyper allocates 16 KiB for each
/// response.
pub(in crate::dispatch) const HEAD_LEN_MAX: usize = 100;

/// An open connection.
pub(crate) struct Connection {
    link: Link,
    notes: Arc<Notes>,
    /// The error with which the driver ended.
    end: Option<hyper::Error>,
    /// It has carried an exchange, so the target may have closed it since.
    used: bool,
}

/// A `driver` that has ended is dropped at once, because only then does hyper give back a request it has not sent. Over
/// HTTP/2 another task reads the connection, so the answer to a sent request still comes.
enum Link {
    Http1 {
        sender: http1::SendRequest<Body>,
        driver: Option<Box<http1::Connection<Io, Body>>>,
    },
    Http2 {
        sender: http2::SendRequest<Body>,
        driver: Option<Pin<Box<http2::Connection<Io, Body, Spawner>>>>,
    },
}

/// The result of an exchange.
pub(crate) enum Exchange {
    /// The target answered.
    Answered(Answer),
    /// The connection ended before an answer began. A reused connection may have been closed while the request was on
    /// its way, which says nothing about the target. The failure counts for a fresh connection only.
    Ended(Failure),
    /// The target did not answer.
    Failed(Failure),
}

/// The parts of a response that dispatch uses.
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The beginning of the body; empty if `wanted` refused it.
    pub(crate) body: Bytes,
    /// The header `Retry-After`.
    pub(crate) retry_after: Option<http::HeaderValue>,
    /// The header `Date`, if there is a `Retry-After`.
    pub(crate) date: Option<http::HeaderValue>,
    /// The connection can carry the next exchange.
    pub(crate) reusable: bool,
}

impl Answer {
    /// Returns whether the target closes an idle connection with this answer, a 408. On a reused connection that says
    /// nothing about the request, which may be sent again on another one (RFC 9110 §15.5.9).
    pub(crate) fn is_farewell(&self) -> bool {
        self.status == 408 && !self.reusable
    }
}

/// The parts of a response head that dispatch uses.
struct ResponseHead {
    status: u16,
    retry_after: Option<http::HeaderValue>,
    date: Option<http::HeaderValue>,
    /// Without a length, a body over HTTP/1.1 ends with its connection.
    has_length: bool,
    body: Incoming,
}

impl ResponseHead {
    fn of(response: Response<Incoming>) -> Self {
        let headers = response.headers();
        let retry_after = headers.get(RETRY_AFTER).cloned();
        Self {
            status: response.status().as_u16(),
            date: retry_after
                .as_ref()
                .and_then(|_| headers.get(DATE).cloned()),
            retry_after,
            has_length: response.body().size_hint().exact().is_some() || is_chunked(headers),
            body: response.into_body(),
        }
    }
}

/// Chunks mark the end of a body only if `chunked` is the last coding (RFC 9112 §6.3).
fn is_chunked(headers: &HeaderMap) -> bool {
    let last = headers.get_all(TRANSFER_ENCODING).iter().next_back();
    let codings = last.and_then(|last| last.to_str().ok());
    let coding = codings.and_then(|codings| codings.rsplit(',').next());
    coding.is_some_and(|coding| coding.trim().eq_ignore_ascii_case("chunked"))
}

/// The next part of a body.
enum Part {
    Data(Bytes),
    Trailers,
    End,
    /// The body was cut off, or the time is over.
    Broken,
}

/// The deadlines of an exchange.
#[derive(Clone, Copy)]
pub(crate) struct Deadlines {
    /// Of the response head.
    pub(crate) response_by: Instant,
    /// Of the whole exchange.
    pub(crate) by: Instant,
}

impl Connection {
    /// Opens HTTP/1.1 on a wire. It accepts the malformed header lines that browsers and curl accept. Refusing one
    /// would fail the record although the target has it, and every retry would fail again.
    pub(in crate::dispatch) async fn http1(wire: Wire) -> hyper::Result<Self> {
        let notes = wire.notes();
        let (sender, driver) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            // Most messages name headers in title case, so few heads are patched: see `case`.
            .title_case_headers(true)
            .allow_spaces_after_header_name_in_responses(true)
            .allow_obsolete_multiline_headers_in_responses(true)
            .ignore_invalid_headers_in_responses(true)
            .handshake(TokioIo::new(wire))
            .await?;
        let driver = Some(Box::new(driver));
        Ok(Self::new(Link::Http1 { sender, driver }, notes))
    }

    /// Opens HTTP/2 on a wire.
    pub(in crate::dispatch) async fn http2(wire: Wire, tasks: Tasks) -> hyper::Result<Self> {
        let notes = wire.notes();
        let (sender, driver) = http2::Builder::new(Spawner(tasks))
            .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
            .handshake(TokioIo::new(wire))
            .await?;
        let driver = Some(Box::pin(driver));
        Ok(Self::new(Link::Http2 { sender, driver }, notes))
    }

    fn new(link: Link, notes: Arc<Notes>) -> Self {
        Self {
            link,
            notes,
            end: None,
            used: false,
        }
    }

    /// Returns whether requests need an absolute URI.
    pub(crate) fn is_http2(&self) -> bool {
        matches!(self.link, Link::Http2 { .. })
    }

    /// Returns whether it has carried an exchange.
    pub(crate) fn is_used(&self) -> bool {
        self.used
    }

    /// Drives the connection; returns whether it is still open. Wakes the task when there is more to do.
    pub(crate) fn poll_open(&mut self, cx: &mut Context<'_>) -> bool {
        let end = &mut self.end;
        match &mut self.link {
            Link::Http1 { driver, .. } => poll_driver(driver, end, |open| Pin::new(open).poll(cx)),
            Link::Http2 { driver, .. } => poll_driver(driver, end, |open| open.as_mut().poll(cx)),
        }
    }

    /// Sends a request and reads the response. `names` are header names with the case to send; HTTP/2 has lower case
    /// only (RFC 9113 §8.2.1). `wanted` returns for a status whether to keep the beginning of the body.
    pub(crate) async fn exchange(
        &mut self,
        request: Request<Body>,
        names: Vec<Bytes>,
        timer: &mut Timer,
        deadlines: Deadlines,
        wanted: impl Fn(u16) -> bool,
    ) -> Exchange {
        let response_by = deadlines.response_by.min(deadlines.by);
        let ready = match self.ready_at_once() {
            Some(ready) => ready,
            None => poll_fn(|cx| self.poll_ready(cx, Some((&mut *timer, response_by)))).await,
        };
        if !ready {
            return self.unanswered(self.end.as_ref(), true);
        }
        self.used = true;
        let head = match &mut self.link {
            Link::Http1 { sender, .. } => {
                self.notes.begin_request(names);
                Either::Left(sender.try_send_request(request))
            }
            Link::Http2 { sender, .. } => Either::Right(sender.try_send_request(request)),
        };
        let mut head = pin!(head);
        let response = poll_fn(|cx| {
            // The result is ignored: if the driver has ended, `head` fails or still gets its answer.
            self.poll_open(cx);
            match self.poll_fed(cx, |cx| head.as_mut().poll(cx)) {
                Poll::Ready(response) => Poll::Ready(Some(response.map(ResponseHead::of))),
                Poll::Pending => timer.poll(cx, response_by).map(|()| None),
            }
        })
        .await;
        match response {
            Some(Ok(head)) => {
                Exchange::Answered(self.answer(head, timer, deadlines.by, wanted).await)
            }
            Some(Err(refused)) => {
                // hyper gives a request back only if not a byte of it was written.
                let unsent = refused.message().is_some();
                self.unanswered(Some(refused.error()), unsent)
            }
            None => Exchange::Failed(Failure::new(
                Cause::Timeout,
                "the response did not begin in time",
            )),
        }
    }

    fn unanswered(&self, error: Option<&hyper::Error>, unsent: bool) -> Exchange {
        let unanswered = Unanswered {
            error,
            unsent,
            is_http2: self.is_http2(),
            notes: &self.notes,
        };
        match unanswered.has_ended() {
            true => Exchange::Ended(unanswered.failure()),
            false => Exchange::Failed(unanswered.failure()),
        }
    }

    /// Returns whether a request can be sent, if that is known at once. It mostly is.
    ///
    /// Polled without a waker, the driver does not wake this task when it gets the request. The task polls it then
    /// anyway.
    fn ready_at_once(&mut self) -> Option<bool> {
        match self.poll_ready(&mut Context::from_waker(Waker::noop()), None) {
            Poll::Ready(ready) => Some(ready),
            Poll::Pending => None,
        }
    }

    /// Waits until a request can be sent; `false` if none ever can.
    fn poll_ready(
        &mut self,
        cx: &mut Context<'_>,
        until: Option<(&mut Timer, Instant)>,
    ) -> Poll<bool> {
        let open = self.poll_open(cx);
        let ready = match &mut self.link {
            Link::Http1 { sender, .. } => sender.poll_ready(cx),
            Link::Http2 { sender, .. } => sender.poll_ready(cx),
        };
        match ready {
            _ if !open => Poll::Ready(false),
            Poll::Ready(ready) => Poll::Ready(ready.is_ok()),
            Poll::Pending => match until {
                Some((timer, by)) => timer.poll(cx, by).map(|()| false),
                None => Poll::Pending,
            },
        }
    }

    /// Polls a future that the driver feeds. Over HTTP/1 this task drove the driver just before, so it needs no
    /// wake-up.
    fn poll_fed<T>(
        &self,
        cx: &mut Context<'_>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        match self.link {
            Link::Http1 { .. } => poll(&mut Context::from_waker(Waker::noop())),
            Link::Http2 { .. } => poll(cx),
        }
    }

    async fn answer(
        &mut self,
        head: ResponseHead,
        timer: &mut Timer,
        by: Instant,
        wanted: impl Fn(u16) -> bool,
    ) -> Answer {
        let ResponseHead {
            status,
            retry_after,
            date,
            has_length,
            mut body,
        } = head;
        let by = match has_length || self.is_http2() {
            true => by,
            false => by.min(Instant::now() + DRAIN),
        };
        let keep_bytes = if wanted(status) { KEPT_BYTES_MAX } else { 0 };
        let mut kept = Vec::new();
        let mut read_bytes = 0;
        let whole = loop {
            if body.is_end_stream() {
                break true;
            }
            match poll_fn(|cx| self.poll_part(cx, &mut body, timer, by)).await {
                Part::Data(data) => {
                    let room = keep_bytes - kept.len();
                    kept.extend_from_slice(&data[..data.len().min(room)]);
                    read_bytes += data.len();
                    if read_bytes > BODY_BYTES_MAX {
                        break false;
                    }
                }
                Part::Trailers => {}
                Part::End => break true,
                Part::Broken => break false,
            }
        };
        Answer {
            status,
            body: kept.into(),
            retry_after,
            date,
            reusable: whole && self.is_idle(),
        }
    }

    /// Returns the next part of a body.
    fn poll_part(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut Incoming,
        timer: &mut Timer,
        by: Instant,
    ) -> Poll<Part> {
        // Bytes that came with the head are buffered already.
        let mut frame = self.poll_fed(cx, |cx| Pin::new(&mut *body).poll_frame(cx));
        if frame.is_pending() {
            self.poll_open(cx);
            frame = self.poll_fed(cx, |cx| Pin::new(&mut *body).poll_frame(cx));
        }
        match frame {
            Poll::Ready(Some(Ok(frame))) => {
                Poll::Ready(frame.into_data().map_or(Part::Trailers, Part::Data))
            }
            Poll::Ready(Some(Err(_))) => Poll::Ready(Part::Broken),
            Poll::Ready(None) => Poll::Ready(Part::End),
            Poll::Pending => timer.poll(cx, by).map(|()| Part::Broken),
        }
    }

    /// Returns whether the next request can be sent at once. It cannot if the target answered before it had read the
    /// whole request and reads no more of it.
    fn is_idle(&mut self) -> bool {
        let is_ready = match &self.link {
            Link::Http1 { sender, driver } => driver.is_some() && sender.is_ready(),
            Link::Http2 { sender, driver } => driver.is_some() && sender.is_ready(),
        };
        // The driver may not have seen the end of the answer yet.
        (is_ready || self.ready_at_once() == Some(true)) && !self.notes.is_closed()
    }
}

fn poll_driver<D>(
    driver: &mut Option<D>,
    end: &mut Option<hyper::Error>,
    poll: impl FnOnce(&mut D) -> Poll<hyper::Result<()>>,
) -> bool {
    let Some(open) = driver else { return false };
    let Poll::Ready(ended) = poll(open) else {
        return true;
    };
    *end = ended.err();
    *driver = None;
    false
}

/// One timer for all that a worker waits for.
///
/// It is moved only when it would fire too late, or when it fires: most deadlines are far away and never come, and
/// moving a timer for each of them costs more than a rare wake-up in between.
pub(crate) struct Timer {
    sleep: Pin<Box<Sleep>>,
    armed: Instant,
}

impl Timer {
    /// A timer that fires at `first`, to be asked then.
    pub(crate) fn new(first: Instant) -> Self {
        Self {
            sleep: Box::pin(sleep_until(first)),
            armed: first,
        }
    }

    /// Ready at `deadline`.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        if deadline < self.armed {
            self.arm(deadline);
        }
        while self.sleep.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            self.arm(deadline);
        }
        Poll::Pending
    }

    fn arm(&mut self, at: Instant) {
        self.sleep.as_mut().reset(at);
        self.armed = at;
    }
}

/// Runs hyper's half of an HTTP/2 connection; it ends with the connection. A panic there is the end of that connection and
/// of nothing else.
#[derive(Clone)]
struct Spawner(Tasks);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Spawner {
    fn execute(&self, future: F) {
        self.0.spawn_guarded(tasks::Part::Target, future);
    }
}

/// A body that is whole in memory cannot fail.
const _: fn(<Body as hyper::body::Body>::Error) -> Infallible = |error| error;

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_panic_in_the_connection_to_one_target_stops_nothing_else() {
        let tasks = Tasks::new();
        Spawner(tasks.clone()).execute(async { panic!("on purpose") });
        assert_eq!(tasks.join(Duration::from_secs(5)).await, 0);
        assert!(tasks.failed().now_or_never().is_none());
        assert_eq!(tasks.panics().count(tasks::Part::Target), 1);
    }
}
