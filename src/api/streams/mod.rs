//! `/v1/streams`: list, create, show, change and delete streams.

pub(super) mod body;
pub(super) mod purge;

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};

use crate::{
    ingest::NotPaused,
    model::ids::StreamName,
    retry,
    storage::{
        ControlEventKind, MadeBy, OpenRecords, ReadError, Stream, StreamConfig, StreamError,
    },
};

use super::{
    EdgeState,
    named::{self, Named},
    problem::{Code, Problem},
    query::Query,
    wire,
};

/// Bytes of a body that describes a stream.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Races with other changes that a change without `If-Match` may lose.
const RACES_MAX: usize = 5;

pub(super) async fn list(
    State(shared): State<Arc<EdgeState>>,
    uri: Uri,
) -> Result<Json<wire::List<wire::StreamView>>, Problem> {
    let query = Query::parse(&uri, &["limit", "after"])?;
    let (limit, after) = (query.limit()?, query.get("after"));
    let all = shared.streams.engine().streams();
    let mut rest = all
        .iter()
        .filter(|stream| after.is_none_or(|after| stream.name.as_str() > after));
    let items: Vec<_> = rest.by_ref().take(limit).collect();
    let next = rest.next().and(items.last());
    Ok(Json(wire::List {
        next: next.map(|last| last.name.to_string()),
        items: items.into_iter().map(|item| view(&shared, item)).collect(),
    }))
}

