//! `syncgate records STREAM`: what is in a stream, and why it is in an error stream.

use clap::Args;
use serde_json::Value;

use super::{
    Failure, Gateway, Output,
    output::{self, Table, cell, counted},
};

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
    /// First time, as in 2026-01-02T03:04:05Z.
    #[arg(long, value_name = "TIME")]
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
    let page = arguments.gateway.client()?.get(&path, &query).await?;
    if output == Output::Json {
        return output::print_json(&page);
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
    let items = page.get("items").and_then(Value::as_array);
    for item in items.into_iter().flatten() {
        table.row([
            cell(item, "/offset"),
            cell(item, "/time"),
            cell(item, "/key"),
            cell(item, "/value/targetRestApiOperation"),
            cell(item, "/value/targetRestApi"),
            finished(item),
            cause(item),
        ]);
    }
    let (earliest, tail) = (cell(&page, "/earliest"), cell(&page, "/tail"));
    let mut text = format!("{}earliest {earliest}, tail {tail}", table.text());
    if let Some(next) = page.get("next").filter(|next| !next.is_null()) {
        text = format!("{text}, go on with --from {}", cell(next, ""));
    }
    output::print(&format!("{text}\n"))
}

/// In a stream that is dispatched: delivered, or in an error stream; in an error stream: redriven.
fn finished(item: &Value) -> String {
    match item.get("finished").and_then(Value::as_bool) {
        Some(true) => "yes".to_owned(),
        Some(false) => "no".to_owned(),
        None => String::new(),
    }
}

/// `status 404: the target answered 404 Not Found`, `connect: connection refused`; of a record that waits to be called again
/// `status 429: 2 calls, again at 2026-01-02T03:04:05Z`.
fn cause(item: &Value) -> String {
    let of = |cause: &str| {
        let parts = ["class", "status", "reason"].map(|part| format!("{cause}/{part}"));
        let [class, status, reason] = parts.map(|part| cell(item, &part));
        let mut text = class;
        for (separator, part) in [(" ", status), (": ", reason)] {
            if !part.is_empty() {
                text = format!("{text}{separator}{part}");
            }
        }
        text
    };
    let attempts = item.pointer("/waiting/attempts").and_then(Value::as_u64);
    match attempts {
        Some(attempts) => format!(
            "{}: {}, again at {}",
            of("/waiting/cause"),
            counted(attempts, "call"),
            cell(item, "/waiting/due")
        ),
        None => of("/cause"),
    }
}
