//! Opens connections to targets: DNS, the address rule, TCP, TLS, and the choice of the HTTP version.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rustls::pki_types::ServerName;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::TlsConnector;

use super::{
    connection::Connection,
    lookup::{Addresses, Lookups},
    sockets::Sockets,
    wire::{Socket, Wire},
};
use crate::dispatch::{
    outcome::{Cause, Failure, refused::handshake_reason},
    settings::Outward,
    stats::Stats,
};
use crate::{
    model::{
        address::{AddressRule, Forbidden},
        target::Origin,
    },
    runtime::{
        descriptors::{self, Shares},
        tasks::Tasks,
    },
};

/// Opens connections.
pub(crate) struct Connector {
    lookups: Lookups,
    /// A worker takes a descriptor before it connects.
    pub(in crate::dispatch) sockets: Sockets,
    /// Runs the part of HTTP/2 that hyper needs a task for.
    pub(crate) tasks: Tasks,
    #[cfg(test)]
    pub(crate) network: Option<Network>,
}

/// A network made up by a test: the other end of a connection, or `None` where no listener is.
#[cfg(test)]
pub(crate) type Network =
    std::sync::Arc<dyn Fn(SocketAddr) -> Option<tokio::io::DuplexStream> + Send + Sync>;

impl Connector {
    pub(crate) fn new(tasks: Tasks, stats: Arc<Stats>) -> Self {
        Self {
            lookups: Lookups::new(stats),
            sockets: Sockets::new(Shares::of_process().calls),
            tasks,
            #[cfg(test)]
            network: None,
        }
    }

    /// Uses a test's resolver.
    #[cfg(test)]
    pub(crate) fn finding(
        find: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
        tasks: Tasks,
        stats: Arc<Stats>,
    ) -> Self {
        Self {
            lookups: Lookups::asking(stats.clone(), find),
            ..Self::new(tasks, stats)
        }
    }

    /// Returns a connection for a record of `source`, and how long it waited until the look-up of the name began. The
    /// connection has `within` from there on.
    ///
    /// # Errors
    /// A failure with `not_begun` if this process has no free descriptor, which says nothing about the target.
    pub(crate) async fn connect(
        &self,
        outward: &Outward,
        origin: &Origin,
        source: &str,
        within: Duration,
    ) -> Result<(Connection, Duration), Failure> {
        match self.connect_once(outward, origin, source, within).await {
            // A look-up needs descriptors too, and does not report that it had none.
            Err(failure) if failure.not_begun || !descriptors::is_one_left() => Err(Failure {
                not_begun: true,
                ..failure
            }),
            ended => ended,
        }
    }

    async fn connect_once(
        &self,
        outward: &Outward,
        origin: &Origin,
        source: &str,
        within: Duration,
    ) -> Result<(Connection, Duration), Failure> {
        let began = Instant::now();
        let Addresses { found, waited } = self.resolve(outward, origin, source, within).await?;
        let by = began + waited + within;
        match timeout_at(by, self.open(outward, origin, &found, by)).await {
            Ok(opened) => Ok((opened?, waited)),
            Err(_elapsed) => Err(late()),
        }
    }

    async fn resolve(
        &self,
        outward: &Outward,
        origin: &Origin,
        source: &str,
        within: Duration,
    ) -> Result<Addresses, Failure> {
        let host = origin.host();
        if let Ok(ip) = host.parse() {
            return Ok(Addresses::at_once([ip].into()));
        }
        let kept = outward.addresses_kept;
        self.lookups.addresses(host, source, kept, within).await
    }

    async fn open(
        &self,
        outward: &Outward,
        origin: &Origin,
        found: &[IpAddr],
        by: Instant,
    ) -> Result<Connection, Failure> {
        let http = |error: hyper::Error| Failure::new(Cause::Reset, error.to_string());
        #[cfg(test)]
        if let Some(network) = &self.network {
            let refused = || connect_failure(&io::ErrorKind::ConnectionRefused.into());
            let stream = network(SocketAddr::new(found[0], origin.port())).ok_or_else(refused)?;
            let wire = Wire::new(Socket::MadeUp(stream));
            return Connection::http1(wire).await.map_err(http);
        }
        let stream = tcp(&outward.rule, origin, found, by).await?;
        if !origin.https() {
            let wire = Wire::new(Socket::Plain(stream));
            return Connection::http1(wire).await.map_err(http);
        }
        let name = ServerName::try_from(origin.host().to_owned())
            .map_err(|_| Failure::new(Cause::Tls, "the host is no name for a certificate"))?;
        let tls = TlsConnector::from(outward.tls.clone());
        let stream = tls.connect(name, stream).await;
        let stream = stream.map_err(|error| tls_failure(&error))?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let wire = Wire::new(Socket::Tls(Box::new(stream)));
        if http2 {
            Connection::http2(wire, self.tasks.clone()).await
        } else {
            Connection::http1(wire).await
        }
        .map_err(http)
    }
}

