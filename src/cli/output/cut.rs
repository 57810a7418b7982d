//! Texts that are cut to a number of columns on a terminal; `…` stands for the rest.

use unicode_width::UnicodeWidthStr;

/// Stands for what was cut off.
const REST: char = '…';
/// Joins characters to one, such as a family; without the character behind it, it joins nothing.
const JOINER: char = '\u{200d}';

/// Returns a text that is `columns` wide at most, which is 1 at least. A text that is cut ends with `…`.
pub(in crate::cli) fn cut(text: &str, columns: usize) -> String {
    if text.len() <= columns || text.width() <= columns {
        return text.to_owned();
    }
    let mut end = 0;
    // Marks without a width could be any number, so only the beginning is looked at.
    for (at, c) in text.char_indices().take(8 * columns + 8) {
        let behind = at + c.len_utf8();
        if text[..behind].width() + 1 > columns {
            break;
        }
        end = behind;
    }
    let mut shown = text[..end].trim_end_matches([JOINER, ' ']).to_owned();
    shown.push(REST);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_as_wide_as_it_may_be() {
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
    fn nothing_is_wider_than_asked_for() {
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
