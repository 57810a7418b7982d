//! How a change is written: metadata, static fields, images, and what was cut.

use std::{borrow::Cow, io::Write as _};

use crate::{
    clock::Timestamp,
    place::{Offset, Partition},
    push::{
        json::{quoted, scalar_text},
        resource::{
            AppendColumn, DDL, Encoding, Image, MetaField, Model, ObjectName, Resource, TRUNCATED,
        },
    },
    record::StoredRecord,
};

use super::{
    Op, cut, json,
    view::{Change, Column, push_headers},
};

/// Cuts of one record, at most: one that needs more has so many columns that it is shown otherwise.
const CUTS_MAX: usize = 64;

/// What is known of a record beside its row.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    /// When it was stored.
    pub(super) time: Timestamp,
    /// When it is written here.
    pub(super) now: Timestamp,
    pub(super) xid: Xid,
    /// Absent for a control event.
    pub(super) record: Option<(Partition, &'a StoredRecord)>,
    pub(super) message_id: String,
}

/// What groups operations; here each is alone.
#[derive(Clone, Copy, Debug)]
pub(super) enum Xid {
    Record(Partition, Offset),
    /// A control event, by its number.
    Event(u64),
}

/// Writes the records of one data stream.
#[derive(Debug)]
pub(super) struct Writer {
    encoding: Encoding,
    tables: Vec<Table>,
    /// The static fields, each behind a comma.
    fixed: Vec<u8>,
}

#[derive(Debug)]
struct Table {
    name: ObjectName,
    /// Names of its key columns, as a JSON array.
    keys: String,
}

/// A column as it is written.
#[derive(Clone, Debug)]
pub(super) struct Written<'a> {
    pub(super) image: Image,
    /// Its name in the table.
    pub(super) name: Cow<'a, str>,
    /// Empty if the column was left out.
    pub(super) value: Cow<'a, [u8]>,
    /// The schema knows no text of it, so it is sent whole or not at all.
    pub(super) is_whole: bool,
}

impl Op {
    /// Returns the plain word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Insert => "INSERT",
            Self::Update => "UPDATE",
            Self::Upsert => "UPSERT",
            Self::Delete => "DELETE",
            Self::Truncate => "TRUNCATE",
            Self::Ddl => "DDL",
        }
    }
}

impl Writer {
    pub(super) fn new(resource: &Resource, append: &ObjectName) -> Self {
        let keys = |names: &mut dyn Iterator<Item = &str>| {
            let names: Vec<_> = names.map(quoted).collect();
            format!("[{}]", names.join(","))
        };
        let append = Table {
            name: append.clone(),
            keys: keys(&mut AppendColumn::KEYS.iter().map(|key| key.name())),
        };
        let objects = resource.view.objects().map(|object| Table {
            name: object.object.clone(),
            keys: keys(&mut object.keys.iter().map(String::as_str)),
        });
        let mut fixed = String::new();
        for (name, value) in &resource.encoding.static_fields {
            fixed += &format!(",{}:{}", quoted(name), scalar_text(value));
        }
        Self {
            encoding: resource.encoding.clone(),
            tables: std::iter::once(append).chain(objects).collect(),
            fixed: fixed.into_bytes(),
        }
    }

    /// Returns the name of a table.
    pub(super) fn table(&self, number: usize) -> &ObjectName {
        &self.tables[number].name
    }

    /// Appends a change, cut to the size that a record may have with `around` bytes beside it in its frame.
    ///
    /// Returns false, and leaves `out` as it was, if it cannot be cut so far. A row of the append table is written in any
    /// case: what is then too large is its metadata and static fields, of which nothing is left out.
    pub(super) fn write(
        &self,
        change: &Change<'_>,
        facts: &Facts<'_>,
        pos: &[u8],
        around: usize,
        out: &mut Vec<u8>,
    ) -> bool {
        let start = out.len();
        let bytes_max = usize::try_from(self.encoding.max_record_size).unwrap_or(usize::MAX);
        let mut columns = self.columns(change);
        self.render(change, facts, pos, &columns, None, out);
        // The brackets of the frame count too.
        let size = |out: &Vec<u8>| out.len() - start + around + 2;
        let whole = size(out);
        let mut cut = cut::lobs(&mut columns, self.encoding.max_lob_size);
        if cut.is_empty() && whole <= bytes_max {
            return true;
        }
        for _ in 0..CUTS_MAX {
            out.truncate(start);
            self.render(change, facts, pos, &columns, Some((&cut, whole)), out);
            let excess = size(out).saturating_sub(bytes_max);
            if excess == 0 {
                return true;
            }
            match cut::largest(&mut columns, excess) {
                Some(name) if cut.contains(&name) => {}
                Some(name) => cut.push(name),
                None => break,
            }
        }
        let fits = change.table == 0;
        if !fits {
            out.truncate(start);
        }
        fits
    }

