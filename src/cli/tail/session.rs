//! One WebSocket connection to a data stream: the handshake through the commands' client, then messages.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use data_encoding::BASE64;
use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::{
    Method, Upgraded,
    header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, timeout, timeout_at},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error as SocketError, Message, Utf8Bytes,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use crate::{
    cli::client::{Client, Error},
    json::loose,
};

/// Time limit for the configuration, and for the handshake.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// The gateway sends at least a ping each 25 s; after three missing ones it counts as gone.
const SILENCE_MAX: Duration = Duration::from_secs(75);
/// How long the gateway may take to answer a close.
const CLOSING_MAX: Duration = Duration::from_secs(3);
/// A frame has up to `bufferSize` bytes, or one record of `maxRecordSize`; both are at most 10 MiB.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// A connection.
#[derive(Debug)]
pub(in crate::cli) struct Session<S = Upgraded> {
    socket: WebSocketStream<Heard<S>>,
    /// The first position, if the gateway has sent it.
    pub(super) begins_at: Option<String>,
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli) enum Ended {
    /// The connection broke without a close.
    Lost(String),
    /// The gateway closed it with a code and a reason.
    Closed(u16, String),
    /// The peer sent something that a gateway never sends.
    Broken(String),
}

impl Session {
    /// Returns the parts of a data stream's configuration that the shape of records depends on.
    pub(in crate::cli) async fn config(client: &Client, name: &str) -> Result<Value, Error> {
        let request = client.request(Method::GET, &path(name), &[]);
        let answer = client.send_for_text(request.timeout(ANSWER_MAX)).await?;
        let config = config(&answer);
        config.ok_or_else(|| client.not_a_gateway("a data stream"))
    }

    /// Opens a connection.
    pub(in crate::cli) async fn open(
        client: &Client,
        name: &str,
        query: &[(&str, String)],
    ) -> Result<Self, Error> {
        let mut random = [0; 16];
        let no_random = |error| Error::NoAnswer(format!("no random numbers: {error}"));
        crate::runtime::random::fill(&mut random).map_err(no_random)?;
        let key = BASE64.encode(&random);
        let request = client
            .request(Method::GET, &path(name), query)
            .timeout(ANSWER_MAX)
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, &key);
        let (headers, upgraded) = client.upgrade(request).await?;
        let accept = headers.get(SEC_WEBSOCKET_ACCEPT);
        if accept.is_none_or(|accept| *accept != *derive_accept_key(key.as_bytes())) {
            let why = "did not answer the WebSocket handshake; is a proxy in the way?";
            return Err(Error::NoAnswer(format!("{} {why}", client.base())));
        }
        let begins_at = headers.get("x-syncgate-position");
        let begins_at = begins_at.and_then(|pos| Some(pos.to_str().ok()?.to_owned()));
        Ok(Self::over(upgraded, begins_at).await)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Makes a session on a connection after its handshake.
    async fn over(io: S, begins_at: Option<String>) -> Self {
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let heard = Heard {
            io,
            at: Instant::now(),
        };
        Self {
            socket: WebSocketStream::from_raw_socket(heard, Role::Client, Some(config)).await,
            begins_at,
        }
    }

    /// Returns the next message. Pings are answered meanwhile.
    ///
    /// # Errors
    /// [`Ended`] says how the connection has ended.
    ///
    /// # Cancel safety
    /// Nothing is lost when the call is dropped.
    pub(in crate::cli) async fn next(&mut self) -> Result<Utf8Bytes, Ended> {
        loop {
            let silent_at = self.socket.get_ref().at + SILENCE_MAX;
            let message = match timeout_at(silent_at, self.socket.next()).await {
                Ok(message) => message,
                // A part of a long message came meanwhile.
                Err(_late) if self.socket.get_ref().at + SILENCE_MAX > silent_at => continue,
                Err(_late) => {
                    let seconds = SILENCE_MAX.as_secs();
                    let why = format!("the gateway has said nothing for {seconds} s");
                    return Err(Ended::Lost(why));
                }
            };
            match message {
                Some(Ok(Message::Text(text))) => return Ok(text),
                Some(Ok(Message::Close(frame))) => {
                    // Send the answering close, because the gateway waits for it.
                    let _answered = timeout(CLOSING_MAX, self.socket.flush()).await;
                    return Err(match frame {
                        Some(frame) => Ended::Closed(frame.code.into(), frame.reason.to_string()),
                        None => Ended::Closed(1005, String::new()),
                    });
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Binary(_))) => {
                    return Err(Ended::Broken("the gateway sent binary data".into()));
                }
                Some(Err(error)) => return Err(broken(&error)),
                None => return Err(Ended::Lost("the connection broke".into())),
            }
        }
    }

    /// Sends a text to the gateway.
    pub(super) async fn say(&mut self, text: String) -> Result<(), Ended> {
        let said = timeout(SILENCE_MAX, self.socket.send(Message::text(text))).await;
        match said {
            Ok(said) => said.map_err(|error| broken(&error)),
            Err(_late) => Err(Ended::Lost("the gateway reads nothing".into())),
        }
    }

    /// Closes the connection, and waits a moment for the answering close.
    pub(in crate::cli) async fn close(mut self) {
        let ends = async {
            let normal = CloseFrame {
                code: CloseCode::Normal,
                reason: Utf8Bytes::default(),
            };
            self.socket.close(Some(normal)).await?;
            // Messages sent meanwhile come before the answer.
            while let Some(message) = self.socket.next().await {
                message?;
            }
            Ok::<_, SocketError>(())
        };
        let _in_time = timeout(CLOSING_MAX, ends).await;
    }
}

