//! Log lines on standard error, and metrics.
//!
//! [`metrics`] has the one list of metric names. No line and no metric holds a payload, a header value or a secret.

mod json_line;
mod lines;
pub mod metrics;
mod process;
mod settings;

use std::{
    fmt,
    io::{IsTerminal, Write},
    panic,
    sync::{Arc, OnceLock},
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;
use tracing_subscriber::{EnvFilter, fmt::Subscriber, reload::Handle};

use self::{json_line::JsonLine, lines::Lines};
pub use self::{
    metrics::{Metrics, Samples, Source},
    settings::{LogFormat, Logging},
};

/// How long the process waits at its end for a slow reader of standard error.
const LAST_LINES_WAIT: Duration = Duration::from_secs(1);

/// A process has one log, because the subscriber of `tracing` is global.
static LINES: OnceLock<Lines> = OnceLock::new();

/// Sets the level of the log. Clones set the level of the same log.
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
                tracing::debug!("the log subscriber is gone; its level stays");
            }
        });
        Self {
            choose: Some(choose),
            lines,
        }
    }

    /// Applies `logging.level` from now on; does nothing if another subscriber is set up.
    pub fn set(&self, logging: &Logging) {
        if let Some(choose) = &self.choose {
            choose(filter(logging));
        }
    }

    /// Returns the counter of lines that were dropped because standard error was not read fast enough.
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

/// Sets up the log on standard error and returns its level. Panics become log lines, too. A second call does nothing.
///
/// A thread writes the lines, so no caller waits for standard error. [`last_words`] and [`flush`] wait for that
/// thread.
///
/// # Errors
/// The thread cannot be started; there is no log then.
pub fn log_to_stderr(logging: &Logging) -> std::io::Result<LogLevel> {
    if LINES.get().is_some() {
        tracing::debug!("the log is already set up");
        return Ok(LogLevel::default());
    }
    let lines = Lines::to_stderr()?;
    let builder = Subscriber::builder()
        .with_env_filter(filter(logging))
        .with_writer(lines.clone())
        .with_ansi(takes_colours(&std::io::stderr()))
        // The subscriber would report a failed write on the same standard error, and panic when that fails too.
        .log_internal_errors(false);
    let (set, level) = match logging.format {
        LogFormat::Text => {
            let builder = builder.with_filter_reloading();
            let level = LogLevel::of(builder.reload_handle(), lines.clone());
            let set = tracing::subscriber::set_global_default(builder.finish());
            (set, level)
        }
        LogFormat::Json => {
            // Spans must have no escape sequences for colours in JSON.
            let builder = builder.with_ansi(false).event_format(JsonLine);
            let builder = builder.with_filter_reloading();
            let level = LogLevel::of(builder.reload_handle(), lines.clone());
            let set = tracing::subscriber::set_global_default(builder.finish());
            (set, level)
        }
    };
    if set.is_err() || LINES.set(lines).is_err() {
        tracing::debug!("the log is already set up");
        return Ok(LogLevel::default());
    }
    // The default hook writes to standard error itself, so a panicking thread would wait for its reader.
    panic::set_hook(Box::new(log_panic));
    Ok(level)
}

/// Returns whether to colour an output: it is a terminal, `TERM` is set and not `dumb`, and `NO_COLOR` is unset or
/// empty (<https://no-color.org>).
pub fn takes_colours(output: &impl IsTerminal) -> bool {
    let said = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let knows = said("TERM").is_some_and(|term| term != "dumb");
    output.is_terminal() && knows && said("NO_COLOR").is_none()
}

/// Waits until the log lines are written, one second at most. For the end of the process.
pub fn flush() {
    if let Some(lines) = LINES.get() {
        lines.flush(LAST_LINES_WAIT);
    }
}

/// Writes lines to standard error after those of the log, and waits until they are written, one second at most.
pub fn last_words(text: &str) {
    match LINES.get() {
        Some(lines) => {
            // Ignore dropped lines: the process ends, and nothing would report them.
            lines.flush(LAST_LINES_WAIT);
            lines.push(text.as_bytes());
            lines.flush(LAST_LINES_WAIT);
        }
        None => {
            // Ignore a closed standard error: the exit code still tells the result.
            let _told = std::io::stderr().write_all(text.as_bytes()).is_ok();
        }
    }
}

/// Logs a panic with its source location. The text is logged only if it is a constant, because a text made at run
/// time may quote a payload or a header.
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
