//! `syncgate cursors ls|set|rm`: the last acknowledged positions of a data stream's clients.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    Failure, Gateway, Output,
    client::Client,
    output::{self, Table, cell, confirm::confirm, counted},
    pages, when,
};

/// The meaning of the columns, at the end of the help.
const COLUMNS: &str = "\
Columns:
  CURSOR    name of the cursor
  CLIENT    connected: a client uses the cursor now
  BEHIND    records after the last one that its client acknowledged
  SECONDS   age of the oldest of these records
  LAST ACK  time of the client's last acknowledgement";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Lists the cursors of a data stream, with the records each has yet to get.
    #[command(after_help = COLUMNS)]
    Ls(List),
    /// Moves a cursor, or creates one. A cursor that a client uses now stays where it is.
    Set(Set),
    /// Removes a cursor. Its client starts as a new one the next time.
    Rm(Remove),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Name of the data stream.
    data_stream: String,
    #[command(flatten)]
    gateway: Gateway,
}

#[derive(Debug, Args)]
pub(super) struct Set {
    /// Name of the data stream.
    data_stream: String,
    /// Name of the cursor.
    cursor: String,
    /// Position where its client goes on: earliest, now, a time (2026-12-01T07:00:00Z, 2026-12-01, 10m, "1h ago"; UTC), or
    /// the pos of a record, to go on after it.
    #[arg(long, value_name = "PLACE", value_parser = when::begin)]
    begin: String,
    #[command(flatten)]
    gateway: Gateway,
}

#[derive(Debug, Args)]
pub(super) struct Remove {
    /// Name of the data stream.
    data_stream: String,
    /// Name of the cursor.
    cursor: String,
    /// Does not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    gateway: Gateway,
}

pub(super) async fn run(command: Command, output: Output) -> Result<(), Failure> {
    match command {
        Command::Ls(arguments) => list(&arguments, output).await,
        Command::Set(arguments) => set(&arguments, output).await,
        Command::Rm(arguments) => remove(&arguments, output).await,
    }
}

/// Returns all cursors of a data stream.
pub(super) async fn all(client: &Client, data_stream: &str) -> Result<Vec<Value>, Failure> {
    let path = ["v1", "data-streams", data_stream, "cursors"];
    pages::items(client, &path, "cursors").await
}

async fn list(arguments: &List, output: Output) -> Result<(), Failure> {
    let client = arguments.gateway.client()?;
    let items = all(&client, &arguments.data_stream).await?;
    if output == Output::Json {
        return output::print_json(&json!({ "items": items }));
    }
    let mut table = Table::new(&["CURSOR", "CLIENT", ">BEHIND", ">SECONDS", "LAST ACK"]);
    for item in &items {
        let client = match item["connected"] == true {
            true => "connected",
            false => "",
        };
        let [name, records, seconds, acked] =
            ["/name", "/recordsBehind", "/secondsBehind", "/ackedAt"].map(|at| cell(item, at));
        table.row([name, client.into(), records, seconds, acked]);
    }
    output::print(&table.text())
}

async fn set(arguments: &Set, output: Output) -> Result<(), Failure> {
    let client = arguments.gateway.client()?;
    let request = client.request(
        Method::PUT,
        &path(&arguments.data_stream, &arguments.cursor),
        &[],
    );
    let body = json!({ "begin": arguments.begin });
    let put = client.send(request.json(&body)).await?;
    let put = client.expect("a cursor", &["recordsBehind"], put)?;
    match output {
        Output::Json => output::print_json(&put),
        Output::Text => output::print(&format!(
            "{} of {}: {} to come\n",
            arguments.cursor,
            arguments.data_stream,
            counted(put["recordsBehind"].as_u64().unwrap_or_default(), "record")
        )),
    }
}

async fn remove(arguments: &Remove, output: Output) -> Result<(), Failure> {
    let client = arguments.gateway.client()?;
    let (data_stream, cursor) = (&arguments.data_stream, &arguments.cursor);
    let path = path(data_stream, cursor);
    if !arguments.yes {
        // An unknown cursor fails here, before the question.
        let found = client.get(&path, &[]).await?;
        let found = client.expect("a cursor", &["recordsBehind"], found)?;
        let behind = found["recordsBehind"].as_u64().unwrap_or_default();
        let question = format!(
            "Remove cursor {cursor} of {data_stream}, with {} to come? Its client begins anew the next time.",
            counted(behind, "record")
        );
        confirm(&question, false)?;
    }
    client.delete(&path).await?;
    match output {
        Output::Json => output::print_json(&json!({ "removed": cursor })),
        Output::Text => output::print(&format!("{cursor} of {data_stream} removed\n")),
    }
}

fn path<'a>(data_stream: &'a str, cursor: &'a str) -> [&'a str; 5] {
    ["v1", "data-streams", data_stream, "cursors", cursor]
}
