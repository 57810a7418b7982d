//! The tables of a page: targets, and open records.

use super::{Page, Report};
use crate::cli::{
    output::Table,
    status::report::{Cause, Open, Target},
};

/// A cut column keeps this many characters.
const CELL_MIN: usize = 8;
/// A blank line, headings, one row, and the line that counts the others.
const LINES_MIN: usize = 4;

/// The rows of a table, before they are fitted to the page.
pub(super) struct Rows {
    headings: &'static [&'static str],
    rows: Vec<Vec<String>>,
    /// Rows that the gateway left out.
    more: usize,
    /// The noun for its rows.
    what: &'static str,
    /// Columns that may be cut.
    wide: &'static [usize],
    note: Option<String>,
}

impl Rows {
    /// Returns how many lines the whole table takes.
    pub(super) fn lines_len(&self) -> usize {
        match self.rows.is_empty() && self.note.is_none() {
            true => 0,
            false => 2 + self.rows.len() + usize::from(self.more > 0 || self.note.is_some()),
        }
    }

    /// Returns a blank line and the rows that fit; nothing if not even one fits.
    pub(super) fn lines(&self, page: &Page<'_>, lines_max: usize) -> Vec<String> {
        let is_whole = self.lines_len() <= lines_max;
        if !is_whole {
            page.was_cut.set(true);
        }
        if self.lines_len() == 0 || !is_whole && lines_max < LINES_MIN {
            return Vec::new();
        }
        let rows_max = match is_whole {
            true => self.rows.len(),
            false => lines_max + 1 - LINES_MIN,
        };
        let more = self.more + self.rows.len().saturating_sub(rows_max);
        let mut rows: Vec<_> = self.rows.iter().take(rows_max).cloned().collect();
        if let Some(columns) = page.columns {
            self.fit(page, &mut rows, columns);
        }
        let mut table = Table::new(self.headings);
        for row in rows {
            table.row(row);
        }
        let mut lines = vec![String::new()];
        lines.extend(table.text().lines().map(str::to_owned));
        let more = (more > 0).then(|| format!("and {more} more {}", self.what));
        let notes: Vec<_> = more.into_iter().chain(self.note.clone()).collect();
        if !notes.is_empty() {
            lines.push(page.cut(&notes.join("; ")));
        }
        lines
    }

    /// Cuts cells until the rows fit, the widest column first.
    fn fit(&self, page: &Page<'_>, rows: &mut [Vec<String>], columns: usize) {
        loop {
            let width = |column: usize| {
                let cells = rows.iter().filter_map(|row| row.get(column));
                let heading = self.headings[column].trim_start_matches('>').len();
                cells
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or(0)
                    .max(heading)
            };
            let all: usize = (0..self.headings.len()).map(width).sum();
            let all = all + 2 * (self.headings.len() - 1);
            let widest = self.wide.iter().map(|column| (width(*column), *column));
            let Some((widest, column)) = widest
                .max()
                .filter(|(widest, _)| all > columns && *widest > CELL_MIN)
            else {
                return;
            };
            let shorter = widest
                .saturating_sub(all - columns)
                .max(CELL_MIN)
                .max(widest / 2);
            for row in rows.iter_mut() {
                if let Some(cell) = row.get_mut(column) {
                    *cell = page.cut_to(cell, shorter);
                }
            }
        }
    }
}

impl Page<'_> {
    pub(super) fn targets(&self, report: &Report) -> Rows {
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
        Rows {
            headings: &[
                "TARGET",
                "STATE",
                "SINCE",
                ">PENDING",
                ">FAILED",
                "OLDEST",
                "LAST CAUSE",
            ],
            rows: report.targets.iter().map(row).collect(),
            more: report.more_targets,
            what: "targets",
            wide: &[0],
            note: None,
        }
    }

    pub(super) fn open(&self, report: &Report) -> Rows {
        let name = |id: &String| {
            let mut targets = report.targets.iter();
            let found = targets.find(|target| target.target == *id);
            found.map_or_else(|| id.clone(), |target| target.name.clone())
        };
        let row = |open: &Open| {
            let target = open.target.as_ref();
            vec![
                open.stream.clone(),
                target.map_or_else(|| "-".into(), name),
                open.cause.as_ref().map_or_else(|| "-".into(), Cause::text),
                open.count.to_string(),
                report.age(Some(&open.first)),
                report.age(Some(&open.last)),
            ]
        };
        let records = &report.open_records;
        let note = (!records.complete).then(|| {
            let (looked_at, count) = (records.looked_at, records.count);
            format!("{looked_at} of {count} open records were looked at so far")
        });
        Rows {
            headings: &["OPEN IN", "TARGET", "CAUSE", ">COUNT", "FIRST", "LAST"],
            rows: report.open.iter().map(row).collect(),
            more: report.more_open,
            what: "rows",
            wide: &[0, 1],
            note,
        }
    }
}