/// Tries the allowed addresses in the resolver's order. Each gets an even share of the time left, so that an address
/// that drops packets does not use up the time of the others.
async fn tcp(
    rule: &AddressRule,
    origin: &Origin,
    found: &[IpAddr],
    by: Instant,
) -> Result<TcpStream, Failure> {
    // A blocked address has no share, because otherwise a timeout would be reported too early.
    let may_call = |ip: &&IpAddr| rule.forbids(SocketAddr::new(**ip, origin.port())).is_none();
    let mut left = found.iter().filter(may_call).count();
    let mut failure = None;
    let mut blocked = None;
    for ip in found {
        let address = SocketAddr::new(*ip, origin.port());
        if let Some(why) = rule.forbids(address) {
            blocked = blocked.or(Some((address, why)));
            continue;
        }
        let share =
            by.saturating_duration_since(Instant::now()) / u32::try_from(left).unwrap_or(u32::MAX);
        left -= 1;
        failure = Some(match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return not_ourselves(rule, origin, stream),
            Ok(Err(error)) if descriptors::are_used_up(&error) => {
                return Err(Failure {
                    not_begun: true,
                    ..connect_failure(&error)
                });
            }
            Ok(Err(error)) => connect_failure(&error),
            Err(_elapsed) => late(),
        });
    }
    Err(match (failure, blocked) {
        (Some(failure), _) => failure,
        (None, Some((address, why))) => blocked_failure(origin, address.ip(), why),
        (None, None) => Failure::new(Cause::Dns, "the host has no address"),
    })
}

fn not_ourselves(
    rule: &AddressRule,
    origin: &Origin,
    stream: TcpStream,
) -> Result<TcpStream, Failure> {
    let ends = stream.local_addr().and_then(|local| {
        stream.set_nodelay(true)?;
        Ok((local, stream.peer_addr()?))
    });
    let (local, peer) = ends.map_err(|error| connect_failure(&error))?;
    if rule.is_own_connection(local, peer) {
        return Err(blocked_failure(origin, peer.ip(), Forbidden::Own));
    }
    Ok(stream)
}

fn late() -> Failure {
    Failure::new(Cause::Timeout, "the connection did not stand in time")
}

fn connect_failure(error: &io::Error) -> Failure {
    Failure::new(Cause::Connect, format!("no connection: {}", error.kind()))
}

fn tls_failure(error: &io::Error) -> Failure {
    Failure::new(Cause::Tls, handshake_reason(error))
}

