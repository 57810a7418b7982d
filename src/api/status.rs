//! `GET /v1/status`. A user sees names, counts, states and causes. Only operators see reasons, because they can quote the
//! answer of a target, and the path of the data directory.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use axum::{Extension, Json, extract::State};
use http::Uri;
use serde::Serialize;

use crate::{
    dispatch::{BreakerState, Cause},
    runtime::clock::Timestamp,
    status::{Aim, Group, Problem as Trouble, Reader, ReaderKind, Report, Retry, Status, Target},
    storage::Health,
    users::Role,
};

use super::{EdgeState, access::Caller, problem::Problem, query::Query, wire::CauseView};

/// Entries of each list; `more…` is the number of further ones.
const ENTRIES_MAX: usize = 100;
/// Entries of the list of problems.
const PROBLEMS_MAX: usize = 50;

/// Makes reports: [`Status`], or a test with a fixed report.
#[async_trait]
pub trait Reports: fmt::Debug + Send + Sync + 'static {
    /// As [`Status::report`].
    async fn report(&self) -> Arc<Report>;
}

#[async_trait]
impl Reports for Status {
    async fn report(&self) -> Arc<Report> {
        Self::report(self).await
    }
}

pub(super) async fn show(
    State(shared): State<Arc<EdgeState>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Result<Json<StatusView>, Problem> {
    Query::parse(&uri, &[])?;
    let report = shared.reports.report().await;
    Ok(Json(StatusView::of(
        &report,
        caller.role >= Some(Role::Operator),
    )))
}

/// Answer of `GET /v1/status`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StatusView {
    verdict: &'static str,
    version: &'static str,
    at: String,
    started_at: String,
    /// The role of the caller may see reasons and the data directory.
    shows_reasons: bool,
    problems: Vec<ProblemView>,
    more_problems: usize,
    targets: Vec<TargetView>,
    more_targets: usize,
    open: Vec<OpenView>,
    more_open: usize,
    open_records: OpenRecordsView,
    disk: DiskView,
    journal: JournalView,
    ledger: LedgerView,
    readers: Vec<ReaderView>,
    more_readers: usize,
    retries: Vec<RetryView>,
    more_retries: usize,
}

#[derive(Debug, Serialize)]
struct ProblemView {
    code: &'static str,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TargetView {
    target: String,
    name: String,
    state: &'static str,
    since: Option<String>,
    /// If the breaker is open: the time of its next probe.
    until: Option<String>,
    /// The target requested this time by `Retry-After`.
    until_asked: bool,
    in_flight: usize,
    pending: u64,
    in_error_streams: u64,
    oldest: Option<String>,
    last_cause: Option<LastCauseView>,
}

#[derive(Debug, Serialize)]
struct LastCauseView {
    #[serde(flatten)]
    cause: CauseView,
    at: String,
}

