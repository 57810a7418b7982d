//! Columns that are cut because they, or their record, are too large (`push-decisions.md` §5).

use std::borrow::Cow;

use super::{json, write::Written};

/// Cuts strings that have more than `bytes_max` bytes; returns the names of the columns.
pub(super) fn lobs(columns: &mut [Written<'_>], bytes_max: usize) -> Vec<String> {
    let mut cut = Vec::new();
    for column in columns {
        // What is written is never shorter than what it stands for.
        let long = column.value.first() == Some(&b'"') && column.value.len() - 2 > bytes_max;
        let text = long.then(|| json::unquoted(&column.value)).flatten();
        let Some(text) = text.filter(|text| text.len() > bytes_max) else {
            continue;
        };
        let kept = &text[..text.floor_char_boundary(bytes_max)];
        let mut value = Vec::with_capacity(kept.len() + 2);
        json::push_string(kept, &mut value);
        column.value = Cow::Owned(value);
        add(&mut cut, column.name.as_str());
    }
    cut
}

/// Makes the column with most bytes shorter by `excess`, or as short as it gets; returns its name.
///
/// An object or array becomes its text first. A number stays whole: a part of it would be another one.
pub(super) fn largest(columns: &mut [Written<'_>], excess: usize) -> Option<String> {
    let can_be = |column: &&mut Written<'_>| match column.value.first() {
        Some(b'"' | b'{' | b'[') => column.value.len() > 2,
        _ => false,
    };
    let largest = columns.iter_mut().filter(can_be);
    let column = largest.max_by_key(|column| column.value.len())?;
    if column.is_whole() && column.value.first() != Some(&b'"') {
        column.value = Cow::Borrowed(b"");
        return Some(column.name.as_str().to_owned());
    }
    let text = match column.value.first() {
        Some(b'"') => json::unquoted(&column.value)?,
        _ => String::from_utf8_lossy(&column.value),
    };
    let room = column.value.len().saturating_sub(excess + 2);
    let mut used = 0;
    let fits = |c: &char| {
        used += escaped_len(*c);
        used <= room
    };
    let kept: usize = text.chars().take_while(fits).map(char::len_utf8).sum();
    let mut value = Vec::with_capacity(room + 2);
    json::push_string(&text[..kept], &mut value);
    column.value = Cow::Owned(value);
    Some(column.name.as_str().to_owned())
}

/// Bytes that a character has in a string of JSON.
fn escaped_len(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' => 2,
        '\0'..' ' | '\u{2028}' | '\u{2029}' => 6,
        c => c.len_utf8(),
    }
}

fn add(names: &mut Vec<String>, name: &str) {
    if !names.iter().any(|known| known == name) {
        names.push(name.to_owned());
    }
}
