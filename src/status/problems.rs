//! Problems of a report, the worst first, each with the command that helps. Pure.
//!
//! A target whose breaker is not closed is one problem, with the records that a retry can deliver once it answers. The other
//! open records of an error stream are one problem for each stream.

use std::{cmp::Reverse, collections::BTreeMap, path::Path, time::Duration};

use super::{Aim, Group, Report, Target};
use crate::{
    dispatch::{BreakerState, Cause, TargetId},
    model::ids::StreamName,
    runtime::clock::Timestamp,
    storage::{Health, Stream},
};

/// A record of the source stream that waits longer than this is a problem, unless its breaker is open.
const LATE: Duration = Duration::from_secs(300);
/// Targets and causes that the text about a stream names.
const NAMED_LEN_MAX: usize = 2;
/// The next step for a stream while a retry of it runs.
const RUNS: &str = "A retry of them runs; wait until it has ended:";

/// A problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// A word for programs.
    pub code: &'static str,
    /// The problem with names and numbers, and the next step.
    pub text: String,
    /// Text of the log or of a target. For operators only.
    pub reason: Option<String>,
    /// Its start, if known.
    pub since: Option<Timestamp>,
    /// The command that helps, for a POSIX shell.
    pub command: String,
    /// The command names the data directory and runs on the machine of the gateway. For operators only.
    pub is_for_machine: bool,
}

/// Returns all problems, the worst first.
pub(super) fn find(report: &Report, source: &StreamName) -> Vec<Problem> {
    let mut problems = Vec::new();
    problems.extend(of_log(report));
    if report.unreadable_partitions > 0 {
        let waits = counted(
            report.unreadable_partitions,
            "partition waits",
            "partitions wait",
        );
        problems.push(Problem {
            code: "records_unreadable",
            text: format!(
                "The dispatch of {waits} at a record that is damaged. Stop the gateway, then look what is lost:"
            ),
            reason: None,
            since: None,
            command: format!("syncgate doctor --data {}", quoted(&report.dir)),
            is_for_machine: true,
        });
    }
    if !report.ledger.is_balanced {
        let streams = report.ledger.streams.iter().take(NAMED_LEN_MAX);
        let streams: Vec<_> = streams
            .map(|(name, difference)| format!("{difference} in {name}"))
            .collect();
        let at = match streams.is_empty() {
            true => format!("{} in total", report.ledger.difference),
            false => streams.join(", "),
        };
        problems.push(Problem {
            code: "ledger_difference",
            text: format!("The books do not balance: the difference is {at}."),
            reason: None,
            since: None,
            command: "syncgate verify".into(),
            is_for_machine: false,
        });
    }
    let groups = &report.open.counted.groups;
    let mut failed: Vec<&Group> = groups.iter().filter(|group| !group.is_source).collect();
    let mut open: BTreeMap<&StreamName, (&Stream, u64)> = BTreeMap::new();
    for (stream, len) in &report.open.streams {
        if stream.name != *source {
            open.insert(&stream.name, (&**stream, *len));
        }
    }
    let mut weighed = Vec::new();
    for target in &report.targets {
        let claimed = claim(target, &mut failed);
        for group in &claimed {
            if let Some((_, len)) = open.get_mut(&group.stream.name) {
                *len = len.saturating_sub(group.len);
            }
        }
        weighed.extend(of_target(target, &claimed, report, source));
    }
    for (stream, len) in open.into_values().filter(|(_, len)| *len > 0) {
        let left = failed.iter().filter(|group| group.stream.id == stream.id);
        let problem = of_stream(stream, len, &left.copied().collect::<Vec<_>>(), report);
        weighed.push((len, problem));
    }
    // A stable sort: of equal counts, targets come before streams.
    weighed.sort_by_key(|(len, _)| Reverse(*len));
    problems.extend(weighed.into_iter().map(|(_, problem)| problem));
    problems.extend(late(report, source));
    problems
}

fn of_log(report: &Report) -> Option<Problem> {
    let dir = quoted(&report.dir);
    let df = format!("df -h {dir}");
    let full = "Free space there; the gateway goes on by itself.";
    let (code, text, reason, command) = match &report.health {
        Health::Running if report.space.is_some() => return None,
        Health::Stopped(reason) => (
            "log_stopped",
            "The log has stopped: nothing is stored until the gateway is restarted. If it does not start, see what is \
             damaged:"
                .to_owned(),
            Some(reason.to_string()),
            format!("syncgate doctor --data {dir}"),
        ),
        Health::Running => (
            "not_looked",
            "The gateway was too busy for 5 seconds to look at its disk and to count records. Ask again; if that stays, look \
             at the disk:"
                .to_owned(),
            None,
            df,
        ),
        Health::DiskStalled => (
            "disk_stalled",
            "The data directory's disk has not answered for 10 seconds: nothing is stored until it does.".to_owned(),
            None,
            df,
        ),
        Health::DiskFull => (
            "disk_full",
            format!("The data directory's disk is full: nothing is stored and no target is called. {full}"),
            None,
            df,
        ),
        Health::SpaceLow => {
            let space = report.space.unwrap_or_default();
            let (free, min) = (size(space.free_bytes), size(space.free_bytes_min));
            let text = format!(
                "Messages are refused with 507: {free} are free on the data directory's disk, and {min} must stay free. {full}"
            );
            ("disk_free_min", text, None, df)
        }
    };
    Some(Problem {
        code,
        text,
        reason,
        since: None,
        command,
        is_for_machine: true,
    })
}

