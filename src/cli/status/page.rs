//! A status as a page: a line that says whether all is well, what is wrong with the command that comes next, then tables.
//! It fits a screen: no line is longer than the terminal is wide but for a word of a command, and long lists are cut.

use super::report::{Open, Problem, Reader, Report, Target};
use crate::{
    cli::{escape, output::Table},
    status::size,
};

/// Rows of a table.
const ROWS_MAX: usize = 5;
/// Lines of a problem's text.
const TEXT_LINES_MAX: usize = 4;
/// Blanks before the further lines of a problem.
const INDENT: &str = "   ";
/// A column that is cut keeps that many characters.
const CELL_MIN: usize = 8;

/// The room for a page.
pub(super) struct Page<'a> {
    /// `None` = any number: nothing is wrapped or cut.
    pub(super) columns: Option<usize>,
    pub(super) lines_max: usize,
    /// The option with which a command asks the same gateway.
    pub(super) address: &'a str,
}

impl Page<'_> {
    pub(super) fn text(&self, report: &Report) -> String {
        let targets = self.targets(report);
        let open = self.open(report);
        let facts = [disk(report), journal(report), ledger(report)];
        let facts: Vec<_> = facts.iter().map(|line| self.cut(line)).collect();
        let readers = self.readers(report);
        // Head, the blank line before the facts, the facts.
        let fixed = 2 + 1 + facts.len() + 1 + targets.len() + open.len();
        let problems = self.problems(report, self.lines_max.saturating_sub(fixed));
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
        lines.extend(problems);
        lines.extend(targets);
        lines.extend(open);
        lines.push(String::new());
        lines.extend(facts);
        lines.push(readers);
        lines.join("\n") + "\n"
    }

    /// Returns the problems for which there is room, at least the first.
    fn problems(&self, report: &Report, lines_max: usize) -> Vec<String> {
        let mut lines = Vec::new();
        let all = report.problems.len() + report.more_problems;
        for (at, problem) in report.problems.iter().enumerate() {
            let block = self.problem(at + 1, problem, report);
            // The blank line before the first, and the line that counts the rest.
            if at > 0 && lines.len() + block.len() + 2 > lines_max {
                lines.push(self.cut(&format!("and {} more: --output json", all - at)));
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
        let mut lines = self.wrapped(&format!("{number:<3}"), problem.text.split(' '), "");
        if lines.len() > TEXT_LINES_MAX {
            lines.truncate(TEXT_LINES_MAX);
            lines[TEXT_LINES_MAX - 1] += " …";
        }
        for line in &mut lines {
            *line = self.cut(line);
        }
        if let Some(command) = &problem.command {
            lines.extend(self.command(command));
        }
        let since = problem.since.as_ref().map(|since| {
            let age = report.age(Some(since));
            format!("since {} ({age})", second(since))
        });
        let told: Vec<_> = since.into_iter().chain(problem.reason.clone()).collect();
        if !told.is_empty() {
            lines.push(self.cut(&format!("{INDENT}{}", told.join(": "))));
        }
        lines
    }

    /// Returns the lines of a command. It is never cut, because it is to be copied.
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

    fn targets(&self, report: &Report) -> Vec<String> {
        let headings = [
            "TARGET",
            "STATE",
            "SINCE",
            ">PENDING",
            ">FAILED",
            "OLDEST",
            "LAST CAUSE",
        ];
        let row = |target: &Target| {
            let cause = target.last_cause.as_ref();
            let cause =
                cause.map(|cause| format!("{} ({})", cause.text(), report.age(cause.at.as_ref())));
            vec![
                target.name.clone(),
                target.state.clone(),
                report.age(target.since.as_ref()),
                target.pending.to_string(),
                target.in_error_streams.to_string(),
                report.age(target.oldest.as_ref()),
                cause.unwrap_or_default(),
            ]
        };
        let rows = report.targets.iter().map(row).collect();
        self.table(&headings, rows, report.more_targets, "targets", &[0], None)
    }

    fn open(&self, report: &Report) -> Vec<String> {
        let headings = ["OPEN IN", "TARGET", "CAUSE", ">COUNT", "FIRST", "LAST"];
        let name = |id: &String| {
            let mut targets = report.targets.iter();
            let found = targets.find(|target| target.target == *id);
            found.map_or_else(|| id.clone(), |target| target.name.clone())
        };
        let row = |open: &Open| {
            vec![
                open.stream.clone(),
                open.target.as_ref().map_or_else(|| "-".into(), name),
                open.cause
                    .as_ref()
                    .map_or_else(|| "-".into(), super::report::Cause::text),
                open.count.to_string(),
                report.age(Some(&open.first)),
                report.age(Some(&open.last)),
            ]
        };
        let rows = report.open.iter().map(row).collect();
        let records = &report.open_records;
        let note = (!records.complete).then(|| {
            let (looked_at, count) = (records.looked_at, records.count);
            format!("{looked_at} of {count} open records were looked at so far")
        });
        self.table(&headings, rows, report.more_open, "rows", &[0, 1], note)
    }

    /// Returns a table behind a blank line, or nothing without rows; `wide` are the columns that can be cut.
    fn table(
        &self,
        headings: &[&str],
        mut rows: Vec<Vec<String>>,
        more: usize,
        what: &str,
        wide: &[usize],
        note: Option<String>,
    ) -> Vec<String> {
        if rows.is_empty() && note.is_none() {
            return Vec::new();
        }
        let more = more + rows.len().saturating_sub(ROWS_MAX);
        rows.truncate(ROWS_MAX);
        if let Some(columns) = self.columns {
            fit(headings, &mut rows, wide, columns);
        }
        let mut table = Table::new(headings);
        for row in rows {
            table.row(row);
        }
        let mut lines = vec![String::new()];
        lines.extend(table.text().lines().map(str::to_owned));
        let more = (more > 0).then(|| format!("and {more} more {what}"));
        let notes: Vec<_> = more.into_iter().chain(note).collect();
        if !notes.is_empty() {
            lines.push(self.cut(&notes.join("; ")));
        }
        lines
    }

    /// Returns one line with the readers, as many as fit.
    fn readers(&self, report: &Report) -> String {
        let dispatch = report
            .readers
            .iter()
            .filter(|reader| reader.kind == "dispatch");
        let behind: u64 = dispatch.filter_map(|reader| reader.lag).sum();
        let mut others = report
            .readers
            .iter()
            .filter(|reader| reader.kind != "dispatch");
        let mut line = format!("readers  dispatch {behind} behind");
        let mut left = others.clone().count() + report.more_readers;
        for reader in others.by_ref() {
            let longer = format!("{line}; {}", read_by(reader));
            let room = self.columns.unwrap_or(usize::MAX);
            if longer.chars().count() + " and 100 more;".len() > room {
                break;
            }
            line = longer;
            left -= 1;
        }
        match left {
            0 => line,
            left => self.cut(&format!("{line}; and {left} more")),
        }
    }

    /// Returns a text as one line that fits.
    fn cut(&self, line: &str) -> String {
        let line = escape::line(line);
        match self.columns {
            Some(columns) => cut(&line, columns),
            None => line.into_owned(),
        }
    }

    /// Puts parts on as many lines as they take. The first line begins with `first`; each but the last ends with `end`.
    fn wrapped<'a>(
        &self,
        first: &str,
        parts: impl Iterator<Item = &'a str>,
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

/// Cuts cells of some columns until the rows fit; the widest column first.
fn fit(headings: &[&str], rows: &mut [Vec<String>], wide: &[usize], columns: usize) {
    loop {
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            let heading = headings[column].trim_start_matches('>').len();
            cells
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
                .max(heading)
        };
        let all: usize = (0..headings.len()).map(width).sum();
        let all = all + 2 * (headings.len() - 1);
        let widest = wide.iter().map(|column| (width(*column), *column)).max();
        let Some((widest, column)) =
            widest.filter(|(widest, _)| all > columns && *widest > CELL_MIN)
        else {
            return;
        };
        let shorter = widest
            .saturating_sub(all - columns)
            .max(CELL_MIN)
            .max(widest / 2);
        for row in rows.iter_mut() {
            if let Some(cell) = row.get_mut(column) {
                *cell = cut(cell, shorter);
            }
        }
    }
}

fn cut(text: &str, chars_max: usize) -> String {
    match text.chars().count() > chars_max {
        true => text.chars().take(chars_max - 1).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

/// Returns a time to the second.
fn second(time: &str) -> String {
    time.split_once('.')
        .map_or_else(|| time.to_owned(), |(second, _)| format!("{second}Z"))
}

fn disk(report: &Report) -> String {
    let disk = &report.disk;
    let dir = disk.dir.as_deref();
    match (disk.free_bytes, disk.free_bytes_min) {
        (Some(free), Some(min)) => {
            let place = dir.map_or_else(String::new, |dir| format!(" in {dir}"));
            let (free, min) = (size(free), size(min));
            format!("disk     {free} free{place}, {min} must stay free")
        }
        _ => {
            let dir = dir.unwrap_or("the data directory");
            format!("disk     the disk of {dir} has not answered")
        }
    }
}

fn journal(report: &Report) -> String {
    let journal = &report.journal;
    let mut line = format!("journal  {}", journal.state);
    if let (Some(files), Some(bytes)) = (journal.files, journal.bytes) {
        line += &format!(
            ", {files} {} of {}",
            if files == 1 { "file" } else { "files" },
            size(bytes)
        );
    }
    if journal.unreadable_partitions > 0 {
        line += &format!(", damaged for {} partitions", journal.unreadable_partitions);
    }
    line
}

fn ledger(report: &Report) -> String {
    let ledger = &report.ledger;
    let losses = match ledger.accepted_losses {
        0 => String::new(),
        losses => format!(", losses accepted {losses} times"),
    };
    match ledger.balanced {
        true => format!(
            "ledger   balanced, {} open{losses}",
            report.open_records.count
        ),
        false => format!("ledger   differs by {} in total{losses}", ledger.difference),
    }
}

fn read_by(reader: &Reader) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let lag = reader.lag.unwrap_or_default();
    let data_stream = text(&reader.data_stream);
    match reader.kind.as_str() {
        "subscribers" => format!(
            "{data_stream}: {} clients",
            reader.clients.unwrap_or_default()
        ),
        "cursor" => format!("{data_stream}/{} {lag} behind", text(&reader.name)),
        _ => format!(
            "{} of {} {lag} behind",
            text(&reader.name),
            text(&reader.stream)
        ),
    }
}