    /// Returns the columns of the images that are written.
    fn columns<'a>(&self, change: &'a Change<'_>) -> Vec<Written<'a>> {
        let images = [
            (Image::Before, &change.before),
            (Image::After, &change.after),
        ];
        let mut columns = Vec::new();
        for (image, row) in images {
            for Column { name, value } in row.iter().flatten() {
                let null = &**value == b"null";
                if null && self.encoding.omit_null_column_values {
                    continue;
                }
                let mut value = Cow::Borrowed(&**value);
                let strings = self.encoding.treat_all_columns_as_strings;
                if strings && !null && value.first() != Some(&b'"') {
                    let mut text = Vec::with_capacity(value.len() + 2);
                    text.push(b'"');
                    json::push_escaped(&value, &mut text);
                    text.push(b'"');
                    value = Cow::Owned(text);
                }
                columns.push(Written {
                    image,
                    name: Cow::Borrowed(&**name),
                    value,
                    is_whole: change.table == 0 && *name == AppendColumn::Headers.name(),
                });
            }
        }
        columns
    }

    fn render(
        &self,
        change: &Change<'_>,
        facts: &Facts<'_>,
        pos: &[u8],
        columns: &[Written<'_>],
        cut: Option<(&[String], usize)>,
        out: &mut Vec<u8>,
    ) {
        let start = out.len();
        self.meta(change, facts, pos, out);
        out.extend_from_slice(&self.fixed);
        if change.op == Op::Ddl {
            name(DDL, out);
            let max = usize::try_from(self.encoding.max_ddl_text_size).unwrap_or(usize::MAX);
            let text = &change.statement;
            json::push_string(&text[..text.floor_char_boundary(max)], out);
        }
        match self.encoding.model {
            Model::Op if !self.encoding.flatten => {
                for (image, row) in [
                    (Image::Before, &change.before),
                    (Image::After, &change.after),
                ] {
                    if row.is_some() {
                        name(self.encoding.image_name(image), out);
                        let start = out.len();
                        let of_image = |column: &&Written<'_>| {
                            column.image == image && !column.value.is_empty()
                        };
                        for column in columns.iter().filter(of_image) {
                            name(&column.name, out);
                            out.extend_from_slice(&column.value);
                        }
                        close(start, out);
                    }
                }
            }
            Model::Op | Model::Row => {
                for column in columns.iter().filter(|column| !column.value.is_empty()) {
                    name(&self.encoding.column_name(column.image, &column.name), out);
                    out.extend_from_slice(&column.value);
                }
            }
        }
        if let Some((names, whole)) = cut.filter(|(names, _)| !names.is_empty()) {
            name(TRUNCATED, out);
            let names: Vec<_> = names.iter().map(|name| quoted(name)).collect();
            let truncated = format!(r#"{{"columns":[{}],"bytes":{whole}}}"#, names.join(","));
            out.extend_from_slice(truncated.as_bytes());
        }
        close(start, out);
    }

    /// Appends the metadata members that are on, each behind a comma.
    fn meta(&self, change: &Change<'_>, facts: &Facts<'_>, pos: &[u8], out: &mut Vec<u8>) {
        let Table { name: table, keys } = &self.tables[change.table];
        let (catalog, schema, object) = table.parts();
        for field in MetaField::ALL {
            let Some(named) = self.encoding.meta_fields.name(field) else {
                continue;
            };
            name(named, out);
            match field {
                MetaField::QualifiedTable => json::push_string(table.as_str(), out),
                MetaField::Catalog => match catalog {
                    Some(catalog) => json::push_string(catalog, out),
                    None => out.extend_from_slice(b"null"),
                },
                MetaField::Schema => json::push_string(schema, out),
                MetaField::Table => json::push_string(object, out),
                MetaField::OpType => json::push_string(self.label(change.op), out),
                MetaField::OpTs => put(out, format_args!("\"{}\"", facts.time)),
                MetaField::OpTsMicroSecs => put(out, format_args!("{}", facts.time.0)),
                MetaField::CurrentTs => put(out, format_args!("\"{}\"", facts.now)),
                MetaField::CurrentTsMicroSecs => put(out, format_args!("{}", facts.now.0)),
                MetaField::Pos => {
                    out.push(b'"');
                    out.extend_from_slice(pos);
                    out.push(b'"');
                }
                MetaField::Xid => match facts.xid {
                    Xid::Record(partition, offset) => {
                        put(out, format_args!("\"{partition}.{offset}\""));
                    }
                    Xid::Event(number) => put(out, format_args!("\"ddl.{number}\"")),
                },
                MetaField::Csn => put(out, format_args!("\"{:020}\"", facts.time.0)),
                MetaField::OpSeqno => out.push(b'0'),
                MetaField::TransInd => out.extend_from_slice(b"\"only\""),
                MetaField::PrimaryKeys => out.extend_from_slice(keys.as_bytes()),
                MetaField::Tokens => push_headers(facts, out),
            }
        }
    }

    fn label(&self, op: Op) -> &str {
        let labels = &self.encoding.operation_strings;
        match op {
            Op::Insert => &labels.insert,
            Op::Update => &labels.update,
            Op::Upsert => &labels.upsert,
            Op::Delete => &labels.delete,
            Op::Truncate => &labels.truncate,
            Op::Ddl => &labels.ddl,
        }
    }
}

/// Appends a comma, which [`close`] turns into a brace for the first member, and a name.
fn name(name: &str, out: &mut Vec<u8>) {
    out.push(b',');
    json::push_string(name, out);
    out.push(b':');
}

/// Ends the object whose members begin at `start`.
fn close(start: usize, out: &mut Vec<u8>) {
    match out.get_mut(start) {
        Some(comma) => *comma = b'{',
        None => out.push(b'{'),
    }
    out.push(b'}');
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // A vector takes everything.
    let _written = out.write_fmt(text).is_ok();
}