/// Removes the groups that one retry can deliver once the target answers: those in the stream with the most such records.
/// A target whose breaker is closed has none.
fn claim<'a>(target: &Target, failed: &mut Vec<&'a Group>) -> Vec<&'a Group> {
    if target.breaker == BreakerState::Closed {
        return Vec::new();
    }
    let aim = Aim::Target(target.id.clone());
    let is_its = |group: &Group| group.aim == aim && group.is_transient();
    let mut streams: BTreeMap<&StreamName, u64> = BTreeMap::new();
    for group in failed.iter().filter(|group| is_its(group)) {
        *streams.entry(&group.stream.name).or_default() += group.len;
    }
    let most = streams.into_iter().max_by_key(|(_, len)| *len);
    let Some((most, _)) = most else {
        return Vec::new();
    };
    failed
        .extract_if(.., |group| is_its(group) && group.stream.name == *most)
        .collect()
}

fn of_target(
    target: &Target,
    claimed: &[&Group],
    report: &Report,
    source: &StreamName,
) -> Option<(u64, Problem)> {
    let state = match target.breaker {
        BreakerState::Closed => return None,
        BreakerState::Open {
            until,
            is_asked: true,
        } => format!("is not called before {until}, as it asked by Retry-After"),
        BreakerState::Open { .. } => "is not called for now, its breaker is open".to_owned(),
        BreakerState::HalfOpen => "has not answered yet, its breaker is half-open".to_owned(),
    };
    let failed: u64 = claimed.iter().map(|group| group.len).sum();
    let waits = |len| counted(len, "record waits", "records wait");
    let deliver = |group: &Group, next: String| match runs(report, &group.stream.name) {
        true => (RUNS.to_owned(), wait()),
        false => (next, retry(report, &group.stream, Some(&target.id))),
    };
    let (waiting, (next, command)) = match (claimed.first(), target.pending) {
        (None, 0) => return None,
        (None, len) => (
            format!("{} in {source}", waits(len)),
            (
                "They are called by themselves once it answers; look at them:".to_owned(),
                look(source),
            ),
        ),
        (Some(group), 0) => (
            format!("{} in {}", waits(failed), group.stream.name),
            deliver(group, "Once it answers, deliver them:".into()),
        ),
        (Some(group), len) => (
            format!(
                "{} in {}, and {len} in {source}",
                waits(failed),
                group.stream.name
            ),
            deliver(
                group,
                "Once it answers, deliver the first; the others are called by themselves:".into(),
            ),
        ),
    };
    let last = target.last_failure.as_ref();
    let cause = last.map(|last| last.cause);
    let cause = cause.or_else(|| claimed.first()?.cause);
    let cause = cause.map_or_else(String::new, |cause| format!(" ({cause})"));
    let first = claimed.iter().map(|group| group.first).min();
    let problem = Problem {
        code: "target_open",
        text: format!("{} {state}{cause}: {waiting}. {next}", target.name),
        reason: last.map(|last| last.reason.clone()),
        since: target.since.into_iter().chain(first).min(),
        command,
        is_for_machine: false,
    };
    Some((failed + target.pending, problem))
}

/// The step that helps a record of an error stream.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Help {
    Retry,
    Token,
    Look,
}

