//! What the gateway has refused, in the words of the command line.

use super::Arguments;
use crate::cli::{
    Failure,
    client::{Error, Refusal},
};

/// The arguments that the members of a call come from.
const WORDS: [(&str, &str); 9] = [
    ("/streamOCIDToRetry", "STREAM"),
    ("/noOfMessagesToProcess", "--max"),
    ("/readAfterOffset", "--after"),
    ("/readPartition", "--partition"),
    ("/errormapping", "--map"),
    ("/filter", "--filter"),
    ("/group", "--group"),
    ("/ratePerSecond", "--rate"),
    ("/timeBudgetMs", "--time-budget-ms"),
];
/// What the API names for a list of streams, and the command for it.
const LISTS: (&str, &str) = (
    "GET /v1/streams lists them",
    "`syncgate streams ls` lists them",
);
/// What an operator does about another retry of the stream.
const WAITS: &str = "with --loop, the command waits until the other one is done";

/// Returns what a user is told about a call without a report.
pub(super) fn failure(error: Error, arguments: &Arguments) -> Failure {
    match error {
        Error::Refused(refusal) => refused(&refusal, arguments),
        other => other.into(),
    }
}

pub(super) fn refused(refusal: &Refusal, arguments: &Arguments) -> Failure {
    let mut told = refusal.clone();
    told.detail = in_words(&told.detail);
    for (pointer, sentence) in &mut told.members {
        *sentence = in_words(sentence);
        if let Some(word) = word(pointer) {
            *pointer = named(word, pointer);
        }
    }
    // The detail of a single fault is that of its member, which names the argument too.
    if let [(_, sentence)] = &told.members[..]
        && *sentence == told.detail
    {
        told.detail.clear();
    }
    let mut text = told.text();
    if refusal.code == "retry_running" && !arguments.until_end && !arguments.dry_run {
        text = format!("{text}\n{WAITS}");
    }
    Failure::failed(text)
}

/// Returns a sentence that may begin with a pointer, and may name a route.
fn in_words(sentence: &str) -> String {
    let sentence = sentence.replace(LISTS.0, LISTS.1);
    let Some((pointer, rest)) = sentence.split_once(": ") else {
        return sentence;
    };
    match word(pointer) {
        Some(word) => format!("{}: {rest}", named(word, pointer)),
        None => sentence,
    }
}

/// Returns the argument that a member comes from.
fn word(pointer: &str) -> Option<&'static str> {
    let of = |(member, word): &(&str, &'static str)| {
        let below = pointer.strip_prefix(member)?;
        (below.is_empty() || below.starts_with('/')).then_some(*word)
    };
    WORDS.iter().find_map(of)
}

/// Returns an argument, for a filter with the name of the condition.
fn named(word: &str, pointer: &str) -> String {
    match pointer.strip_prefix("/filter/") {
        Some(condition) => {
            let name = condition.split('/').next().unwrap_or_default();
            format!("{word} {name}")
        }
        None => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(sentence: &str, expected: &str) {
        assert_eq!(in_words(sentence), expected);
    }

    #[test]
    fn members_and_routes_are_told_as_arguments_and_commands() {
        check(
            "/streamOCIDToRetry: no stream is called `x`; GET /v1/streams lists them",
            "STREAM: no stream is called `x`; `syncgate streams ls` lists them",
        );
        check(
            "/errormapping/1/stream: no stream is called `Nowere`; did you mean `Nowhere`?",
            "--map: no stream is called `Nowere`; did you mean `Nowhere`?",
        );
        check(
            "/readPartition: the stream has partitions 0 to 3",
            "--partition: the stream has partitions 0 to 3",
        );
        check("/filter/cause/0: wrong", "--filter cause: wrong");
        check("/groups: wrong", "/groups: wrong");
        check("a whole sentence", "a whole sentence");
    }
}
