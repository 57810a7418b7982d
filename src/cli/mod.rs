//! The command line: one file per command.
//!
//! Commands that talk to a gateway use only its public HTTP routes. `verify --data`, `doctor` and `backup` read a data
//! directory. Results go to standard output; notes, warnings and errors go to standard error.
//!
//! Shared parts: `client` (HTTP), `pages` (lists in pages), `refusal` (a problem in the words of the command line), `next` (the
//! command to run next), `output` (tables, colours, escaping, questions), `reader` (the reader of standard output), `when` (times).

mod backup;
mod check;
mod client;
mod completions;
mod config;
mod cursors;
mod data_streams;
mod demo;
mod docs;
mod doctor;
mod healthcheck;
mod login;
mod man;
mod next;
mod output;
mod pages;
mod reader;
mod records;
mod refusal;
mod reload;
mod retry;
mod serve;
mod status;
mod streams;
mod sync;
mod tail;
mod target;
mod verify;
mod when;

use std::{env::VarError, error::Error, fmt, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use rustix::fs::Mode;
use url::Url;

use self::{client::Client, login::Login};
use crate::{
    config::{Loaded, Overrides, Sources, load},
    telemetry,
};

/// How long the end waits for threads that are still blocked. Everything durable was closed before.
const RUNTIME_PATIENCE: Duration = Duration::from_secs(1);

/// A durable gateway between applications that change data and the REST APIs that must hear of it.
///
/// Without a command it serves, as `serve` does.
#[derive(Debug, Parser)]
#[command(name = "syncgate", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::Arguments,
    /// Format of standard output.
    #[arg(long, global = true, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the gateway.
    Serve(serve::Arguments),
    /// Shows the whole flow with a target of its own, in a temporary directory.
    Demo(demo::Arguments),
    /// Checks a configuration and lists every error in it.
    Check(serve::Arguments),
    /// Shows what is wrong, and which command comes next.
    ///
    /// The exit code is 0 if all is well, and 1 if there is a problem or no answer.
    ///
    /// Problems come first, the worst first. STATE is the state of a target's breaker, and SINCE its age: closed (calls
    /// begin), open (no call begins), half-open (one call probes). PENDING counts records that wait for their dispatch, FAILED
    /// those that wait in an error stream for a retry. OLDEST is the longest of these waits. LAST CAUSE says why the last call
    /// failed, and how long ago. Open records are grouped by stream, target and cause: COUNT is their number, FIRST the age of
    /// the first call of the oldest, LAST the age of the newest in the stream. `N behind` counts the open or unread records
    /// before a reader. The last line of a page says if it was cut to fit the terminal.
    Status(status::Arguments),
    /// Posts a message, an array of messages, or one message a line (NDJSON) to a running gateway.
    Sync(sync::Arguments),
    /// Dispatches records of a stream again, by POST /stream/retry.
    Retry(retry::Arguments),
    /// Shows the settings: all defaults, or those in effect and where each was set.
    #[command(subcommand)]
    Config(config::Command),
    /// Lists, shows, creates, changes, purges and removes streams.
    #[command(subcommand)]
    Streams(streams::Command),
    /// Shows records of a stream, with the cause of those in error streams.
    Records(records::Arguments),
    /// Lists, shows, creates and removes data streams, which subscribers read.
    #[command(subcommand)]
    DataStreams(data_streams::Command),
    /// Lists, moves and removes cursors, the last acknowledged positions of a data stream's clients.
    #[command(subcommand)]
    Cursors(cursors::Command),
    /// Prints the records of a data stream as they arrive, over WebSocket.
    Tail(tail::Arguments),
    /// Runs a small target for trials: it prints each call, and answers by the rules you give.
    Target(target::Arguments),
    /// Reloads the gateway's configuration (POST /v1/reload); lists the applied settings, and those that need a restart.
    Reload(reload::Arguments),
    /// Compares the records that came in with those settled and open; the exit code is 1 if they do not add up.
    Verify(verify::Arguments),
    /// Examines a data directory while no gateway uses it, lists the damage, and repairs what the options name.
    Doctor(doctor::Arguments),
    /// Copies a data directory while its gateway runs, and restores a copy.
    #[command(subcommand)]
    Backup(backup::Command),
    /// Asks whether the gateway is ready (GET /readyz); the exit code is 1 if it is not.
    Healthcheck(healthcheck::Arguments),
    /// Prints the manual: the list of its pages, or one page.
    Docs(docs::Arguments),
    /// Prints the script that completes commands and options in a shell.
    Completions(completions::Arguments),
    /// Prints the manual pages of all commands.
    Man(man::Arguments),
}

