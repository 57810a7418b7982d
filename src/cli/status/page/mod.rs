//! The status page: a verdict, the problems with the command to run next, tables, facts.
//!
//! On a terminal the page fits the screen, except for long words of a command. Problems come first, and tables get the lines
//! left. If something is left out, the last line says so and names the command that prints all. In a pipe the page is whole.

mod facts;
mod tables;

use std::cell::Cell;

use self::tables::Rows;
use super::report::{Problem, Report, Retry};
use crate::cli::output::escape;

/// Lines of a problem's text, and of its reason.
const TEXT_LINES_MAX: usize = 4;
const REASON_LINES_MAX: usize = 2;
/// Running retries on the page.
const RETRIES_MAX: usize = 3;
/// Blanks before the further lines of a problem.
const INDENT: &str = "   ";

/// The room for a page.
pub(super) struct Page<'a> {
    /// `None` = any number: nothing is wrapped or cut.
    columns: Option<usize>,
    /// `None` = any number.
    lines_max: Option<usize>,
    /// The option with which a suggested command finds the same gateway.
    address: &'a str,
    /// Whether something was left out.
    was_cut: Cell<bool>,
}

impl<'a> Page<'a> {
    /// A page of so many columns and lines; `None` leaves nothing out.
    pub(super) fn new(columns: Option<usize>, lines_max: Option<usize>, address: &'a str) -> Self {
        Self {
            columns,
            lines_max,
            address,
            was_cut: Cell::new(false),
        }
    }

    pub(super) fn text(&self, report: &Report) -> String {
        let head = match report.problems.len() + report.more_problems {
            _ if report.is_well() => "all is well".to_owned(),
            1 => "1 problem".to_owned(),
            len => format!("{len} problems, the worst first"),
        };
        let up = report.age(Some(&report.started_at));
        let about = format!(
            "syncgate {}, up {up}, at {}",
            report.version,
            second(&report.at)
        );
        let mut lines = vec![head, self.cut(&about)];
        let facts = self.facts(report);
        // Reserve room for the hint, the last line.
        let hint = self.hint();
        let room = self.lines_max.unwrap_or(usize::MAX / 2);
        let mut room = room.saturating_sub(lines.len() + facts.len() + hint.len());
        let mut add = |more: Vec<String>| {
            room = room.saturating_sub(more.len());
            lines.extend(more);
            room
        };
        let retries = self.retries(report);
        let room = add(Vec::new()).saturating_sub(retries.len());
        add(self.problems(report, room));
        let room = add(retries);
        let tables = [self.targets(report), self.open(report)];
        add(self.tables(tables, room));
        lines.extend(facts);
        if self.was_cut.get() {
            lines.extend(hint);
        }
        lines.join("\n") + "\n"
    }

    /// Returns the line that says that the page was cut.
    fn hint(&self) -> Vec<String> {
        let hint = format!(
            "(cut to this terminal; all of it: syncgate status{} | cat)",
            self.address
        );
        self.wrapped("", hint.split(' '), "")
    }

    /// Returns the problems that fit, at least the first.
    fn problems(&self, report: &Report, lines_max: usize) -> Vec<String> {
        let mut lines = Vec::new();
        let all = report.problems.len() + report.more_problems;
        for (at, problem) in report.problems.iter().enumerate() {
            let block = self.problem(at + 1, problem, report);
            // The blank line before the first, and the line that counts the rest.
            let rest = usize::from(at + 1 < all);
            if at > 0 && 1 + lines.len() + block.len() + rest > lines_max {
                self.was_cut.set(true);
                lines.push(self.cut(&format!("and {} more problems", all - at)));
                break;
            }
            lines.extend(block);
        }
        if !lines.is_empty() && !report.shows_reasons && lines.len() + 2 <= lines_max {
            lines.push(self.cut("(operators see reasons, and may run these commands)"));
        }
        if !lines.is_empty() {
            lines.insert(0, String::new());
        }
        lines
    }

