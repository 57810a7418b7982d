//! Which addresses may be called. Pure.
//!
//! Checked after DNS, at each connect, so that a name cannot lead to an address that its text does not show. An IPv4
//! address inside an IPv6 one is judged as the IPv4 address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The rule of addresses.
#[derive(Clone, Debug)]
pub(crate) struct AddressRule {
    /// May targets have private addresses?
    pub(crate) private: bool,
    /// May targets be on this machine?
    pub(crate) loopback: bool,
    /// Where we listen ourselves: never a target, since a message that calls us makes another message.
    pub(crate) own: Vec<SocketAddr>,
}

/// Kinds of addresses, as far as the rule tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Public,
    Private,
    Loopback,
    /// Link-local, metadata of clouds, unspecified, multicast, broadcast, reserved.
    Never,
}

impl AddressRule {
    /// Returns whether a call may go to `to`.
    pub(crate) fn allows(&self, to: SocketAddr) -> bool {
        let ip = inner(to.ip());
        let kind_allowed = match kind(ip) {
            Kind::Public => true,
            Kind::Private => self.private,
            Kind::Loopback => self.loopback,
            Kind::Never => false,
        };
        kind_allowed && !self.is_own(ip, to.port())
    }

    /// Returns whether an established connection has ended at ourselves: the only way to know it of a listener that is
    /// bound to every address of this machine.
    pub(crate) fn is_own_connection(&self, local: SocketAddr, peer: SocketAddr) -> bool {
        inner(local.ip()) == inner(peer.ip())
            && self
                .own
                .iter()
                .any(|own| own.ip().is_unspecified() && own.port() == peer.port())
    }

    fn is_own(&self, ip: IpAddr, port: u16) -> bool {
        self.own.iter().any(|own| {
            let own_ip = inner(own.ip());
            own.port() == port
                && (own_ip == ip || own_ip.is_unspecified() && kind(ip) == Kind::Loopback)
        })
    }
}

/// Returns the IPv4 address inside an IPv6 one: mapped, compatible, NAT64 or 6to4; else the address itself.
fn inner(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    let s = v6.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match s {
        [0, 0, 0, 0, 0, 0xffff, high, low] => v4(high, low),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => v4(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        _ => ip,
    }
}

fn kind(ip: IpAddr) -> Kind {
    match ip {
        IpAddr::V4(v4) => kind_v4(v4),
        IpAddr::V6(v6) => kind_v6(v6),
    }
}

fn kind_v4(ip: Ipv4Addr) -> Kind {
    match ip.octets() {
        // "This network", link-local (with the metadata service of most clouds), multicast, reserved, broadcast.
        [0, ..] | [169, 254, ..] | [224..=255, ..] => Kind::Never,
        // Metadata services outside the link-local range: Alibaba, Azure, Oracle.
        [100, 100, 100, 200] | [168, 63, 129, 16] | [192, 0, 0, 192] => Kind::Never,
        [127, ..] => Kind::Loopback,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Kind::Private,
        _ => Kind::Public,
    }
}

fn kind_v6(ip: Ipv6Addr) -> Kind {
    const AWS_METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Kind::Never,
        [0, 0, 0, 0, 0, 0, 0, 1] => Kind::Loopback,
        _ if ip == AWS_METADATA => Kind::Never,
        // Multicast and link-local.
        [0xff00..=0xffff, ..] | [0xfe80..=0xfebf, ..] => Kind::Never,
        // Unique local, and the site-local range that came before it.
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Kind::Private,
        _ => Kind::Public,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(private: bool, loopback: bool, ip: &str, expected: bool) {
        let rule = AddressRule {
            private,
            loopback,
            own: Vec::new(),
        };
        let to = SocketAddr::new(ip.parse().unwrap(), 80);
        assert_eq!(rule.allows(to), expected, "{ip} {private} {loopback}");
    }

    #[test]
    fn link_local_metadata_unspecified_and_multicast_are_never_called() {
        let never = [
            "169.254.169.254",
            "169.254.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "239.1.2.3",
            "255.255.255.255",
            "240.0.0.1",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "::",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "::ffff:0.0.0.0",
            "::ffff:224.0.0.1",
            "::169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
        ];
        for ip in never {
            check(true, true, ip, false);
        }
    }

    #[test]
    fn private_and_loopback_need_their_setting_and_the_rest_is_free() {
        let private = [
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "100.127.255.255",
            "fc00::1",
            "fd12::1",
            "fec0::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
        ];
        for ip in private {
            check(true, false, ip, true);
            check(false, true, ip, false);
        }
        for ip in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            check(false, true, ip, true);
            check(true, false, ip, false);
        }
        let public = [
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "192.169.0.1",
            "2606:4700::1",
        ];
        for ip in public {
            check(false, false, ip, true);
        }
    }

    #[test]
    fn we_never_call_ourselves() {
        let rule = |own: &str| AddressRule {
            private: true,
            loopback: true,
            own: vec![own.parse().unwrap()],
        };
        let cases = [
            ("127.0.0.1:9002", "127.0.0.1:9002", false),
            ("127.0.0.1:9002", "[::ffff:127.0.0.1]:9002", false),
            ("127.0.0.1:9002", "127.0.0.1:9003", true),
            ("127.0.0.1:9002", "[::1]:9002", true),
            ("0.0.0.0:9002", "127.0.0.1:9002", false),
            ("[::]:9002", "[::1]:9002", false),
            ("10.0.0.5:9002", "10.0.0.5:9002", false),
            ("10.0.0.5:9002", "10.0.0.6:9002", true),
        ];
        for (own, to, expected) in cases {
            let to = to.parse().unwrap();
            assert_eq!(rule(own).allows(to), expected, "{own} {to}");
        }
        let (local, peer) = ("10.0.0.5:5000", "10.0.0.5:9002");
        let (local, peer) = (local.parse().unwrap(), peer.parse().unwrap());
        assert!(rule("0.0.0.0:9002").is_own_connection(local, peer));
        assert!(!rule("0.0.0.0:9003").is_own_connection(local, peer));
        assert!(!rule("10.0.0.7:9002").is_own_connection(local, peer));
    }
}
