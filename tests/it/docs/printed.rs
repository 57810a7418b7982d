//! The manual as `syncgate docs` prints it.

use super::pages;
use crate::testkit::{on_terminal, on_terminal_in_colour, syncgate};

fn docs(arguments: &[&str]) -> (Option<i32>, String, String) {
    let ended = syncgate().arg("docs").args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (ended.status.code(), text(ended.stdout), text(ended.stderr))
}

#[test]
fn a_pipe_gets_the_list_of_pages_and_their_markdown() {
    let (code, list, said) = docs(&[]);
    assert_eq!(code, Some(0), "{said}");
    for (name, text) in pages() {
        assert!(
            list.lines().any(|line| line.starts_with(&*name)),
            "{name} is not in {list}"
        );
        for page in [name.clone(), format!("{name}.md")] {
            let (code, printed, _) = docs(&[&page]);
            assert_eq!((code, &printed), (Some(0), &text), "{name}");
        }
        let (_, printed, _) = docs(&[&name, "--output", "json"]);
        let printed: serde_json::Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(
            (&printed["page"], &printed["markdown"]),
            (&name.into(), &text.into())
        );
    }
    let (_, list, _) = docs(&["--output", "json"]);
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list["pages"].as_array().map(Vec::len), Some(pages().len()));
}

#[test]
fn an_unknown_page_is_refused_with_the_nearest_name() {
    let (code, printed, said) = docs(&["setings"]);
    assert_eq!((code, &*printed), (Some(2), ""));
    assert!(
        said.contains("unknown page \"setings\"; did you mean \"settings\"?"),
        "{said}"
    );
    let (_, _, said) = docs(&["x"]);
    assert!(
        said.contains("unknown page \"x\"; `syncgate docs` lists the pages"),
        "{said}"
    );
}

#[test]
fn a_terminal_gets_a_page_within_its_width() {
    let columns = 60;
    let (status, text) = on_terminal(columns, syncgate().args(["docs", "close-codes"]));
    assert!(status.success());
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines[0], lines[1]), ("Close codes", ""));
    assert!(!text.contains("|---") && !text.contains("<!--"), "{text}");
    assert!(text.contains("\n4408\n  word: `stalled`\n"), "{text}");
    for line in lines {
        assert!(line.chars().count() <= columns.into(), "{line:?}");
    }
    let (_, coloured) = on_terminal_in_colour(columns, syncgate().args(["docs", "close-codes"]));
    assert!(
        coloured.starts_with("\u{1b}[1mClose\u{1b}[0m \u{1b}[1mcodes\u{1b}[0m"),
        "{coloured}"
    );
    let plain = on_terminal_in_colour(
        columns,
        syncgate()
            .args(["docs", "close-codes"])
            .env("NO_COLOR", "1"),
    )
    .1;
    assert!(
        plain.starts_with("Close codes\r\n") || plain.starts_with("Close codes\n"),
        "{plain}"
    );
}