pub(super) async fn create(
    State(shared): State<Arc<EdgeState>>,
    uri: Uri,
    headers: HeaderMap,
    body: axum::body::Body,
) -> Result<Response, Problem> {
    Query::parse(&uri, &[])?;
    let body = shared.bodies.read(&headers, body, BODY_BYTES_MAX).await?;
    let asked = body::NewStream::parse(&body.bytes)
        .map_err(|errors| Problem::invalid(Code::InvalidRequest, errors))?;
    let config = StreamConfig {
        made_by: MadeBy::Api,
        ocid: asked.ocid,
        retention_hours: asked.retention_hours,
        retention_bytes: asked.retention_bytes,
    };
    let engine = shared.streams.engine();
    let made = engine
        .create_stream(asked.name, asked.partitions, config)
        .await?;
    let location = HeaderValue::from_str(&format!("/v1/streams/{}", made.name));
    let mut response = detailed(&shared, &made).await?;
    *response.status_mut() = StatusCode::CREATED;
    if let Ok(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

pub(super) async fn show(
    State(shared): State<Arc<EdgeState>>,
    Named(name): Named<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    Query::parse(&uri, &[])?;
    let stream = find(&shared, &name)?;
    detailed(&shared, &stream).await
}

pub(super) async fn change(
    State(shared): State<Arc<EdgeState>>,
    Named(name): Named<String>,
    uri: Uri,
    headers: HeaderMap,
    body: axum::body::Body,
) -> Result<Response, Problem> {
    Query::parse(&uri, &[])?;
    let stated = headers.contains_key(header::IF_MATCH);
    let body = shared.bodies.read(&headers, body, BODY_BYTES_MAX).await?;
    let change = body::StreamChange::parse(&body.bytes)
        .map_err(|errors| Problem::invalid(Code::InvalidRequest, errors))?;
    for _ in 0..RACES_MAX {
        let stream = find(&shared, &name)?;
        check_match(&headers, &stream)?;
        if stream.config.made_by == MadeBy::Config {
            return Err(in_config());
        }
        match apply(&shared, &stream, &change).await {
            Ok(changed) => return detailed(&shared, &changed).await,
            Err(Refused::Changed(StreamError::ChangedMeanwhile)) if !stated => {}
            Err(Refused::Changed(error)) => return Err(error.into()),
            Err(Refused::Problem(problem)) => return Err(*problem),
        }
    }
    Err(StreamError::ChangedMeanwhile.into())
}

pub(super) async fn delete(
    State(shared): State<Arc<EdgeState>>,
    Named(name): Named<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    Query::parse(&uri, &[])?;
    let stream = find(&shared, &name)?;
    check_match(&headers, &stream)?;
    if stream.config.made_by == MadeBy::Config {
        return Err(in_config());
    }
    if !roles(&shared, &stream.name).is_empty() {
        let what = "the configuration gives this stream a role";
        return Err(Problem::new(Code::StreamInUse, what));
    }
    let revision = Some(stream.revision);
    let engine = shared.streams.engine();
    engine
        .delete_stream(stream.id, revision, OpenRecords::Refuse)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn partitions(
    State(shared): State<Arc<EdgeState>>,
    Named(name): Named<String>,
    uri: Uri,
) -> Result<Json<wire::List<wire::PartitionView>>, Problem> {
    let query = Query::parse(&uri, &["limit", "after"])?;
    let limit = query.limit()?;
    let first = match query.get("after").map(str::parse::<usize>) {
        None => 0,
        Some(Ok(after)) => after.saturating_add(1),
        Some(Err(_)) => return Err(super::query::invalid("after is a partition".into())),
    };
    let stream = find(&shared, &name)?;
    let mut items = bounds(&shared, &stream)?;
    items.drain(..first.min(items.len()));
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more);
    Ok(Json(wire::List {
        next: next.map(|last| last.partition.clone()),
        items,
    }))
}

/// Returns the stream of that name or `ocid`.
pub(super) fn find(shared: &EdgeState, name: &str) -> Result<Arc<Stream>, Problem> {
    let found = shared.streams.resolve(name);
    found.ok_or_else(|| Problem::new(Code::StreamUnknown, unknown(shared, name)))
}

/// As [`find`], for a name in a body: the detail begins with its pointer.
pub(super) fn find_at(
    shared: &EdgeState,
    pointer: &str,
    name: &str,
) -> Result<Arc<Stream>, Problem> {
    let found = shared.streams.resolve(name);
    found.ok_or_else(|| {
        let what = format!("{pointer}: {}", unknown(shared, name));
        Problem::new(Code::StreamUnknown, what)
    })
}

fn unknown(shared: &EdgeState, name: &str) -> String {
    let all = shared.streams.engine().streams();
    let names = all.iter().map(|stream| stream.name.as_str());
    let ocids = all
        .iter()
        .filter_map(|stream| stream.config.ocid.as_deref());
    named::unknown(
        "stream",
        name,
        names.chain(ocids),
        "GET /v1/streams lists them",
    )
}

enum Refused {
    Changed(StreamError),
    Problem(Box<Problem>),
}

impl<T: Into<Problem>> From<T> for Refused {
    fn from(problem: T) -> Self {
        Self::Problem(Box::new(problem.into()))
    }
}

async fn apply(
    shared: &EdgeState,
    stream: &Stream,
    change: &body::StreamChange,
) -> Result<Arc<Stream>, Refused> {
    let mut config = stream.config.clone();
    if let Some(hours) = change.retention_hours {
        config.retention_hours = hours;
    }
    if let Some(bytes) = change.retention_bytes {
        config.retention_bytes = bytes;
    }
    let partitions = change.partitions.unwrap_or(stream.partitions);
    let engine = shared.streams.engine();
    let is_source = source(shared) == Some(&stream.name);
    // Submissions under way have chosen among the old partitions, so pause ingest while the source stream grows.
    let _pause = match is_source && partitions > stream.partitions {
        true => {
            let pause = shared.ingest.pause().await?;
            grow_error_streams(shared, partitions).await?;
            Some(pause)
        }
        false => None,
    };
    let revision = Some(stream.revision);
    engine
        .change_stream(stream.id, partitions, config, revision)
        .await
        .map_err(Refused::Changed)
}

/// Gives every error stream as many partitions as the source stream, because an error record keeps its partition number.
async fn grow_error_streams(shared: &EdgeState, partitions: u16) -> Result<(), Problem> {
    let settings = shared.settings.get();
    let roles = shared.roles.iter().skip(1).map(|(_, name)| name);
    for name in roles.chain(&settings.outcome_streams) {
        let Some(stream) = shared.streams.by_name(name) else {
            continue;
        };
        if stream.partitions < partitions {
            let engine = shared.streams.engine();
            let config = stream.config.clone();
            let revision = Some(stream.revision);
            engine
                .change_stream(stream.id, partitions, config, revision)
                .await?;
        }
    }
    Ok(())
}

fn in_config() -> Problem {
    let what = "[[streams]] of the configuration defines this stream";
    Problem::new(Code::StreamInConfig, what)
}

pub(super) fn source(shared: &EdgeState) -> Option<&StreamName> {
    shared.roles.first().map(|(_, name)| name)
}

fn roles(shared: &EdgeState, name: &StreamName) -> Vec<&'static str> {
    let settings = shared.settings.get();
    let roles = shared.roles.iter().filter(|(_, of)| of == name);
    let outcome = settings.outcome_streams.contains(name).then_some("outcome");
    roles.map(|(role, _)| *role).chain(outcome).collect()
}

fn etag(stream: &Stream) -> String {
    format!("\"{}\"", stream.revision)
}

/// Checks `If-Match` (RFC 9110 §13.1.1); a request without it passes.
fn check_match(headers: &HeaderMap, stream: &Stream) -> Result<(), Problem> {
    let mut stated = headers.get_all(header::IF_MATCH).iter().peekable();
    if stated.peek().is_none() {
        return Ok(());
    }
    let etag = etag(stream);
    let fits = |tag: &str| tag == "*" || tag == etag;
    let fits = stated
        .filter_map(|tags| tags.to_str().ok())
        .any(|tags| tags.split(',').any(|tag| fits(tag.trim())));
    match fits {
        true => Ok(()),
        false => Err(StreamError::ChangedMeanwhile.into()),
    }
}

async fn detailed(shared: &EdgeState, stream: &Stream) -> Result<Response, Problem> {
    let bounds = bounds(shared, stream)?;
    let mut readers = Vec::new();
    if source(shared) == Some(&stream.name) {
        readers.push(wire::ReaderView {
            kind: "dispatch",
            name: "dispatch".into(),
            lag: bounds.iter().map(|partition| partition.open).sum(),
        });
    }
    let engine = &**shared.streams.engine();
    for group in retry::groups(engine, stream.id).await {
        let lag = group.lag(engine, stream.all_partitions()).await;
        readers.push(wire::ReaderView {
            kind: "retry",
            name: group.name,
            lag,
        });
    }
    let view = wire::StreamDetail {
        stream: view(shared, stream),
        last_purge: last_purge(stream),
        bounds,
        readers,
    };
    let mut response = Json(view).into_response();
    if let Ok(etag) = HeaderValue::from_str(&etag(stream)) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    Ok(response)
}

fn view(shared: &EdgeState, stream: &Stream) -> wire::StreamView {
    let made = stream
        .events
        .iter()
        .find(|event| matches!(event.kind, ControlEventKind::Created { .. }));
    wire::StreamView {
        name: stream.name.to_string(),
        id: stream.id.to_string(),
        partitions: stream.partitions,
        retention_hours: stream.config.retention_hours,
        retention_bytes: stream.config.retention_bytes,
        ocid: stream.config.ocid.clone(),
        made_by: match stream.config.made_by {
            MadeBy::Start => "start",
            MadeBy::Config => "config",
            MadeBy::Api => "api",
        },
        made_at: made.map(|event| event.time.to_string()),
        roles: roles(shared, &stream.name),
    }
}

fn last_purge(stream: &Stream) -> Option<wire::PurgeView> {
    let note = stream.last_purge.clone()?;
    Some(wire::PurgeView {
        at: stream.purged()?.time.to_string(),
        reason: note.reason,
        by: note.by,
    })
}

fn bounds(shared: &EdgeState, stream: &Stream) -> Result<Vec<wire::PartitionView>, ReadError> {
    let engine = shared.streams.engine();
    let partition = |of| {
        let status = engine.status(of)?;
        Ok(wire::PartitionView {
            partition: of.partition.to_string(),
            earliest: status.bounds.earliest.0,
            tail: status.bounds.tail.0,
            low_mark: status.low_mark.0,
            open: status.counts.open_len(),
            counts: status.counts.into(),
        })
    };
    stream.all_partitions().map(partition).collect()
}

impl From<StreamError> for Problem {
    fn from(error: StreamError) -> Self {
        let detail = error.to_string();
        match error {
            StreamError::Exists => Self::new(Code::Exists, detail),
            StreamError::Unknown => Self::new(Code::StreamUnknown, detail),
            StreamError::Shrink { .. } => Self::new(Code::PartitionsShrink, detail),
            StreamError::TooMany { .. } => Self::new(
                Code::StateFull,
                format!("{detail}; delete one, or raise log.streams_max and restart"),
            ),
            StreamError::Open { .. } => Self::new(Code::StreamInUse, detail),
            StreamError::ChangedMeanwhile => Self::new(Code::ChangedMeanwhile, detail),
            StreamError::Commit(error) => error.into(),
        }
    }
}

impl From<NotPaused> for Problem {
    fn from(error: NotPaused) -> Self {
        let what = format!("nothing was changed: {error}");
        Self::new(Code::QueueFull, what).retry_after(5)
    }
}
