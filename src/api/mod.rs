//! The HTTP edge: the only part that knows HTTP as a server.
//!
//! `server/` accepts connections and passes `POST /stream/sync` directly to `sync.rs`. `router.rs` has all other routes.
//! `access/` authenticates callers and checks hosts and origins. `wire.rs` spells the members of answers. `problem/code.rs`
//! chooses statuses; each route turns its own errors into problems.

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

/// The parts that the edge uses.
#[derive(Debug)]
pub struct ApiParts {
    /// Streams of records.
    pub streams: Streams,
    /// Stores submissions.
    pub ingest: Ingest,
    /// Data streams for subscribers.
    pub push: Push,
    /// The users; `None` is open mode, in which every caller is administrator.
    pub users: Option<Users>,
    /// Runs retries.
    pub retrier: Arc<dyn Retries>,
    /// Tells what open records wait for.
    pub waits: Arc<dyn Waits>,
    /// Reads the configuration again.
    pub reloads: Arc<dyn Reloads>,
    /// Makes status reports.
    pub reports: Arc<dyn Reports>,
    /// Counters, and the text of `/metrics`.
    pub metrics: Metrics,
    /// Parts that are sampled at each scrape.
    pub sources: Vec<Arc<dyn Source>>,
}

/// The edge before it serves.
#[derive(Debug)]
pub struct Api {
    parts: ApiParts,
    settings: Arc<Live<Settings>>,
    roles: Vec<(&'static str, StreamName)>,
}

/// State that all requests share.
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
    /// Starts tasks that outlive their request.
    tasks: Tasks,
}

impl Api {
    /// Makes the edge. New `settings` apply to later requests.
    #[must_use]
    pub fn new(parts: ApiParts, settings: Arc<Live<Settings>>, roles: &Roles) -> Self {
        Self {
            parts,
            settings,
            roles: roles.all().map(|(word, name)| (word, name.clone())).into(),
        }
    }
}
