//! `/services/v2/stream`: data streams and their subscribers.

pub(super) mod close;
pub(super) mod cursors;
mod envelope;
mod events;
mod socket;

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};

use crate::{
    push::{
        Asked, ChangeError, CursorNameInvalid, DataStream, Reached, StartRefused, SubscribeError,
        Subscription,
        document::{self, Layout},
        resource::ResourceName,
    },
    storage::STATE_BYTES_MAX,
};

use self::close::Close;
use super::{
    EdgeState,
    named::{self, Named},
    problem::{Code, Problem},
    query::{Query, invalid},
};

use envelope::{PATCH_INVALID, QUERY_INVALID};
pub(super) use envelope::{Wrong, problem};
pub(super) use events::is_meant as wants_events;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Data streams in one page, and bytes of their configurations. A page with more ends early.
const LIST_LEN_MAX: usize = 1_000;
const LIST_BYTES_MAX: usize = 1 << 20;
/// Parameters of a subscriber. A request for the configuration ignores them.
const READER: [&str; 3] = ["begin", "cursor", "takeover"];

/// Returns the codes with which the gateway closes connections of subscribers.
pub(super) fn close_codes() -> impl Iterator<Item = u16> {
    Close::ALL.into_iter().map(Close::code)
}

pub(super) async fn list(
    State(shared): State<Arc<EdgeState>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let query = parse(&uri, &["limit", "after"])?;
    let limit = query.limit_or(LIST_LEN_MAX);
    let limit = limit.map_err(|problem| problem.of_protocol(envelope::QUERY_INVALID))?;
    let after = query.get("after");
    let mut streams = shared.push.list();
    streams.retain(|stream| after.is_none_or(|after| stream.name.as_str() > after));
    let mut bytes = 0;
    let fits = streams.iter().take(limit).take_while(|stream| {
        let is_first = bytes == 0;
        bytes += stream.config.len();
        is_first || bytes <= LIST_BYTES_MAX
    });
    let len = fits.count();
    let more = streams.len() > len;
    streams.truncate(len);
    let next = streams.last().filter(|_| more);
    let next = next.map(|last| last.name.as_str());
    Ok(envelope::list(
        &base(&shared, &headers),
        &streams,
        limit,
        next,
    ))
}

