//! `syncgate sync FILE|-`: posts messages to a running gateway, in batches, and says exactly how many it took.

mod batches;

use std::{
    fs::File,
    io::{self, BufReader, IsTerminal, Read},
    path::PathBuf,
    time::Duration,
};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{Method, header::CONTENT_TYPE};
use serde_json::{Value, json};

use self::batches::{Batch, Batches};
use super::{
    Failure, Gateway, Output,
    client::{Client, Error, Refusal},
    output,
};

/// How often a batch is sent again that the gateway had no room for.
const BUSY_TRIES_MAX: u32 = 20;
/// Longest wait before that.
const BUSY_WAIT_MAX: Duration = Duration::from_secs(30);

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
}

pub(super) async fn run(arguments: Arguments, output: Output) -> Result<(), Failure> {
    let client = arguments.gateway.client()?;
    let token = token(&arguments)?;
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
    let mut done = Done::default();
    loop {
        let batch = match batches.next_batch() {
            Ok(Some(batch)) => batch,
            Ok(None) => break,
            Err(why) => {
                bar.finish_and_clear();
                return Err(done.stopped(&why, "nothing from there on was sent"));
            }
        };
        match send(
            &client,
            &batch,
            token.as_deref(),
            &arguments.token_header,
            &bar,
        )
        .await
        {
            Ok(answer) => done.add(&batch, answer),
            Err(error) => {
                bar.finish_and_clear();
                return Err(done.refused(&batch, &error));
            }
        }
        bar.set_position(batches.bytes_read());
        bar.set_message(output::counted(done.accepted, "message"));
    }
    bar.finish_and_clear();
    done.print(output)
}

async fn send(
    client: &Client,
    batch: &Batch,
    token: Option<&str>,
    token_header: &str,
    bar: &ProgressBar,
) -> Result<Value, Error> {
    let mut tries = 0;
    loop {
        let mut request = client
            .request(Method::POST, &["stream", "sync"], &[])
            .header(CONTENT_TYPE, batch.content_type)
            .body(batch.body.clone());
        if let Some(token) = token {
            request = request.header(token_header, token);
        }
        let error = match client.send(request).await {
            Err(Error::Refused(refusal)) if tries < BUSY_TRIES_MAX && is_busy(&refusal) => refusal,
            answer => return answer,
        };
        // These answers say that nothing was stored, so sending it again doubles nothing.
        tries += 1;
        let wait = error
            .retry_after
            .unwrap_or(Duration::from_secs(1))
            .min(BUSY_WAIT_MAX);
        bar.println(format!(
            "the gateway is busy ({}), waiting {} s",
            error.code,
            wait.as_secs()
        ));
        tokio::time::sleep(wait).await;
    }
}

fn is_busy(refusal: &Refusal) -> bool {
    matches!(
        refusal.code.as_str(),
        "queue_full" | "rate_limited" | "draining"
    )
}

/// What was accepted until now.
#[derive(Debug, Default)]
struct Done {
    accepted: u64,
    batches: u64,
    first: Option<Value>,
    last: Option<Value>,
    warnings: Vec<String>,
}

impl Done {
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
        Failure::failed(format!("{why}\n{accepted} accepted before that; {rest}"))
    }

    fn refused(&self, batch: &Batch, error: &Error) -> Failure {
        let (why, rest) = match error {
            Error::Unreachable(why) => (why.clone(), batch.not_stored()),
            Error::NoAnswer(why) => (why.clone(), batch.maybe_stored()),
            Error::Refused(refusal) => {
                let mut named = refusal.clone();
                for (pointer, _) in &mut named.members {
                    *pointer = batch.name_place(pointer);
                }
                let rest = if refusal.code == "maybe_stored" || refusal.status.as_u16() == 500 {
                    batch.maybe_stored()
                } else {
                    batch.not_stored()
                };
                (named.text(), rest)
            }
        };
        self.stopped(&why, &rest)
    }

    fn print(self, output: Output) -> Result<(), Failure> {
        for warning in &self.warnings {
            eprintln!("warning: {warning}");
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
            text = format!("{text} in {} batches", output::grouped(self.batches));
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
        (Some(file), _) => std::fs::read_to_string(file).map_err(|error| {
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
