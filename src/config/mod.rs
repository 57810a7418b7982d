//! Settings: every key, its unit, default and effect. `config/syncgate.toml` shows the same; a test holds them equal.
//!
//! The structs here are what a file may say. [`load`] puts them together from defaults, file, environment and flags and
//! checks them; [`Loaded::reload`] does the same again while the gateway runs. `gateway.rs` takes them apart, and nobody
//! reads settings later.

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
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

pub(crate) use self::check::ranges::SEGMENT_BYTES_MAX;
pub use self::{
    check::ROLE_WORDS,
    errors::{ConfigError, ConfigErrors, SettingPlace},
    load::{Loaded, Overrides, Sources, load},
    origins::{Origin, Setting},
    quantity::Unit,
    reload::{NEEDS_RESTART, Reloaded},
};

use serde::{Deserialize, Serialize};

use crate::model::ids::StreamName;

/// All settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Listener and connections.
    pub server: Server,
    /// Where everything durable lies.
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
    pub secrets: Secrets,
    /// Log lines.
    pub logging: Logging,
    /// `GET /metrics`.
    pub metrics: Metrics,
    /// Which stream plays which role.
    pub roles: Roles,
    /// From status or cause to the stream that gets the record: a role's word or a stream's name.
    pub outcomes: BTreeMap<String, String>,
    /// Streams made at start beside those of the roles.
    pub streams: Vec<StreamSettings>,
    /// What differs for one target.
    pub targets: Vec<TargetSettings>,
    /// Values taken over from the OCI sample.
    pub oci_sample: Option<OciSample>,
    /// Headers in which targets got their secrets before. No source says them: the gateway remembers them.
    #[serde(skip)]
    pub former_secret_headers: Vec<String>,
}

impl Config {
    /// Returns the headers of messages whose values nobody is shown, beside those that commonly hold credentials: those of
    /// `push.masked_headers`, and those in which targets get their secrets or got them before.
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
    /// What a stop waits for requests and attempts to end.
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

/// `[log]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// Size of a journal file.
    pub segment_bytes: u64,
    /// Newest frames kept in memory for readers.
    pub cache_bytes: usize,
    /// Records waiting to be written; more are refused with 503.
    pub queue_bytes_max: usize,
    /// Commits waiting to be written; more are refused with 503.
    pub queue_len_max: usize,
    /// Commits remembered by their ids; a large batch counts as several.
    pub dedup_len_max: usize,
    /// How long a commit is remembered.
    pub dedup_age_hours: u32,
    /// What is to stay free on the disk; below it records from outside are refused with 507.
    pub disk_free_bytes_min: u64,
    /// Streams that can be made; more are refused with 507.
    pub streams_max: usize,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            cache_bytes: 16 << 20,
            queue_bytes_max: 32 << 20,
            queue_len_max: 16_384,
            dedup_len_max: 100_000,
            dedup_age_hours: 24,
            disk_free_bytes_min: 256 << 20,
            streams_max: 1_024,
        }
    }
}

/// `[sync]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sync {
    /// What a success looks like: `json`, or `text` for the sample's `success`.
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

/// What a success of `POST /stream/sync` looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// An object with the message's place.
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
    /// Calls of one target that begin in a second, evenly; absent: as many as it takes.
    pub rate_per_second: Option<u32>,
    /// Calls for one record before it goes to an error stream.
    pub attempts_max: u32,
    /// First wait between two calls for a record.
    pub backoff_ms: u64,
    /// Longest wait between two calls for a record, or of a target, that nobody asked for.
    pub backoff_ms_max: u64,
    /// Longest wait that a target gets by `Retry-After`.
    pub retry_after_ms_max: u64,
    /// How long after its first call a record may be put off by 429, or 503 with `Retry-After`; 0 = not at all.
    pub deferred_ms_max: u64,
    /// Until the connection stands, with TLS.
    pub connect_timeout_ms: u64,
    /// How long addresses of a host are kept; 0 = each connection looks its host up.
    pub dns_ms: u64,
    /// Until the response begins.
    pub response_timeout_ms: u64,
    /// The whole call.
    pub attempt_timeout_ms: u64,
    /// Records waiting in memory for one target.
    pub queue_len_max: usize,
    /// Their bytes.
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
    /// What a call may take if it does not say `timeBudgetMs`, which cannot be longer.
    pub time_budget_ms: u64,
    /// Records of one pass in flight at the same time.
    pub in_flight_max: usize,
    /// After so many failed retries a record goes to the unrecoverable stream.
    pub retries_max: u32,
    /// A pass ends when its first so many calls to a target fail alike; 0 = it goes on.
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
    /// First part of the name of a stream's own table.
    pub namespace: String,
    /// Name of this machine in the metadata of streams.
    pub node: String,
    /// What the types of CloudEvents begin with.
    pub event_type_prefix: String,
    /// More headers of messages whose values are not shown.
    pub masked_headers: Vec<String>,
    /// An empty array is sent after that much silence; 0 = never.
    pub idle_array_ms: u64,
    /// Clients at one time, of all data streams.
    pub clients_max: usize,
    /// A cursor that was not used for so many days is removed.
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
    /// How often it is looked what is too old or too much.
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

