//! A subscriber that costs as little as it can: it counts frames and looks for the number of the last record of each.

use std::time::SystemTime;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// What stands before the offset of a record of partition 0.
pub const MARK: &str = "\"xid\":\"0.";
/// A record is not longer.
const TAIL_BYTES: usize = 4 << 10;
/// A frame has at most 1 MiB, and there is room for what comes behind it.
const BUFFER_BYTES: usize = 2 << 20;

pub struct Subscriber {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
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
            buffer: Vec::new(),
            filled: 0,
        }
    }

    /// Reads frames until the one that has the record with that offset; tells each.
    pub async fn read_until(&mut self, last: u64, mut came: impl FnMut(Came)) {
        self.buffer.resize(BUFFER_BYTES, 0);
        loop {
            let mut from = 0;
            while let Some((head, len)) = frame_len(&self.buffer[from..self.filled]) {
                if from + head + len > self.filled {
                    break;
                }
                let payload = &self.buffer[from + head..from + head + len];
                let frame = Came {
                    len,
                    last: last_of(payload),
                    at: super::micros(SystemTime::now()),
                };
                from += head + len;
                came(frame);
                if frame.last.is_some_and(|of_frame| of_frame >= last) {
                    return;
                }
            }
            if from > 0 {
                self.buffer.copy_within(from..self.filled, 0);
                self.filled -= from;
            }
            let read = self.stream.read(&mut self.buffer[self.filled..]).await;
            let read = read.unwrap();
            assert!(read > 0, "the server has closed the connection");
            self.filled += read;
        }
    }
}

/// Length of a frame's head, and of its payload, once the head is there.
fn frame_len(bytes: &[u8]) -> Option<(usize, usize)> {
    match *bytes.get(1)? {
        126 => {
            let len = bytes.get(2..4)?.try_into().unwrap();
            Some((4, u16::from_be_bytes(len).into()))
        }
        127 => {
            let len = bytes.get(2..10)?.try_into().unwrap();
            Some((10, usize::try_from(u64::from_be_bytes(len)).unwrap()))
        }
        short => Some((2, short.into())),
    }
}

fn last_of(payload: &[u8]) -> Option<u64> {
    let tail = &payload[payload.len().saturating_sub(TAIL_BYTES)..];
    let at = tail
        .windows(MARK.len())
        .rposition(|window| window == MARK.as_bytes())?;
    let digits = &tail[at + MARK.len()..];
    let end = digits.iter().position(|byte| *byte == b'"')?;
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}
