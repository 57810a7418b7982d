//! What every connection begins with.

use crate::{
    model::ids::{Incarnation, Offset, Partition, StreamName},
    push::{
        json::Json,
        resource::{COLUMNS, Encoding, ObjectName, Resource},
    },
    runtime::clock::Timestamp,
};

use super::{
    Schemas,
    data::{self, Table},
    metadata::{OBJECT_METADATA, STREAM_METADATA},
};

/// What a preamble tells of a stream.
#[derive(Clone, Copy, Debug)]
pub struct StreamFacts<'a> {
    /// The stream.
    pub name: &'a StreamName,
    /// Which life of it this is.
    pub incarnation: Incarnation,
    /// When it was made.
    pub created: Timestamp,
    /// Its append table.
    pub append: &'a ObjectName,
    /// `[push] node`: a name for the machine, empty unless it is set.
    pub node: &'a str,
    /// What a subscriber that said it may lose records has lost; empty if the stream was made anew, and `None` if it asked
    /// for nothing that is gone.
    pub gap: Option<&'a [MissedOffsets]>,
}

/// Offsets of a partition that a subscriber did not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissedOffsets {
    /// The partition.
    pub partition: Partition,
    /// The first one.
    pub from: Offset,
    /// The first one that is sent again.
    pub to: Offset,
}

/// A record of a preamble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreambleRecord {
    /// What it is.
    pub kind: PreambleKind,
    /// The object that it tells of; OBJECT_METADATA only.
    pub object: Option<ObjectName>,
    /// Its JSON.
    pub json: Vec<u8>,
}

/// Kinds of records in a preamble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreambleKind {
    /// A schema record.
    Schema,
    /// STREAM_METADATA.
    StreamMetadata,
    /// OBJECT_METADATA.
    ObjectMetadata,
}

/// Returns the records that come before any data record, in order: those of the stream, then of each object, the append
/// table first, last the schema of DDL. What the configuration turned off is not there, and a schema without its record
/// neither.
#[must_use]
pub fn preamble(resource: &Resource, facts: &StreamFacts<'_>) -> Vec<PreambleRecord> {
    let encoding = &resource.encoding;
    let schemas = Schemas::of(resource, facts.append);
    let mut records = Vec::new();
    let mut add = |kind, object: Option<&ObjectName>, json: Json| {
        let is_on = match kind {
            PreambleKind::Schema => encoding.include_json_schema_record,
            PreambleKind::StreamMetadata => encoding.include_stream_metadata_record,
            PreambleKind::ObjectMetadata => encoding.include_object_metadata_records,
        };
        if is_on {
            records.push(PreambleRecord {
                kind,
                object: object.cloned(),
                json: json.text().into_bytes(),
            });
        }
    };
    if encoding.include_stream_metadata_record {
        add(PreambleKind::Schema, None, schemas.stream_metadata.record());
    }
    add(
        PreambleKind::StreamMetadata,
        None,
        stream_metadata(encoding, facts),
    );
    if encoding.include_object_metadata_records {
        add(PreambleKind::Schema, None, schemas.object_metadata.record());
    }
    let tables = data::tables(resource, facts.append);
    for (table, (name, dml)) in tables.iter().zip(&schemas.dml) {
        let metadata = object_metadata(encoding, table);
        add(PreambleKind::ObjectMetadata, Some(name), metadata);
        add(PreambleKind::Schema, None, dml.record());
    }
    add(PreambleKind::Schema, None, schemas.ddl.record());
    records
}

/// Returns the record about a gap that opens while a subscriber is connected: STREAM_METADATA once more, unless it is
/// turned off.
#[must_use]
pub fn gap_record(resource: &Resource, facts: &StreamFacts<'_>) -> Option<PreambleRecord> {
    let encoding = &resource.encoding;
    let is_on = encoding.include_stream_metadata_record;
    is_on.then(|| PreambleRecord {
        kind: PreambleKind::StreamMetadata,
        object: None,
        json: stream_metadata(encoding, facts).text().into_bytes(),
    })
}

fn stream_metadata(encoding: &Encoding, facts: &StreamFacts<'_>) -> Json {
    let (kind, _) = encoding.metadata_names();
    let uri = format!("urn:syncgate:stream:{}:{}", facts.name, facts.incarnation);
    let mut source = vec![
        ("file".to_owned(), facts.name.as_str().into()),
        ("uri".into(), (&*uri).into()),
        ("creationTime".into(), (&*facts.created.to_string()).into()),
        ("compatibility".into(), "1".into()),
    ];
    source.extend(facts.gap.map(|gap| ("gap".to_owned(), lost(gap))));
    Json::object([
        (kind, STREAM_METADATA.into()),
        (
            "producer",
            Json::object([
                ("name", "syncgate".into()),
                ("version", env!("CARGO_PKG_VERSION").into()),
            ]),
        ),
        (
            "database",
            Json::object([
                ("name", "syncgate".into()),
                ("version", "1".into()),
                ("charset", "UTF-8".into()),
                ("timeZone", "+00:00".into()),
            ]),
        ),
        (
            "machine",
            Json::object([
                ("node", facts.node.into()),
                ("system", "".into()),
                ("release", "".into()),
                ("version", "".into()),
                ("hardware", "".into()),
            ]),
        ),
        ("source", Json::Object(source)),
    ])
}

fn lost(gaps: &[MissedOffsets]) -> Json {
    let gaps = gaps.iter().map(|gap| {
        let offsets = [("from", gap.from.0.into()), ("to", gap.to.0.into())];
        (gap.partition.to_string(), Json::object(offsets))
    });
    Json::Object(gaps.collect())
}

fn object_metadata(encoding: &Encoding, table: &Table) -> Json {
    let (kind, object) = encoding.metadata_names();
    let columns = table.columns.iter().map(|column| {
        let primitive = match encoding.treat_all_columns_as_strings {
            true => "string",
            false => column.primitive,
        };
        let facts = Json::object([
            ("type", primitive.into()),
            ("null", column.nullable.into()),
            ("key", column.is_key.into()),
        ]);
        (column.name.clone(), facts)
    });
    Json::object([
        (kind, OBJECT_METADATA.into()),
        (object, table.name.as_str().into()),
        (COLUMNS, Json::Object(columns.collect())),
    ])
}
