//! The addresses that dispatch may call. Pure.
//!
//! Dispatch checks them after DNS at each connect, because a host name can resolve to any address. An IPv4 address inside an
//! IPv6 address is judged as the IPv4 address.
//!
//! The ranges are those of IANA's IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890); each names its RFC. Some
//! addresses outside of them are added, because clouds serve credentials there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The addresses that the settings allow.
#[derive(Clone, Debug)]
pub(crate) struct AddressRule {
    /// May targets have private addresses?
    pub(crate) private: bool,
    /// May targets be on this machine?
    pub(crate) loopback: bool,
    /// Addresses at which the gateway listens. A call to one of them could send messages in a loop.
    pub(crate) own: Vec<SocketAddr>,
}

/// Kinds of addresses that the rule distinguishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Public,
    /// An address of a private network; its owner may allow it.
    Private,
    Loopback,
    /// Link-local, metadata of clouds, and addresses of no API: unspecified, multicast, broadcast, documentation, reserved.
    Never,
}

/// Why an address may not be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forbidden {
    /// The address belongs to a private network.
    Private,
    /// The address belongs to this machine.
    Loopback,
    /// The address is link-local, the metadata service of a cloud, or reserved.
    Never,
    /// The gateway itself listens there.
    Own,
}

impl Forbidden {
    /// All reasons. Journals hold indexes into this list, so its order never changes.
    pub(crate) const ALL: [Self; 4] = [Self::Private, Self::Loopback, Self::Never, Self::Own];

    /// Says what would allow it.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Private => "dispatch.private_addresses = true would allow it",
            Self::Loopback => "dispatch.loopback_addresses = true would allow it",
            Self::Never => "no setting allows link-local, metadata and reserved addresses",
            Self::Own => "the gateway itself listens there",
        }
    }
}

impl AddressRule {
    /// Makes the rule of a gateway that listens at `listen`.
    ///
    /// Without a setting, loopback is allowed exactly if the gateway itself listens on loopback only.
    pub(crate) fn new(private: bool, loopback: Option<bool>, listen: &[SocketAddr]) -> Self {
        let is_local = listen.iter().all(|own| own.ip().is_loopback());
        Self {
            private,
            loopback: loopback.unwrap_or(is_local),
            own: listen.into(),
        }
    }

    /// Returns whether a call may go to `to`.
    #[cfg(test)]
    pub(crate) fn allows(&self, to: SocketAddr) -> bool {
        self.forbids(to).is_none()
    }

    /// Returns why no call may go to `to`; `None` if one may.
    pub(crate) fn forbids(&self, to: SocketAddr) -> Option<Forbidden> {
        ends(to.ip()).into_iter().find_map(|ip| match kind(ip) {
            Kind::Never => Some(Forbidden::Never),
            _ if self.is_own(ip, to.port()) => Some(Forbidden::Own),
            Kind::Private if !self.private => Some(Forbidden::Private),
            Kind::Loopback if !self.loopback => Some(Forbidden::Loopback),
            Kind::Public | Kind::Private | Kind::Loopback => None,
        })
    }

