//! Which secret a record names, and the header in which its target gets the secret. Pure; no value of a secret is here.

use bytes::Bytes;
use http::{HeaderName, header};

use crate::model::{
    layout::CallParts,
    record::{Record, header as record_header},
};

/// A secret by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SecretRef {
    /// The source that owns it.
    pub(crate) source: String,
    /// Its name there.
    pub(crate) name: String,
    /// The version at the time of ingest; `None` is the newest.
    pub(crate) version: Option<u32>,
}

/// The header in which a target gets its secret.
#[derive(Clone, Debug)]
pub(crate) struct SecretHeader {
    pub(crate) name: HeaderName,
    /// The name as the configuration spells it, if the connection would write it in another case.
    pub(super) spelled: Option<Bytes>,
}

impl SecretHeader {
    /// Reads a header name; `None` if it is not one.
    pub(crate) fn new(text: &str) -> Option<Self> {
        let name = HeaderName::from_bytes(text.as_bytes()).ok()?;
        let spelled = (!is_title_case(text)).then(|| Bytes::copy_from_slice(text.as_bytes()));
        Some(Self { name, spelled })
    }
}

impl Default for SecretHeader {
    fn default() -> Self {
        Self {
            name: header::AUTHORIZATION,
            spelled: None,
        }
    }
}

/// Returns the secret that a record names.
pub(super) fn secret(record: &Record) -> Option<SecretRef> {
    let parts = CallParts::of(record).ok()?;
    secret_of(record, parts.secret_name.as_deref())
}

/// The headers that ingest wrote win over the message, because only they have a derived name and the version.
pub(super) fn secret_of(record: &Record, name: Option<&str>) -> Option<SecretRef> {
    let headers = &record.headers;
    let (name, version) = match headers.get(record_header::SECRET_NAME) {
        Some(name) => (name, headers.get(record_header::SECRET_VERSION)),
        None => (name?, None),
    };
    Some(SecretRef {
        source: headers
            .get(record_header::SOURCE)
            .unwrap_or("default")
            .into(),
        name: name.into(),
        version: version.and_then(|version| version.parse().ok()),
    })
}

/// Returns whether a name is in title case, as in `Content-Type`, which the connection writes.
pub(super) fn is_title_case(name: &str) -> bool {
    let mut begins = true;
    name.bytes().all(|byte| {
        let is_right = match begins {
            true => !byte.is_ascii_lowercase(),
            false => !byte.is_ascii_uppercase(),
        };
        begins = byte == b'-';
        is_right
    })
}
