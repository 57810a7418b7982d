//! What a record becomes: a row of the append table, or a change of the object that its URL names.

use std::borrow::Cow;

use crate::{
    mask::{HEADERS, has_credentials, mask},
    place::Partition,
    push::resource::{AppendColumn, Column as Declared, ColumnType, ObjectName, ObjectView, View},
    record::{StoredRecord, header},
};

use super::{
    Op,
    json::{self, Member},
    write::Facts,
};

/// The append table is the first of all tables.
const APPEND: usize = 0;

/// What is shown of a record.
#[derive(Clone, Debug)]
pub(super) struct Change<'a> {
    /// Number of the table: the append table, then the objects in the order of the configuration.
    pub(super) table: usize,
    pub(super) op: Op,
    pub(super) before: Option<Vec<Column<'a>>>,
    pub(super) after: Option<Vec<Column<'a>>>,
    /// Of a DDL record.
    pub(super) statement: String,
}

/// A column of an image.
#[derive(Clone, Debug)]
pub(super) struct Column<'a> {
    pub(super) name: Cow<'a, str>,
    /// JSON without blanks.
    pub(super) value: Cow<'a, [u8]>,
}

/// Knows what records of one data stream become.
#[derive(Debug)]
pub(super) struct Viewer {
    entries: Vec<Entry>,
    masked: Vec<String>,
}

/// An entry of `x-syncgate.objects`, and the number of its object's table.
#[derive(Debug)]
struct Entry {
    view: ObjectView,
    table: usize,
}

impl<'a> Column<'a> {
    fn new(name: AppendColumn, value: impl Into<Cow<'a, [u8]>>) -> Self {
        Self {
            name: Cow::Borrowed(name.name()),
            value: value.into(),
        }
    }
}

impl Viewer {
    pub(super) fn new(view: &View, masked: &[String]) -> Self {
        let entries = match view {
            View::Append => &[][..],
            View::Operations(entries) => entries,
        };
        let tables: Vec<&ObjectName> = view.objects().map(|entry| &entry.object).collect();
        let entry = |entry: &ObjectView| {
            let table = tables.iter().position(|name| **name == entry.object);
            Entry {
                view: entry.clone(),
                // The append table comes before them.
                table: table.map_or(APPEND, |table| table + 1),
            }
        };
        Self {
            entries: entries.iter().map(entry).collect(),
            masked: masked.to_vec(),
        }
    }

    /// Returns what a record is shown as. `text` is where its value is copied to.
    pub(super) fn view<'a>(
        &'a self,
        partition: Partition,
        record: &'a StoredRecord,
        facts: &Facts<'_>,
        text: &'a mut Vec<u8>,
    ) -> Change<'a> {
        let mut members = Vec::new();
        let is_json = self.copy(&record.record.value, text, &mut members);
        if is_json
            && !self.entries.is_empty()
            && let Some(change) = self.operation(text, &members)
        {
            return change;
        }
        append(partition, record, facts, is_json, text)
    }

    /// Returns the row of the append table that a record is.
    pub(super) fn append<'a>(
        &self,
        partition: Partition,
        record: &'a StoredRecord,
        facts: &Facts<'_>,
        text: &'a mut Vec<u8>,
    ) -> Change<'a> {
        let is_json = self.copy(&record.record.value, text, &mut Vec::new());
        append(partition, record, facts, is_json, text)
    }

    /// Copies a value without credentials: as JSON without blanks, or else as it stands; returns whether it is JSON.
    fn copy(&self, value: &[u8], text: &mut Vec<u8>, members: &mut Vec<Member>) -> bool {
        text.reserve(value.len());
        let is_json = json::compact(value, text, members);
        // Most have nothing to hide, and are read once.
        if is_json && !self.hides(text, members) {
            return true;
        }
        text.clear();
        members.clear();
        let masked = match std::str::from_utf8(value) {
            Ok(value) => mask(value, &self.masked),
            // A message is text, so this has no header either.
            Err(_not_text) => {
                text.extend_from_slice(value);
                return false;
            }
        };
        let is_json = json::compact(masked.as_bytes(), text, members);
        if !is_json {
            // Half a surrogate pair, for one, is no JSON here, and a header beside it is a credential all the same.
            text.extend_from_slice(masked.as_bytes());
        }
        is_json
    }

    /// Returns whether a message, copied, has credentials in its headers.
    fn hides(&self, text: &[u8], members: &[Member]) -> bool {
        let mut headers = members.iter().filter(|member| {
            let name = json::unquoted(&text[member.name.clone()]);
            name.is_some_and(|name| name == HEADERS)
        });
        headers.any(
            |member| match std::str::from_utf8(&text[member.value.clone()]) {
                Ok(headers) => has_credentials(headers, &self.masked),
                Err(_not_text) => true,
            },
        )
    }

    /// Returns the change of an object that a message asks its target for.
    fn operation<'a>(&'a self, text: &'a [u8], members: &[Member]) -> Option<Change<'a>> {
        let member = |wanted: &str| {
            // A repeated member is what it is the last time.
            let named = members.iter().rev().find(|member| {
                let name = json::unquoted(&text[member.name.clone()]);
                name.is_some_and(|name| name == wanted)
            });
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
        let mut entries = self.entries.iter();
        let (entry, captures) = entries.find_map(|entry| {
            let captures = entry.view.url.fits(&url)?;
            let captures = captures.into_iter();
            let owned = captures.map(|(name, segment)| (name.to_owned(), segment.to_owned()));
            Some((entry, Vec::from_iter(owned)))
        })?;
        let payload = match member("targetRestApiPayload") {
            None | Some(b"null") if op == Op::Delete => None,
            Some(payload) if payload.first() == Some(&b'{') => Some(payload),
            _ => return None,
        };
        let columns = columns(&entry.view, captures, payload)?;
        let (before, after) = match op {
            Op::Delete => {
                let is_key =
                    |column: &Column<'_>| entry.view.keys.iter().any(|k| *k == column.name);
                let keys: Vec<_> = columns.into_iter().filter(is_key).collect();
                ((!keys.is_empty()).then_some(keys), None)
            }
            _ => (None, Some(columns)),
        };
        Some(Change {
            table: entry.table,
            op,
            before,
            after,
            statement: String::new(),
        })
    }
}

