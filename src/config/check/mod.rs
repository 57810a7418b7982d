//! Checks that settings fit together: names, sizes, and settings that depend on others. It reads no file but the
//! certificates of `dispatch.ca_file`.

pub(super) mod headers;
pub(super) mod open_mode;
pub(super) mod ranges;
mod tables;

use std::collections::BTreeSet;

use http::HeaderName;
use rustls::RootCertStore;

use self::{headers::check_token_header, ranges::out_of_range, tables::origin_of};
use super::Config;
use crate::{json::nearest::did_you_mean, model::ids::StreamName, runtime::authorities};

/// A setting that does not fit.
#[derive(Debug)]
pub(super) struct Finding {
    /// Paths of the keys concerned. The error is shown at the first of them that a source gives.
    pub(super) keys: Vec<String>,
    /// What is wrong, and what would be right.
    pub(super) message: String,
}

/// Words of `[outcomes]` for the streams of the roles.
pub const ROLE_WORDS: [&str; 4] = ["unavailable", "internal", "unrecoverable", "default"];

/// Word of `[outcomes]` for an answer that is no failure, such as 404 to a DELETE.
const DELIVERED: &str = "delivered";

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
const CAUSES: [&str; 12] = [
    "dns",
    "connect",
    "tls",
    "timeout",
    "reset",
    "network",
    "invalid",
    "secret",
    "blocked",
    "internal",
    "unexpectedError",
    "default",
];

/// Returns the key of `[outcomes]` that `text` means, in its one spelling: a status, a class, a cause or `default`.
pub(super) fn outcome_key(text: &str) -> Option<&str> {
    let word = CLASSES
        .iter()
        .chain(&CAUSES)
        .find(|word| word.eq_ignore_ascii_case(text));
    let status = || text.len() == 3 && text.parse().is_ok_and(|n: u16| (100..=599).contains(&n));
    word.copied().or_else(|| status().then_some(text))
}

/// Bytes that storage may add to a record: our headers, with the cause of a failure.
pub(super) const RECORD_MARGIN_BYTES: u64 = 64 << 10;
/// The smallest journal file. A smaller value is reported as out of range, and not as too small for other settings.
const SEGMENT_BYTES_MIN: u64 = 1 << 20;

pub(super) fn check(config: &Config, findings: &mut Vec<Finding>) {
    let mut check = Check { findings };
    for (key, message) in out_of_range(config) {
        check.say([&key], message);
    }
    check.server(config);
    check.log_and_sync(config);
    check.dispatch(config);
    check.push(config);
    check.secrets(config);
    check.roles(config);
    check.outcomes(config);
    check.streams(&config.streams);
    check.targets(&config.targets);
}

struct Check<'a> {
    findings: &'a mut Vec<Finding>,
}

