//! The columns of an object's row: captures of the URL, then members of the payload.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use super::{Column, Name, Object};
use crate::push::{encode::json, misfits::Misfit, resource::ColumnType};

/// Returns the columns, captured ones first, or the first column that breaks its declaration. `None` if a name has
/// half of a surrogate pair, because such a name cannot be shown unchanged.
pub(super) fn columns<'a>(
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
        // A member of the payload wins over a capture of the URL.
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

/// Returns whether a name is repeated; true for many columns, because comparing all pairs would be quadratic.
fn has_repeats(columns: &[Column<'_>]) -> bool {
    let known = |(n, column): (usize, &Column<'_>)| {
        let before = &columns[..n];
        let name = column.name.as_str();
        before.iter().any(|other| other.name.as_str() == name)
    };
    columns.len() > 32 || columns.iter().enumerate().any(known)
}

/// Of columns with one name, keeps the last one, at its index.
fn last_of_each(columns: Vec<Column<'_>>) -> Vec<Column<'_>> {
    let mut seen = HashSet::with_capacity(columns.len());
    let from_behind = columns.iter().rev();
    let mut is_last: Vec<_> = from_behind
        .map(|column| seen.insert(column.name.as_str()))
        .collect();
    let kept = columns.into_iter().filter(|_| is_last.pop() == Some(true));
    kept.collect()
}

/// Returns the value of a captured segment: a number or boolean if the column is declared so, otherwise a string.
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
