//! The target: reads requests and answers 200, at once or when told.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Answer,
    /// Takes calls and answers none of them before the mode changes.
    Hold,
    /// Each call gets another answer that no target should give, or none.
    Lie,
    /// Every tenth call ends so, all others are answered.
    Tenth(End),
}

/// How a call ends that is not answered with 200.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Status(u16),
    /// With `Retry-After: 1`.
    Later(u16),
    /// The connection is closed without an answer.
    Close,
}

pub struct Target {
    port: u16,
    calls: Arc<AtomicUsize>,
    mode: watch::Sender<Mode>,
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

impl Target {
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let calls = Arc::new(AtomicUsize::new(0));
        let mode = watch::Sender::new(Mode::Answer);
        let (counted, modes) = (calls.clone(), mode.subscribe());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, counted.clone(), modes.clone()));
            }
        });
        Self { port, calls, mode }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// Waits for a number of calls; looks each millisecond, which is no load.
    pub async fn wait_for(&self, calls: usize) {
        while self.calls() < calls {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }
}

async fn serve(mut stream: TcpStream, calls: Arc<AtomicUsize>, mut mode: watch::Receiver<Mode>) {
    stream.set_nodelay(true).unwrap();
    let (mut buffer, mut filled) = (vec![0; 64 << 10], 0);
    loop {
        match stream.read(&mut buffer[filled..]).await {
            Ok(0) | Err(_) => return,
            Ok(read) => filled += read,
        }
        if let Some(whole) = request_len(&buffer[..filled]) {
            assert!(filled <= whole, "a pipelined request");
            if filled < whole {
                continue;
            }
            filled = 0;
            let turn = calls.fetch_add(1, Ordering::Relaxed);
            if *mode.borrow() == Mode::Lie {
                return lie(stream, turn).await;
            }
            let Ok(mode) = mode
                .wait_for(|mode| *mode != Mode::Hold)
                .await
                .map(|it| *it)
            else {
                return;
            };
            let written = match mode {
                Mode::Tenth(End::Close) if turn.is_multiple_of(10) => return,
                Mode::Tenth(End::Status(status)) if turn.is_multiple_of(10) => {
                    let head = format!("HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n");
                    stream.write_all(head.as_bytes()).await
                }
                Mode::Tenth(End::Later(status)) if turn.is_multiple_of(10) => {
                    let head = format!(
                        "HTTP/1.1 {status} No\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n"
                    );
                    stream.write_all(head.as_bytes()).await
                }
                _ => stream.write_all(ANSWER).await,
            };
            if written.is_err() {
                return;
            }
        }
    }
}

/// What a target may say in place of an answer, and hang up.
async fn lie(mut stream: TcpStream, turn: usize) {
    let endless = [
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n",
        [b'x'; 256 << 10].as_slice(),
    ];
    let huge = [b"HTTP/1.1 200 OK\r\nx: ", [b'x'; 128 << 10].as_slice()];
    let said = match turn % 6 {
        0 => Vec::new(),
        1 => endless.concat(),
        2 => huge.concat(),
        3 => b"220 ready\r\n\r\n".to_vec(),
        4 => b"HTTP/1.1 100 Continue\r\n\r\n".repeat(50),
        _ => {
            // Longer than the gateway waits.
            tokio::time::sleep(std::time::Duration::from_secs(5)).await;
            Vec::new()
        }
    };
    // The gateway may have heard enough before.
    let _heard = stream.write_all(&said).await.is_ok();
}

fn request_len(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    const NAME: &[u8] = b"content-length:";
    let at = bytes[..head]
        .windows(NAME.len())
        .position(|window| window.eq_ignore_ascii_case(NAME));
    let digits = bytes[at? + NAME.len()..head]
        .iter()
        .copied()
        .skip_while(|byte| *byte == b' ')
        .take_while(u8::is_ascii_digit);
    Some(head + digits.fold(0, |length, digit| length * 10 + usize::from(digit - b'0')))
}
