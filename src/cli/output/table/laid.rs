//! A table on a terminal.

use comfy_table::{
    Cell, CellAlignment, ColumnConstraint, ContentArrangement, Row, Width, presets::NOTHING,
};
use unicode_width::UnicodeWidthStr;

use super::{
    super::{
        age::{Aged, aged},
        style::{Style, styled},
    },
    GAP, KEY, STATE, Table,
};
use crate::runtime::clock::Timestamp;

/// Most lines of a cell; `…` stands for the rest.
pub(super) const CELL_LINES_MAX: usize = 12;
/// Words up to this length are kept whole if there is room: the longest default name of a stream.
const WORD_COLUMNS_MAX: u16 = 25;

/// A table on a terminal, before its columns have a width.
pub(super) struct Laid {
    table: comfy_table::Table,
    /// Width of each column in which no word is cut: the longest number, or the longest word.
    whole_words: Vec<u16>,
    /// Least width of each column: the longest word of its heading, and the longest number.
    least: Vec<u16>,
}

impl Laid {
    pub(super) fn new(
        of: &Table,
        has_colours: bool,
        now: Timestamp,
        form: fn(Aged) -> String,
    ) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(NOTHING);
        let paint = |text: &str, style: Style| match has_colours {
            true => styled(text, style),
            false => text.to_owned(),
        };
        let mut whole_words: Vec<u16> = vec![1; of.headings.len()];
        let mut least = whole_words.clone();
        for (column, heading) in of.headings.iter().enumerate() {
            least[column] = longest_word(heading).max(1);
            whole_words[column] = least[column];
        }
        if of.has_headings() {
            let headings = of.headings.iter();
            let cells = headings.map(|heading| Cell::new_owned(paint(heading, Style::Heading)));
            table.set_header(Row::from(cells.collect::<Vec<_>>()));
        }
        for row in &of.rows {
            let cells = row.iter().enumerate().map(|(column, cell)| {
                let time = aged(cell, now).filter(|_| of.headings[column] != KEY);
                let text = time.map_or_else(|| cell.clone(), form);
                let need = match of.right[column] {
                    true => {
                        least[column] = least[column].max(width(&text));
                        least[column]
                    }
                    false => longest_word(&text).min(WORD_COLUMNS_MAX),
                };
                whole_words[column] = whole_words[column].max(need);
                let style = (of.headings[column] == STATE).then(|| Style::of_state(&text));
                Cell::new_owned(match style.flatten() {
                    Some(style) => paint(&text, style),
                    None => text,
                })
            });
            let mut row = Row::from(cells.collect::<Vec<_>>());
            row.max_height(CELL_LINES_MAX);
            table.add_row(row);
        }
        let last = of.headings.len().saturating_sub(1);
        for (column, right) in of.right.iter().enumerate() {
            let Some(of_table) = table.column_mut(column) else {
                continue;
            };
            of_table.set_padding((0, if column == last { 0 } else { GAP }));
            if *right {
                of_table.set_cell_alignment(CellAlignment::Right);
            }
        }
        Self {
            table,
            whole_words,
            least,
        }
    }

    /// Returns the width of each column in which nothing is wrapped.
    pub(super) fn natural_widths(&self) -> Vec<u16> {
        self.table.column_max_content_widths()
    }

    pub(super) fn natural_width(&self) -> u16 {
        total(&self.natural_widths())
    }

    pub(super) fn least_width(&self) -> u16 {
        total(&self.least)
    }

    pub(super) fn text(mut self, columns: u16) -> String {
        self.table
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(columns);
        let needs = match total(&self.whole_words) <= columns {
            true => &self.whole_words,
            false => &self.least,
        };
        let last = needs.len().saturating_sub(1);
        for (column, need) in needs.iter().enumerate() {
            if let Some(of_table) = self.table.column_mut(column) {
                let padding = if column == last { 0 } else { GAP };
                let need = Width::Fixed(need.saturating_add(padding));
                of_table.set_constraint(ColumnConstraint::LowerBoundary(need));
            }
        }
        match self.table.trim_fmt() {
            text if text.is_empty() => text,
            text => text + "\n",
        }
    }
}

/// The width of a table whose columns have these widths.
fn total(widths: &[u16]) -> u16 {
    let gaps = widths.len().saturating_sub(1);
    let gaps = GAP.saturating_mul(u16::try_from(gaps).unwrap_or(u16::MAX));
    widths
        .iter()
        .fold(gaps, |sum, width| sum.saturating_add(*width))
}

fn width(text: &str) -> u16 {
    u16::try_from(text.width()).unwrap_or(u16::MAX)
}

fn longest_word(text: &str) -> u16 {
    text.split(' ').map(width).max().unwrap_or(0)
}
