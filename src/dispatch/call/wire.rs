//! The bytes of a connection, with facts about them that hyper does not report.
//!
//! hyper reads and writes through a [`Wire`]. The exchange above hyper asks the wire's [`Notes`]:
//! - whether bytes of the answer have come. If the connection ended before, the call is made again; if it ended later,
//!   the call has failed.
//! - which protocol the first bytes of the target show, because it may not be HTTP/1.1.
//! - why TLS ended, because hyper's HTTP/2 drops that error.
//!
//! A write to a connection that the target has closed counts as written. At a write error hyper would not read the
//! answer that the target sent before it closed. The next reads report the end of the connection anyway.
//!
//! The wire also gives the names of headers their case back (`case`), because hyper writes them in title case.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use super::case;
use crate::dispatch::outcome::refused::Speaks;

/// Memory for patched heads kept from one request to the next.
const HEAD_KEPT_BYTES_MAX: usize = 8 * 1024;

/// A connection's bytes, with notes on them.
pub(in crate::dispatch) struct Wire {
    socket: Socket,
    notes: Arc<Notes>,
    /// The target has sent bytes.
    has_heard: bool,
}

/// Where the bytes go.
pub(in crate::dispatch) enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    #[cfg(test)]
    MadeUp(tokio::io::DuplexStream),
}

/// What is known of a connection's bytes.
#[derive(Default)]
pub(in crate::dispatch) struct Notes {
    has_answer_begun: AtomicBool,
    /// A write has failed: no further request can be sent.
    is_closed: AtomicBool,
    /// Names in the head that is written next get their case back.
    restores_case: AtomicBool,
    /// Facts that few requests need, under one lock.
    rare: Mutex<Rare>,
}

#[derive(Default)]
struct Rare {
    speaks: Option<Speaks>,
    tls: Option<rustls::Error>,
    names: Vec<Bytes>,
    /// The head with its names restored, until it is written.
    head: Vec<u8>,
    written: usize,
}

impl Wire {
    pub(in crate::dispatch) fn new(socket: Socket) -> Self {
        Self {
            socket,
            notes: Arc::default(),
            has_heard: false,
        }
    }

    pub(in crate::dispatch) fn notes(&self) -> Arc<Notes> {
        self.notes.clone()
    }
}

impl Notes {
    /// Begins a request; `names` are its header names that are not in title case.
    pub(in crate::dispatch) fn begin_request(&self, names: Vec<Bytes>) {
        self.has_answer_begun.store(false, Ordering::Relaxed);
        if !names.is_empty() {
            self.rare().names = names;
            self.restores_case.store(true, Ordering::Relaxed);
        }
    }

    /// Returns whether the target has sent bytes since the request began. Interim answers count, because a target that
    /// sends `100` or `103` has the request.
    pub(in crate::dispatch) fn has_answer_begun(&self) -> bool {
        self.has_answer_begun.load(Ordering::Relaxed)
    }

    /// Returns whether a write has failed.
    pub(in crate::dispatch) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    pub(in crate::dispatch) fn speaks(&self) -> Option<Speaks> {
        self.rare().speaks
    }

    /// Returns the error that ended TLS, mostly an alert of the target.
    pub(in crate::dispatch) fn tls_error(&self) -> Option<rustls::Error> {
        self.rare().tls.clone()
    }

    fn note_error(&self, error: &io::Error) {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        if let Some(error) = inner {
            self.rare().tls = Some(rustls::Error::clone(error));
        }
    }

    fn rare(&self) -> MutexGuard<'_, Rare> {
        self.rare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a head with the case of its names restored, and the bytes after it. Returns how many bytes of `slices`
    /// are written; the restored head is as long as the original one.
    fn poll_write_restored(
        &self,
        socket: &mut Socket,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let rare = &mut *self.rare();
        let first: &[u8] = slices.first().map_or(&[], |slice| slice);
        if rare.written == 0 {
            // hyper writes a head in one piece. If it ever does not, the names stay in title case, which is legal.
            let head_len = case::head_len(first).unwrap_or(0);
            rare.head.clear();
            rare.head.extend_from_slice(&first[..head_len]);
            case::restore(&mut rare.head, &mut rare.names);
        }
        let left = &rare.head[rare.written..];
        let behind = first.get(left.len()..).unwrap_or_default();
        let next: &[u8] = slices.get(1).map_or(&[], |slice| slice);
        let slices = [left, behind, next].map(IoSlice::new);
        let len = ready!(Pin::new(socket).poll_write_vectored(cx, &slices))?;
        rare.written += len.min(left.len());
        if rare.written == rare.head.len() {
            self.restores_case.store(false, Ordering::Relaxed);
            rare.written = 0;
            rare.names = Vec::new();
            rare.head.clear();
            rare.head.shrink_to(HEAD_KEPT_BYTES_MAX);
        }
        Poll::Ready(Ok(len))
    }