/// `[secrets]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Secrets {
    /// File with the master key (32 bytes as base64); made at first start. Absent: `<data.dir>/master.key`.
    pub master_key_file: Option<PathBuf>,
    /// Environment variable with the master key; wins over the file.
    pub master_key_env: Option<String>,
    /// Command that prints the master key (program and arguments); wins over both.
    pub master_key_command: Vec<String>,
}

/// `[logging]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Logging {
    /// Least level shown, or a filter such as `info,syncgate::dispatch=debug`.
    pub level: String,
    /// `text` or `json`.
    pub format: LogFormat,
}

impl Default for Logging {
    fn default() -> Self {
        Self {
            level: "info".into(),
            format: LogFormat::Text,
        }
    }
}

/// Form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// `[metrics]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Answer whoever asks, also where there are users.
    pub public: bool,
}

/// `[roles]`: the word on the left is what `[outcomes]` may say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Roles {
    /// Gets what `POST /stream/sync` accepts, and is dispatched.
    pub source: StreamName,
    /// Word `unavailable`: a later retry may succeed by itself.
    pub unavailable: StreamName,
    /// Word `internal`: the target answered 500.
    pub internal: StreamName,
    /// Word `unrecoverable`: the same bytes can never succeed.
    pub unrecoverable: StreamName,
    /// Word `default`: everything else, and what `errormapping` does not name.
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
    /// 1 to 256; more can be added later, never fewer.
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

/// `[[targets]]`: what is absent is as in `[dispatch]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetSettings {
    /// For metrics and logs.
    pub name: String,
    /// Scheme, host and port, as in `https://orders.example:8443`.
    pub origin: String,
    /// Beginning of a path: the entry is for those URLs of the origin alone, which are a target of their own.
    pub path_prefix: Option<String>,
    /// Calls at the same time.
    pub in_flight_max: Option<usize>,
    /// Calls that begin in a second, evenly.
    pub rate_per_second: Option<u32>,
    /// Calls for one record.
    pub attempts_max: Option<u32>,
    /// Until the connection stands, with TLS.
    pub connect_timeout_ms: Option<u64>,
    /// Until the response begins.
    pub response_timeout_ms: Option<u64>,
    /// The whole call.
    pub attempt_timeout_ms: Option<u64>,
    /// Send the payload with DELETE and GET too.
    #[serde(default)]
    pub body_always: bool,
    /// The header in which it gets its secret; absent: `Authorization`.
    pub secret_header: Option<String>,
}

/// `[oci_sample]`: the nine function keys of the sample, and its manners.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(non_snake_case, reason = "the sample spells one key so")]
pub struct OciSample {
    /// Text answers, lenient checks and the sample's table of codes (1xx and 3xx are never success).
    pub compat: bool,
    /// Becomes the `ocid` of the source stream.
    pub data_stream_ocid: Option<String>,
    /// Becomes the `ocid` of the unrecoverable stream.
    pub unrecoverable_error_stream_ocid: Option<String>,
    /// Becomes the `ocid` of the unavailable stream.
    pub serviceUnavailable_error_stream_ocid: Option<String>,
    /// Becomes the `ocid` of the internal stream.
    pub internalserver_error_stream_ocid: Option<String>,
    /// Becomes the `ocid` of the default stream; equal to another one's, the two roles share a stream.
    pub default_error_stream_ocid: Option<String>,
    /// Ignored, and said so.
    pub vault_ocid: Option<String>,
    /// Ignored, and said so.
    pub vault_key_ocid: Option<String>,
    /// Ignored, and said so.
    pub vault_compartment_ocid: Option<String>,
    /// Ignored, and said so.
    pub stream_compartment_ocid: Option<String>,
}
