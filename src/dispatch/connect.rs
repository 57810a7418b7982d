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
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    address::AddressRule,
    client::Connection,
    lookup::Lookups,
    outcome::{Cause, Failure},
    settings::Outward,
};
use crate::{target::Origin, tasks::Tasks};

/// Opens connections.
pub(crate) struct Connector {
    lookups: Lookups,
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
            tasks,
            #[cfg(test)]
            network: None,
        }
    }

    /// Returns a connection that stands after `within` at the latest.
    pub(crate) async fn connect(
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

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    const FIRST: [u8; 4] = [127, 0, 0, 1];
    const SECOND: [u8; 4] = [127, 0, 0, 2];

    /// A port on both addresses. The first one is bound and does not listen: it refuses, and no other process can take it.
    async fn pair() -> (TcpSocket, TcpListener, u16) {
        loop {
            let second = TcpListener::bind((IpAddr::from(SECOND), 0)).await.unwrap();
            let port = second.local_addr().unwrap().port();
            let first = TcpSocket::new_v4().unwrap();
            // The system has chosen a port that is free on the second address, and not on every address.
            if first.bind((FIRST, port).into()).is_ok() {
                return (first, second, port);
            }
        }
    }

    /// A name may have several addresses. The rule judges each one: an allowed first address opens no way to the second.
    #[tokio::test]
    async fn a_second_address_that_is_forbidden_is_not_called_when_the_first_one_refuses() {
        let (first, second, port) = pair().await;
        let found = || vec![IpAddr::from(FIRST), IpAddr::from(SECOND)];
        let by = || Instant::now() + Duration::from_secs(30);
        let rule = |own| AddressRule {
            private: false,
            loopback: true,
            own,
        };

        let own = rule(vec![(SECOND, port).into()]);
        let failure = tcp(&own, found(), port, by()).await.unwrap_err();
        assert_eq!(failure.cause, Cause::Connect, "{}", failure.reason);
        // The second address is called as soon as the rule allows it, and this is the first connection to arrive there.
        let allowed = tcp(&rule(Vec::new()), found(), port, by()).await.unwrap();
        let (_, caller) = second.accept().await.unwrap();
        assert_eq!(allowed.local_addr().unwrap(), caller);

        // A forbidden first address does not end the search either, and it is not called.
        let own = rule(vec![(FIRST, port).into()]);
        let listening = first.listen(1).unwrap();
        let allowed = tcp(&own, found(), port, by()).await.unwrap();
        assert_eq!(allowed.peer_addr().unwrap(), (SECOND, port).into());
        let reached = tcp(&rule(Vec::new()), found(), port, by()).await.unwrap();
        let (_, caller) = listening.accept().await.unwrap();
        assert_eq!(reached.local_addr().unwrap(), caller);
    }
}
