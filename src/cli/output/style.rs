//! Colours. A styled text carries zero-width marks, so that tables measure columns without them. [`painted`] turns the marks
//! into escape sequences on a terminal, and removes them for a pipe.
//!
//! [`escape`] escapes the same marks in records and answers, so a record cannot colour a cell.

use crate::cli::output::escape;

/// How a text looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Heading,
    Good,
    Warning,
    Bad,
}

/// Ends every style.
const END: char = '\u{206f}';
const RESET: &str = "\u{1b}[0m";

impl Style {
    const ALL: [Self; 4] = [Self::Heading, Self::Good, Self::Warning, Self::Bad];

    /// An invisible mathematical operator: default-ignorable, zero width.
    fn mark(self) -> char {
        match self {
            Self::Heading => '\u{2061}',
            Self::Good => '\u{2062}',
            Self::Warning => '\u{2063}',
            Self::Bad => '\u{2064}',
        }
    }

    fn sequence(self) -> &'static str {
        match self {
            Self::Heading => "\u{1b}[1m",
            Self::Good => "\u{1b}[32m",
            Self::Warning => "\u{1b}[33m",
            Self::Bad => "\u{1b}[31m",
        }
    }

    /// Returns the style of a cell in column STATE. An open record or breaker needs attention.
    pub(super) fn of_state(state: &str) -> Option<Self> {
        match state {
            "closed" => Some(Self::Good),
            "open" | "half-open" | "paused" => Some(Self::Warning),
            _ => None,
        }
    }
}

/// Styles each word by itself, because a cell may be wrapped between two words.
pub(super) fn styled(text: &str, style: Style) -> String {
    let words = text.split(' ').map(|word| match word {
        "" => String::new(),
        word => format!("{}{word}{END}", style.mark()),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Replaces marks by escape sequences, or removes them, and escapes control characters of the text.
pub(super) fn painted(text: &str, has_colours: bool) -> String {
    let style_of = |mark: char| Style::ALL.into_iter().find(|style| style.mark() == mark);
    let mut out = String::with_capacity(text.len());
    for part in text.split_inclusive(|c: char| c == END || style_of(c).is_some()) {
        let mark = part.chars().next_back();
        let style = mark.and_then(style_of);
        let plain = match style.is_some() || mark == Some(END) {
            true => &part[..part.len() - mark.map_or(0, char::len_utf8)],
            false => part,
        };
        out += &escape::text(plain);
        if has_colours {
            match style {
                Some(style) => out += style.sequence(),
                None if mark == Some(END) => out += RESET,
                None => {}
            }
        }
    }
    out
}

/// Colours the first word of a line, if it is `error:` or `warning:`.
pub(super) fn first_word(line: &str, has_colours: bool) -> String {
    let (style, word, rest) = match line.split_once(' ') {
        Some((word @ "error:", rest)) => (Style::Bad, word, rest),
        Some((word @ "warning:", rest)) => (Style::Warning, word, rest),
        _ => return line.to_owned(),
    };
    match has_colours {
        true => format!("{}{word}{RESET} {rest}", style.sequence()),
        false => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_sequences_on_a_terminal_and_gone_elsewhere() {
        let text = format!("a {}\n", styled("two words", Style::Bad));
        assert_eq!(
            painted(&text, true),
            "a \u{1b}[31mtwo\u{1b}[0m \u{1b}[31mwords\u{1b}[0m\n"
        );
        assert_eq!(painted(&text, false), "a two words\n");
        assert_eq!(painted("a\u{1b}[2Jb\n", true), "a\\u{1b}[2Jb\n");
    }

    #[test]
    fn marks_in_a_record_are_escaped() {
        for mark in Style::ALL.map(Style::mark).into_iter().chain([END]) {
            let shown = escape::line(&format!("a{mark}b")).into_owned();
            assert_eq!(shown, format!("a\\u{{{:x}}}b", u32::from(mark)));
        }
    }

    #[test]
    fn an_error_and_a_warning_are_coloured() {
        assert_eq!(first_word("error: x", true), "\u{1b}[31merror:\u{1b}[0m x");
        assert_eq!(
            first_word("warning: x", true),
            "\u{1b}[33mwarning:\u{1b}[0m x"
        );
        for line in ["error: x", "warning: x", "x error: y", "error:"] {
            assert_eq!(first_word(line, false), line);
        }
    }
}