    /// Returns whether an established connection leads to the gateway itself. A listener that is bound to every address of
    /// this machine can be recognised only after the connect.
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

/// Returns the addresses that a packet to `ip` may reach. Teredo has two; of every other address both are the same.
fn ends(ip: IpAddr) -> [IpAddr; 2] {
    if let IpAddr::V6(v6) = ip
        && let [0x2001, 0, server_high, server_low, _, _, high, low] = v6.segments()
    {
        // Teredo (RFC 4380 §4): the server that helps, and the client with all bits inverted.
        return [v4(server_high, server_low), v4(!high, !low)];
    }
    [inner(ip); 2]
}

/// Returns the IPv4 address inside an IPv6 one, else the address itself.
fn inner(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    match v6.segments() {
        // Mapped (RFC 4291 §2.5.5.2), and translated (RFC 2765 §2.1).
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => v4(high, low),
        // The loopback address would be a compatible one.
        [0, 0, 0, 0, 0, 0, 0, 1] => ip,
        // Compatible (RFC 4291 §2.5.5.1), the unspecified address too.
        [0, 0, 0, 0, 0, 0, high, low] => v4(high, low),
        // The well-known prefix of NAT64 (RFC 6052 §2.1).
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        // 6to4 (RFC 3056 §2).
        [0x2002, high, low, ..] => v4(high, low),
        _ => ip,
    }
}

fn v4(high: u16, low: u16) -> IpAddr {
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

fn kind(ip: IpAddr) -> Kind {
    match ip {
        IpAddr::V4(v4) => kind_v4(v4),
        IpAddr::V6(v6) => kind_v6(v6),
    }
}

/// 192.0.0.0/24 is never a target, also where the registry calls parts of it globally reachable: they are anycast services
/// of the local network. The sinks of AS112 and the relays of AMT are ordinary public addresses.
fn kind_v4(ip: Ipv4Addr) -> Kind {
    match ip.octets() {
        // "This network" (RFC 791 §3.2), link-local (RFC 3927) with the metadata service of most clouds.
        [0, ..] | [169, 254, ..] => Kind::Never,
        // Metadata services outside the link-local range: Alibaba, Azure. Oracle's 192.0.0.192 is in the next range.
        [100, 100, 100, 200] | [168, 63, 129, 16] => Kind::Never,
        // IETF protocol assignments (RFC 6890 §2.1), the retired anycast of 6to4 relays (RFC 7526).
        [192, 0, 0, _] | [192, 88, 99, _] => Kind::Never,
        // Documentation (RFC 5737).
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Kind::Never,
        // Multicast (RFC 5771), reserved (RFC 1112 §4), broadcast (RFC 919 §7).
        [224..=255, ..] => Kind::Never,
        [127, ..] => Kind::Loopback,
        // RFC 1918.
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Kind::Private,
        // Shared address space (RFC 6598), benchmarks of networks (RFC 2544, appendix C.2.2).
        [100, 64..=127, ..] | [198, 18..=19, ..] => Kind::Private,
        _ => Kind::Public,
    }
}

/// Global unicast is 2000::/3 (RFC 4291 §2.4), so what is outside and not named here is never called. That covers
/// multicast (ff00::/8), link-local (fe80::/10), discard-only and dummy prefixes (100::/64, RFC 6666;
/// 100:0:0:1::/64, RFC 9780), segment identifiers (5f00::/16, RFC 9602), and NAT64 of one's own (64:ff9b:1::/48,
/// RFC 8215): its addresses do not say where they hold the IPv4 address.
fn kind_v6(ip: Ipv6Addr) -> Kind {
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => Kind::Loopback,
        _ if is_metadata(ip) => Kind::Never,
        // Unique local (RFC 4193), and the site-local range that came before it (RFC 3879).
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Kind::Private,
        // IETF protocol assignments (RFC 2928): benchmarks, anycast, identifiers that are no place (ORCHID, DRIP).
        [0x2001, 0..=0x1ff, ..] => Kind::Never,
        // Documentation (RFC 3849, RFC 9637).
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Kind::Never,
        [0x2000..=0x3fff, ..] => Kind::Public,
        _ => Kind::Never,
    }
}

/// Clouds put their metadata services into the unique local range.
fn is_metadata(ip: Ipv6Addr) -> bool {
    match ip.segments() {
        // Amazon: the whole range is theirs (metadata ::254, credentials of pods ::23).
        [0xfd00, 0xec2, ..] => true,
        // Google, Oracle, Scaleway, Linode, Alibaba.
        [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254]
        | [0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe]
        | [0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42]
        | [0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1]
        | [0xfd00, 0x100, 0, 0, 0, 0, 0x100, 0x200] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(ip: &str, expected: Kind) {
        for (private, loopback) in [(false, false), (false, true), (true, false), (true, true)] {
            let rule = AddressRule {
                private,
                loopback,
                own: Vec::new(),
            };
            let expected = match expected {
                Kind::Public => true,
                Kind::Private => private,
                Kind::Loopback => loopback,
                Kind::Never => false,
            };
            let to = SocketAddr::new(ip.parse().unwrap(), 80);
            assert_eq!(rule.allows(to), expected, "{ip} {private} {loopback}");
        }
    }

    /// The first and last address of each range; the ranges cover all of IPv4.
    #[test]
    fn each_range_of_ipv4_has_its_kind_up_to_its_ends() {
        use Kind::{Loopback, Never, Private, Public};
        let ranges = [
            ("0.0.0.0", "0.255.255.255", Never),
            ("1.0.0.0", "9.255.255.255", Public),
            ("10.0.0.0", "10.255.255.255", Private),
            ("11.0.0.0", "100.63.255.255", Public),
            ("100.64.0.0", "100.100.100.199", Private),
            ("100.100.100.200", "100.100.100.200", Never),
            ("100.100.100.201", "100.127.255.255", Private),
            ("100.128.0.0", "126.255.255.255", Public),
            ("127.0.0.0", "127.255.255.255", Loopback),
            ("128.0.0.0", "168.63.129.15", Public),
            ("168.63.129.16", "168.63.129.16", Never),
            ("168.63.129.17", "169.253.255.255", Public),
            ("169.254.0.0", "169.254.255.255", Never),
            ("169.255.0.0", "172.15.255.255", Public),
            ("172.16.0.0", "172.31.255.255", Private),
            ("172.32.0.0", "191.255.255.255", Public),
            ("192.0.0.0", "192.0.0.255", Never),
            ("192.0.1.0", "192.0.1.255", Public),
            ("192.0.2.0", "192.0.2.255", Never),
            ("192.0.3.0", "192.88.98.255", Public),
            ("192.88.99.0", "192.88.99.255", Never),
            ("192.88.100.0", "192.167.255.255", Public),
            ("192.168.0.0", "192.168.255.255", Private),
            ("192.169.0.0", "198.17.255.255", Public),
            ("198.18.0.0", "198.19.255.255", Private),
            ("198.20.0.0", "198.51.99.255", Public),
            ("198.51.100.0", "198.51.100.255", Never),
            ("198.51.101.0", "203.0.112.255", Public),
            ("203.0.113.0", "203.0.113.255", Never),
            ("203.0.114.0", "223.255.255.255", Public),
            ("224.0.0.0", "255.255.255.255", Never),
        ];
        let number = |ip: &str| u32::from(ip.parse::<Ipv4Addr>().unwrap());
        let mut next = Some(0);
        for (first, last, kind) in ranges {
            assert_eq!(Some(number(first)), next, "a gap before {first}");
            next = number(last).checked_add(1);
            check(first, kind);
            check(last, kind);
        }
        assert_eq!(next, None, "the end is not covered");
    }

    #[test]
    fn each_range_of_ipv6_has_its_kind_up_to_its_ends() {
        use Kind::{Loopback, Never, Private, Public};
        for (first, prefix_len, kind) in [
            ("::", 128, Never),
            ("::1", 128, Loopback),
            ("::2", 127, Never),
            ("0:0:0:1::", 64, Never),
            ("64:ff9b:0:1::", 64, Never),
            ("64:ff9b:1::", 48, Never),
            ("64:ff9b:1::808:808", 128, Never),
            ("64:ff9b:2::808:808", 128, Never),
            ("100::", 64, Never),
            ("100:0:0:1::", 64, Never),
            ("200::", 7, Never),
            ("400::", 6, Never),
            ("1000::", 4, Never),
            ("2000::", 16, Public),
            ("2001:1::1", 128, Never),
            ("2001:1::2", 127, Never),
            ("2001:2::", 48, Never),
            ("2001:3::", 32, Never),
            ("2001:4:112::", 48, Never),
            ("2001:10::", 28, Never),
            ("2001:20::", 28, Never),
            ("2001:30::", 28, Never),
            ("2001:100::", 24, Never),
            ("2001:200::", 23, Public),
            ("2001:db7::", 32, Public),
            ("2001:db8::", 32, Never),
            ("2001:db9::", 32, Public),
            ("2001:8000::", 17, Public),
            ("2003::", 16, Public),
            ("2400::", 6, Public),
            ("2620:4f:8000::", 48, Public),
            ("3ffe::", 16, Public),
            ("3fff::", 20, Never),
            ("3fff:1000::", 20, Public),
            ("4000::", 3, Never),
            ("5f00::", 16, Never),
            ("6000::", 3, Never),
            ("8000::", 2, Never),
            ("f800::", 6, Never),
            ("fc00::", 8, Private),
            ("fd00::", 32, Private),
            ("fd12::", 16, Private),
            ("fdff::", 16, Private),
            ("fe00::", 9, Never),
            ("fe80::", 10, Never),
            ("fec0::", 10, Private),
            ("ff00::", 8, Never),
            ("fd00:ec2::", 32, Never),
            ("fd00:ec2::254", 128, Never),
            ("fd20:ce::253", 128, Private),
            ("fd20:ce::254", 128, Never),
            ("fd00:c1::a9fe:a9fe", 128, Never),
            ("fd00:42::42", 128, Never),
            ("fd00:a9fe:a9fe::1", 128, Never),
            ("fd00:100::100:200", 128, Never),
        ] {
            check(first, kind);
            let host_bits = u128::MAX.checked_shr(prefix_len).unwrap_or(0);
            let last = first.parse::<Ipv6Addr>().unwrap().to_bits() | host_bits;
            check(&Ipv6Addr::from_bits(last).to_string(), kind);
        }
    }

    #[test]
    fn an_ipv4_address_inside_an_ipv6_one_is_judged_as_itself() {
        use Kind::{Loopback, Never, Private, Public};
        let inside = [
            ("8.8.8.8", "808:808", Public),
            ("10.0.0.1", "a00:1", Private),
            ("100.64.0.1", "6440:1", Private),
            ("198.18.0.1", "c612:1", Private),
            ("127.0.0.1", "7f00:1", Loopback),
            ("169.254.169.254", "a9fe:a9fe", Never),
            ("192.0.0.192", "c000:c0", Never),
            ("203.0.113.9", "cb00:7109", Never),
            ("224.0.0.1", "e000:1", Never),
            ("240.0.0.1", "f000:1", Never),
            ("0.0.0.0", "0:0", Never),
        ];
        for (dotted, hex, kind) in inside {
            for prefix in [
                "::ffff:",
                "::FFFF:",
                "0:0:0:0:0:ffff:",
                "0000:0000:0000:0000:0000:ffff:",
                "::ffff:0:",
                "64:ff9b::",
                "0064:ff9b:0:0:0:0:",
                "::",
            ] {
                check(&format!("{prefix}{dotted}"), kind);
                check(&format!("{prefix}{hex}"), kind);
            }
            check(&format!("2002:{hex}::1"), kind);
            check(&format!("2002:{hex}:ffff:ffff:ffff:ffff:ffff"), kind);
            // Teredo: 8.8.8.8 as the other of the two.
            let [high, low] = [0, 1].map(|at| {
                let half = hex.split(':').nth(at).unwrap();
                !u16::from_str_radix(half, 16).unwrap()
            });
            check(&format!("2001:0:808:808::{high:x}:{low:x}"), kind);
            check(&format!("2001:0:{hex}:0:0:f7f7:f7f7"), kind);
        }
    }

    #[test]
    fn the_gateway_never_calls_itself() {
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