    fn problem(&self, number: usize, problem: &Problem, report: &Report) -> Vec<String> {
        let mut lines = self.words(&format!("{number:<3}"), &problem.text, TEXT_LINES_MAX);
        if let Some(command) = &problem.command {
            lines.extend(self.command(command));
        }
        let since = problem.since.as_ref().map(|since| {
            let age = report.age(Some(since));
            format!("since {} ({age})", second(since))
        });
        let told: Vec<_> = since.into_iter().chain(problem.reason.clone()).collect();
        if !told.is_empty() {
            lines.extend(self.words(INDENT, &told.join(": "), REASON_LINES_MAX));
        }
        lines
    }

    /// Returns a line for each running retry.
    fn retries(&self, report: &Report) -> Vec<String> {
        let line = |retry: &Retry| {
            let Retry {
                stream,
                done,
                total,
                ..
            } = retry;
            let since = report.age(Some(&retry.since));
            let by = retry.by.as_ref().map(|by| format!(" by {by}"));
            let by = by.unwrap_or_default();
            self.cut(&format!(
                "retry    of {stream}, {done} of {total} records done, since {since}{by}"
            ))
        };
        let mut lines: Vec<_> = report.retries.iter().take(RETRIES_MAX).map(line).collect();
        let more = report.retries.len() - lines.len();
        if more > 0 {
            self.was_cut.set(true);
            lines.push(format!("retry    and {more} more"));
        }
        if !lines.is_empty() {
            lines.insert(0, String::new());
        }
        lines
    }

    /// Returns the lines of a command. A command is never cut, because people copy it.
    fn command(&self, command: &str) -> Vec<String> {
        let is_ours = command.starts_with("syncgate ") && !command.starts_with("syncgate doctor");
        let address = if is_ours { self.address } else { "" };
        let command = format!("{command}{address}");
        let mut is_quoted = false;
        let words = command.split(|c| {
            is_quoted ^= c == '\'';
            c == ' ' && !is_quoted
        });
        self.wrapped(INDENT, words, " \\")
    }

    /// Returns the rows of both tables that fit. If room is short, each table gets half, or the lines the other leaves.
    fn tables(&self, [first, second]: [Rows; 2], room: usize) -> Vec<String> {
        let half = room.saturating_sub(second.lines_len()).max(room / 2);
        let mut lines = first.lines(self, half);
        let rest = second.lines(self, room.saturating_sub(lines.len()));
        if rest.is_empty() {
            lines = first.lines(self, room);
        }
        lines.extend(rest);
        lines
    }

    /// Cuts a text to one line.
    fn cut(&self, line: &str) -> String {
        let line = escape::line(line);
        match self.columns {
            Some(columns) => self.cut_to(&line, columns),
            None => line.into_owned(),
        }
    }

    fn cut_to(&self, text: &str, chars_max: usize) -> String {
        if text.chars().count() <= chars_max {
            return text.to_owned();
        }
        self.was_cut.set(true);
        text.chars().take(chars_max - 1).chain(['…']).collect()
    }

    /// Wraps a text, and cuts it after `lines_max` lines.
    fn words(&self, first: &str, text: &str, lines_max: usize) -> Vec<String> {
        let text = escape::line(text);
        let mut lines = self.wrapped(first, text.split(' '), "");
        if lines.len() > lines_max {
            self.was_cut.set(true);
            lines.truncate(lines_max);
            lines[lines_max - 1] += " …";
        }
        lines.iter().map(|line| self.cut(line)).collect()
    }

    /// Wraps parts onto lines. The first line begins with `first`; each but the last ends with `end`.
    fn wrapped<'b>(
        &self,
        first: &str,
        parts: impl Iterator<Item = &'b str>,
        end: &str,
    ) -> Vec<String> {
        let columns = self.columns.unwrap_or(usize::MAX);
        let mut lines = Vec::new();
        let (mut line, mut is_empty) = (first.to_owned(), true);
        for part in parts {
            let len = line.chars().count() + 1 + part.chars().count() + end.len();
            if !is_empty && len > columns {
                lines.push(line + end);
                (line, is_empty) = (INDENT.to_owned(), true);
            }
            if !is_empty {
                line.push(' ');
            }
            line += part;
            is_empty = false;
        }
        lines.push(line);
        lines
    }
}

/// Returns a time to the second.
fn second(time: &str) -> String {
    time.split_once('.')
        .map_or_else(|| time.to_owned(), |(second, _)| format!("{second}Z"))
}
