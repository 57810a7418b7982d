//! Rows under headings. A table fits the width of a terminal: long cells are wrapped, and times get their age. If it is too
//! wide, columns of zeros are left out; if its rows are still tall, each becomes a block of lines. A table of many rows is
//! [`Table::folded`]: one or two lines a row. In a pipe each row is one line with every column, uncut, for `grep` and `awk`.

mod folded;
mod laid;
#[cfg(test)]
mod tests;

use unicode_width::UnicodeWidthStr;

use self::{folded::Fold, laid::Laid};
use super::screen::Screen;
use crate::{
    cli::output::escape,
    runtime::clock::{Clock, Timestamp},
};

/// Blanks between two columns.
const GAP: u16 = 2;
/// Average lines of a row; taller rows are easier to read as blocks.
const ROW_LINES_MAX: usize = 4;
/// In a pipe a column is padded to at most this width, because one long cell would lengthen every line.
const FILL_COLUMNS_MAX: usize = 64;
/// An empty cell, so that each line has as many words as columns.
const EMPTY: &str = "-";
const STATE: &str = "STATE";
/// Keys come from sources, so a key that looks like a time gets no age.
const KEY: &str = "KEY";

/// Returns whether a column identifies a record, so that it is always shown.
fn is_place(heading: &str) -> bool {
    ["PARTITION", "OFFSET"].contains(&heading)
}

/// Rows under headings.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Table {
    headings: Vec<String>,
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
    fold: Option<Fold>,
}

impl Table {
    /// A table with these headings; a column whose heading begins with `>` is aligned to the right. If all headings are
    /// empty, the rows stand alone.
    pub(in crate::cli) fn new(headings: &[&str]) -> Self {
        let bare = |heading: &&str| heading.trim_start_matches('>').to_owned();
        Self {
            headings: headings.iter().map(bare).collect(),
            right: headings.iter().map(|h| h.starts_with('>')).collect(),
            rows: Vec::new(),
            fold: None,
        }
    }

    /// The same table with rows of one line on a terminal, or of two if one is too short; `second` are the headings of the
    /// second line. Cells of the columns `cut` may be cut, so another command must show them whole.
    pub(in crate::cli) fn folded(mut self, second: &[&str], cut: &[&str]) -> Self {
        let headings = &self.headings;
        let place = |name: &&str| headings.iter().position(|heading| heading == name);
        let second: Vec<usize> = second.iter().filter_map(place).collect();
        let first = (0..headings.len()).filter(|column| !second.contains(column));
        let fold = Fold {
            cut: cut.iter().filter_map(place).collect(),
            lines: [first.collect(), second],
        };
        self.fold = Some(fold);
        self
    }

    pub(in crate::cli) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        // Escaped, so that a cell cannot break its line.
        let visible = |cell: String| match escape::line(&cell).trim_end() {
            "" => EMPTY.to_owned(),
            cell => cell.to_owned(),
        };
        let mut row: Vec<_> = cells.into_iter().map(visible).collect();
        debug_assert_eq!(row.len(), self.headings.len(), "a cell for each heading");
        row.resize(self.headings.len(), EMPTY.into());
        self.rows.push(row);
    }

    pub(in crate::cli) fn text(&self) -> String {
        self.text_for(Screen::of_stdout(), Clock::system().now())
    }

    fn text_for(&self, screen: Screen, now: Timestamp) -> String {
        match screen.columns {
            None => self.lines(),
            Some(columns) => self.wrapped(columns, screen.has_colours, now),
        }
    }

    fn has_headings(&self) -> bool {
        self.headings.iter().any(|heading| !heading.is_empty())
    }

    /// Each row as one line.
    fn lines(&self) -> String {
        let headings = self.has_headings().then_some(&self.headings);
        let rows: Vec<_> = headings.into_iter().chain(&self.rows).collect();
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            let widest = cells.map(|cell| cell.width()).max().unwrap_or(0);
            widest.min(FILL_COLUMNS_MAX)
        };
        let widths: Vec<_> = (0..self.headings.len()).map(width).collect();
        let mut text = String::new();
        for row in rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                if column > 0 {
                    line.push_str(&" ".repeat(GAP.into()));
                }
                let fill = " ".repeat(widths[column].saturating_sub(cell.width()));
                match self.right[column] {
                    true => line.extend([&*fill, cell]),
                    false => line.extend([cell, &*fill]),
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// No line is longer than `columns`.
    fn wrapped(&self, columns: u16, has_colours: bool, now: Timestamp) -> String {
        let folded = self.fold.as_ref();
        let folded = folded.and_then(|fold| folded::text(self, fold, columns, has_colours, now));
        if let Some(text) = folded {
            return text;
        }
        let long = Laid::new(self, has_colours, now, |aged| aged.long);
        if long.natural_width() <= columns {
            return long.text(columns);
        }
        let lean = self.without_zeros(&long, columns);
        let long = Laid::new(&lean, has_colours, now, |aged| aged.long);
        if long.natural_width() <= columns {
            return long.text(columns);
        }
        let short = Laid::new(&lean, has_colours, now, |aged| aged.short);
        if short.least_width() <= columns {
            let text = short.text(columns);
            if text.lines().count() <= 1 + ROW_LINES_MAX * self.rows.len() {
                return text;
            }
        }
        lean.blocks(columns, has_colours, now)
    }

    /// Removes columns of numbers that are all zero or empty, from the right, until the table fits. Partition and offset stay.
    fn without_zeros(&self, laid: &Laid, columns: u16) -> Self {
        let tells = |column: usize| {
            let mut cells = self.rows.iter().filter_map(|row| row.get(column));
            is_place(&self.headings[column])
                || !self.right[column]
                || cells.any(|cell| !["0", EMPTY].contains(&&**cell))
        };
        let mut width = laid.natural_width();
        let mut kept = vec![true; self.headings.len()];
        for (column, own) in laid.natural_widths().iter().enumerate().rev() {
            if width > columns && !tells(column) {
                kept[column] = false;
                width = width.saturating_sub(own.saturating_add(GAP));
            }
        }
        let of = |row: &Vec<String>| {
            let cells = row.iter().zip(&kept).filter(|(_, kept)| **kept);
            cells.map(|(cell, _)| cell.clone()).collect()
        };
        let right = self.right.iter().zip(&kept).filter(|(_, kept)| **kept);
        Self {
            headings: of(&self.headings),
            right: right.map(|(right, _)| *right).collect(),
            rows: self.rows.iter().map(of).collect(),
            fold: None,
        }
    }

    /// Each row as a block of lines, each with heading and cell.
    fn blocks(&self, columns: u16, has_colours: bool, now: Timestamp) -> String {
        let block = |row: &Vec<String>| {
            let mut pairs = Self::new(&["", ""]);
            for (heading, cell) in self.headings.iter().zip(row) {
                pairs.row([heading.clone(), cell.clone()]);
            }
            Laid::new(&pairs, has_colours, now, |aged| aged.long).text(columns)
        };
        self.rows.iter().map(block).collect::<Vec<_>>().join("\n")
    }
}
