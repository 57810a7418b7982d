//! Words for the state of a record, its cause, and the reason it waits.

use serde_json::Value;

use super::page::Item;
use crate::cli::output::{cell, counted};

/// Returns how a record was settled, or only whether it was if the log no longer knows how.
pub(super) fn state(item: &Item<'_>) -> String {
    match (cell(&item.settlement, "/end"), item.settled) {
        (end, _) if !end.is_empty() => end,
        (_, Some(true)) => "settled".to_owned(),
        (_, Some(false)) => "open".to_owned(),
        (_, None) => String::new(),
    }
}

/// Returns the copy of a moved record, as `syncgate records` takes it: `UnrecoverableErrorStream/0/17`.
pub(super) fn moved_to(settlement: &Value) -> String {
    let [stream, partition, offset] =
        ["/to/stream", "/to/partition", "/to/offset"].map(|part| cell(settlement, part));
    match stream.is_empty() {
        true => stream,
        false => format!("{stream}/{partition}/{offset}"),
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

/// Returns the cause of an error record, or of the last call of a record that waits for its next one: `status 429: 2 calls`.
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

/// Returns in a phrase what an open record waits for. A record of an error stream, which has a cause, waits for a retry.
pub(super) fn waits_for(of_record: &Value, waiting: &Value) -> String {
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
    what.to_owned()
}

/// Returns the API's one or two words for it, for a table: `target open`.
pub(super) fn waits_for_shortly(of_record: &Value, waiting: &Value) -> String {
    match waiting["for"].as_str() {
        Some(word) => word.replace('_', " "),
        None if of_record.is_null() => String::new(),
        None => "retry".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_reason_to_wait_has_words() {
        for (waiting, expected, shortly) in [
            (
                json!({"for": "target_open", "attempts": 0}),
                "its target, which fails (breaker open)",
                "target open",
            ),
            (
                json!({"for": "key", "attempts": 0}),
                "an earlier record with its key",
                "key",
            ),
            (json!({"for": "news", "attempts": 0}), "news", "news"),
            (Value::Null, "", ""),
        ] {
            assert_eq!(waits_for(&Value::Null, &waiting), expected);
            assert_eq!(waits_for_shortly(&Value::Null, &waiting), shortly);
        }
        let error = json!({"class": "status", "status": 503, "reason": "no"});
        assert_eq!(waits_for(&error, &Value::Null), "a retry");
        assert_eq!(waits_for_shortly(&error, &Value::Null), "retry");
        assert_eq!(failed(&error, &Value::Null), "status 503: no");
        let called = json!({"for": "backoff", "cause": {"class": "timeout"}, "attempts": 2});
        assert_eq!(failed(&Value::Null, &called), "timeout: 2 calls");
    }

    #[test]
    fn a_settled_record_says_how_and_where_it_is_now() {
        let read = |settlement: &str| {
            let text = format!(
                r#"{{"offset":0,"partition":"0","time":"","settled":true,"settlement":{settlement}}}"#
            );
            let item: Item<'_> = serde_json::from_str(&text).unwrap();
            (state(&item), moved_to(&item.settlement))
        };
        let told = |state: &str, to: &str| (state.to_owned(), to.to_owned());
        assert_eq!(read("null"), told("settled", ""));
        assert_eq!(read(r#"{"end":"delivered"}"#), told("delivered", ""));
        assert_eq!(
            read(r#"{"end":"moved","to":{"stream":"Errors","partition":"3","offset":17}}"#),
            told("moved", "Errors/3/17")
        );
        // Its stream is gone.
        assert_eq!(read(r#"{"end":"moved"}"#), told("moved", ""));
    }
}
