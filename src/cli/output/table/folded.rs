//! A table on a terminal with one line a row, or two if one is too short. Long cells are cut, and `…` stands for the rest.
//! Another command, a pipe and JSON show them whole.
//!
//! ```text
//! PARTITION  OFFSET  TIME                 STATE  KEY
//!   OPERATION  TARGET                                     CAUSE
//! 0              17  07:00:00Z (12m ago)  open   k1
//!   POST       https://orders.example/v1/orders/18jan     status 503: the target answe…
//! ```

use unicode_width::UnicodeWidthStr;

use super::{
    super::{
        age::{Aged, aged},
        cut::cut,
        style::{Style, styled},
    },
    EMPTY, GAP, KEY, STATE, Table, is_place,
};
use crate::runtime::clock::Timestamp;

/// Blanks before the second line of a row.
const INDENT: usize = 2;
/// Least width of a cut cell on two lines.
const CELL_COLUMNS_MIN: usize = 6;
/// Least width of a cut cell on one line.
const CELL_COLUMNS_READABLE: usize = 24;

/// The columns of each line.
#[derive(Clone, Debug)]
pub(super) struct Fold {
    pub(super) lines: [Vec<usize>; 2],
    /// Columns that may be cut.
    pub(super) cut: Vec<usize>,
}

/// A table with its cells as shown.
struct Shown<'a> {
    of: &'a Table,
    rows: Vec<Vec<String>>,
    /// The width of each column in which nothing is cut.
    natural: Vec<usize>,
    has_colours: bool,
}

/// Returns the table for a terminal; `None` if it is too narrow for two lines a row.
pub(super) fn text(
    of: &Table,
    fold: &Fold,
    columns: u16,
    has_colours: bool,
    now: Timestamp,
) -> Option<String> {
    let columns = usize::from(columns);
    let all: Vec<usize> = (0..of.headings.len()).collect();
    let forms: [fn(Aged) -> String; 2] = [|aged| aged.long, |aged| aged.short];
    for form in forms {
        let shown = Shown::new(of, has_colours, now, form);
        let least = shown.least(&all, fold, usize::MAX);
        if total(&least) <= columns {
            return Some(shown.lines(&[(0, &all, &least)]));
        }
    }
    let shown = Shown::new(of, has_colours, now, |aged| aged.short);
    let all = shown.telling(&all);
    let least = shown.least(&all, fold, CELL_COLUMNS_READABLE);
    if total(&least) <= columns {
        let widths = shown.grown(&all, fold, least, columns);
        return Some(shown.lines(&[(0, &all, &widths)]));
    }
    let mut lines = Vec::new();
    for (line, of_line) in fold.lines.iter().enumerate() {
        let of_line = shown.telling(of_line);
        let least = shown.least(&of_line, fold, CELL_COLUMNS_MIN);
        let room = columns.checked_sub(line * INDENT)?;
        if total(&least) > room {
            return None;
        }
        let widths = shown.grown(&of_line, fold, least, room);
        lines.push((line * INDENT, of_line, widths));
    }
    let lines: Vec<_> = lines
        .iter()
        .map(|(indent, of_line, widths)| (*indent, &of_line[..], &widths[..]))
        .collect();
    Some(shown.lines(&lines))
}

impl<'a> Shown<'a> {
    fn new(of: &'a Table, has_colours: bool, now: Timestamp, form: fn(Aged) -> String) -> Self {
        let shown = |(column, cell): (usize, &String)| {
            let time = aged(cell, now).filter(|_| of.headings[column] != KEY);
            time.map_or_else(|| cell.clone(), form)
        };
        let rows = of.rows.iter();
        let rows: Vec<Vec<_>> = rows
            .map(|row| row.iter().enumerate().map(shown).collect())
            .collect();
        let natural = of.headings.iter().enumerate().map(|(column, heading)| {
            let cells = rows.iter().map(|row| row[column].width());
            cells.max().unwrap_or(0).max(heading.width())
        });
        Self {
            of,
            natural: natural.collect(),
            rows,
            has_colours,
        }
    }

    /// Returns the columns with a cell that is not empty. Partition and offset are always kept.
    fn telling(&self, columns: &[usize]) -> Vec<usize> {
        let tells = |column: &&usize| {
            let mut cells = self.rows.iter().map(|row| &row[**column]);
            self.rows.is_empty()
                || is_place(&self.of.headings[**column])
                || cells.any(|cell| cell != EMPTY)
        };
        columns.iter().filter(tells).copied().collect()
    }

    /// Returns the least width of each column: its widest cell, or `cut_columns` if it may be cut.
    fn least(&self, columns: &[usize], fold: &Fold, cut_columns: usize) -> Vec<usize> {
        let least = |column: &usize| {
            let natural = self.natural[*column];
            match fold.cut.contains(column) {
                true => natural.min(cut_columns.max(self.of.headings[*column].width())),
                false => natural,
            }
        };
        columns.iter().map(least).collect()
    }

    /// Gives the remaining room to cut columns, narrowest first, so that short cells become whole.
    fn grown(
        &self,
        columns: &[usize],
        fold: &Fold,
        mut widths: Vec<usize>,
        room: usize,
    ) -> Vec<usize> {
        let mut left = room.saturating_sub(total(&widths));
        while left > 0 {
            let may_grow = columns.iter().enumerate().filter(|(at, column)| {
                fold.cut.contains(column) && widths[*at] < self.natural[**column]
            });
            let Some((at, _)) = may_grow.min_by_key(|(at, _)| widths[*at]) else {
                break;
            };
            widths[at] += 1;
            left -= 1;
        }
        widths
    }

    /// Returns headings and rows; each line has an indent, its columns and their widths.
    fn lines(&self, lines: &[(usize, &[usize], &[usize])]) -> String {
        let mut text = String::new();
        let mut put = |row: &[String], style: &dyn Fn(usize, &str) -> Option<Style>| {
            for (indent, columns, widths) in lines {
                let mut line = " ".repeat(*indent);
                for (at, (column, width)) in columns.iter().zip(*widths).enumerate() {
                    if at > 0 {
                        line.push_str(&" ".repeat(GAP.into()));
                    }
                    let cell = cut(&row[*column], *width);
                    let fill = " ".repeat(width.saturating_sub(cell.width()));
                    let painted = match style(*column, &cell).filter(|_| self.has_colours) {
                        Some(style) => styled(&cell, style),
                        None => cell,
                    };
                    match self.of.right[*column] {
                        true => line.extend([fill, painted]),
                        false => line.extend([painted, fill]),
                    }
                }
                text.push_str(line.trim_end());
                text.push('\n');
            }
        };
        put(&self.of.headings, &|_, _| Some(Style::Heading));
        let is_state = |column: usize| self.of.headings[column] == STATE;
        for row in &self.rows {
            put(row, &|column, cell| {
                Style::of_state(cell).filter(|_| is_state(column))
            });
        }
        text
    }
}

/// The width of a line whose columns have these widths.
fn total(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + usize::from(GAP) * widths.len().saturating_sub(1)
}
