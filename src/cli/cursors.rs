//! `syncgate cursors ls|set|rm`: how far the clients of a data stream have come, kept for them.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    Failure, Gateway, Output,
    client::Client,
    output::{self, Table, cell, confirm::confirm, counted},
    when,
};

/// Pages of cursors: a server that is no gateway may name another page for ever.
const PAGES_MAX: usize = 1_000;

/// What the columns mean, behind the help.
const COLUMNS: &str = "\
Columns:
  CURSOR    name of the cursor
  CLIENT    connected: a client has it now
  BEHIND    records behind the last one that its client acknowledged
  SECONDS   how long the first of these records waits
  LAST ACK  when its client acknowledged last";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Lists the cursors of a data stream, with what each has yet to get.
    #[command(after_help = COLUMNS)]
    Ls(List),
    /// Moves a cursor, or makes one. A cursor that a client has is left where it is.
    Set(Set),
    /// Removes a cursor. Its client begins anew the next time.
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
    /// Where its client goes on: earliest, now, a time (2026-12-01T07:00:00Z, 2026-12-01, 10m, "1h ago"; UTC), or the pos of a
    /// record, to go on behind it.
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
    let (mut items, mut query) = (Vec::new(), Vec::new());
    for _ in 0..PAGES_MAX {
        let path = ["v1", "data-streams", data_stream, "cursors"];
        let mut page = client.get(&path, &query).await?;
        if let Some(Value::Array(more)) = page.get_mut("items").map(Value::take) {
            items.extend(more);
        }
        match page.get("next").and_then(Value::as_str) {
            Some(next) => query = vec![("after", next.to_owned())],
            None => return Ok(items),
        }
    }
    Err(Failure::failed(format!(
        "{} has more than {PAGES_MAX} pages of cursors, which no gateway has",
        client.base()
    )))
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
        // This also says that there is no such cursor, before anybody is asked.
        let found = client.get(&path, &[]).await?;
        let behind = found["recordsBehind"].as_u64().unwrap_or_default();
        let question = format!(
            "Remove cursor {cursor} of {data_stream}, with {} to come? Its client begins anew the next time.",
            counted(behind, "record")
        );
        confirm(&question, false)?;
    }
    client
        .send(client.request(Method::DELETE, &path, &[]))
        .await?;
    match output {
        Output::Json => output::print_json(&json!({ "removed": cursor })),
        Output::Text => output::print(&format!("{cursor} of {data_stream} removed\n")),
    }
}

fn path<'a>(data_stream: &'a str, cursor: &'a str) -> [&'a str; 5] {
    ["v1", "data-streams", data_stream, "cursors", cursor]
}
