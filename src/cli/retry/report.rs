//! What a retry prints at its end.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Arguments, pass::Pass, stopped::way_on};
use crate::cli::{
    Failure, Output,
    output::{self, Table, counted},
};

/// Exit code of a command that Ctrl-C has ended: 128 and the number of the signal, as shells have it.
const INTERRUPTED: u8 = 130;

pub(super) fn print(passes: &[Pass], arguments: &Arguments, output: Output) -> Result<(), Failure> {
    if output == Output::Json {
        let list: Vec<_> = passes.iter().map(Pass::json).collect();
        return output::print_json(
            &json!({"stream": arguments.stream, "dryRun": arguments.dry_run, "partitions": list}),
        );
    }
    let mut text = table(passes, arguments.dry_run).text();
    let moved_to = moved_to(passes);
    if !moved_to.is_empty() {
        let mut table = Table::new(&["MOVED TO", ">RECORDS"]);
        for (stream, len) in moved_to {
            table.row([stream.to_owned(), len.to_string()]);
        }
        text = format!("{text}\n{}", table.text());
    }
    output::print(&(text + &not_at_the_end(passes, arguments)))
}

fn table(passes: &[Pass], dry_run: bool) -> Table {
    let headings: &[&str] = match dry_run {
        true => &[">CALLS", ">WOULD BE SENT", ">SKIPPED"],
        false => &[">CALLS", ">DELIVERED", ">FAILED", ">SKIPPED"],
    };
    let counts = |pass: &Pass| match dry_run {
        true => vec![pass.calls, pass.attempted, pass.skipped],
        false => vec![pass.calls, pass.delivered, pass.failed, pass.skipped],
    };
    let mut table = Table::new(&[&["PARTITION"], headings, &[">LAST OFFSET", "END"]].concat());
    for pass in passes {
        let end = if pass.end_of_stream { "yes" } else { "no" };
        let mut row = vec![pass.partition.clone()];
        row.extend(counts(pass).iter().map(ToString::to_string));
        row.extend([pass.after.to_string(), end.to_owned()]);
        table.row(row);
    }
    table
}

/// Returns how many failed records each stream got, over all partitions.
fn moved_to(passes: &[Pass]) -> BTreeMap<&str, u64> {
    let mut all = BTreeMap::new();
    for (stream, len) in passes.iter().flat_map(|pass| &pass.moved_to) {
        *all.entry(&**stream).or_default() += len;
    }
    all
}

/// Returns lines for partitions that are not at their end.
fn not_at_the_end(passes: &[Pass], arguments: &Arguments) -> String {
    let mut text = String::new();
    let open = passes.iter().filter(|pass| !pass.end_of_stream);
    // To go on at once would end in the same way where a target has stopped the call.
    let (stopped, open): (Vec<_>, Vec<_>) =
        open.partition(|pass| pass.last_answer.get("stopped").is_some());
    for pass in stopped {
        if let Some(way) = way_on(&pass.last_answer) {
            text = format!("{text}partition {} not at the end: {way}\n", pass.partition);
        }
    }
    if open.is_empty() {
        return text;
    }
    let count = u64::try_from(open.len()).unwrap_or(u64::MAX);
    let at = counted(count, "partition");
    match arguments.until_end {
        true => format!("{text}{at} not at the end\n"),
        false => format!(
            "{text}{at} not at the end: go on {}, or take --loop\n",
            go_on(passes, arguments)
        ),
    }
}

/// Returns how a run goes on behind this one.
fn go_on(passes: &[Pass], arguments: &Arguments) -> String {
    match (passes, &arguments.group, &arguments.offset_file) {
        (_, Some(_), _) => "with the same command: the group stands where this run came to".into(),
        (_, _, Some(file)) => {
            let file = file.display();
            format!("with the same command: {file} holds where this run came to")
        }
        ([pass], _, _) => format!("with --partition {} --after {}", pass.partition, pass.after),
        _ if arguments.redeliver => {
            "with --partition and --after of each row, its last offset".into()
        }
        _ => "with the same command, which skips what is delivered or moved (a replay of the main stream goes on with \
              --partition and --after of each row)"
            .into(),
    }
}

/// What Ctrl-C has left. `done` says how many records are done.
pub(super) fn interrupted(done: &str, passes: &[Pass], arguments: &Arguments) -> Failure {
    let mut message = format!(
        "interrupted at {done}\n\
         the gateway begins no further call; what was under way is settled and not counted here"
    );
    if !passes.is_empty() {
        message = format!("{message}\ngo on {}", go_on(passes, arguments));
    }
    Failure {
        code: INTERRUPTED,
        message,
    }
}

/// # Errors
/// If records have failed and none was delivered: the run was in vain.
pub(super) fn check(passes: &[Pass]) -> Result<(), Failure> {
    let sum = |of: fn(&Pass) -> u64| passes.iter().map(of).sum::<u64>();
    match (sum(|pass| pass.failed), sum(|pass| pass.delivered)) {
        (failed @ 1.., 0) => Err(Failure::failed(format!(
            "{} failed again, and none was delivered",
            counted(failed, "record")
        ))),
        _ => Ok(()),
    }
}
