//! One client at a WebSocket: frames out, and whatever it sends in.
//!
//! Bounds: one frame at a time is under way; a message of the client has 4 KiB, and there are ten a second at most, or
//! ten thousand of one that acknowledges; a client that sends nothing or takes nothing for too long is let go.

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

/// The longest message of a client.
const MESSAGE_BYTES_MAX: usize = 4 << 10;
/// Messages of a client in a second.
const MESSAGES_MAX: u32 = 10;
/// Of one that has a cursor. Each is an acknowledgement, and one says it for all records before it too.
const ACKS_MAX: u32 = 10_000;
/// Its pings and pongs too are read, and pings are answered.
const CONTROLS_MAX: u32 = 100;
const PING_EVERY: Duration = Duration::from_secs(25);
const SILENCE_MAX: Duration = Duration::from_secs(60);
const STALL_MAX: Duration = Duration::from_secs(30);
/// How long a client may take to end a connection that is closed; one that was slow gets the chance to learn why.
const CLOSING_MAX: Duration = Duration::from_secs(3);
const CLOSING_STALLED_MAX: Duration = Duration::from_secs(20);

const PING: Bytes = Bytes::from_static(b"\x89\x00");
const IDLE: Bytes = Bytes::from_static(b"\x81\x02[]");

/// How a session behaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manners {
    /// Each record is a message of its own.
    pub(super) one_by_one: bool,
    /// An empty array is sent after that much silence; never, if it is zero.
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
    /// In the second that began then: messages, and pings and pongs.
    counted: (Instant, u32, u32),
}

/// Who has ended a session.
#[derive(Clone, Copy, Debug)]
enum Ended {
    Here(Close),
    /// The client, with its code.
    There(Option<u16>),
}

/// What a client has done.
enum Event {
    Message(Message),
    /// It has everything, as far as the system is concerned.
    Drained,
    /// The connection is over.
    Over,
    Broken(Close),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Begins after the handshake; `read` is what came along with it.
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

    /// Sends until something ends it; returns why, or nothing if the client has gone.
    pub(super) async fn run(mut self, stop: &CancellationToken, panics: &Panics) -> Option<Close> {
        let ended = panics.guard(Part::WebSocket, self.send(stop)).await;
        // What is queued stays whole in a panic, so the client can be told.
        let ended = ended.unwrap_or(Some(Ended::Here(Close::Internal)));
        // Before the client learns that it was heard.
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
                    tracing::error!(%error, "acknowledgements of a client are not stored");
                    let close = Close::Internal;
                    let message = close.message(self.subscription.last_pos());
                    self.close(message, CLOSING_MAX).await;
                    Some(close)
                }
            },
            None => None,
        }
    }

    /// Returns who has ended it; nothing if the connection is gone.
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
                        // Silence begins now.
                        timer.as_mut().reset(self.deadline());
                        // Those who read the same go on side by side, so that they find the same frames made: one that
                        // runs ahead would make them for itself alone.
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

    /// Takes an acknowledgement; a client without a cursor has nothing to say.
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

    /// Does what is due; `None` if the client has gone.
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

    /// Returns whether silence is filled: one event by itself cannot be nothing.
    fn sends_arrays(&self) -> bool {
        !self.manners.idle_array.is_zero() && !self.manners.one_by_one
    }

    /// Returns when the time is to be looked at again.
    fn deadline(&self) -> Instant {
        let wire = self.socket.get_ref();
        let mut at = (self.pinged_at + PING_EVERY).min(wire.read_at() + SILENCE_MAX);
        match wire.is_drained() {
            // What comes to be written meanwhile is not late before that.
            true => at = at.min(Instant::now() + STALL_MAX),
            false => at = at.min(wire.written_at() + STALL_MAX),
        }
        if wire.is_drained() && self.sends_arrays() {
            at = at.min(self.sent_at + self.manners.idle_array);
        }
        at
    }

    /// Says it behind what is under way, and waits for the client to end the connection: what it still sends is read, as
    /// bytes that nobody reads would take the message back (RFC 9112 §9.6 has the same of requests).
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
