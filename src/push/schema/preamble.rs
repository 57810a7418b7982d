//! The preamble: the records at the start of every connection.

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

/// Facts about a stream for its preamble.
#[derive(Clone, Copy, Debug)]
pub struct StreamFacts<'a> {
    /// The stream.
    pub name: &'a StreamName,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// When it was made.
    pub created: Timestamp,
    /// Its append table.
    pub append: &'a ObjectName,
    /// `[push] node`: a name for the machine, empty unless it is set.
    pub node: &'a str,
    /// What a subscriber with at-most-once quality has missed: empty if the stream was made anew, `None` if nothing
    /// is missing.
    pub gap: Option<&'a [MissedOffsets]>,
}

/// Offsets of a partition that a subscriber has missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissedOffsets {
    /// The partition.
    pub partition: Partition,
    /// The first missing offset.
    pub from: Offset,
    /// The first offset that is there again.
    pub to: Offset,
}

/// A record of a preamble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreambleRecord {
    /// Its kind.
    pub kind: PreambleKind,
    /// Its object; OBJECT_METADATA only.
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

/// Returns the records before the first data record: of the stream, of each object with the append table first, then
/// the schema of DDL. Records that the configuration turns off are left out, and a schema whose records are off too.
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

/// Returns the record about a gap that opens while a subscriber is connected: STREAM_METADATA again, unless that is
/// off.
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
