//! `syncgate sync FILE|-`: posts messages to a running gateway in batches, and counts those it accepted.
//!
//! Each batch has its own idempotency key, so it can be sent again after a lost answer, and by another run over the same file.

mod batches;
mod done;
mod send;

use std::{
    fs::{self, File},
    io::{self, BufReader, IsTerminal, Read},
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
};

use clap::Args;
use data_encoding::HEXLOWER;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::spawn_blocking;

use self::{
    batches::Batches,
    done::{Done, Stop},
    send::Sender,
};
use super::{Failure, Gateway, Output, client::Client, output, serve::Stops};
use crate::{
    ingest::IdempotencyKey,
    runtime::files::{self, VALUE_BYTES_MAX},
};

const TOKEN_HEADER: &str = "authorization";
/// Printed if --url has a user. A user of the environment is not mentioned, because it serves the other commands.
const NO_USER: &str = "note: posting messages needs no user, so the user and password of --url are not sent or checked";
/// Longest prefix; a hyphen and the number of a batch follow it.
const PREFIX_BYTES_MAX: usize = 200;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A file with one message, an array of messages, or one message a line; `-` is standard input.
    file: PathBuf,
    #[command(flatten)]
    gateway: Gateway,
    /// File with the token for the targets, sent as a header; the gateway stores it sealed.
    #[arg(long, value_name = "FILE", conflicts_with = "token_env")]
    token_file: Option<PathBuf>,
    /// Environment variable with that token. Without either, SYNCGATE_TOKEN is used if it is set.
    #[arg(long, value_name = "NAME")]
    token_env: Option<String>,
    /// Header of the token; the gateway's `sync.token_header`.
    #[arg(long, value_name = "HEADER", default_value = TOKEN_HEADER)]
    token_header: String,
    /// Prefix of the batches' idempotency keys. A run over the same file with the same prefix stores nothing twice. Without it
    /// the prefix is random, and printed if the run stops early.
    #[arg(long, value_name = "PREFIX", value_parser = prefix)]
    idempotency_prefix: Option<String>,
}

pub(super) async fn run(arguments: Arguments, output: Output) -> Result<(), Failure> {
    let client = arguments.gateway.client()?;
    if arguments.gateway.names_user() {
        output::say(NO_USER);
    }
    let token = token(&arguments)?;
    let prefix = match &arguments.idempotency_prefix {
        Some(prefix) => prefix.clone(),
        None => random_prefix()?,
    };
    let (reader, bytes): (Box<dyn Read + Send>, _) = if arguments.file.as_os_str() == "-" {
        (Box::new(io::stdin()), None)
    } else {
        let shown = arguments.file.display();
        let open = |error| Failure::usage(format!("{shown} cannot be read: {error}"));
        let kind = fs::metadata(&arguments.file).map_err(open)?;
        if kind.is_dir() || kind.file_type().is_socket() {
            let what = if kind.is_dir() { "directory" } else { "socket" };
            return Err(Failure::usage(format!(
                "{shown} is a {what}, not a file with messages"
            )));
        }
        let file = File::open(&arguments.file).map_err(open)?;
        (Box::new(file), Some(kind.len()))
    };
    let mut stops = Stops::new()?;
    let mut done = Done::new(again(&arguments, &client, &prefix), prefix);
    let sender = Sender {
        client,
        token,
        token_header: arguments.token_header,
        bar: progress(bytes),
    };
    let ended = tokio::select! {
        biased;
        code = stops.next_code() => Err(Stop::signal(code)),
        ended = send_all(reader, &sender, &mut done) => ended,
    };
    sender.bar.finish_and_clear();
    done.print(ended, output)
}

/// Sends a file batch by batch.
async fn send_all(
    reader: Box<dyn Read + Send>,
    sender: &Sender,
    done: &mut Done,
) -> Result<(), Stop> {
    let reader = BufReader::new(reader);
    let mut batches = off_this_thread(move || Batches::open(reader)).await?;
    loop {
        // Reading may wait for a silent pipe.
        let read = off_this_thread(move || {
            let batch = batches.next_batch()?;
            Ok((batches, batch))
        });
        let batch;
        (batches, batch) = read.await?;
        let Some(batch) = batch else {
            return Ok(());
        };
        done.under_way = Some(batch.maybe_stored());
        let answer = sender.send(&batch, &done.next_key()).await;
        done.under_way = None;
        match answer {
            Ok(answer) => done.add(&batch, answer),
            Err(unsent) => return Err(Stop::refused(&batch, unsent)),
        }
        sender.bar.set_position(batches.bytes_read());
        let accepted = output::counted(done.accepted, "message");
        sender.bar.set_message(accepted);
    }
}

/// Reads on a thread that may wait.
async fn off_this_thread<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, Stop> {
    let read = spawn_blocking(read).await;
    let read = read.unwrap_or_else(|error| Err(format!("the input cannot be read: {error}")));
    read.map_err(Stop::unread)
}

/// Returns the command that sends the rest without storing anything twice.
fn again(arguments: &Arguments, client: &Client, prefix: &str) -> String {
    let shown = |path: &Path| path.display().to_string();
    let file = shown(&arguments.file);
    let token_file = arguments.token_file.as_deref().map(shown);
    let mut words = vec!["sync", &*file, "--idempotency-prefix", prefix];
    if let Some(file) = &token_file {
        words.extend(["--token-file", file]);
    }
    if let Some(name) = &arguments.token_env {
        words.extend(["--token-env", name]);
    }
    if arguments.token_header != TOKEN_HEADER {
        words.extend(["--token-header", &arguments.token_header]);
    }
    client.next(words)
}

fn prefix(text: &str) -> Result<String, String> {
    match IdempotencyKey::read(text.as_bytes()) {
        Some(_) if text.len() <= PREFIX_BYTES_MAX => Ok(text.to_owned()),
        _ => Err(format!(
            "give 1 to {PREFIX_BYTES_MAX} visible ASCII characters, without blanks"
        )),
    }
}

fn random_prefix() -> Result<String, Failure> {
    let mut random = [0; 12];
    getrandom::fill(&mut random).map_err(|error| {
        Failure::failed(format!(
            "no random numbers ({error}); give --idempotency-prefix"
        ))
    })?;
    Ok(format!("sync-{}", HEXLOWER.encode(&random)))
}

fn token(arguments: &Arguments) -> Result<Option<String>, Failure> {
    let text = match (&arguments.token_file, &arguments.token_env) {
        (Some(file), _) => files::read_text(file, VALUE_BYTES_MAX).map_err(|error| {
            Failure::usage(format!("{} cannot be read: {error}", file.display()))
        })?,
        (None, Some(name)) => std::env::var(name)
            .map_err(|error| Failure::usage(format!("--token-env {name}: {error}")))?,
        (None, None) => match std::env::var("SYNCGATE_TOKEN") {
            Ok(text) => text,
            Err(_) => return Ok(None),
        },
    };
    match text.trim() {
        "" => Err(Failure::usage("the token is empty")),
        token => Ok(Some(token.to_owned())),
    }
}

fn progress(bytes: Option<u64>) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match bytes {
        Some(bytes) => (
            ProgressBar::new(bytes),
            "{bar:30} {percent:>3} %  {msg}  {binary_bytes_per_sec}  {eta} left",
        ),
        None => (
            ProgressBar::new_spinner(),
            "{spinner} {msg}  {binary_bytes_per_sec}",
        ),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
