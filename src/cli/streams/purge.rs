//! `streams purge`: shows what would go, asks, and removes it.

use clap::Args;
use serde_json::{Value, json};

use super::{kept_len, partitions, stream, sum};
use crate::cli::{
    Failure, Gateway, Output,
    client::{Client, Error},
    confirm::confirm,
    output::{self, Table, cell, counted},
};

#[derive(Debug, Args)]
pub(in crate::cli) struct Purge {
    /// Name of the stream, or its OCID.
    name: String,
    #[command(flatten)]
    gateway: Gateway,
    /// Why; it is kept with the stream.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Give up what waits for its dispatch, too. Without it the stream is left as it is if there is such a record.
    #[arg(long)]
    discard_pending: bool,
    /// Purges without a question.
    #[arg(long)]
    yes: bool,
}

pub(super) async fn run(arguments: &Purge, output: Output) -> Result<(), Failure> {
    let client = arguments.gateway.client()?;
    if !arguments.yes {
        ask(&client, arguments).await?;
    }
    let body = json!({
        "reason": arguments.reason,
        "discardPending": arguments.discard_pending,
    });
    let path = ["v1", "streams", &arguments.name, "purge"];
    let done = client.post(&path, &body).await.map_err(told)?;
    match output {
        Output::Json => output::print_json(&done),
        Output::Text => output::print(&format!(
            "{} purged: removed {}, discarded {}\n",
            cell(&done, "/stream"),
            cell(&done, "/removed"),
            cell(&done, "/discarded"),
        )),
    }
}

/// Names the option of this command where the gateway names its member.
fn told(error: Error) -> Failure {
    let failure = Failure::from(error);
    let message = failure.message.replace(
        "\"discardPending\": true gives them up",
        "--discard-pending gives them up",
    );
    Failure { message, ..failure }
}

/// Shows on standard error what would go, and asks.
async fn ask(client: &Client, arguments: &Purge) -> Result<(), Failure> {
    let found = stream(client, &arguments.name).await?;
    let (name, open) = (cell(&found, "/name"), sum(&found, "open"));
    let roles = found.get("roles").and_then(Value::as_array);
    let is_source = roles.is_some_and(|roles| roles.contains(&"source".into()));
    if is_source && open > 0 && !arguments.discard_pending {
        return Err(Failure::failed(format!(
            "nothing was purged: {name} has {} without dispatch; --discard-pending gives them up",
            counted(open, "record")
        )));
    }
    let mut table = Table::new(&["PARTITION", ">RECORDS", ">OPEN"]);
    for partition in partitions(&found) {
        table.row([
            cell(partition, "/partition"),
            kept_len(partition).to_string(),
            cell(partition, "/open"),
        ]);
    }
    output::say_text(&table.text());
    let records: u64 = partitions(&found).map(kept_len).sum();
    let question = format!(
        "Purge {} of {name}, {open} of them open?",
        counted(records, "record")
    );
    confirm(&question, false)
}
