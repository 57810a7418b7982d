//! The byte stream below a WebSocket, with a queue of whole messages: shared frames, and messages of the library.
//!
//! A frame has the same bytes for every client, header included, so it is sent without a copy. The library answers pings and
//! closes itself. Its messages are queued whole, so that none is written into the middle of a frame.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// Bytes that a client may send before its message is complete. A message of 4 KiB in fragments of one byte has up to
/// 60 KiB with headers. Empty fragments have no end, and the library does not report them.
const UNHEARD_BYTES_MAX: usize = 64 << 10;
/// Header and mask of a control frame.
const CONTROL_HEAD_BYTES: usize = 6;
/// Bytes of the library in the queue, at most; then its writes wait.
const OWN_BYTES_MAX: usize = 16 << 10;

/// A byte stream with a queue of messages.
#[derive(Debug)]
pub(super) struct Wire<S> {
    io: S,
    queue: VecDeque<Bytes>,
    /// Bytes of the library in the queue.
    own: usize,
    read_at: Instant,
    written_at: Instant,
    /// Bytes read since the last whole message; `None` after a close.
    unheard: Option<usize>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(io: S) -> Self {
        let now = Instant::now();
        Self {
            io,
            queue: VecDeque::new(),
            own: 0,
            read_at: now,
            written_at: now,
            unheard: Some(0),
        }
    }

    /// Notes that the client has completed a message.
    pub(super) fn heard(&mut self) {
        self.unheard = self.unheard.map(|_| 0);
    }

    /// Notes a ping or pong, which may come in the middle of a message.
    pub(super) fn heard_control(&mut self, payload_len: usize) {
        let len = CONTROL_HEAD_BYTES + payload_len;
        self.unheard = self.unheard.map(|unheard| unheard.saturating_sub(len));
    }

    /// Removes the bound on reads, because the session drops the rest.
    pub(super) fn stop_listening(&mut self) {
        self.unheard = None;
    }

    /// Queues a whole message, or several.
    pub(super) fn push(&mut self, message: Bytes) {
        if self.queue.is_empty() {
            // The queue was empty, so the client has not been slow until now.
            self.written_at = Instant::now();
        }
        self.queue.push_back(message);
    }

    /// Returns whether the kernel has taken all bytes.
    pub(super) fn is_drained(&self) -> bool {
        self.queue.is_empty()
    }

    /// Returns when the client last sent a byte.
    pub(super) fn read_at(&self) -> Instant {
        self.read_at
    }

    /// Returns when the kernel last took a byte, or the queue last became non-empty.
    pub(super) fn written_at(&self) -> Instant {
        self.written_at
    }

    /// Writes the queue.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(first) = self.queue.front_mut() {
            let len = ready!(Pin::new(&mut self.io).poll_write(cx, first))?;
            if len == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written_at = Instant::now();
            first.advance(len);
            if first.is_empty() {
                self.queue.pop_front();
            }
        }
        self.own = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        self.read_at = Instant::now();
        if let Some(unheard) = &mut self.unheard {
            *unheard += buffer.filled().len() - before;
            if *unheard > UNHEARD_BYTES_MAX {
                return Poll::Ready(Err(io::ErrorKind::QuotaExceeded.into()));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        message: &[u8],
    ) -> Poll<io::Result<usize>> {
        let drained = self.poll_drain(cx)?;
        if drained.is_pending() && self.own + message.len() > OWN_BYTES_MAX {
            return Poll::Pending;
        }
        // The library writes each message in one call.
        self.own += message.len();
        self.push(Bytes::copy_from_slice(message));
        Poll::Ready(Ok(message.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_message_of_the_library_never_splits_a_frame() {
        let (client, server) = tokio::io::duplex(3);
        let mut wire = Wire::new(server);
        wire.push(Bytes::from_static(b"frame one"));
        let mut client = client;
        let reads = async {
            let mut read = [0; 23];
            client.read_exact(&mut read).await.unwrap();
            read
        };
        let writes = async {
            // The pipe has room for three bytes of the frame; the pong must follow the whole frame.
            wire.write_all(b"pong").await.unwrap();
            wire.push(Bytes::from_static(b" frame two"));
            wire.flush().await.unwrap();
        };
        let (read, ()) = tokio::join!(reads, writes);
        assert_eq!(&read, b"frame onepong frame two");
    }

    #[tokio::test]
    async fn the_library_waits_when_too_much_of_it_is_queued() {
        let (_client, server) = tokio::io::duplex(1);
        let mut wire = Wire::new(server);
        let pong = [0; 1024];
        let mut taken = 0;
        let refused = std::future::poll_fn(|cx| {
            loop {
                match Pin::new(&mut wire).poll_write(cx, &pong) {
                    Poll::Ready(Ok(len)) => taken += len,
                    Poll::Ready(Err(error)) => panic!("{error}"),
                    Poll::Pending => return Poll::Ready(()),
                }
            }
        });
        refused.await;
        assert!((15 << 10..=16 << 10).contains(&taken), "{taken}");
    }
}
