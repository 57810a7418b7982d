//! What commands say of a record: whether it is settled, why it failed, what it waits for.

use serde_json::Value;

use crate::cli::output::{cell, counted};

/// Settled is a record that was delivered, moved to another stream, discarded or expired.
pub(super) fn state(finished: Option<bool>) -> &'static str {
    match finished {
        Some(true) => "settled",
        Some(false) => "open",
        None => "",
    }
}

/// `status 404: the target answered 404 Not Found`, `connect: connection refused`.
pub(super) fn cause(cause: &Value) -> String {
    let [class, status, reason] = ["/class", "/status", "/reason"].map(|part| cell(cause, part));
    let mut text = class;
    for (separator, part) in [(" ", status), (": ", reason)] {
        if !part.is_empty() {
            text = format!("{text}{separator}{part}");
        }
    }
    text
}

/// The cause of an error record, or that of the last call of a record that is called again: `status 429: 2 calls`.
pub(super) fn failed(of_record: &Value, waiting: &Value) -> String {
    match (waiting["cause"].is_null(), waiting["attempts"].as_u64()) {
        (false, Some(attempts)) => {
            format!(
                "{}: {}",
                cause(&waiting["cause"]),
                counted(attempts, "call")
            )
        }
        _ => cause(of_record),
    }
}

/// What an open record waits for. One of an error stream, which has a cause, waits for a retry.
pub(super) fn waits_for(of_record: &Value, waiting: &Value) -> String {
    let due = match cell(waiting, "/due") {
        due if due.is_empty() => due,
        due => format!(" until {due}"),
    };
    let what = match waiting["for"].as_str() {
        Some("answer") => "the answer to its call",
        Some("turn") => "its turn",
        Some("key") => "an earlier record with its key",
        Some("target_open") => "its target, which fails (breaker open)",
        Some("rate") => "the rate of its target",
        Some("retry_after") => "its target, which asked for later",
        Some("backoff") => "its next attempt",
        Some("log") => "the log, which has not taken its end",
        Some(other) => other,
        None if of_record.is_null() => "",
        None => "a retry",
    };
    format!("{what}{due}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_record_waits_for_is_said_with_its_time() {
        let due = "2026-01-02T03:04:05.000000Z";
        for (waiting, expected) in [
            (
                json!({"for": "target_open", "attempts": 0, "due": due}),
                format!("its target, which fails (breaker open) until {due}"),
            ),
            (
                json!({"for": "key", "attempts": 0}),
                "an earlier record with its key".into(),
            ),
            (json!({"for": "news", "attempts": 0}), "news".into()),
            (Value::Null, String::new()),
        ] {
            assert_eq!(waits_for(&Value::Null, &waiting), expected);
        }
        let error = json!({"class": "status", "status": 503, "reason": "no"});
        assert_eq!(waits_for(&error, &Value::Null), "a retry");
        assert_eq!(failed(&error, &Value::Null), "status 503: no");
        let called = json!({"for": "backoff", "cause": {"class": "timeout"}, "attempts": 2});
        assert_eq!(failed(&Value::Null, &called), "timeout: 2 calls");
    }
}
