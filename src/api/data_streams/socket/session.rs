//! A WebSocket session: sends frames, and reads acknowledgements.
//!
//! Bounds: one frame is being sent; a message of the client has up to 4 KiB; a client sends up to 10 messages a second, or
//! 10,000 if it acknowledges. A client that sends or takes no data for too long is disconnected.

use std::{future::poll_fn, io, pin::pin, task::Poll, time::Duration};

use bytes::Bytes;
use futures_util::Stream as _;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::{Instant, sleep_until},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        error::CapacityError,
        protocol::{Role, WebSocketConfig},
    },
};
use tokio_util::sync::CancellationToken;

use crate::{
    push::{Frame, Subscription},
    runtime::tasks::{Panics, Part},
};

use super::{
    super::{
        close::{self, Close},
        cursors,
    },
    wire::Wire,
};

/// Longest message of a client.
const MESSAGE_BYTES_MAX: usize = 4 << 10;
/// Messages of a client per second.
const MESSAGES_MAX: u32 = 10;
/// Messages of a client with a cursor per second. Each is an acknowledgement, which includes all earlier records.
const ACKS_MAX: u32 = 10_000;
/// Pings and pongs of a client per second.
const CONTROLS_MAX: u32 = 100;
const PING_EVERY: Duration = Duration::from_secs(25);
const SILENCE_MAX: Duration = Duration::from_secs(60);
const STALL_MAX: Duration = Duration::from_secs(30);
/// How long a client may take to end a closed connection. A slow client gets more time, so that it sees the close code.
const CLOSING_MAX: Duration = Duration::from_secs(3);
const CLOSING_STALLED_MAX: Duration = Duration::from_secs(20);

const PING: Bytes = Bytes::from_static(b"\x89\x00");
const IDLE: Bytes = Bytes::from_static(b"\x81\x02[]");

/// How a session behaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manners {
    /// Each record is a message of its own.
    pub(super) one_by_one: bool,
    /// Silence after which an empty array is sent; zero = never.
    pub(super) idle_array: Duration,
}

/// A client at a WebSocket.
#[derive(Debug)]
pub(super) struct Session<S> {
    socket: WebSocketStream<Wire<S>>,
    subscription: Subscription,
    manners: Manners,
    sent_at: Instant,
    pinged_at: Instant,
    /// Start of the current second; messages in it; pings and pongs in it.
    counted: (Instant, u32, u32),
}

/// The side that ended a session.
#[derive(Clone, Copy, Debug)]
enum Ended {
    Here(Close),
    /// The client, with its code.
    There(Option<u16>),
}