pub(super) async fn create(
    State(shared): State<Arc<EdgeState>>,
    Named(name): Named<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    parse(&uri, &[])?;
    let name = name.parse::<ResourceName>().map_err(|error| {
        Problem::new(Code::InvalidRequest, error.to_string()).of_protocol(envelope::URI_INVALID)
    })?;
    let body = shared.bodies.read(&headers, body, STATE_BYTES_MAX).await?;
    let made = shared.push.create(name, &body.bytes).await?;
    let mut response = one(&shared, &headers, &made);
    *response.status_mut() = shared.push.settings().create_status;
    let location = HeaderValue::from_str(&made.name.path());
    if let Ok(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Shows the configuration, or starts a subscription by WebSocket or Server-Sent Events.
pub(super) async fn show(
    State(shared): State<Arc<EdgeState>>,
    Named(name): Named<String>,
    request: Request,
) -> Result<Response, Problem> {
    let uri = request.uri().clone();
    let query = parse(&uri, &READER)?;
    let (name, known) = find(&shared, &name)?;
    let headers = request.headers();
    let (socket, events) = (socket::is_meant(&request), events::is_meant(headers));
    // The answer to HEAD has no body, so it is no subscription.
    let reads = (socket || events) && request.method() == Method::GET;
    if !reads {
        return Ok(one(&shared, headers, &known));
    }
    let last = headers.get(LAST_EVENT_ID).filter(|_| !socket);
    let last = last.map(|last| String::from_utf8_lossy(last.as_bytes()).into_owned());
    let subscription = subscribe(&shared, &name, &query, last).await?;
    match socket {
        true => socket::upgrade(&shared, request, subscription),
        false => Ok(events::response(&shared, subscription)),
    }
}

pub(super) async fn change(
    State(shared): State<Arc<EdgeState>>,
    Named(name): Named<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    parse(&uri, &[])?;
    let (name, known) = find(&shared, &name)?;
    let revision = stated(&headers, &known)?;
    let body = shared.bodies.read(&headers, body, STATE_BYTES_MAX).await?;
    let changed = shared.push.change(&name, &body.bytes, revision).await?;
    Ok(one(&shared, &headers, &changed))
}

pub(super) async fn delete(
    State(shared): State<Arc<EdgeState>>,
    Named(name): Named<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    parse(&uri, &[])?;
    let (name, known) = find(&shared, &name)?;
    let revision = stated(&headers, &known)?;
    shared.push.delete(&name, revision).await?;
    Ok(envelope::empty(&[]))
}

pub(super) async fn yaml(
    State(shared): State<Arc<EdgeState>>,
    Named(name): Named<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let layout = layout(&parse(&uri, &["layout"])?)?;
    let (_, known) = find(&shared, &name)?;
    let text = match known.document() {
        Some(text) => text.to_string(),
        None => {
            let base = base(&shared, &headers);
            let at = reached(&shared, &base);
            shared.push.document_of(&known, &at, layout)
        }
    };
    Ok(document(text))
}

pub(super) async fn all_yaml(
    State(shared): State<Arc<EdgeState>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    Query::parse(&uri, &[])?;
    let base = base(&shared, &headers);
    Ok(document(
        shared.push.document_of_all(&reached(&shared, &base)),
    ))
}

pub(super) async fn change_yaml(
    State(shared): State<Arc<EdgeState>>,
    Named(name): Named<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    parse(&uri, &[])?;
    let (name, known) = find(&shared, &name)?;
    let body = shared.bodies.read(&headers, body, STATE_BYTES_MAX).await?;
    let invalid = |what: String| Problem::new(Code::InvalidDocument, what);
    let text = std::str::from_utf8(&body.bytes);
    let text = text.map_err(|_| invalid("the document is not UTF-8".into()))?;
    document::check_document(text).map_err(|error| invalid(error.to_string()))?;
    shared.push.document(&name, text).await?;
    let path = format!("{}{}/yaml", base(&shared, &headers), known.name.path());
    Ok(envelope::empty(&[
        ("canonical", &path, "application/yaml"),
        ("self", &path, "application/yaml"),
    ]))
}

/// Answers with one data stream.
fn one(shared: &EdgeState, headers: &HeaderMap, stream: &DataStream) -> Response {
    let warnings = shared.push.warnings(stream);
    envelope::one(&base(shared, headers), stream, warnings, shared.push.now())
}

/// Reads query parameters. A problem gets the number of the data stream protocol.
fn parse<'a>(uri: &'a Uri, known: &[&str]) -> Result<Query<'a>, Problem> {
    Query::parse(uri, known).map_err(|problem| problem.of_protocol(envelope::QUERY_INVALID))
}

fn find(shared: &EdgeState, name: &str) -> Result<(ResourceName, Arc<DataStream>), Problem> {
    let known = name.parse().ok().and_then(|name: ResourceName| {
        let known = shared.push.get(&name)?;
        Some((name, known))
    });
    known.ok_or_else(|| {
        let all = shared.push.list();
        let names = all.iter().map(|known| known.name.as_str());
        let list = "GET /services/v2/stream lists them";
        let what = named::unknown("data stream", name, names, list);
        Problem::new(Code::NotFound, what)
    })
}

async fn subscribe(
    shared: &EdgeState,
    name: &ResourceName,
    query: &Query<'_>,
    last_event_id: Option<String>,
) -> Result<Subscription, Problem> {
    let of_query = |problem: Problem| problem.of_protocol(envelope::QUERY_INVALID);
    let cursor = query.get("cursor").map(str::parse).transpose();
    let asked = Asked {
        begin: last_event_id.or_else(|| query.get("begin").map(str::to_owned)),
        cursor: cursor.map_err(|error: CursorNameInvalid| of_query(invalid(error.to_string())))?,
        takeover: query.flag("takeover").map_err(of_query)?,
    };
    if asked.takeover && asked.cursor.is_none() {
        let what = "takeover is for a cursor; name one with cursor=";
        return Err(of_query(invalid(what.into())));
    }
    Ok(shared.push.subscribe(name, asked).await?)
}

