//! Line numbers of the keys of a file, for errors.

use std::collections::BTreeMap;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// Collects the line of every key, by path.
pub(super) fn note_lines(
    table: &DeTable<'_>,
    under: &str,
    line_of: &dyn Fn(usize) -> usize,
    lines: &mut BTreeMap<String, usize>,
) {
    for (key, value) in table {
        let path = match under {
            "" => key.get_ref().to_string(),
            under => format!("{under}.{}", key.get_ref()),
        };
        lines.insert(path.clone(), line_of(key.span().start));
        note_lines_of_value(value, &path, line_of, lines);
    }
}

fn note_lines_of_value(
    value: &Spanned<DeValue<'_>>,
    path: &str,
    line_of: &dyn Fn(usize) -> usize,
    lines: &mut BTreeMap<String, usize>,
) {
    match value.get_ref() {
        DeValue::Table(table) => note_lines(table, path, line_of, lines),
        DeValue::Array(elements) => {
            for (at, element) in elements.iter().enumerate() {
                let path = format!("{path}[{at}]");
                lines.insert(path.clone(), line_of(element.span().start));
                note_lines_of_value(element, &path, line_of, lines);
            }
        }
        _ => {}
    }
}
