//! Reasons why the gateway stopped a call before its bounds, in words.

use std::collections::BTreeSet;

use serde_json::Value;

use super::pass::Pass;
use crate::{cli::output::counted, runtime::clock::Timestamp};

/// Other targets that a message names.
const OTHERS_MAX: usize = 3;

/// Why the gateway stopped a call before its bounds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Stopped {
    /// All first calls to a target failed.
    Fails(String),
    /// The breaker of a target is open.
    Waits(Waits),
}

/// A target whose breaker is open.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Waits {
    pub(super) target: String,
    /// No call begins before then.
    pub(super) until: Timestamp,
    /// `until` as the gateway wrote it.
    until_text: String,
}

pub(super) fn stopped(answer: &Value) -> Option<Stopped> {
    let stopped = answer.get("stopped")?;
    let text = |name: &str| stopped.get(name).and_then(Value::as_str).unwrap_or("?");
    let target = text("target");
    if text("reason") == "target_open" {
        let until = text("until");
        return Some(Stopped::Waits(Waits {
            target: target.to_owned(),
            until: Timestamp::parse(until).unwrap_or(Timestamp(0)),
            until_text: until.to_owned(),
        }));
    }
    let calls = stopped.get("calls").and_then(Value::as_u64).unwrap_or(0);
    Some(Stopped::Fails(format!(
        "the first {calls} calls to {target} all came to {}: stopped, what is behind them stays as it is",
        text("cause")
    )))
}

/// Returns the message of a loop that gives up waiting for a target.
pub(super) fn given_up(first: &Waits, passes: &[Pass]) -> String {
    format!(
        "{} is not called before {}: stopped, {}",
        first.target,
        first.until_text,
        left(&first.target, "it", passes)
    )
}

/// Returns what to do about records that the gateway left because a breaker is open.
pub(super) fn way_on_later(first: &Waits, passes: &[Pass]) -> String {
    format!(
        "{}; call again after {}",
        left(&first.target, &first.target, passes),
        first.until_text
    )
}

/// Returns what to do about a target whose calls all failed.
pub(super) fn way_on_failing(answer: &Value) -> String {
    let text = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str);
    format!(
        "calls to {} failed alike ({}); call again when it answers otherwise",
        text("/stopped/target").unwrap_or("?"),
        text("/stopped/cause").unwrap_or("?")
    )
}

/// Returns, of the targets that partitions wait for, the one that may be called first.
pub(super) fn waits(passes: &[Pass]) -> Option<Waits> {
    let waits = |pass: &Pass| match stopped(&pass.last_answer)? {
        Stopped::Waits(waits) if !pass.end_of_stream => Some(waits),
        Stopped::Waits(_) | Stopped::Fails(_) => None,
    };
    let all = passes.iter().filter_map(waits);
    all.min_by_key(|waits| waits.until)
}

/// Returns `21 records left for it, and 3 records for other targets (http://b:80)`, over all partitions; `name` stands for
/// the target.
fn left(target: &str, name: &str, passes: &[Pass]) -> String {
    let open = || passes.iter().filter(|pass| !pass.end_of_stream);
    let (mut own, mut others) = (0, 0);
    for pass in open() {
        let (of_target, of_others) = left_of(&pass.last_answer, target);
        own += of_target;
        others += of_others;
    }
    let more = match others {
        0 => String::new(),
        _ => format!(
            ", and {} for other targets ({})",
            counted(others, "record"),
            others_of(target, open())
        ),
    };
    let at_least = match open().all(has_read_all) {
        true => "",
        false => "at least ",
    };
    format!("{at_least}{} left for {name}{more}", counted(own, "record"))
}

/// Returns the names of other targets with records left: at most [`OTHERS_MAX`], then `more`.
fn others_of<'a>(target: &str, passes: impl Iterator<Item = &'a Pass>) -> String {
    let waiting = passes.filter_map(|pass| pass.last_answer["waiting"].as_array());
    let names = waiting.flatten().filter_map(|of| of["target"].as_str());
    let mut names: BTreeSet<_> = names.filter(|name| *name != target).collect();
    // The gateway sums up further targets as `*`.
    let has_more = names.remove("*") || names.len() > OTHERS_MAX;
    let named = names.into_iter().take(OTHERS_MAX);
    let more = has_more.then_some("more");
    named.chain(more).collect::<Vec<_>>().join(", ")
}

