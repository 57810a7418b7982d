//! `syncgate records STREAM`: what is in a stream, and why it is in an error stream.

use clap::Args;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{
    Failure, Gateway, Output,
    output::{self, Table, cell, counted},
    when,
};
use crate::loose;

/// A page of records. Each record stays as it was written: JSON allows payloads that a [`Value`] cannot hold.
#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
    next: Value,
    earliest: Value,
    tail: Value,
}

/// What is shown of a record.
#[derive(Deserialize)]
struct Item<'a> {
    offset: Value,
    time: Value,
    key: Option<Value>,
    finished: Option<bool>,
    cause: Option<Value>,
    waiting: Option<Value>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
}

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Name of the stream.
    stream: String,
    #[command(flatten)]
    gateway: Gateway,
    /// The partition.
    #[arg(long, value_name = "P", default_value = "0")]
    partition: String,
    /// First offset, `earliest`, or `tail`.
    #[arg(long, value_name = "OFFSET", conflicts_with = "at")]
    from: Option<String>,
    /// First time: 2026-12-01T07:00:00Z, 2026-12-01, 10m, "1h ago" (UTC).
    #[arg(long, value_name = "TIME", value_parser = when::time)]
    at: Option<String>,
    /// Most records, 1 to 1000.
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u16,
    /// Only records without an end: those that wait for their dispatch or for a retry.
    #[arg(long)]
    open: bool,
}

pub(super) async fn run(arguments: Arguments, output: Output) -> Result<(), Failure> {
    let mut query = vec![("limit", arguments.limit.to_string())];
    query.extend(arguments.from.map(|from| ("from", from)));
    query.extend(arguments.at.map(|at| ("at", at)));
    query.extend(arguments.open.then(|| ("open", "true".to_owned())));
    let path = [
        "v1",
        "streams",
        &arguments.stream,
        "partitions",
        &arguments.partition,
        "records",
    ];
    let client = arguments.gateway.client()?;
    let request = client.request(Method::GET, &path, &query);
    let text = client.send_for_text(request).await?;
    let unread = |_| Failure::failed(format!("{} sent no page of records", client.base()));
    let page: Page<'_> = serde_json::from_str(&text).map_err(unread)?;
    if output == Output::Json {
        // A line's end can only stand between tokens: in a string it would not be JSON.
        let line = text.replace(['\n', '\r'], " ");
        return output::print_json_line(&line);
    }
    let mut table = Table::new(&[
        ">OFFSET",
        "TIME",
        "KEY",
        "OPERATION",
        "TARGET",
        "END",
        "CAUSE",
    ]);
    for item in &page.items {
        let item: Item<'_> = serde_json::from_str(item.get()).map_err(unread)?;
        let message = item.value.and_then(|value| loose::members(value.get()));
        let message = message.unwrap_or_default();
        let text = |name: &str| {
            let text = loose::member(&message, name).and_then(loose::string);
            text.unwrap_or_default().into_owned()
        };
        table.row([
            cell(&item.offset, ""),
            cell(&item.time, ""),
            cell(&item.key.unwrap_or_default(), ""),
            text("targetRestApiOperation"),
            text("targetRestApi"),
            finished(item.finished),
            cause(
                &item.cause.unwrap_or_default(),
                &item.waiting.unwrap_or_default(),
            ),
        ]);
    }
    let (earliest, tail) = (cell(&page.earliest, ""), cell(&page.tail, ""));
    let mut text = format!("{}earliest {earliest}, tail {tail}", table.text());
    if !page.next.is_null() {
        text = format!("{text}, go on with --from {}", cell(&page.next, ""));
    }
    output::print(&format!("{text}\n"))
}

/// In a stream that is dispatched: delivered, or in an error stream; in an error stream: redriven.
fn finished(finished: Option<bool>) -> String {
    match finished {
        Some(true) => "yes".to_owned(),
        Some(false) => "no".to_owned(),
        None => String::new(),
    }
}

/// `status 404: the target answered 404 Not Found`, `connect: connection refused`; of a record that waits to be called again
/// `status 429: 2 calls, again at 2026-01-02T03:04:05Z`.
fn cause(of_record: &Value, waiting: &Value) -> String {
    let words = |cause: &Value| {
        let [class, status, reason] =
            ["/class", "/status", "/reason"].map(|part| cell(cause, part));
        let mut text = class;
        for (separator, part) in [(" ", status), (": ", reason)] {
            if !part.is_empty() {
                text = format!("{text}{separator}{part}");
            }
        }
        text
    };
    match waiting["attempts"].as_u64() {
        Some(attempts) => format!(
            "{}: {}, again at {}",
            words(&waiting["cause"]),
            counted(attempts, "call"),
            cell(waiting, "/due")
        ),
        None => words(of_record),
    }
}
