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
    pages,
};

/// The meaning of the columns, at the end of the help.
const LIST_COLUMNS: &str = "\
Columns:
  NAME        name of the stream
  PARTITIONS  how many partitions it has
  MADE BY     start: the gateway made it when it started
              config: it stands in [[streams]]
              api: a request or a command made it
  OCID        another name of the stream; `streams show` prints all of it";
const SHOW_COLUMNS: &str = "\
Columns:
  PARTITION  number of the partition
  EARLIEST   first offset that is still kept
  TAIL       offset of the next record
  OPEN       records that wait for their dispatch, or for a retry
  KEPT       records that are kept: TAIL less EARLIEST
  DELIVERED  settled records, since the stream was made: their target took them
  FILTERED   a rule left them out
  MOVED      they failed, and a copy is in an error stream
  DISCARDED  an operator gave them up, as by a purge
  EXPIRED    they were trimmed while they were open
  LOST       they were lost to damage
  READER     dispatch, or the group of a retry
  LAG        records that the reader has not read yet";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Lists all streams.
    #[command(after_help = LIST_COLUMNS)]
    Ls(List),
    /// Shows one stream: how long its records are kept, the bounds of its partitions, its readers with their lag.
    #[command(after_help = SHOW_COLUMNS)]
    Show(Show),
    /// Creates a stream.
    Create(change::Create),
    /// Changes a stream: more partitions, or how long its records are kept.
    Set(change::Set),
    /// Removes all records of a stream. Records that wait for a retry are discarded; those that wait for their dispatch only
    /// with --discard-pending.
    #[command(after_help = purge::COLUMNS)]
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

/// Members of a stream that the commands read.
const MEMBERS: [&str; 2] = ["name", "bounds"];

async fn stream(client: &Client, name: &str) -> Result<Value, Failure> {
    let stream = client.get(&["v1", "streams", name], &[]).await?;
    Ok(client.expect("a stream", &MEMBERS, stream)?)
}

async fn list(client: &Client, output: Output) -> Result<(), Failure> {
    let items = pages::items(client, &["v1", "streams"], "streams").await?;
    if output == Output::Json {
        return output::print_json(&json!({"items": items}));
    }
    let mut table = Table::new(&["NAME", ">PARTITIONS", "MADE BY", "OCID"])
        .folded(&["MADE BY", "OCID"], &["OCID"]);
    for item in &items {
        table.row(["/name", "/partitions", "/madeBy", "/ocid"].map(|pointer| cell(item, pointer)));
    }
    output::print(&table.text())
}

/// Sums a number over all partitions.
fn sum(stream: &Value, name: &str) -> u64 {
    partitions(stream)
        .filter_map(|partition| partition.get(name)?.as_u64())
        .sum()
}

fn partitions(stream: &Value) -> impl Iterator<Item = &Value> {
    let bounds = stream.get("bounds").and_then(Value::as_array);
    bounds.into_iter().flatten()
}

/// Returns how many records a partition keeps.
fn kept_len(partition: &Value) -> u64 {
    let number = |name: &str| partition.get(name).and_then(Value::as_u64);
    let (earliest, tail) = (number("earliest"), number("tail"));
    tail.unwrap_or(0).saturating_sub(earliest.unwrap_or(0))
}
