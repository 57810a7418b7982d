//! What commands print: tables and sentences for people, JSON for programs.

mod age;
pub(super) mod confirm;
pub(super) mod cut;
pub(super) mod escape;
mod screen;
mod style;
mod table;

use std::io::{self, IsTerminal as _, Write};

use serde_json::Value;

use self::screen::Screen;
pub(super) use self::table::Table;
use super::Failure;
use crate::runtime::clock::Clock;

/// Writes text to standard output; control characters are shown escaped.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    write(&shown(text))
}

/// Returns what [`print`] writes, for a command that draws on its terminal itself.
pub(super) fn shown(text: &str) -> String {
    style::painted(text, Screen::of_stdout().has_colours)
}

/// Writes a text of this program unchanged. [`print`] would replace the characters that stand for styles.
pub(super) fn print_verbatim(text: &str) -> Result<(), Failure> {
    write(text)
}

/// Returns the columns of the terminal on standard output, 80 if unknown; `None` for a pipe or a file.
pub(super) fn stdout_columns() -> Option<u16> {
    const COLUMNS: u16 = 80;
    let is_terminal = io::stdout().is_terminal();
    is_terminal.then(|| Screen::of_stdout().columns.unwrap_or(COLUMNS))
}

/// Returns the columns of the terminal on standard error; `None` for a pipe, and where the width is unknown.
pub(super) fn stderr_columns() -> Option<usize> {
    Screen::of_stderr().columns.map(usize::from)
}

/// Marks a word as a heading.
pub(super) fn heading(text: &str) -> String {
    style::styled(text, style::Style::Heading)
}

/// Writes a line to standard error, escaped, with its first word coloured.
pub(super) fn say(text: &str) {
    eprintln!("{}", said(text));
}

/// Writes lines to standard error, such as the table above a question.
pub(super) fn say_text(text: &str) {
    eprint!("{}", style::painted(text, Screen::of_stderr().has_colours));
}

/// Returns the line that [`say`] writes.
pub(super) fn said(text: &str) -> String {
    let line = escape::line(text);
    style::first_word(&line, Screen::of_stderr().has_colours)
}

fn write(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match written {
        // The reader has ended, as in `syncgate records | head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::failed(format!("cannot print: {error}"))),
        Ok(()) => Ok(()),
    }
}

/// Writes one JSON document on a line.
pub(super) fn print_json(value: &Value) -> Result<(), Failure> {
    print_json_line(&value.to_string())
}

/// Writes JSON text on a line; it may be JSON that a [`Value`] cannot hold.
pub(super) fn print_json_line(json: &str) -> Result<(), Failure> {
    write(&escape::json(&format!("{json}\n")))
}

/// Returns a member as a table cell: a string without quotes, other values as JSON, empty for null and absent.
pub(super) fn cell(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// Returns a time as standard output shows it: with its age on a terminal, unchanged in a pipe. Other text stays as it is.
pub(super) fn time(text: &str) -> String {
    let on_terminal = Screen::of_stdout().columns.is_some();
    let aged = on_terminal.then(|| age::aged(text, Clock::system().now()));
    aged.flatten()
        .map_or_else(|| text.to_owned(), |aged| aged.long)
}

/// Returns `1 message`, `13000 messages`. Digits are not grouped, because people search for numbers and copy them.
pub(super) fn counted(count: u64, one: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {one}{s}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_counted_without_groups() {
        assert_eq!(counted(1_234_567, "message"), "1234567 messages");
        assert_eq!(counted(1, "message"), "1 message");
    }
}
