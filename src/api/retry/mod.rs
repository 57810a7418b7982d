//! `POST /stream/retry`: resolves the names of a request, runs the retry, and writes its report.

pub(super) mod body;

use std::{any::Any, fmt, sync::Arc};

use async_trait::async_trait;
use axum::{Extension, Json, extract::State};
use http::{HeaderMap, Uri};

use crate::{
    json::faults::{FieldCode, FieldError},
    model::ids::{Offset, Partition, StreamName},
    retry::{
        self, ErrorMapping, Group, PartitionReport, Retrier, RetryReport, RetryRequest, Stopped,
        Waiting,
    },
    storage::Stream,
};

use super::{
    EdgeState,
    access::{Caller, Peer},
    problem::{Code, Problem},
    query::Query,
    retry::body::{Bounds, ReadPartition, Retry},
    streams::{find_at, source},
    wire,
};

/// Runs a pass: the retrier, or a test with a fixed report.
#[async_trait]
pub trait Retries: fmt::Debug + Send + Sync + 'static {
    /// As [`Retrier::run`].
    ///
    /// # Errors
    /// As [`Retrier::run`].
    async fn run(&self, request: RetryRequest) -> Result<RetryReport, retry::Error>;

    /// As [`Retrier::hold`].
    ///
    /// # Errors
    /// As [`Retrier::hold`].
    fn hold(&self, stream: &Stream, by: Arc<str>) -> Result<Box<dyn Any + Send>, retry::Error>;
}

#[async_trait]
impl Retries for Retrier {
    async fn run(&self, request: RetryRequest) -> Result<RetryReport, retry::Error> {
        Self::run(self, request).await
    }

    fn hold(&self, stream: &Stream, by: Arc<str>) -> Result<Box<dyn Any + Send>, retry::Error> {
        let held = Self::hold(self, stream, Some(by))?;
        Ok(Box::new(held))
    }
}

/// The offset before the first one.
const EARLIEST: i64 = -1;

/// Bytes of a body. A mapping of 1000 entries fits.
const BODY_BYTES_MAX: usize = 256 << 10;

/// The route. A client that closes its connection, or its sending half, ends its retry.
pub(super) const PATH: &str = "/stream/retry";

pub(super) async fn retry(
    State(shared): State<Arc<EdgeState>>,
    Extension(caller): Extension<Caller>,
    Extension(peer): Extension<Peer>,
    uri: Uri,
    headers: HeaderMap,
    body: axum::body::Body,
) -> Result<Json<wire::RetryDone>, Problem> {
    Query::parse(&uri, &[])?;
    let body = shared.bodies.read(&headers, body, BODY_BYTES_MAX).await?;
    let settings = shared.settings.get();
    let bounds = Bounds {
        targets: &settings.targets,
        records_max: settings.retry_records_max,
        time_budget: settings.retry_time_budget,
    };
    let asked = Retry::parse(&body.bytes, bounds).map_err(|errors| {
        let code = match body::is_about_filter(&errors) {
            true => Code::FilterInvalid,
            false => Code::InvalidRequest,
        };
        Problem::invalid(code, errors)
    })?;
    drop(body);
    let stream = find_at(&shared, "/streamOCIDToRetry", &asked.stream)?;
    let partitions: Vec<_> = match asked.partition {
        ReadPartition::All => stream.all_partitions().collect(),
        ReadPartition::One(number) => {
            let partition = stream.partition(Partition(number)).ok_or_else(|| {
                let what = format!(
                    "/readPartition: the stream has partitions 0 to {}",
                    stream.partitions - 1
                );
                Problem::new(Code::PartitionUnknown, what)
            })?;
            vec![partition]
        }
    };
    if partitions.len() > 1 && asked.after.is_some_and(|after| after != EARLIEST) {
        let detail = "an offset belongs to one partition: for all partitions give -1 or a group";
        return Err(wrong("/readAfterOffset".into(), detail.into()));
    }
    if partitions.len() > 1 && asked.before.is_some() {
        let detail = "an offset belongs to one partition: give readPartition too";
        return Err(wrong("/readBeforeOffset".into(), detail.into()));
    }
    let mapping = match asked.mapping {
        Some(entries) => mapping(&shared, entries)?,
        None => ErrorMapping::default(),
    };
    let request = RetryRequest {
        mapping,
        stream,
        partitions,
        after: asked
            .after
            .and_then(|after| u64::try_from(after).ok().map(Offset)),
        before: asked.before.map(Offset),
        group: asked.group.map(|name| Group {
            name,
            moves: asked.after.is_some(),
        }),
        records_max: asked.records_max,
        filter: asked.filter,
        rate: asked.rate,
        redeliver: asked.redeliver,
        dry_run: asked.dry_run,
        time_budget: asked.time_budget,
        by: Some(caller.or_address(peer)),
    };
    let report = shared.retrier.run(request).await?;
    let all = asked.partition == ReadPartition::All;
    let after = asked.after.unwrap_or(EARLIEST);
    Ok(Json(done(report, after, all)))
}

fn mapping(shared: &EdgeState, entries: Vec<(String, String)>) -> Result<ErrorMapping, Problem> {
    let mut resolved = Vec::with_capacity(entries.len());
    for (index, (code, stream)) in entries.into_iter().enumerate() {
        let pointer = format!("/errormapping/{index}/stream");
        let stream = find_at(shared, &pointer, &stream)?;
        // A copy in the source stream would be dispatched at once, and counted as accepted a second time.
        if source(shared) == Some(&stream.name) {
            let detail =
                "this is the source stream: its failures would be dispatched again without end";
            return Err(wrong(pointer, detail.into()));
        }
        resolved.push((code, stream));
    }
    ErrorMapping::parse(resolved).map_err(|invalid| {
        let pointer = format!("/errormapping/{}/responsecode", invalid.index);
        wrong(pointer, invalid.reason.to_string())
    })
}

