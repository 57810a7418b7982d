//! The envelope of every JSON answer below `/services/v2`.

use std::sync::Arc;

use axum::{body::Body, response::Response};
use http::{HeaderValue, StatusCode, header};
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::value::RawValue;
use url::form_urlencoded;

use crate::{json::scan::Members, push::DataStream, runtime::clock::Timestamp};

/// A wrong body, or a wrong member of it.
const BODY_INVALID: u16 = 12018;
const NOT_AN_OBJECT: u16 = 12020;
const METHOD_NOT_ALLOWED: u16 = 12011;
const OTHER: u16 = 12004;
/// A wrong path.
pub(super) const URI_INVALID: u16 = 12135;
/// A wrong query parameter.
pub(in crate::api) const QUERY_INVALID: u16 = 12135;
/// The result of a patch is invalid.
pub(in crate::api) const PATCH_INVALID: u16 = 12321;

const JSON: &str = "application/json";
const PATH: &str = "/services/v2/stream";

#[derive(Serialize)]
struct Envelope<'a, T> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    links: Vec<Link<'a>>,
    messages: Vec<Message>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<T>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Link<'a> {
    rel: &'a str,
    href: String,
    media_type: &'a str,
}

#[derive(Serialize)]
struct Message {
    #[serde(rename = "$schema")]
    schema: &'static str,
    r#type: String,
    title: String,
    code: String,
    severity: &'static str,
    issued: String,
}

#[derive(Serialize)]
struct Collection<'a> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    items: Vec<Item<'a>>,
}

fn link<'a>(rel: &'a str, href: String, media_type: &'a str) -> Link<'a> {
    Link {
        rel,
        href,
        media_type,
    }
}

fn message(
    severity: &'static str,
    number: u16,
    word: &str,
    title: String,
    now: Timestamp,
) -> Message {
    Message {
        schema: "ogg:message",
        r#type: format!("urn:syncgate:problem:{word}"),
        title,
        code: format!("OGG-{number:05}"),
        severity,
        issued: now.to_string(),
    }
}

fn response<T: Serialize>(status: StatusCode, envelope: &Envelope<'_, T>) -> Response {
    let body = serde_json::to_vec(envelope).unwrap_or_default();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let json = HeaderValue::from_static(JSON);
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// Returns the tag of a configuration.
pub(super) fn etag(stream: &DataStream) -> String {
    format!("\"{}\"", stream.revision)
}

/// Answers with one configuration, and with its warnings as of `now`.
pub(super) fn one(
    base: &str,
    stream: &DataStream,
    warnings: Vec<String>,
    now: Timestamp,
) -> Response {
    let at = format!("{base}{}", stream.name.path());
    let config = std::str::from_utf8(&stream.config).unwrap_or("{}");
    let warning = |what: String| message("WARNING", OTHER, "warning", what, now);
    let envelope = Envelope {
        schema: "api:standardResponse",
        links: vec![
            link("self", at.clone(), JSON),
            link("canonical", at.clone(), JSON),
            link("describedby", format!("{at}/yaml"), "application/yaml"),
        ],
        messages: warnings.into_iter().map(warning).collect(),
        response: RawValue::from_string(config.to_owned()).ok(),
    };
    let mut response = response(StatusCode::OK, &envelope);
    if let Ok(tag) = HeaderValue::from_str(&etag(stream)) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// Answers with a page of data streams; `next` is the last name of the page if there are more.
pub(super) fn list(
    base: &str,
    streams: &[Arc<DataStream>],
    limit: usize,
    next: Option<&str>,
) -> Response {
    let canonical = format!("{base}{PATH}");
    let mut links = vec![
        link("canonical", canonical.clone(), JSON),
        link("self", canonical.clone(), JSON),
    ];
    if let Some(next) = next {
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("limit", &limit.to_string())
            .append_pair("after", next)
            .finish();
        links.push(link("next", format!("{canonical}?{query}"), JSON));
    }
    let envelope = Envelope {
        schema: "api:standardResponse",
        links,
        messages: Vec::new(),
        response: Some(Collection {
            schema: "ogg:dataStreamCollection",
            items: streams.iter().map(|stream| Item { base, stream }).collect(),
        }),
    };
    response(StatusCode::OK, &envelope)
}

/// A data stream in a collection: its stored configuration, and the members of a collection item.
struct Item<'a> {
    base: &'a str,
    stream: &'a DataStream,
}

impl Serialize for Item<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { base, stream } = *self;
        let status = match stream.clients_len() {
            0 => "stopped",
            _ => "running",
        };
        let links = [
            link("parent", format!("{base}{PATH}"), JSON),
            link("canonical", format!("{base}{}", stream.name.path()), JSON),
        ];
        let mut item = serializer.serialize_map(None)?;
        item.serialize_entry("$schema", "ogg:collectionItem")?;
        item.serialize_entry("name", stream.name.as_str())?;
        item.serialize_entry("status", status)?;
        item.serialize_entry("links", &links)?;
        // Raw members, because a parsed tree would take many times their bytes.
        let config = std::str::from_utf8(&stream.config).unwrap_or_default();
        for (name, value) in Members::parse(config).map_or(Vec::new(), |members| members.0) {
            if !matches!(&*name, "$schema" | "name" | "status" | "links") {
                item.serialize_entry(&name, value)?;
            }
        }
        item.end()
    }
}

/// Answers with success and no content.
pub(super) fn empty(links: &[(&str, &str, &str)]) -> Response {
    let links = links.iter();
    let envelope = Envelope::<()> {
        schema: "api:standardResponse",
        links: links
            .map(|(rel, href, media)| link(rel, (*href).to_owned(), media))
            .collect(),
        messages: Vec::new(),
        response: None,
    };
    response(StatusCode::OK, &envelope)
}

/// A problem in the envelope: one message for each fault.
#[derive(Debug)]
pub(in crate::api) struct Wrong<'a> {
    pub(in crate::api) status: StatusCode,
    pub(in crate::api) word: &'a str,
    /// The number of the protocol, unless the status decides it.
    pub(in crate::api) number: Option<u16>,
    pub(in crate::api) title: &'a str,
    pub(in crate::api) detail: &'a str,
    /// Pointer and detail.
    pub(in crate::api) faults: Vec<(&'a str, &'a str)>,
}

/// Answers with a problem, issued at `now`.
pub(in crate::api) fn problem(wrong: &Wrong<'_>, now: Timestamp) -> Response {
    let number = wrong.number.unwrap_or(match wrong.status {
        StatusCode::BAD_REQUEST if wrong.faults.iter().any(|(at, _)| at.is_empty()) => {
            NOT_AN_OBJECT
        }
        StatusCode::BAD_REQUEST | StatusCode::UNSUPPORTED_MEDIA_TYPE => BODY_INVALID,
        StatusCode::METHOD_NOT_ALLOWED => METHOD_NOT_ALLOWED,
        _ => OTHER,
    });
    let one = |title: String| message("ERROR", number, wrong.word, title, now);
    let messages = match wrong.faults.is_empty() {
        true => vec![one(format!("{}: {}", wrong.title, wrong.detail))],
        false => {
            let faults = wrong.faults.iter();
            faults
                .map(|(pointer, detail)| match pointer.is_empty() {
                    true => one(format!("{}: {detail}", wrong.title)),
                    false => one(format!("{pointer}: {detail}")),
                })
                .collect()
        }
    };
    let envelope = Envelope::<()> {
        schema: "api:standardResponse",
        links: Vec::new(),
        messages,
        response: None,
    };
    response(wrong.status, &envelope)
}
