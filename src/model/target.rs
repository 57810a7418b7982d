//! The URL of a target, and its origin. Pure.
//!
//! Parsing a URL by the WHATWG standard takes as long as reading the rest of a message. Most URLs have one of few origins and
//! a plain path. So each thread caches the origins it has parsed, and takes a path unchanged if the standard would not
//! change it. Every other URL is parsed in full, with the same result.

use std::{
    cell::RefCell,
    collections::HashMap,
    fmt,
    hash::{Hash, Hasher},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use bytes::Bytes;
use http::{HeaderValue, uri::PathAndQuery};
use url::{Host, Position, Url};

/// Longest URL of a target, in bytes; most servers accept this much.
pub const URL_BYTES_MAX: usize = 8 << 10;
/// Origins in the cache of a thread. A full cache is cleared.
const KNOWN_LEN_MAX: usize = 1024;
/// A longer origin is not cached.
const KNOWN_BYTES_MAX: usize = 300;

/// Scheme, host and port of a target. Secrets are bound to it, and by default it is the identity of a target.
///
/// Its text is `https://orders.example:443`, always with the port. Clones share it.
#[derive(Clone)]
pub struct Origin(Arc<OriginParts>);

#[derive(Debug)]
struct OriginParts {
    https: bool,
    host: String,
    /// The address, if the host needs no look-up.
    address: Option<IpAddr>,
    port: u16,
    /// The whole origin; different origins have different texts.
    text: String,
}

/// Why a URL cannot be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlInvalid {
    /// The text is not a URL.
    #[error("it is not a URL ({0})")]
    Malformed(#[from] url::ParseError),
    /// The scheme is neither http nor https.
    #[error("the scheme is neither http nor https")]
    Scheme,
    /// The URL has no host, or one that HTTP cannot carry.
    #[error("the URL has no host that can be called")]
    Host,
    /// The URL has a name or password, which would end up in logs and error records.
    #[error("the URL holds a user name or password; use vaultSecretName")]
    Credentials,
    /// There is more than an origin.
    #[error("there is more than scheme, host and port")]
    NotBare,
    /// HTTP cannot carry the path.
    #[error("the URL has a path that HTTP cannot carry")]
    Path,
}

impl Origin {
    /// Returns the origin of a URL.
    ///
    /// # Errors
    /// [`UrlInvalid`] says what is wrong with it.
    pub fn of(text: &str) -> Result<Self, UrlInvalid> {
        match known(text) {
            Some((known, _path)) => Ok(known.origin),
            None => Known::read(&Url::parse(text)?).map(|known| known.origin),
        }
    }

    /// Reads a URL that has only an origin, or a `/` after it.
    ///
    /// # Errors
    /// As for [`Origin::of`], and [`UrlInvalid::NotBare`].
    pub fn bare(text: &str) -> Result<Self, UrlInvalid> {
        let url = Url::parse(text)?;
        let known = Known::read(&url)?;
        match (url.path(), url.query(), url.fragment()) {
            ("/", None, None) => Ok(known.origin),
            _ => Err(UrlInvalid::NotBare),
        }
    }

    /// Returns whether calls go over TLS.
    #[must_use]
    pub fn https(&self) -> bool {
        self.0.https
    }

    /// Returns the host: a name in lower case, or an address; IPv6 without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.0.host
    }

    /// Returns the address, if the host needs no look-up: an address, or `localhost` (loopback, RFC 6761 §6.3).
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.0.address
    }

    /// Returns the port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// Returns the origin as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0.text
    }
}

impl PartialEq for Origin {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.text == other.0.text
    }
}

impl Eq for Origin {}

impl Hash for Origin {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.text.hash(state);
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

/// The URL of a target, in the parts of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetUrl {
    /// The server to call.
    pub origin: Origin,
    /// Value of `Host`. It has no port if that is the default of the scheme, because servers compare it as text.
    pub authority: HeaderValue,
    /// Path and query; the fragment is not sent.
    pub path: PathAndQuery,
}

impl TargetUrl {
    /// Reads a URL. The path shares the memory of `whole` if `text` is a slice of it.
    ///
    /// # Errors
    /// [`UrlInvalid`] says what is wrong with it.
    pub fn read(text: &str, whole: &Bytes) -> Result<Self, UrlInvalid> {
        let (Known { origin, authority }, path) = match known(text) {
            Some((known, "")) => (known, Ok(PathAndQuery::from_static("/"))),
            Some((known, path)) => (known, PathAndQuery::from_maybe_shared(part(path, whole))),
            None => {
                let url = Url::parse(text)?;
                let path = url[Position::BeforePath..Position::AfterQuery].parse();
                (Known::read(&url)?, path)
            }
        };
        Ok(Self {
            origin,
            authority,
            path: path.map_err(|_| UrlInvalid::Path)?,
        })
    }
}

