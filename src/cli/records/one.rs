//! One record with all of its facts.

use reqwest::Method;
use serde_json::Value;

use super::{RecordPath, indent::indented, page::Item, words};
use crate::cli::{
    Failure, Output,
    client::Client,
    output::{self, cell, escape},
};

pub(super) async fn show(
    client: &Client,
    place: &RecordPath<'_>,
    output: Output,
) -> Result<(), Failure> {
    let path = [
        "v1",
        "streams",
        place.stream,
        "partitions",
        place.partition,
        "records",
        place.offset,
    ];
    let request = client.request(Method::GET, &path, &[]);
    let text = client.send_for_text(request).await?;
    let unread = |_| Failure::from(client.not_a_gateway("a record"));
    let item: Item<'_> = serde_json::from_str(&text).map_err(unread)?;
    if output == Output::Json {
        return output::print_json_line(&text.replace(['\n', '\r'], " "));
    }
    if let Some(value) = item.value
        && let Err(error) = serde_json::from_str::<Value>(value.get())
    {
        // The message is shown unchanged, but a program that parses it may fail.
        output::say(&format!(
            "note: a strict JSON reader refuses this message: {error}"
        ));
    }
    output::print(&described(place, &item))
}

fn described(place: &RecordPath<'_>, item: &Item<'_>) -> String {
    let mut text = format!("{}/{}/{}\n", place.stream, place.partition, place.offset);
    text += &rows(facts(item));
    let headers = item.headers.as_object().into_iter().flatten();
    // The target's answer is printed below, in its own section.
    let headers = headers.filter(|(name, _)| *name != "cause-body");
    let headers: Vec<_> = headers
        .map(|(name, value)| (name.as_str(), cell(value, "")))
        .collect();
    if !headers.is_empty() {
        text += "\nheaders\n";
        text += &rows(headers);
    }
    let answer = cell(&item.cause, "/body");
    if !answer.is_empty() {
        text += "\nanswer of the target (its beginning)\n";
        text += &block(&answer);
    }
    text += &message(item);
    text
}

/// Returns the facts of the record, without those it does not have.
fn facts(item: &Item<'_>) -> Vec<(&'static str, String)> {
    let header = |name: &str| {
        item.headers
            .get(name)
            .map(|value| cell(value, ""))
            .unwrap_or_default()
    };
    let waits_for = match item.settled {
        Some(false) => words::waits_for(&item.cause, &item.waiting),
        _ => String::new(),
    };
    let until = match item.settled {
        Some(false) => cell(&item.waiting, "/due"),
        _ => String::new(),
    };
    let settled = |part: &str| cell(&item.settlement, part);
    let origin = match header("origin-stream") {
        stream if stream.is_empty() => stream,
        stream => format!(
            "{stream}/{}/{}",
            header("origin-partition"),
            header("origin-offset")
        ),
    };
    let calls = match header("attempts") {
        attempts if attempts.is_empty() => match cell(&item.waiting, "/attempts") {
            attempts if attempts.is_empty() => settled("/attempts"),
            attempts => attempts,
        },
        attempts => attempts,
    };
    let key = match cell(&item.key_base64, "") {
        base64 if base64.is_empty() => cell(&item.key, ""),
        base64 => format!("{base64} (base64)"),
    };
    let facts = [
        ("time", output::time(&cell(&item.time, ""))),
        ("state", words::state(item)),
        ("settled", output::time(&settled("/at"))),
        ("last status", settled("/status")),
        ("moved to", words::moved_to(&item.settlement)),
        ("waits for", waits_for),
        ("until", output::time(&until)),
        (
            "cause",
            words::cause(match item.cause.is_null() {
                true => &item.waiting["cause"],
                false => &item.cause,
            }),
        ),
        ("calls", calls),
        ("first call", output::time(&header("first-attempt-at"))),
        ("last call", output::time(&header("last-attempt-at"))),
        ("retries", header("retries")),
        ("came from", origin),
        ("key", key),
        ("message id", cell(&item.message_id, "")),
    ];
    facts
        .into_iter()
        .filter(|(_, fact)| !fact.is_empty())
        .collect()
}

/// Returns names and facts in two columns. The terminal wraps long lines, so nothing is cut.
fn rows(facts: Vec<(&str, String)>) -> String {
    let width = facts
        .iter()
        .map(|(name, _)| name.len())
        .max()
        .unwrap_or_default();
    let row = |(name, fact): (&str, String)| format!("  {name:width$}  {}\n", escape::line(&fact));
    facts.into_iter().map(row).collect()
}

fn message(item: &Item<'_>) -> String {
    let base64 = cell(&item.value_base64, "");
    match item.value {
        Some(value) => format!("\nmessage\n{}", block(&indented(value.get()))),
        None if base64.is_empty() => "\nmessage: empty\n".to_owned(),
        None => format!("\nmessage (no JSON, in base64)\n{}", block(&base64)),
    }
}

fn block(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}
