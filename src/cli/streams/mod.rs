//! `syncgate streams ls|show|create|set|purge|rm`.

mod change;
mod kept;
mod purge;
mod show;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    Failure, Gateway, Output,
    client::Client,
    output::{self, Table, cell},
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Lists all streams.
    Ls(List),
    /// Shows one stream: how long its records are kept, the bounds of its partitions, its readers with their lag.
    ///
    /// EARLIEST is the first offset that is still kept, TAIL the one that the next record gets, OPEN the records without an
    /// end, KEPT those that are kept. The other columns count the ends that records came to: DELIVERED to their target,
    /// FILTERED by a rule, MOVED to an error stream, DISCARDED by a purge, EXPIRED by age or size before any other end, LOST
    /// to damage. LAG is the number of open records that a reader has yet to come to; `group NAME` is that of `retry --group`.
    Show(Show),
    /// Creates a stream.
    Create(change::Create),
    /// Changes a stream: more partitions, or how long its records are kept.
    Set(change::Set),
    /// Removes all records of a stream. Those that wait for a retry are given up, those that wait for their dispatch if
    /// that is asked for.
    Purge(purge::Purge),
    /// Removes a stream with all its records. One with a role or with open records stays.
    Rm(change::Remove),
}

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    gateway: Gateway,
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// Name of the stream, or its OCID.
    name: String,
    #[command(flatten)]
    gateway: Gateway,
}

/// Pages of streams: a server that is no gateway may name another page for ever.
const PAGES_MAX: usize = 1_000;

pub(super) async fn run(command: Command, output: Output) -> Result<(), Failure> {
    match command {
        Command::Ls(arguments) => list(&arguments.gateway.client()?, output).await,
        Command::Show(arguments) => {
            let stream = stream(&arguments.gateway.client()?, &arguments.name).await?;
            match output {
                Output::Json => output::print_json(&stream),
                Output::Text => output::print(&show::text(&stream)),
            }
        }
        Command::Create(arguments) => change::create(&arguments, output).await,
        Command::Set(arguments) => change::set(&arguments, output).await,
        Command::Purge(arguments) => purge::run(&arguments, output).await,
        Command::Rm(arguments) => change::remove(&arguments, output).await,
    }
}

async fn stream(client: &Client, name: &str) -> Result<Value, Failure> {
    Ok(client.get(&["v1", "streams", name], &[]).await?)
}

async fn list(client: &Client, output: Output) -> Result<(), Failure> {
    let mut items = Vec::new();
    let mut query = Vec::new();
    let mut pages = 0;
    loop {
        pages += 1;
        if pages > PAGES_MAX {
            return Err(Failure::failed(format!(
                "{} has more than {PAGES_MAX} pages of streams, which no gateway has",
                client.base()
            )));
        }
        let mut page = client.get(&["v1", "streams"], &query).await?;
        if let Some(Value::Array(more)) = page.get_mut("items").map(Value::take) {
            items.extend(more);
        }
        match page.get("next").and_then(Value::as_str) {
            Some(next) => query = vec![("after", next.to_owned())],
            None => break,
        }
    }
    if output == Output::Json {
        return output::print_json(&json!({"items": items}));
    }
    let mut table = Table::new(&["NAME", ">PARTITIONS", "MADE BY", "OCID"]);
    for item in &items {
        table.row(["/name", "/partitions", "/madeBy", "/ocid"].map(|pointer| cell(item, pointer)));
    }
    output::print(&table.text())
}

/// The numbers of each partition, summed up under the same name.
fn sum(stream: &Value, name: &str) -> u64 {
    partitions(stream)
        .filter_map(|partition| partition.get(name)?.as_u64())
        .sum()
}

fn partitions(stream: &Value) -> impl Iterator<Item = &Value> {
    let bounds = stream.get("bounds").and_then(Value::as_array);
    bounds.into_iter().flatten()
}

/// How many records of a partition are kept.
fn kept_len(partition: &Value) -> u64 {
    let number = |name: &str| partition.get(name).and_then(Value::as_u64);
    let (earliest, tail) = (number("earliest"), number("tail"));
    tail.unwrap_or(0).saturating_sub(earliest.unwrap_or(0))
}
