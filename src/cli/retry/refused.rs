//! What the gateway has refused, with what an operator does about it.

use super::Arguments;
use crate::cli::{
    Failure,
    client::{Error, Refusal},
};

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
    let mut text = refusal.text();
    if refusal.code == "retry_running" && !arguments.until_end && !arguments.dry_run {
        text = format!("{text}\n{WAITS}");
    }
    Failure::failed(text)
}
