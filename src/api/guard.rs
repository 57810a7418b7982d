//! Whose programs and pages may speak to the gateway: those of this machine.
//!
//! A page on the internet can make a browser send requests here. It cannot choose the `Host` it was loaded from (DNS
//! rebinding) nor hide its `Origin`, so both are checked. With users too: `POST /stream/sync` asks nobody for a password.

use std::net::SocketAddr;

use http::{HeaderMap, Method, header, request};

use super::{
    Settings,
    problem::{Code, Problem},
};

/// Whoever reached the listener could send messages, without users do anything, and with users hear their passwords.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} is not a loopback address; without TLS the gateway listens on 127.0.0.1 or [::1] only"
)]
pub struct ListenRefused(pub SocketAddr);

/// Checks that only this machine can reach a listener.
///
/// # Errors
/// [`ListenRefused`] for any address that is not loopback.
pub fn check_listen(address: SocketAddr) -> Result<(), ListenRefused> {
    match address.ip().to_canonical().is_loopback() {
        true => Ok(()),
        false => Err(ListenRefused(address)),
    }
}

/// Knows the names that this server has of itself; settings have more, and the origins that may send changes.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    own: Vec<String>,
}

impl Guard {
    pub(super) fn new(bound: SocketAddr) -> Self {
        let mut own = ["localhost", "127.0.0.1", "[::1]"]
            .map(String::from)
            .to_vec();
        own.push(match bound {
            SocketAddr::V4(bound) => bound.ip().to_string(),
            SocketAddr::V6(bound) => format!("[{}]", bound.ip()),
        });
        Self { own }
    }

    /// Refuses a `Host` that is not ours, and a foreign `Origin` on what changes something.
    pub(super) fn check(
        &self,
        settings: &Settings,
        request: &request::Parts,
    ) -> Result<(), Problem> {
        let host = host(request)?;
        if let Some(host) = host
            && !self.is_ours(settings, host)
        {
            return Err(Problem::new(
                Code::HostNotAllowed,
                "name the host in server.hosts if it is this server",
            ));
        }
        let safe = matches!(request.method, Method::GET | Method::HEAD | Method::OPTIONS);
        if safe && !request.headers.contains_key(header::UPGRADE) {
            return Ok(());
        }
        for origin in request.headers.get_all(header::ORIGIN) {
            let allowed = origin
                .to_str()
                .is_ok_and(|origin| may_change(settings, origin, host));
            if !allowed {
                return Err(Problem::new(
                    Code::OriginNotAllowed,
                    "name the origin in server.cors_origins if its pages may send changes",
                ));
            }
        }
        Ok(())
    }

    fn is_ours(&self, settings: &Settings, host: &str) -> bool {
        let name = without_port(host);
        let mut hosts = self.own.iter().chain(&settings.hosts);
        hosts.any(|ours| ours.eq_ignore_ascii_case(name))
    }
}

fn may_change(settings: &Settings, origin: &str, host: Option<&str>) -> bool {
    let place = ["http://", "https://"]
        .iter()
        .find_map(|scheme| origin.strip_prefix(scheme));
    let same = place
        .zip(host)
        .is_some_and(|(a, b)| a.eq_ignore_ascii_case(b));
    let mut origins = settings.cors_origins.iter();
    same || origins.any(|allowed| allowed.eq_ignore_ascii_case(origin))
}

/// Returns the host that the request is for. HTTP/1.0 may leave it out.
fn host(request: &request::Parts) -> Result<Option<&str>, Problem> {
    if let Some(authority) = request.uri.authority() {
        return Ok(Some(authority.as_str()));
    }
    let wrong = |what: &str| Problem::new(Code::InvalidRequest, what);
    let Some(host) = one(&request.headers, &header::HOST)
        .map_err(|()| wrong("the request has more than one Host header"))?
    else {
        return match request.version < http::Version::HTTP_11 {
            true => Ok(None),
            false => Err(wrong("the request has no Host header")),
        };
    };
    let host = host
        .to_str()
        .map_err(|_| wrong("the Host header is not readable"))?;
    Ok(Some(host))
}

fn without_port(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.find(']')) {
        Some(end) => &host[..end + 2],
        None => host.split_once(':').map_or(host, |(name, _)| name),
    }
}

/// Returns the only value of a header, if it is there; an error if it is there twice.
pub(super) fn one<'a>(
    headers: &'a HeaderMap,
    name: &header::HeaderName,
) -> Result<Option<&'a http::HeaderValue>, ()> {
    let mut all = headers.get_all(name).iter();
    match (all.next(), all.next()) {
        (first, None) => Ok(first),
        (_, Some(_)) => Err(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[track_caller]
    fn check(method: &str, headers: &[(&str, &str)], expected: Result<(), Code>) {
        let mut config = Config::default();
        config.server.hosts = vec!["gate.example".into()];
        config.server.cors_origins = vec!["https://console.example".into()];
        let settings = Settings::new(&config).unwrap();
        let guard = Guard::new(SocketAddr::from(([127, 0, 0, 7], 9002)));
        let mut request = http::Request::builder().method(method).uri("/x");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let checked = guard
            .check(&settings, &parts)
            .map_err(|problem| problem.code());
        assert_eq!(checked, expected, "{method} {headers:?}");
    }

    #[test]
    fn only_our_own_names_are_hosts() {
        for ours in [
            "localhost",
            "LocalHost:9002",
            "127.0.0.1:1",
            "[::1]:9002",
            "127.0.0.7",
            "gate.example",
        ] {
            check("GET", &[("host", ours)], Ok(()));
        }
        for foreign in [
            "evil.example",
            "localhost.evil.example:9002",
            "127.0.0.1.evil.example",
            "[::2]",
            "",
            "[::1",
            "10.0.0.1",
        ] {
            check("GET", &[("host", foreign)], Err(Code::HostNotAllowed));
        }
        check("GET", &[], Err(Code::InvalidRequest));
        let twice = [("host", "localhost"), ("host", "evil.example")];
        check("GET", &twice, Err(Code::InvalidRequest));
    }

    #[test]
    fn a_foreign_origin_may_look_and_not_change() {
        let with = |origin| [("host", "localhost:9002"), ("origin", origin)];
        check("GET", &with("https://evil.example"), Ok(()));
        check(
            "POST",
            &with("https://evil.example"),
            Err(Code::OriginNotAllowed),
        );
        check("DELETE", &with("null"), Err(Code::OriginNotAllowed));
        check(
            "POST",
            &with("http://localhost:1"),
            Err(Code::OriginNotAllowed),
        );
        check("POST", &with("http://localhost:9002"), Ok(()));
        check("PATCH", &with("https://console.example"), Ok(()));
        let upgrade = [
            ("host", "localhost"),
            ("origin", "https://evil.example"),
            ("upgrade", "websocket"),
        ];
        check("GET", &upgrade, Err(Code::OriginNotAllowed));
        check("POST", &[("host", "localhost")], Ok(()));
    }

    #[test]
    fn only_loopback_may_listen() {
        for (address, allowed) in [
            ("127.0.0.1:9002", true),
            ("[::1]:0", true),
            ("127.9.9.9:1", true),
            ("0.0.0.0:9002", false),
            ("[::]:9002", false),
            ("192.168.0.1:1", false),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(check_listen(address).is_ok(), allowed, "{address}");
        }
    }
}
