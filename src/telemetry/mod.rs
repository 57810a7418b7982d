//! What the gateway tells about itself: log lines on standard error, and metrics.
//!
//! [`metrics`] holds the one list of metric names. Nothing here knows a payload, a header value or a secret.

mod json_line;
mod lines;
pub mod metrics;
mod process;

use std::{
    fmt,
    io::{IsTerminal, Write},
    panic,
    sync::{Arc, OnceLock},
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;
use tracing_subscriber::{EnvFilter, fmt::Subscriber, reload::Handle};

pub use self::metrics::{Metrics, Samples, Source};
use self::{json_line::JsonLine, lines::Lines};
use crate::config::{LogFormat, Logging};

/// How long the end of the process waits for a standard error that is read slowly, or not at all.
const LAST_LINES_WAIT: Duration = Duration::from_secs(1);

/// The process has one log: its subscriber is global, and so is what it writes to.
static LINES: OnceLock<Lines> = OnceLock::new();

/// Chooses which log lines are shown. Clones choose for the same log.
#[derive(Clone, Default)]
pub struct LogLevel {
    choose: Option<Arc<Choose>>,
    lines: Lines,
}

type Choose = dyn Fn(EnvFilter) + Send + Sync;

impl LogLevel {
    fn of<S: 'static>(handle: Handle<EnvFilter, S>, lines: Lines) -> Self {
        let choose: Arc<Choose> = Arc::new(move |filter| {
            if handle.reload(filter).is_err() {
                tracing::debug!("the log is gone");
            }
        });
        Self {
            choose: Some(choose),
            lines,
        }
    }

    /// Shows what `logging.level` says from now on. Without a log of ours nothing changes.
    pub fn set(&self, logging: &Logging) {
        if let Some(choose) = &self.choose {
            choose(filter(logging));
        }
    }

    /// Returns how many lines were dropped because nobody read them fast enough.
    #[must_use]
    pub fn dropped_lines(&self) -> &Counter {
        self.lines.dropped()
    }
}

impl fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogLevel").finish_non_exhaustive()
    }
}

/// Sends log lines to standard error from now on, and returns what chooses among them later. Panics are lines of the log, too.
/// A second call does nothing: a process has one log.
///
/// A thread writes the lines, so no caller waits for standard error. [`last_words`] and [`flush`] wait for that thread.
///
/// # Errors
/// If the thread cannot be started; there is no log then.
pub fn log_to_stderr(logging: &Logging) -> std::io::Result<LogLevel> {
    if LINES.get().is_some() {
        tracing::debug!("the log was set up before");
        return Ok(LogLevel::default());
    }
    let lines = Lines::to_stderr()?;
    let builder = Subscriber::builder()
        .with_env_filter(filter(logging))
        .with_writer(lines.clone())
        .with_ansi(takes_colours(&std::io::stderr()))
        // It would tell of a failed write on the same standard error, and panic when that fails too.
        .log_internal_errors(false);
    let (set, level) = match logging.format {
        LogFormat::Text => {
            let builder = builder.with_filter_reloading();
            let level = LogLevel::of(builder.reload_handle(), lines.clone());
            let set = tracing::subscriber::set_global_default(builder.finish());
            (set, level)
        }
        LogFormat::Json => {
            // No escapes for colours in the text of a span.
            let builder = builder.with_ansi(false).event_format(JsonLine);
            let builder = builder.with_filter_reloading();
            let level = LogLevel::of(builder.reload_handle(), lines.clone());
            let set = tracing::subscriber::set_global_default(builder.finish());
            (set, level)
        }
    };
    if set.is_err() || LINES.set(lines).is_err() {
        tracing::debug!("the log was set up before");
        return Ok(LogLevel::default());
    }
    // The usual hook writes to standard error itself, so a thread that panics would wait for who reads it.
    panic::set_hook(Box::new(log_panic));
    Ok(level)
}

/// Returns whether an output shows colours: it is a terminal that knows them (`TERM` is set, and not `dumb`), and nobody has
/// said no by `NO_COLOR` (<https://no-color.org>: set and not empty).
pub fn takes_colours(output: &impl IsTerminal) -> bool {
    let said = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let knows = said("TERM").is_some_and(|term| term != "dumb");
    output.is_terminal() && knows && said("NO_COLOR").is_none()
}

/// Waits until the log's lines are written, one second at most. For the end of the process.
pub fn flush() {
    if let Some(lines) = LINES.get() {
        lines.flush(LAST_LINES_WAIT);
    }
}

/// Writes lines to standard error behind those of the log, and waits for that, one second at most.
pub fn last_words(text: &str) {
    match LINES.get() {
        Some(lines) => {
            // What is dropped here is counted, and nobody is left to be told.
            lines.flush(LAST_LINES_WAIT);
            lines.push(text.as_bytes());
            lines.flush(LAST_LINES_WAIT);
        }
        None => {
            // A command whose standard error is closed has still its exit code.
            let _told = std::io::stderr().write_all(text.as_bytes()).is_ok();
        }
    }
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
