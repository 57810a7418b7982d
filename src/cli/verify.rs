//! `syncgate verify`: checks that the books balance, by asking a running gateway or by reading a journal.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::{
    DataDir, Failure, Gateway, Output,
    output::{self, Table, cell, counted},
};
use crate::storage::{
    ledger::Balance,
    local::{Verified, verify},
};

/// The meaning of the columns, at the end of the help.
const HELP: &str = "\
Columns, in records since the stream was made:
  ACCEPTED    came from sources
  REPLAYED    copies of records whose replay failed
  RECEIVED    copies of records that failed in another stream
  UNKNOWN     of unknown origin, since damage was accepted
  DELIVERED   settled: their target took them
  MOVED       settled: a copy is in an error stream (`moved` in JSON)
  FILTERED    settled: a rule left them out
  DISCARDED   settled: an operator gave them up
  EXPIRED     trimmed while they were open
  LOST        lost to damage without an end
  PENDING     open: they wait for their dispatch
  IN ERROR    open: they wait in an error stream for a retry
  DIFFERENCE  records that came, less settled, less open ones: 0";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct Arguments {
    #[command(flatten)]
    gateway: Gateway,
    /// Reads the journal in this directory instead of asking a gateway. Needs no index, and writes only LOCK. Without DIR it
    /// is the directory that the configuration names.
    #[arg(long, value_name = "DIR")]
    data: Option<Option<PathBuf>>,
    /// The configuration with the directory and the source stream; only with --data. Without it SYNCGATE_CONFIG names one.
    #[arg(long, value_name = "FILE", requires = "data")]
    config: Option<PathBuf>,
}

pub(super) async fn run(arguments: Arguments, output: Output) -> Result<(), Failure> {
    let (report, faults) = match arguments.data {
        None => {
            let client = arguments.gateway.client()?;
            let ledger = client.get(&["v1", "ledger"], &[]).await?;
            let ledger = client.expect("the ledger", &["balanced", "total"], ledger)?;
            (ledger, Vec::new())
        }
        Some(data) => {
            let config = arguments.config;
            offline(DataDir { config, data }).await?
        }
    };
    match output {
        Output::Json => output::print_json(&report)?,
        Output::Text => output::print(&text(&report))?,
    }
    if !faults.is_empty() {
        return Err(Failure::failed(faults.join("\n")));
    }
    match report.get("balanced") {
        Some(Value::Bool(true)) => Ok(()),
        _ => Err(Failure::failed(
            "the books do not balance: see the differences",
        )),
    }
}

async fn offline(data_dir: DataDir) -> Result<(Value, Vec<String>), Failure> {
    let config = data_dir.settings()?.config;
    let (dir, source) = (config.data.dir, config.roles.source);
    // On a thread, because a large journal takes long to read.
    let read = tokio::task::spawn_blocking(move || verify(&dir)).await;
    let verified = read
        .map_err(|error| Failure::failed_by(&error))?
        .map_err(|error| Failure::failed_by(&error))?;
    let balance = Balance::of(&verified.ledger, Some(&source));
    let mut report = serde_json::to_value(&balance).map_err(|error| Failure::failed_by(&error))?;
    report["journal"] = journal(&verified);
    let mut faults = verified.faults;
    let unnamed = verified.faults_len - u64::try_from(faults.len()).unwrap_or(u64::MAX);
    if unnamed > 0 {
        faults.push(format!("and {}", counted(unnamed, "more fault")));
    }
    Ok((report, faults))
}

fn journal(verified: &Verified) -> Value {
    let before = Balance::of(&verified.taken_over, None).total.came();
    json!({
        "files": verified.files_len,
        "frames": verified.frames_len,
        "shortened": verified.shortened_len,
        "torn": verified.torn.as_ref().map(|(file, at)| json!({"file": file, "at": at})),
        "recordsBefore": before,
        "faults": verified.faults,
        "faultsCount": verified.faults_len,
    })
}

const COLUMNS: [(&str, &str); 14] = [
    ("STREAM", "/stream"),
    (">ACCEPTED", "/accepted"),
    (">REPLAYED", "/replayed"),
    (">RECEIVED", "/received"),
    (">UNKNOWN", "/unknown"),
    (">DELIVERED", "/delivered"),
    (">MOVED", "/moved"),
    (">FILTERED", "/filtered"),
    (">DISCARDED", "/discarded"),
    (">EXPIRED", "/expired"),
    (">LOST", "/lost"),
    (">PENDING", "/pending"),
    (">IN ERROR", "/inErrorStreams"),
    (">DIFFERENCE", "/difference"),
];

fn text(report: &Value) -> String {
    let mut table = Table::new(&COLUMNS.map(|(heading, _)| heading));
    let streams = report.get("streams").and_then(Value::as_array);
    for row in streams.into_iter().flatten() {
        table.row(COLUMNS.map(|(_, pointer)| cell(row, pointer)));
    }
    for (name, member) in [("(deleted streams)", "gone"), ("total", "total")] {
        let row = report.get(member).unwrap_or(&Value::Null);
        let mut cells = COLUMNS.map(|(_, pointer)| cell(row, pointer));
        name.clone_into(&mut cells[0]);
        table.row(cells);
    }
    let mut text = table.text();
    if let Some(journal) = report.get("journal") {
        let number = |name: &str| {
            journal
                .get(name)
                .and_then(Value::as_u64)
                .unwrap_or_default()
        };
        let (files, frames) = (number("files"), number("frames"));
        let read = format!("{} in {}", counted(frames, "frame"), counted(files, "file"));
        let before = counted(number("recordsBefore"), "record");
        text += &format!("{read} read; {before} known by a snapshot alone\n");
        let shortened = number("shortened");
        if shortened > 0 {
            let shortened = counted(shortened, "file");
            text += &format!("{shortened} of them shortened to the records that are needed\n");
        }
        if let Some(at) = journal.pointer("/torn/at") {
            text += &format!("the last write was cut at byte {at}; it had not been answered\n");
        }
    }
    let losses = report.get("acceptedLosses").and_then(Value::as_u64);
    if let Some(losses) = losses.filter(|losses| *losses > 0) {
        let unmatched = report.get("unmatched").and_then(Value::as_i64);
        let unmatched = unmatched.unwrap_or_default();
        let times = counted(losses, "time");
        text += &format!("a loss was accepted {times}; moved less received is {unmatched} since\n");
    }
    if report.get("balanced") == Some(&Value::Bool(true)) {
        text += "balanced\n";
    }
    text
}
