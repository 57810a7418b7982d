//! What commands print: tables and sentences for people, JSON for programs.

mod age;
pub(super) mod confirm;
mod cut;
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

/// Writes text to standard output; what a terminal would obey is shown escaped.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    write(&shown(text))
}

/// Returns what [`print`] writes, for a command that draws on its terminal itself.
pub(super) fn shown(text: &str) -> String {
    style::painted(text, Screen::of_stdout().has_colours)
}

/// Writes a text of this program as it is: it may have characters that stand for something else in what [`print`] gets.
pub(super) fn print_verbatim(text: &str) -> Result<(), Failure> {
    write(text)
}

/// Returns the columns of the terminal that standard output is, 80 if it does not say; `None` for a pipe or a file.
pub(super) fn stdout_columns() -> Option<u16> {
    const COLUMNS: u16 = 80;
    let is_terminal = io::stdout().is_terminal();
    is_terminal.then(|| Screen::of_stdout().columns.unwrap_or(COLUMNS))
}

/// Returns a text of one word that is printed as a heading.
pub(super) fn heading(text: &str) -> String {
    style::styled(text, style::Style::Heading)
}

/// Writes a line to standard error, in the same way.
pub(super) fn say(text: &str) {
    eprintln!("{}", said(text));
}

/// Writes lines to standard error, such as a table that a question is about.
pub(super) fn say_text(text: &str) {
    eprint!("{}", style::painted(text, Screen::of_stderr().has_colours));
}

/// Returns a line for standard error: escaped, and with a colour for the word that it begins with.
pub(super) fn said(text: &str) -> String {
    let line = escape::line(text);
    style::first_word(&line, Screen::of_stderr().has_colours)
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

/// Returns a time as standard output shows it: with its age on a terminal, as the gateway gave it in a pipe. Another text
/// stays as it is.
pub(super) fn time(text: &str) -> String {
    let on_terminal = Screen::of_stdout().columns.is_some();
    let aged = on_terminal.then(|| age::aged(text, Clock::system().now()));
    aged.flatten()
        .map_or_else(|| text.to_owned(), |aged| aged.long)
}

/// Returns `1 message`, `13000 messages`: digits are never grouped, so that a number can be searched for and copied.
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