/// Returns `text` as a slice of `whole` if it is one, else as a copy.
pub(crate) fn part(text: &str, whole: &Bytes) -> Bytes {
    let (text_at, whole_at) = (text.as_ptr() as usize, whole.as_ptr() as usize);
    if whole_at <= text_at && text_at + text.len() <= whole_at + whole.len() {
        whole.slice_ref(text.as_bytes())
    } else {
        Bytes::copy_from_slice(text.as_bytes())
    }
}

/// The part of a URL before its path.
#[derive(Clone)]
struct Known {
    origin: Origin,
    authority: HeaderValue,
}

impl Known {
    fn read(url: &Url) -> Result<Self, UrlInvalid> {
        let https = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(UrlInvalid::Scheme),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(UrlInvalid::Credentials);
        }
        let (host, address) = match url.host().ok_or(UrlInvalid::Host)? {
            Host::Domain(name) => {
                let is_loopback = name == "localhost" || name.ends_with(".localhost");
                let address = is_loopback.then_some(IpAddr::V4(Ipv4Addr::LOCALHOST));
                (name.to_owned(), address)
            }
            Host::Ipv4(address) => (address.to_string(), Some(address.into())),
            Host::Ipv6(address) => (address.to_string(), Some(address.into())),
        };
        let port = url.port_or_known_default().ok_or(UrlInvalid::Host)?;
        // An IPv6 address has its brackets here.
        let shown = url.host_str().unwrap_or_default();
        let authority = match url.port() {
            Some(port) => HeaderValue::from_str(&format!("{shown}:{port}")),
            None => HeaderValue::from_str(shown),
        };
        let scheme = url.scheme();
        Ok(Self {
            origin: Origin(Arc::new(OriginParts {
                https,
                text: format!("{scheme}://{shown}:{port}"),
                host,
                address,
                port,
            })),
            authority: authority.map_err(|_| UrlInvalid::Host)?,
        })
    }
}

/// The cache of a thread, by the text before the path.
#[derive(Default)]
struct Remembered {
    all: HashMap<Arc<str>, Known>,
    /// The last result, which mostly is the next one too.
    last: Option<(Arc<str>, Known)>,
}

impl Remembered {
    fn find(&mut self, before: &str) -> Option<Known> {
        if let Some((text, known)) = &self.last
            && **text == *before
        {
            return Some(known.clone());
        }
        let (text, known) = self.all.get_key_value(before)?;
        self.last = Some((text.clone(), known.clone()));
        Some(known.clone())
    }

    fn keep(&mut self, before: &str, known: &Known) {
        if before.len() > KNOWN_BYTES_MAX {
            return;
        }
        if self.all.len() >= KNOWN_LEN_MAX {
            self.all.clear();
        }
        self.all.insert(before.into(), known.clone());
    }
}

thread_local! {
    static KNOWN: RefCell<Remembered> = RefCell::default();
}

/// Returns the origin of a URL with a plain path, and the path; `None` if the URL must be parsed in full.
fn known(text: &str) -> Option<(Known, &str)> {
    let (before, path) = split_plain(text)?;
    KNOWN.with_borrow_mut(|remembered| {
        if let Some(known) = remembered.find(before) {
            return Some((known, path));
        }
        let known = Known::read(&Url::parse(before).ok()?).ok()?;
        remembered.keep(before, &known);
        Some((known, path))
    })
}

/// Splits a URL before its path; `None` if the standard would change the path: by encoding, or by removing `.`, `..` or a
/// fragment.
fn split_plain(text: &str) -> Option<(&str, &str)> {
    let scheme_len = ["http://", "https://"]
        .iter()
        .find(|scheme| text.starts_with(**scheme))?
        .len();
    let in_authority =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']');
    let mut rest = text.bytes().skip(scheme_len);
    let path_at = rest
        .position(|byte| !in_authority(byte))
        .map_or(text.len(), |at| scheme_len + at);
    let (before, path) = text.split_at(path_at);
    if !path.is_empty() && !path.starts_with('/') {
        return None;
    }
    let mut last = 0;
    for byte in path.bytes() {
        if !PLAIN[usize::from(byte)] || (last == b'/' && byte == b'.') {
            return None;
        }
        last = byte;
    }
    Some((before, path))
}

