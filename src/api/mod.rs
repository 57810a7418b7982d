//! The HTTP edge: the only part that knows HTTP as a server. Everything below it speaks in values of ours.
//!
//! `server.rs` accepts connections and gives `POST /stream/sync` straight to `sync.rs`; every other route goes through
//! the router of `router.rs`. Who calls, and who may, is found out in `access.rs`. Wire names are spelled in `wire.rs`, statuses chosen in `problem.rs`.

mod access;
mod admin;
mod body;
mod data_streams;
mod docs;
mod ledger;
mod named;
mod problem;
mod query;
mod records;
mod reload;
mod retry;
mod router;
mod server;
mod settings;
mod status;
mod streams;
mod sync;
mod wire;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use prometheus_client::metrics::histogram::Histogram;
use tokio_util::sync::CancellationToken;

pub use access::guard::{ListenRefused, check_listen};
pub use records::Waits;
pub use reload::{ReloadError, Reloaded, Reloads};
pub use retry::Retries;
pub use settings::{Settings, TokenHeaderInvalid};
pub use status::Reports;

use crate::{
    config::Roles,
    ingest::Ingest,
    log::Streams,
    model::ids::StreamName,
    push::Push,
    runtime::{live::Live, tasks::Tasks},
    telemetry::{Metrics, Source},
    users::Users,
};

use self::{
    access::{Door, guard::Guard},
    body::Bodies,
    server::{RequestIds, answers::Answers, refusals::Refusals},
};

/// What the edge needs of the rest.
#[derive(Debug)]
pub struct ApiParts {
    /// The door to records.
    pub streams: Streams,
    /// Takes submissions.
    pub ingest: Ingest,
    /// Data streams for subscribers.
    pub push: Push,
    /// Who may call; `None` is open mode: whoever reaches the listener is administrator.
    pub users: Option<Users>,
    /// Runs retries.
    pub retrier: Arc<dyn Retries>,
    /// Knows what open records wait for.
    pub waits: Arc<dyn Waits>,
    /// Reads the configuration again.
    pub reloads: Arc<dyn Reloads>,
    /// Knows how the gateway is.
    pub reports: Arc<dyn Reports>,
    /// Counters, and the text of `/metrics`.
    pub metrics: Metrics,
    /// Who is asked at each scrape.
    pub sources: Vec<Arc<dyn Source>>,
}

/// The edge, ready to serve.
#[derive(Debug)]
pub struct Api {
    parts: ApiParts,
    settings: Arc<Live<Settings>>,
    roles: Vec<(&'static str, StreamName)>,
}

/// What all requests share.
#[derive(Debug)]
struct EdgeState {
    streams: Streams,
    ingest: Ingest,
    push: Push,
    retrier: Arc<dyn Retries>,
    waits: Arc<dyn Waits>,
    reloads: Arc<dyn Reloads>,
    reports: Arc<dyn Reports>,
    metrics: Metrics,
    sources: Vec<Arc<dyn Source>>,
    settings: Arc<Live<Settings>>,
    /// Role and stream, the source first.
    roles: Vec<(&'static str, StreamName)>,
    guard: Guard,
    door: Door,
    bodies: Bodies,
    answers: Answers,
    page_turns: records::Turns,
    refusals: Refusals,
    ids: RequestIds,
    sync_seconds: Histogram,
    stop: CancellationToken,
    /// For those who stay when their request is answered.
    tasks: Tasks,
}

impl Api {
    /// Puts the edge together. `settings` count for requests that come after they were replaced.
    #[must_use]
    pub fn new(parts: ApiParts, settings: Arc<Live<Settings>>, roles: &Roles) -> Self {
        Self {
            parts,
            settings,
            roles: roles.all().map(|(word, name)| (word, name.clone())).into(),
        }
    }
}
