//! What a record becomes: a row of the append table, or a change of the object that its URL names.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    ops::Deref,
    sync::Arc,
};

use crate::{
    model::{
        ids::{Offset, Partition},
        mask::{HEADERS, mask, may_hide},
        record::{StoredRecord, header},
    },
    push::{
        misfits::{Misfit, Misfits},
        resource::{
            AppendColumn, ColumnType, Image, ObjectName, ObjectView, UrlParts, UrlPattern, View,
        },
    },
    runtime::live::Live,
};

use super::{
    Op,
    json::{self, Compacted, Member},
    write::Facts,
};

/// The append table is the first of all tables.
const APPEND: usize = 0;
/// Objects in a list, and a list in a list.
const HEADERS_DEPTH_MAX: usize = 3;
/// Longer headers are looked through for each message.
const HARMLESS_BYTES_MAX: usize = 4 << 10;

/// What is shown of a record.
#[derive(Clone, Debug)]
pub(super) struct Change<'a> {
    /// Number of the table: the append table, then the objects in the order of the configuration.
    pub(super) table: usize,
    pub(super) op: Op,
    /// Of which image its columns are, if there is one: what a change replaces is not in the log.
    pub(super) image: Option<Image>,
    pub(super) columns: Columns<'a>,
    /// Of a DDL record.
    pub(super) statement: String,
}

/// The columns of an image.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one at a time, and an allocation for each record is what this saves"
)]
pub(super) enum Columns<'a> {
    /// Of the append table, which always has as many.
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

/// What a column is called.
#[derive(Clone, Debug)]
pub(super) enum Name<'a> {
    Append(AppendColumn),
    /// In the table of an object.
    Of(Cow<'a, str>),
}

/// What a view has read of a record; used again for the next one.
#[derive(Debug, Default)]
pub(super) struct Viewed {
    /// The value, without credentials; JSON without blanks, if it is JSON.
    text: Vec<u8>,
    members: Vec<Member>,
    /// The other columns of the append table.
    row: Vec<u8>,
    /// Headers of a message in which nothing is hidden: those of the next one are mostly the same.
    harmless: Vec<u8>,
}

/// Knows what records of one data stream become.
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

/// What is known of an object.
#[derive(Debug)]
struct Object {
    name: ObjectName,
    table: usize,
    keys: Names<()>,
    columns: Names<ColumnType>,
}

/// Names that columns are looked up among. A record may have a hundred thousand columns, and a configuration a thousand.
#[derive(Debug)]
enum Names<T> {
    /// Looking at each is quicker than a hash.
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
            // The append table comes before them.
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

    /// Returns what a record is shown as.
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

    /// Returns the row of the append table that a record is.
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

    /// Returns a value without credentials: as JSON without blanks, or else as it stands; and whether it is JSON. `text` is
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
        // Most have nothing to hide, and are read once.
        match compacted {
            Compacted::AsItStands if !self.hides(value, members, harmless) => return (true, value),
            Compacted::Copied if !self.hides(text, members, harmless) => return (true, text),
            _ => {}
        }
        text.clear();
        members.clear();
        let masked = match std::str::from_utf8(value) {
            Ok(value) => mask(value, &self.masked.get()),
            // A message is text, so this has no header either.
            Err(_not_text) => return (false, value),
        };
        let compacted = json::compact(masked.as_bytes(), text, members);
        if compacted != Compacted::Copied {
            text.extend_from_slice(masked.as_bytes());
        }
        (compacted != Compacted::Invalid, text)
    }

    /// Returns whether a message, as it is shown, has credentials in its headers.
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
            // What is nested deeper than headers ever are is hidden whatever it says.
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

    /// Returns the change of an object that a message asks its target for.
    fn operation<'a>(
        &'a self,
        text: &'a [u8],
        members: &[Member],
        place: (Partition, Offset),
    ) -> Option<Change<'a>> {
        let member = |wanted: &str| {
            // A repeated member is what it is the last time.
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

/// Returns the columns, captured ones first, or one that breaks what is declared; `None` if one has half of a surrogate pair
/// in its name: under another name it would not be what was sent.
fn columns<'a>(
    object: &Object,
    captures: Vec<(String, String)>,
    payload: Option<&'a [u8]>,
) -> Option<Result<Vec<Column<'a>>, (String, Misfit)>> {
    let mut of_payload: Vec<Column<'a>> = Vec::new();
    let mut all_named = true;
    json::members(
        payload.unwrap_or(b"{}"),
        |name, value| match json::unquoted(name) {
            Some(name) => of_payload.push(Column {
                name: Name::Of(name),
                value: Cow::Borrowed(value),
            }),
            None => all_named = false,
        },
    );
    if !all_named {
        return None;
    }
    if has_repeats(&of_payload) {
        of_payload = last_of_each(of_payload);
    }
    let mut captures: Vec<_> = captures.into_iter().map(Some).collect();
    if !captures.is_empty() {
        // What the payload says of a column counts before what its URL does.
        let places = captures.iter().enumerate();
        let places: HashMap<String, usize> = places
            .filter_map(|(place, capture)| Some((capture.as_ref()?.0.clone(), place)))
            .collect();
        for column in &of_payload {
            if let Some(place) = places.get(column.name.as_str()) {
                captures[*place] = None;
            }
        }
    }
    let mut columns = Vec::with_capacity(captures.len() + of_payload.len());
    for (name, segment) in captures.into_iter().flatten() {
        let value = captured(&segment, object.columns.get(&name).copied());
        columns.push(Column {
            name: Name::Of(Cow::Owned(name)),
            value: Cow::Owned(value),
        });
    }
    columns.append(&mut of_payload);
    let misfit = |column: &Column<'_>| {
        let null = &*column.value == b"null";
        let name = column.name.as_str();
        let misfit = match null {
            true => object.keys.get(name).map(|()| Misfit::NullKey),
            false => {
                let kind = object.columns.get(name);
                let kind = kind.filter(|kind| !is_of(&column.value, **kind));
                kind.map(|kind| Misfit::IsNo(*kind))
            }
        };
        misfit.map(|misfit| (name.to_owned(), misfit))
    };
    let first = columns.iter().find_map(misfit);
    Some(first.map_or(Ok(columns), Err))
}