/// Returns whether `tail` connects again after a close with this code.
#[cfg(test)]
pub(crate) fn connects_again_after(code: u16) -> bool {
    tail::connects_again_after(code)
}

/// Form of a command's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// One JSON document, or one a line.
    Json,
}

/// Finds the data directory as `serve` does with the same arguments and variables.
#[derive(Clone, Debug, Default, Args)]
struct DataDir {
    /// Configuration file; without it SYNCGATE_CONFIG names one, else no file is read.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory for everything durable (`data.dir`).
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl DataDir {
    fn settings(self) -> Result<Loaded, Failure> {
        let overrides = Overrides {
            data: self.data,
            ..Overrides::default()
        };
        settings(self.config, overrides)
    }
}

/// Reads the settings, as `serve` does. Every command that needs a data directory works with their `data.dir`.
fn settings(file: Option<PathBuf>, overrides: Overrides) -> Result<Loaded, Failure> {
    load(Sources::of_process(file, overrides)).map_err(Failure::usage)
}

const DEFAULT_URL: &str = "http://127.0.0.1:9002";

/// The gateway that a command talks to.
#[derive(Debug, Args)]
struct Gateway {
    /// Address of the gateway; the default scheme is http. Without this option SYNCGATE_URL counts, and without that variable
    /// http://127.0.0.1:9002. If the gateway has users, give user and password in SYNCGATE_USER and SYNCGATE_PASSWORD, or in
    /// the address: http://USER:PASSWORD@HOST:PORT.
    // Plain text, because clap's error for an invalid URL would print the password in it. SYNCGATE_URL is read here and not
    // by clap, because clap's usage lines show an option whose variable is set as required.
    #[arg(long)]
    url: Option<String>,
}

impl Gateway {
    fn client(&self) -> Result<Client, Failure> {
        let mut url = match &self.url {
            Some(url) => client::address(url)?,
            None => usual_address()?,
        };
        let login = Login::take(&mut url, |name| std::env::var_os(name))?;
        Ok(Client::new(&url, login)?.with_options(self.options()))
    }

    /// Returns whether `--url` has a user or a password.
    fn names_user(&self) -> bool {
        let own = self.url.as_deref().map(client::address);
        own.is_some_and(|url| url.is_ok_and(|url| client::without_login(url.clone()) != url))
    }

    /// Returns the `--url` that the next commands need for the same gateway: none if it is the usual address. A user and a
    /// password in the address are left out.
    fn options(&self) -> next::Options {
        let own = self.url.as_deref().map(client::address);
        let Some(Ok(own)) = own.map(|url| url.map(client::without_login)) else {
            return next::Options::default();
        };
        match usual_address().map(client::without_login) {
            Ok(usual) if usual == own => next::Options::default(),
            _ => {
                let url = own.as_str().trim_end_matches('/').to_owned();
                next::Options::given([("--url", url)])
            }
        }
    }
}

/// Returns the address in effect without `--url`.
fn usual_address() -> Result<Url, Failure> {
    match std::env::var("SYNCGATE_URL") {
        Ok(url) => client::address(&url),
        Err(VarError::NotPresent) => client::address(DEFAULT_URL),
        Err(VarError::NotUnicode(_)) => Err(Failure::usage("SYNCGATE_URL is not UTF-8")),
    }
}

/// Why a command failed; the code is the exit code of the process.
#[derive(Debug)]
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// The command did not do all of its work.
    fn failed(message: impl fmt::Display) -> Self {
        Self {
            code: 1,
            message: message.to_string(),
        }
    }

