//! The message in a record's value: a URL, an operation, a payload and headers.
//!
//! [`Message`] borrows from the value, which stays as the source sent it: the payload goes to the target byte for byte.
//! Ingest checks a message before it is stored, dispatch reads it again; neither changes it.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, IgnoredAny, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::value::RawValue;

use crate::model::slip::{Slip, Slips};

/// A sync message: the members of `streamMessage`. The record keeps members of other names, and the gateway ignores them.
#[derive(Debug)]
pub struct Message<'a> {
    /// Name of the secret that holds the target's token; empty means none.
    pub vault_secret_name: Option<Cow<'a, str>>,
    /// Absolute http or https URL.
    pub target_rest_api: Cow<'a, str>,
    /// Method, in capitals.
    pub target_rest_api_operation: Cow<'a, str>,
    /// Body of the call. `null` is a payload too: the text `null`.
    pub target_rest_api_payload: Option<&'a RawValue>,
    /// Headers of the call, in order, repeats kept.
    pub target_rest_api_headers: Option<Vec<MessageHeader<'a>>>,
    /// Unknown members with nearly a known name.
    pub slips: Vec<Slip>,
}

const SECRET_NAME: &str = "vaultSecretName";
const API: &str = "targetRestApi";
const OPERATION: &str = "targetRestApiOperation";
const PAYLOAD: &str = "targetRestApiPayload";
const HEADERS: &str = "targetRestApiHeaders";

/// The names of the members.
pub(crate) const MEMBERS: [&str; 5] = [SECRET_NAME, API, OPERATION, PAYLOAD, HEADERS];

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

        /// Accepts objects only. A derived reader accepts arrays too, in which the mask would not find a credential.
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Header<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Header<'de>, A::Error> {
                Header::deserialize(MapAccessDeserializer::new(map))
            }
        }

        let Header { key, value } = deserializer.deserialize_map(Object)?;
        Ok(Self { key, value })
    }
}

/// Headers of a message, at most. A request cannot hold more with the gateway's own, and servers accept far fewer.
pub const HEADERS_LEN_MAX: usize = 4_000;

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

impl<'de: 'a, 'a> Deserialize<'de> for Message<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// Reads members by hand, because a derived reader skips unknown names, and a warning needs them.
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Message<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Message<'de>, A::Error> {
                let (mut secret_name, mut url, mut operation) = (None, None, None);
                let (mut payload, mut headers) = (None, None);
                let mut slips = Slips::default();
                while let Some(member) = map.next_key_seed(Name(&mut slips))? {
                    match member {
                        Member::SecretName => {
                            let value = map.next_value::<Option<Text<'de>>>()?;
                            once(&mut secret_name, value, SECRET_NAME)?;
                        }
                        Member::Url => once(&mut url, map.next_value::<Text<'de>>()?, API)?,
                        Member::Operation => {
                            once(&mut operation, map.next_value::<Text<'de>>()?, OPERATION)?;
                        }
                        // `null` is a payload too.
                        Member::Payload => once(&mut payload, map.next_value()?, PAYLOAD)?,
                        Member::Headers => once(&mut headers, map.next_value()?, HEADERS)?,
                        Member::Other => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                let Text(url) = url.ok_or_else(|| de::Error::missing_field(API))?;
                let operation = operation.ok_or_else(|| de::Error::missing_field(OPERATION));
                let Text(operation) = operation?;
                Ok(Message {
                    vault_secret_name: secret_name.flatten().map(|Text(name)| name),
                    target_rest_api: url,
                    target_rest_api_operation: operation,
                    target_rest_api_payload: payload,
                    target_rest_api_headers: headers.flatten(),
                    slips: slips.found,
                })
            }
        }

        deserializer.deserialize_map(Members)
    }
}

/// A string, borrowed where it has no escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn once<T, E: de::Error>(member: &mut Option<T>, value: T, name: &'static str) -> Result<(), E> {
    match member.replace(value) {
        None => Ok(()),
        Some(_) => Err(de::Error::duplicate_field(name)),
    }
}

enum Member {
    SecretName,
    Url,
    Operation,
    Payload,
    Headers,
    Other,
}

/// Reads the name of a member, and passes an unknown one to [`Slips`].
struct Name<'s>(&'s mut Slips);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Member;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Member, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Member;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_str<E>(self, name: &str) -> Result<Member, E> {
        Ok(match name {
            SECRET_NAME => Member::SecretName,
            API => Member::Url,
            OPERATION => Member::Operation,
            PAYLOAD => Member::Payload,
            HEADERS => Member::Headers,
            other => {
                self.0.look_at(other);
                Member::Other
            }
        })
    }
}

impl<'a> Message<'a> {
    /// Reads a record's value.
    ///
    /// # Errors
    /// The first member that is missing, repeated or of a wrong type. The error quotes no value.
    pub fn parse(value: &'a [u8]) -> Result<Self, serde_json::Error> {
        match std::str::from_utf8(value) {
            // One check of the whole text is faster than one of each string.
            Ok(text) => Self::read(text),
            Err(_) => serde_json::from_slice(value),
        }
    }

