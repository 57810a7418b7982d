//! What the gateway tells about itself: log lines on standard error, and metrics.
//!
//! [`metrics`] holds the one list of metric names. Nothing here knows a payload, a header value or a secret.

pub mod metrics;
mod process;

use std::{fmt, io::IsTerminal, panic, sync::Arc};

use tracing_subscriber::{EnvFilter, fmt::Subscriber, reload::Handle};

pub use self::metrics::{Metrics, Samples, Source};
use crate::config::{LogFormat, Logging};

/// Chooses which log lines are shown. Clones choose for the same log.
#[derive(Clone, Default)]
pub struct LogLevel(Option<Arc<Choose>>);

type Choose = dyn Fn(EnvFilter) + Send + Sync;

impl LogLevel {
    fn of<S: 'static>(handle: Handle<EnvFilter, S>) -> Self {
        Self(Some(Arc::new(move |filter| {
            if handle.reload(filter).is_err() {
                tracing::debug!("the log is gone");
            }
        })))
    }

    /// Shows what `logging.level` says from now on. Without a log of ours nothing changes.
    pub fn set(&self, logging: &Logging) {
        if let Some(choose) = &self.0 {
            choose(filter(logging));
        }
    }
}

impl fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogLevel").finish_non_exhaustive()
    }
}

/// Sends log lines to standard error from now on, and returns what chooses among them later. A second call does nothing: a
/// process has one log.
pub fn log_to_stderr(logging: &Logging) -> LogLevel {
    let lines = Subscriber::builder()
        .with_env_filter(filter(logging))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // It would tell of a failed write on the same standard error, and panic when that fails too.
        .log_internal_errors(false);
    let (set, level) = match logging.format {
        LogFormat::Text => {
            let lines = lines.with_filter_reloading();
            let level = LogLevel::of(lines.reload_handle());
            (
                tracing::subscriber::set_global_default(lines.finish()),
                level,
            )
        }
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_filter_reloading();
            let level = LogLevel::of(lines.reload_handle());
            (
                tracing::subscriber::set_global_default(lines.finish()),
                level,
            )
        }
    };
    if set.is_err() {
        tracing::debug!("the log was set up before");
        return LogLevel::default();
    }
    panic::set_hook(Box::new(log_panic));
    level
}

/// Tells of a panic and its place. Its text is told only if it is a constant, because a text that is made at run time may
/// quote a payload or a header.
fn log_panic(panic: &panic::PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string);
    let text = panic.payload().downcast_ref::<&'static str>();
    let thread = std::thread::current();
    let backtrace = std::backtrace::Backtrace::capture();
    let backtrace = match backtrace.status() {
        std::backtrace::BacktraceStatus::Captured => backtrace.to_string(),
        _ => String::new(),
    };
    tracing::error!(place, text, thread = thread.name(), backtrace, "panic");
}

fn filter(logging: &Logging) -> EnvFilter {
    EnvFilter::builder().parse_lossy(&logging.level)
}
