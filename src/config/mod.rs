//! Settings: every key with unit, default and effect. `config/syncgate.toml` shows the same; a test holds them equal.
//!
//! The structs are the sections of a file. [`load`](load()) merges defaults, file, environment and arguments, and
//! checks the result; [`Loaded::reload`] does the same while the gateway runs. Only `gateway` reads the structs: it
//! gives each part its own settings.

mod administrator;
mod check;
#[cfg(test)]
mod docs;
mod errors;
mod load;
mod oci;
mod origins;
mod quantity;
mod reload;
mod schema;
mod tables;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

pub use crate::telemetry::{LogFormat, Logging};

pub(crate) use self::check::ranges::SEGMENT_BYTES_MAX;
pub use self::{
    check::ROLE_WORDS,
    errors::{ConfigError, ConfigErrors, SettingPlace},
    load::{Loaded, Overrides, Sources, load},
    oci::OciSample,
    origins::{Origin, Setting},
    quantity::Unit,
    reload::{NEEDS_RESTART, Reloaded},
    tables::{Roles, StreamSettings, TargetSettings},
};

use serde::{Deserialize, Serialize};

use crate::{secrets, storage::local::LogSettings};

/// All settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Listener and connections.
    pub server: Server,
    /// The directory of all durable data.
    pub data: Data,
    /// The journal.
    pub log: LogSettings,
    /// `POST /stream/sync`.
    pub sync: Sync,
    /// Calls of targets.
    pub dispatch: Dispatch,
    /// `POST /stream/retry`.
    pub retry: Retry,
    /// How long records are kept.
    pub retention: Retention,
    /// Data streams for subscribers.
    pub push: Push,
    /// Credentials at rest.
    pub secrets: secrets::Settings,
    /// Log lines.
    pub logging: Logging,
    /// `GET /metrics`.
    pub metrics: Metrics,
    /// The stream of each role.
    pub roles: Roles,
    /// From status or cause to the stream of the error record: a role's word or a stream's name.
    pub outcomes: BTreeMap<String, String>,
    /// Streams made at the start, besides those of the roles.
    pub streams: Vec<StreamSettings>,
    /// Settings of single targets.
    pub targets: Vec<TargetSettings>,
    /// Values from the OCI sample.
    pub oci_sample: Option<OciSample>,
    /// Headers that were a `secret_header` before. No source gives them; the gateway stores them.
    #[serde(skip)]
    pub former_secret_headers: Vec<String>,
}

impl Config {
    /// Returns the headers of messages whose values are masked, besides the usual headers of credentials. These are
    /// `push.masked_headers`, and the present and former secret headers of targets.
    #[must_use]
    pub fn masked_headers(&self) -> Vec<String> {
        let of_targets = self.targets.iter();
        let of_targets = of_targets.filter_map(|target| target.secret_header.clone());
        let mut masked = self.push.masked_headers.clone();
        masked.extend(of_targets);
        masked.extend(self.former_secret_headers.iter().cloned());
        masked
    }
}

/// `[server]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Address and port to listen on; port 0 takes any free one.
    pub listen: SocketAddr,
    /// More names by which clients may call this server (`Host`), beside localhost and the bound address.
    pub hosts: Vec<String>,
    /// Address under which clients reach this server, as in `https://sync.example`.
    pub public_url: Option<String>,
    /// Open connections; further ones wait in the kernel's queue.
    pub connections_max: usize,
    /// A request must have arrived whole after this time.
    pub request_timeout_ms: u64,
    /// Bytes of all answers that clients have not read yet; more are refused with 503.
    pub answers_bytes_max: usize,
    /// How long a stop waits for requests and attempts.
    pub grace_ms: u64,
    /// Origins other than our own whose pages may send changes.
    pub cors_origins: Vec<String>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9002)),
            hosts: Vec::new(),
            connections_max: 10_000,
            request_timeout_ms: 30_000,
            answers_bytes_max: 64 << 20,
            grace_ms: 20_000,
            cors_origins: Vec::new(),
            public_url: None,
        }
    }
}

/// `[data]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Data {
    /// The directory; made if absent.
    pub dir: PathBuf,
}

impl Default for Data {
    fn default() -> Self {
        Self { dir: "data".into() }
    }
}

/// `[sync]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sync {
    /// The body of a success: `json`, or `text` for the sample's `success`.
    pub answer: Answer,
    /// The request header that a sender puts the target's token in.
    pub token_header: String,
    /// Store messages that cannot be delivered, as the sample does; they fail at dispatch.
    pub lenient: bool,
    /// Operations that a message may ask for.
    pub operations: Vec<String>,
    /// Key, value and headers of one message.
    pub record_bytes_max: usize,
    /// A key.
    pub key_bytes_max: usize,
    /// All `targetRestApiHeaders` of one message.
    pub headers_bytes_max: usize,
    /// A request body, batch or not.
    pub batch_bytes_max: usize,
    /// Messages in one batch.
    pub batch_len_max: usize,
}

impl Default for Sync {
    fn default() -> Self {
        Self {
            answer: Answer::Json,
            token_header: "authorization".into(),
            lenient: false,
            operations: ["POST", "PUT", "PATCH", "DELETE", "GET"]
                .map(Into::into)
                .into(),
            record_bytes_max: 1 << 20,
            key_bytes_max: 256,
            headers_bytes_max: 16 << 10,
            batch_bytes_max: 8 << 20,
            batch_len_max: 1_000,
        }
    }
}

