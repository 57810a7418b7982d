//! Cuts texts to a number of terminal columns; `…` stands for the rest.

use unicode_width::UnicodeWidthStr;

/// Stands for what was cut off.
const REST: char = '…';
/// Zero-width joiner, as in family emoji. At the end of a text it has nothing to join.
const JOINER: char = '\u{200d}';

/// Cuts a text to at most `columns` columns (1 or more). A cut text ends with `…`.
pub(in crate::cli) fn cut(text: &str, columns: usize) -> String {
    if text.len() <= columns || text.width() <= columns {
        return text.to_owned();
    }
    let mut end = 0;
    // The bound keeps this cheap for a text with any number of zero-width marks.
    for (at, c) in text.char_indices().take(8 * columns + 8) {
        let after = at + c.len_utf8();
        if text[..after].width() + 1 > columns {
            break;
        }
        end = after;
    }
    let mut shown = text[..end].trim_end_matches([JOINER, ' ']).to_owned();
    shown.push(REST);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_text_uses_the_columns_it_has() {
        for (text, columns, expected) in [
            ("orders", 6, "orders"),
            ("orders", 5, "orde…"),
            ("orders", 1, "…"),
            ("an order", 4, "an…"),
            ("鍵鍵鍵", 6, "鍵鍵鍵"),
            ("鍵鍵鍵", 5, "鍵鍵…"),
            ("鍵鍵鍵", 4, "鍵…"),
            ("größer", 4, "grö…"),
        ] {
            assert_eq!(cut(text, columns), expected, "{text} {columns}");
        }
    }

    #[test]
    fn no_cut_text_is_wider_than_its_columns() {
        let texts = ["👩‍👩‍👧👩‍👩‍👧👩‍👩‍👧", "e\u{301}e\u{301}e\u{301}e\u{301}", "a鍵b鍵c", "x"];
        for text in texts {
            for columns in 1..12 {
                let shown = cut(text, columns);
                assert!(shown.width() <= columns, "{shown} {columns}");
                assert_eq!(shown.ends_with(REST), text.width() > columns, "{shown}");
            }
        }
        let marks = format!("a{}", "\u{301}".repeat(100_000));
        assert_eq!(cut(&marks, 5), marks);
    }
}
