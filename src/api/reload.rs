//! `POST /v1/reload`: the configuration is read again, and the answer tells what came of it.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use axum::{Json, extract::State};
use http::{HeaderMap, Uri};

use crate::{
    config::ConfigErrors, ingest::NotPaused, json::object, model::ids::StreamName,
    storage::StreamError,
};

use super::{
    EdgeState,
    problem::{Code, Problem},
    query::Query,
    wire,
};

/// What reads the configuration again: the composition root, or a test that has its answer ready.
#[async_trait]
pub trait Reloads: fmt::Debug + Send + Sync + 'static {
    /// Reads it, and applies all of it or nothing.
    ///
    /// # Errors
    /// Each variant of [`ReloadError`] says what was applied.
    ///
    /// # Cancel safety
    /// A reload that has begun goes on when the call is dropped; only its answer is lost.
    async fn reload(&self) -> Result<Reloaded, ReloadError>;
}

/// What a reload came to. Keys are as they stand in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Keys whose new values count from now on.
    pub applied: Vec<String>,
    /// Keys that differ from what runs, and will until a restart.
    pub needs_restart: Vec<String>,
}

/// Why a reload came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The configuration is wrong; nothing was applied.
    #[error("the configuration is wrong: nothing of it is applied")]
    Invalid(#[source] ConfigErrors),
    /// A stream could not be made or changed; no setting was applied. Streams before it are as configured.
    #[error("stream {name} cannot be made or changed: no setting is applied")]
    Stream {
        /// The stream.
        name: StreamName,
        /// Why.
        source: StreamError,
    },
    /// Submissions did not end in time for streams to be changed; nothing was applied.
    #[error("{0}: nothing is applied")]
    Busy(#[from] NotPaused),
    /// The gateway stops; nothing was applied.
    #[error("the gateway is stopping: nothing is applied")]
    Stopping,
}

/// An empty body, or an empty object.
const BODY_BYTES_MAX: usize = 1 << 10;

pub(super) async fn reload(
    State(shared): State<Arc<EdgeState>>,
    uri: Uri,
    headers: HeaderMap,
    body: axum::body::Body,
) -> Result<Json<wire::Reloaded>, Problem> {
    Query::parse(&uri, &[])?;
    let body = shared.bodies.read(&headers, body, BODY_BYTES_MAX).await?;
    if !body.bytes.trim_ascii().is_empty() {
        match object::body(&body.bytes, &[]) {
            Ok((_, faults)) if faults.is_empty() => {}
            Ok((_, faults)) | Err(faults) => {
                return Err(Problem::invalid(Code::InvalidRequest, faults));
            }
        }
    }
    drop(body);
    let reloaded = shared.reloads.reload().await?;
    Ok(Json(wire::Reloaded {
        applied: reloaded.applied,
        needs_restart: reloaded.needs_restart,
    }))
}
