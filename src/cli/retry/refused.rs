//! Refusals of the gateway, with advice for the operator.

use super::Arguments;
use crate::cli::{
    Failure,
    client::{Error, Refusal},
};

/// Advice if another retry of the stream runs.
const WAITS: &str = "with --loop, the command waits until the other one is done";

/// Returns the message for a call without a report.
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
