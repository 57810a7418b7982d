//! Commands on a terminal, and the same in a pipe.

use std::{net::TcpListener, process::Command};

use serde_json::json;
use unicode_width::UnicodeWidthStr;

use crate::harness::{
    Act, Gateway, Place, StubTarget, keyed, on_terminal, on_terminal_in_colour, syncgate,
};

const INTERNAL: &str = "InternalserverErrorStream";

#[track_caller]
fn fits(text: &str, columns: u16) {
    for line in text.lines() {
        assert!(line.width() <= columns.into(), "{columns}: {line}\n{text}");
    }
}

fn in_pipe(command: &mut Command) -> String {
    let ended = command.output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    String::from_utf8(ended.stdout).unwrap()
}

#[test]
fn help_fits_the_terminal() {
    for columns in [80, 200] {
        let (status, text) = on_terminal(columns, syncgate().arg("--help"));
        assert!(status.success(), "{text}");
        fits(&text, columns);
        assert!(text.contains("Usage: syncgate"), "{text}");
    }
}

/// A gateway with a failed record whose key and URL are long, and two columns wide for each character of the key.
async fn gateway_with_long_cells() -> (Gateway, String, String) {
    let target = StubTarget::with(|_| Act::status(500)).await;
    let gateway = Gateway::start();
    let key = format!("{}👩‍👩‍👧", "鍵".repeat(40));
    let url = target.url(&format!("/orders/{}", "x".repeat(120)));
    gateway.sync(&keyed(&key, &url, json!(1))).await;
    gateway.record(INTERNAL, 1).await;
    (gateway, key, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_fit_the_terminal_and_are_whole_in_a_pipe() {
    let (gateway, key, url) = gateway_with_long_cells().await;
    let command = |arguments: &[&str]| {
        let mut command = syncgate();
        command.args(arguments).args(["--url", &gateway.url]);
        command
    };
    let records = ["records", INTERNAL];
    for arguments in [
        &records[..],
        &["streams", "ls"],
        &["streams", "show", "DataSyncStream"],
        &["verify"],
    ] {
        for columns in [80, 200] {
            let (status, text) = on_terminal(columns, &mut command(arguments));
            assert!(status.success(), "{text}");
            fits(&text, columns);
        }
    }
    let (_, text) = on_terminal(80, &mut command(&records));
    // Nothing of the wrapped cell is lost, and the time has its age.
    assert_eq!(text.matches('鍵').count(), 40, "{text}");
    assert!(text.contains("s ago)") || text.contains("m ago)"), "{text}");

    let text = in_pipe(&mut command(&records));
    let row = text.lines().nth(1).unwrap();
    assert!(row.contains(&key) && row.contains(&url), "{text}");
    let cells: Vec<_> = row.split_whitespace().collect();
    let time = cells.iter().find(|cell| cell.ends_with('Z')).unwrap();
    assert_eq!(time.len(), "2026-12-01T07:00:00.000000Z".len(), "{text}");
    assert!(!text.contains("ago") && !text.contains('\u{1b}'), "{text}");
    let text = in_pipe(&mut command(&["streams", "ls"]));
    let columns = text.lines().map(|line| line.split_whitespace().count());
    assert_eq!(
        columns.min(),
        Some(4),
        "an empty cell is a word too: {text}"
    );
    let text = in_pipe(&mut command(&["verify"]));
    assert!(text.contains("DISCARDED"), "every column is there: {text}");
}

#[test]
fn colours_are_for_terminals_and_for_nobody_who_says_no() {
    let config = ["config", "show"];
    let (_, text) = on_terminal_in_colour(80, syncgate().args(config));
    assert!(text.starts_with("\u{1b}[1mSETTING\u{1b}[0m"), "{text}");
    fits(&on_terminal(80, syncgate().args(config)).1, 80);
    fits(&on_terminal(200, syncgate().args(config)).1, 200);
    for (name, value) in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let (_, text) = on_terminal_in_colour(80, syncgate().args(config).env(name, value));
        assert!(text.starts_with("SETTING "), "{text}");
        assert!(!text.contains('\u{1b}'), "{name}: {text}");
    }
    let (_, text) = on_terminal_in_colour(80, syncgate().args(config).env("NO_COLOR", ""));
    assert!(
        text.contains('\u{1b}'),
        "an empty NO_COLOR says nothing: {text}"
    );
    let text = in_pipe(syncgate().args(config));
    assert!(!text.contains('\u{1b}'), "{text}");
    // An error on a terminal.
    let failed = ["healthcheck", "--url", "127.0.0.1:1"];
    let (_, text) = on_terminal_in_colour(80, syncgate().args(failed));
    assert!(
        text.starts_with("\u{1b}[31merror:\u{1b}[0m no gateway"),
        "{text}"
    );
    let (_, text) = on_terminal_in_colour(80, syncgate().args(failed).env("NO_COLOR", "1"));
    assert!(text.starts_with("error: no gateway"), "{text}");
}

#[test]
fn log_lines_have_colours_on_a_terminal_alone() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    // It logs a warning, and then finds its port taken.
    let place = Place::with_config("[oci_sample]\nvault_ocid = \"ocid1.vault\"\n");
    let serve = || {
        let mut command = syncgate();
        command
            .arg("serve")
            .arg("--config")
            .arg(place.config_file());
        command
            .arg("--data")
            .arg(place.data())
            .args(["--listen", &address]);
        command
    };
    let check = |text: &str, colours: bool| {
        assert!(text.contains("oci_sample.vault_ocid is ignored"), "{text}");
        assert_eq!(text.contains('\u{1b}'), colours, "{text}");
    };
    check(&on_terminal_in_colour(80, &mut serve()).1, true);
    check(
        &on_terminal_in_colour(80, serve().env("NO_COLOR", "1")).1,
        false,
    );
    check(
        &on_terminal_in_colour(80, serve().env("TERM", "dumb")).1,
        false,
    );
    let piped = serve().output().unwrap();
    check(&String::from_utf8(piped.stderr).unwrap(), false);
}
