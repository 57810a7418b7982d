//! The record that a failure appends to an error stream: key and value unchanged, the cause in headers. Pure.
//!
//! It fits, because the cause adds less than 4 KiB and the log takes 64 KiB more than ingest does. If the log still
//! refuses it as too large, it is made without the target's answer.

use super::{Cause, Failure, KEPT_BYTES_MAX};
use crate::dispatch::job::{Errand, Job};
use crate::{
    model::record::{Headers, HeadersBuilder, Record, header},
    runtime::clock::Timestamp,
};

/// Bytes of a reason.
const REASON_BYTES_MAX: usize = 512;

/// Headers that this module writes; all others are copied from the original.
const OURS: [&str; 12] = [
    header::MESSAGE_ID,
    header::CAUSE_CLASS,
    header::CAUSE_STATUS,
    header::CAUSE_REASON,
    header::CAUSE_BODY,
    header::ATTEMPTS,
    header::RETRIES,
    header::FIRST_ATTEMPT_AT,
    header::LAST_ATTEMPT_AT,
    header::ORIGIN_STREAM,
    header::ORIGIN_PARTITION,
    header::ORIGIN_OFFSET,
];

/// How much of a cause the headers hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dispatch) enum Size {
    /// All of it.
    Whole,
    /// All but the target's answer.
    Least,
}

/// Returns the record for the error stream.
///
/// `attempts` counts over all dispatches of the message, `first-attempt-at` is that of the first one, and `origin-*`
/// name the first record, also after several moves.
pub(in crate::dispatch) fn error_record(
    job: &Job,
    failure: &Failure,
    size: Size,
    now: Timestamp,
) -> Record {
    let original = &job.record.headers;
    let mut builder = HeadersBuilder::default();
    for (name, value) in original.iter() {
        if !OURS.contains(&name) {
            builder.push(name, value);
        }
    }
    let text = |number: u64| number.to_string();
    builder
        .push(header::MESSAGE_ID, &job.message_id().text())
        .push(header::CAUSE_CLASS, failure.cause.word());
    if let Some(status) = failure.cause.status() {
        builder.push(header::CAUSE_STATUS, &text(status.into()));
    }
    builder.push(header::CAUSE_REASON, cut(&failure.reason, REASON_BYTES_MAX));
    if size == Size::Whole && !failure.body.is_empty() {
        let body = String::from_utf8_lossy(&failure.body);
        builder.push(header::CAUSE_BODY, cut(&body, KEPT_BYTES_MAX));
    }
    let attempts = number(original, header::ATTEMPTS) + u64::from(job.tried.attempts);
    builder.push(header::ATTEMPTS, &text(attempts));
    builder.push(header::RETRIES, &text(retries(job)));
    let first_at = job.tried.first_at.unwrap_or(now).to_string();
    let last_at = job.tried.last_at.unwrap_or(now).to_string();
    let first_at = original.get(header::FIRST_ATTEMPT_AT).unwrap_or(&first_at);
    builder
        .push(header::FIRST_ATTEMPT_AT, first_at)
        .push(header::LAST_ATTEMPT_AT, &last_at);
    let here = [
        (header::ORIGIN_STREAM, job.stream().name.to_string()),
        (header::ORIGIN_PARTITION, job.of.partition.to_string()),
        (header::ORIGIN_OFFSET, job.offset.to_string()),
    ];
    let moved = original.get(header::ORIGIN_STREAM).is_some();
    for (name, here) in &here {
        let first = original.get(name).filter(|_| moved);
        builder.push(name, first.unwrap_or(here));
    }
    Record {
        key: job.record.key.clone(),
        value: job.record.value.clone(),
        headers: builder.build(),
    }
}

/// Returns the cause that stands in the headers of an error record.
pub(crate) fn cause(record: &Record) -> Option<Cause> {
    let class = record.headers.get(header::CAUSE_CLASS)?;
    let status = record.headers.get(header::CAUSE_STATUS);
    let status = status.and_then(|status| status.parse().ok());
    match status.map(Cause::Status) {
        Some(cause) if cause.word() == class => Some(cause),
        _ => Cause::without_status(class),
    }
}

/// Returns how many retries the record has failed, with this one.
pub(in crate::dispatch) fn retries(job: &Job) -> u64 {
    let before = number(&job.record.headers, header::RETRIES);
    match job.errand {
        Errand::First(_) => before,
        Errand::Retry(_) => before + 1,
    }
}

fn number(headers: &Headers, name: &str) -> u64 {
    let text = headers.get(name);
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
