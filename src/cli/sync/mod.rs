//! `syncgate sync FILE|-`: posts messages to a running gateway, in batches, and says exactly how many it took.
//!
//! Each batch has an idempotency key of its own, so it may be sent again whatever became of it: after an answer that was
//! lost, and by another run over the same file.

mod batches;

use std::{
    fs::File,
    io::{self, BufReader, IsTerminal, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use data_encoding::HEXLOWER;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{Method, header::CONTENT_TYPE};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use self::batches::{Batch, Batches};
use super::{
    Failure, Gateway, Output,
    client::{Client, Error, Refusal},
    output,
    serve::Stops,
};
use crate::{
    files::{self, VALUE_BYTES_MAX},
    ingest::IdempotencyKey,
};

/// Exit code of a run that a signal has ended: 128 and the number of Ctrl-C, as shells have it.
const INTERRUPTED: u8 = 130;
const TOKEN_HEADER: &str = "authorization";
/// How often a batch is sent again.
const TRIES_MAX: u32 = 20;
/// Longest wait before that.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Longest prefix; a hyphen and the number of a batch come behind it.
const PREFIX_BYTES_MAX: usize = 200;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A file with one message, an array of messages, or one message a line; `-` is standard input.
    file: PathBuf,
    #[command(flatten)]
    gateway: Gateway,
    /// File with the token for the targets, sent along as a header; the gateway keeps it sealed.
    #[arg(long, value_name = "FILE", conflicts_with = "token_env")]
    token_file: Option<PathBuf>,
    /// Environment variable with that token. Without either, SYNCGATE_TOKEN is taken if it is set.
    #[arg(long, value_name = "NAME")]
    token_env: Option<String>,
    /// Header for the token; the gateway's `sync.token_header`.
    #[arg(long, value_name = "HEADER", default_value = TOKEN_HEADER)]
    token_header: String,
    /// What the idempotency keys of the batches begin with. A run over the same file with the same prefix stores nothing
    /// twice. Without it a random one is taken, and told if the run has to stop.
    #[arg(long, value_name = "PREFIX", value_parser = prefix)]
    idempotency_prefix: Option<String>,
}

pub(super) async fn run(arguments: Arguments, output: Output) -> Result<(), Failure> {
    let client = arguments.gateway.client()?;
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
        let file = File::open(&arguments.file).map_err(open)?;
        let bytes = file.metadata().map_err(open)?.len();
        (Box::new(file), Some(bytes))
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
        () = stops.next() => Err(Stop::signal()),
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
        // Reading may wait for a pipe, in which nothing comes.
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

/// Returns the command that sends the rest, and stores nothing twice.
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

/// Sends batches.
struct Sender {
    client: Client,
    token: Option<String>,
    token_header: String,
    bar: ProgressBar,
}

/// Why a batch has no success.
struct Unsent {
    error: Error,
    /// Some try of it may have been stored.
    maybe_stored: bool,
}

impl Sender {
    /// Sends a batch under its key until there is an answer that another try would not change.
    async fn send(&self, batch: &Batch, key: &str) -> Result<Value, Unsent> {
        let (mut tries, mut maybe_stored) = (0, false);
        loop {
            let mut request = self
                .client
                .request(Method::POST, &["stream", "sync"], &[])
                .header(CONTENT_TYPE, batch.content_type)
                .header("idempotency-key", key)
                .body(batch.body.clone());
            if let Some(token) = &self.token {
                request = request.header(&self.token_header, token);
            }
            let error = match self.client.send(request).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            maybe_stored |= may_be_stored(&error);
            let (what, wait) = match &error {
                _ if tries == TRIES_MAX => {
                    return Err(Unsent {
                        error,
                        maybe_stored,
                    });
                }
                Error::Refused(refusal) if is_passing(refusal) => {
                    (refusal.line(), refusal.retry_after)
                }
                Error::NoAnswer(why) => (why.clone(), None),
                // It was there before, so it may come back.
                Error::Unreachable(why) if tries > 0 => (why.clone(), None),
                Error::Refused(_) | Error::Unreachable(_) => {
                    return Err(Unsent {
                        error,
                        maybe_stored,
                    });
                }
            };
            tries += 1;
            let wait = wait.unwrap_or(Duration::from_secs(1)).min(WAIT_MAX);
            let secs = wait.as_secs();
            self.say(&format!("warning: {what}; sending it again in {secs} s"));
            tokio::time::sleep(wait).await;
        }
    }
}

impl Sender {
    /// Writes a line to standard error, above the bar if there is one.
    fn say(&self, line: &str) {
        match self.bar.is_hidden() {
            true => output::say(line),
            false => self.bar.println(output::said(line)),
        }
    }
}

/// Why not all was sent.
struct Stop {
    /// Exit code.
    code: u8,
    why: String,
    /// What became of what was not accepted; of a batch that is under way [`Done`] knows it.
    rest: Option<String>,
    /// Status and code of the gateway's answer, if there was one.
    answer: Option<(u16, String)>,
}

impl Stop {
    fn signal() -> Self {
        Self {
            code: INTERRUPTED,
            why: "stopped by a signal".into(),
            rest: None,
            answer: None,
        }
    }

    fn unread(why: String) -> Self {
        Self {
            code: 1,
            why,
            rest: Some("nothing from there on was sent".into()),
            answer: None,
        }
    }

    fn refused(batch: &Batch, unsent: Unsent) -> Self {
        let rest = match unsent.maybe_stored {
            true => batch.maybe_stored(),
            false => batch.not_stored(),
        };
        let (why, answer) = match unsent.error {
            Error::Unreachable(why) | Error::NoAnswer(why) => (why, None),
            Error::Refused(mut refusal) => {
                refusal.detail = batch.without_line(&refusal.detail);
                for (pointer, sentence) in &mut refusal.members {
                    *pointer = batch.name_place(pointer);
                    *sentence = batch.without_line(sentence);
                }
                let answer = (refusal.status.as_u16(), refusal.code.clone());
                (refusal.text(), Some(answer))
            }
        };
        Self {
            code: 1,
            why,
            rest: Some(rest),
            answer,
        }
    }
}

/// Whether another try may be answered otherwise.
fn is_passing(refusal: &Refusal) -> bool {
    matches!(
        refusal.code.as_str(),
        "queue_full" | "rate_limited" | "draining" | "idempotency_in_flight" | "maybe_stored"
    )
}

fn may_be_stored(error: &Error) -> bool {
    match error {
        Error::Unreachable(_) => false,
        Error::NoAnswer(_) => true,
        Error::Refused(refusal) => {
            let told = ["maybe_stored", "idempotency_in_flight"];
            told.contains(&refusal.code.as_str()) || refusal.status.as_u16() == 500
        }
    }
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

/// What was accepted until now.
#[derive(Debug)]
struct Done {
    prefix: String,
    /// The command that goes on.
    again: String,
    /// What a stop says of the batch that is under way, if there is one.
    under_way: Option<String>,
    accepted: u64,
    batches: u64,
    first: Option<Value>,
    last: Option<Value>,
    warnings: Vec<String>,
}

impl Done {
    fn new(again: String, prefix: String) -> Self {
        Self {
            prefix,
            again,
            under_way: None,
            accepted: 0,
            batches: 0,
            first: None,
            last: None,
            warnings: Vec::new(),
        }
    }

    /// Returns the idempotency key of the batch that comes next.
    fn next_key(&self) -> String {
        format!("{}-{}", self.prefix, self.batches + 1)
    }

    fn add(&mut self, batch: &Batch, mut answer: Value) {
        self.batches += 1;
        self.accepted += batch.messages_len();
        let results = match answer.get_mut("results").map(Value::take) {
            Some(Value::Array(results)) => results,
            _ => vec![answer],
        };
        for result in &results {
            let warnings = result.get("warnings").and_then(Value::as_array);
            for warning in warnings.into_iter().flatten() {
                let text = output::cell(warning, "/detail");
                if !self.warnings.contains(&text) && self.warnings.len() < 20 {
                    self.warnings.push(text);
                }
            }
        }
        let mut results = results.into_iter().filter(Value::is_object);
        let first = results.next();
        self.last = results
            .next_back()
            .or_else(|| first.clone())
            .or(self.last.take());
        self.first = self.first.take().or(first);
    }

    /// Prints what was accepted, also if not all was.
    fn print(self, ended: Result<(), Stop>, output: Output) -> Result<(), Failure> {
        for warning in &self.warnings {
            output::say(&format!("warning: {warning}"));
        }
        match (ended, output) {
            (Ok(()), Output::Text) => self.print_text(),
            (Ok(()), Output::Json) => output::print_json(&self.json()),
            (Err(stop), output) => {
                let failure = self.stopped(&stop);
                if output == Output::Json {
                    let mut report = self.json();
                    report["error"] = json!({
                        "detail": failure.message,
                        "status": stop.answer.as_ref().map(|(status, _)| status),
                        "code": stop.answer.as_ref().map(|(_, code)| code),
                    });
                    report["next"] = self.again.into();
                    output::print_json(&report)?;
                }
                Err(failure)
            }
        }
    }

    fn stopped(&self, stop: &Stop) -> Failure {
        let accepted = output::counted(self.accepted, "message");
        let rest = stop.rest.as_ref().or(self.under_way.as_ref());
        let rest = rest.map(|rest| format!("; {rest}")).unwrap_or_default();
        Failure {
            code: stop.code,
            message: format!(
                "{}\n{accepted} accepted before that{rest}\nto send the rest, and store nothing twice: {}",
                stop.why, self.again
            ),
        }
    }

    fn json(&self) -> Value {
        json!({
            "accepted": self.accepted,
            "batches": self.batches,
            "first": self.first,
            "last": self.last,
            "warnings": self.warnings,
        })
    }

    fn print_text(&self) -> Result<(), Failure> {
        let mut text = format!("{} accepted", output::counted(self.accepted, "message"));
        if self.batches > 1 {
            text = format!("{text} in {} batches", self.batches);
        }
        let place = |answer: &Value| {
            let part = |name| output::cell(answer, name);
            format!(
                "{}/{} offset {}",
                part("/stream"),
                part("/partition"),
                part("/offset")
            )
        };
        match (&self.first, &self.last) {
            (Some(only), _) if self.accepted == 1 && only.get("offset").is_some() => {
                text = format!(
                    "{text}: {}, message {}",
                    place(only),
                    output::cell(only, "/messageId")
                );
            }
            (Some(first), Some(last)) if first.get("offset").is_some() => {
                text = format!("{text}: first {}, last {}", place(first), place(last));
            }
            _ => {}
        }
        output::print(&format!("{text}\n"))
    }
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
