//! `x-syncgate`: the view, and the objects of view `operations`.

use std::{collections::HashMap, sync::Arc};

use serde_json::value::RawValue;

use crate::{
    json::{
        faults::{Faults, FieldCode, FieldError, fault, pointer_to},
        object::Object,
        scan::Members,
    },
    push::resource::{Column, ColumnType, ObjectName, ObjectView, Resource, UrlPattern, View},
};

use super::member::{self, COLUMN_LEN_MAX, ENTRIES_LEN_MAX};

const KEYS_LEN_MAX: usize = 32;

/// One entry of `objects`; it may take `keys` and `columns` from another entry of its object.
struct ObjectEntry {
    at: String,
    object: ObjectName,
    url: UrlPattern,
    keys: Option<Arc<[String]>>,
    columns: Option<Arc<[Column]>>,
}

impl Resource {
    /// Checks that no object is the append table, whose rows are records of the stream. The caller finds that table,
    /// by the stream of `source.trail`.
    ///
    /// # Errors
    /// The first entry whose object is the append table.
    pub fn check_append_table(&self, append: &ObjectName) -> Result<(), FieldError> {
        let View::Operations(entries) = &self.view else {
            return Ok(());
        };
        match entries.iter().position(|entry| entry.object == *append) {
            None => Ok(()),
            Some(n) => Err(FieldError {
                pointer: format!("/x-syncgate/objects/{n}/object"),
                code: FieldCode::WrongType,
                detail: format!(
                    "{append} is the table that every record of the stream is appended to"
                ),
            }),
        }
    }
}

/// Reads `x-syncgate`.
pub(super) fn read(object: &Object<'_>, faults: &mut Faults) -> View {
    let Some(ours) = object.get("x-syncgate") else {
        return View::Append;
    };
    let at = object.pointer("x-syncgate");
    let Some(ours) = Object::parse(ours.get(), at, &["view", "objects"], faults) else {
        return View::Append;
    };
    let words = &[(false, "append"), (true, "operations")];
    let is_operations = member::word(&ours, "view", words, faults);
    match is_operations {
        Some(true) => {
            ours.required("objects", faults);
        }
        _ if ours.get("objects").is_some() => {
            let what = "objects belong to \"view\": \"operations\"";
            ours.wrong("objects", what, faults);
        }
        _ => return View::Append,
    }
    let entries = member::entries(&ours, "objects", 1..=ENTRIES_LEN_MAX, faults).into_iter();
    let entries = entries.filter_map(|(at, value)| entry(value, at, faults));
    let entries = entries.collect();
    View::Operations(shared(entries, faults))
}

fn entry(value: &RawValue, at: String, faults: &mut Faults) -> Option<ObjectEntry> {
    let known = ["object", "url", "keys", "columns"];
    let entry = Object::parse(value.get(), at.clone(), &known, faults)?;
    entry.required("object", faults);
    let object = member::parsed(&entry, "object", faults);
    entry.required("url", faults);
    let url = member::parsed(&entry, "url", faults);
    let keys = entry.get("keys").map(|_| keys(&entry, faults));
    let columns = entry.get("columns").map(|value| {
        let at = entry.pointer("columns");
        columns(value, &at, faults)
    });
    Some(ObjectEntry {
        at,
        object: object?,
        url: url?,
        keys,
        columns,
    })
}

fn keys(entry: &Object<'_>, faults: &mut Faults) -> Arc<[String]> {
    let mut keys: Vec<String> = Vec::new();
    for (at, value) in member::entries(entry, "keys", 0..=KEYS_LEN_MAX, faults) {
        match member::text_at(value, &at, 1..=COLUMN_LEN_MAX, faults) {
            Some(key) if keys.contains(&key) => {
                let what = "a column is named once";
                fault(faults, &at, FieldCode::WrongType, what);
            }
            Some(key) => keys.push(key),
            None => {}
        }
    }
    keys.into()
}

fn columns(value: &RawValue, at: &str, faults: &mut Faults) -> Arc<[Column]> {
    let Some(Members(members)) = Members::parse(value.get()) else {
        let what = "this must be an object such as {\"qty\": {\"type\": \"number\"}}";
        fault(faults, at, FieldCode::WrongType, what);
        return Arc::new([]);
    };
    if members.len() > ENTRIES_LEN_MAX {
        let what = format!("this has at most {ENTRIES_LEN_MAX} members");
        fault(faults, at, FieldCode::TooLong, &what);
        return Arc::new([]);
    }
    let mut columns = HashMap::new();
    let mut named = Vec::with_capacity(members.len());
    for (name, value) in members {
        let at = pointer_to(at, &name);
        if !(1..=COLUMN_LEN_MAX).contains(&name.chars().count()) {
            let what = format!("the name of a column has 1 to {COLUMN_LEN_MAX} characters");
            fault(faults, &at, FieldCode::WrongType, &what);
        }
        if columns.insert(name.clone(), ()).is_some() {
            let what = "the member is there more than once";
            fault(faults, &at, FieldCode::WrongType, what);
        }
        let Some(column) = Object::parse(value.get(), at, &["type"], faults) else {
            continue;
        };
        column.required("type", faults);
        let kind = member::word(&column, "type", &ColumnType::WORDS, faults);
        named.extend(kind.map(|kind| Column {
            name: name.into_owned(),
            kind,
        }));
    }
    named.into()
}

/// Gives all entries of an object the keys and columns that one of them has. The order of names does not matter.
fn shared(entries: Vec<ObjectEntry>, faults: &mut Faults) -> Vec<ObjectView> {
    let mut keys: HashMap<ObjectName, Arc<[String]>> = HashMap::new();
    let mut columns: HashMap<ObjectName, Arc<[Column]>> = HashMap::new();
    for entry in &entries {
        if let Some(named) = &entry.keys {
            let of_object = keys.entry(entry.object.clone()).or_insert(named.clone());
            if !same(of_object, named, |key| key) {
                contradiction(entry, "keys", faults);
            }
        }
        if let Some(named) = &entry.columns {
            let of_object = columns.entry(entry.object.clone()).or_insert(named.clone());
            if !same(of_object, named, |column| &column.name) {
                contradiction(entry, "columns", faults);
            }
        }
    }
    let views = entries.into_iter().map(|entry| ObjectView {
        keys: keys.entry(entry.object.clone()).or_default().clone(),
        columns: columns.entry(entry.object.clone()).or_default().clone(),
        object: entry.object,
        url: entry.url,
    });
    views.collect()
}

fn contradiction(entry: &ObjectEntry, name: &str, faults: &mut Faults) {
    let what = format!("an earlier entry of {} has other {name}", entry.object);
    let at = format!("{}/{name}", entry.at);
    fault(faults, &at, FieldCode::WrongType, &what);
}

/// Returns whether two lists have the same entries in any order; each list has distinct names.
fn same<T: PartialEq>(one: &[T], other: &[T], name: fn(&T) -> &String) -> bool {
    let by_name: HashMap<_, _> = one.iter().map(|entry| (name(entry), entry)).collect();
    let mut others = other.iter();
    one.len() == other.len() && others.all(|entry| by_name.get(name(entry)) == Some(&entry))
}
