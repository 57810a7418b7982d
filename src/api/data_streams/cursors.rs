//! `/v1/data-streams/{name}/cursors`: show, move, acknowledge and delete cursors.

use std::{borrow::Cow, sync::Arc};

use axum::{Json, body::Body, extract::State};
use http::{HeaderMap, StatusCode, Uri};
use serde::Serialize;

use crate::{
    api::{
        EdgeState,
        named::{self, Named},
        problem::{Code, Problem},
        query::Query,
        wire::List,
    },
    json::{faults::FieldError, object},
    push::{
        AckError, CursorError, CursorName, CursorNameInvalid, CursorStatus, DataStream, MoveError,
    },
};

use super::find;

/// Bytes of a body, which has one member: a position.
const BODY_BYTES_MAX: usize = 16 << 10;

/// A cursor in an answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct CursorView {
    name: String,
    pos: String,
    acked_at: Option<String>,
    used_at: String,
    connected: bool,
    records_behind: u64,
    seconds_behind: u64,
}

impl From<CursorStatus> for CursorView {
    fn from(status: CursorStatus) -> Self {
        Self {
            name: status.name.to_string(),
            pos: status.pos,
            acked_at: status.acked_at.map(|time| time.to_string()),
            used_at: status.used_at.to_string(),
            connected: status.is_connected,
            records_behind: status.records_behind,
            seconds_behind: status.behind.as_secs(),
        }
    }
}

pub(in crate::api) async fn list(
    State(shared): State<Arc<EdgeState>>,
    Named(name): Named<String>,
    uri: Uri,
) -> Result<Json<List<CursorView>>, Problem> {
    let query = Query::parse(&uri, &["limit", "after"])?;
    let limit = query.limit()?;
    let (_, stream) = find(&shared, &name)?;
    let (items, more) = shared
        .push
        .cursors(&stream, query.get("after"), limit)
        .await?;
    let items: Vec<_> = items.into_iter().map(CursorView::from).collect();
    Ok(Json(List {
        next: items.last().filter(|_| more).map(|last| last.name.clone()),
        items,
    }))
}

pub(in crate::api) async fn show(
    State(shared): State<Arc<EdgeState>>,
    Named((name, cursor)): Named<(String, String)>,
    uri: Uri,
) -> Result<Json<CursorView>, Problem> {
    Query::parse(&uri, &[])?;
    let (_, stream) = find(&shared, &name)?;
    let unknown = || unknown(&shared, &stream, &cursor);
    let cursor = cursor.parse().map_err(|_| unknown())?;
    let found = shared.push.cursor(&stream, &cursor).await?;
    Ok(Json(found.ok_or_else(unknown)?.into()))
}

pub(in crate::api) async fn put(
    State(shared): State<Arc<EdgeState>>,
    Named((name, cursor)): Named<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<CursorView>, Problem> {
    Query::parse(&uri, &[])?;
    let (_, stream) = find(&shared, &name)?;
    let cursor = named(&cursor)?;
    let body = shared.bodies.read(&headers, body, BODY_BYTES_MAX).await?;
    let begin = optional_text(&body.bytes, "begin").map_err(invalid)?;
    shared
        .push
        .put_cursor(&stream, &cursor, begin.as_deref())
        .await?;
    let put = shared.push.cursor(&stream, &cursor).await?;
    // Another request may have deleted it meanwhile.
    let put = put.ok_or_else(|| unknown(&shared, &stream, cursor.as_str()))?;
    Ok(Json(put.into()))
}

pub(in crate::api) async fn delete(
    State(shared): State<Arc<EdgeState>>,
    Named((name, cursor)): Named<(String, String)>,
    uri: Uri,
) -> Result<StatusCode, Problem> {
    Query::parse(&uri, &[])?;
    let (_, stream) = find(&shared, &name)?;
    let unknown = || unknown(&shared, &stream, &cursor);
    let cursor: CursorName = cursor.parse().map_err(|_| unknown())?;
    let removed = shared.push.remove_cursor(&stream, &cursor).await;
    removed.map_err(|error| match error {
        CursorError::Unknown => unknown(),
        other => other.into(),
    })?;
    Ok(StatusCode::NO_CONTENT)
}

pub(in crate::api) async fn ack(
    State(shared): State<Arc<EdgeState>>,
    Named((name, cursor)): Named<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    Query::parse(&uri, &[])?;
    let (_, stream) = find(&shared, &name)?;
    let unknown = || unknown(&shared, &stream, &cursor);
    let cursor: CursorName = cursor.parse().map_err(|_| unknown())?;
    let body = shared.bodies.read(&headers, body, BODY_BYTES_MAX).await?;
    let pos = one_text(&body.bytes, "ack").map_err(invalid)?;
    let acked = shared.push.ack_cursor(&stream, &cursor, &pos).await;
    acked.map_err(|error| match error {
        AckError::Cursor(CursorError::Unknown) => unknown(),
        other => other.into(),
    })?;
    Ok(StatusCode::NO_CONTENT)
}

/// Returns the string of an object whose only member is `name`.
pub(super) fn one_text(body: &[u8], name: &str) -> Result<String, Vec<FieldError>> {
    let (object, mut faults) = object::body(body, &[name])?;
    match object.text(name, &mut faults) {
        Some(text) if faults.is_empty() => Ok(text.into_owned()),
        _ => Err(faults),
    }
}

/// As [`one_text`]; `None` if the object is empty.
fn optional_text(body: &[u8], name: &str) -> Result<Option<String>, Vec<FieldError>> {
    let (object, mut faults) = object::body(body, &[name])?;
    let given = object.get(name);
    let text = given.and_then(|_| object.text(name, &mut faults));
    match faults.is_empty() {
        true => Ok(text.map(Cow::into_owned)),
        false => Err(faults),
    }
}

fn invalid(faults: Vec<FieldError>) -> Problem {
    Problem::invalid(Code::InvalidRequest, faults)
}

fn named(cursor: &str) -> Result<CursorName, Problem> {
    let invalid = |error: CursorNameInvalid| Problem::new(Code::InvalidRequest, error.to_string());
    cursor.parse().map_err(invalid)
}

fn unknown(shared: &EdgeState, stream: &DataStream, name: &str) -> Problem {
    let all = shared.push.cursor_names(stream);
    let names = all.iter().map(CursorName::as_str);
    let list = format!("GET /v1/data-streams/{}/cursors lists them", stream.name);
    Problem::new(Code::NotFound, named::unknown("cursor", name, names, &list))
}

impl From<CursorError> for Problem {
    fn from(error: CursorError) -> Self {
        let detail = error.to_string();
        match error {
            CursorError::Unknown => Self::new(Code::NotFound, detail),
            CursorError::InUse(_) => Self::new(Code::CursorInUse, detail),
            CursorError::TooMany => Self::new(Code::InvalidRequest, detail),
            CursorError::Commit(error) => error.into(),
        }
    }
}

impl From<MoveError> for Problem {
    fn from(error: MoveError) -> Self {
        match error {
            MoveError::Begin(error) => Self::at("/begin", Code::BeginInvalid, error.to_string()),
            MoveError::Start(refused) => refused.into(),
            MoveError::Cursor(error) => error.into(),
        }
    }
}

impl From<AckError> for Problem {
    fn from(error: AckError) -> Self {
        match error {
            AckError::Position(error) => Self::at("/ack", Code::BeginInvalid, error.to_string()),
            AckError::Start(refused) => refused.into(),
            AckError::Cursor(error) => error.into(),
        }
    }
}
