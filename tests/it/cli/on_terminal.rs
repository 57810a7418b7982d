//! Commands on a terminal.

use crate::harness::{on_terminal, syncgate};

#[test]
fn help_fits_the_terminal() {
    for columns in [80, 200] {
        let (status, text) = on_terminal(columns, syncgate().arg("--help").env("NO_COLOR", "1"));
        assert!(status.success(), "{text}");
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(usize::from(columns)), "{widest:?}: {text}");
        assert!(text.contains("Usage: syncgate"), "{text}");
    }
}
