//! Views: shows a record as a row of the append table, or as a change of the object that its URL names.

mod columns;

use std::{borrow::Cow, collections::HashMap, ops::Deref, sync::Arc};

use crate::{
    model::{
        ids::{Offset, Partition},
        mask::{HEADERS, mask, may_hide},
        record::{StoredRecord, header},
    },
    push::{
        misfits::Misfits,
        resource::{
            AppendColumn, ColumnType, Image, ObjectName, ObjectView, UrlParts, UrlPattern, View,
        },
    },
    runtime::live::Live,
};

use self::columns::columns;
use super::{
    Op,
    json::{self, Compacted, Member},
    write::Facts,
};

/// The append table is the first table.
const APPEND: usize = 0;
/// Headers are objects in a list; a list in a list is the deepest legal form.
const HEADERS_DEPTH_MAX: usize = 3;
/// Longer headers are not remembered, so each message is searched.
const HARMLESS_BYTES_MAX: usize = 4 << 10;

/// A record as it is shown.
#[derive(Clone, Debug)]
pub(super) struct Change<'a> {
    /// Index of the table: the append table, then the objects in the order of the configuration.
    pub(super) table: usize,
    pub(super) op: Op,
    /// The image that `columns` belong to, if there is one. There is no image before a change, because the log does
    /// not have it.
    pub(super) image: Option<Image>,
    pub(super) columns: Columns<'a>,
    /// The statement of a DDL record.
    pub(super) statement: String,
}

/// The columns of an image.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one at a time, and an allocation for each record is what this saves"
)]
pub(super) enum Columns<'a> {
    /// Of the append table, which has a fixed number of columns.
    Append([Column<'a>; 6]),
    Of(Vec<Column<'a>>),
}

impl<'a> Deref for Columns<'a> {
    type Target = [Column<'a>];

    fn deref(&self) -> &[Column<'a>] {
        match self {
            Self::Append(columns) => columns,
            Self::Of(columns) => columns,
        }
    }
}

/// A column of an image.
#[derive(Clone, Debug)]
pub(super) struct Column<'a> {
    pub(super) name: Name<'a>,
    /// JSON without blanks.
    pub(super) value: Cow<'a, [u8]>,
}

/// The name of a column.
#[derive(Clone, Debug)]
pub(super) enum Name<'a> {
    Append(AppendColumn),
    /// A column of an object.
    Of(Cow<'a, str>),
}

/// Memory for viewing one record, reused for the next.
#[derive(Debug, Default)]
pub(super) struct Viewed {
    /// The value without credentials; compact JSON, if it is JSON.
    text: Vec<u8>,
    members: Vec<Member>,
    /// The other columns of the append table.
    row: Vec<u8>,
    /// Headers without credentials, because the headers of the next message are often equal.
    harmless: Vec<u8>,
}

/// Makes changes of the records of one data stream.
#[derive(Debug)]
pub(super) struct Viewer {
    entries: Vec<Entry>,
    masked: Arc<Live<Vec<String>>>,
    misfits: Arc<Misfits>,
}

/// An entry of `x-syncgate.objects`.
#[derive(Debug)]
struct Entry {
    url: UrlPattern,
    object: Arc<Object>,
}

/// The names that an object declares.
#[derive(Debug)]
struct Object {
    name: ObjectName,
    table: usize,
    keys: Names<()>,
    columns: Names<ColumnType>,
}

/// Looks names of columns up. A record may have a hundred thousand columns, and a configuration a thousand.
#[derive(Debug)]
enum Names<T> {
    /// Comparing with each name is faster than hashing.
    Few(Vec<(String, T)>),
    Many(HashMap<String, T>),
}

impl<T> Names<T> {
    const FEW_LEN_MAX: usize = 8;

    fn new(names: impl ExactSizeIterator<Item = (String, T)>) -> Self {
        match names.len() {
            ..=Self::FEW_LEN_MAX => Self::Few(names.collect()),
            _ => Self::Many(names.collect()),
        }
    }

    fn get(&self, name: &str) -> Option<&T> {
        match self {
            Self::Few(names) => {
                let mut named = names.iter().filter(|(known, _)| known == name);
                named.next().map(|(_, value)| value)
            }
            Self::Many(names) => names.get(name),
        }
    }
}

impl Object {
    fn new(table: usize, view: &ObjectView) -> Self {
        let keys = view.keys.iter().map(|key| (key.clone(), ()));
        let columns = view.columns.iter();
        let columns = columns.map(|column| (column.name.clone(), column.kind));
        Self {
            name: view.object.clone(),
            table,
            keys: Names::new(keys),
            columns: Names::new(columns),
        }
    }
}

impl Name<'_> {
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Append(column) => column.name(),
            Self::Of(name) => name,
        }
    }
}

