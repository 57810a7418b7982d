//! The command line: one file per command.
//!
//! Commands that talk to a gateway use its public HTTP routes and nothing else; `verify --data`, `doctor` and `backup` are those that
//! work with a data directory. What a command finds goes to standard
//! output, what it says about its work to standard error.

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

/// What threads that are still blocked at the end have to finish; everything durable was closed before.
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
    /// Form of what is printed to standard output.
    #[arg(long, global = true, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the gateway.
    Serve(serve::Arguments),
    /// Shows the whole flow by itself, with a target of its own, in a temporary directory.
    Demo(demo::Arguments),
    /// Checks a configuration, and tells everything that is wrong with it.
    Check(serve::Arguments),
    /// Shows what is wrong, and which command comes next.
    ///
    /// The exit code is 0 if all is well, and 1 if there is a problem or no answer.
    ///
    /// Problems come first, the worst first. Of the targets, STATE is that of the breaker, since when it is so: closed (calls
    /// begin), open (none begins), half-open (one call probes). PENDING are records that wait for their dispatch, FAILED those
    /// that wait in an error stream for a retry, OLDEST is how long the first of both waits, LAST CAUSE why the last call
    /// failed and how long ago. Open records are told by stream, target and cause: COUNT says how many, FIRST how long ago the
    /// first of them was called, LAST how long ago the last came into the stream. A reader that is behind has so many open or
    /// unread records before it. A page that does not fit the terminal says so in its last line.
    Status(status::Arguments),
    /// Posts a message, an array of messages, or one message a line (NDJSON) to a running gateway.
    Sync(sync::Arguments),
    /// Dispatches records of a stream again, by POST /stream/retry.
    Retry(retry::Arguments),
    /// Shows the settings: all defaults, or those that count and where each was said.
    #[command(subcommand)]
    Config(config::Command),
    /// Lists, shows, creates, changes, purges and removes streams.
    #[command(subcommand)]
    Streams(streams::Command),
    /// Shows records of a stream, with the cause of those in error streams.
    Records(records::Arguments),
    /// Lists, shows, makes and removes data streams: streams as clients see them that subscribe.
    #[command(subcommand)]
    DataStreams(data_streams::Command),
    /// Lists, moves and removes cursors: how far the clients of a data stream have come.
    #[command(subcommand)]
    Cursors(cursors::Command),
    /// Prints the records of a data stream as they come, over WebSocket.
    Tail(tail::Arguments),
    /// Runs a small target for trying things: it prints each call it gets, and answers as it is told.
    Target(target::Arguments),
    /// Lets the gateway read its configuration again (POST /v1/reload); tells what counts now and what needs a restart.
    Reload(reload::Arguments),
    /// Shows what came in, how it ended and what waits, and whether that adds up; tells it by the exit code.
    Verify(verify::Arguments),
    /// Looks at a data directory that no gateway works with, says what is damaged, and mends what it is asked to.
    Doctor(doctor::Arguments),
    /// Copies a data directory while its gateway runs, and puts a copy in its place again.
    #[command(subcommand)]
    Backup(backup::Command),
    /// Asks whether the gateway is ready (GET /readyz); tells it by the exit code.
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

/// Names the data directory of a gateway that is started with the same arguments and variables.
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

/// Which gateway to talk to.
#[derive(Debug, Args)]
struct Gateway {
    /// Address of the gateway; without a scheme it is http. Without this option it is that of SYNCGATE_URL, and without that
    /// variable http://127.0.0.1:9002. Where the gateway has users, SYNCGATE_USER and SYNCGATE_PASSWORD say who asks, or the
    /// address does: http://USER:PASSWORD@HOST:PORT.
    // A text, as the errors of the command line would show the password of an address that is none. The variable is not
    // clap's, whose usage lines show an option with a variable that is set as one that must be given.
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

    /// Returns what the next commands need to ask the same gateway: nothing if they find the address by themselves. A user
    /// and a password of the address are not shown.
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

/// Returns the address that counts without --url.
fn usual_address() -> Result<Url, Failure> {
    match std::env::var("SYNCGATE_URL") {
        Ok(url) => client::address(&url),
        Err(VarError::NotPresent) => client::address(DEFAULT_URL),
        Err(VarError::NotUnicode(_)) => Err(Failure::usage("SYNCGATE_URL is not UTF-8")),
    }
}

/// How a command ended that did not succeed; the code is the process's exit code.
#[derive(Debug)]
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// What was to be done was not done, or not all of it.
    fn failed(message: impl fmt::Display) -> Self {
        Self {
            code: 1,
            message: message.to_string(),
        }
    }

    /// What was printed says it all.
    fn shown() -> Self {
        Self::failed("")
    }

    /// As [`Failure::failed`], with the causes.
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

    /// As [`Failure::start`], for something that has no words of its own for what it is.
    fn start_by(what: &str, error: &dyn Error) -> Self {
        Self {
            code: 3,
            message: format!("{what}: {}", with_causes(error)),
        }
    }

    /// The command was asked for in a wrong way, or the configuration is wrong.
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
        // Some say their cause themselves.
        if !text.ends_with(&why) {
            text = format!("{text}: {why}");
        }
        cause = error.source();
    }
    text
}

/// Runs what the arguments ask for; returns the exit code: 0 ok, 1 failed, 2 usage or configuration, 3 could not start.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    // The only TLS provider in the program; a second call would find the first one's and change nothing.
    drop(rustls::crypto::ring::default_provider().install_default());
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no threads can be started: {error}");
            return ExitCode::from(3);
        }
    };
    let ended = runtime.block_on(command(cli));
    // A name that is being looked up cannot be interrupted, and may take half a minute.
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

/// From now on what this process makes is for its user alone; sled, the index, asks for no mode of its own.
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