/// Returns the revision that `If-Match` requires.
fn stated(headers: &HeaderMap, known: &DataStream) -> Result<Option<u64>, Problem> {
    let mut tags = headers.get_all(header::IF_MATCH).iter().peekable();
    if tags.peek().is_none() {
        return Ok(None);
    }
    let ours = envelope::etag(known);
    let fits = tags
        .filter_map(|tags| tags.to_str().ok())
        .flat_map(|tags| tags.split(','))
        .any(|tag| matches!(tag.trim(), "*") || tag.trim() == ours);
    match fits {
        true => Ok(Some(known.revision)),
        false => Err(ChangeError::ChangedMeanwhile.into()),
    }
}

/// Returns the URL of the gateway as this client knows it.
fn base(shared: &EdgeState, headers: &HeaderMap) -> String {
    match &shared.push.settings().public_url {
        Some(url) => url.clone(),
        None => {
            let host = headers
                .get(header::HOST)
                .and_then(|host| host.to_str().ok());
            format!("http://{}", host.unwrap_or("localhost"))
        }
    }
}

fn reached<'a>(shared: &EdgeState, base: &'a str) -> Reached<'a> {
    Reached {
        base,
        needs_login: shared.door.has_users(),
    }
}

fn layout(query: &Query<'_>) -> Result<Layout, Problem> {
    match query.get("layout") {
        None => Ok(Layout::Address),
        Some("pathname") => Ok(Layout::Pathname),
        Some(_) => {
            let wrong = invalid("layout is pathname, or absent".into());
            Err(wrong.of_protocol(envelope::QUERY_INVALID))
        }
    }
}

fn document(text: String) -> Response {
    let yaml = HeaderValue::from_static("application/yaml");
    ([(header::CONTENT_TYPE, yaml)], Bytes::from(text)).into_response()
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        let detail = error.to_string();
        match error {
            ChangeError::Exists => Self::new(Code::Exists, detail),
            ChangeError::Unknown => Self::new(Code::NotFound, detail),
            ChangeError::ChangedMeanwhile => Self::new(Code::ChangedMeanwhile, detail),
            ChangeError::Invalid(errors) => Self::invalid(Code::InvalidRequest, errors),
            ChangeError::PatchedInvalid(errors) => {
                Self::invalid(Code::InvalidRequest, errors).of_protocol(PATCH_INVALID)
            }
            ChangeError::TooLarge => Self::new(Code::BodyTooLarge, detail),
            ChangeError::TooMany => Self::new(Code::InvalidRequest, detail),
            ChangeError::Commit(error) => error.into(),
        }
    }
}

impl From<SubscribeError> for Problem {
    fn from(error: SubscribeError) -> Self {
        let detail = error.to_string();
        match error {
            SubscribeError::Unknown => Self::new(Code::NotFound, detail),
            SubscribeError::Full => Self::new(Code::TooManySubscribers, detail).retry_after(5),
            SubscribeError::Begin(_) => {
                Self::new(Code::BeginInvalid, detail).of_protocol(QUERY_INVALID)
            }
            SubscribeError::Start(refused) => refused.into(),
            SubscribeError::Cursor(error) => error.into(),
        }
    }
}

impl From<StartRefused> for Problem {
    fn from(refused: StartRefused) -> Self {
        let detail = refused.to_string();
        match refused {
            StartRefused::Foreign => Self::new(Code::PositionForeign, detail),
            StartRefused::Gone => Self::new(Code::PositionGone, detail),
            StartRefused::StreamGone => Self::new(Code::StreamUnknown, detail),
            StartRefused::Read(error) => Self::internal(error),
        }
    }
}
