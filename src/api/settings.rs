//! Settings of the edge. A reload replaces them while requests are served.

use std::{collections::BTreeMap, time::Duration};

use http::HeaderName;

use crate::{
    config::{Answer, Config, ROLE_WORDS},
    dispatch::TargetId,
    model::{ids::StreamName, target::Origin},
};

/// Settings of the edge, from `[server]`, `[sync]`, `[retry]`, `[metrics]`, `[outcomes]` and `[[targets]]`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(super) hosts: Vec<String>,
    pub(super) cors_origins: Vec<String>,
    pub(super) connections_max: usize,
    pub(super) request_timeout: Duration,
    pub(super) answers_bytes_max: usize,
    pub(super) metrics_public: bool,
    pub(super) text_answers: bool,
    pub(super) token_header: HeaderName,
    pub(super) batch_bytes_max: usize,
    pub(super) batch_len_max: usize,
    /// Configured targets by name.
    pub(super) targets: BTreeMap<String, TargetId>,
    pub(super) retry_records_max: u64,
    pub(super) retry_time_budget: Duration,
    /// Streams that `[outcomes]` names and that have no role.
    pub(super) outcome_streams: Vec<StreamName>,
}

/// `sync.token_header` is not a header name. `config::load` refuses such a configuration earlier.
#[derive(Clone, Debug, thiserror::Error)]
#[error("sync.token_header is not a header name")]
pub struct TokenHeaderInvalid;

impl Settings {
    /// Takes the settings of the edge from the configuration.
    ///
    /// # Errors
    /// [`TokenHeaderInvalid`].
    pub fn new(config: &Config) -> Result<Self, TokenHeaderInvalid> {
        let (server, sync, retry) = (&config.server, &config.sync, &config.retry);
        let compat = config.oci_sample.as_ref().is_some_and(|oci| oci.compat);
        let token_header = HeaderName::from_bytes(sync.token_header.as_bytes());
        let outcomes = config.outcomes.values();
        let named = outcomes.filter(|stream| !ROLE_WORDS.contains(&stream.as_str()));
        Ok(Self {
            hosts: server.hosts.clone(),
            cors_origins: server.cors_origins.clone(),
            connections_max: server.connections_max,
            request_timeout: Duration::from_millis(server.request_timeout_ms),
            answers_bytes_max: server.answers_bytes_max,
            metrics_public: config.metrics.public,
            text_answers: compat || sync.answer == Answer::Text,
            token_header: token_header.map_err(|_| TokenHeaderInvalid)?,
            batch_bytes_max: sync.batch_bytes_max,
            batch_len_max: sync.batch_len_max,
            targets: targets(config),
            retry_records_max: retry.records_max,
            retry_time_budget: Duration::from_millis(retry.time_budget_ms),
            outcome_streams: named.filter_map(|name| name.parse().ok()).collect(),
        })
    }
}

/// Returns the targets by name. Dispatch reports an invalid origin, so this function skips it.
fn targets(config: &Config) -> BTreeMap<String, TargetId> {
    let named = config.targets.iter().filter_map(|target| {
        let origin = Origin::bare(&target.origin).ok()?;
        let id = TargetId::new(origin, target.path_prefix.as_deref());
        Some((target.name.clone(), id))
    });
    named.collect()
}