/// Open records of one stream with the same target and cause.
#[derive(Debug, Serialize)]
struct OpenView {
    stream: String,
    /// `*` = several targets counted together, `null` = the records have no target that can be called.
    target: Option<String>,
    /// `null` = no call has failed yet.
    cause: Option<CauseView>,
    count: u64,
    first: String,
    last: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OpenRecordsView {
    count: u64,
    /// How many of them `open` covers.
    looked_at: u64,
    /// `open` covers all of them.
    complete: bool,
    streams: Vec<StreamOpenView>,
}

#[derive(Debug, Serialize)]
struct StreamOpenView {
    stream: String,
    count: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DiskView {
    #[serde(skip_serializing_if = "Option::is_none")]
    dir: Option<String>,
    /// `null` = the disk has not answered in time.
    free_bytes: Option<u64>,
    free_bytes_min: Option<u64>,
    reserve_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct JournalView {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    files: Option<usize>,
    bytes: Option<u64>,
    unreadable_partitions: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LedgerView {
    balanced: bool,
    difference: i64,
    streams: Vec<DifferenceView>,
    accepted_losses: u64,
}

#[derive(Debug, Serialize)]
struct DifferenceView {
    stream: String,
    difference: i64,
}

/// A running retry.
#[derive(Debug, Serialize)]
struct RetryView {
    stream: String,
    since: String,
    /// The user that started it, or the address of a caller without a name.
    by: Option<String>,
    done: u64,
    total: u64,
}

/// A reader. Its kind decides its members.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct ReaderView {
    kind: &'static str,
    stream: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_stream: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connected: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    clients: Option<usize>,
    lag: Option<u64>,
    oldest: Option<String>,
}

impl StatusView {
    fn of(report: &Report, shows_reasons: bool) -> Self {
        let text = |time: Option<Timestamp>| time.map(|time| time.to_string());
        let more = |len: usize| len.saturating_sub(ENTRIES_MAX);
        let groups = &report.open.counted.groups;
        let streams = &report.open.streams;
        let stream = |(stream, count): &(Arc<crate::storage::Stream>, u64)| StreamOpenView {
            stream: stream.name.to_string(),
            count: *count,
        };
        let difference = |(stream, difference): &(String, i64)| DifferenceView {
            stream: stream.clone(),
            difference: *difference,
        };
        let problem = |trouble: &Trouble| ProblemView {
            code: trouble.code,
            text: trouble.text.clone(),
            reason: trouble.reason.clone().filter(|_| shows_reasons),
            since: text(trouble.since),
            command: (shows_reasons || !trouble.is_for_machine).then(|| trouble.command.clone()),
        };
        let space = report.space;
        Self {
            verdict: match report.problems.is_empty() {
                true => "well",
                false => "problems",
            },
            version: env!("CARGO_PKG_VERSION"),
            at: report.at.to_string(),
            started_at: report.started_at.to_string(),
            shows_reasons,
            problems: first(&report.problems, PROBLEMS_MAX, problem),
            more_problems: report.problems.len().saturating_sub(PROBLEMS_MAX),
            targets: first(&report.targets, ENTRIES_MAX, |one| {
                target(one, shows_reasons)
            }),
            more_targets: more(report.targets.len()),
            open: first(groups, ENTRIES_MAX, |one| open(one, shows_reasons)),
            more_open: more(groups.len()),
            open_records: OpenRecordsView {
                count: streams.iter().map(|(_, count)| count).sum(),
                looked_at: report.open.counted.looked_at,
                complete: report.open.counted.is_complete,
                streams: first(streams, ENTRIES_MAX, stream),
            },
            disk: DiskView {
                dir: shows_reasons.then(|| report.dir.display().to_string()),
                free_bytes: space.map(|space| space.free_bytes),
                free_bytes_min: space.map(|space| space.free_bytes_min),
                reserve_bytes: space.map(|space| space.reserve_bytes),
            },
            journal: JournalView {
                state: state(&report.health),
                reason: match &report.health {
                    Health::Stopped(reason) if shows_reasons => Some(reason.to_string()),
                    _ => None,
                },
                files: space.map(|space| space.files_len),
                bytes: space.map(|space| space.files_bytes),
                unreadable_partitions: report.unreadable_partitions,
            },
            ledger: LedgerView {
                balanced: report.ledger.is_balanced,
                difference: report.ledger.difference,
                streams: first(&report.ledger.streams, ENTRIES_MAX, difference),
                accepted_losses: report.ledger.accepted_losses,
            },
            readers: first(&report.readers, ENTRIES_MAX, reader),
            more_readers: more(report.readers.len()),
            retries: first(&report.retries, ENTRIES_MAX, retry),
            more_retries: more(report.retries.len()),
        }
    }
}

fn first<T, V>(all: &[T], len_max: usize, view: impl Fn(&T) -> V) -> Vec<V> {
    all.iter().take(len_max).map(view).collect()
}

/// Returns the state in the words of `/readyz`.
fn state(health: &Health) -> &'static str {
    match health {
        Health::Running => "running",
        Health::SpaceLow => "disk_free_min",
        Health::DiskFull => "disk_full",
        Health::DiskStalled => "disk_stalled",
        Health::Stopped(_) => "log_stopped",
    }
}

fn cause(cause: Cause, reason: Option<&str>) -> CauseView {
    CauseView {
        class: cause.word().to_owned(),
        status: cause.status(),
        reason: reason.map(str::to_owned),
        body: None,
    }
}

fn target(target: &Target, shows_reasons: bool) -> TargetView {
    let (state, until, until_asked) = match target.breaker {
        BreakerState::Closed => ("closed", None, false),
        BreakerState::Open { until, is_asked } => ("open", Some(until), is_asked),
        BreakerState::HalfOpen => ("half-open", None, false),
    };
    TargetView {
        target: target.id.to_string(),
        name: target.name.clone(),
        state,
        since: target.since.map(|since| since.to_string()),
        until: until.map(|until| until.to_string()),
        until_asked,
        in_flight: target.in_flight,
        pending: target.pending,
        in_error_streams: target.in_error_streams,
        oldest: target.oldest.map(|oldest| oldest.to_string()),
        last_cause: target.last_failure.as_ref().map(|last| LastCauseView {
            cause: cause(last.cause, Some(&*last.reason).filter(|_| shows_reasons)),
            at: last.at.to_string(),
        }),
    }
}

fn open(group: &Group, shows_reasons: bool) -> OpenView {
    let reason = group.reason.as_deref().filter(|_| shows_reasons);
    OpenView {
        stream: group.stream.name.to_string(),
        target: match &group.aim {
            Aim::Target(id) => Some(id.to_string()),
            Aim::Nowhere => None,
            Aim::Others => Some("*".into()),
        },
        cause: group.cause.map(|of| cause(of, reason)),
        count: group.len,
        first: group.first.to_string(),
        last: group.last.to_string(),
    }
}

fn retry(retry: &Retry) -> RetryView {
    RetryView {
        stream: retry.stream.to_string(),
        since: retry.since.to_string(),
        by: retry.by.as_deref().map(str::to_owned),
        done: retry.done,
        total: retry.total,
    }
}

fn reader(reader: &Reader) -> ReaderView {
    let view = ReaderView {
        stream: reader.stream.as_ref().map(ToString::to_string),
        lag: reader.lag,
        oldest: reader.oldest.map(|oldest| oldest.to_string()),
        ..ReaderView::default()
    };
    match &reader.kind {
        ReaderKind::Dispatch(partition) => ReaderView {
            kind: "dispatch",
            partition: Some(partition.to_string()),
            ..view
        },
        ReaderKind::Retry(group) => ReaderView {
            kind: "retry",
            name: Some(group.clone()),
            ..view
        },
        ReaderKind::Cursor {
            data_stream,
            name,
            is_connected,
        } => ReaderView {
            kind: "cursor",
            data_stream: Some(data_stream.clone()),
            name: Some(name.clone()),
            connected: Some(*is_connected),
            ..view
        },
        ReaderKind::Subscribers { data_stream, len } => ReaderView {
            kind: "subscribers",
            data_stream: Some(data_stream.clone()),
            clients: Some(*len),
            ..view
        },
    }
}