impl Check<'_> {
    fn say<const N: usize>(&mut self, keys: [&str; N], message: impl Into<String>) {
        self.findings.push(Finding {
            keys: keys.map(Into::into).into(),
            message: message.into(),
        });
    }

    /// Reports the first key if its value exceeds that of the second.
    fn fits(&mut self, small: (&str, u64), large: (&str, u64), because: &str) {
        if small.1 > large.1 {
            let message = format!(
                "{} is {}, but may not exceed {} ({}){because}",
                small.0, small.1, large.0, large.1
            );
            self.say([small.0, large.0], message);
        }
    }

    fn server(&mut self, config: &Config) {
        let server = &config.server;
        if !server.listen.ip().is_loopback() {
            let message = format!(
                "{} is not a loopback address: there is no TLS yet, so messages and passwords would cross the network \
                 in the clear; take 127.0.0.1:{port} or [::1]:{port}",
                server.listen,
                port = server.listen.port()
            );
            self.say(["server.listen"], message);
        }
        for host in &server.hosts {
            if url::Host::parse(host).is_err() {
                let message = format!(
                    "\"{host}\" is not a host name: give a name or an address, without scheme and port"
                );
                self.say(["server.hosts"], message);
            }
        }
        for origin in &server.cors_origins {
            if let Err(why) = origin_of(origin) {
                self.say(["server.cors_origins"], format!("\"{origin}\" {why}"));
            }
        }
        self.paths(config);
        if let Err(wrong) = check_level(&config.logging.level) {
            self.say(["logging.level"], wrong);
        }
    }

    /// An empty path would mean the working directory, which may differ at each start.
    fn paths(&mut self, config: &Config) {
        let paths = [
            ("data.dir", Some(&config.data.dir), "a directory"),
            (
                "secrets.master_key_file",
                config.secrets.master_key_file.as_ref(),
                "a file",
            ),
        ];
        for (key, path, what) in paths {
            if path.is_some_and(|path| path.as_os_str().to_string_lossy().trim().is_empty()) {
                self.say([key], format!("is empty; name {what}"));
            }
        }
    }

    fn log_and_sync(&mut self, config: &Config) {
        let (log, sync) = (&config.log, &config.sync);
        let record = ("sync.record_bytes_max", as_u64(sync.record_bytes_max));
        let batch = ("sync.batch_bytes_max", as_u64(sync.batch_bytes_max));
        let headers = ("sync.headers_bytes_max", as_u64(sync.headers_bytes_max));
        let key = ("sync.key_bytes_max", as_u64(sync.key_bytes_max));
        self.fits(headers, record, ": headers are part of the record");
        self.fits(key, record, ": the key is part of the record");
        self.fits(record, batch, ": a single message comes in a body too");
        let half = log.segment_bytes / 2;
        if log.segment_bytes >= SEGMENT_BYTES_MIN && batch.1 > half {
            let message = format!(
                "sync.batch_bytes_max is {}, but may not exceed half of log.segment_bytes ({half}): a batch is one write",
                batch.1
            );
            self.say(["sync.batch_bytes_max", "log.segment_bytes"], message);
        }
        let queue = ("log.queue_bytes_max", as_u64(log.queue_bytes_max));
        self.fits(batch, queue, ": no batch could be queued");
        if let Err(wrong) = check_token_header(&sync.token_header) {
            self.say(["sync.token_header"], wrong);
        }
        self.operations(&sync.operations);
    }

    fn operations(&mut self, operations: &[String]) {
        const KNOWN: [&str; 5] = ["POST", "PUT", "PATCH", "DELETE", "GET"];
        if operations.is_empty() {
            let message = format!(
                "is empty, so that no message could be accepted; give some of {}",
                KNOWN.join(", ")
            );
            self.say(["sync.operations"], message);
        }
        let mut seen = BTreeSet::new();
        for operation in operations {
            if !KNOWN.contains(&operation.as_str()) {
                let message = format!(
                    "\"{operation}\" is not one of {}{}",
                    KNOWN.join(", "),
                    did_you_mean(operation, KNOWN)
                );
                self.say(["sync.operations"], message);
            } else if !seen.insert(operation) {
                self.say(["sync.operations"], format!("\"{operation}\" is repeated"));
            }
        }
    }

    fn dispatch(&mut self, config: &Config) {
        let dispatch = &config.dispatch;
        let queue = ("dispatch.queue_bytes_max", as_u64(dispatch.queue_bytes_max));
        let queues = (
            "dispatch.queues_bytes_max",
            as_u64(dispatch.queues_bytes_max),
        );
        self.fits(queue, queues, ", the bound for all targets together");
        let attempt = ("dispatch.attempt_timeout_ms", dispatch.attempt_timeout_ms);
        let connect = ("dispatch.connect_timeout_ms", dispatch.connect_timeout_ms);
        let response = ("dispatch.response_timeout_ms", dispatch.response_timeout_ms);
        let backoff = ("dispatch.backoff_ms", dispatch.backoff_ms);
        self.fits(connect, attempt, ", the time for the whole call");
        self.fits(response, attempt, ", the time for the whole call");
        self.fits(
            backoff,
            ("dispatch.backoff_ms_max", dispatch.backoff_ms_max),
            "",
        );
        let stored_max = as_u64(config.sync.record_bytes_max).saturating_add(RECORD_MARGIN_BYTES);
        if stored_max > as_u64(dispatch.queue_bytes_max) {
            let message = format!(
                "dispatch.queue_bytes_max is {}, but must hold the greatest record: sync.record_bytes_max and 64 KiB ({stored_max})",
                dispatch.queue_bytes_max
            );
            self.say(
                ["dispatch.queue_bytes_max", "sync.record_bytes_max"],
                message,
            );
        }
        if let Some(file) = &dispatch.ca_file
            && let Err(wrong) = authorities::add(&mut RootCertStore::empty(), file)
        {
            self.say(["dispatch.ca_file"], wrong);
        }
    }

    fn push(&mut self, config: &Config) {
        let push = &config.push;
        for (alias, stream) in &push.trails {
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_#$/-".contains(&byte);
            let key = format!("push.trails.{alias}");
            if !(2..=512).contains(&alias.len()) || !alias.bytes().all(legal) {
                let what =
                    "the alias must have 2 to 512 letters, digits, '_', '#', '$', '/' and '-'";
                self.say([&*key], what);
            }
            if let Err(error) = stream.parse::<StreamName>() {
                self.say([&*key], format!("{stream:?} names no stream: {error}"));
            }
        }
        let namespace = &push.namespace;
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$';
        let letter = namespace.starts_with(|c: char| c.is_ascii_alphabetic());
        if !letter || namespace.len() > 64 || !namespace.chars().all(legal) {
            let what = "must be a letter, then letters, digits, '_' and '$', 64 at most";
            self.say(["push.namespace"], what);
        }
        let printable = |text: &str| !text.chars().any(char::is_control);
        if push.node.len() > 255 || !printable(&push.node) {
            self.say(
                ["push.node"],
                "must have at most 255 bytes, and no control characters",
            );
        }
        let prefix = &push.event_type_prefix;
        if prefix.is_empty() || prefix.len() > 128 || !printable(prefix) {
            let what = "must have 1 to 128 bytes, and no control characters";
            self.say(["push.event_type_prefix"], what);
        }
        for name in &push.masked_headers {
            if name.parse::<HeaderName>().is_err() {
                self.say(
                    ["push.masked_headers"],
                    format!("{name:?} is not a header name"),
                );
            }
        }
        let url = config.server.public_url.as_deref();
        let origin = |url: &str| {
            let parsed = url::Url::parse(url).ok()?;
            let plain = matches!(parsed.scheme(), "http" | "https")
                && parsed.has_host()
                && parsed.path() == "/"
                && parsed.query().is_none()
                && parsed.fragment().is_none()
                && parsed.username().is_empty()
                && parsed.password().is_none();
            plain.then_some(())
        };
        if url.is_some_and(|url| origin(url).is_none()) {
            let what =
                "must be http:// or https://, a host and maybe a port, as in https://sync.example";
            self.say(["server.public_url"], what);
        }
    }

    fn secrets(&mut self, config: &Config) {
        let secrets = &config.secrets;
        if secrets
            .master_key_env
            .as_deref()
            .is_some_and(|name| name.is_empty() || name.contains('='))
        {
            self.say(
                ["secrets.master_key_env"],
                "must be the name of an environment variable",
            );
        }
        if secrets
            .master_key_command
            .first()
            .is_some_and(String::is_empty)
        {
            self.say(["secrets.master_key_command"], "must begin with a program");
        }
    }
}

/// Checks a filter of log lines. The parser takes any word as the name of a module and shows all its lines, so a
/// misspelt level would pass.
fn check_level(filter: &str) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    const RIGHT: &str =
        "give error, warn, info, debug or trace, or a list such as info,syncgate::dispatch=debug";
    if filter.trim().is_empty() {
        return Err(format!("is empty; {RIGHT}"));
    }
    let words = filter.split(',').map(str::trim);
    // In a filter of spans a comma may stand within brackets, so its words are not checked.
    let mut bare = words.filter(|word| !filter.contains('[') && !word.contains('='));
    let is_level = |word: &&str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    if let Some(word) = bare.find(|word| !word.is_empty() && !is_level(word)) {
        let near = did_you_mean(word, LEVELS);
        return Err(format!("\"{word}\" is not a level{near}; {RIGHT}"));
    }
    let parsed = tracing_subscriber::EnvFilter::builder().parse(filter);
    match parsed {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("\"{filter}\" is not a filter ({error}); {RIGHT}")),
    }
}

fn as_u64(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
