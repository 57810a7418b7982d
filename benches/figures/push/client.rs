//! A subscriber that costs as little as it can: it counts frames and looks for the number of the last record of each.

use std::{ops::Range, time::SystemTime};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// What stands before the offset of a record of partition 0.
pub const MARK: &str = "\"xid\":\"0.";
/// A record is not longer.
const TAIL_BYTES: usize = 4 << 10;
/// What is read at once; frames need not be whole to be counted.
const BUFFER_BYTES: usize = 256 << 10;

pub struct Subscriber {
    stream: TcpStream,
    input: Input,
}

/// What has come.
#[derive(Default)]
struct Input {
    buffer: Vec<u8>,
    /// What of it is read and not looked at.
    unseen: Range<usize>,
    /// As much of a frame's head as has come.
    head: Vec<u8>,
    frame: Frame,
}

/// The frame that is coming in.
#[derive(Default)]
struct Frame {
    len: usize,
    left: usize,
    tail: Vec<u8>,
}

/// A frame that has come.
#[derive(Clone, Copy)]
pub struct Came {
    pub len: usize,
    /// Offset of its last record; absent in schemas and metadata.
    pub last: Option<u64>,
    /// Microseconds since 1970.
    pub at: u64,
}

impl Subscriber {
    pub async fn open(address: &str, begin: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let head = format!(
            "GET /services/v2/stream/s1?begin={begin} HTTP/1.1\r\nhost: {address}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.unwrap());
        }
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "{answer:?}");
        Self {
            stream,
            input: Input::default(),
        }
    }

    /// Reads frames until the one that has the record with that offset; tells each.
    pub async fn read_until(&mut self, last: u64, mut came: impl FnMut(Came)) {
        self.input.buffer.resize(BUFFER_BYTES, 0);
        loop {
            while let Some(len) = self.input.next_frame() {
                let frame = Came {
                    len,
                    last: last_of(&self.input.frame.tail),
                    at: super::micros(SystemTime::now()),
                };
                came(frame);
                if frame.last.is_some_and(|of_frame| of_frame >= last) {
                    return;
                }
            }
            let read = self.stream.read(&mut self.input.buffer).await.unwrap();
            assert!(read > 0, "the server has closed the connection");
            self.input.unseen = 0..read;
        }
    }

    /// Reads the same without anybody beside it: on a thread of its own, with a socket that it waits for.
    pub async fn read_alone_until(mut self, last: u64) {
        let alone = tokio::task::spawn_blocking(move || {
            let mut stream = self.stream.into_std().unwrap();
            stream.set_nonblocking(false).unwrap();
            self.input.buffer.resize(BUFFER_BYTES, 0);
            loop {
                while self.input.next_frame().is_some() {
                    if last_of(&self.input.frame.tail).is_some_and(|of_frame| of_frame >= last) {
                        return;
                    }
                }
                let read = std::io::Read::read(&mut stream, &mut self.input.buffer).unwrap();
                assert!(read > 0, "the server has closed the connection");
                self.input.unseen = 0..read;
            }
        });
        alone.await.unwrap();
    }
}

impl Input {
    /// Looks at what was read up to the end of a frame; returns how long that was, if it came to one.
    fn next_frame(&mut self) -> Option<usize> {
        while !self.unseen.is_empty() {
            if self.frame.left == 0 {
                self.head.push(self.buffer[self.unseen.start]);
                self.unseen.start += 1;
                if let Some(len) = frame_len(&self.head) {
                    self.head.clear();
                    (self.frame.len, self.frame.left) = (len, len);
                    self.frame.tail.clear();
                }
                continue;
            }
            let taken = self.frame.left.min(self.unseen.len());
            let bytes = &self.buffer[self.unseen.start..][..taken];
            self.unseen.start += taken;
            self.frame.left -= taken;
            let tail = &mut self.frame.tail;
            tail.extend_from_slice(&bytes[taken.saturating_sub(TAIL_BYTES)..]);
            tail.drain(..tail.len().saturating_sub(TAIL_BYTES));
            if self.frame.left == 0 {
                return Some(self.frame.len);
            }
        }
        None
    }
}

/// Length of a frame's payload, once its head is there.
fn frame_len(bytes: &[u8]) -> Option<usize> {
    match *bytes.get(1)? {
        126 => {
            let len = bytes.get(2..4)?.try_into().unwrap();
            Some(u16::from_be_bytes(len).into())
        }
        127 => {
            let len = bytes.get(2..10)?.try_into().unwrap();
            Some(usize::try_from(u64::from_be_bytes(len)).unwrap())
        }
        short => Some(short.into()),
    }
}

fn last_of(payload: &[u8]) -> Option<u64> {
    let at = payload
        .windows(MARK.len())
        .rposition(|window| window == MARK.as_bytes())?;
    let digits = &payload[at + MARK.len()..];
    let end = digits.iter().position(|byte| *byte == b'"')?;
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}
