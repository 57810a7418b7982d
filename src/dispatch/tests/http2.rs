//! Targets that end HTTP/2 connections, frame by frame (RFC 9113 §4.1).

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

use super::{
    harness::{Harness, UNAVAILABLE, header},
    stub::raw_target,
    tls::{acceptor, https, trusting},
};

const PREFACE_LEN: usize = 24;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const NO_ERROR: u32 = 0;
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;

/// `:status: 200`, the eighth entry of the table that HPACK begins with (RFC 7541, appendix A).
const STATUS_200: &[u8] = &[0x88];

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
}

/// The target's side of a connection.
struct Raw {
    stream: TlsStream<TcpStream>,
}

impl Raw {
    async fn accept(stream: TcpStream) -> Option<Self> {
        let stream = acceptor(&["h2"]).accept(stream).await.ok()?;
        let mut raw = Self { stream };
        let mut preface = [0; PREFACE_LEN];
        raw.stream.read_exact(&mut preface).await.ok()?;
        raw.send(SETTINGS, 0, 0, &[]).await;
        Some(raw)
    }

    async fn frame(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.ok()?;
        let [a, b, c, kind, flags, rest @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.stream.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes(rest);
        Some(Frame {
            kind,
            flags,
            stream,
        })
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.write(&frame(kind, flags, stream, payload)).await;
    }

    /// The caller may have gone away.
    async fn write(&mut self, bytes: &[u8]) {
        drop(self.stream.write_all(bytes).await);
        drop(self.stream.flush().await);
    }

    /// Waits for the end of a request and returns its stream.
    async fn request(&mut self) -> Option<u32> {
        loop {
            let frame = self.frame().await?;
            match frame.kind {
                SETTINGS if frame.flags & ACK == 0 => self.send(SETTINGS, ACK, 0, &[]).await,
                HEADERS | DATA if frame.flags & END_STREAM != 0 => return Some(frame.stream),
                _ => {}
            }
        }
    }

    async fn good(&mut self, stream: u32) {
        self.write(&good(stream)).await;
    }

    async fn go_away(&mut self, last: u32, code: u32, debug: &[u8]) {
        self.write(&go_away(last, code, debug)).await;
    }

    /// Waits until the caller has read all that was sent.
    async fn until_read(&mut self) -> Option<()> {
        self.send(PING, 0, 0, &[7; 8]).await;
        loop {
            let frame = self.frame().await?;
            if frame.kind == PING && frame.flags & ACK != 0 {
                return Some(());
            }
        }
    }

    async fn reset(&mut self, stream: u32, code: u32) {
        self.send(RST_STREAM, 0, stream, &code.to_be_bytes()).await;
    }

    async fn until_left(mut self) {
        while self.frame().await.is_some() {}
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [a, b, c, kind, flags];
    [&head, &stream.to_be_bytes()[..], payload].concat()
}

fn good(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, STATUS_200)
}

fn go_away(last: u32, code: u32, debug: &[u8]) -> Vec<u8> {
    let payload = [&last.to_be_bytes(), &code.to_be_bytes(), debug].concat();
    frame(GOAWAY, 0, 0, &payload)
}

/// What a target does with the second request of a connection.
#[derive(Clone, Copy, Debug)]
enum End {
    GoAwayBelow,
    Refuse,
    Close,
    AnswerAfterGoAway,
    /// All at once, as nginx does at each `keepalive_requests`-th request.
    AnswerGoAwayClose,
}

async fn ending_target(end: End) -> SocketAddr {
    raw_target(move |stream| async move {
        let Some(mut raw) = Raw::accept(stream).await else {
            return;
        };
        let Some(first) = raw.request().await else {
            return;
        };
        raw.good(first).await;
        let Some(second) = raw.request().await else {
            return;
        };
        match end {
            End::GoAwayBelow => raw.go_away(first, NO_ERROR, b"").await,
            End::Refuse => {
                raw.reset(second, REFUSED_STREAM).await;
                raw.until_left().await;
            }
            End::Close => {}
            End::AnswerAfterGoAway => {
                raw.go_away(second, NO_ERROR, b"").await;
                // From here on the caller knows that the connection ends.
                raw.until_read().await;
                raw.good(second).await;
            }
            End::AnswerGoAwayClose => {
                let all = [good(second), go_away(second, NO_ERROR, b"")].concat();
                raw.write(&all).await;
            }
        }
    })
    .await
}

/// One thread that runs the task that was woken last: so the worker hears of the end of the connection before the task
/// that brings it the answer has run.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_http2_connection_that_ends_costs_no_record() {
    for end in [
        End::GoAwayBelow,
        End::Refuse,
        End::Close,
        End::AnswerAfterGoAway,
        End::AnswerGoAwayClose,
    ] {
        let target = ending_target(end).await;
        let gateway = Harness::start(|config| {
            trusting(config);
            config.dispatch.in_flight_max = 1;
        })
        .await;
        for at in 1..=6 {
            gateway.sync("k", &https(target, "localhost")).await;
            let counts = gateway.settled().await;
            assert_eq!(counts.delivered, at, "{end:?}: {counts:?}");
        }
        gateway.stop().await;
    }
}

#[tokio::test]
async fn a_stream_that_fails_says_why_and_nothing_that_the_target_said() {
    for (is_reset, expected) in [
        (true, "http2 error: unexpected internal error encountered"),
        (false, "http2 error: unexpected internal error encountered"),
    ] {
        let target = raw_target(move |stream| async move {
            let Some(mut raw) = Raw::accept(stream).await else {
                return;
            };
            let Some(stream) = raw.request().await else {
                return;
            };
            match is_reset {
                true => raw.reset(stream, INTERNAL_ERROR).await,
                false => raw.go_away(0, INTERNAL_ERROR, b"SECRET").await,
            }
            raw.until_left().await;
        });
        let target = target.await;
        let gateway = Harness::start(trusting).await;
        gateway.sync("k", &https(target, "localhost")).await;
        gateway.settled().await;
        let failed = gateway.record_at(UNAVAILABLE, 0).await;
        assert_eq!(header(&failed, "cause-class"), "reset");
        assert_eq!(header(&failed, "cause-reason"), expected);
        gateway.stop().await;
    }
}
