//! A page on a terminal: bold headings and words, paragraphs wrapped to the width, code unchanged.

use unicode_width::UnicodeWidthStr as _;

use crate::{cli::output, docs::Block};

/// Longer lines are hard to read.
const COLUMNS_MAX: usize = 100;
/// Narrower text would have one word a line.
const TEXT_COLUMNS_MIN: usize = 16;
/// Indent of code.
const CODE_INDENT: usize = 4;
/// Blanks between two columns of a table.
const GAP: usize = 2;

/// Returns the text of a page, with marks of style, for a terminal with so many columns.
pub(super) fn text(blocks: &[Block], columns: u16) -> String {
    let columns = usize::from(columns).min(COLUMNS_MAX);
    let mut out = String::new();
    let mut last: Option<&Block> = None;
    for block in blocks {
        // No blank line between items of a list.
        let is_close = is_item(block) && last.is_some_and(is_item);
        if last.is_some() && !is_close {
            out.push('\n');
        }
        add(block, columns, &mut out);
        last = Some(block);
    }
    out
}

fn is_item(block: &Block) -> bool {
    matches!(block, Block::Paragraph { indent, .. } if *indent > 0)
}

fn add(block: &Block, columns: usize, out: &mut String) {
    match *block {
        Block::Heading { text, .. } => {
            for line in wrapped(&format!("\u{1}{text}\u{2}"), columns) {
                *out += &(line + "\n");
            }
        }
        Block::Paragraph {
            indent,
            marker,
            text,
        } => {
            let room = columns.saturating_sub(indent).max(TEXT_COLUMNS_MIN);
            let first = format!("{}{marker}", " ".repeat(indent - marker.len()));
            for (at, line) in wrapped(text, room).into_iter().enumerate() {
                let before = if at == 0 { &first } else { &" ".repeat(indent) };
                *out += &format!("{before}{line}\n");
            }
        }
        Block::Code { indent, text } => {
            let before = " ".repeat(CODE_INDENT + indent);
            for line in text.lines() {
                let line = format!("{before}{line}");
                *out += &(line.trim_end().to_owned() + "\n");
            }
        }
        Block::Table { rows } => table(rows, columns, out),
        Block::Rule => *out += &("-".repeat(columns.min(20)) + "\n"),
    }
}

/// Breaks a text into lines of at most `columns` columns. A word that is longer has a line of its own.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let (mut lines, mut bold) = (Vec::new(), false);
    for part in text.split('\n') {
        let (mut line, mut width) = (String::new(), 0);
        for word in part.split_whitespace() {
            let plain: String = word.chars().filter(|c| *c > '\u{2}').collect();
            if width > 0 && width + 1 + plain.width() > columns {
                lines.push(std::mem::take(&mut line));
                width = 0;
            }
            if width > 0 {
                line.push(' ');
                width += 1;
            }
            width += plain.width();
            line += &marked(word, &mut bold);
        }
        lines.push(line);
    }
    lines
}

/// Returns a word with marks of style for its bold parts; `bold` says whether one began in an earlier word.
fn marked(word: &str, bold: &mut bool) -> String {
    let mut out = String::new();
    for part in word.split_inclusive(['\u{1}', '\u{2}']) {
        let plain = part.trim_end_matches(['\u{1}', '\u{2}']);
        match *bold && !plain.is_empty() {
            true => out += &output::heading(plain),
            false => out += plain,
        }
        match part.chars().next_back() {
            Some('\u{1}') => *bold = true,
            Some('\u{2}') => *bold = false,
            _ => {}
        }
    }
    out
}