/// Returns the columns, captured ones first; `None` if one breaks its declared type.
fn columns<'a>(
    view: &ObjectView,
    captures: Vec<(String, String)>,
    payload: Option<&'a [u8]>,
) -> Option<Vec<Column<'a>>> {
    let declared = |name: &str| view.columns.iter().find(|column| column.name == name);
    let mut of_payload: Vec<Column<'a>> = Vec::new();
    json::members(payload.unwrap_or(b"{}"), |name, value| {
        if let Some(name) = json::unquoted(name) {
            of_payload.push(Column {
                name,
                value: Cow::Borrowed(value),
            });
        }
    });
    if has_repeats(&of_payload) {
        of_payload = last_of_each(of_payload);
    }
    let mut columns = Vec::with_capacity(captures.len() + of_payload.len());
    for (name, segment) in captures {
        if !of_payload.iter().any(|column| column.name == name) {
            let value = captured(&segment, declared(&name).map(|column| column.kind));
            columns.push(Column {
                name: Cow::Owned(name),
                value: Cow::Owned(value),
            });
        }
    }
    columns.append(&mut of_payload);
    let is_key = |name: &str| view.keys.iter().any(|key| key == name);
    let fits = |column: &Column<'_>| {
        let null = &*column.value == b"null";
        match declared(&column.name) {
            _ if null => !is_key(&column.name),
            Some(Declared { kind, .. }) => is_of(&column.value, *kind),
            None => true,
        }
    };
    columns.iter().all(fits).then_some(columns)
}

/// Says so of many columns without looking.
fn has_repeats(columns: &[Column<'_>]) -> bool {
    let known = |(n, column): (usize, &Column<'_>)| {
        let before = &columns[..n];
        before.iter().any(|other| other.name == column.name)
    };
    columns.len() > 32 || columns.iter().enumerate().any(known)
}

/// A name that is there twice means what it says the last time, where it stands the last time.
fn last_of_each(columns: Vec<Column<'_>>) -> Vec<Column<'_>> {
    let mut seen = std::collections::HashSet::with_capacity(columns.len());
    let mut kept: Vec<_> = columns
        .into_iter()
        .rev()
        .filter(|column| seen.insert(column.name.clone()))
        .collect();
    kept.reverse();
    kept
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
    record: &'a StoredRecord,
    facts: &Facts<'_>,
    is_json: bool,
    text: &'a [u8],
) -> Change<'a> {
    let StoredRecord {
        offset,
        time,
        record,
    } = record;
    let key: Cow<'_, [u8]> = match record.key.is_empty() {
        true => Cow::Borrowed(b"null"),
        false => {
            let mut key = Vec::with_capacity(record.key.len() + 2);
            // Keys come as JSON strings, so nothing is replaced here.
            json::push_string(&String::from_utf8_lossy(&record.key), &mut key);
            Cow::Owned(key)
        }
    };
    let data = match is_json {
        true => Column::new(AppendColumn::Data, text),
        false => {
            let mut base64 = Vec::new();
            json::push_base64(text, &mut base64);
            Column::new(AppendColumn::DataBase64, base64)
        }
    };
    let mut headers = Vec::with_capacity(256);
    push_headers(facts, &mut headers);
    let after = vec![
        Column::new(
            AppendColumn::Partition,
            format!("\"{partition}\"").into_bytes(),
        ),
        Column::new(AppendColumn::Offset, offset.to_string().into_bytes()),
        Column::new(AppendColumn::Key, key),
        Column::new(AppendColumn::Ts, format!("\"{time}\"").into_bytes()),
        data,
        Column::new(AppendColumn::Headers, headers),
    ];
    Change {
        table: APPEND,
        op: Op::Insert,
        before: None,
        after: Some(after),
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
    let own = record.map(|_| (header::MESSAGE_ID, &*facts.message_id));
    let rest = record.into_iter().flat_map(|record| record.headers.iter());
    let rest = rest.filter(|(name, _)| !matches!(*name, header::MESSAGE_ID | header::LAYOUT));
    own.into_iter().chain(rest)
}
