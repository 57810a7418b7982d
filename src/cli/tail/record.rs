//! Reads records under the member names of the data stream's configuration.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

/// Members by name, with unparsed values.
pub(super) type Members<'a> = BTreeMap<String, &'a RawValue>;

const SCHEMA: &str = "http://json-schema.org/draft-04/schema#";
const SCHEMA_ID: &str = "urn:syncgate:schema:";

/// The member names of a data stream's records; `None` for those that are off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Shape {
    /// Each record is a CloudEvent.
    pub(super) events: bool,
    pub(super) pos: Option<String>,
    pub(super) time: Option<String>,
    pub(super) object: Option<String>,
    pub(super) op: Option<String>,
    pub(super) xid: Option<String>,
    pub(super) before: String,
    pub(super) after: String,
}

/// A record, or the event that wraps it.
#[derive(Debug)]
pub(in crate::cli) struct Record<'a> {
    /// The received text.
    pub(super) text: &'a str,
    pub(super) kind: Kind,
    /// Members of the record, without the event around it.
    pub(super) members: Members<'a>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A change of a row, or of the stream itself.
    Change { pos: Option<String> },
    /// A schema, or metadata.
    About,
}

/// Why a message cannot be read.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum ReadError {
    /// The message is not an array of objects.
    #[error("the gateway sent a message that is not an array of records: {0}")]
    NoRecords(#[from] serde_json::Error),
    /// A record lacks its position.
    #[error("a record came in another shape than the configuration says")]
    OtherShape,
}

impl Shape {
    /// Reads the names from a configuration.
    pub(in crate::cli) fn of(config: &Value) -> Self {
        let text = |pointer: &str| Some(config.pointer(pointer)?.as_str()?.to_owned());
        let name = |key: &str, default: &str| {
            let on = config.pointer(&format!("/encoding/json/metaFields/{key}"));
            match on {
                // All of these are on unless they are turned off.
                None | Some(Value::Bool(true)) => Some(default.to_owned()),
                Some(Value::String(name)) => Some(name.clone()),
                Some(other) => Some(other.get("name")?.as_str()?.to_owned()),
            }
        };
        let image = |key: &str, default: &str| {
            let name = text(&format!("/encoding/json/{key}"));
            name.unwrap_or_else(|| default.to_owned())
        };
        Self {
            events: config.get("cloudEventsFormat") == Some(&Value::Bool(true)),
            pos: name("pos", "pos"),
            time: name("opTs", "op_ts"),
            object: name("qualifiedTable", "qual_table"),
            op: name("opType", "op_type"),
            xid: name("xid", "xid"),
            before: image("beforeImageName", "before"),
            after: image("afterImageName", "after"),
        }
    }

    /// Returns whether changes carry their position.
    pub(super) fn has_positions(&self) -> bool {
        self.events || self.pos.is_some()
    }

    /// Reads the records of a message.
    ///
    /// # Errors
    /// [`ReadError`] if the message has another shape.
    pub(in crate::cli) fn read<'a>(&self, message: &'a str) -> Result<Vec<Record<'a>>, ReadError> {
        let records: Vec<&RawValue> = serde_json::from_str(message)?;
        records.into_iter().map(|text| self.one(text)).collect()
    }

    fn one<'a>(&self, raw: &'a RawValue) -> Result<Record<'a>, ReadError> {
        let mut members: Members<'_> = serde_json::from_str(raw.get())?;
        let kind = if self.events {
            let id = string(&members, "id");
            if let Some(data) = members.get("data") {
                members = serde_json::from_str(data.get())?;
            }
            self.kind(id.filter(|id| is_position(id)), &members)
        } else {
            let pos = self.pos.as_ref().and_then(|name| string(&members, name));
            self.kind(pos.filter(|pos| is_position(pos)), &members)
        };
        Ok(Record {
            text: raw.get(),
            kind: kind.ok_or(ReadError::OtherShape)?,
            members,
        })
    }

    /// Every change has a position, and nothing else has one, unless positions are off.
    fn kind(&self, pos: Option<String>, members: &Members<'_>) -> Option<Kind> {
        match pos {
            Some(_) => Some(Kind::Change { pos }),
            None if self.is_about(members) => Some(Kind::About),
            None => (!self.has_positions()).then_some(Kind::Change { pos }),
        }
    }

    fn is_about(&self, members: &Members<'_>) -> bool {
        let is_schema = string(members, "$schema").is_some_and(|schema| schema == SCHEMA)
            && string(members, "id").is_some_and(|id| id.starts_with(SCHEMA_ID));
        let op = self.metadata_op(members);
        is_schema || op.is_some_and(|op| op == "STREAM_METADATA" || op == "OBJECT_METADATA")
    }

    /// Metadata has an operation even if `opType` is off for changes.
    pub(super) fn metadata_op(&self, members: &Members<'_>) -> Option<String> {
        string(members, self.op.as_deref().unwrap_or("op_type"))
    }
}

