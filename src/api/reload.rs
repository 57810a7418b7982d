//! `POST /v1/reload`: reads the configuration again, and answers with the applied settings.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use axum::{Json, extract::State};
use http::{HeaderMap, Uri};

use crate::{
    config::{ConfigError, ConfigErrors, SettingPlace},
    ingest::NotPaused,
    json::object,
    model::ids::StreamName,
    storage::StreamError,
};

use super::{
    EdgeState,
    problem::{Code, Fault, Problem},
    query::Query,
    wire,
};

/// Reads the configuration again: the composition root, or a test with a fixed answer.
#[async_trait]
pub trait Reloads: fmt::Debug + Send + Sync + 'static {
    /// Reads the configuration, and applies all of it or nothing.
    ///
    /// # Errors
    /// Each variant of [`ReloadError`] says what was applied.
    ///
    /// # Cancel safety
    /// A reload that has begun goes on when the call is dropped; only its answer is lost.
    async fn reload(&self) -> Result<Reloaded, ReloadError>;
}

/// Result of a reload. Keys are spelled as in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Keys with new values in use.
    pub applied: Vec<String>,
    /// Keys whose new values need a restart.
    pub needs_restart: Vec<String>,
}

/// Why a reload failed.
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
        /// The reason.
        source: StreamError,
    },
    /// Submissions did not end in time for streams to be changed; nothing was applied.
    #[error("{0}: nothing is applied")]
    Busy(#[from] NotPaused),
    /// The gateway stops; nothing was applied.
    #[error("the gateway is stopping: nothing is applied")]
    Stopping,
}

/// Bytes of a body, which is empty or an empty object.
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

impl From<ReloadError> for Problem {
    fn from(error: ReloadError) -> Self {
        let detail = error.to_string();
        match error {
            ReloadError::Invalid(wrong) => Self {
                errors: wrong.0.into_iter().map(Fault::from).collect(),
                ..Self::new(Code::ConfigInvalid, detail)
            },
            ReloadError::Stream { source, .. } => {
                let why = Self::from(source);
                Self {
                    detail: format!("{detail} ({})", why.detail),
                    ..why
                }
            }
            ReloadError::Busy(_) => Self::new(Code::QueueFull, detail).retry_after(5),
            ReloadError::Stopping => Self::draining(),
        }
    }
}

impl From<ConfigError> for Fault {
    fn from(error: ConfigError) -> Self {
        Self {
            detail: match error.place {
                SettingPlace::Default => error.message,
                place => format!("{place}: {}", error.message),
            },
            pointer: error.key,
            code: "setting_invalid",
        }
    }
}
