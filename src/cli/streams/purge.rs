//! `streams purge`: shows the records that would be removed, asks, and removes them.

use clap::Args;
use serde_json::{Value, json};

use super::{kept_len, partitions, stream, sum};
use crate::cli::{
    Failure, Gateway, Output,
    client::Client,
    output::{self, Table, cell, confirm::confirm, counted},
};

/// The meaning of the question's columns, at the end of the help.
pub(super) const COLUMNS: &str = "\
Before the question, a table shows the records to be removed:
  PARTITION  number of the partition
  RECORDS    records that are kept, all of which are removed
  OPEN       those of them that wait for their dispatch, or for a retry;
             they count as discarded";

#[derive(Debug, Args)]
pub(in crate::cli) struct Purge {
    /// Name of the stream, or its OCID.
    name: String,
    #[command(flatten)]
    gateway: Gateway,
    /// The reason; it is kept with the stream.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Also discards records that wait for their dispatch. Without it, one such record keeps the stream unchanged.
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
    let done = client.post(&path, &body).await?;
    let done = client.expect("the result of a purge", &["stream", "removed"], done)?;
    match output {
        Output::Json => output::print_json(&done),
        Output::Text => output::print(&format!("{}\n", purged(&done))),
    }
}

/// Describes a purge: `Orders purged: 3 records removed, 1 of them was open and is discarded`.
fn purged(done: &Value) -> String {
    let number = |name: &str| done.get(name).and_then(Value::as_u64).unwrap_or(0);
    let (name, removed, discarded) = (
        cell(done, "/stream"),
        number("removed"),
        number("discarded"),
    );
    let of_them = match discarded {
        0 => "none of them was open".to_owned(),
        1 => "1 of them was open and is discarded".to_owned(),
        more => format!("{more} of them were open and are discarded"),
    };
    match removed {
        0 => format!("{name} has no records: nothing was removed"),
        removed => format!(
            "{name} purged: {} removed, {of_them}",
            counted(removed, "record")
        ),
    }
}

/// Shows the records to be removed on standard error, and asks.
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
    let records: u64 = partitions(&found).map(kept_len).sum();
    if records == 0 {
        return Ok(());
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
    let question = format!(
        "Purge {} of {name}, {open} of them open?",
        counted(records, "record")
    );
    confirm(&question, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purge_says_how_many_records_it_removed() {
        for (removed, discarded, expected) in [
            (0, 0, "Orders has no records: nothing was removed"),
            (
                1,
                0,
                "Orders purged: 1 record removed, none of them was open",
            ),
            (
                3,
                1,
                "Orders purged: 3 records removed, 1 of them was open and is discarded",
            ),
            (
                3,
                3,
                "Orders purged: 3 records removed, 3 of them were open and are discarded",
            ),
        ] {
            let done = json!({"stream": "Orders", "removed": removed, "discarded": discarded});
            assert_eq!(purged(&done), expected);
        }
    }
}
