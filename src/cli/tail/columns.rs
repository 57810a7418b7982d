//! Columns of lines that are printed one by one, before later cells are known. A column is as wide as its widest cell so far,
//! up to a bound. An empty cell is `-`, so that `awk` counts the same columns in each line.

use crate::cli::output::escape;

use super::print::cut;

/// The length of a UUID. A longer cell shifts only its own line.
const WIDTH_MAX: usize = 36;
const EMPTY: &str = "-";

/// The widths so far.
#[derive(Debug, Default)]
pub(in crate::cli) struct Columns(Vec<usize>);

impl Columns {
    /// Returns cells and a last text as a line of at most `chars_max` characters.
    pub(super) fn line(
        &mut self,
        cells: impl Iterator<Item = String>,
        last: &str,
        chars_max: usize,
    ) -> String {
        let mut line = String::new();
        for (column, cell) in cells.enumerate() {
            let cell = match cell.is_empty() {
                true => EMPTY.into(),
                false => escape::line(&cell),
            };
            if self.0.len() == column {
                self.0.push(0);
            }
            let width = cell.chars().count();
            self.0[column] = self.0[column].max(width.min(WIDTH_MAX));
            let fill = self.0[column].saturating_sub(width) + 2;
            line.push_str(&cell);
            line.extend(std::iter::repeat_n(' ', fill));
        }
        line.push_str(last);
        cut(&line, chars_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stay_in_place_without_a_key_and_after_a_long_one() {
        let mut columns = Columns::default();
        let mut line = |key: &str| {
            let cells = ["0.1", key].map(String::from).into_iter();
            columns.line(cells, "POST x", 60)
        };
        assert_eq!(line("größer"), "0.1  größer  POST x");
        assert_eq!(line(""), "0.1  -       POST x");
        assert_eq!(line("k\n1"), "0.1  k 1     POST x");
        let long = "k".repeat(40);
        assert_eq!(line(&long), format!("0.1  {long}  POST x"));
        assert_eq!(line("k"), format!("0.1  k{}POST x", " ".repeat(37)));
        assert_eq!(line(&"k".repeat(100)).chars().count(), 60);
    }
}