/// What happened on the connection.
enum Event {
    Message(Message),
    /// The kernel has taken all queued bytes.
    Drained,
    /// The connection is over.
    Over,
    Broken(Close),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Starts after the handshake; `read` has the bytes that came with it.
    pub(super) async fn new(
        io: S,
        read: Vec<u8>,
        subscription: Subscription,
        manners: Manners,
    ) -> Self {
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX))
            .read_buffer_size(4 << 10)
            .write_buffer_size(0);
        let wire = Wire::new(io);
        let socket =
            WebSocketStream::from_partially_read(wire, read, Role::Server, Some(config)).await;
        let now = Instant::now();
        Self {
            socket,
            subscription,
            manners,
            sent_at: now,
            pinged_at: now,
            counted: (now, 0, 0),
        }
    }

    /// Runs the session; returns the close code, or `None` if the client has gone.
    pub(super) async fn run(mut self, stop: &CancellationToken, panics: &Panics) -> Option<Close> {
        let ended = panics.guard(Part::WebSocket, self.send(stop)).await;
        // A panic leaves the queued messages whole, so a close message can still follow them.
        let ended = ended.unwrap_or(Some(Ended::Here(Close::Internal)));
        // Store acknowledgements before the answer to the close, which tells the client that they were received.
        let settled = self.subscription.settle().await;
        match ended {
            Some(Ended::Here(close)) => {
                let message = close.message(self.subscription.last_pos());
                let time = match close {
                    Close::Stalled => CLOSING_STALLED_MAX,
                    _ => CLOSING_MAX,
                };
                self.close(message, time).await;
                Some(close)
            }
            Some(Ended::There(code)) => match settled {
                Ok(()) => {
                    self.close(close::answer(code), CLOSING_MAX).await;
                    None
                }
                Err(error) => {
                    tracing::error!(%error, "cannot store the acknowledgements of a client");
                    let close = Close::Internal;
                    let message = close.message(self.subscription.last_pos());
                    self.close(message, CLOSING_MAX).await;
                    Some(close)
                }
            },
            None => None,
        }
    }

    /// Sends and receives until one side ends the session; `None` if the connection is gone.
    async fn send(&mut self, stop: &CancellationToken) -> Option<Ended> {
        let mut timer = pin!(sleep_until(self.deadline()));
        loop {
            let drained = self.socket.get_ref().is_drained();
            tokio::select! {
                biased;
                () = stop.cancelled() => return Some(Ended::Here(Close::Drain)),
                event = event(&mut self.socket, drained) => match event {
                    Event::Message(Message::Close(frame)) => {
                        return Some(Ended::There(frame.map(|frame| frame.code.into())));
                    }
                    Event::Message(message) => {
                        if let Some(close) = self.received(&message) {
                            return Some(Ended::Here(close));
                        }
                    }
                    Event::Drained => {
                        // The silence starts now.
                        timer.as_mut().reset(self.deadline());
                        // Yield so that subscribers at the same position advance together and share encoded frames.
                        tokio::task::yield_now().await;
                    }
                    Event::Over => return None,
                    Event::Broken(close) => return Some(Ended::Here(close)),
                },
                frame = self.subscription.next(), if drained => match frame {
                    Ok(frame) => self.queue(&frame),
                    Err(end) => return Some(Ended::Here(Close::told(&end))),
                },
                () = timer.as_mut() => {
                    if let Some(close) = self.look_at_time()? {
                        return Some(Ended::Here(close));
                    }
                    timer.as_mut().reset(self.deadline());
                }
            }
        }
    }

    fn queue(&mut self, frame: &Frame) {
        let bytes = match self.manners.one_by_one {
            true => frame.one_by_one(),
            false => frame.wire().clone(),
        };
        self.socket.get_mut().push(bytes);
        self.sent_at = Instant::now();
    }

    /// Handles a message: an acknowledgement if the client has a cursor, else it is only counted.
    fn received(&mut self, message: &Message) -> Option<Close> {
        let now = Instant::now();
        if now - self.counted.0 >= Duration::from_secs(1) {
            self.counted = (now, 0, 0);
        }
        let wire = self.socket.get_mut();
        match message {
            Message::Text(_) | Message::Binary(_) => wire.heard(),
            Message::Ping(payload) | Message::Pong(payload) => wire.heard_control(payload.len()),
            Message::Close(_) | Message::Frame(_) => {}
        }
        match message {
            Message::Text(text) => {
                #[cfg(test)]
                crate::runtime::tasks::provoke(Part::WebSocket, text.as_bytes());
                self.counted.1 += 1;
                if self.subscription.has_cursor() {
                    let pos = cursors::one_text(text.as_bytes(), "ack").ok();
                    let acked = pos.map(|pos| self.subscription.ack(&pos));
                    if !matches!(acked, Some(Ok(()))) {
                        return Some(Close::BadMessage);
                    }
                }
            }
            Message::Binary(_) => return Some(Close::Unsupported),
            Message::Ping(_) | Message::Pong(_) => self.counted.2 += 1,
            Message::Close(_) | Message::Frame(_) => {}
        }
        let messages_max = match self.subscription.has_cursor() {
            true => ACKS_MAX,
            false => MESSAGES_MAX,
        };
        let too_many = self.counted.1 > messages_max || self.counted.2 > CONTROLS_MAX;
        too_many.then_some(Close::TooMany)
    }

    /// Pings, fills silence, and checks for a stalled client; `None` if the client has gone.
    fn look_at_time(&mut self) -> Option<Option<Close>> {
        let now = Instant::now();
        let wire = self.socket.get_mut();
        if !wire.is_drained() && now - wire.written_at() >= STALL_MAX {
            return Some(Some(Close::Stalled));
        }
        if now - wire.read_at() >= SILENCE_MAX {
            return None;
        }
        if now - self.pinged_at >= PING_EVERY {
            wire.push(PING);
            self.pinged_at = now;
        }
        let idle = self.manners.idle_array;
        let is_due = wire.is_drained() && now - self.sent_at >= idle;
        if is_due && self.sends_arrays() {
            self.socket.get_mut().push(IDLE);
            self.sent_at = now;
        }
        Some(None)
    }

    /// Returns whether an empty array fills silence. A message with one event cannot be empty.
    fn sends_arrays(&self) -> bool {
        !self.manners.idle_array.is_zero() && !self.manners.one_by_one
    }

    /// Returns the next time at which a ping, an empty array or a check is due.
    fn deadline(&self) -> Instant {
        let wire = self.socket.get_ref();
        let mut at = (self.pinged_at + PING_EVERY).min(wire.read_at() + SILENCE_MAX);
        match wire.is_drained() {
            // A message queued from now on cannot stall before that.
            true => at = at.min(Instant::now() + STALL_MAX),
            false => at = at.min(wire.written_at() + STALL_MAX),
        }
        if wire.is_drained() && self.sends_arrays() {
            at = at.min(self.sent_at + self.manners.idle_array);
        }
        at
    }

    /// Sends a close message after the queued ones, and waits until the client ends the connection.
    ///
    /// It reads and drops what the client still sends: unread bytes would reset the connection, and the client could lose
    /// the message (as RFC 9112 §9.6 says of requests).
    async fn close(&mut self, message: Bytes, time: Duration) {
        let wire = self.socket.get_mut();
        wire.stop_listening();
        wire.push(message);
        let ends = async {
            wire.flush().await?;
            wire.shutdown().await?;
            let mut rest = [0; 1024];
            while wire.read(&mut rest).await? > 0 {}
            Ok::<_, io::Error>(())
        };
        let _in_time = tokio::time::timeout(time, ends).await;
    }
}

