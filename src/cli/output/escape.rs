//! Escapes foreign text for a terminal: control characters are shown, not sent.
//!
//! A record or a server's answer may hold control characters that move the cursor, rename the window or type for the user,
//! and marks that reverse the direction of text. All output of the commands goes through this module.

use std::{borrow::Cow, fmt::Write as _};

/// Whether a terminal acts on a character instead of showing it.
fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // Direction marks.
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            // Line and paragraph separators.
            | '\u{2028}' | '\u{2029}'
            // Invisible operators and old format marks; `style` uses some of them for colours.
            | '\u{2061}'..='\u{2064}' | '\u{206a}'..='\u{206f}')
}

/// Returns text on one line: a blank for each line break and tab, an escape such as `\u{1b}` for each control character.
pub(in crate::cli) fn line(text: &str) -> Cow<'_, str> {
    escaped(text, |c, out| match c {
        '\n' | '\r' | '\t' => out.push(' '),
        c => out.extend(c.escape_unicode()),
    })
}

/// Escapes as [`line`] does, but keeps line breaks.
pub(in crate::cli) fn text(text: &str) -> Cow<'_, str> {
    escaped(text, |c, out| match c {
        '\n' => out.push('\n'),
        '\r' | '\t' => out.push(' '),
        c => out.extend(c.escape_unicode()),
    })
}

/// Returns JSON of the same value. Only its strings can hold what is escaped; ends of lines between tokens stay.
pub(in crate::cli) fn json(text: &str) -> Cow<'_, str> {
    escaped(text, |c, out| match c {
        '\n' | '\r' | '\t' => out.push(c),
        // All of them have four digits; a text takes every `write!`.
        c => drop(write!(out, "\\u{:04x}", u32::from(c))),
    })
}

fn escaped(text: &str, mut escape: impl FnMut(char, &mut String)) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_obeyed(c) {
            true => escape(c, &mut out),
            false => out.push(c),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(sent: &str, on_a_line: &str, as_text: &str) {
        assert_eq!(line(sent), on_a_line);
        assert_eq!(text(sent), as_text);
    }

    #[test]
    fn control_characters_are_shown_escaped() {
        check("größer → 7 €", "größer → 7 €", "größer → 7 €");
        check("a\nb\r\tc", "a b  c", "a\nb  c");
        check("\u{1b}[2J\u{7}", "\\u{1b}[2J\\u{7}", "\\u{1b}[2J\\u{7}");
        check(
            "\u{9b}2J\u{7f}\0",
            "\\u{9b}2J\\u{7f}\\u{0}",
            "\\u{9b}2J\\u{7f}\\u{0}",
        );
        for mark in "\u{61c}\u{200e}\u{200f}\u{202a}\u{202e}\u{2066}\u{2069}\u{2028}".chars() {
            let shown = format!("a\\u{{{:x}}}b", u32::from(mark));
            check(&format!("a{mark}b"), &shown, &shown);
        }
    }

    #[test]
    fn json_stays_the_same_value() {
        let value = serde_json::json!({"a\u{202e}": "\u{1b}[2J\u{9b}\u{7f}\n\u{2066}ä"});
        let printed = value.to_string();
        let shown = json(&printed);
        assert!(!shown.contains(is_obeyed), "{shown}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&shown).unwrap(),
            value
        );
        assert_eq!(json("{\n\t\"a\": 1\r}"), "{\n\t\"a\": 1\r}");
    }
}