/// Returns the members that [`super::Shape`] reads. The others may hold numbers that a [`Value`] cannot.
fn config(answer: &str) -> Option<Value> {
    let member = |text: &str, name: &str| {
        let members = loose::members(text)?;
        let value = loose::member(&members, name)?;
        Some(value.get().to_owned())
    };
    let config = member(answer, "response")?;
    let mut shape = json!({"encoding": {"json": {}}});
    let events = member(&config, "cloudEventsFormat").and_then(|text| text.parse::<Value>().ok());
    shape["cloudEventsFormat"] = events.unwrap_or_default();
    let encoding = member(&config, "encoding").and_then(|text| member(&text, "json"));
    for name in ["metaFields", "beforeImageName", "afterImageName"] {
        let value = encoding.as_deref().and_then(|text| member(text, name));
        if let Some(value) = value.and_then(|text| text.parse::<Value>().ok()) {
            shape["encoding"]["json"][name] = value;
        }
    }
    Some(shape)
}

fn path(name: &str) -> [&str; 4] {
    ["services", "v2", "stream", name]
}

fn broken(error: &SocketError) -> Ended {
    match error {
        SocketError::Capacity(_) => Ended::Broken(format!(
            "the gateway sent a message of more than {} MiB",
            MESSAGE_BYTES_MAX >> 20
        )),
        SocketError::Utf8(_) => Ended::Broken("the gateway sent text that is not UTF-8".into()),
        // A connection that breaks in a frame looks like this too.
        error => Ended::Lost(format!("the connection broke: {error}")),
    }
}

/// A connection that knows when it last brought anything.
#[derive(Debug)]
struct Heard<S> {
    io: S,
    at: Instant,
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if read.is_ready() {
            self.at = Instant::now();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::DuplexStream, time::sleep};

    use super::*;

    #[test]
    fn a_configuration_is_read_whatever_else_it_says() {
        let answer = r#"{"links":[],"response":{"description":"\ud800","cloudEventsFormat":true,"encoding":{"json":{
            "staticFields":{"a":1e400},"afterImageName":"new","metaFields":{"pos":{"name":"at"},"xid":false}}}}}"#;
        let shape = json!({"cloudEventsFormat": true, "encoding": {"json": {"afterImageName": "new",
            "metaFields": {"pos": {"name": "at"}, "xid": false}}}});
        assert_eq!(config(answer), Some(shape));
        assert_eq!(config("{}"), None);
        assert_eq!(config("<html>"), None);
    }

    async fn pair() -> (Session<DuplexStream>, WebSocketStream<DuplexStream>) {
        let (here, there) = tokio::io::duplex(64 << 20);
        let gateway = WebSocketStream::from_raw_socket(there, Role::Server, None).await;
        (Session::over(here, None).await, gateway)
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_a_lost_connection_and_a_ping_is_none() {
        let (mut session, mut gateway) = pair().await;
        let (_, message) = tokio::join!(
            async {
                for _ in 0..3 {
                    sleep(Duration::from_secs(50)).await;
                    gateway.send(Message::Ping("x".into())).await.unwrap();
                    let answer = gateway.next().await.unwrap().unwrap();
                    assert_eq!(answer, Message::Pong("x".into()));
                }
                gateway.send(Message::text("[]")).await.unwrap();
            },
            session.next(),
        );
        assert_eq!(message.as_deref(), Ok("[]"));
        // Part of a frame is no silence either.
        let begun = Instant::now();
        let part = async {
            sleep(Duration::from_secs(50)).await;
            let io = gateway.get_mut();
            tokio::io::AsyncWriteExt::write_all(io, b"\x81\x05[")
                .await
                .unwrap();
            std::future::pending::<()>().await;
        };
        let ended = tokio::select! {
            () = part => unreachable!(),
            ended = session.next() => ended,
        };
        assert_eq!(
            ended,
            Err(Ended::Lost("the gateway has said nothing for 75 s".into()))
        );
        assert_eq!(begun.elapsed(), Duration::from_secs(125));
    }

    #[tokio::test]
    async fn a_frame_of_the_largest_size_is_taken_and_one_beyond_all_bounds_is_not() {
        let (mut session, mut gateway) = pair().await;
        let largest = "x".repeat(10 << 20);
        gateway.send(Message::text(largest.clone())).await.unwrap();
        assert_eq!(session.next().await.unwrap().as_str(), largest);
        let beyond = "x".repeat(MESSAGE_BYTES_MAX + 1);
        gateway.send(Message::text(beyond)).await.unwrap();
        let ended = session.next().await.unwrap_err();
        assert!(
            matches!(&ended, Ended::Broken(why) if why.contains("more than 16 MiB")),
            "{ended:?}"
        );
    }

    #[tokio::test]
    async fn a_close_is_said_and_answered() {
        let (session, mut gateway) = pair().await;
        let ((), said) = tokio::join!(session.close(), async {
            gateway.send(Message::text("[1]")).await.unwrap();
            let said = gateway.next().await.unwrap().unwrap();
            assert!(gateway.next().await.is_none());
            said
        });
        let Message::Close(Some(frame)) = said else {
            panic!("{said:?}");
        };
        assert_eq!(frame.code, CloseCode::Normal);
        let (mut session, mut gateway) = pair().await;
        let close = CloseFrame {
            code: 4410.into(),
            reason: "position_gone".into(),
        };
        gateway.close(Some(close)).await.unwrap();
        let ended = session.next().await;
        assert_eq!(ended, Err(Ended::Closed(4410, "position_gone".into())));
        let answer = gateway.next().await.unwrap().unwrap();
        assert!(matches!(answer, Message::Close(Some(frame)) if u16::from(frame.code) == 4410));
    }
}
