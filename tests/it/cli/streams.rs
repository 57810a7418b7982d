//! `syncgate streams set|purge|rm`: what is asked before, and what is left behind.

use std::process::Command;

use serde_json::json;

use crate::testkit::{Act, Gateway, StubTarget, keyed, on_terminal_typing, syncgate};

const INTERNAL: &str = "InternalserverErrorStream";

struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

fn piped(command: &mut Command) -> Ended {
    let output = command.output().unwrap();
    Ended {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn streams(gateway: &Gateway, arguments: &[&str]) -> Command {
    let mut command = syncgate();
    // Without a scheme it is http.
    let url = gateway.url.strip_prefix("http://").unwrap();
    command.arg("streams").args(arguments).args(["--url", url]);
    command
}

async fn with_a_failed_record() -> Gateway {
    let target = StubTarget::with(|_| Act::status(500)).await;
    let gateway = Gateway::start();
    gateway.sync(&keyed("k", &target.url("/x"), json!(1))).await;
    gateway.record(INTERNAL, 1).await;
    gateway.drained("DataSyncStream").await;
    gateway
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_shows_what_it_would_discard_and_asks() {
    let gateway = with_a_failed_record().await;
    let purge = ["purge", INTERNAL, "--reason", "known"];
    // In a pipe nobody can be asked: nothing is removed, and the way on is named.
    let ended = piped(&mut streams(&gateway, &purge));
    assert_eq!(ended.code, Some(2), "{}", ended.err);
    assert!(ended.err.contains("--yes"), "{}", ended.err);
    assert_eq!(gateway.count(INTERNAL, "open").await, 1);

    for columns in [80, 200] {
        let (status, text) = on_terminal_typing("n\n", columns, &mut streams(&gateway, &purge));
        assert_eq!(status.code(), Some(1), "{text}");
        assert!(
            text.contains("Purge 1 record of InternalserverErrorStream, 1 of them open?"),
            "{text}"
        );
        let row = text.lines().find(|line| line.starts_with("0 ")).unwrap();
        let cells: Vec<_> = row.split_whitespace().collect();
        assert_eq!(cells, ["0", "1", "1"], "{text}");
        assert_eq!(gateway.count(INTERNAL, "open").await, 1);
    }
    let (status, text) = on_terminal_typing("yes\n", 80, &mut streams(&gateway, &purge));
    assert!(status.success(), "{text}");
    assert!(
        text.contains("purged: 1 record removed, 1 of them was open and is discarded"),
        "{text}"
    );
    assert_eq!(gateway.count(INTERNAL, "open").await, 0);
    assert_eq!(gateway.count(INTERNAL, "discarded").await, 1);

    let again = [&purge[..], &["--yes"]].concat();
    let ended = piped(&mut streams(&gateway, &again));
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let empty = "InternalserverErrorStream has no records: nothing was removed\n";
    assert_eq!(ended.out, empty, "{}", ended.err);
    // There is nothing to ask about either.
    let (status, text) = on_terminal_typing("", 80, &mut streams(&gateway, &purge));
    assert!(status.success(), "{text}");
    assert_eq!(text, empty);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_that_is_refused_names_the_option_that_helps() {
    let target = StubTarget::with(|_| Act::Hold).await;
    let gateway = Gateway::start();
    gateway.sync(&keyed("k", &target.url("/x"), json!(1))).await;
    let purge = ["purge", "DataSyncStream", "--reason", "known", "--yes"];
    let ended = piped(&mut streams(&gateway, &purge));
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    assert!(
        ended.err.contains("--discard-pending gives them up"),
        "{}",
        ended.err
    );
    assert!(!ended.err.contains("discardPending"), "{}", ended.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_changed_and_shown_in_words() {
    let gateway = Gateway::start();
    let create = ["create", "Orders", "--retention", "36h"];
    let ended = piped(&mut streams(&gateway, &create));
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let set = [
        "set",
        "Orders",
        "--partitions",
        "2",
        "--retention",
        "7d",
        "--retention-bytes",
        "64MB",
    ];
    let ended = piped(&mut streams(&gateway, &set));
    assert!(
        ended.out.ends_with("7 days, at most 64MB\n"),
        "{}",
        ended.out
    );
    let mut set = set;
    set[7] = "64MiB";
    let ended = piped(&mut streams(&gateway, &set));
    assert_eq!(
        ended.out, "Orders changed: 2 partitions, records kept 7 days, at most 64MiB\n",
        "{}",
        ended.err
    );
    let stream = gateway.get("/v1/streams/Orders").await.ok();
    assert_eq!(stream["retentionHours"], 168, "{stream}");
    assert_eq!(stream["retentionBytes"], 64 << 20, "{stream}");
    let ended = piped(&mut streams(&gateway, &["show", "Orders"]));
    for line in [
        "partitions  2",
        "kept        7 days, at most 64MiB",
        "made by     api",
    ] {
        assert!(
            ended.out.lines().any(|shown| shown == line),
            "{}",
            ended.out
        );
    }
    let unset = [
        "set",
        "Orders",
        "--retention-hours",
        "default",
        "--retention-bytes",
        "default",
    ];
    let ended = piped(&mut streams(&gateway, &unset));
    assert!(
        ended.out.contains("as [retention] says"),
        "{}{}",
        ended.out,
        ended.err
    );

    let ended = piped(&mut streams(&gateway, &["set", "Orders"]));
    assert_eq!(ended.code, Some(2), "{}", ended.out);
    assert!(ended.err.contains("--partitions"), "{}", ended.err);
    let ended = piped(&mut streams(
        &gateway,
        &["set", "Orders", "--retention", "90m"],
    ));
    assert!(
        ended.err.contains("not a whole number of hours"),
        "{}",
        ended.err
    );
    let ended = piped(&mut streams(
        &gateway,
        &["set", "Orders", "--partitions", "1"],
    ));
    assert!(ended.err.contains("409 partitions_shrink"), "{}", ended.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_removed_when_someone_says_yes() {
    let gateway = with_a_failed_record().await;
    piped(&mut streams(&gateway, &["create", "Orders"]));
    let remove = ["rm", "Orders"];
    let ended = piped(&mut streams(&gateway, &remove));
    assert_eq!(ended.code, Some(2), "{}", ended.out);
    assert!(ended.err.contains("--yes"), "{}", ended.err);
    let (status, text) = on_terminal_typing("\n", 80, &mut streams(&gateway, &remove));
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(
        text.contains("Remove stream Orders with 0 records? [y/N]"),
        "{text}"
    );
    gateway.get("/v1/streams/Orders").await.ok();
    let ended = piped(&mut streams(&gateway, &["rm", "Orders", "--yes"]));
    assert_eq!(
        (ended.code, &*ended.out),
        (Some(0), "Orders removed\n"),
        "{}",
        ended.err
    );
    gateway
        .get("/v1/streams/Orders")
        .await
        .problem(404, "stream_unknown");
    // What the gateway would refuse is not asked about.
    let (status, text) = on_terminal_typing("", 80, &mut streams(&gateway, &["rm", INTERNAL]));
    assert_eq!(status.code(), Some(1), "{text}");
    assert_eq!(
        text,
        "error: nothing was removed: the configuration gives InternalserverErrorStream a role (internal)\n"
    );
    let ended = piped(&mut streams(&gateway, &["rm", INTERNAL, "--yes"]));
    assert_eq!(ended.code, Some(1), "{}", ended.out);
    assert!(ended.err.contains("409 stream_in_use"), "{}", ended.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn times_are_taken_as_people_say_them() {
    let gateway = with_a_failed_record().await;
    let run = |arguments: &[&str]| {
        let mut command = syncgate();
        piped(
            command
                .args(arguments)
                .args(["--url", &gateway.url, "--output", "json"]),
        )
    };
    let rows = |ended: &Ended| {
        let page: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
        page["items"].as_array().unwrap().len()
    };
    for (at, expected) in [
        ("1h ago", 1),
        ("10m", 1),
        ("2026-01-01", 1),
        ("2200-01-01T00:00", 0),
    ] {
        let ended = run(&["records", INTERNAL, "--at", at]);
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        assert_eq!(rows(&ended), expected, "{at}: {}", ended.out);
    }
    let ended = run(&["records", INTERNAL, "--at", "yesterday"]);
    assert_eq!(ended.code, Some(2), "{}", ended.out);
    assert!(
        ended.err.contains("--at <TIME>") && ended.err.contains("1h ago"),
        "{}",
        ended.err
    );

    let retry = |filter: &str| {
        let ended = run(&[
            "retry",
            INTERNAL,
            "--dry-run",
            "--time-budget-ms",
            "30s",
            "--filter",
            filter,
        ]);
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        serde_json::from_str::<serde_json::Value>(&ended.out).unwrap()["partitions"][0].clone()
    };
    assert_eq!(retry("from=1h ago")["attempted"], 1);
    assert_eq!(retry("to=1h ago")["attempted"], 0);

    let stream = "/services/v2/stream/orders";
    let made = json!({"source": {"trail": "a1"}});
    gateway.post(stream, &made).await.ok();
    let ended = run(&["tail", "orders", "--begin", "1h ago", "--count", "1"]);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(ended.out.contains("\"op_type\""), "{}", ended.out);
}
