//! Only programs and pages of this machine, or of configured origins, may send requests.
//!
//! A page on the internet can make a browser send requests to the gateway. It cannot forge the `Host` that it was loaded
//! from (DNS rebinding), nor `Origin` or `Sec-Fetch-Site`, so the guard checks all three. It does so with users too, because
//! `POST /stream/sync` needs no password.

use std::net::SocketAddr;

use http::{HeaderMap, HeaderName, Version, header, request, uri::Authority};

use crate::api::{
    Settings, admin, data_streams,
    problem::{Code, Problem},
    server::is_safe,
};

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A listener that other machines can reach. They could send messages, do everything in open mode, and read passwords.
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

/// Checks `Host` and origin of requests. It has the local names of this server; settings add names and origins.
#[derive(Clone, Debug)]
pub(in crate::api) struct Guard {
    own: Vec<String>,
}

impl Guard {
    pub(in crate::api) fn new(bound: SocketAddr) -> Self {
        let mut own = ["localhost", "127.0.0.1", "[::1]"]
            .map(String::from)
            .to_vec();
        own.push(match bound {
            SocketAddr::V4(bound) => bound.ip().to_string(),
            SocketAddr::V6(bound) => format!("[{}]", bound.ip()),
        });
        Self { own }
    }

    /// Refuses an unknown `Host`, and a request of a foreign page that changes something.
    ///
    /// Health, readiness and public metrics answer under any name, because a prober knows only an address.
    pub(in crate::api) fn check(
        &self,
        settings: &Settings,
        request: &request::Parts,
    ) -> Result<(), Problem> {
        let named = [
            request.uri.authority().map(Authority::as_str),
            host_header(request)?,
        ];
        let foreign = |host: &&str| !self.is_ours(settings, host);
        let is_for_all = admin::is_for_any_host(settings, request.uri.path());
        if named.iter().flatten().any(foreign) && !is_for_all {
            return Err(Problem::new(
                Code::HostNotAllowed,
                "name the host in server.hosts if it is this server",
            ));
        }
        match !changes(request) || is_ours_or_allowed(settings, request, named) {
            true => Ok(()),
            false => Err(Problem::new(
                Code::OriginNotAllowed,
                "name the origin in server.cors_origins if its pages may do this",
            )),
        }
    }

    fn is_ours(&self, settings: &Settings, host: &str) -> bool {
        let Some(name) = without_port(host) else {
            return false;
        };
        let mut hosts = self.own.iter().chain(&settings.hosts);
        hosts.any(|ours| ours.eq_ignore_ascii_case(name))
    }
}

/// Returns whether a request changes something. A subscriber does too, although it uses GET: it moves a cursor, or takes it
/// over from another subscriber.
fn changes(request: &request::Parts) -> bool {
    let headers = &request.headers;
    // HTTP/1.0 has no `Upgrade`.
    let upgrades = request.version >= Version::HTTP_11 && headers.contains_key(header::UPGRADE);
    let reads_on = upgrades || data_streams::wants_events(headers);
    !is_safe(&request.method) || reads_on
}

