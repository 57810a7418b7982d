//! One connection and the exchanges on it.
//!
//! A connection has one owner, a worker, and is driven in the worker's own task: an exchange costs no wake-up of another
//! task. While it waits for work the worker keeps polling it, so a connection that the target closes is noticed then and
//! not by the next record.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    mem::take,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use futures_util::future::Either;
use http::{
    Request, Response,
    header::{DATE, RETRY_AFTER},
};
use http_body_util::Full;
use hyper::{
    body::{Body as _, Frame, Incoming},
    client::conn::{TrySendError, http1, http2},
    rt::Executor,
};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    connect::Stream,
    outcome::{Cause, Failure, KEPT_BYTES_MAX},
};
use crate::tasks::Tasks;

type Io = TokioIo<Stream>;
type Body = Full<Bytes>;

/// What is read of a response's body; a longer one costs its connection.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// What the head of a response may have.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Headers that a response may have over HTTP/1.1: hyper's own bound, since for any other it allocates 16 KiB for each
/// response.
const HEAD_LEN_MAX: usize = 100;

/// An open connection.
pub(crate) struct Connection {
    link: Link,
    /// It has carried an exchange; the target may have closed it since.
    used: bool,
}

/// A `driver` that has ended is dropped at once: that is what makes hyper give back a request it has not sent.
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

/// What an exchange came to.
pub(crate) enum Exchange {
    /// The target answered.
    Answered(Answer),
    /// Nothing was sent: the connection had been closed before.
    Unsent,
    /// The target did not answer.
    Failed(Failure),
}

/// A response, as far as it matters.
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: u16,
    /// How the body began; empty if nobody wanted it.
    pub(crate) body: Bytes,
    /// The header `Retry-After`.
    pub(crate) retry_after: Option<http::HeaderValue>,
    /// The header `Date`, if there is a `Retry-After`.
    pub(crate) date: Option<http::HeaderValue>,
    /// The connection can carry the next exchange.
    pub(crate) reusable: bool,
}

/// What is looked at of a response.
struct Head {
    status: u16,
    retry_after: Option<http::HeaderValue>,
    date: Option<http::HeaderValue>,
    body: Incoming,
}

impl Head {
    fn of(response: Response<Incoming>) -> Self {
        let headers = response.headers();
        let retry_after = headers.get(RETRY_AFTER).cloned();
        Self {
            status: response.status().as_u16(),
            date: retry_after
                .as_ref()
                .and_then(|_| headers.get(DATE).cloned()),
            retry_after,
            body: response.into_body(),
        }
    }
}

/// When an exchange must have come how far.
#[derive(Clone, Copy)]
pub(crate) struct Deadlines {
    /// The head of the response is there.
    pub(crate) response_by: Instant,
    /// The end of all.
    pub(crate) by: Instant,
}

impl Connection {
    /// Speaks HTTP/1.1.
    pub(super) async fn http1(io: Io) -> hyper::Result<Self> {
        let (sender, driver) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .handshake(io)
            .await?;
        let driver = Some(Box::new(driver));
        let link = Link::Http1 { sender, driver };
        Ok(Self { link, used: false })
    }

    /// Speaks HTTP/2.
    pub(super) async fn http2(io: Io, tasks: Tasks) -> hyper::Result<Self> {
        let (sender, driver) = http2::Builder::new(Spawner(tasks))
            .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
            .handshake(io)
            .await?;
        let driver = Some(Box::pin(driver));
        let link = Link::Http2 { sender, driver };
        Ok(Self { link, used: false })
    }

    /// Returns whether requests need an absolute URI.
    pub(crate) fn is_http2(&self) -> bool {
        matches!(self.link, Link::Http2 { .. })
    }

    /// Returns whether an exchange has been made on it.
    pub(crate) fn is_used(&self) -> bool {
        self.used
    }

    /// Lets the connection do what is to do; returns whether it is still open. Wakes the task when there is more.
    pub(crate) fn poll_open(&mut self, cx: &mut Context<'_>) -> bool {
        match &mut self.link {
            Link::Http1 { driver, .. } => poll_driver(driver, |open| Pin::new(open).poll(cx)),
            Link::Http2 { driver, .. } => poll_driver(driver, |open| open.as_mut().poll(cx)),
        }
    }

