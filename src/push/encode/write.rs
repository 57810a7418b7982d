//! Writes a change: metadata, static fields, images, and the list of cuts.

use std::borrow::Cow;

use crate::{
    model::{
        ids::{Offset, Partition},
        record::StoredRecord,
    },
    push::resource::{AppendColumn, DDL, Encoding, Image, Model, ObjectName, Resource},
    runtime::clock::Timestamp,
};

use super::{
    Op,
    cut::Cuts,
    json,
    meta::{Meta, Table, name, named},
    view::{Change, Column, Name},
};

/// Cuts of one record, at most; a record that needs more is shown as a row of the append table.
const CUTS_MAX: usize = 64;
/// All images, in the order of their numbers.
const IMAGES: [Image; 2] = [Image::Before, Image::After];

/// Facts about a record beside its row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    /// When the record was stored.
    pub(super) time: Timestamp,
    /// The same as text.
    pub(super) stamp: &'a str,
    /// When the record is encoded.
    pub(super) now: Timestamp,
    pub(super) xid: Xid,
    /// The record; `None` for a control event.
    pub(super) record: Option<(Partition, &'a StoredRecord)>,
    pub(super) message_id: &'a str,
}

/// The transaction id; each operation is a transaction of its own.
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
    meta: Meta,
    /// Names of the images and of the append table's columns, as [`name`] writes them.
    images: [Vec<u8>; 2],
    append: [Vec<u8>; AppendColumn::ALL.len()],
}

/// A column with its encoded value.
#[derive(Clone, Debug)]
pub(super) struct Written<'a> {
    /// Its name in the table.
    pub(super) name: &'a Name<'a>,
    /// Empty if the column was left out.
    pub(super) value: Cow<'a, [u8]>,
}

impl Written<'_> {
    /// Returns whether the column is sent whole or left out, because its schema allows no text in place of the value.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.name, Name::Append(AppendColumn::Headers))
    }
}

impl Writer {
    pub(super) fn new(resource: &Resource, append: &ObjectName) -> Self {
        let encoding = &resource.encoding;
        let append = Table::new(append, AppendColumn::KEYS.iter().map(|key| key.name()));
        let objects = resource.view.objects();
        let objects = objects
            .map(|object| Table::new(&object.object, object.keys.iter().map(String::as_str)));
        let of_append = |column: AppendColumn| encoding.column_name(Image::After, column.name());
        Self {
            tables: std::iter::once(append).chain(objects).collect(),
            meta: Meta::new(encoding),
            images: IMAGES.map(|image| named(encoding.image_name(image))),
            append: AppendColumn::ALL.map(|column| named(&of_append(column))),
            encoding: encoding.clone(),
        }
    }

    /// Returns the number of tables.
    pub(super) fn tables_len(&self) -> usize {
        self.tables.len()
    }

    /// Returns the name of a table.
    pub(super) fn table(&self, number: usize) -> &ObjectName {
        &self.tables[number].name
    }

    /// Appends a change, cut so that it fits into a frame together with `around` bytes.
    ///
    /// Returns false, and leaves `out` unchanged, if it cannot be cut enough. A row of the append table is always
    /// written: if it is too large, its metadata and static fields are, and these are never cut.
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
        let lob_max = usize::try_from(self.encoding.max_lob_size).unwrap_or(usize::MAX);
        // The brackets of the frame count too.
        let size = |out: &Vec<u8>| out.len() - start + around + 2;
        // An encoded value is never shorter than its text.
        let has_lob = change.columns.iter().any(|c| c.value.len() > lob_max);
        self.render(change, facts, pos, self.columns(change), None, out);
        let whole = size(out);
        if !has_lob && whole <= bytes_max {
            return true;
        }
        let mut columns = Vec::from_iter(self.columns(change));
        let mut cuts = Cuts::of(&mut columns, lob_max);
        if cuts.is_empty() && whole <= bytes_max {
            return true;
        }
        for _ in 0..CUTS_MAX {
            // The size after a cut is calculated, because writing a record with many columns after each cut would be
            // quadratic.
            let excess = cuts.bytes_of(whole).saturating_sub(bytes_max);
            if excess == 0 {
                break;
            }
            let cut = cuts.cut_largest(&mut columns, excess, |column| {
                change.image.map_or(0, |image| self.name_len(image, column))
            });
            if !cut {
                break;
            }
        }
        out.truncate(start);
        let cut = Some((&cuts, whole));
        self.render(change, facts, pos, borrowed(&columns), cut, out);
        let fits = change.table == 0 || size(out) <= bytes_max;
        if !fits {
            out.truncate(start);
        }
        fits
    }

    /// Returns the bytes of a column's name with comma, quotes and colon.
    fn name_len(&self, image: Image, column: &Name<'_>) -> usize {
        match column {
            Name::Append(column) => self.append[*column as usize].len(),
            Name::Of(of) => named(&self.encoding.column_name(image, of)).len(),
        }
    }

    /// Returns the columns that are written.
    fn columns<'a>(&'a self, change: &'a Change<'_>) -> impl Iterator<Item = Written<'a>> {
        change.columns.iter().filter_map(|Column { name, value }| {
            let null = &**value == b"null";
            if null && self.encoding.omit_null_column_values {
                return None;
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
            Some(Written { name, value })
        })
    }

    fn render<'a>(
        &self,
        change: &Change<'_>,
        facts: &Facts<'_>,
        pos: &[u8],
        columns: impl Iterator<Item = Written<'a>>,
        cut: Option<(&Cuts, usize)>,
        out: &mut Vec<u8>,
    ) {
        let start = out.len();
        let table = &self.tables[change.table];
        self.meta.write(table, change.op, facts, pos, out);
        if change.op == Op::Ddl {
            name(DDL, out);
            let max = usize::try_from(self.encoding.max_ddl_text_size).unwrap_or(usize::MAX);
            let text = &change.statement;
            json::push_string(&text[..text.floor_char_boundary(max)], out);
        }
        if let Some(image) = change.image {
            let is_below = self.encoding.model == Model::Op && !self.encoding.flatten;
            if is_below {
                out.extend_from_slice(&self.images[image as usize]);
            }
            let first = out.len();
            for column in columns {
                match column.name {
                    Name::Append(column) => out.extend_from_slice(&self.append[*column as usize]),
                    Name::Of(of) => name(&self.encoding.column_name(image, of), out),
                }
                out.extend_from_slice(&column.value);
            }
            if is_below {
                close(first, out);
            }
        }
        if let Some((cuts, whole)) = cut.filter(|(cuts, _)| !cuts.is_empty()) {
            cuts.write(whole, out);
        }
        close(start, out);
    }
}

/// Returns the columns that are left after the cuts.
fn borrowed<'a>(columns: &'a [Written<'_>]) -> impl Iterator<Item = Written<'a>> {
    let kept = columns.iter().filter(|column| !column.value.is_empty());
    kept.map(|column| Written {
        name: column.name,
        value: Cow::Borrowed(&*column.value),
    })
}

/// Closes the object whose members begin at `start`, each after a comma: the first comma becomes a brace.
fn close(start: usize, out: &mut Vec<u8>) {
    match out.get_mut(start) {
        Some(comma) => *comma = b'{',
        None => out.push(b'{'),
    }
    out.push(b'}');
}
