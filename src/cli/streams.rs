//! `syncgate streams ls|show|create|purge`.

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
    /// Shows one stream with the bounds of its partitions.
    Show(Show),
    /// Creates a stream.
    Create(Create),
    /// Removes all records of a stream. Those that wait for a retry are given up, those that wait for their dispatch if
    /// that is asked for.
    Purge(Purge),
}

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    gateway: Gateway,
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// Name of the stream.
    name: String,
    #[command(flatten)]
    gateway: Gateway,
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// Name of the stream.
    name: String,
    #[command(flatten)]
    gateway: Gateway,
    /// How many partitions, 1 to 256.
    #[arg(long, value_name = "N", default_value_t = 1)]
    partitions: u16,
    /// Another name under which a retry can name it.
    #[arg(long, value_name = "ID")]
    ocid: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Purge {
    /// Name of the stream.
    name: String,
    #[command(flatten)]
    gateway: Gateway,
    /// Why; it is kept with the stream.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Give up what waits for its dispatch, too. Without it the stream is left as it is if there is such a record.
    #[arg(long)]
    discard_pending: bool,
}

/// Pages of streams: a server that is no gateway may name another page for ever.
const PAGES_MAX: usize = 1_000;

pub(super) async fn run(command: Command, output: Output) -> Result<(), Failure> {
    match command {
        Command::Ls(arguments) => list(&arguments.gateway.client()?, output).await,
        Command::Show(arguments) => {
            show(&arguments.gateway.client()?, &arguments.name, output).await
        }
        Command::Create(arguments) => create(&arguments, output).await,
        Command::Purge(arguments) => purge(&arguments, output).await,
    }
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

async fn show(client: &Client, name: &str, output: Output) -> Result<(), Failure> {
    let stream = client.get(&["v1", "streams", name], &[]).await?;
    if output == Output::Json {
        return output::print_json(&stream);
    }
    let text = match stream.as_object() {
        Some(members) => {
            let mut facts = Table::new(&["", ""]);
            for (name, value) in members
                .iter()
                .filter(|(_, value)| !value.is_array() && !value.is_null())
            {
                facts.row([name.clone(), cell(value, "")]);
            }
            let facts = facts.text().trim_start().to_owned();
            let lists = members
                .iter()
                .filter_map(|(name, value)| Some((name, value.as_array()?)));
            lists.fold(facts, |text, (name, rows)| {
                format!("{text}\n{name}\n{}", rows_text(rows))
            })
        }
        None => format!("{stream}\n"),
    };
    output::print(&text)
}

/// Objects as rows, their members as columns.
fn rows_text(rows: &[Value]) -> String {
    let Some(first) = rows.first().and_then(Value::as_object) else {
        return rows
            .iter()
            .map(|row| format!("{}\n", cell(row, "")))
            .collect();
    };
    let names: Vec<_> = first.keys().map(String::as_str).collect();
    let mut table = Table::new(&names);
    for row in rows {
        table.row(names.iter().map(|name| {
            row.get(name)
                .map(|value| cell(value, ""))
                .unwrap_or_default()
        }));
    }
    table.text()
}

async fn create(arguments: &Create, output: Output) -> Result<(), Failure> {
    let client = arguments.gateway.client()?;
    let mut body = json!({"name": arguments.name, "partitions": arguments.partitions});
    if let Some(ocid) = &arguments.ocid {
        body["ocid"] = ocid.as_str().into();
    }
    let stream = client.post(&["v1", "streams"], &body).await?;
    match output {
        Output::Json => output::print_json(&stream),
        Output::Text => output::print(&format!("{} made\n", arguments.name)),
    }
}

async fn purge(arguments: &Purge, output: Output) -> Result<(), Failure> {
    let client = arguments.gateway.client()?;
    let body = json!({
        "reason": arguments.reason,
        "discardPending": arguments.discard_pending,
    });
    let path = ["v1", "streams", &arguments.name, "purge"];
    let done = client.post(&path, &body).await?;
    match output {
        Output::Json => output::print_json(&done),
        Output::Text => output::print(&format!(
            "{} purged: removed {}, discarded {}\n",
            arguments.name,
            cell(&done, "/removed"),
            cell(&done, "/discarded"),
        )),
    }
}