/// Returns how many records an answer names as left for `target`, and for all others.
fn left_of(answer: &Value, target: &str) -> (u64, u64) {
    let waiting = answer.get("waiting").and_then(Value::as_array);
    let (mut own, mut others) = (0, 0);
    for waiting in waiting.into_iter().flatten() {
        let count = waiting.get("count").and_then(Value::as_u64).unwrap_or(0);
        match waiting.get("target").and_then(Value::as_str) == Some(target) {
            true => own += count,
            false => others += count,
        }
    }
    (own, others)
}

/// Returns whether the last answer counts all records up to the end. A call that a bound cut counts only those it read.
fn has_read_all(pass: &Pass) -> bool {
    let answer = &pass.last_answer;
    let number = |name: &str| answer.get(name).and_then(Value::as_u64);
    let (own, others) = left_of(answer, "");
    // Without `trimmed`, because part of it lies before the start.
    let read = [
        "processedmessages",
        "failedMessages",
        "skipped",
        "unmatched",
    ]
    .map(|name| number(name).unwrap_or(0));
    let read = read.iter().sum::<u64>() + own + others;
    let end = match (pass.end, number("tail")) {
        (Some(end), Some(tail)) => Some(end.min(tail)),
        (end, tail) => end.or(tail),
    };
    match (number("startOffset"), end) {
        (Some(start), Some(end)) => start + read >= end,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const A: &str = "http://a:80";

    /// An answer that leaves records of these targets, in a partition that ends at 7.
    fn open(until: &str, waiting: &Value, skipped: u64) -> Pass {
        let mut pass = Pass::new("0".into(), -1, Some(7));
        let answer = json!({
            "stopped": {"reason": "target_open", "target": A, "until": until}, "waiting": waiting,
            "startOffset": 0, "tail": 12, "skipped": skipped, "lastReadOffset": -1, "endOfStream": false
        });
        pass.add(answer).unwrap();
        pass
    }

    #[track_caller]
    fn check(passes: &[Pass], left: &str) {
        let first = waits(passes).unwrap();
        assert_eq!(
            given_up(&first, passes),
            format!(
                "{A} is not called before 2026-01-02T03:04:05.000000Z: stopped, {}",
                left.replace(A, "it")
            )
        );
        assert_eq!(
            way_on_later(&first, passes),
            format!("{left}; call again after 2026-01-02T03:04:05.000000Z")
        );
    }

    #[test]
    fn a_call_whose_target_fails_says_so() {
        assert_eq!(stopped(&json!({"endOfStream": false})), None);
        let failing = json!({"stopped": {"reason": "target_failing", "target": A, "cause": "404", "calls": 50}});
        let said = "the first 50 calls to http://a:80 all came to 404: stopped, what is behind them stays as it is";
        assert_eq!(stopped(&failing), Some(Stopped::Fails(said.into())));
        assert_eq!(
            way_on_failing(&failing),
            "calls to http://a:80 failed alike (404); call again when it answers otherwise"
        );
    }

    #[test]
    fn records_left_are_summed_over_the_partitions() {
        let (first, later) = ("2026-01-02T03:04:05.000000Z", "2026-01-02T03:04:06.000000Z");
        let one = json!([{"target": A, "count": 1}]);
        let some = json!([
            {"target": A, "count": 2}, {"target": "http://b:80", "count": 2}, {"target": "*", "count": 1}
        ]);
        check(&[open(first, &one, 6)], "1 record left for http://a:80");
        let more =
            "3 records left for http://a:80, and 3 records for other targets (http://b:80, more)";
        check(&[open(later, &one, 6), open(first, &some, 2)], more);
        // A bound has cut one of them: six of seven records were read.
        check(
            &[open(later, &one, 6), open(first, &some, 1)],
            &format!("at least {more}"),
        );
        let mut done = open(first, &one, 6);
        done.end_of_stream = true;
        assert_eq!(waits(std::slice::from_ref(&done)), None);
        check(
            &[done, open(first, &one, 6)],
            "1 record left for http://a:80",
        );
    }
}
