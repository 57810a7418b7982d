//! The question before a command removes data for good.

use std::io::{self, BufRead, IsTerminal, Read, Write};

use super::escape;
use crate::cli::Failure;

/// A longer answer counts as no.
const ANSWER_BYTES_MAX: u64 = 1024;

/// Asks on the terminal whether to go on, unless `yes`.
///
/// `question` names the loss, as in `Remove cursor a of orders?`. It goes to standard error, because standard output is for
/// results.
///
/// # Errors
/// - The answer is not `y` or `yes`; the command has changed nothing.
/// - Standard input or standard error is not a terminal; scripts give `--yes`.
pub(in crate::cli) fn confirm(question: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::usage(format!(
            "{question} This needs a confirmation, and there is no terminal to ask on: give --yes"
        )));
    }
    let asked = ask(question, &mut io::stdin().lock(), &mut io::stderr().lock());
    match asked {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::failed("not confirmed: nothing was changed")),
        Err(error) => Err(Failure::failed(format!(
            "the terminal cannot be asked: {error}"
        ))),
    }
}

/// Returns whether the answer is yes; the end of the input counts as no.
fn ask(question: &str, input: &mut impl BufRead, out: &mut impl Write) -> io::Result<bool> {
    write!(out, "{} [y/N] ", escape::line(question))?;
    out.flush()?;
    let mut answer = Vec::new();
    input
        .take(ANSWER_BYTES_MAX)
        .read_until(b'\n', &mut answer)?;
    if !answer.ends_with(b"\n") {
        // The terminal's cursor is still on the line of the question.
        writeln!(out)?;
    }
    let answer = answer.trim_ascii();
    Ok(answer.eq_ignore_ascii_case(b"y") || answer.eq_ignore_ascii_case(b"yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(answer: &str, expected: bool) {
        let mut out = Vec::new();
        let yes = ask("remove \u{1b}x?", &mut answer.as_bytes(), &mut out).unwrap();
        assert_eq!(yes, expected, "{answer:?}");
        let shown = String::from_utf8(out).unwrap();
        assert!(shown.starts_with("remove \\u{1b}x? [y/N] "), "{shown}");
        assert_eq!(shown.ends_with('\n'), !answer.ends_with('\n'), "{shown:?}");
    }

    #[test]
    fn only_yes_is_yes() {
        for yes in ["y\n", "Y\n", "yes\n", " YES \r\n", "y"] {
            check(yes, true);
        }
        for no in ["", "\n", "n\n", "no\n", "yess\n", "ja\n"] {
            check(no, false);
        }
        check(&"y".repeat(5000), false);
    }
}
