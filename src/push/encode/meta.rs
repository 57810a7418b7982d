//! The metadata members of records; their constant parts are written once, when the encoder is made.

use crate::{
    push::{
        json::{quoted, scalar_text},
        resource::{Encoding, MetaField, ObjectName},
    },
    runtime::clock::Stamps,
};

use super::{
    Op, json,
    view::push_headers,
    write::{Facts, Xid},
};

/// Writes the metadata members that are on, then the static fields, each after a comma.
#[derive(Debug)]
pub(super) struct Meta {
    /// The members whose values differ, each with the constant text before its value.
    members: Vec<(Vec<u8>, MetaField)>,
    /// The constant text after the last of them.
    end: Vec<u8>,
    /// The words of `op_type`, as JSON strings.
    labels: [String; 6],
}

/// The constant metadata of a table, as JSON.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: ObjectName,
    quoted: String,
    catalog: String,
    schema: String,
    object: String,
    /// Names of its key columns.
    keys: String,
}

impl Table {
    pub(super) fn new<'a>(name: &ObjectName, keys: impl Iterator<Item = &'a str>) -> Self {
        let keys: Vec<_> = keys.map(quoted).collect();
        let (catalog, schema, object) = name.parts();
        Self {
            quoted: quoted(name.as_str()),
            catalog: catalog.map_or("null".to_owned(), quoted),
            schema: quoted(schema),
            object: quoted(object),
            keys: format!("[{}]", keys.join(",")),
            name: name.clone(),
        }
    }
}

impl Meta {
    pub(super) fn new(encoding: &Encoding) -> Self {
        let (mut members, mut text) = (Vec::new(), Vec::new());
        for field in MetaField::ALL {
            let Some(on) = encoding.meta_fields.name(field) else {
                continue;
            };
            name(on, &mut text);
            match field {
                MetaField::OpSeqno => text.push(b'0'),
                MetaField::TransInd => text.extend_from_slice(b"\"only\""),
                MetaField::OpTs
                | MetaField::CurrentTs
                | MetaField::Pos
                | MetaField::Xid
                | MetaField::Csn => {
                    text.push(b'"');
                    members.push((std::mem::take(&mut text), field));
                    text.push(b'"');
                }
                MetaField::QualifiedTable
                | MetaField::Catalog
                | MetaField::Schema
                | MetaField::Table
                | MetaField::OpType
                | MetaField::OpTsMicroSecs
                | MetaField::CurrentTsMicroSecs
                | MetaField::PrimaryKeys
                | MetaField::Tokens => members.push((std::mem::take(&mut text), field)),
            }
        }
        for (of, value) in &encoding.static_fields {
            name(of, &mut text);
            text.extend_from_slice(scalar_text(value).as_bytes());
        }
        Self {
            members,
            end: text,
            labels: Op::ALL.map(|op| quoted(label(encoding, op))),
        }
    }

    pub(super) fn write(
        &self,
        table: &Table,
        op: Op,
        facts: &Facts<'_>,
        pos: &[u8],
        out: &mut Vec<u8>,
    ) {
        let mut digits = itoa::Buffer::new();
        for (before, field) in &self.members {
            out.extend_from_slice(before);
            let text = match field {
                MetaField::QualifiedTable => &table.quoted,
                MetaField::Catalog => &table.catalog,
                MetaField::Schema => &table.schema,
                MetaField::Table => &table.object,
                MetaField::PrimaryKeys => &table.keys,
                MetaField::OpType => &*self.labels[op as usize],
                MetaField::OpTs => facts.stamp,
                MetaField::OpTsMicroSecs => digits.format(facts.time.0),
                MetaField::CurrentTsMicroSecs => digits.format(facts.now.0),
                MetaField::CurrentTs => {
                    Stamps::default().write(facts.now, out);
                    continue;
                }
                MetaField::Pos => {
                    out.extend_from_slice(pos);
                    continue;
                }
                MetaField::Xid => match facts.xid {
                    Xid::Record(partition, offset) => {
                        out.extend_from_slice(digits.format(partition.0).as_bytes());
                        out.push(b'.');
                        digits.format(offset.0)
                    }
                    Xid::Event(number) => {
                        out.extend_from_slice(b"ddl.");
                        digits.format(number)
                    }
                },
                MetaField::Csn => {
                    let digits = digits.format(facts.time.0).as_bytes();
                    out.extend_from_slice(&b"00000000000000000000"[digits.len()..]);
                    out.extend_from_slice(digits);
                    continue;
                }
                MetaField::Tokens => {
                    push_headers(facts, out);
                    continue;
                }
                // These members are constant, so they are part of the texts.
                MetaField::OpSeqno | MetaField::TransInd => continue,
            };
            out.extend_from_slice(text.as_bytes());
        }
        out.extend_from_slice(&self.end);
    }
}

fn label(encoding: &Encoding, op: Op) -> &str {
    let labels = &encoding.operation_strings;
    match op {
        Op::Insert => &labels.insert,
        Op::Update => &labels.update,
        Op::Upsert => &labels.upsert,
        Op::Delete => &labels.delete,
        Op::Truncate => &labels.truncate,
        Op::Ddl => &labels.ddl,
    }
}

/// Appends a comma and a name.
pub(super) fn name(name: &str, out: &mut Vec<u8>) {
    out.push(b',');
    json::push_string(name, out);
    out.push(b':');
}

/// Returns the text that [`name`] appends.
pub(super) fn named(of: &str) -> Vec<u8> {
    let mut named = Vec::new();
    name(of, &mut named);
    named
}