fn blocked_failure(origin: &Origin, ip: IpAddr, why: Forbidden) -> Failure {
    let host = origin.host();
    let why = why.words();
    let reason = match host.parse::<IpAddr>() {
        Ok(_) => format!("address {ip} may not be called: {why}"),
        Err(_) => format!("host {host} has address {ip}, which may not be called: {why}"),
    };
    Failure::new(Cause::Blocked, reason)
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    const RULE: AddressRule = AddressRule {
        private: false,
        loopback: true,
        own: Vec::new(),
    };

    async fn connect(
        rule: &AddressRule,
        origin: &str,
        found: &[&str],
    ) -> Result<SocketAddr, Failure> {
        connect_within(Duration::from_secs(20), rule, origin, found).await
    }

    async fn connect_within(
        within: Duration,
        rule: &AddressRule,
        origin: &str,
        found: &[&str],
    ) -> Result<SocketAddr, Failure> {
        let found: Vec<IpAddr> = found.iter().map(|ip| ip.parse().unwrap()).collect();
        let by = Instant::now() + within;
        let stream = tcp(rule, &Origin::of(origin).unwrap(), &found, by).await?;
        Ok(stream.peer_addr().unwrap())
    }

    #[tokio::test]
    async fn the_address_that_is_blocked_is_named_with_what_would_allow_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let url = format!("http://api.example:{}/", address.port());
        let own = AddressRule {
            own: vec![address],
            ..RULE
        };
        for (rule, found, expected) in [
            (
                &RULE,
                &["10.1.2.3", "169.254.169.254"][..],
                "host api.example has address 10.1.2.3, which may not be called: dispatch.private_addresses = true would allow it",
            ),
            (
                &RULE,
                &["169.254.169.254"],
                "host api.example has address 169.254.169.254, which may not be called: no setting allows link-local, metadata and reserved addresses",
            ),
            (
                &RULE,
                &["::ffff:169.254.169.254"],
                "host api.example has address ::ffff:169.254.169.254, which may not be called: no setting allows link-local, metadata and reserved addresses",
            ),
            (
                &own,
                &["10.0.0.1", "127.0.0.1"],
                "host api.example has address 10.0.0.1, which may not be called: dispatch.private_addresses = true would allow it",
            ),
            (
                &own,
                &["127.0.0.1"],
                "host api.example has address 127.0.0.1, which may not be called: the gateway itself listens there",
            ),
        ] {
            let failure = connect(rule, &url, found).await.unwrap_err();
            assert_eq!(
                (failure.cause, &failure.reason[..]),
                (Cause::Blocked, expected)
            );
        }
        let no_loopback = AddressRule {
            loopback: false,
            ..RULE
        };
        let failure = connect(&no_loopback, &format!("http://{address}/"), &["127.0.0.1"]).await;
        assert_eq!(
            failure.unwrap_err().reason,
            "address 127.0.0.1 may not be called: dispatch.loopback_addresses = true would allow it"
        );
    }

    #[tokio::test]
    async fn a_timeout_is_told_when_the_time_is_over_also_beside_blocked_addresses() {
        use socket2::{Domain, Socket, Type};
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        listener.bind(&any.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let short = Duration::from_millis(300);
        // Until its queue is full, so that the next connection hangs.
        let mut queued = Vec::new();
        while let Ok(stream) = timeout(short, TcpStream::connect(address)).await {
            queued.push(stream.unwrap());
        }
        let url = format!("http://api.example:{}/", address.port());
        let began = Instant::now();
        let found = ["127.0.0.1", "10.1.2.3", "10.1.2.4"];
        let failure = connect_within(short, &RULE, &url, &found).await;
        assert_eq!(failure.unwrap_err().cause, Cause::Timeout);
        assert!(began.elapsed() >= short);
    }

    #[tokio::test]
    async fn a_blocked_address_is_passed_over_wherever_it_stands() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let url = format!("http://api.example:{}/", address.port());
        for found in [
            &["10.1.2.3", "127.0.0.1"][..],
            &["127.0.0.1", "10.1.2.3"],
            &["169.254.169.254", "fd00:ec2::254", "127.0.0.1"],
        ] {
            assert_eq!(connect(&RULE, &url, found).await, Ok(address), "{found:?}");
        }
        // The only allowed address has no listener, so the reason names that.
        drop(listener);
        for found in [["127.0.0.1", "10.1.2.3"], ["10.1.2.3", "127.0.0.1"]] {
            let failure = connect(&RULE, &url, &found).await.unwrap_err();
            assert_eq!(failure.cause, Cause::Connect, "{found:?}");
        }
    }

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
        let found = [IpAddr::from(FIRST), IpAddr::from(SECOND)];
        let origin = Origin::of(&format!("http://api.example:{port}/")).unwrap();
        let by = || Instant::now() + Duration::from_secs(30);
        let rule = |own| AddressRule {
            private: false,
            loopback: true,
            own,
        };

        let own = rule(vec![(SECOND, port).into()]);
        let failure = tcp(&own, &origin, &found, by()).await.unwrap_err();
        assert_eq!(failure.cause, Cause::Connect, "{}", failure.reason);
        // The second address is called as soon as the rule allows it, and this is the first connection to arrive there.
        let allowed = tcp(&rule(Vec::new()), &origin, &found, by()).await.unwrap();
        let (_, caller) = second.accept().await.unwrap();
        assert_eq!(allowed.local_addr().unwrap(), caller);

        // A forbidden first address does not end the search either, and it is not called.
        let own = rule(vec![(FIRST, port).into()]);
        let listening = first.listen(1).unwrap();
        let allowed = tcp(&own, &origin, &found, by()).await.unwrap();
        assert_eq!(allowed.peer_addr().unwrap(), (SECOND, port).into());
        let reached = tcp(&rule(Vec::new()), &origin, &found, by()).await.unwrap();
        let (_, caller) = listening.accept().await.unwrap();
        assert_eq!(reached.local_addr().unwrap(), caller);
    }
}
