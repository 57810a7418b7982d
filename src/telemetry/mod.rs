//! What the gateway tells about itself: log lines on standard error, and metrics.
//!
//! [`metrics`] holds the one list of metric names. Nothing here knows a payload, a header value or a secret.

pub mod metrics;
mod process;

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt};

pub use self::metrics::{Metrics, Samples, Source};
use crate::config::{LogFormat, Logging};

/// Sends log lines to standard error from now on. A second call does nothing: a process has one log.
pub fn log_to_stderr(logging: &Logging) {
    let filter = EnvFilter::builder().parse_lossy(&logging.level);
    let lines = fmt::Subscriber::builder()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // It would tell of a failed write on the same standard error, and panic when that fails too.
        .log_internal_errors(false);
    let set = match logging.format {
        LogFormat::Text => tracing::subscriber::set_global_default(lines.finish()),
        LogFormat::Json => {
            tracing::subscriber::set_global_default(lines.json().flatten_event(true).finish())
        }
    };
    if set.is_err() {
        tracing::debug!("the log was set up before");
    }
}
