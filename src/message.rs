//! The message inside a record's value: what to call, and with what.
//!
//! [`Message`] borrows from the value, which stays as the source sent it: the payload goes to the target byte for byte.
//! Ingest checks a message before it is stored, dispatch reads it again; neither changes it.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Deserializer, de};
use serde_json::value::RawValue;
use url::{Host, Url};

/// A sync message: the members of `streamMessage`. Members of other names are kept in the record and not looked at.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Message<'a> {
    /// Name of the secret that holds the target's token; empty means none.
    #[serde(default, borrow)]
    pub vault_secret_name: Option<Cow<'a, str>>,
    /// Absolute http or https URL.
    #[serde(borrow)]
    pub target_rest_api: Cow<'a, str>,
    /// Method, in capitals.
    #[serde(borrow)]
    pub target_rest_api_operation: Cow<'a, str>,
    /// Body of the call. `null` is a payload too: the text `null`.
    #[serde(default, borrow, deserialize_with = "present")]
    pub target_rest_api_payload: Option<&'a RawValue>,
    /// Headers of the call, in order, repeats kept.
    #[serde(default, borrow)]
    pub target_rest_api_headers: Option<Vec<MessageHeader<'a>>>,
}

/// One entry of `targetRestApiHeaders`.
#[derive(Debug)]
pub struct MessageHeader<'a> {
    /// Its name.
    pub key: Cow<'a, str>,
    /// Its value.
    pub value: Cow<'a, str>,
}

impl<'de: 'a, 'a> Deserialize<'de> for MessageHeader<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Header<'a> {
            #[serde(borrow)]
            key: Cow<'a, str>,
            #[serde(borrow)]
            value: Cow<'a, str>,
        }
        // What serde derives reads an array too, and then nobody would look for a credential in it.
        let text = <&RawValue>::deserialize(deserializer)?.get();
        let Header { key, value } = object(text.as_bytes()).map_err(de::Error::custom)?;
        Ok(Self { key, value })
    }
}

/// Names, in lower case, that `targetRestApiHeaders` cannot have: headers that are about one connection, or that the
/// client makes itself (RFC 9110 §7.6.1).
pub const HEADERS_REFUSED: [&str; 13] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl<'a> Message<'a> {
    /// Reads a record's value.
    ///
    /// # Errors
    /// What serde says of the first member that is missing, repeated, or of a wrong type; it quotes no value.
    pub fn parse(value: &'a [u8]) -> Result<Self, serde_json::Error> {
        object(value)
    }

    /// Returns the secret's name, if the message names one.
    #[must_use]
    pub fn secret_name(&self) -> Option<&str> {
        self.vault_secret_name
            .as_deref()
            .filter(|name| !name.is_empty())
    }

    /// Returns the caller's headers.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.target_rest_api_headers
            .iter()
            .flatten()
            .map(|header| (&*header.key, &*header.value))
    }
}

/// Parts of header names whose values are credentials, in lower case.
const CREDENTIALS: [&str; 9] = [
    "authorization",
    "cookie",
    "api-key",
    "apikey",
    "token",
    "secret",
    "password",
    "signature",
    "credential",
];

/// Returns whether the value of a header of that name is a credential, which nobody is shown.
pub(crate) fn is_credential(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    CREDENTIALS.iter().any(|part| name.contains(part))
}

/// Reads a struct from an object, and from nothing else.
fn object<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, serde_json::Error> {
    if text.trim_ascii_start().first() == Some(&b'{') {
        serde_json::from_slice(text)
    } else {
        Err(de::Error::custom("not an object"))
    }
}

/// Keeps `null` apart from absent.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Scheme, host and port of a target: what secrets are bound to, and what a target is by default.
///
/// Shown as `https://orders.example:443`, always with the port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// TLS or not.
    pub https: bool,
    /// Host name in lower case, or an address; IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// A URL that no call can be made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginInvalid {
    /// Neither http nor https.
    #[error("the scheme is neither http nor https")]
    Scheme,
    /// No host, or one that is no host.
    #[error("the URL has no host")]
    Host,
    /// A name or password in the URL would end in logs and error records.
    #[error("the URL holds a user name or password; use vaultSecretName")]
    Credentials,
}

impl Origin {
    /// Returns the origin of a URL.
    ///
    /// # Errors
    /// [`OriginInvalid`] says what is wrong with it.
    pub fn of(url: &Url) -> Result<Self, OriginInvalid> {
        let https = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(OriginInvalid::Scheme),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(OriginInvalid::Credentials);
        }
        let host = match url.host().ok_or(OriginInvalid::Host)? {
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        };
        Ok(Self {
            https,
            host,
            port: url.port_or_known_default().ok_or(OriginInvalid::Host)?,
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { https, host, port } = self;
        let scheme = if *https { "https" } else { "http" };
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}")
        } else {
            write!(f, "{scheme}://{host}:{port}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_keeps_its_bytes_and_null_is_one() {
        let value = br#"{"targetRestApi":"http://a/b","targetRestApiOperation":"POST","targetRestApiPayload":{ "n" : 1.10 },"more":1}"#;
        let message = Message::parse(value).unwrap();
        assert_eq!(
            message.target_rest_api_payload.unwrap().get(),
            r#"{ "n" : 1.10 }"#
        );
        assert_eq!(message.headers().count(), 0);
        let value = br#"{"targetRestApi":"http://a","targetRestApiOperation":"POST","targetRestApiPayload":null}"#;
        assert_eq!(
            Message::parse(value)
                .unwrap()
                .target_rest_api_payload
                .unwrap()
                .get(),
            "null"
        );
        let value = br#"{"targetRestApi":"http://a","targetRestApiOperation":"POST"}"#;
        assert!(
            Message::parse(value)
                .unwrap()
                .target_rest_api_payload
                .is_none()
        );
    }

    #[test]
    fn arrays_are_no_messages_and_no_headers() {
        assert!(Message::parse(br#"[null,"http://a","POST"]"#).is_err());
        let value = br#"{"targetRestApi":"http://a","targetRestApiOperation":"POST","targetRestApiHeaders":[["a","b"]]}"#;
        assert!(Message::parse(value).is_err());
    }

    #[track_caller]
    fn check_origin(url: &str, expected: Result<&str, OriginInvalid>) {
        let origin = Origin::of(&Url::parse(url).unwrap()).map(|origin| origin.to_string());
        assert_eq!(origin, expected.map(Into::into), "{url}");
    }

    #[test]
    fn origins_are_scheme_host_and_port() {
        check_origin("https://API.Example/x?y", Ok("https://api.example:443"));
        check_origin("http://127.0.0.1:8080/", Ok("http://127.0.0.1:8080"));
        check_origin("http://[::1]:81", Ok("http://[::1]:81"));
        check_origin("ftp://a/", Err(OriginInvalid::Scheme));
        check_origin("http://u:p@a/", Err(OriginInvalid::Credentials));
    }
}
