//! Targets: servers of a made-up network, each with its way of answering.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::sleep,
};

use super::world::{TARGETS_LEN, World};
use crate::{dispatch::call::connect::Network, runtime::tasks::Tasks};

/// Bytes that a connection buffers before its writer waits.
const PIPE_BYTES: usize = 16 * 1024;

/// How a target answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    Good,
    Status(u16),
    /// A status, with a `Retry-After` in seconds.
    Later(u16, usize),
    /// 2xx after so many milliseconds.
    Slow(usize),
    /// Reads the request and does not answer.
    Hangs,
    /// Refuses the connection.
    Refuses,
    /// Reads the request and closes the connection.
    Resets,
    /// 2xx for the first request of each connection; closes at the next one without a byte.
    Cuts,
    /// Closes the connection in the middle of the head.
    HalfHead,
    /// Speaks another protocol.
    Babbles,
    /// A head that is too large.
    HugeHead,
    /// 2xx with a body without end.
    Endless,
    /// 2xx, but closes in the middle of the body.
    HalfBody,
    /// An interim answer, then 2xx.
    Continues,
    /// A random one of these each time.
    Moody,
}

impl Manner {
    pub(super) fn draw(world: &World) -> Self {
        match world.below(21) {
            0..=3 => Self::Good,
            20 => Self::Cuts,
            4..=6 => Self::Status([400, 401, 404, 408, 500, 501, 502][world.below(7)]),
            7 | 8 => Self::Later([429, 503][world.below(2)], world.below(4)),
            9 | 10 => Self::Slow(world.below(1_500)),
            11 => Self::Hangs,
            12 => Self::Refuses,
            13 => Self::Resets,
            14 => [Self::HalfHead, Self::Babbles, Self::HugeHead][world.below(3)],
            15 => [Self::Endless, Self::HalfBody, Self::Continues][world.below(3)],
            _ => Self::Moody,
        }
    }

    fn now(self, world: &World) -> Self {
        match self {
            Self::Moody => match world.below(3) {
                0 | 1 => Self::Good,
                _ => match Self::draw(world) {
                    Self::Moody | Self::Refuses => Self::Resets,
                    manner => manner,
                },
            },
            // The connection is older than that.
            Self::Refuses => Self::Resets,
            manner => manner,
        }
    }

    /// Returns whether this answer is a delivery.
    fn takes(self) -> bool {
        matches!(
            self,
            Self::Good
                | Self::Cuts
                | Self::Slow(_)
                | Self::Endless
                | Self::HalfBody
                | Self::Continues
        )
    }
}

/// Returns the network with all targets in it.
pub(super) fn network(world: World, tasks: Tasks) -> Network {
    Arc::new(move |address: SocketAddr| {
        let target = usize::from(address.port()) % TARGETS_LEN;
        let refuses = world.lock().manners[target] == Manner::Refuses;
        world.tell(|| format!("target {target}: connection, refused: {refuses}"));
        if refuses {
            world.lock().witness.refuses(target);
            return None;
        }
        let (ours, theirs) = duplex(PIPE_BYTES);
        let world = world.clone();
        tasks.spawn("target", async move {
            Connection {
                world,
                target,
                io: theirs,
                read: Vec::new(),
            }
            .serve()
            .await;
        });
        Some(ours)
    })
}

/// Returns the URL of a target.
pub(super) fn url(target: usize) -> String {
    format!("http://10.0.0.1:{}/t", 8_000 + target)
}

/// A received request.
pub(super) struct Call {
    pub(super) target: usize,
    pub(super) head: String,
    pub(super) body: String,
}

