//! Bodies of calls, from the arguments.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Arguments;
use crate::{cli::when, config::Unit};

/// Reads `CAUSE=STREAM`.
pub(super) fn mapping(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((cause, stream)) if !cause.is_empty() && !stream.is_empty() => {
            Ok((cause.into(), stream.into()))
        }
        _ => Err("give CAUSE=STREAM, such as 404=UnrecoverableErrorStream".into()),
    }
}

/// Reads milliseconds, bare or with a unit.
pub(super) fn milliseconds(text: &str) -> Result<u64, String> {
    Unit::Milliseconds.read(text)
}

/// Reads `NAME=VALUE`. The gateway judges names and values, except for times. A key may be empty.
pub(super) fn condition(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name @ ("from" | "to"), value)) => Ok((name.into(), when::time(value)?)),
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("give NAME=VALUE, such as cause=503".into()),
    }
}

/// Returns the conditions as the member `filter`.
fn filter(conditions: &[(String, String)]) -> Value {
    let mut members = BTreeMap::<&str, Vec<&str>>::new();
    for (name, value) in conditions {
        members.entry(name).or_default().push(value);
    }
    let member = |(name, values): (&str, Vec<&str>)| match values[..] {
        [only] => (name.to_owned(), json!(only)),
        _ => (name.to_owned(), json!(values)),
    };
    Value::Object(members.into_iter().map(member).collect())
}

/// The body of a dry run of 1 ms, which finds the partitions of a stream and their tails.
pub(super) fn survey(arguments: &Arguments) -> Value {
    json!({
        "streamOCIDToRetry": arguments.stream,
        "noOfMessagesToProcess": 1,
        "readAfterOffset": -1,
        "readPartition": arguments.partition,
        "dryRun": true,
        "timeBudgetMs": 1,
    })
}

/// The members that differ from call to call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    pub(super) partition: &'a str,
    /// `None`: the offset of the group.
    pub(super) after: Option<i64>,
    /// The call stops before this offset; `None`: at the tail.
    pub(super) before: Option<u64>,
    pub(super) records_max: u64,
    pub(super) time_budget_ms: Option<u64>,
    pub(super) dry_run: bool,
}

/// A call of a partition.
pub(super) fn body(arguments: &Arguments, call: Call<'_>) -> Value {
    let mut body = json!({
        "streamOCIDToRetry": arguments.stream,
        "noOfMessagesToProcess": call.records_max,
        "readPartition": call.partition,
    });
    if !arguments.map.is_empty() {
        let entry =
            |(cause, stream): &(String, String)| json!({"responsecode": cause, "stream": stream});
        body["errormapping"] = arguments.map.iter().map(entry).collect();
    }
    if let Some(group) = &arguments.group {
        body["group"] = group.as_str().into();
    }
    if let Some(after) = call.after {
        body["readAfterOffset"] = after.into();
    }
    if let Some(before) = call.before {
        body["readBeforeOffset"] = before.into();
    }
    if call.dry_run {
        body["dryRun"] = true.into();
    }
    if arguments.redeliver {
        body["redeliver"] = true.into();
    }
    if !arguments.filter.is_empty() {
        body["filter"] = filter(&arguments.filter);
    }
    if let Some(rate) = arguments.rate {
        body["ratePerSecond"] = rate.into();
    }
    if let Some(ms) = call.time_budget_ms {
        body["timeBudgetMs"] = ms.into();
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_cause_and_stream() {
        assert_eq!(mapping("404=A-b"), Ok(("404".into(), "A-b".into())));
        assert!(mapping("404").is_err());
        assert!(mapping("=A").is_err());
        assert!(mapping("404=").is_err());
    }

    #[test]
    fn a_filter_is_made_of_names_and_values() {
        let conditions = [
            "cause=503",
            "key=",
            "cause=network",
            "key=a=b",
            "from=2026-12-01",
        ];
        let conditions = conditions.map(|text| condition(text).unwrap());
        let expected = json!({
            "cause": ["503", "network"], "key": ["", "a=b"], "from": "2026-12-01T00:00:00.000000Z"
        });
        assert_eq!(filter(&conditions), expected);
        for wrong in ["cause", "=503", "from=x"] {
            assert!(condition(wrong).is_err(), "{wrong}");
        }
    }
}