/// The body of a success of `POST /stream/sync`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// An object with the record's stream, partition and offset.
    Json,
    /// The word `success`.
    Text,
}

/// `[dispatch]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dispatch {
    /// Calls of one target at the same time.
    pub in_flight_max: usize,
    /// Calls of one target that begin in a second, evenly; absent: no bound.
    pub rate_per_second: Option<u32>,
    /// Calls for one record before it goes to an error stream.
    pub attempts_max: u32,
    /// First wait between two calls for a record.
    pub backoff_ms: u64,
    /// Longest wait between two calls for a record, or of a target, without `Retry-After`.
    pub backoff_ms_max: u64,
    /// Longest wait that `Retry-After` of a target can ask for.
    pub retry_after_ms_max: u64,
    /// How long after its first call a record may be deferred by 429, or 503 with `Retry-After`; 0 = not at all.
    pub deferred_ms_max: u64,
    /// Until the connection is set up, with TLS.
    pub connect_timeout_ms: u64,
    /// How long addresses of a host are kept; 0 = each connection looks its host up.
    pub dns_ms: u64,
    /// Until the response begins.
    pub response_timeout_ms: u64,
    /// The whole call.
    pub attempt_timeout_ms: u64,
    /// Records waiting in memory for one target.
    pub queue_len_max: usize,
    /// Bytes of these records.
    pub queue_bytes_max: usize,
    /// Bytes waiting in memory for all targets together; beyond that, each still gets one record.
    pub queues_bytes_max: usize,
    /// Targets with connections and a queue of their own; the others share one.
    pub targets_max: usize,
    /// Idle connections kept for each target.
    pub idle_connections_max: usize,
    /// After this time without a call a connection is closed.
    pub idle_timeout_ms: u64,
    /// May targets have private addresses (10/8, 172.16/12, 192.168/16, fc00::/7 …)?
    pub private_addresses: bool,
    /// May targets be on this machine? Absent: only if the gateway itself listens on loopback.
    pub loopback_addresses: Option<bool>,
    /// More certificate authorities for targets, as a PEM file.
    pub ca_file: Option<PathBuf>,
}

impl Default for Dispatch {
    fn default() -> Self {
        Self {
            in_flight_max: 64,
            rate_per_second: None,
            attempts_max: 1,
            backoff_ms: 200,
            backoff_ms_max: 30_000,
            retry_after_ms_max: 3_600_000,
            deferred_ms_max: 3_600_000,
            connect_timeout_ms: 5_000,
            dns_ms: 30_000,
            response_timeout_ms: 30_000,
            attempt_timeout_ms: 60_000,
            queue_len_max: 4_096,
            queue_bytes_max: 8 << 20,
            queues_bytes_max: 256 << 20,
            targets_max: 1_024,
            idle_connections_max: 64,
            idle_timeout_ms: 30_000,
            private_addresses: false,
            loopback_addresses: None,
            ca_file: None,
        }
    }
}

/// `[retry]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// Greatest `noOfMessagesToProcess`.
    pub records_max: u64,
    /// Time of a pass without `timeBudgetMs`, and the greatest `timeBudgetMs`.
    pub time_budget_ms: u64,
    /// Records of one pass in flight at the same time.
    pub in_flight_max: usize,
    /// After that many failed retries a record goes to the unrecoverable stream.
    pub retries_max: u32,
    /// A pass ends if that many first calls of one target fail alike; 0 = never.
    pub failing_calls_max: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            records_max: 100_000,
            time_budget_ms: 240_000,
            in_flight_max: 64,
            retries_max: 20,
            failing_calls_max: 50,
        }
    }
}

/// `[push]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Push {
    /// Other names of streams, for `source.trail` of a data stream.
    pub trails: BTreeMap<String, String>,
    /// First part of the name of a stream's append table.
    pub namespace: String,
    /// Name of this machine in the metadata of streams.
    pub node: String,
    /// Prefix of the types of CloudEvents.
    pub event_type_prefix: String,
    /// More headers of messages whose values are masked.
    pub masked_headers: Vec<String>,
    /// An empty array is sent after this time without a frame; 0 = never.
    pub idle_array_ms: u64,
    /// Clients at one time, of all data streams.
    pub clients_max: usize,
    /// Days after which an unused cursor is removed.
    pub cursor_unused_days: u32,
    /// Status of the answer when a data stream is made: 201, or 200.
    pub create_status: u16,
}

impl Default for Push {
    fn default() -> Self {
        Self {
            trails: BTreeMap::from([("a1".into(), "DataSyncStream".into())]),
            namespace: "SYNCGATE".into(),
            node: String::new(),
            event_type_prefix: "syncgate.datastream".into(),
            masked_headers: Vec::new(),
            idle_array_ms: 30_000,
            clients_max: 10_000,
            cursor_unused_days: 30,
            create_status: 201,
        }
    }
}

/// `[retention]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// How long a record of the source stream is kept; 0 = for ever.
    pub source_hours: u64,
    /// Bytes of its newest records that are kept; 0 = all.
    pub source_bytes: u64,
    /// The same for every other stream.
    pub error_hours: u64,
    /// The same for every other stream.
    pub error_bytes: u64,
    /// Time between two trims.
    pub interval_seconds: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            source_hours: 7 * 24,
            source_bytes: 0,
            error_hours: 30 * 24,
            error_bytes: 0,
            interval_seconds: 60,
        }
    }
}

/// `[metrics]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Answer every caller, even if there are users.
    pub public: bool,
}