    /// Exit code 1 without a message, because the printed report says why.
    fn shown() -> Self {
        Self::failed("")
    }

    /// [`Failure::failed`] with the error's causes.
    fn failed_by(error: &dyn Error) -> Self {
        Self::failed(with_causes(error))
    }

    /// The gateway could not start.
    fn start(error: &dyn Error) -> Self {
        Self {
            code: 3,
            message: with_causes(error),
        }
    }

    /// [`Failure::start`] with the name of the part, for errors that do not say what they are about.
    fn start_by(what: &str, error: &dyn Error) -> Self {
        Self {
            code: 3,
            message: format!("{what}: {}", with_causes(error)),
        }
    }

    /// The arguments or the configuration are wrong.
    fn usage(message: impl fmt::Display) -> Self {
        Self {
            code: 2,
            message: message.to_string(),
        }
    }
}

fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let why = error.to_string();
        // Some errors include the text of their cause.
        if !text.ends_with(&why) {
            text = format!("{text}: {why}");
        }
        cause = error.source();
    }
    text
}

/// Runs a command; returns the exit code: 0 ok, 1 failed, 2 usage or configuration, 3 could not start.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    // The program's only TLS provider. An error means that it is installed already.
    drop(rustls::crypto::ring::default_provider().install_default());
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start threads: {error}");
            return ExitCode::from(3);
        }
    };
    let ended = runtime.block_on(command(cli));
    // A DNS lookup cannot be interrupted, and may take half a minute.
    runtime.shutdown_timeout(RUNTIME_PATIENCE);
    match ended {
        Ok(()) => {
            telemetry::flush();
            ExitCode::SUCCESS
        }
        Err(failure) => {
            let mut text = String::new();
            for (at, line) in failure.message.lines().enumerate() {
                let before = if at == 0 { "error: " } else { "       " };
                text += &output::said(&format!("{before}{line}"));
                text.push('\n');
            }
            telemetry::last_words(&text);
            ExitCode::from(failure.code)
        }
    }
}

/// Makes new files of this process private to its user, because sled, the index, sets no file mode.
fn make_private_files() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}

async fn command(cli: Cli) -> Result<(), Failure> {
    let output = cli.output;
    match cli.command {
        None => serve::run(cli.serve).await,
        Some(Command::Serve(arguments)) => serve::run(arguments).await,
        Some(Command::Demo(arguments)) => demo::run(arguments, output).await,
        Some(Command::Check(arguments)) => check::run(arguments, output),
        Some(Command::Config(command)) => config::run(command, output),
        Some(Command::Status(arguments)) => status::run(arguments, output).await,
        Some(Command::Sync(arguments)) => sync::run(arguments, output).await,
        Some(Command::Retry(arguments)) => retry::run(arguments, output).await,
        Some(Command::Streams(command)) => streams::run(command, output).await,
        Some(Command::Records(arguments)) => records::run(arguments, output).await,
        Some(Command::DataStreams(command)) => data_streams::run(command, output).await,
        Some(Command::Cursors(command)) => cursors::run(command, output).await,
        Some(Command::Tail(arguments)) => tail::run(arguments, output).await,
        Some(Command::Target(arguments)) => target::run(arguments, output).await,
        Some(Command::Reload(arguments)) => reload::run(arguments, output).await,
        Some(Command::Verify(arguments)) => verify::run(arguments, output).await,
        Some(Command::Doctor(arguments)) => doctor::run(arguments, output).await,
        Some(Command::Backup(command)) => backup::run(command, output).await,
        Some(Command::Healthcheck(arguments)) => healthcheck::run(arguments, output).await,
        Some(Command::Docs(arguments)) => docs::run(&arguments, output),
        Some(Command::Completions(arguments)) => completions::run(&arguments, output),
        Some(Command::Man(arguments)) => man::run(&arguments, output),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
