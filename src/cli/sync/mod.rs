//! `syncgate sync FILE|-`: posts messages to a running gateway, in batches, and says exactly how many it took.
//!
//! Each batch has an idempotency key of its own, so it may be sent again whatever became of it: after an answer that was
//! lost, and by another run over the same file.

mod batches;

use std::{
    fs::File,
    io::{self, BufReader, IsTerminal, Read},
    path::PathBuf,
    time::Duration,
};

use clap::Args;
use data_encoding::HEXLOWER;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{Method, header::CONTENT_TYPE};
use serde_json::{Value, json};

use self::batches::{Batch, Batches};
use super::{
    Failure, Gateway, Output,
    client::{Client, Error, Refusal},
    escape, output,
};
use crate::{
    files::{self, VALUE_BYTES_MAX},
    ingest::IdempotencyKey,
};

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
    #[arg(long, value_name = "HEADER", default_value = "authorization")]
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
    let (reader, bytes): (Box<dyn Read>, _) = if arguments.file.as_os_str() == "-" {
        (Box::new(io::stdin().lock()), None)
    } else {
        let shown = arguments.file.display();
        let open = |error| Failure::usage(format!("{shown} cannot be read: {error}"));
        let file = File::open(&arguments.file).map_err(open)?;
        let bytes = file.metadata().map_err(open)?.len();
        (Box::new(file), Some(bytes))
    };
    let bar = progress(bytes);
    let mut batches = Batches::open(BufReader::new(reader)).map_err(Failure::failed)?;
    let sender = Sender {
        client,
        token,
        token_header: arguments.token_header,
        bar,
    };
    let mut done = Done::new(prefix);
    loop {
        let batch = match batches.next_batch() {
            Ok(Some(batch)) => batch,
            Ok(None) => break,
            Err(why) => {
                sender.bar.finish_and_clear();
                return Err(done.stopped(&why, "nothing from there on was sent"));
            }
        };
        match sender.send(&batch, &done.next_key()).await {
            Ok(answer) => done.add(&batch, answer),
            Err(unsent) => {
                sender.bar.finish_and_clear();
                return Err(done.refused(&batch, &unsent));
            }
        }
        sender.bar.set_position(batches.bytes_read());
        let accepted = output::counted(done.accepted, "message");
        sender.bar.set_message(accepted);
    }
    sender.bar.finish_and_clear();
    done.print(output)
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
                    let what = format!("the gateway answered {}", refusal.code);
                    (what, refusal.retry_after)
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
            let what = format!("{what}; sending it again in {secs} s");
            self.bar.println(escape::line(&what));
            tokio::time::sleep(wait).await;
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
    accepted: u64,
    batches: u64,
    first: Option<Value>,
    last: Option<Value>,
    warnings: Vec<String>,
}

impl Done {
    fn new(prefix: String) -> Self {
        Self {
            prefix,
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

    fn stopped(&self, why: &str, rest: &str) -> Failure {
        let accepted = output::counted(self.accepted, "message");
        let prefix = &self.prefix;
        Failure::failed(format!(
            "{why}\n{accepted} accepted before that; {rest}\nwith --idempotency-prefix {prefix} another run stores nothing twice"
        ))
    }

    fn refused(&self, batch: &Batch, unsent: &Unsent) -> Failure {
        let why = match &unsent.error {
            Error::Unreachable(why) | Error::NoAnswer(why) => why.clone(),
            Error::Refused(refusal) => {
                let mut named = refusal.clone();
                for (pointer, _) in &mut named.members {
                    *pointer = batch.name_place(pointer);
                }
                named.text()
            }
        };
        let rest = match unsent.maybe_stored {
            true => batch.maybe_stored(),
            false => batch.not_stored(),
        };
        self.stopped(&why, &rest)
    }

    fn print(self, output: Output) -> Result<(), Failure> {
        for warning in &self.warnings {
            output::say(&format!("warning: {warning}"));
        }
        if output == Output::Json {
            return output::print_json(&json!({
                "accepted": self.accepted,
                "batches": self.batches,
                "first": self.first,
                "last": self.last,
                "warnings": self.warnings,
            }));
        }
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
