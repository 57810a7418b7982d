//! What commands print: aligned columns for people, JSON for programs.

use std::io::{self, Write};

use serde_json::Value;

use super::{Failure, escape};

/// Rows under headings, as wide as they need to be.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    right: Vec<bool>,
}

impl Table {
    /// A table with these headings; a column whose heading begins with `>` is aligned to the right.
    pub(super) fn new(headings: &[&str]) -> Self {
        Self {
            rows: vec![
                headings
                    .iter()
                    .map(|heading| heading.trim_start_matches('>').to_owned())
                    .collect(),
            ],
            right: headings
                .iter()
                .map(|heading| heading.starts_with('>'))
                .collect(),
        }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        // One line is one row, whatever a record holds.
        let visible = |cell: String| escape::line(&cell).into_owned();
        self.rows.push(cells.into_iter().map(visible).collect());
    }

    pub(super) fn text(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..self.right.len()).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let gap = widths[column] - cell.chars().count();
                let (before, behind) = if self.right[column] {
                    (gap, 0)
                } else {
                    (0, gap)
                };
                let separator = if column == 0 { "" } else { "  " };
                line.push_str(separator);
                line.push_str(&" ".repeat(before));
                line.push_str(cell);
                line.push_str(&" ".repeat(behind));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Writes text to standard output; what a terminal would obey is shown escaped.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    write(&shown(text))
}

/// Returns what [`print`] writes, for a command that draws on its terminal itself.
pub(super) fn shown(text: &str) -> String {
    escape::text(text).into_owned()
}

/// Writes a line to standard error, in the same way.
pub(super) fn say(text: &str) {
    eprintln!("{}", escape::line(text));
}

fn write(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match written {
        // `syncgate records | head` has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::failed(format!("cannot print: {error}"))),
        Ok(()) => Ok(()),
    }
}

/// Writes one JSON document and a line's end.
pub(super) fn print_json(value: &Value) -> Result<(), Failure> {
    print_json_line(&value.to_string())
}

/// Writes a JSON document of one line, which may hold what a [`Value`] cannot, and a line's end.
pub(super) fn print_json_line(json: &str) -> Result<(), Failure> {
    write(&escape::json(&format!("{json}\n")))
}

/// Returns the value of a member as a cell: a text bare, other values as JSON, nothing for null and absent.
pub(super) fn cell(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// Returns `1 message`, `13,000 messages`.
pub(super) fn counted(count: u64, one: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{} {one}{s}", grouped(count))
}

/// Returns a number with a comma before every third digit.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_a_row_stays_a_line() {
        let mut table = Table::new(&["NAME", ">OPEN"]);
        table.row(["a".into(), "12".into()]);
        table.row(["größer\nals".into(), "3".into()]);
        assert_eq!(
            table.text(),
            "NAME        OPEN\na             12\ngrößer als     3\n"
        );
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(123_456), "123,456");
        assert_eq!(counted(1_000, "message"), "1,000 messages");
        assert_eq!(counted(1, "message"), "1 message");
    }
}
