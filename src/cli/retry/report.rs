//! The report at the end of a retry.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    Arguments,
    pass::Pass,
    stopped::{self, Stopped},
};
use crate::cli::{
    Failure, Output,
    client::Client,
    output::{self, Table, counted},
};

/// Exit code after Ctrl-C: 128 + SIGINT, as in shells.
const INTERRUPTED: u8 = 130;
/// A line names so many partitions; of more it gives the number.
const NAMED_LEN_MAX: usize = 8;

/// The results of a retry.
#[derive(Debug)]
pub(super) struct Report<'a> {
    pub(super) client: &'a Client,
    pub(super) arguments: &'a Arguments,
    pub(super) passes: &'a [Pass],
    /// Records that were open when the loop began.
    pub(super) total: Option<u64>,
    /// Open records of the partitions now.
    pub(super) open: Option<u64>,
}

impl Report<'_> {
    pub(super) fn print(&self, output: Output) -> Result<(), Failure> {
        if output == Output::Json {
            return output::print_json(&self.json());
        }
        let mut text = table(self.passes, self.arguments.dry_run).text();
        let moved_to = moved_to(self.passes);
        if !moved_to.is_empty() {
            let mut table = Table::new(&["MOVED TO", ">RECORDS"]);
            for (stream, len) in moved_to {
                table.row([stream.to_owned(), len.to_string()]);
            }
            text = format!("{text}\n{}", table.text());
        }
        for note in self.notes() {
            text = format!("{text}{note}\n");
        }
        output::print(&text)
    }

    fn json(&self) -> Value {
        let list: Vec<_> = self.passes.iter().map(Pass::json).collect();
        let mut report = json!({
            "stream": self.arguments.stream,
            "dryRun": self.arguments.dry_run,
            "partitions": list,
            "notes": self.notes(),
        });
        for (name, count) in [("total", self.total), ("open", self.open)] {
            if let Some(count) = count {
                report[name] = count.into();
            }
        }
        report
    }

    /// Returns notes: why no record was called, which partitions are not at their end, and last how many records are open.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        notes.extend(nothing_called(self.passes));
        notes.extend(not_at_the_end(self.passes, self.arguments));
        if let Some(open @ 1..) = self.open {
            let are = if open == 1 { "is" } else { "are" };
            let mut words = vec!["records", &*self.arguments.stream];
            if self.arguments.partition != "*" {
                words.extend(["--partition", &self.arguments.partition]);
            }
            words.push("--open");
            notes.push(format!(
                "{} {are} still open here{}; see `{}`",
                counted(open, "record"),
                match self.arguments.filter.is_empty() {
                    true => "",
                    false => ", also those outside of --filter",
                },
                self.client.next(words)
            ));
        }
        notes
    }
}

/// Says why a retry has called nothing although there are records to call.
fn nothing_called(passes: &[Pass]) -> Option<String> {
    let first = stopped::waits(passes)?;
    let none = passes.iter().all(|pass| pass.attempted == 0);
    none.then(|| {
        format!(
            "no record was called: the breaker of {} is not closed, and new messages may have taken every probe of \
             it",
            first.target
        )
    })
}

fn table(passes: &[Pass], dry_run: bool) -> Table {
    let headings: &[&str] = match dry_run {
        true => &[">REQUESTS", ">WOULD BE SENT", ">SKIPPED"],
        false => &[">REQUESTS", ">DELIVERED", ">FAILED", ">SKIPPED"],
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
        // -1 means that no record was read.
        let last =
            u64::try_from(pass.after).map_or_else(|_| String::new(), |last| last.to_string());
        row.extend([last, end.to_owned()]);
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
fn not_at_the_end(passes: &[Pass], arguments: &Arguments) -> Vec<String> {
    let mut notes = Vec::new();
    let (mut later, mut at_once) = (Vec::new(), Vec::new());
    // To go on at once would end in the same way where a target has stopped the call.
    for pass in passes.iter().filter(|pass| !pass.end_of_stream) {
        match stopped::stopped(&pass.last_answer) {
            Some(Stopped::Fails(_)) => notes.push(format!(
                "partition {} not at the end: {}",
                pass.partition,
                stopped::way_on_failing(&pass.last_answer)
            )),
            Some(Stopped::Waits(_)) => later.push(pass),
            None => at_once.push(pass),
        }
    }
    if let Some(first) = stopped::waits(passes) {
        let way = stopped::way_on_later(&first, passes);
        notes.push(format!("{} not at the end: {way}", named(&later)));
    }
    if !at_once.is_empty() {
        let at = counted(len(&at_once), "partition");
        notes.push(match arguments.until_end {
            true => format!("{at} not at the end"),
            false => format!(
                "{at} not at the end: go on {}, or take --loop",
                go_on(passes, arguments)
            ),
        });
    }
    notes
}

/// Returns `partitions 0, 2`.
fn named(passes: &[&Pass]) -> String {
    let names: Vec<_> = passes.iter().map(|pass| &*pass.partition).collect();
    match names[..] {
        [only] => format!("partition {only}"),
        _ if names.len() > NAMED_LEN_MAX => counted(len(passes), "partition"),
        _ => format!("partitions {}", names.join(", ")),
    }
}

fn len(passes: &[&Pass]) -> u64 {
    u64::try_from(passes.len()).unwrap_or(u64::MAX)
}

/// Returns how to go on after this run.
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

/// The failure after Ctrl-C. `done` says how many records are done.
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
/// If records failed and none was delivered.
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