impl Viewer {
    pub(super) fn new(view: &View, masked: Arc<Live<Vec<String>>>, misfits: Arc<Misfits>) -> Self {
        let entries = match view {
            View::Append => &[][..],
            View::Operations(entries) => entries,
        };
        let objects = view.objects().enumerate();
        let objects: HashMap<&ObjectName, Arc<Object>> = objects
            // The append table is table 0.
            .map(|(number, view)| (&view.object, Arc::new(Object::new(number + 1, view))))
            .collect();
        let entry = |entry: &ObjectView| {
            Some(Entry {
                url: entry.url.clone(),
                object: objects.get(&entry.object)?.clone(),
            })
        };
        Self {
            entries: entries.iter().filter_map(entry).collect(),
            masked,
            misfits,
        }
    }

    /// Returns the change that a record is shown as.
    pub(super) fn view<'a>(
        &'a self,
        partition: Partition,
        record: &'a StoredRecord,
        facts: &Facts<'_>,
        viewed: &'a mut Viewed,
    ) -> Change<'a> {
        let Viewed {
            text,
            members,
            row,
            harmless,
        } = viewed;
        let (is_json, text) = self.shown(&record.record.value, text, members, harmless);
        if is_json
            && !self.entries.is_empty()
            && let Some(change) = self.operation(text, members, (partition, record.offset))
        {
            return change;
        }
        append(partition, record, facts, is_json, text, row)
    }

    /// Returns a record as a row of the append table.
    pub(super) fn append<'a>(
        &self,
        partition: Partition,
        record: &'a StoredRecord,
        facts: &Facts<'_>,
        viewed: &'a mut Viewed,
    ) -> Change<'a> {
        let Viewed {
            text,
            members,
            row,
            harmless,
        } = viewed;
        let (is_json, text) = self.shown(&record.record.value, text, members, harmless);
        append(partition, record, facts, is_json, text, row)
    }

    /// Returns a value without credentials, and whether it is JSON: compact if it is, otherwise unchanged. `text` is
    /// memory for it.
    fn shown<'a>(
        &self,
        value: &'a [u8],
        text: &'a mut Vec<u8>,
        members: &mut Vec<Member>,
        harmless: &mut Vec<u8>,
    ) -> (bool, &'a [u8]) {
        text.clear();
        members.clear();
        let compacted = json::compact(value, text, members);
        // Most values hide nothing, and are read only once.
        match compacted {
            Compacted::AsItStands if !self.hides(value, members, harmless) => return (true, value),
            Compacted::Copied if !self.hides(text, members, harmless) => return (true, text),
            _ => {}
        }
        text.clear();
        members.clear();
        let masked = match std::str::from_utf8(value) {
            Ok(value) => mask(value, &self.masked.get()),
            // A message is UTF-8, so this value has no headers.
            Err(_not_text) => return (false, value),
        };
        let compacted = json::compact(masked.as_bytes(), text, members);
        if compacted != Compacted::Copied {
            text.extend_from_slice(masked.as_bytes());
        }
        (compacted != Compacted::Invalid, text)
    }

    /// Returns whether the headers of a compact message have credentials.
    fn hides(&self, text: &[u8], members: &[Member], harmless: &mut Vec<u8>) -> bool {
        for Member { name, value } in members {
            let value = &text[value.clone()];
            if !json::is_text(&text[name.clone()], HEADERS) || value == harmless {
                continue;
            }
            let (mut found, masked) = (false, self.masked.get());
            json::strings(value, |text| {
                found |= match json::unquoted_lossy(text) {
                    Some(text) => may_hide(&text, &masked),
                    None => true,
                };
            });
            // A value that is nested deeper than legal headers is always hidden.
            if found || json::depth(value) > HEADERS_DEPTH_MAX {
                return true;
            }
            if value.len() <= HARMLESS_BYTES_MAX {
                harmless.clear();
                harmless.extend_from_slice(value);
            }
        }
        false
    }

    /// Returns a message as a change of the object that its URL names; `None` if it is not one.
    fn operation<'a>(
        &'a self,
        text: &'a [u8],
        members: &[Member],
        place: (Partition, Offset),
    ) -> Option<Change<'a>> {
        let member = |wanted: &str| {
            // The last of repeated members counts.
            let mut members = members.iter().rev();
            let named = members.find(|member| json::is_text(&text[member.name.clone()], wanted));
            named.map(|member| &text[member.value.clone()])
        };
        let url = json::unquoted(member("targetRestApi")?)?;
        let op = match &*json::unquoted(member("targetRestApiOperation")?)? {
            "POST" => Op::Insert,
            "PUT" => Op::Upsert,
            "PATCH" => Op::Update,
            "DELETE" => Op::Delete,
            _ => return None,
        };
        let parts = UrlParts::of(&url);
        let mut entries = self.entries.iter();
        let (object, captures) = entries.find_map(|entry| {
            let captures = entry.url.fits(&parts)?;
            let captures = captures.into_iter();
            let owned = captures.map(|(name, segment)| (name.to_owned(), segment.to_owned()));
            Some((&*entry.object, Vec::from_iter(owned)))
        })?;
        let payload = match member("targetRestApiPayload") {
            None | Some(b"null") if op == Op::Delete => None,
            Some(payload) if payload.first() == Some(&b'{') => Some(payload),
            _ => return None,
        };
        let columns = match columns(object, captures, payload)? {
            Ok(columns) => columns,
            Err((column, misfit)) => {
                self.misfits.note(place, &object.name, &column, misfit);
                return None;
            }
        };
        let (image, columns) = match op {
            Op::Delete => {
                let is_key = |column: &Column<'_>| object.keys.get(column.name.as_str()).is_some();
                let keys: Vec<_> = columns.into_iter().filter(is_key).collect();
                ((!keys.is_empty()).then_some(Image::Before), keys)
            }
            _ => (Some(Image::After), columns),
        };
        Some(Change {
            table: object.table,
            op,
            image,
            columns: Columns::Of(columns),
            statement: String::new(),
        })
    }
}