impl Record<'_> {
    pub(in crate::cli) fn is_change(&self) -> bool {
        matches!(self.kind, Kind::Change { .. })
    }

    /// Returns a sentence about missing records, if this is a record about a gap.
    pub(super) fn gap(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Source {
            gap: Option<BTreeMap<u32, Range>>,
        }
        #[derive(Deserialize)]
        struct Range {
            from: u64,
            to: u64,
        }
        if self.is_change() {
            return None;
        }
        let source = self.members.get("source")?;
        let gap = serde_json::from_str::<Source>(source.get()).ok()?.gap?;
        let ranges = gap.iter().map(|(partition, Range { from, to })| {
            format!(
                "partition {partition} offsets {from} to {}",
                to.saturating_sub(1)
            )
        });
        let ranges: Vec<_> = ranges.collect();
        Some(match ranges.is_empty() {
            true => "records are missing here: the stream is another one now".to_owned(),
            false => format!("records are missing here: {}", ranges.join(", ")),
        })
    }
}

/// Returns a member that is a string.
pub(super) fn string(members: &Members<'_>, name: &str) -> Option<String> {
    serde_json::from_str(members.get(name)?.get()).ok()
}

/// No name, schema or time in a record has this form.
fn is_position(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    text.starts_with("p1") && text.bytes().all(letter)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ABOUT: &str = r#"{"id":"urn:syncgate:schema:ddl:1","title":"x","$schema":"http://json-schema.org/draft-04/schema#"},
        {"op_type":"STREAM_METADATA","source":{"file":"x"}},{"op_type":"OBJECT_METADATA","qual_table":"p1.X","columns":{}}"#;

    fn shape(meta: &Value) -> Shape {
        Shape::of(&json!({"encoding":{"json":{"metaFields":meta}}}))
    }

    /// Checks which records of a message are changes, and their positions.
    #[track_caller]
    fn check(shape: &Shape, message: &str, expected: &[Option<Option<&str>>]) {
        let records = shape.read(message).unwrap();
        let found = records.iter().map(|record| match &record.kind {
            Kind::Change { pos } => Some(pos.as_deref()),
            Kind::About => None,
        });
        assert_eq!(found.collect::<Vec<_>>(), expected, "{message}");
    }

    #[test]
    fn changes_are_told_from_what_is_said_about_them() {
        let all = |change: &str| format!("[{ABOUT},{change}]");
        let plain = Shape::of(&json!({}));
        let four = |change| [None, None, None, Some(change)];
        check(&plain, &all(r#"{"pos":"p1a_-"}"#), &four(Some("p1a_-")));
        // Renamed, also to names that others have.
        for name in ["where", "title", "id", "$schema", "source", "columns"] {
            let shape = shape(&json!({"pos": name, "xid": false}));
            let change = format!(r#"{{"{name}":"p1b"}}"#);
            check(&shape, &all(&change), &four(Some("p1b")));
        }
        let swapped = shape(&json!({"pos": "op_type", "opType": {"name": "pos"}}));
        let about = ABOUT.replace("op_type", "pos");
        let change = r#"{"op_type":"p1c","pos":"INSERT"}"#;
        check(&swapped, &format!("[{about},{change}]"), &four(Some("p1c")));
        let off = shape(&json!({"pos": false, "opType": false}));
        check(&off, &all(r#"{"$schema":"of a row","id":7}"#), &four(None));
        check(&plain, "[]", &[]);
    }

    #[test]
    fn an_event_has_its_position_as_its_id() {
        let config =
            json!({"cloudEventsFormat":true,"encoding":{"json":{"metaFields":{"pos":false}}}});
        let message = r#"[{"id":"sha256-0","data":{"op_type":"STREAM_METADATA"}},{"id":"p1a","data":{"after":{"a":1.10}}}]"#;
        let shape = Shape::of(&config);
        check(&shape, message, &[None, Some(Some("p1a"))]);
        let records = shape.read(message).unwrap();
        assert_eq!(
            records[1].text,
            r#"{"id":"p1a","data":{"after":{"a":1.10}}}"#
        );
        assert_eq!(records[1].members["after"].get(), r#"{"a":1.10}"#);
    }

    #[test]
    fn what_has_another_shape_is_refused() {
        let renamed = shape(&json!({"pos": "where"}));
        for message in [
            r#"[{"pos":"p1a"}]"#,
            r#"[{"where":"7"}]"#,
            r#"[{"where":7}]"#,
        ] {
            assert!(
                matches!(renamed.read(message), Err(ReadError::OtherShape)),
                "{message}"
            );
        }
        for message in ["{}", "[1]", "[{}", "x"] {
            assert!(
                matches!(renamed.read(message), Err(ReadError::NoRecords(_))),
                "{message}"
            );
        }
    }

    #[test]
    fn what_is_missing_is_told() {
        let gap = |source: &str| {
            let message = format!(r#"[{{"op_type":"STREAM_METADATA","source":{source}}}]"#);
            Shape::of(&json!({})).read(&message).unwrap()[0].gap()
        };
        assert_eq!(gap(r#"{"file":"x"}"#), None);
        let told = gap(r#"{"gap":{"0":{"from":5,"to":120}}}"#).unwrap();
        assert_eq!(
            told,
            "records are missing here: partition 0 offsets 5 to 119"
        );
        assert!(gap(r#"{"gap":{}}"#).unwrap().contains("another one now"));
    }
}