    /// Makes a write to a closed connection a success, and notes the end.
    fn or_closed<T>(&self, written: Poll<io::Result<T>>, as_if: T) -> Poll<io::Result<T>> {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
        match written {
            Poll::Ready(Err(error))
                if matches!(
                    error.kind(),
                    BrokenPipe | ConnectionReset | ConnectionAborted
                ) =>
            {
                self.is_closed.store(true, Ordering::Relaxed);
                Poll::Ready(Ok(as_if))
            }
            written => written,
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self {
            socket,
            notes,
            has_heard,
        } = self.get_mut();
        let before = into.filled().len();
        let read = Pin::new(socket).poll_read(cx, into);
        match &read {
            Poll::Ready(Ok(())) => {
                let new = &into.filled()[before..];
                if !new.is_empty() {
                    notes.has_answer_begun.store(true, Ordering::Relaxed);
                    if !std::mem::replace(has_heard, true) {
                        notes.rare().speaks = Speaks::of(new);
                    }
                }
            }
            Poll::Ready(Err(error)) => notes.note_error(error),
            Poll::Pending => {}
        }
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.notes.restores_case.load(Ordering::Relaxed) {
            return self.poll_write_vectored(cx, &[IoSlice::new(bytes)]);
        }
        let Self { socket, notes, .. } = self.get_mut();
        notes.or_closed(Pin::new(socket).poll_write(cx, bytes), bytes.len())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { socket, notes, .. } = self.get_mut();
        let written = if notes.restores_case.load(Ordering::Relaxed) {
            notes.poll_write_restored(socket, cx, slices)
        } else {
            Pin::new(socket).poll_write_vectored(cx, slices)
        };
        notes.or_closed(written, slices.iter().map(|slice| slice.len()).sum())
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { socket, notes, .. } = self.get_mut();
        notes.or_closed(Pin::new(socket).poll_flush(cx), ())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, into),
            #[cfg(test)]
            Self::MadeUp(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            #[cfg(test)]
            Self::MadeUp(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            #[cfg(test)]
            Self::MadeUp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
            #[cfg(test)]
            Self::MadeUp(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(test)]
            Self::MadeUp(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(test)]
            Self::MadeUp(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Buf;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn an_answer_sent_before_a_close_is_read_though_writes_fail() {
        let (ours, mut theirs) = duplex(64);
        theirs.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
        drop(theirs);
        let mut wire = Wire::new(Socket::MadeUp(ours));
        let notes = wire.notes();
        assert!(!notes.is_closed());
        wire.write_all(b"request").await.unwrap();
        wire.flush().await.unwrap();
        assert!(notes.is_closed() && !notes.has_answer_begun());
        let mut read = Vec::new();
        wire.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"HTTP/1.1 200 OK\r\n");
        assert!(notes.has_answer_begun());
    }

    #[tokio::test]
    async fn names_get_their_case_back_in_pieces_of_every_size() {
        let head = &b"POST / HTTP/1.1\r\nhost: a\r\nsoapaction: x\r\n\r\n"[..];
        let body = &b"soapaction: y\r\n\r\n"[..];
        let expected = "POST / HTTP/1.1\r\nhost: a\r\nSOAPAction: x\r\n\r\nsoapaction: y\r\n\r\n";
        for piece_bytes in 1..=expected.len() {
            let (ours, mut theirs) = duplex(piece_bytes);
            let mut wire = Wire::new(Socket::MadeUp(ours));
            let notes = wire.notes();
            let (sent, received) = tokio::join!(
                async move {
                    // As two slices, as one, and once more as hyper would give it.
                    for names in [vec![Bytes::from_static(b"SOAPAction")], Vec::new()] {
                        notes.begin_request(names);
                        wire.write_all_buf(&mut Buf::chain(head, body))
                            .await
                            .unwrap();
                    }
                    notes.begin_request(vec![Bytes::from_static(b"SOAPAction")]);
                    wire.write_all(&[head, body].concat()).await.unwrap();
                    notes
                },
                async {
                    let mut received = String::new();
                    theirs.read_to_string(&mut received).await.unwrap();
                    received
                }
            );
            let plain = expected
                .to_lowercase()
                .replace("post / http", "POST / HTTP");
            assert_eq!(
                received,
                [expected, &plain, expected].concat(),
                "{piece_bytes}"
            );
            assert!(sent.rare().head.is_empty() && sent.rare().names.is_empty());
        }
    }

    #[test]
    fn a_protocol_is_told_by_its_first_bytes() {
        let settings = [0, 0, 18, 4, 0, 0, 0, 0, 0, 0, 3];
        let goodbye = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0];
        for (first, expected) in [
            (&settings[..], Some(Speaks::Http2)),
            (&goodbye, Some(Speaks::Http2)),
            (b"\x15\x03\x03\x00\x02\x02\x0a", Some(Speaks::Tls)),
            (b"HTTP/1.1 200 OK\r\n", None),
            (b"220 mail.example ESMTP", None),
            (&[0, 0, 18, 4], None),
            (b"", None),
        ] {
            assert_eq!(Speaks::of(first), expected, "{first:?}");
        }
    }
}