fn append<'a>(
    partition: Partition,
    record: &StoredRecord,
    facts: &Facts<'_>,
    is_json: bool,
    text: &'a [u8],
    row: &'a mut Vec<u8>,
) -> Change<'a> {
    let StoredRecord { offset, record, .. } = record;
    let mut digits = itoa::Buffer::new();
    row.clear();
    row.push(b'"');
    row.extend_from_slice(digits.format(partition.0).as_bytes());
    row.push(b'"');
    let offset_at = row.len();
    row.extend_from_slice(digits.format(offset.0).as_bytes());
    let key_at = row.len();
    match record.key.is_empty() {
        true => row.extend_from_slice(b"null"),
        // Keys are UTF-8, because they come as JSON strings.
        false => json::push_string(&String::from_utf8_lossy(&record.key), row),
    }
    let ts_at = row.len();
    row.push(b'"');
    row.extend_from_slice(facts.stamp.as_bytes());
    row.push(b'"');
    let headers_at = row.len();
    push_headers(facts, row);
    let base64_at = row.len();
    if !is_json {
        json::push_base64(text, row);
    }
    let row = &row[..];
    let (data, value) = match is_json {
        true => (AppendColumn::Data, text),
        false => (AppendColumn::DataBase64, &row[base64_at..]),
    };
    let columns = [
        (AppendColumn::Partition, &row[..offset_at]),
        (AppendColumn::Offset, &row[offset_at..key_at]),
        (AppendColumn::Key, &row[key_at..ts_at]),
        (AppendColumn::Ts, &row[ts_at..headers_at]),
        (data, value),
        (AppendColumn::Headers, &row[headers_at..base64_at]),
    ];
    let column = |(name, value)| Column {
        name: Name::Append(name),
        value: Cow::Borrowed(value),
    };
    Change {
        table: APPEND,
        op: Op::Insert,
        image: Some(Image::After),
        columns: Columns::Append(columns.map(column)),
        statement: String::new(),
    }
}

/// Appends a record's headers as an object.
pub(super) fn push_headers(facts: &Facts<'_>, out: &mut Vec<u8>) {
    out.push(b'{');
    for (n, (name, value)) in headers(facts).enumerate() {
        if n > 0 {
            out.push(b',');
        }
        json::push_string(name, out);
        out.push(b':');
        json::push_string(value, out);
    }
    out.push(b'}');
}

/// Returns the shown headers of a record: with its message id, without internal ones.
pub(super) fn headers<'a>(facts: &'a Facts<'_>) -> impl Iterator<Item = (&'a str, &'a str)> {
    let record = facts.record.map(|(_, stored)| &stored.record);
    let own = record.map(|_| (header::MESSAGE_ID, facts.message_id));
    let rest = record.into_iter().flat_map(|record| record.headers.iter());
    let rest = rest.filter(|(name, _)| !matches!(*name, header::MESSAGE_ID | header::LAYOUT));
    own.into_iter().chain(rest)
}
