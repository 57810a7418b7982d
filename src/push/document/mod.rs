//! The AsyncAPI 3.0 document of one data stream, or of all: where to connect, and the form of the records.
//!
//! Generators of clients need this form (`data-streams.md` §5.3): one channel, one operation that receives, one query
//! property, the whole path in the address.

mod check;
mod event;
pub(super) mod served;
#[cfg(test)]
mod tests;
mod yaml;

use std::collections::HashSet;

pub use check::check_document;

use super::{
    json::Json,
    resource::{MetaField, ObjectName, Resource, ResourceName},
    schema::Schemas,
};

/// The address of the server, as clients see it.
#[derive(Clone, Copy, Debug)]
pub struct Server<'a> {
    /// The protocol that clients use.
    pub protocol: Protocol,
    /// Host, and port unless it is the protocol's default: from `public_url`, else from the request.
    pub host: &'a str,
    /// The path that a proxy adds in front, without a slash at the end; usually empty.
    pub base_path: &'a str,
    /// Prefix of the types of events.
    pub event_prefix: &'a str,
    /// Clients need the name and password of a user.
    pub needs_login: bool,
}

/// Protocol between client and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// WebSocket over TCP.
    Ws,
    /// WebSocket over TLS.
    Wss,
}

/// A data stream in a document.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'a> {
    /// Its name.
    pub name: &'a ResourceName,
    /// Its configuration.
    pub resource: &'a Resource,
    /// The append table of its stream.
    pub append: &'a ObjectName,
}

/// Where a document names the path of a data stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// In the channel's address.
    #[default]
    Address,
    /// In the server's `pathname`, for generators that ignore addresses.
    Pathname,
}

/// Returns the document of one data stream, as YAML.
#[must_use]
pub fn of_one(server: &Server<'_>, listed: &Listed<'_>, layout: Layout) -> String {
    let path = format!("{}{}", server.base_path, listed.name.path());
    let about = format!("Lets clients subscribe to stream {}", listed.name);
    let (pathname, address) = match layout {
        Layout::Address => (None, path.as_str()),
        Layout::Pathname => (Some(path.as_str()), "/"),
    };
    let part = Part {
        key: channel_key(listed.name, &mut HashSet::new()),
        address: address.into(),
        operation: "onRecords".into(),
        message: "records".into(),
        title: title(listed),
        summary: summary(listed),
        payload: payload(server, listed),
    };
    document(server, &about, pathname, vec![part])
}

/// Returns the document of all data streams, one channel for each, as YAML.
#[must_use]
pub fn of_all(server: &Server<'_>, all: &[Listed<'_>]) -> String {
    if let [only] = all {
        return of_one(server, only, Layout::Address);
    }
    let mut taken = HashSet::new();
    let parts = all.iter().map(|listed| {
        let key = channel_key(listed.name, &mut taken);
        Part {
            address: format!("{}{}", server.base_path, listed.name.path()),
            operation: format!("onRecords_{key}"),
            message: format!("records_{key}"),
            title: title(listed),
            summary: summary(listed),
            payload: payload(server, listed),
            key,
        }
    });
    let about = "Lets clients subscribe to any stream";
    document(server, about, None, parts.collect())
}

/// The parts of a document that describe one data stream.
struct Part {
    key: String,
    address: String,
    operation: String,
    message: String,
    title: String,
    summary: &'static str,
    payload: Json,
}

/// Returns the title of a message, for people.
fn title(listed: &Listed<'_>) -> String {
    format!("Records of {}", listed.name)
}

