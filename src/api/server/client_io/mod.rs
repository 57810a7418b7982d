//! The socket of a client. It resets the connection if the client takes nothing of its answer.
//!
//! TCP does not do that: a client that reads nothing still acknowledges probes of its full window. So a blocked write starts
//! a clock. The client must take at least 1 KiB a second within each [`Patience`], else its connection is reset.
//!
//! While an answer is blocked, nothing is read from its client, because the answers to pipelined requests would pile up.
//! A connection without an answer under way has no clock. WebSockets leave this type at their upgrade.
//!
//! While a request is watched, its client must keep the connection open. If the client closes it, or its sending half, the
//! connection ends and with it the work on the request. Bytes that the client has sent ahead do not change that.

mod content_length;
mod manners;
#[cfg(test)]
mod tests;
mod watch;

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

pub(in crate::api) use manners::{Manners, Patience};

use self::{content_length::Length, watch::Watch};

/// Bytes of an answer that a client must take, on average over its patience.
const TAKEN_PER_SECOND_MIN: u64 = 1 << 10;
/// Bytes of a refused request that are still read. Closing a connection with unread bytes resets it, and the client may
/// lose the answer.
const LINGER_BYTES_MAX: usize = 16 << 20;
/// How long that may take in all, and how long the client may pause.
const LINGER_MAX: Duration = Duration::from_secs(10);
const LINGER_PAUSE_MAX: Duration = Duration::from_millis(500);

/// A client's socket.
#[derive(Debug)]
pub(in crate::api) struct ClientIo {
    io: TcpStream,
    manners: Arc<Manners>,
    /// The last write was blocked.
    blocked: bool,
    /// A read was refused meanwhile.
    read_refused: bool,
    /// Runs from the first blocked write.
    clock: Option<Pin<Box<Sleep>>>,
    /// Bytes that were taken since then.
    taken: u64,
    linger: Option<Linger>,
    length: Length,
    /// Set while a request is watched.
    watch: Option<Watch>,
}

/// The end of a connection, while the rest of the request is read.
#[derive(Debug)]
struct Linger {
    clock: Pin<Box<Sleep>>,
    ends: Instant,
    bytes: usize,
}

impl ClientIo {
    pub(in crate::api) fn new(io: TcpStream, manners: Arc<Manners>) -> Self {
        Self {
            io,
            manners,
            blocked: false,
            read_refused: false,
            clock: None,
            taken: 0,
            linger: None,
            length: Length::new(),
            watch: None,
        }
    }

    pub(in crate::api) fn into_inner(self) -> TcpStream {
        self.io
    }

    fn progressed(&mut self, len: usize, cx: &mut Context<'_>) {
        self.blocked = false;
        if std::mem::take(&mut self.read_refused) {
            // The refused read registered no waker, so wake the task here.
            cx.waker().wake_by_ref();
        }
        if self.clock.is_some() {
            self.taken += u64::try_from(len).unwrap_or(u64::MAX);
            if self.taken >= self.manners.patience().as_secs() * TAKEN_PER_SECOND_MIN {
                self.clock = None;
            }
        }
    }

    /// Waits until the patience of the client is over.
    fn poll_blocked(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.blocked = true;
        if self.clock.is_none() {
            self.taken = 0;
        }
        let ends = || Box::pin(sleep_until(Instant::now() + self.manners.patience()));
        let clock = self.clock.get_or_insert_with(ends);
        ready!(clock.as_mut().poll(cx));
        let told = "the client took nothing of its answer in time";
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, told))
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let linger = self.linger.get_or_insert_with(|| Linger {
            clock: Box::pin(sleep_until(Instant::now() + LINGER_PAUSE_MAX)),
            ends: Instant::now() + LINGER_MAX,
            bytes: 0,
        });
        let mut rest = [0; 8 << 10];
        loop {
            let mut rest = ReadBuf::new(&mut rest);
            match Pin::new(&mut self.io).poll_read(cx, &mut rest) {
                Poll::Ready(Ok(())) if !rest.filled().is_empty() => {
                    linger.bytes += rest.filled().len();
                    if linger.bytes > LINGER_BYTES_MAX {
                        return Poll::Ready(());
                    }
                    let pause = (Instant::now() + LINGER_PAUSE_MAX).min(linger.ends);
                    linger.clock.as_mut().reset(pause);
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return linger.clock.as_mut().poll(cx),
            }
        }
    }

    /// Returns whether the client of a watched request has hung up; if not, that will wake the task.
    fn has_hung_up(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.manners.watches() {
            self.watch = None;
            return false;
        }
        if self.watch.is_none() {
            self.watch = Watch::of(&self.io)
                .inspect_err(
                    |error| tracing::debug!(%error, "cannot watch the connection of a client"),
                )
                .ok();
        }
        match &self.watch {
            Some(watch) => watch.has_ended(cx),
            // No descriptor is left. A peek still sees an end that has no unread byte before it.
            None => {
                let mut byte = [0];
                let peeked = self.io.poll_peek(cx, &mut ReadBuf::new(&mut byte));
                matches!(peeked, Poll::Ready(Ok(0) | Err(_)))
            }
        }
    }

    /// Makes the system drop the unsent bytes at once.
    fn reset(&self) {
        if let Err(error) = SockRef::from(&self.io).set_linger(Some(Duration::ZERO)) {
            tracing::debug!(%error, "cannot reset the connection of a client");
        }
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.blocked {
            self.read_refused = true;
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        self.length.look(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.as_mut()
            .poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let instead = this.length.instead(parts);
        let io = Pin::new(&mut this.io);
        let written = match instead {
            Some(instead) => io.poll_write(cx, instead),
            None => io.poll_write_vectored(cx, parts),
        };
        match written {
            Poll::Ready(Ok(len)) => {
                this.progressed(len, cx);
                Poll::Ready(Ok(match instead {
                    // The whole answer was written: it is the first of the connection, and shorter than the socket's buffer.
                    Some(_) => parts.iter().map(|part| part.len()).sum(),
                    None => len,
                }))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                let error = ready!(this.poll_blocked(cx));
                this.reset();
                Poll::Ready(Err(error))
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes when all is written, and at each poll while a request has no answer yet. So this is the place to
        // notice a hang-up.
        self.clock = None;
        if self.has_hung_up(cx) {
            let told = "the client has hung up";
            tracing::debug!("{told}");
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, told)));
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
        }
        if self.manners.lingers() {
            ready!(self.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}