fn of_stream(stream: &Stream, len: u64, groups: &[&Group], report: &Report) -> Problem {
    let help = |group: &&&Group| match group.cause {
        Some(cause) if cause.is_transient() => Help::Retry,
        Some(Cause::Status(401 | 403) | Cause::Secret) => Help::Token,
        _ => Help::Look,
    };
    let of = |wanted| -> u64 {
        let groups = groups.iter().filter(|group| help(group) == wanted);
        groups.map(|group| group.len).sum()
    };
    let helps = [Help::Retry, Help::Token, Help::Look].map(|help| (of(help), help));
    let most = helps.into_iter().max_by_key(|(len, help)| (*len, *help));
    let help = most.map_or(Help::Look, |(_, help)| help);
    let (next, command) = match help {
        _ if runs(report, &stream.name) => (RUNS, wait()),
        Help::Retry => (
            "A retry may deliver them:",
            retry(report, stream, only_target(groups)),
        ),
        Help::Token => (
            "Send a message with a new token for the target, then retry them. See which they are:",
            look(&stream.name),
        ),
        Help::Look => (
            "The same call would fail again. See why, and once that is changed retry them, or purge the stream:",
            look(&stream.name),
        ),
    };
    let name = |group: &Group| {
        let target = match &group.aim {
            Aim::Target(id) => {
                let mut targets = report.targets.iter();
                let found = targets.find(|target| target.id == *id);
                found.map_or_else(|| id.to_string(), |target| target.name.clone())
            }
            Aim::Nowhere => "no target".to_owned(),
            Aim::Others => "other targets".to_owned(),
        };
        let all = match group.len == len {
            true => "all".to_owned(),
            false => group.len.to_string(),
        };
        match group.cause {
            Some(cause) => format!("{all} of {target} ({cause})"),
            None => format!("{all} of {target}"),
        }
    };
    let mut named: Vec<_> = groups
        .iter()
        .take(NAMED_LEN_MAX)
        .map(|group| name(group))
        .collect();
    if groups.len() > NAMED_LEN_MAX {
        named.push("others".into());
    }
    let named = match named.is_empty() {
        true => String::new(),
        false => format!(", {}", named.join(", ")),
    };
    let waits = counted(len, "record waits", "records wait");
    Problem {
        code: "records_open",
        text: format!("{waits} in {} for a retry{named}. {next}", stream.name),
        reason: groups
            .first()
            .and_then(|group| group.reason.as_deref().map(String::from)),
        since: groups.iter().map(|group| group.first).min(),
        command,
        is_for_machine: false,
    }
}

/// Returns the problem of records that wait for dispatch although their breaker is closed.
fn late(report: &Report, source: &StreamName) -> Option<Problem> {
    let is_called = |group: &Group| {
        let mut targets = report.targets.iter();
        let target = targets.find(|target| group.aim == Aim::Target(target.id.clone()));
        target.is_none_or(|target| target.breaker == BreakerState::Closed)
    };
    let groups = report.open.counted.groups.iter();
    let late: Vec<_> = groups
        .filter(|group| group.is_source && report.at.since(group.first) > LATE)
        .filter(|group| is_called(group))
        .collect();
    let len = late.iter().map(|group| group.len).sum::<u64>();
    let waits = counted(len, "record waits", "records wait");
    (len > 0).then(|| Problem {
        code: "dispatch_late",
        text: format!(
            "{waits} in {source}, the first for more than 5 minutes, and no breaker is why. See what they wait for:"
        ),
        reason: None,
        since: late.iter().map(|group| group.first).min(),
        command: look(source),
        is_for_machine: false,
    })
}

/// Returns the target, if all groups have the same one.
fn only_target<'a>(groups: &[&'a Group]) -> Option<&'a TargetId> {
    let (first, others) = groups.split_first()?;
    match &first.aim {
        Aim::Target(id) if others.iter().all(|group| group.aim == first.aim) => Some(id),
        _ => None,
    }
}

/// Returns whether a retry of the stream is running.
fn runs(report: &Report, stream: &StreamName) -> bool {
    report.retries.iter().any(|retry| retry.stream == *stream)
}

/// Returns the command that shows the progress of a running retry.
fn wait() -> String {
    "syncgate status --watch".into()
}

/// Returns the command that retries a stream, all partitions. It filters by target if other targets have records there too,
/// because the command must affect only the records of its problem.
fn retry(report: &Report, stream: &Stream, target: Option<&TargetId>) -> String {
    let all = format!("syncgate retry {} --loop", stream.name);
    let counted = &report.open.counted;
    let is_other = |group: &&Group| match (target, &group.aim) {
        (Some(target), Aim::Target(id)) => id != target,
        _ => true,
    };
    let mut here = counted.groups.iter();
    let is_shared = here.any(|group| group.stream.id == stream.id && is_other(&group));
    match target.filter(|_| is_shared || !counted.is_complete) {
        Some(target) => format!("{all} --filter {}", word(&format!("target={target}"))),
        None => all,
    }
}

/// Returns the command that shows the open records of a stream, of all partitions.
fn look(stream: &StreamName) -> String {
    format!("syncgate records {stream} --open")
}

/// Returns a path, quoted for a shell.
fn quoted(path: &Path) -> String {
    word(&path.to_string_lossy())
}

/// Returns a text, quoted as one word for a shell.
fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-=:".contains(c);
    match text.chars().all(is_plain) && !text.is_empty() {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// Returns `1 record waits`, `13 records wait`.
fn counted(len: u64, one: &str, many: &str) -> String {
    match len {
        1 => format!("1 {one}"),
        len => format!("{len} {many}"),
    }
}

/// Returns a number of bytes in a readable unit.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let (mut tenths, mut unit) = (u128::from(bytes) * 10 / 1_024, 0);
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1_024;
        unit += 1;
    }
    match tenths {
        0..100 => format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit]),
        _ => format!("{} {}", tenths / 10, UNITS[unit]),
    }
}