fn wrong(pointer: String, detail: String) -> Problem {
    let error = FieldError {
        pointer,
        code: FieldCode::WrongType,
        detail,
    };
    Problem::invalid(Code::InvalidRequest, vec![error])
}

fn done(report: RetryReport, after: i64, all: bool) -> wire::RetryDone {
    let partitions = all.then(|| {
        let position = |of: &PartitionReport| (of.of.partition.to_string(), position(of, after));
        report.partitions.iter().map(position).collect()
    });
    let tail = match report.partitions[..] {
        [only] if !all => Some(only.tail.0),
        _ => None,
    };
    wire::RetryDone {
        last_read_offset: last_read(report.last_read_offset, after),
        processed_messages: report.processed,
        failed_messages: report.failed,
        end_of_stream: report.end_of_stream,
        attempted: report.attempted,
        delivered: report.processed,
        moved: report.moved,
        moved_to: report.moved_to.into_iter().map(copies).collect(),
        skipped: report.skipped,
        unmatched: report.unmatched,
        start_offset: report.start_offset.0,
        next_offset: report.next_offset.0,
        tail,
        trimmed: report.trimmed,
        by_status: report.by_status,
        stopped: report.stopped.as_ref().map(stopped),
        waiting: report.waiting.iter().map(waiting).collect(),
        group: report.group.map(|group| wire::RetryGroup {
            name: group.name.to_string(),
            positions: group.positions.into_iter().map(stands).collect(),
        }),
        partitions,
    }
}

fn stopped(stopped: &Stopped) -> wire::RetryStopped {
    let (cause, calls, until) = match stopped {
        Stopped::Failing(failing) => (Some(failing.cause.to_string()), Some(failing.calls), None),
        Stopped::Open { until, .. } => (None, None, Some(until.to_string())),
    };
    wire::RetryStopped {
        reason: stopped.reason(),
        target: stopped.target().to_string(),
        cause,
        calls,
        until,
    }
}

fn waiting(waiting: &Waiting) -> wire::RetryWaiting {
    let target = waiting.target.as_ref();
    wire::RetryWaiting {
        target: target.map_or_else(|| "*".to_owned(), ToString::to_string),
        count: waiting.count,
        until: waiting.until.map(|until| until.to_string()),
    }
}

fn copies((stream, len): (StreamName, u64)) -> (String, u64) {
    (stream.to_string(), len)
}

fn stands((partition, last): (Partition, Option<Offset>)) -> (String, i64) {
    (partition.to_string(), last_read(last, EARLIEST))
}

fn position(report: &PartitionReport, after: i64) -> wire::RetryPosition {
    wire::RetryPosition {
        last_read_offset: last_read(report.last_read_offset, after),
        start_offset: report.start_offset.0,
        next_offset: report.next_offset.0,
        tail: report.tail.0,
        trimmed: report.trimmed,
        end_of_stream: report.end_of_stream,
    }
}

/// Returns the last read offset. If the retry read nothing, the caller gets its own offset back.
fn last_read(offset: Option<Offset>, after: i64) -> i64 {
    let offset = offset.map(|offset| i64::try_from(offset.0).unwrap_or(i64::MAX));
    offset.unwrap_or(after)
}

impl From<retry::Error> for Problem {
    fn from(error: retry::Error) -> Self {
        use retry::Error;
        let detail = error.to_string();
        match error {
            Error::Running(taken) => {
                let code = match taken.work {
                    retry::Work::Retry => Code::RetryRunning,
                    retry::Work::Purge => Code::StreamInUse,
                };
                Self {
                    running: Some(Box::new(taken)),
                    ..Self::new(code, format!("{detail}; send the request again when that has ended"))
                }
            }
            Error::PartitionUnknown(_) => {
                Self::new(Code::PartitionUnknown, "the stream has just been deleted")
            }
            Error::BeyondTail { .. } => {
                let fault = FieldError {
                    pointer: "/readAfterOffset".into(),
                    code: FieldCode::WrongType,
                    detail,
                };
                Self::invalid(Code::InvalidRequest, vec![fault])
            }
            Error::NotLeased(_) => Self::new(
                Code::QueueFull,
                "nothing was done; another node has this partition",
            )
            .retry_after(5),
            Error::Read(error) => error.into(),
            Error::LogRefuses(error) => error.into(),
            Error::NotStored(error) => {
                let detail = format!(
                    "earlier records are settled; the settlement of one was not stored, so its target may be called again: {error}"
                );
                Self {
                    detail,
                    ..error.into()
                }
            }
            Error::GroupsFull => {
                let fault = FieldError {
                    pointer: "/group".into(),
                    code: FieldCode::TooLong,
                    detail,
                };
                Self::invalid(Code::InvalidRequest, vec![fault])
            }
            Error::GroupUnreadable(_) => Self::internal(detail),
            Error::GroupNotStored(error) => {
                let detail = format!(
                    "the called records are settled; the group kept its old position, so the next retry reads these records again: {error}"
                );
                Self {
                    detail,
                    ..error.into()
                }
            }
            Error::Panicked => Self {
                detail: "an error in the gateway ended the retry: called records are settled, and the next retry continues with the others".into(),
                ..Self::internal(detail)
            },
            Error::Stopping => Self::draining(),
        }
    }
}
