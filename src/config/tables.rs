//! `[roles]`, `[[streams]]` and `[[targets]]`: streams and targets by name.

use serde::{Deserialize, Serialize};

use crate::model::ids::StreamName;

/// `[roles]`: the keys are the words that `[outcomes]` may use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Roles {
    /// Stores what `POST /stream/sync` accepts; its records are dispatched.
    pub source: StreamName,
    /// Word `unavailable`: a later retry may succeed by itself.
    pub unavailable: StreamName,
    /// Word `internal`: the target answered 500.
    pub internal: StreamName,
    /// Word `unrecoverable`: the same bytes can never succeed.
    pub unrecoverable: StreamName,
    /// Word `default`: every other failure.
    pub default: StreamName,
}

impl Default for Roles {
    fn default() -> Self {
        let name = |text: &str| text.parse().expect("a legal stream name");
        Self {
            source: name("DataSyncStream"),
            unavailable: name("ServerUnavailableStream"),
            internal: name("InternalserverErrorStream"),
            unrecoverable: name("UnrecoverableErrorStream"),
            default: name("DefaultErrorStream"),
        }
    }
}

impl Roles {
    /// Returns word and stream of each role, the source first.
    #[must_use]
    pub fn all(&self) -> [(&'static str, &StreamName); 5] {
        [
            ("source", &self.source),
            ("unavailable", &self.unavailable),
            ("internal", &self.internal),
            ("unrecoverable", &self.unrecoverable),
            ("default", &self.default),
        ]
    }
}

/// `[[streams]]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamSettings {
    /// Its name.
    pub name: StreamName,
    /// 1 to 256; partitions can be added later, never removed.
    #[serde(default = "one")]
    pub partitions: u16,
    /// Another name of the stream, for requests and commands.
    pub ocid: Option<String>,
    /// As `retention.source_hours` or `error_hours`, for this stream.
    pub retention_hours: Option<u32>,
    /// As `retention.source_bytes` or `error_bytes`, for this stream.
    pub retention_bytes: Option<u64>,
}

fn one() -> u16 {
    1
}

/// `[[targets]]`: an absent key is as in `[dispatch]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetSettings {
    /// The name in metrics and logs.
    pub name: String,
    /// Scheme, host and port, as in `https://orders.example:8443`.
    pub origin: String,
    /// A path prefix: the element is for the URLs with this prefix only, which are a target of their own.
    pub path_prefix: Option<String>,
    /// Calls in flight, at most.
    pub in_flight_max: Option<usize>,
    /// Calls that begin in a second, evenly.
    pub rate_per_second: Option<u32>,
    /// Calls for one record.
    pub attempts_max: Option<u32>,
    /// Until the connection is set up, with TLS.
    pub connect_timeout_ms: Option<u64>,
    /// Until the response begins.
    pub response_timeout_ms: Option<u64>,
    /// The whole call.
    pub attempt_timeout_ms: Option<u64>,
    /// Send the payload with DELETE and GET too.
    #[serde(default)]
    pub body_always: bool,
    /// The header for its secret; absent: `Authorization`.
    pub secret_header: Option<String>,
}