/// Returns whether a request comes from our own page, from a page of a configured origin, or from no page.
///
/// Browsers send `Origin` if a page can read the answer or uses a method that changes something. Some GETs come without
/// it; then `Sec-Fetch-Site` says whether page and server have the same origin.
fn is_ours_or_allowed(
    settings: &Settings,
    request: &request::Parts,
    hosts: [Option<&str>; 2],
) -> bool {
    let mut origins = request.headers.get_all(header::ORIGIN).iter().peekable();
    if origins.peek().is_some() {
        let host = hosts.into_iter().flatten().next();
        return origins.all(|origin| {
            let origin = origin.to_str();
            origin.is_ok_and(|origin| may_change(settings, origin, host))
        });
    }
    let mut sites = request.headers.get_all(FETCH_SITE).iter();
    sites.all(|site| matches!(site.as_bytes(), b"same-origin" | b"none"))
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

/// Returns the `Host` header. HTTP/1.0 may leave it out, and so may a request whose target names the host.
fn host_header(request: &request::Parts) -> Result<Option<&str>, Problem> {
    let wrong = |what: &str| Problem::new(Code::InvalidRequest, what);
    let Some(host) = one(&request.headers, &header::HOST)
        .map_err(|()| wrong("the request has more than one Host header"))?
    else {
        let may_lack = request.version < Version::HTTP_11 || request.uri.authority().is_some();
        return match may_lack {
            true => Ok(None),
            false => Err(wrong("the request has no Host header")),
        };
    };
    let host = host
        .to_str()
        .map_err(|_| wrong("the Host header is not readable"))?;
    Ok(Some(host))
}

/// Returns the name in `NAME` or `NAME:PORT`; `None` if there is anything else.
fn without_port(host: &str) -> Option<&str> {
    let end = match host.strip_prefix('[') {
        Some(rest) => rest.find(']')? + 2,
        None => host.find(':').unwrap_or(host.len()),
    };
    let (name, rest) = host.split_at(end);
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let is_whole = rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
    is_whole.then_some(name)
}

/// Returns the only value of a header, if present.
///
/// # Errors
/// The header is there more than once.
pub(in crate::api) fn one<'a>(
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
        check_at("/x", method, headers, expected);
    }

    #[track_caller]
    fn check_at(uri: &str, method: &str, headers: &[(&str, &str)], expected: Result<(), Code>) {
        let mut config = Config::default();
        config.server.hosts = vec!["gate.example".into()];
        config.server.cors_origins = vec!["https://console.example".into()];
        let settings = Settings::new(&config).unwrap();
        let guard = Guard::new(SocketAddr::from(([127, 0, 0, 7], 9002)));
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let checked = guard
            .check(&settings, &parts)
            .map_err(|problem| problem.code());
        assert_eq!(checked, expected, "{method} {uri} {headers:?}");
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
            "localhost:",
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
            // Only a port may follow the name.
            "localhost:x@evil.example",
            "localhost:80:evil.example",
            "[::1]evil.example",
            "[::1]:80.evil.example",
            "localhost/evil",
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
    fn the_absolute_form_names_a_host_too_and_both_are_ours() {
        let (ours, foreign) = ([("host", "localhost")], [("host", "evil.example")]);
        check_at("http://localhost:9002/x", "GET", &ours, Ok(()));
        check_at("http://localhost:9002/x", "GET", &[], Ok(()));
        let refused = Err(Code::HostNotAllowed);
        check_at("http://evil.example/x", "GET", &ours, refused);
        check_at("http://localhost/x", "GET", &foreign, refused);
        check_at("http://localhost:x@evil.example/x", "GET", &ours, refused);
        for probe in ["/healthz", "/readyz"] {
            check_at(probe, "GET", &foreign, Ok(()));
            let twice = [("host", "a"), ("host", "b")];
            check_at(probe, "GET", &twice, Err(Code::InvalidRequest));
        }
        check_at("/healthz/x", "GET", &foreign, refused);
        check_at("/metrics", "GET", &foreign, refused);
    }

    #[test]
    fn public_metrics_are_scraped_under_any_name() {
        let mut config = Config::default();
        config.metrics.public = true;
        let settings = Settings::new(&config).unwrap();
        let guard = Guard::new(SocketAddr::from(([127, 0, 0, 1], 9002)));
        for (path, is_let_in) in [("/metrics", true), ("/metrics/x", false), ("/v1", false)] {
            let request = http::Request::builder().uri(path);
            let request = request.header("host", "10.1.2.3:9002").body(()).unwrap();
            let checked = guard.check(&settings, &request.into_parts().0);
            assert_eq!(checked.is_ok(), is_let_in, "{path}");
        }
    }

    #[test]
    fn a_foreign_page_may_not_read_on_whatever_tells_of_it() {
        let accepts = ("accept", "text/html, Text/Event-Stream;q=0.9");
        let with = |name, value| [("host", "localhost:9002"), accepts, (name, value)];
        let refused = Err(Code::OriginNotAllowed);
        check("GET", &with("origin", "https://evil.example"), refused);
        check("GET", &with("origin", "https://console.example"), Ok(()));
        check("GET", &with("origin", "http://localhost:9002"), Ok(()));
        for (site, expected) in [
            ("cross-site", refused),
            ("same-site", refused),
            ("anything", refused),
            ("same-origin", Ok(())),
            ("none", Ok(())),
        ] {
            check("GET", &with("sec-fetch-site", site), expected);
            let posts = [("host", "localhost"), ("sec-fetch-site", site)];
            check("POST", &posts, expected);
            check("GET", &posts, Ok(()));
        }
        // The origin is what counts where there is one.
        let allowed = [
            ("host", "localhost"),
            ("origin", "https://console.example"),
            ("sec-fetch-site", "cross-site"),
        ];
        check("POST", &allowed, Ok(()));
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
