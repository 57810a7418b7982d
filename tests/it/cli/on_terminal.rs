//! Commands on a terminal, and the same in a pipe.

use std::{net::TcpListener, process::Command};

use reqwest::Method;
use serde_json::json;
use unicode_width::UnicodeWidthStr;

use crate::testkit::{
    Act, Gateway, Place, StubTarget, keyed, on_terminal, on_terminal_in_colour, poll, syncgate,
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
    // Two lines for headings, two for the record, and the last line. What is cut says so, and the time has its age.
    assert_eq!(text.lines().count(), 5, "{text}");
    assert!(text.contains("鍵…") && text.contains("x…"), "{text}");
    assert!(text.contains("s ago)") || text.contains("m ago)"), "{text}");
    assert!(text.contains("status 500"), "{text}");
    // One record has all of it.
    let one = format!("{INTERNAL}/0/0");
    let (_, text) = on_terminal(80, &mut command(&["records", &one]));
    assert_eq!(text.matches('鍵').count(), 40, "{text}");
    assert!(text.contains(&url), "{text}");
    assert!(text.contains("s ago)") || text.contains("m ago)"), "{text}");
    let text = in_pipe(&mut command(&["records", &one]));
    assert!(!text.contains(" ago"), "{text}");

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

#[tokio::test(flavor = "multi_thread")]
async fn what_an_open_record_waits_for_has_its_time_and_how_far_away_it_is() {
    let later = || vec![("retry-after", "1800".to_owned())];
    let target = StubTarget::with(move |_| Act::Answer(429, later())).await;
    let gateway = Gateway::start();
    gateway
        .sync(&keyed("k", &target.url("/busy"), json!(1)))
        .await;
    let path = "/v1/streams/DataSyncStream/partitions/0/records/0";
    poll("the record to wait for its target", async || {
        let record = gateway.get(path).await.ok();
        (record["waiting"]["for"] == "retry_after").then_some(())
    })
    .await;
    let command = |arguments: &[&str]| {
        let mut command = syncgate();
        command
            .arg("records")
            .args(arguments)
            .args(["--url", &gateway.url]);
        command
    };
    for columns in [80, 200] {
        for arguments in [&["DataSyncStream", "--open"][..], &["DataSyncStream/0/0"]] {
            let (_, text) = on_terminal(columns, &mut command(arguments));
            fits(&text, columns);
            assert!(text.contains("Z (in 29m)"), "{text}");
        }
    }
    let text = in_pipe(&mut command(&["DataSyncStream", "--open"]));
    assert!(
        text.contains("  retry after  20") && !text.contains("(in"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_name_is_chopped_without_a_mark_in_any_table() {
    let (gateway, _, _) = gateway_with_long_cells().await;
    // Letters that nothing else in a table has, so that they can be counted where a cell is wrapped.
    let name = "Q".repeat(64);
    let ocid = "Z".repeat(200);
    let made = json!({"name": name, "partitions": 3, "ocid": ocid});
    gateway.post("/v1/streams", &made).await.ok();
    let (data_stream, cursor) = ("J".repeat(32), "X".repeat(32));
    let path = format!("/services/v2/stream/{data_stream}");
    let made = json!({"source": {"trail": name}});
    gateway.post(&path, &made).await.ok();
    let path = format!("/v1/data-streams/{data_stream}/cursors/{cursor}");
    let put = gateway.request(Method::PUT, &path);
    gateway.send(put.json(&json!({}))).await.ok();
    for (arguments, long) in [
        (&["streams", "ls"][..], &[&name, &ocid][..]),
        (&["streams", "show", &name], &[&name, &ocid]),
        (&["records", &name], &[]),
        (&["verify"], &[&name]),
        (&["data-streams", "ls"], &[&data_stream, &name]),
        (&["cursors", "ls", &data_stream], &[&cursor]),
        (&["status"], &[]),
    ] {
        let command = || {
            let mut command = syncgate();
            command.args(arguments).args(["--url", &gateway.url]);
            command
        };
        for columns in [80, 200] {
            let (_, text) = on_terminal(columns, &mut command());
            fits(&text, columns);
            for long in long {
                // It is there, on several lines if need be, or its beginning with a mark.
                let is_whole = text.matches(&long[..1]).count() >= long.len();
                let is_marked = text.split_whitespace().any(|word| {
                    word.strip_suffix('…')
                        .is_some_and(|beginning| long.starts_with(beginning))
                });
                assert!(is_whole || is_marked, "{arguments:?} {columns}: {text}");
            }
        }
        let piped = command().output().unwrap();
        let text = String::from_utf8(piped.stdout).unwrap();
        for long in long {
            assert!(text.contains(long.as_str()), "{arguments:?}: {text}");
        }
    }
}

#[test]
fn the_help_of_a_command_explains_the_columns_of_its_table() {
    for (arguments, columns) in [
        (
            &["records"][..],
            "PARTITION OFFSET TIME KEY OPERATION TARGET STATE CAUSE MOVED WAITS UNTIL",
        ),
        (&["streams", "ls"], "NAME PARTITIONS MADE OCID"),
        (
            &["streams", "show"],
            "PARTITION EARLIEST TAIL OPEN KEPT DELIVERED FILTERED MOVED DISCARDED EXPIRED LOST READER LAG",
        ),
        (&["streams", "purge"], "PARTITION RECORDS OPEN"),
        (&["cursors", "ls"], "CURSOR CLIENT BEHIND SECONDS LAST"),
        (&["config", "show"], "SETTING VALUE ORIGIN"),
        (
            &["verify"],
            "ACCEPTED REPLAYED RECEIVED UNKNOWN DELIVERED MOVED FILTERED DISCARDED EXPIRED LOST PENDING DIFFERENCE",
        ),
    ] {
        let help = in_pipe(syncgate().args(arguments).arg("--help"));
        for column in columns.split(' ') {
            let mut lines = help.lines().map(str::trim_start);
            let explained = lines.any(|line| {
                let mut words = line.split([' ', ',']);
                words.any(|word| word == column) && line.starts_with(char::is_uppercase)
            });
            assert!(explained, "{column} of {arguments:?}: {help}");
        }
    }
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