    /// Sends a request, which is taken unless it is [`Exchange::Unsent`], and reads the response. `wanted` says of a
    /// status whether the body's beginning is to be kept.
    pub(crate) async fn exchange(
        &mut self,
        request: &mut Request<Body>,
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
            return Exchange::Unsent;
        }
        self.used = true;
        let head = match &mut self.link {
            Link::Http1 { sender, .. } => Either::Left(sender.try_send_request(take(request))),
            Link::Http2 { sender, .. } => Either::Right(sender.try_send_request(take(request))),
        };
        let mut head = pin!(head);
        let response = poll_fn(|cx| {
            let open = self.poll_open(cx);
            match self.poll_fed(cx, |cx| head.as_mut().poll(cx)) {
                Poll::Ready(response) => Poll::Ready(Some(response.map(Head::of))),
                Poll::Pending if !open => Poll::Ready(None),
                Poll::Pending => timer.poll(cx, response_by).map(|()| None),
            }
        })
        .await;
        match response {
            Some(Ok(head)) => {
                Exchange::Answered(self.answer(head, timer, deadlines.by, wanted).await)
            }
            Some(Err(refused)) => refused_exchange(refused, request),
            None => Exchange::Failed(Failure::new(
                Cause::Timeout,
                "the response did not begin in time",
            )),
        }
    }

    /// Returns whether a request can be sent, if that is known, as it mostly is.
    ///
    /// Asked without a waker, the driver does not wake this task when it is handed the request: it is polled then anyway.
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

    /// Polls what the driver feeds. Over HTTP/1 that happens in this task just before, so no wake-up is asked for.
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
        head: Head,
        timer: &mut Timer,
        by: Instant,
        wanted: impl Fn(u16) -> bool,
    ) -> Answer {
        let Head {
            status,
            retry_after,
            date,
            mut body,
        } = head;
        let keep_bytes = if wanted(status) { KEPT_BYTES_MAX } else { 0 };
        let mut kept = Vec::new();
        let mut read_bytes = 0;
        let whole = loop {
            if body.is_end_stream() {
                break true;
            }
            let frame = poll_fn(|cx| self.poll_frame(cx, &mut body, timer, by)).await;
            match frame {
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    let room = keep_bytes - kept.len();
                    kept.extend_from_slice(&data[..data.len().min(room)]);
                    read_bytes += data.len();
                    if read_bytes > BODY_BYTES_MAX {
                        break false;
                    }
                }
                Some(Err(_)) => break false,
                None => break body.is_end_stream(),
            }
        };
        Answer {
            status,
            body: kept.into(),
            retry_after,
            date,
            reusable: whole && self.is_open(),
        }
    }

    /// Returns the next part of a body; `None` at its end, and when the time is over.
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut Incoming,
        timer: &mut Timer,
        by: Instant,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // What came with the head is there already.
        let mut frame = self.poll_fed(cx, |cx| Pin::new(&mut *body).poll_frame(cx));
        if frame.is_pending() {
            self.poll_open(cx);
            frame = self.poll_fed(cx, |cx| Pin::new(&mut *body).poll_frame(cx));
        }
        match frame {
            Poll::Ready(frame) => Poll::Ready(frame),
            Poll::Pending => timer.poll(cx, by).map(|()| None),
        }
    }

    fn is_open(&self) -> bool {
        match &self.link {
            Link::Http1 { sender, driver } => driver.is_some() && !sender.is_closed(),
            Link::Http2 { sender, driver } => driver.is_some() && !sender.is_closed(),
        }
    }
}

fn poll_driver<D>(
    driver: &mut Option<D>,
    poll: impl FnOnce(&mut D) -> Poll<hyper::Result<()>>,
) -> bool {
    // What the driver says of its end is told to the exchange too, so it is not looked at here.
    let ended = driver.as_mut().is_none_or(|open| poll(open).is_ready());
    if ended {
        *driver = None;
    }
    !ended
}

/// hyper gives a request back only if not a byte of it was written.
fn refused_exchange(
    mut refused: TrySendError<Request<Body>>,
    request: &mut Request<Body>,
) -> Exchange {
    if let Some(unsent) = refused.take_message() {
        *request = unsent;
        return Exchange::Unsent;
    }
    let error = refused.into_error();
    if error.is_parse_too_large() {
        let kib = HEAD_BYTES_MAX / 1024;
        let reason = format!(
            "the head of the answer is too large: more than {kib} KiB, or more than {HEAD_LEN_MAX} headers"
        );
        return Exchange::Failed(Failure::new(Cause::Reset, reason));
    }
    let source = std::error::Error::source(&error)
        .and_then(|source| source.downcast_ref::<std::io::Error>());
    let reason = match source {
        Some(io) => format!("{error}: {}", io.kind()),
        None => error.to_string(),
    };
    Exchange::Failed(Failure::new(Cause::Reset, reason))
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

/// Runs hyper's half of an HTTP/2 connection; it ends with the connection.
#[derive(Clone)]
struct Spawner(Tasks);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Spawner {
    fn execute(&self, future: F) {
        self.0.spawn("http2", future);
    }
}

/// A body that is whole in memory cannot fail.
const _: fn(<Body as hyper::body::Body>::Error) -> Infallible = |error| error;