/// Says so of many columns without looking.
fn has_repeats(columns: &[Column<'_>]) -> bool {
    let known = |(n, column): (usize, &Column<'_>)| {
        let before = &columns[..n];
        let name = column.name.as_str();
        before.iter().any(|other| other.name.as_str() == name)
    };
    columns.len() > 32 || columns.iter().enumerate().any(known)
}

/// A name that is there twice means what it says the last time, where it stands the last time.
fn last_of_each(columns: Vec<Column<'_>>) -> Vec<Column<'_>> {
    let mut seen = HashSet::with_capacity(columns.len());
    let from_behind = columns.iter().rev();
    let mut is_last: Vec<_> = from_behind
        .map(|column| seen.insert(column.name.as_str()))
        .collect();
    let kept = columns.into_iter().filter(|_| is_last.pop() == Some(true));
    kept.collect()
}

/// A segment of a URL: a number or a yes or no where the column is declared so, else a string.
fn captured(segment: &str, kind: Option<ColumnType>) -> Vec<u8> {
    let bytes = segment.as_bytes();
    let plain = match kind {
        Some(ColumnType::Number | ColumnType::Integer) => {
            json::number_len(bytes) == Some(bytes.len())
        }
        Some(ColumnType::Boolean) => matches!(segment, "true" | "false"),
        _ => false,
    };
    if plain {
        return bytes.to_vec();
    }
    let mut value = Vec::with_capacity(bytes.len() + 2);
    json::push_string(segment, &mut value);
    value
}

fn is_of(value: &[u8], kind: ColumnType) -> bool {
    let number = matches!(value.first(), Some(b'-' | b'0'..=b'9'));
    match kind {
        ColumnType::String => value.first() == Some(&b'"'),
        ColumnType::Number => number,
        ColumnType::Integer => {
            number && !value.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E'))
        }
        ColumnType::Boolean => matches!(value, b"true" | b"false"),
        ColumnType::Object => value.first() == Some(&b'{'),
        ColumnType::Array => value.first() == Some(&b'['),
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
        // Keys come as JSON strings, so nothing is replaced here.
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

/// Returns a record's headers as they are shown: with its id, and without what is for ourselves.
pub(super) fn headers<'a>(facts: &'a Facts<'_>) -> impl Iterator<Item = (&'a str, &'a str)> {
    let record = facts.record.map(|(_, stored)| &stored.record);
    let own = record.map(|_| (header::MESSAGE_ID, facts.message_id));
    let rest = record.into_iter().flat_map(|record| record.headers.iter());
    let rest = rest.filter(|(name, _)| !matches!(*name, header::MESSAGE_ID | header::LAYOUT));
    own.into_iter().chain(rest)
}
