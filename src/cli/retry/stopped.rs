//! Why the gateway has ended a call before any of its bounds, in words.

use serde_json::Value;

use crate::{cli::output::counted, clock::Timestamp};

/// Why the gateway has ended a call before any of its bounds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Stopped {
    /// Calls to a target only fail.
    Fails(String),
    /// A target is not called for a while.
    Waits(Waits),
}

/// A target that is not called for a while.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Waits {
    pub(super) target: String,
    /// No call of it begins before then.
    pub(super) until: Timestamp,
    /// What an operator is told about it.
    pub(super) why: String,
}

pub(super) fn stopped(answer: &Value) -> Option<Stopped> {
    let stopped = answer.get("stopped")?;
    let text = |name: &str| stopped.get(name).and_then(Value::as_str).unwrap_or("?");
    let target = text("target");
    if text("reason") == "target_open" {
        let (own, others) = left(answer, target);
        let more = match others {
            0 => String::new(),
            _ => format!(", and {} for other targets", counted(others, "record")),
        };
        let until = text("until");
        let why = format!(
            "{target} is not called before {until}: stopped, {}{} left for it{more}",
            at_least(answer),
            counted(own, "record")
        );
        return Some(Stopped::Waits(Waits {
            target: target.to_owned(),
            until: Timestamp::parse(until).unwrap_or(Timestamp(0)),
            why,
        }));
    }
    let calls = stopped.get("calls").and_then(Value::as_u64).unwrap_or(0);
    Some(Stopped::Fails(format!(
        "the first {calls} calls to {target} all came to {}: stopped, what is behind them stays as it is",
        text("cause")
    )))
}

/// Returns what the caller can do about a call that was stopped.
pub(super) fn way_on(answer: &Value) -> Option<String> {
    let stopped = answer.get("stopped")?;
    let text = |name: &str| stopped.get(name).and_then(Value::as_str).unwrap_or("?");
    let target = text("target");
    if text("reason") == "target_open" {
        let (own, _) = left(answer, target);
        return Some(format!(
            "{}{} left for {target}; call again after {}",
            at_least(answer),
            counted(own, "record"),
            text("until")
        ));
    }
    Some(format!(
        "calls to {target} failed alike ({}); call again when it answers otherwise",
        text("cause")
    ))
}

/// Returns how many records an answer names as left for `target`, and for all others.
fn left(answer: &Value, target: &str) -> (u64, u64) {
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

/// Returns `at least ` unless the counts of an answer show that it has read up to the tail: a call that a bound has cut
/// counts only what it has come to.
fn at_least(answer: &Value) -> &'static str {
    let number = |name: &str| answer.get(name).and_then(Value::as_u64);
    let (own, others) = left(answer, "");
    // Not `trimmed`, part of which lies before the start.
    let read = [
        "processedmessages",
        "failedMessages",
        "skipped",
        "unmatched",
    ]
    .map(|name| number(name).unwrap_or(0));
    let read = read.iter().sum::<u64>() + own + others;
    match (number("startOffset"), number("tail")) {
        (Some(start), Some(tail)) if start + read >= tail => "",
        _ => "at least ",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_call_that_was_stopped_says_why_and_until_when() {
        assert_eq!(stopped(&json!({"endOfStream": false})), None);
        let failing = json!({"stopped": {"reason": "target_failing", "target": "http://a:80", "cause": "404", "calls": 50}});
        let said = "the first 50 calls to http://a:80 all came to 404: stopped, what is behind them stays as it is";
        assert_eq!(stopped(&failing), Some(Stopped::Fails(said.into())));
        assert_eq!(
            way_on(&failing).unwrap(),
            "calls to http://a:80 failed alike (404); call again when it answers otherwise"
        );
        let mut open = json!({
            "stopped": {"reason": "target_open", "target": "http://a:80", "until": "2026-01-02T03:04:05.000000Z"},
            "waiting": [{"target": "http://a:80", "count": 1}], "startOffset": 4, "tail": 7, "skipped": 1, "unmatched": 1
        });
        let waits = |said: &str| {
            Some(Stopped::Waits(Waits {
                target: "http://a:80".into(),
                until: Timestamp::parse("2026-01-02T03:04:05Z").unwrap(),
                why: said.into(),
            }))
        };
        let said = "http://a:80 is not called before 2026-01-02T03:04:05.000000Z: stopped, 1 record left for it";
        assert_eq!(stopped(&open), waits(said));
        let said = "1 record left for http://a:80; call again after 2026-01-02T03:04:05.000000Z";
        assert_eq!(way_on(&open).unwrap(), said);
        open["waiting"] = json!([
            {"target": "http://a:80", "count": 2}, {"target": "http://b:80", "count": 2}, {"target": "*", "count": 1}
        ]);
        let said = "http://a:80 is not called before 2026-01-02T03:04:05.000000Z: stopped, 2 records left for it, \
                    and 3 records for other targets";
        assert_eq!(stopped(&open), waits(said));
        // A bound has cut the call: seven of eight records were read.
        open["tail"] = json!(12);
        let said = "http://a:80 is not called before 2026-01-02T03:04:05.000000Z: stopped, at least 2 records left for it, \
                    and 3 records for other targets";
        assert_eq!(stopped(&open), waits(said));
        let said =
            "at least 2 records left for http://a:80; call again after 2026-01-02T03:04:05.000000Z";
        assert_eq!(way_on(&open).unwrap(), said);
    }
}
