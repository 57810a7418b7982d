//! `streams create|set|rm`.

use clap::{ArgGroup, Args};
use reqwest::Method;
use serde_json::{Value, json};

use super::{MEMBERS, kept, kept_len, partitions, stream, sum};
use crate::cli::{
    Failure, Gateway, Output,
    output::{self, cell, confirm::confirm, counted},
};

#[derive(Debug, Args)]
pub(in crate::cli) struct Create {
    /// Name of the stream.
    name: String,
    #[command(flatten)]
    gateway: Gateway,
    /// How many partitions, 1 to 256.
    #[arg(long, value_name = "N", default_value_t = 1)]
    partitions: u16,
    /// Another name of the stream.
    #[arg(long, value_name = "ID")]
    ocid: Option<String>,
    #[command(flatten)]
    kept: kept::Kept,
}

#[derive(Debug, Args)]
#[command(group(
    ArgGroup::new("change")
        .args(["partitions", "retention", "retention_hours", "retention_bytes"])
        .required(true)
        .multiple(true)
))]
pub(in crate::cli) struct Set {
    /// Name of the stream, or its OCID.
    name: String,
    #[command(flatten)]
    gateway: Gateway,
    /// How many partitions, up to 256; never fewer than there are.
    #[arg(long, value_name = "N")]
    partitions: Option<u16>,
    #[command(flatten)]
    kept: kept::Kept,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Remove {
    /// Name of the stream, or its OCID.
    name: String,
    #[command(flatten)]
    gateway: Gateway,
    /// Removes without a question.
    #[arg(long)]
    yes: bool,
}

pub(super) async fn create(arguments: &Create, output: Output) -> Result<(), Failure> {
    let client = arguments.gateway.client()?;
    let mut body = json!({"name": arguments.name, "partitions": arguments.partitions});
    if let Some(ocid) = &arguments.ocid {
        body["ocid"] = ocid.as_str().into();
    }
    arguments.kept.add_to(&mut body);
    let stream = client.post(&["v1", "streams"], &body).await?;
    let stream = client.expect("a stream", &MEMBERS, stream)?;
    match output {
        Output::Json => output::print_json(&stream),
        Output::Text => output::print(&format!("{} made\n", arguments.name)),
    }
}

pub(super) async fn set(arguments: &Set, output: Output) -> Result<(), Failure> {
    let client = arguments.gateway.client()?;
    let mut body = json!({});
    if let Some(partitions) = arguments.partitions {
        body["partitions"] = partitions.into();
    }
    arguments.kept.add_to(&mut body);
    let path = ["v1", "streams", &arguments.name];
    let request = client.request(Method::PATCH, &path, &[]).json(&body);
    let stream = client.send(request).await?;
    let stream = client.expect("a stream", &MEMBERS, stream)?;
    match output {
        Output::Json => output::print_json(&stream),
        Output::Text => {
            let partitions = stream.get("partitions").and_then(Value::as_u64);
            output::print(&format!(
                "{} changed: {}, records kept {}\n",
                cell(&stream, "/name"),
                counted(partitions.unwrap_or_default(), "partition"),
                kept::words(&stream)
            ))
        }
    }
}

pub(super) async fn remove(arguments: &Remove, output: Output) -> Result<(), Failure> {
    let client = arguments.gateway.client()?;
    // Ask with the stream's name, because a mistyped OCID may be that of another stream.
    let found = stream(&client, &arguments.name).await?;
    let name = cell(&found, "/name");
    let records: u64 = partitions(&found).map(kept_len).sum();
    if !arguments.yes {
        // Don't ask if the gateway would refuse the removal.
        if let Some(why) = why_it_stays(&found) {
            return Err(Failure::failed(format!("nothing was removed: {why}")));
        }
        let records = counted(records, "record");
        confirm(&format!("Remove stream {name} with {records}?"), false)?;
    }
    client.delete(&["v1", "streams", &name]).await?;
    match output {
        Output::Json => output::print_json(&json!({"removed": name, "records": records})),
        Output::Text => output::print(&format!("{name} removed\n")),
    }
}

/// Returns why a stream cannot be removed, with the command that helps.
fn why_it_stays(stream: &Value) -> Option<String> {
    let name = cell(stream, "/name");
    let roles = stream.get("roles").and_then(Value::as_array);
    let role = roles
        .and_then(|roles| roles.first())
        .and_then(Value::as_str);
    let open = sum(stream, "open");
    match role {
        _ if cell(stream, "/madeBy") == "config" => Some(format!(
            "{name} stands in [[streams]] of the configuration; take it out there, then `syncgate reload`"
        )),
        Some(role) => Some(format!("the configuration gives {name} a role ({role})")),
        None if open > 0 => Some(format!(
            "{name} has {}; deliver them with `syncgate retry {name}`, or give them up with `syncgate streams purge {name}`",
            counted(open, "open record")
        )),
        None => None,
    }
}
