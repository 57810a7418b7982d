//! Schemas of records (JSON Schema, draft 4), and metadata of stream and objects.
//!
//! A schema describes the records as they are really sent: the members that are on, under their configured names.
//! Equal content has an equal `id`, so a client can cache schemas by `id`.

mod data;
mod metadata;
mod preamble;
#[cfg(test)]
mod tests;

use data_encoding::HEXLOWER;
use ring::digest;

pub use preamble::{
    MissedOffsets, PreambleKind, PreambleRecord, StreamFacts, gap_record, preamble,
};

use super::{
    json::Json,
    resource::{ColumnType, ObjectName, Resource, Scalar},
};

/// The schemas of a data stream's records.
///
/// A row that is used twice stands in `definitions`; [`Schema::inlined`] has no references.
#[derive(Clone, Debug)]
pub(super) struct Schemas {
    pub(super) stream_metadata: Schema,
    pub(super) object_metadata: Schema,
    /// The schema of the append table, then those of the objects in the order of the configuration.
    pub(super) dml: Vec<(ObjectName, Schema)>,
    pub(super) ddl: Schema,
}

impl Schemas {
    /// Makes the schemas of a data stream with this append table.
    pub(super) fn of(resource: &Resource, append: &ObjectName) -> Self {
        let encoding = &resource.encoding;
        let tables = data::tables(resource, append).into_iter();
        let dml = tables.map(|table| (table.name.clone(), data::dml(encoding, &table)));
        Self {
            stream_metadata: metadata::of_stream(encoding),
            object_metadata: metadata::of_object(encoding),
            dml: dml.collect(),
            ddl: data::ddl(encoding, append),
        }
    }
}

/// A JSON Schema of one kind of record.
#[derive(Clone, Debug)]
pub(super) struct Schema {
    kind: String,
    title: String,
    row: Option<Json>,
    properties: Vec<(String, Json)>,
    required: Vec<String>,
    is_open: bool,
}

impl Schema {
    /// Returns the schema record.
    pub(super) fn record(&self) -> Json {
        let mut members = vec![
            ("title".to_owned(), (&*self.title).into()),
            (
                "$schema".into(),
                "http://json-schema.org/draft-04/schema#".into(),
            ),
        ];
        members.extend(self.body(true));
        let text = Json::Object(members.clone()).text();
        let digest = digest::digest(&digest::SHA256, text.as_bytes());
        let hash = HEXLOWER.encode(&digest.as_ref()[..6]);
        let id = format!("urn:syncgate:schema:{}:{hash}", self.kind);
        members.insert(0, ("id".into(), (&*id).into()));
        Json::Object(members)
    }

    /// Returns the schema for use inside a document: without references, and without the keywords of the JSON Schema
    /// version.
    pub(super) fn inlined(&self) -> Json {
        let mut members = vec![("title".to_owned(), (&*self.title).into())];
        members.extend(self.body(false));
        Json::Object(members)
    }

    /// Returns the members that describe legal values.
    fn body(&self, has_references: bool) -> Vec<(String, Json)> {
        let mut members = vec![("type".to_owned(), "object".into())];
        let row = self.row.as_ref();
        let properties = self.properties.iter().map(|(name, value)| {
            let row = row.filter(|_| !has_references && *value == reference());
            (name.clone(), row.unwrap_or(value).clone())
        });
        if let Some(row) = row.filter(|_| has_references) {
            members.push(("definitions".into(), Json::object([("row", row.clone())])));
        }
        members.push(("properties".into(), Json::Object(properties.collect())));
        // Draft 4 forbids an empty list here.
        if !self.required.is_empty() {
            let required = self.required.iter().map(|name| &**name);
            members.push(("required".into(), Json::array(required)));
        }
        members.push(("additionalProperties".into(), self.is_open.into()));
        members
    }
}

/// Returns a reference to the definition of an image.
fn reference() -> Json {
    Json::object([("$ref", "#/definitions/row".into())])
}

/// Returns the schema of a value with one of these types.
fn typed(types: &[&str]) -> Json {
    match types {
        [] => Json::object([]),
        [only] => Json::object([("type", (*only).into())]),
        _ => Json::object([("type", Json::array(types.iter().copied()))]),
    }
}

/// Returns the schema of a value that equals one of these.
fn one_of<T: Into<Json>>(values: impl IntoIterator<Item = T>) -> Json {
    Json::object([("enum", Json::array(values))])
}

/// Returns the schema of an object whose members all have one schema.
fn map_of(members: Json) -> Json {
    Json::object([("type", "object".into()), ("additionalProperties", members)])
}

/// Returns the schema of an object with these members and some optional ones.
fn exactly<const N: usize>(members: [(&str, Json); N], optional: Option<(&str, Json)>) -> Json {
    let names = members.iter().map(|(name, _)| *name);
    let required = Json::array(names.collect::<Vec<_>>());
    let members = members.into_iter().chain(optional);
    let members = members.map(|(name, schema)| (name.to_owned(), schema));
    Json::object([
        ("type", "object".into()),
        ("properties", Json::Object(members.collect())),
        ("required", required),
        ("additionalProperties", false.into()),
    ])
}

impl ColumnType {
    /// Returns the word of JSON Schema.
    fn word(self) -> &'static str {
        let word = Self::WORDS.iter().find(|(kind, _)| *kind == self);
        word.map_or("", |(_, word)| word)
    }

    /// Returns the word of OBJECT_METADATA, which knows the types of JSON only.
    fn primitive(self) -> &'static str {
        match self {
            Self::Integer => Self::Number.word(),
            other => other.word(),
        }
    }
}

impl From<&Scalar> for Json {
    fn from(scalar: &Scalar) -> Self {
        Self::Scalar(scalar.clone())
    }
}
