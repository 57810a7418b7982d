//! Connections to targets: DNS, the address rule, TCP, TLS, and which HTTP is spoken.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    address::AddressRule,
    client::Connection,
    lookup::Lookups,
    outcome::{Cause, Failure},
    settings::Outward,
    sockets::Sockets,
};
use crate::{
    descriptors::{self, Shares},
    target::Origin,
    tasks::Tasks,
};

/// What an attempt to connect comes to while this process has no descriptor. No attempt ends with it.
const NO_DESCRIPTOR: &str = "no file descriptor is free";

/// Opens connections.
pub(crate) struct Connector {
    lookups: Lookups,
    /// A worker takes one of these before it connects.
    pub(super) sockets: Sockets,
    /// For the part of HTTP/2 that hyper wants to run as a task.
    pub(crate) tasks: Tasks,
    #[cfg(test)]
    pub(crate) network: Option<Network>,
}

/// A network that a test makes up: the other end of a connection, or nothing where nobody listens.
#[cfg(test)]
pub(crate) type Network =
    std::sync::Arc<dyn Fn(SocketAddr) -> Option<tokio::io::DuplexStream> + Send + Sync>;

impl Connector {
    pub(crate) fn new(tasks: Tasks) -> Self {
        Self {
            lookups: Lookups::new(),
            sockets: Sockets::new(Shares::of_process().calls),
            tasks,
            #[cfg(test)]
            network: None,
        }
    }

    /// Returns a connection that stands after `within` at the latest. The time begins anew as long as this process has no
    /// descriptor for it: that is no failure of the target.
    pub(crate) async fn connect(
        &self,
        outward: &Outward,
        origin: &Origin,
        within: Duration,
    ) -> Result<Connection, Failure> {
        loop {
            match self.connect_once(outward, origin, within).await {
                // A look-up of a name needs descriptors too, and does not say that it had none.
                Err(failure) if failure.reason == NO_DESCRIPTOR || !descriptors::is_one_left() => {
                    sleep(descriptors::RETRY_WAIT).await;
                }
                ended => return ended,
            }
        }
    }

    async fn connect_once(
        &self,
        outward: &Outward,
        origin: &Origin,
        within: Duration,
    ) -> Result<Connection, Failure> {
        let by = Instant::now() + within;
        let found = self.resolve(origin, by).await?;
        match timeout_at(by, self.open(outward, origin, found, by)).await {
            Ok(opened) => opened,
            Err(_elapsed) => Err(late()),
        }
    }

    async fn resolve(&self, origin: &Origin, by: Instant) -> Result<Vec<IpAddr>, Failure> {
        match origin.host().parse() {
            Ok(ip) => Ok(vec![ip]),
            Err(_) => self.lookups.addresses(origin.host(), by).await,
        }
    }

    async fn open(
        &self,
        outward: &Outward,
        origin: &Origin,
        found: Vec<IpAddr>,
        by: Instant,
    ) -> Result<Connection, Failure> {
        let http = |error: hyper::Error| Failure::new(Cause::Reset, error.to_string());
        #[cfg(test)]
        if let Some(network) = &self.network {
            let refused = || connect_failure(&io::ErrorKind::ConnectionRefused.into());
            let stream = network(SocketAddr::new(found[0], origin.port())).ok_or_else(refused)?;
            let io = TokioIo::new(Stream::MadeUp(stream));
            return Connection::http1(io).await.map_err(http);
        }
        let stream = tcp(&outward.rule, found, origin.port(), by).await?;
        if !origin.https() {
            let io = TokioIo::new(Stream::Plain(stream));
            return Connection::http1(io).await.map_err(http);
        }
        let name = ServerName::try_from(origin.host().to_owned())
            .map_err(|_| Failure::new(Cause::Tls, "the host is no name for a certificate"))?;
        let tls = TlsConnector::from(outward.tls.clone());
        let stream = tls.connect(name, stream).await.map_err(tls_failure)?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let io = TokioIo::new(Stream::Tls(Box::new(stream)));
        if http2 {
            Connection::http2(io, self.tasks.clone()).await
        } else {
            Connection::http1(io).await
        }
        .map_err(http)
    }
}

/// Tries the allowed addresses in the resolver's order; each gets an even share of the time that is left, so that
/// one that swallows packets does not use up the time of the others.
async fn tcp(
    rule: &AddressRule,
    found: Vec<IpAddr>,
    port: u16,
    by: Instant,
) -> Result<TcpStream, Failure> {
    let mut left = found.len();
    let mut failure = Failure::new(Cause::Blocked, blocked_reason(found.first().copied()));
    for ip in found {
        let address = SocketAddr::new(ip, port);
        let share =
            by.saturating_duration_since(Instant::now()) / u32::try_from(left).unwrap_or(u32::MAX);
        left -= 1;
        if !rule.allows(address) {
            continue;
        }
        failure = match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return not_ourselves(rule, stream),
            Ok(Err(error)) if descriptors::are_used_up(&error) => {
                return Err(Failure::new(Cause::Internal, NO_DESCRIPTOR));
            }
            Ok(Err(error)) => connect_failure(&error),
            Err(_elapsed) => late(),
        };
    }
    Err(failure)
}

fn not_ourselves(rule: &AddressRule, stream: TcpStream) -> Result<TcpStream, Failure> {
    let ends = stream.local_addr().and_then(|local| {
        stream.set_nodelay(true)?;
        Ok((local, stream.peer_addr()?))
    });
    let (local, peer) = ends.map_err(|error| connect_failure(&error))?;
    if rule.is_own_connection(local, peer) {
        return Err(Failure::new(
            Cause::Blocked,
            blocked_reason(Some(peer.ip())),
        ));
    }
    Ok(stream)
}

fn late() -> Failure {
    Failure::new(Cause::Timeout, "the connection did not stand in time")
}

fn connect_failure(error: &io::Error) -> Failure {
    Failure::new(Cause::Connect, format!("no connection: {}", error.kind()))
}

/// The text of a TLS error names certificates and protocols, nothing that was sent.
fn tls_failure(error: io::Error) -> Failure {
    Failure::new(Cause::Tls, format!("no TLS: {error}"))
}

fn blocked_reason(address: Option<IpAddr>) -> String {
    match address {
        Some(ip) => format!(
            "address {ip} may not be called (see dispatch.private_addresses and dispatch.loopback_addresses)"
        ),
        None => "no address".into(),
    }
}

/// A connection's bytes.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    #[cfg(test)]
    MadeUp(tokio::io::DuplexStream),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, into),
            #[cfg(test)]
            Self::MadeUp(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            #[cfg(test)]
            Self::MadeUp(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            #[cfg(test)]
            Self::MadeUp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
            #[cfg(test)]
            Self::MadeUp(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(test)]
            Self::MadeUp(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(test)]
            Self::MadeUp(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