    /// Reads a record's value that is known to be UTF-8.
    ///
    /// # Errors
    /// As for [`Message::parse`].
    pub fn read(text: &'a str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
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

/// Parts of the names of credential headers, in lower case. They match with `-`, with `_` and without. The manual
/// (`sending.md`) has the same list. Plain `key` is not in it, because an `Idempotency-Key` or a `Partition-Key` is not a credential.
pub(crate) const CREDENTIALS: [&str; 33] = [
    "access-key",
    "account-key",
    "api-key",
    "app-key",
    "application-key",
    "auth-key",
    "authentication",
    "authorization",
    "client-key",
    "consumer-key",
    "cookie",
    "credential",
    "csrf",
    "customer-key",
    "functions-key",
    "jwt",
    "license-key",
    "master-key",
    "passphrase",
    "passwd",
    "password",
    "private-key",
    "secret",
    "security-key",
    "service-key",
    "session",
    "shared-key",
    "signature",
    "subscription-key",
    "token",
    "user-key",
    "x-auth",
    "xsrf",
];

/// Returns whether a header of that name holds a credential, which is never shown.
pub(crate) fn is_credential(name: &str) -> bool {
    let mut rests = (0..name.len()).map(|at| &name.as_bytes()[at..]);
    rests.any(|rest| {
        // First letters of all parts: a quick check before the loop.
        matches!(
            rest[0] | 0x20,
            b'a' | b'c' | b'f' | b'j' | b'l' | b'm' | b'p' | b's' | b't' | b'u' | b'x'
        ) && CREDENTIALS.iter().any(|part| {
            let after = after(rest, part);
            // `X-Author` is not a credential.
            let is_author = |after: &[u8]| {
                *part == "x-auth"
                    && after
                        .get(..2)
                        .is_some_and(|or| or.eq_ignore_ascii_case(b"or"))
            };
            after.is_some_and(|after| !is_author(after))
        })
    })
}

/// Returns the rest of a name that begins with `part`; `-` and `_` are ignored.
fn after<'a>(name: &'a [u8], part: &str) -> Option<&'a [u8]> {
    let mut name = name.iter();
    for wanted in part.bytes().filter(|byte| *byte != b'-') {
        let byte = name.find(|byte| !matches!(byte, b'-' | b'_'))?;
        if byte.to_ascii_lowercase() != wanted {
            return None;
        }
    }
    Some(name.as_slice())
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
    fn common_credential_headers_are_known_by_their_names() {
        for name in [
            "Authorization",
            "Proxy-Authorization",
            "Cookie",
            "X-Api-Key",
            "api_key",
            "apikey",
            "X-Auth-Token",
            "X-Auth-Key",
            "X-Auth",
            "X-Functions-Key",
            "Ocp-Apim-Subscription-Key",
            "Private-Token",
            "Private-Key",
            "X-Session-Id",
            "JSESSIONID",
            "X-Amz-Security-Token",
            "X-Goog-Api-Key",
            "X-Vault-Token",
            "X-Shopify-Access-Token",
            "X-CSRF-Token",
            "X-XSRF",
            "X-Access-Key",
            "X-Master-Key",
            "DD-APPLICATION-KEY",
            "X-JWT-Assertion",
            "X-Hub-Signature-256",
            "x_client_secret",
            "AccessKey",
            "AuthKey",
            "X-AuthKey",
            "PrivateKey",
            "SubscriptionKey",
            "ACCOUNTKEY",
            "account_key",
            "Authentication",
            "X-Authentication",
            "XAuth",
            "X-AuthInfo",
            "Api-Key-",
            "a--p_i-key",
        ] {
            assert!(is_credential(name), "{name}");
        }
        for name in [
            "",
            "Content-Type",
            "Accept",
            "Idempotency-Key",
            "Partition-Key",
            "X-Request-Id",
            "X-Author",
            "x_authority",
            "XAuthored-By",
            "Author",
            "Authent",
            "api-ke",
            "-_-",
            "ETag",
            "key",
        ] {
            assert!(!is_credential(name), "{name}");
        }
        let page = include_str!("../docs/sending.md");
        let missing = |part: &&&str| !page.contains(&format!("`{part}`"));
        let missing: Vec<_> = CREDENTIALS.iter().filter(missing).collect();
        assert!(missing.is_empty(), "sending.md does not name {missing:?}");
    }

    #[test]
    fn arrays_are_no_messages_and_no_headers() {
        assert!(Message::parse(br#"[null,"http://a","POST"]"#).is_err());
        let value = br#"{"targetRestApi":"http://a","targetRestApiOperation":"POST","targetRestApiHeaders":[["a","b"]]}"#;
        assert!(Message::parse(value).is_err());
    }
}