/// Writes columns if they fit; otherwise each row is a block of lines, one for each column.
fn table(rows: &[&[&str]], columns: usize, out: &mut String) {
    let Some((headings, rows)) = rows.split_first() else {
        return;
    };
    let width_of = |column: usize| {
        let cells = rows.iter().chain([headings]);
        let widths = cells
            .filter_map(|row| row.get(column))
            .map(|cell| cell.width());
        widths.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width_of).collect();
    let whole = widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
    if whole <= columns {
        line(headings, &widths, true, out);
        for row in rows {
            line(row, &widths, false, out);
        }
        return;
    }
    for (at, row) in rows.iter().enumerate() {
        if at > 0 {
            out.push('\n');
        }
        let (first, rest) = row.split_first().unwrap_or((&"", &[]));
        *out += &(wrapped(&format!("\u{1}{first}\u{2}"), columns).join("\n") + "\n");
        for (heading, cell) in headings.iter().skip(1).zip(rest) {
            if cell.is_empty() {
                continue;
            }
            let text = match heading.is_empty() {
                true => (*cell).to_owned(),
                false => format!("{heading}: {cell}"),
            };
            for line in wrapped(&text, columns.saturating_sub(GAP).max(TEXT_COLUMNS_MIN)) {
                *out += &format!("  {line}\n");
            }
        }
    }
}

fn line(cells: &[&str], widths: &[usize], is_heading: bool, out: &mut String) {
    let mut text = String::new();
    for (at, (cell, width)) in cells.iter().zip(widths).enumerate() {
        match is_heading {
            true => text += &wrapped(&format!("\u{1}{cell}\u{2}"), usize::MAX).join(""),
            false => text += cell,
        }
        if at + 1 < cells.len() {
            text += &" ".repeat(width - cell.width() + GAP);
        }
    }
    *out += &(text.trim_end().to_owned() + "\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(blocks: &[Block], columns: u16, expected: &str) {
        // A bold word is shown between stars.
        let shown = text(blocks, columns);
        let shown = shown.replace(['\u{2061}', '\u{206f}'], "*");
        assert_eq!(shown, expected);
    }

    #[test]
    fn paragraphs_fit_the_width_and_items_hang() {
        let blocks = [
            Block::Heading {
                level: 1,
                text: "A title",
            },
            Block::Paragraph {
                indent: 0,
                marker: "",
                text: "one two three four \u{1}five six\u{2} seven",
            },
            Block::Paragraph {
                indent: 2,
                marker: "- ",
                text: "an item of a list that is long",
            },
            Block::Paragraph {
                indent: 5,
                marker: "1. ",
                text: "deep",
            },
            Block::Code {
                indent: 0,
                text: "$ a very long command line\n\nx",
            },
            Block::Paragraph {
                indent: 0,
                marker: "",
                text: "a-word-that-is-longer-than-the-line x",
            },
        ];
        let expected = "*A* *title*\n\none two three four\n*five* *six* seven\n\n- an item of a list\n  that is long\n  1. deep\n\n    \
                        $ a very long command line\n\n    x\n\na-word-that-is-longer-than-the-line\nx\n";
        check(&blocks, 21, expected);
    }

    #[test]
    fn a_table_has_columns_if_they_fit_and_blocks_otherwise() {
        let rows: &[&[&str]] = &[
            &["key", "meaning"],
            &["a", "first"],
            &["bcd", "second thing"],
        ];
        let table = [Block::Table { rows }];
        check(
            &table,
            40,
            "*key*  *meaning*\na    first\nbcd  second thing\n",
        );
        check(
            &table,
            16,
            "*a*\n  meaning: first\n\n*bcd*\n  meaning: second\n  thing\n",
        );
    }

    #[test]
    fn no_line_of_the_manual_is_wider_than_the_terminal_but_code_and_long_words() {
        for page in crate::docs::pages() {
            for columns in [40_u16, 80, 200] {
                let without_code = page
                    .blocks
                    .iter()
                    .filter(|block| !matches!(block, Block::Code { .. }));
                let blocks: Vec<Block> = without_code.copied().collect();
                for line in text(&blocks, columns).lines() {
                    let line = line.replace(['\u{2061}', '\u{206f}'], "");
                    let longest = line.split_whitespace().map(|word| word.width()).max();
                    let fits = line.width() <= usize::from(columns).min(COLUMNS_MAX);
                    let is_one_word =
                        line.split_whitespace().count() <= 2 && longest > Some(TEXT_COLUMNS_MIN);
                    assert!(
                        fits || is_one_word,
                        "{}, {columns} columns: {line:?}",
                        page.name
                    );
                }
            }
        }
    }
}
