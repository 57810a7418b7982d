//! The HTTP edge: the only part that knows HTTP as a server. Everything below it speaks in values of ours.
//!
//! `server.rs` accepts connections and gives `POST /stream/sync` straight to `sync.rs`; every other route goes through
//! the router of `router.rs`. Wire names are spelled in `wire.rs`, statuses chosen in `problem.rs`.

mod admin;
mod body;
mod guard;
mod ledger;
mod mask;
mod named;
mod object;
mod problem;
mod query;
mod records;
mod retry;
mod retry_wire;
mod router;
mod server;
mod streams;
mod streams_wire;
mod sync;
mod wire;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use http::HeaderName;
use prometheus_client::metrics::histogram::Histogram;
use tokio_util::sync::CancellationToken;

pub use guard::{ListenRefused, check_listen};
pub use retry::Redrives;

use crate::{
    config::{self, Answer, Config, ROLE_WORDS},
    ingest::Ingest,
    log::Streams,
    place::StreamName,
    telemetry::{Metrics, Source},
};

use self::{body::Bodies, guard::Guard, server::RequestIds};

/// What the edge needs of the rest.
#[derive(Debug)]
pub struct Parts {
    /// The door to records.
    pub streams: Streams,
    /// Takes submissions.
    pub ingest: Ingest,
    /// Runs redrives.
    pub redriver: Arc<dyn Redrives>,
    /// Counters, and the text of `/metrics`.
    pub metrics: Metrics,
    /// Who is asked at each scrape.
    pub sources: Vec<Arc<dyn Source>>,
}

/// The edge, ready to serve.
#[derive(Debug)]
pub struct Api {
    parts: Parts,
    settings: Settings,
    server: config::Server,
}

/// What the routes take from the configuration.
#[derive(Clone, Debug)]
struct Settings {
    text_answers: bool,
    token_header: HeaderName,
    batch_bytes_max: usize,
    redrive_records_max: u64,
    redrive_time_budget: Duration,
    /// Role and stream, the source first.
    roles: Vec<(&'static str, StreamName)>,
    /// Streams that `[outcomes]` names and that have no role.
    outcome_streams: Vec<StreamName>,
}

/// What all requests share.
#[derive(Debug)]
struct Shared {
    streams: Streams,
    ingest: Ingest,
    redriver: Arc<dyn Redrives>,
    metrics: Metrics,
    sources: Vec<Arc<dyn Source>>,
    settings: Settings,
    guard: Guard,
    bodies: Bodies,
    ids: RequestIds,
    sync_seconds: Histogram,
    stop: CancellationToken,
}

/// The configuration has a name for a header that is none. `config::load` finds this before.
#[derive(Clone, Debug, thiserror::Error)]
#[error("sync.token_header is no header name")]
pub struct TokenHeaderInvalid;

impl Api {
    /// Puts the edge together.
    ///
    /// # Errors
    /// [`TokenHeaderInvalid`].
    pub fn new(parts: Parts, config: &Config) -> Result<Self, TokenHeaderInvalid> {
        let compat = config.oci_sample.as_ref().is_some_and(|oci| oci.compat);
        let token_header = HeaderName::from_bytes(config.sync.token_header.as_bytes());
        let outcomes = config.outcomes.values();
        let named = outcomes.filter(|stream| !ROLE_WORDS.contains(&stream.as_str()));
        let settings = Settings {
            text_answers: compat || config.sync.answer == Answer::Text,
            token_header: token_header.map_err(|_| TokenHeaderInvalid)?,
            batch_bytes_max: config.sync.batch_bytes_max,
            redrive_records_max: config.redrive.records_max,
            redrive_time_budget: Duration::from_millis(config.redrive.time_budget_ms),
            roles: config
                .roles
                .all()
                .map(|(word, name)| (word, name.clone()))
                .into(),
            outcome_streams: named.filter_map(|name| name.parse().ok()).collect(),
        };
        Ok(Self {
            parts,
            settings,
            server: config.server.clone(),
        })
    }
}