/// Bytes that neither path nor query ever encode, and that mean nothing there but themselves (`%` may spell a dot).
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let listed =
        b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/?=&+,:;@!$()*";
    let mut at = 0;
    while at < listed.len() {
        plain[listed[at] as usize] = true;
        at += 1;
    }
    plain
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check_origin(url: &str, expected: Result<&str, UrlInvalid>) {
        let origin = Origin::of(url).map(|origin| origin.to_string());
        assert_eq!(origin, expected.map(Into::into), "{url}");
    }

    #[test]
    fn origins_are_scheme_host_and_port() {
        check_origin("https://API.Example/x?y", Ok("https://api.example:443"));
        check_origin("http://127.0.0.1:8080/", Ok("http://127.0.0.1:8080"));
        check_origin("http://[::1]:81", Ok("http://[::1]:81"));
        check_origin("ftp://a/", Err(UrlInvalid::Scheme));
        check_origin("http://u:p@a/", Err(UrlInvalid::Credentials));
        check_origin("http:///", Err(url::ParseError::EmptyHost.into()));
    }

    #[test]
    fn an_address_is_known_of_hosts_that_need_no_look_up() {
        for (url, expected) in [
            ("http://10.0.0.1/x", Some("10.0.0.1")),
            ("http://0x7f.1/", Some("127.0.0.1")),
            ("http://[fd00::1]:81", Some("fd00::1")),
            ("https://LocalHost", Some("127.0.0.1")),
            ("https://a.localhost", Some("127.0.0.1")),
            ("https://localhost.example", None),
            ("https://orders.example", None),
        ] {
            let address = Origin::of(url).unwrap().address();
            assert_eq!(address, expected.map(|ip| ip.parse().unwrap()), "{url}");
        }
    }

    #[test]
    fn the_path_shares_the_memory_of_the_message() {
        let whole = Bytes::from_static(br#"{"targetRestApi":"http://a:81/b?c=d"}"#);
        let text = std::str::from_utf8(&whole[18..35]).unwrap();
        let read = TargetUrl::read(text, &whole).unwrap();
        assert_eq!(
            (read.path.as_str(), &read.authority),
            ("/b?c=d", &HeaderValue::from_static("a:81"))
        );
        assert_eq!(read.path.as_str().as_ptr(), whole[29..].as_ptr());
        let elsewhere = TargetUrl::read("http://a:81/b?c=d", &whole).unwrap();
        assert_eq!(elsewhere, read);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        for port in 1..=5_000 {
            let url = format!("http://a:{port}/");
            assert_eq!(Origin::of(&url).unwrap().port(), port);
        }
        assert!(KNOWN.with_borrow(|known| known.all.len()) <= KNOWN_LEN_MAX);
    }

    /// Reads a URL by the standard alone.
    fn the_long_way(text: &str) -> Option<(String, HeaderValue, String)> {
        let url = Url::parse(text).ok()?;
        let Known { origin, authority } = Known::read(&url).ok()?;
        let path: PathAndQuery = url[Position::BeforePath..Position::AfterQuery]
            .parse()
            .ok()?;
        Some((origin.to_string(), authority, path.to_string()))
    }

    proptest! {
        #[test]
        fn the_short_way_says_the_same_as_the_standard(
            scheme in prop::sample::select(vec!["http://", "https://", "HTTP://", "http:/", "http:", ""]),
            authority in "[aB1.:\\-\\[\\]@é%_]{0,6}|127\\.0\\.0\\.1|\\[::1\\](:[0-9]{1,5})?|a(:[0-9]{0,6})?|xn--a",
            path in "(/[a.%2eE?#&=|'\"<^`{ \\\\~;+é]{0,4}){0,4}|[?#/\\\\.a]{0,4}",
        ) {
            let text = format!("{scheme}{authority}{path}");
            let expected = the_long_way(&text);
            // The second time what is before the path is known.
            for _ in 0..2 {
                let read = TargetUrl::read(&text, &Bytes::new()).ok();
                let read = read.map(|url| (url.origin.to_string(), url.authority, url.path.to_string()));
                prop_assert_eq!(&read, &expected, "{}", text);
                let origin = Origin::of(&text).ok().map(|origin| origin.to_string());
                if let Some((expected, ..)) = &expected {
                    prop_assert_eq!(origin.as_ref(), Some(expected));
                }
            }
        }
    }
}
