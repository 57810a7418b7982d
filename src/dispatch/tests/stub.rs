//! The other side: targets that are real servers and answer as the test says.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    time::{Instant, advance, timeout},
};

use crate::runtime::tasks::Tasks;

/// No test waits longer for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Waits for a thing under the one deadline.
pub(crate) async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    timeout(DEADLINE, wait)
        .await
        .unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Waits for a fact that nothing announces. Looks at the time of the system, because a paused clock stands still meanwhile.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed() < DEADLINE, "waited in vain for {what}");
        tokio::task::yield_now().await;
    }
}

/// Makes the paused clock of a test stand still until [`advance`] moves it. By itself a paused clock jumps to
/// the next timer whenever no task is ready, so it overtakes real sockets and threads.
#[must_use]
pub(crate) fn stand_still() -> StandStill {
    let (running, dropped) = std::sync::mpsc::channel();
    // The clock does not jump while a blocking task runs. With the deadline over it does, so that waits still fail.
    drop(tokio::task::spawn_blocking(move || {
        dropped.recv_timeout(DEADLINE)
    }));
    StandStill { _running: running }
}

/// Lets second after second pass on a paused clock until a future ends, and returns how long that took. Whatever is ready
/// has its turn before each of them.
pub(crate) async fn while_seconds_pass<T>(future: impl Future<Output = T>) -> (T, Duration) {
    const TURNS: usize = 100;
    let _still = stand_still();
    let begun = Instant::now();
    let seconds = async {
        loop {
            for _ in 0..TURNS {
                tokio::task::yield_now().await;
            }
            advance(Duration::from_secs(1)).await;
            assert!(begun.elapsed() < Duration::from_secs(3_600), "no end");
        }
    };
    tokio::select! {
        biased;
        value = future => (value, begun.elapsed()),
        () = seconds => unreachable!("it never ends"),
    }
}

/// The clock stands still while this lives.
#[derive(Debug)]
pub(crate) struct StandStill {
    _running: std::sync::mpsc::Sender<()>,
}

/// A target that hands over each call.
#[derive(Debug)]
pub(crate) struct StubTarget {
    pub(crate) address: SocketAddr,
    calls: mpsc::Receiver<StubCall>,
    connections: Arc<AtomicUsize>,
    _tasks: Tasks,
}

/// A call that waits for its answer; dropped, its connection breaks.
#[derive(Debug)]
pub(crate) struct StubCall {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    answer: oneshot::Sender<Response<Full<Bytes>>>,
}

impl StubTarget {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (give, calls) = mpsc::channel(8192);
        let connections = Arc::new(AtomicUsize::new(0));
        let tasks = Tasks::new();
        let (counted, serving) = (connections.clone(), tasks.clone());
        tasks.spawn("stub", async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                stream.set_nodelay(true).unwrap();
                let give = give.clone();
                serving.spawn("stub connection", async move {
                    let service = service_fn(move |request| handle(give.clone(), request));
                    // A test that breaks a connection means it.
                    drop(
                        http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await,
                    );
                });
            }
        });
        Self {
            address,
            calls,
            connections,
            _tasks: tasks,
        }
    }

    /// Starts a target that answers every call with this status.
    pub(crate) async fn always(status: u16) -> SocketAddr {
        let mut target = Self::start().await;
        let address = target.address;
        target._tasks.clone().spawn("stub answers", async move {
            while let Some(call) = target.calls.recv().await {
                call.answer(status);
            }
        });
        address
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) async fn next_call(&mut self) -> StubCall {
        within("a call", self.calls.recv()).await.unwrap()
    }

    /// Returns a call that is there already.
    pub(crate) fn waiting_call(&mut self) -> Option<StubCall> {
        self.calls.try_recv().ok()
    }

    pub(crate) fn connections_len(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl StubCall {
    pub(crate) fn answer(self, status: u16) {
        self.answer_with(status, &[], "");
    }

    pub(crate) fn answer_with(self, status: u16, headers: &[(&str, &str)], body: &str) {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
        // The caller may have lost patience; some tests are about that.
        drop(self.answer.send(response.body(body).unwrap()));
    }

    /// Returns the values of a header.
    pub(crate) fn header(&self, name: &str) -> Vec<&str> {
        let values = self.headers.get_all(name).iter();
        values.map(|value| value.to_str().unwrap()).collect()
    }
}

async fn handle(
    give: mpsc::Sender<StubCall>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, &'static str> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| "cut off")?.to_bytes();
    let (answer, answered) = oneshot::channel();
    let call = StubCall {
        method: parts.method,
        path: parts.uri.to_string(),
        headers: parts.headers,
        body,
        answer,
    };
    give.send(call).await.map_err(|_| "the test is over")?;
    answered.await.map_err(|_| "to be broken")
}

/// Starts a target below HTTP: `serve` gets each connection.
pub(crate) async fn raw_target<F>(
    serve: impl Fn(TcpStream) -> F + Send + Sync + 'static,
) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tasks = Tasks::new();
    let serving = tasks.clone();
    tasks.spawn("raw stub", async move {
        while let Ok((stream, _)) = listener.accept().await {
            serving.spawn("raw stub connection", serve(stream));
        }
    });
    address
}

/// Reads until the end of a request's head, or of the connection.
pub(crate) async fn read_head(stream: &mut TcpStream) {
    use tokio::io::AsyncReadExt;
    let mut head = Vec::new();
    let mut bytes = [0; 1024];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(len) => head.extend_from_slice(&bytes[..len]),
        }
    }
}

/// The target's side of a connection, below HTTP/1.1.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    read: Vec<u8>,
}

impl Raw {
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            read: Vec::new(),
        }
    }

    /// Reads a request to its end and returns its head; `None` at the end of the connection.
    pub(crate) async fn request(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = String::from_utf8(self.read[..end + 4].to_vec()).unwrap();
                let len = value(&head, "content-length").unwrap_or("0");
                let len = end + 4 + len.parse::<usize>().unwrap();
                if self.read.len() >= len {
                    self.read.drain(..len);
                    return Some(head);
                }
            }
            self.more().await?;
        }
    }

    /// Reads something.
    pub(crate) async fn more(&mut self) -> Option<()> {
        use tokio::io::AsyncReadExt;
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes).await {
            Ok(0) | Err(_) => None,
            Ok(len) => {
                self.read.extend_from_slice(&bytes[..len]);
                Some(())
            }
        }
    }

    /// Sends something; the caller may have gone away.
    pub(crate) async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        use tokio::io::AsyncWriteExt;
        drop(self.stream.write_all(bytes.as_ref()).await);
    }

    /// Ends the connection by a reset.
    pub(crate) fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Waits until the caller ends the connection.
    pub(crate) async fn until_left(mut self) {
        while self.more().await.is_some() {
            self.read.clear();
        }
    }
}

/// Returns the value of the first header of that name in a head.
pub(crate) fn value<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then_some(value)
    })
}