fn summary(listed: &Listed<'_>) -> &'static str {
    match listed.resource.cloud_events_format {
        true => "An array of CloudEvents, one for each record, in commit order",
        false => {
            "An array of records in commit order, after the schemas and metadata of the connection"
        }
    }
}

/// Returns the key of a channel: the name with `.` and `-` written `_`, and `_` appended while it is taken.
fn channel_key(name: &ResourceName, taken: &mut HashSet<String>) -> String {
    let mut key = name.as_str().replace(['.', '-'], "_");
    while !taken.insert(key.clone()) {
        key.push('_');
    }
    key
}

fn document(server: &Server<'_>, about: &str, pathname: Option<&str>, parts: Vec<Part>) -> String {
    let (mut channels, mut operations, mut messages) = (Vec::new(), Vec::new(), Vec::new());
    for part in parts {
        operations.push((part.operation.clone(), operation(&part)));
        channels.push((part.key.clone(), channel(&part)));
        let message = Json::object([
            ("name", (&*part.message).into()),
            ("title", (&*part.title).into()),
            ("summary", part.summary.into()),
            ("contentType", "application/json".into()),
            ("payload", part.payload),
        ]);
        messages.push((part.message, message));
    }
    let protocol = match server.protocol {
        Protocol::Ws => "ws",
        Protocol::Wss => "wss",
    };
    let mut main = vec![("host".to_owned(), server.host.into())];
    main.extend(pathname.map(|path| ("pathname".to_owned(), path.into())));
    main.push(("protocol".into(), protocol.into()));
    let mut components = vec![("messages".to_owned(), Json::Object(messages))];
    if server.needs_login {
        let scheme = reference(&["components", "securitySchemes", LOGIN]);
        main.push(("security".into(), Json::Array(vec![scheme])));
        let schemes = Json::object([(LOGIN, login())]);
        components.push(("securitySchemes".into(), schemes));
    }
    let license = Json::object([
        ("name", "Apache 2.0".into()),
        ("url", "https://www.apache.org/licenses/LICENSE-2.0".into()),
    ]);
    let info = Json::object([
        ("title", TITLE.into()),
        ("version", "1.0.0".into()),
        ("description", about.into()),
        ("license", license),
    ]);
    yaml::text(&Json::object([
        ("asyncapi", "3.0.0".into()),
        ("info", info),
        ("servers", Json::object([("main", Json::Object(main))])),
        ("defaultContentType", "application/json".into()),
        ("channels", Json::Object(channels)),
        ("operations", Json::Object(operations)),
        ("components", Json::Object(components)),
    ]))
}

/// Generators make it the name of an npm package, which has no blanks and no capitals.
const TITLE: &str = "syncgate_data_streams";

/// Name of the security scheme, where there are users.
const LOGIN: &str = "user";

fn login() -> Json {
    Json::object([
        ("type", "http".into()),
        ("scheme", "basic".into()),
        (
            "description",
            "A user of the gateway; to subscribe takes the role operator".into(),
        ),
    ])
}

fn channel(part: &Part) -> Json {
    let begin = Json::object([
        ("type", "string".into()),
        ("default", "earliest".into()),
        (
            "description",
            "now, earliest, an ISO 8601 time, or a saved pos".into(),
        ),
    ]);
    let query = Json::object([
        ("type", "object".into()),
        ("properties", Json::object([("begin", begin)])),
    ]);
    let binding = Json::object([
        ("bindingVersion", "0.1.0".into()),
        ("method", "GET".into()),
        ("query", query),
    ]);
    let message = reference(&["components", "messages", &part.message]);
    Json::object([
        ("address", (&*part.address).into()),
        ("messages", Json::object([(&*part.message, message)])),
        ("bindings", Json::object([("ws", binding)])),
    ])
}

fn operation(part: &Part) -> Json {
    let message = reference(&["channels", &part.key, "messages", &part.message]);
    Json::object([
        ("action", "receive".into()),
        ("channel", reference(&["channels", &part.key])),
        ("messages", Json::Array(vec![message])),
    ])
}

fn reference(path: &[&str]) -> Json {
    Json::object([("$ref", (&*format!("#/{}", path.join("/"))).into())])
}

/// Returns the schema of a frame, which is an array of the records that are really sent.
pub(super) fn payload(server: &Server<'_>, listed: &Listed<'_>) -> Json {
    let (resource, encoding) = (listed.resource, &listed.resource.encoding);
    let schemas = Schemas::of(resource, listed.append);
    let event = |kinds: &[&str], subject: Option<Json>, is_data: bool, record: Json| match resource
        .cloud_events_format
    {
        true => event::schema(server.event_prefix, kinds, subject, is_data, record),
        false => record,
    };
    let one_of = |name: &ObjectName| Some(Json::object([("enum", Json::array([name.as_str()]))]));
    let mut records = Vec::new();
    for (name, dml) in &schemas.dml {
        let kinds = ["insert", "update", "delete", "upsert", "truncate"];
        records.push(event(&kinds, one_of(name), true, dml.inlined()));
    }
    let ddl = schemas.ddl.inlined();
    records.push(event(&["ddl"], one_of(listed.append), true, ddl));
    if encoding.include_object_metadata_records {
        let subject = Some(Json::object([("type", "string".into())]));
        let metadata = schemas.object_metadata.inlined();
        records.push(event(&["object-metadata"], subject, false, metadata));
    }
    if encoding.include_stream_metadata_record {
        let metadata = schemas.stream_metadata.inlined();
        records.push(event(&["stream-metadata"], None, false, metadata));
    }
    if encoding.include_json_schema_record {
        records.push(event(&["schema"], None, false, schema_record()));
    }
    // `oneOf` needs records that fit exactly one schema, so each record must name its kind; otherwise `anyOf` is
    // used.
    let says = |field| encoding.meta_fields.name(field).is_some();
    let is_told_apart = resource.cloud_events_format
        || says(MetaField::OpType) && (says(MetaField::QualifiedTable) || schemas.dml.len() == 1);
    let word = if is_told_apart { "oneOf" } else { "anyOf" };
    Json::object([
        ("type", "array".into()),
        ("items", Json::object([(word, Json::Array(records))])),
    ])
}

/// Returns the schema of schema records.
fn schema_record() -> Json {
    let typed = |kind: &str| Json::object([("type", kind.into())]);
    Json::object([
        ("title", "Schema record".into()),
        ("type", "object".into()),
        (
            "properties",
            Json::object([
                ("id", typed("string")),
                ("title", typed("string")),
                ("$schema", typed("string")),
                ("type", typed("string")),
                ("definitions", typed("object")),
                ("properties", typed("object")),
                ("required", typed("array")),
                ("additionalProperties", typed("boolean")),
            ]),
        ),
        (
            "required",
            Json::array([
                "id",
                "title",
                "$schema",
                "type",
                "properties",
                "additionalProperties",
            ]),
        ),
        ("additionalProperties", false.into()),
    ])
}