impl Call {
    /// Returns the value of a header; its name is in small letters.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

struct Connection {
    world: World,
    target: usize,
    io: DuplexStream,
    read: Vec<u8>,
}

impl Connection {
    async fn serve(mut self) {
        let mut is_used = false;
        while let Some(call) = self.request().await {
            let manner = self.world.lock().manners[self.target];
            let manner = manner.now(&self.world);
            if manner == Manner::Cuts && is_used {
                let n = self.world.lock().witness.call_is_cut(&call);
                self.world
                    .tell(|| format!("target {}: {n} is cut", call.target));
                return;
            }
            is_used = true;
            let n = self.world.lock().witness.call_begins(&call);
            self.world
                .tell(|| format!("target {}: {n} comes, {manner:?}", call.target));
            let goes_on = self.answer(manner, n).await;
            self.world.lock().witness.call_ends(n);
            self.world
                .tell(|| format!("target {}: {n} is over", call.target));
            if !goes_on {
                return;
            }
        }
    }

    async fn request(&mut self) -> Option<Call> {
        loop {
            if let Some(call) = self.whole_request() {
                return Some(call);
            }
            let mut more = [0; 4_096];
            match self.io.read(&mut more).await {
                Ok(0) | Err(_) => return None,
                Ok(len) => self.read.extend_from_slice(&more[..len]),
            }
        }
    }

    fn whole_request(&mut self) -> Option<Call> {
        let end = self.read.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let mut call = Call {
            target: self.target,
            head: String::from_utf8(self.read[..end].to_vec()).unwrap(),
            body: String::new(),
        };
        let len = call.header("content-length").unwrap_or("0");
        let len: usize = len.parse().unwrap();
        if self.read.len() < end + len {
            return None;
        }
        call.body = String::from_utf8(self.read[end..end + len].to_vec()).unwrap();
        self.read.drain(..end + len);
        Some(call)
    }

    /// Returns whether the connection can carry another call.
    async fn answer(&mut self, manner: Manner, n: u64) -> bool {
        let good = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".as_slice();
        let bytes = match manner {
            Manner::Good | Manner::Cuts | Manner::Refuses | Manner::Moody => good.to_vec(),
            Manner::Status(status) => {
                if status == 401 {
                    self.world.lock().witness.refuses_token(n);
                }
                format!("HTTP/1.1 {status} So\r\ncontent-length: 0\r\n\r\n").into_bytes()
            }
            Manner::Later(status, seconds) => {
                let head = format!("HTTP/1.1 {status} Later\r\nretry-after: {seconds}\r\n");
                (head + "content-length: 0\r\n\r\n").into_bytes()
            }
            Manner::Slow(millis) => {
                if self
                    .is_left_within(Duration::from_millis(millis as u64))
                    .await
                {
                    return false;
                }
                good.to_vec()
            }
            Manner::Hangs => {
                self.is_left_within(Duration::from_secs(3_600)).await;
                return false;
            }
            Manner::Resets => return false,
            Manner::HalfHead => b"HTTP/1.1 20".to_vec(),
            Manner::Babbles => b"220 mail.example ESMTP ready\r\n\r\n".to_vec(),
            Manner::HugeHead => {
                let mut head = b"HTTP/1.1 200 OK\r\nx-long: ".to_vec();
                head.resize(100_000, b'x');
                head
            }
            Manner::Endless => {
                let mut head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n".to_vec();
                head.resize(200_000, b'x');
                head
            }
            Manner::HalfBody => b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok".to_vec(),
            Manner::Continues => [b"HTTP/1.1 100 Continue\r\n\r\n", good].concat(),
        };
        if manner.takes() {
            // Before the answer is sent, because the caller may go on at once.
            self.world.lock().witness.takes(n);
        }
        let written = self.io.write_all(&bytes).await;
        let keeps = matches!(
            manner,
            Manner::Good
                | Manner::Cuts
                | Manner::Status(_)
                | Manner::Later(..)
                | Manner::Slow(_)
                | Manner::Continues
        );
        written.is_ok() && keeps
    }

    /// Waits; returns whether the caller has hung up meanwhile.
    async fn is_left_within(&mut self, wait: Duration) -> bool {
        let mut more = [0; 1];
        tokio::select! {
            biased;
            read = self.io.read(&mut more) => {
                assert!(!matches!(read, Ok(1..)), "a request before the answer to the last one");
                true
            }
            () = sleep(wait) => false,
        }
    }
}
