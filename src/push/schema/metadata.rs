//! Schemas of metadata records.

use crate::push::{
    json::Json,
    resource::{COLUMNS, ColumnType, Encoding},
};

use super::{Schema, exactly, map_of, one_of, typed};

/// The word of `op_type`; labels do not replace it.
pub(super) const STREAM_METADATA: &str = "STREAM_METADATA";
/// The word of `op_type`; labels do not replace it.
pub(super) const OBJECT_METADATA: &str = "OBJECT_METADATA";

/// Returns the schema of the STREAM_METADATA record.
pub(super) fn of_stream(encoding: &Encoding) -> Schema {
    let (kind, _) = encoding.metadata_names();
    let text = || typed(&["string"]);
    let lost = exactly(
        [("from", typed(&["integer"])), ("to", typed(&["integer"]))],
        None,
    );
    let names = ["name", "version", "charset", "timeZone"].map(|name| (name, text()));
    let machine = ["node", "system", "release", "version", "hardware"].map(|name| (name, text()));
    let source = ["file", "uri", "creationTime", "compatibility"].map(|name| (name, text()));
    schema(
        "stream-metadata",
        "Stream metadata",
        vec![
            (kind, one_of([STREAM_METADATA])),
            (
                "producer",
                exactly([("name", text()), ("version", text())], None),
            ),
            ("database", exactly(names, None)),
            ("machine", exactly(machine, None)),
            ("source", exactly(source, Some(("gap", map_of(lost))))),
        ],
    )
}

/// Returns the schema of OBJECT_METADATA records.
pub(super) fn of_object(encoding: &Encoding) -> Schema {
    let (kind, object) = encoding.metadata_names();
    let mut types: Vec<_> = ColumnType::WORDS
        .iter()
        .map(|(kind, _)| kind.primitive())
        .collect();
    types.dedup();
    let column = exactly(
        [
            ("type", one_of(types)),
            ("null", typed(&["boolean"])),
            ("key", typed(&["boolean"])),
        ],
        None,
    );
    schema(
        "object-metadata",
        "Object metadata",
        vec![
            (kind, one_of([OBJECT_METADATA])),
            (object, typed(&["string"])),
            (COLUMNS, map_of(column)),
        ],
    )
}

fn schema(kind: &str, title: &str, properties: Vec<(&str, Json)>) -> Schema {
    let properties = properties.into_iter();
    let properties: Vec<_> = properties
        .map(|(name, schema)| (name.to_owned(), schema))
        .collect();
    Schema {
        kind: kind.into(),
        title: title.into(),
        row: None,
        required: properties.iter().map(|(name, _)| name.clone()).collect(),
        properties,
        is_open: false,
    }
}
