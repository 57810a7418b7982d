//! The socket of a client, which is dropped if the client takes nothing of its answer.
//!
//! TCP does not do that: a client that reads nothing still acknowledges probes of its full window. So a write that cannot
//! go on starts a clock. The client has to take a little within each [`Patience`], else its connection is reset.
//!
//! Nothing is read from a client whose answer is blocked: answers to requests that it sends ahead would pile up here.
//! A connection without an answer under way has no clock, and WebSockets leave this type at their upgrade.
//!
//! While a request is watched, its client must keep the connection open. A client that closes it, or only its sending half,
//! has hung up: the connection ends, and with it the work on the request. Bytes that it has sent ahead change nothing.

use std::{
    io::{self, IoSlice},
    os::fd::AsFd,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::FutureExt;
use memchr::memmem;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

/// What a client has to take of an answer within its patience, or it is dropped: 1 KiB a second.
const TAKEN_PER_SECOND_MIN: u64 = 1 << 10;
/// What is still read of a request that is already refused. A connection that is closed with unread bytes is reset, and
/// the client may then lose the answer that says why.
const LINGER_BYTES_MAX: usize = 16 << 20;
/// How long that may take, and how long the client may pause meanwhile.
const LINGER_MAX: Duration = Duration::from_secs(10);
const LINGER_PAUSE_MAX: Duration = Duration::from_millis(500);

/// How long a client may take nothing of an answer; an extension of responses that differ from [`Patience::USUAL`].
#[derive(Clone, Copy, Debug)]
pub(in crate::api) struct Patience(pub(in crate::api) Duration);

impl Patience {
    const USUAL: Self = Self(Duration::from_secs(10));
}

/// What the answers of a connection say to its socket.
#[derive(Debug)]
pub(in crate::api) struct Manners {
    patience_ms: AtomicU64,
    lingers: AtomicBool,
    watches: AtomicBool,
}

impl Default for Manners {
    fn default() -> Self {
        let manners = Self {
            patience_ms: AtomicU64::new(0),
            lingers: AtomicBool::new(false),
            watches: AtomicBool::new(false),
        };
        manners.set_patience(Patience::USUAL);
        manners
    }
}

impl Manners {
    /// Takes what the next answer says. `lingers` is said of a refusal whose request may not have been read to its end.
    pub(in crate::api) fn answers(&self, patience: Option<Patience>, lingers: bool) {
        self.set_patience(patience.unwrap_or(Patience::USUAL));
        self.lingers.store(lingers, Ordering::Relaxed);
        self.watch(false);
    }

    /// Says whether the connection ends as soon as the client hangs up, and not with the answer to its request.
    ///
    /// hyper cannot: it takes an end of what a client sends for one that still reads, or else does so on every route.
    pub(in crate::api) fn watch(&self, watches: bool) {
        self.watches.store(watches, Ordering::Relaxed);
    }

    fn set_patience(&self, Patience(patience): Patience) {
        let ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        self.patience_ms.store(ms, Ordering::Relaxed);
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(self.patience_ms.load(Ordering::Relaxed))
    }
}

/// A client's socket.
#[derive(Debug)]
pub(in crate::api) struct ClientIo {
    io: TcpStream,
    manners: Arc<Manners>,
    /// The last write could not go on.
    blocked: bool,
    /// Something was to be read meanwhile.
    read_refused: bool,
    /// Runs from the first write that could not go on.
    clock: Option<Pin<Box<Sleep>>>,
    /// Bytes that were taken since then.
    taken: u64,
    linger: Option<Linger>,
    length: Length,
    /// There while a request is watched.
    watch: Option<Watch>,
}

/// Sees that a client hangs up.
///
/// It is a second descriptor of the socket, whose readiness is its own. That of the socket cannot be used: it stays "readable"
/// while a byte is unread, so it wakes nobody at the end behind that byte; and to clear it would hide the byte from the
/// reader.
#[derive(Debug)]
struct Watch(TcpStream);

impl Watch {
    fn of(io: &TcpStream) -> io::Result<Self> {
        let same = io.as_fd().try_clone_to_owned()?;
        Ok(Self(TcpStream::from_std(same.into())?))
    }

    /// Returns whether the client has closed its sending half, or all; if not, the task is woken when it does.
    fn has_ended(&self, cx: &mut Context<'_>) -> bool {
        loop {
            match self.0.poll_read_ready(cx) {
                Poll::Pending => return false,
                // The runtime stops.
                Poll::Ready(Err(_)) => return true,
                Poll::Ready(Ok(())) => {}
            }
            let seen = self.0.ready(Interest::READABLE).now_or_never();
            if seen.is_some_and(|seen| seen.is_ok_and(|seen| seen.is_read_closed())) {
                return true;
            }
            // Only bytes have come. An end that comes meanwhile is not cleared by this.
            let cleared = self.0.try_io(Interest::READABLE, || {
                Err::<(), _>(io::ErrorKind::WouldBlock.into())
            });
            drop(cleared);
        }
    }
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
            // Nobody else wakes the reader: it was not registered.
            cx.waker().wake_by_ref();
        }
        if self.clock.is_some() {
            self.taken += u64::try_from(len).unwrap_or(u64::MAX);
            if self.taken >= self.manners.patience().as_secs() * TAKEN_PER_SECOND_MIN {
                self.clock = None;
            }
        }
    }

    /// Waits on, unless the client had its time.
    fn poll_blocked(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.blocked = true;
        if self.clock.is_none() {
            self.taken = 0;
        }
        let ends = || Box::pin(sleep_until(Instant::now() + self.manners.patience()));
        let clock = self.clock.get_or_insert_with(ends);
        ready!(clock.as_mut().poll(cx));
        let told = "the client takes nothing of its answer";
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

    /// Returns whether the client of a watched request has hung up; if not, the task is woken when it does.
    fn has_hung_up(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.manners.watches.load(Ordering::Relaxed) {
            self.watch = None;
            return false;
        }
        if self.watch.is_none() {
            self.watch = Watch::of(&self.io)
                .inspect_err(|error| tracing::debug!(%error, "a client cannot be watched"))
                .ok();
        }
        match &self.watch {
            Some(watch) => watch.has_ended(cx),
            // There is no descriptor left: at least an end without a byte before it is seen.
            None => {
                let mut byte = [0];
                let peeked = self.io.poll_peek(cx, &mut ReadBuf::new(&mut byte));
                matches!(peeked, Poll::Ready(Ok(0) | Err(_)))
            }
        }
    }

    /// What the system still has for a client that takes nothing goes at once, and not after its own time.
    fn reset(&self) {
        if let Err(error) = SockRef::from(&self.io).set_linger(Some(Duration::ZERO)) {
            tracing::debug!(%error, "a client that takes nothing was gone before");
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
                    // The answer is shorter than a socket's buffer, and the first that it gets.
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
        // It is called when all is written, and whenever the connection is looked at while its answer is not there yet.
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
        if self.manners.lingers.load(Ordering::Relaxed) {
            ready!(self.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}

/// `Content-Length` of two numbers that are legal and that hyper has another use for: it answers them with 431, as if
/// there were too many headers, and asks nobody. The answer is changed on its way to what it means: 400.
#[derive(Debug)]
struct Length {
    finder: memmem::Finder<'static>,
    impossible: bool,
}

/// What 2^64 - 1 and 2^64 - 2 have in common.
const IMPOSSIBLE: &[u8] = b"1844674407370955161";
/// A head is there from its beginning; what stands further in is a body.
const LOOKED_AT_BYTES_MAX: usize = 8 << 10;

impl Length {
    fn new() -> Self {
        Self {
            finder: memmem::Finder::new(IMPOSSIBLE),
            impossible: false,
        }
    }

    fn look(&mut self, read: &[u8]) {
        let head = &read[..read.len().min(LOOKED_AT_BYTES_MAX)];
        self.impossible |= self.finder.find(head).is_some();
    }

    /// Returns what is to be written in place of these bytes.
    fn instead(&self, parts: &[IoSlice<'_>]) -> Option<&'static [u8]> {
        const TOLD: &[u8] = b"HTTP/1.1 431 ";
        const MEANT: &[u8] =
            b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let is_told = self.impossible && parts.first()?.starts_with(TOLD);
        is_told.then_some(MEANT)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpSocket},
        time::advance,
    };

    use super::*;
    use crate::dispatch::tests::stub::{stand_still, while_seconds_pass, within};

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A server's end with this patience, and a client's that has little room.
    async fn pair(patience: Duration) -> (ClientIo, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let client = socket.connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        let (server, _) = accepted.unwrap();
        SockRef::from(&server).set_send_buffer_size(4096).unwrap();
        let manners = Arc::new(Manners::default());
        manners.answers(Some(Patience(patience)), false);
        (ClientIo::new(server, manners), client.unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_reset_after_the_patience_of_its_answer() {
        for patience in [PATIENCE, 3 * PATIENCE] {
            let (mut server, mut client) = pair(patience).await;
            let body = vec![0; 8 << 20];
            let (written, took) = while_seconds_pass(server.write_all(&body)).await;
            assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
            // The system may take more than it did at first, which begins the time anew.
            assert!((patience..3 * patience).contains(&took), "{took:?}");
            drop(server);
            let mut all = Vec::new();
            let read = within("an end", client.read_to_end(&mut all)).await;
            assert!(read.is_err(), "{} bytes", all.len());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_more_than_the_least_rate_gets_all_however_long_that_takes() {
        let _still = stand_still();
        let (mut server, mut client) = pair(PATIENCE).await;
        let body = vec![7; 256 << 10];
        let begun = Instant::now();
        let reads = async {
            let mut some = [0; 8 << 10];
            for _ in 0..body.len() / some.len() {
                advance(PATIENCE * 3 / 10).await;
                client.read_exact(&mut some).await.unwrap();
            }
        };
        let writes = async {
            server.write_all(&body).await.unwrap();
            server.flush().await.unwrap();
        };
        tokio::join!(reads, writes);
        assert!(begun.elapsed() > 5 * PATIENCE, "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_less_than_the_least_rate_is_dropped_too() {
        let _still = stand_still();
        let (mut server, mut client) = pair(PATIENCE).await;
        let begun = Instant::now();
        let drips = async {
            loop {
                client.read_exact(&mut [0; 1 << 10]).await.unwrap();
                advance(Duration::from_secs(2)).await;
                // The system may take more than it did at first, which begins the time anew.
                assert!(begun.elapsed() < 6 * PATIENCE, "no end");
            }
        };
        let body = vec![7; 8 << 20];
        let written = tokio::select! {
            written = server.write_all(&body) => written,
            () = drips => unreachable!("it never ends"),
        };
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= PATIENCE, "{:?}", begun.elapsed());
    }

    /// Sockets take in steps of their own, so this one says itself how much was taken.
    #[tokio::test(start_paused = true)]
    async fn only_as_much_as_the_least_rate_begins_the_time_anew() {
        let rate = usize::try_from(TAKEN_PER_SECOND_MIN).unwrap();
        for (taken_per_second, is_dropped) in [(rate - 1, true), (rate, false)] {
            let (mut server, _client) = pair(PATIENCE).await;
            let mut cx = Context::from_waker(std::task::Waker::noop());
            let seconds = PATIENCE.as_secs();
            for second in 1..=seconds {
                let blocked = server.poll_blocked(&mut cx);
                assert!(blocked.is_pending(), "{taken_per_second} at {second}");
                advance(Duration::from_secs(1)).await;
                server.progressed(taken_per_second, &mut cx);
            }
            let blocked = server.poll_blocked(&mut cx);
            assert_eq!(blocked.is_ready(), is_dropped, "{taken_per_second}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_read_from_a_client_that_takes_nothing() {
        let _still = stand_still();
        let (mut server, mut client) = pair(PATIENCE).await;
        let body = vec![7; 1 << 20];
        let mut writes = Box::pin(server.write_all(&body));
        assert!(poll!(&mut writes).is_pending());
        drop(writes);
        client.write_all(b"next").await.unwrap();
        server.io.readable().await.unwrap();
        assert!(poll!(Box::pin(server.read(&mut [0]))).is_pending());
        // A read that waits is woken when the client goes on.
        let (mut read, mut write) = tokio::io::split(server);
        let reads = async {
            let mut said = [0; 4];
            read.read_exact(&mut said).await.unwrap();
            assert_eq!(&said, b"next");
        };
        let takes = async {
            let mut some = vec![0; 64 << 10];
            while client.read(&mut some).await.unwrap() > 0 {}
        };
        let writes = async {
            write.write_all(&body).await.unwrap();
            write.shutdown().await.unwrap();
        };
        within("all of it", async { tokio::join!(reads, takes, writes) }).await;
    }

    #[tokio::test]
    async fn a_watched_client_that_hangs_up_is_seen_whatever_it_has_sent_ahead() {
        for (ahead, closes_half) in [
            ("", true),
            ("\r\n", true),
            ("GET /", true),
            ("", false),
            ("\r\n", false),
        ] {
            let (mut server, mut client) = pair(PATIENCE).await;
            server.manners.watch(true);
            client.write_all(ahead.as_bytes()).await.unwrap();
            if !ahead.is_empty() {
                server.io.readable().await.unwrap();
            }
            // What is sent while it is watched wakes the task, and is no end.
            assert!(server.flush().await.is_ok(), "{ahead:?}");
            client.write_all(b"more").await.unwrap();
            let mut seen = Box::pin(std::future::poll_fn(|cx| match server.has_hung_up(cx) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }));
            assert!(poll!(&mut seen).is_pending(), "{ahead:?}");
            match closes_half {
                true => client.shutdown().await.unwrap(),
                false => drop(client),
            }
            within("the end", seen).await;
        }
    }

    #[tokio::test]
    async fn what_a_watched_client_has_sent_ahead_is_read_afterwards() {
        let (mut server, mut client) = pair(PATIENCE).await;
        server.manners.watch(true);
        client.write_all(b"next").await.unwrap();
        server.io.readable().await.unwrap();
        server.flush().await.unwrap();
        server.manners.watch(false);
        server.flush().await.unwrap();
        assert!(server.watch.is_none());
        let mut said = [0; 4];
        within("the bytes", server.read_exact(&mut said))
            .await
            .unwrap();
        assert_eq!(&said, b"next");
    }
}