/// Reads and writes until something has happened.
///
/// # Cancel safety
/// Nothing is lost when the call is dropped.
async fn event<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<Wire<S>>,
    drained: bool,
) -> Event {
    poll_fn(|cx| {
        if let Poll::Ready(message) = pin!(&mut *socket).poll_next(cx) {
            return Poll::Ready(match message {
                None => Event::Over,
                Some(Ok(message)) => Event::Message(message),
                Some(Err(error)) => broken(&error),
            });
        }
        match socket.get_mut().poll_drain(cx) {
            Poll::Ready(Err(_gone)) => Poll::Ready(Event::Over),
            Poll::Ready(Ok(())) if !drained => Poll::Ready(Event::Drained),
            _ => Poll::Pending,
        }
    })
    .await
}

fn broken(error: &Error) -> Event {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => Event::Broken(Close::TooLarge),
        Error::Protocol(
            tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
        ) => Event::Over,
        Error::Capacity(_) | Error::Protocol(_) => Event::Broken(Close::Protocol),
        Error::Utf8(_) => Event::Broken(Close::NotUtf8),
        Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
            Event::Broken(Close::Protocol)
        }
        Error::Io(error) if error.kind() == io::ErrorKind::QuotaExceeded => {
            Event::Broken(Close::TooMany)
        }
        _ => Event::Over,
    }
}
