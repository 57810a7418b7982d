//! The command line: exit codes, and what commands say.

use std::{fs, io::Write, process::Stdio};

use serde_json::json;

use super::process::{Served, Target, file, run, syncgate};

#[test]
fn a_configuration_that_is_wrong_is_told_at_once_and_nothing_starts() {
    let dir = tempfile::tempdir().unwrap();
    let config = file(
        dir.path(),
        "gate.toml",
        "[server]\nlistn = 1\ngrace_ms = \"x\"\n",
    );
    for command in ["check", "serve"] {
        let ended = run(&[command, "--config", config.to_str().unwrap()]).expect(2);
        assert!(
            ended
                .err
                .contains("gate.toml, line 2: server.listn: unknown key; did you mean \"listen\"?"),
            "{ended:?}"
        );
        assert!(
            ended.err.contains("gate.toml, line 3: server.grace_ms:"),
            "{ended:?}"
        );
        assert_eq!(ended.out, "");
    }
    let ended = run(&[
        "check",
        "--config",
        config.to_str().unwrap(),
        "--output",
        "json",
    ])
    .expect(2);
    assert_eq!(ended.json()["errors"][0]["line"], 2);
    let good = concat!(env!("CARGO_MANIFEST_DIR"), "/config/example.toml");
    assert_eq!(run(&["check", "--config", good]).expect(0).out, "ok\n");
    run(&["check", "--no-such-flag"]).expect(2);
}

#[test]
fn without_users_only_loopback_is_served() {
    let ended = run(&["serve", "--listen", "0.0.0.0:0"]).expect(2);
    assert!(
        ended
            .err
            .contains("--listen: server.listen: 0.0.0.0:0 is not a loopback address"),
        "{ended:?}"
    );
}

#[test]
fn a_second_process_on_one_directory_or_port_is_refused_with_a_clear_word() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(dir.path(), &[]);
    let data = dir.path().to_str().unwrap();
    let ended = run(&["serve", "--listen", "127.0.0.1:0", "--data", data]).expect(3);
    assert!(
        ended.err.contains(data) && ended.err.contains("in use by another process"),
        "{ended:?}"
    );
    let address = served.url.strip_prefix("http://").unwrap();
    let other = tempfile::tempdir().unwrap();
    let other = other.path().to_str().unwrap();
    let ended = run(&["serve", "--listen", address, "--data", other]).expect(3);
    assert!(
        ended.err.contains(&format!("cannot listen on {address}: ")),
        "{ended:?}"
    );
    served.run(&["healthcheck"]).expect(0);
}

#[test]
fn commands_say_so_when_no_gateway_answers() {
    let ended = run(&["healthcheck", "--url", "http://127.0.0.1:1"]).expect(1);
    assert!(
        ended
            .err
            .contains("no gateway answers at http://127.0.0.1:1/"),
        "{ended:?}"
    );
}

#[test]
fn a_stop_lets_calls_end_and_a_second_signal_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let target = Target::start();
    let served = Served::start(dir.path(), &[]);
    let message = file(dir.path(), "m.json", &target.message("/held"));
    served.run(&["sync", message.to_str().unwrap()]).expect(0);
    assert_eq!(target.next_call(), "/held");
    served.signal("TERM");
    target.let_go.send(()).unwrap();
    assert_eq!(served.end(), (Some(0), String::new()));
    // What was delivered during the drain is not sent again; the next call comes from the next message.
    let served = Served::start(dir.path(), &[]);
    served.run(&["sync", message.to_str().unwrap()]).expect(0);
    assert_eq!(target.next_call(), "/held");
    let records = served.json(&["records", "DataSyncStream"]);
    assert_eq!(records["items"][0]["settled"], true, "{records}");
    served.signal("INT");
    served.signal("TERM");
    assert_eq!(served.end().0, Some(1));
}

#[test]
fn sync_tells_exactly_what_was_stored_when_it_stops_in_the_middle() {
    let dir = tempfile::tempdir().unwrap();
    let target = Target::start();
    let served = Served::start(dir.path(), &[]);
    let good = target.message("/200");
    let mut lines = vec![good.as_str(); 2_500];
    let bad = good.replace("\"POST\"", "\"post\"");
    lines[2_100] = &bad;
    let messages = file(dir.path(), "m.ndjson", &lines.join("\n"));
    let messages = messages.to_str().unwrap();
    let ended = served.run(&["sync", messages]).expect(1);
    assert!(
        ended
            .err
            .contains("line 2101: /streamMessage/targetRestApiOperation: "),
        "{ended:?}"
    );
    assert!(
        ended
            .err
            .contains("2000 messages accepted before that; lines 2001 to 2500 were not stored"),
        "{ended:?}"
    );
    assert_eq!(served.dispatched(), 2_000);
    let next = format!(" --url {}\n", served.url);
    assert!(ended.err.ends_with(&next), "{ended:?}");
    lines[2_100] = &good;
    fs::write(messages, lines.join("\n")).unwrap();
    let ended = served.run(&["sync", messages]).expect(0);
    assert_eq!(
        ended.out,
        "2500 messages accepted in 3 batches: first DataSyncStream/0 offset 2000, last DataSyncStream/0 offset 4499\n"
    );
    assert_eq!(served.dispatched(), 4_500);
}

#[test]
fn sync_names_one_line_of_the_file_also_where_json_breaks() {
    let dir = tempfile::tempdir().unwrap();
    let target = Target::start();
    let served = Served::start(dir.path(), &[]);
    let good = target.message("/200");
    let mut lines = vec![good.as_str(); 1_200];
    lines[1_100] = "{\"streamMessage\": nul}";
    let messages = file(dir.path(), "m.ndjson", &lines.join("\n"));
    let ended = served.run(&["sync", messages.to_str().unwrap()]).expect(1);
    let first = ended.err.lines().next().unwrap();
    assert_eq!(
        first, "error: line 1101: this is not JSON: it breaks at column 22",
        "{ended:?}"
    );
    assert_eq!(
        ended.err.matches("this is not JSON").count(),
        1,
        "{ended:?}"
    );
    // The file as one document has its own lines.
    let document = file(dir.path(), "m.json", "{\n\"streamMessage\": nul}");
    let ended = served.run(&["sync", document.to_str().unwrap()]).expect(1);
    assert!(
        ended
            .err
            .starts_with("error: this is not JSON: it breaks at line 2, column 21\n"),
        "{ended:?}"
    );
}

#[test]
fn usage_lines_show_no_address_that_comes_from_the_environment() {
    for (command, usage) in [
        (&["sync"][..], "Usage: syncgate sync <FILE>\n"),
        (
            &["records"],
            "Usage: syncgate records <STREAM[/P/OFFSET]>\n",
        ),
        (
            &["data-streams", "show"],
            "Usage: syncgate data-streams show <NAME>\n",
        ),
        (
            &["cursors", "rm", "s1"],
            "Usage: syncgate cursors rm <DATA_STREAM> <CURSOR>\n",
        ),
        (
            &["tail", "s", "--count", "x"],
            "For more information, try '--help'",
        ),
    ] {
        let ended = syncgate(command)
            .env("SYNCGATE_URL", "http://ada:horse@127.0.0.1:9")
            .output()
            .unwrap();
        let ended = super::process::Ended::from(ended).expect(2);
        assert!(ended.err.contains(usage), "{command:?}: {ended:?}");
        assert!(!ended.err.contains("--url"), "{command:?}: {ended:?}");
        assert!(!ended.err.contains("horse"), "{command:?}: {ended:?}");
    }
    // The variable still counts, and is checked.
    for (url, told) in [
        ("", "SYNCGATE_URL) is empty"),
        ("127.0.0.1:1", "no gateway answers at http://127.0.0.1:1/"),
    ] {
        let ended = syncgate(&["streams", "ls"])
            .env("SYNCGATE_URL", url)
            .output()
            .unwrap();
        let ended = super::process::Ended::from(ended);
        assert!(ended.err.contains(told), "{ended:?}");
    }
}

#[test]
fn sync_takes_a_message_from_standard_input_with_a_token_that_is_shown_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let target = Target::start();
    let served = Served::start(dir.path(), &[]);
    let mut child = syncgate(&["sync", "-", "--url", &served.url, "--token-env", "TOKEN"])
        .env("TOKEN", "Bearer very-secret")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let message = target.message("/200").replace(
        "{\"targetRestApi\"",
        "{\"vaultSecretName\":\"s1\",\"targetRestApi\"",
    );
    child
        .stdin
        .take()
        .unwrap()
        .write_all(message.as_bytes())
        .unwrap();
    let ended = super::process::Ended::from(child.wait_with_output().unwrap()).expect(0);
    assert!(
        ended
            .out
            .starts_with("1 message accepted: DataSyncStream/0 offset 0, message "),
        "{ended:?}"
    );
    assert_eq!(served.dispatched(), 1);
    let records = served.json(&["records", "DataSyncStream"]);
    assert_eq!(
        records["items"][0]["headers"]["secret-name"], "s1",
        "{records}"
    );
    assert!(!records.to_string().contains("very-secret"));
}

#[test]
fn retry_walks_to_the_end_and_keeps_its_offset_for_the_next_run() {
    let dir = tempfile::tempdir().unwrap();
    let target = Target::start();
    let served = Served::start(dir.path(), &[]);
    let messages = vec![target.message("/500"); 25].join("\n");
    let messages = file(dir.path(), "m.ndjson", &messages);
    served.run(&["sync", messages.to_str().unwrap()]).expect(0);
    assert_eq!(served.dispatched(), 25);
    let offsets = dir.path().join("offsets.json");
    let stream = "InternalserverErrorStream";
    let retry = [
        "retry",
        stream,
        "--max",
        "10",
        "--map",
        "500=DefaultErrorStream",
        "--offset-file",
        offsets.to_str().unwrap(),
    ];
    let json = |more: &[&str]| {
        let arguments = [&retry[..], more, &["--output", "json"]].concat();
        // All of them fail.
        served.run(&arguments).expect(1).json()
    };
    let once = json(&[]);
    let pass = &once["partitions"][0];
    assert_eq!(
        (
            &pass["failedMessages"],
            &pass["lastReadOffset"],
            &pass["endOfStream"]
        ),
        (&json!(10), &json!(9), &json!(false)),
        "{once}"
    );
    assert_eq!(
        fs::read_to_string(&offsets).unwrap(),
        "{\"stream\":\"InternalserverErrorStream\",\"offsets\":{\"0\":9}}\n"
    );
    let looped = json(&["--loop"]);
    let pass = &looped["partitions"][0];
    assert_eq!(
        (
            &pass["failedMessages"],
            &pass["lastReadOffset"],
            &pass["endOfStream"]
        ),
        (&json!(15), &json!(24), &json!(true)),
        "{looped}"
    );
    let records = served.json(&["records", "DefaultErrorStream", "--limit", "1000"]);
    assert_eq!(records["items"].as_array().unwrap().len(), 25);
    let text = served
        .run(&["records", "DefaultErrorStream", "--limit", "1"])
        .expect(0)
        .out;
    assert!(text.contains("status 500"), "{text}");
    let ended = served.run(&["retry", "NoSuchStream"]).expect(1);
    assert!(ended.err.contains("404 stream_unknown"), "{ended:?}");
    let other = [
        "retry",
        "DefaultErrorStream",
        "--offset-file",
        offsets.to_str().unwrap(),
    ];
    assert!(
        served
            .run(&other)
            .expect(2)
            .err
            .contains("holds the offsets of InternalserverErrorStream")
    );
}

#[test]
fn retry_of_all_partitions_is_a_pass_over_each() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(dir.path(), &[]);
    served
        .run(&["streams", "create", "Several", "--partitions", "3"])
        .expect(0);
    let report = served.json(&[
        "retry",
        "Several",
        "--partition",
        "*",
        "--loop",
        "--dry-run",
    ]);
    let partitions: Vec<_> = report["partitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pass| pass["partition"].clone())
        .collect();
    assert_eq!(partitions, ["0", "1", "2"]);
}

#[test]
fn streams_are_listed_shown_and_created() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(dir.path(), &[]);
    assert_eq!(
        served
            .run(&[
                "streams",
                "create",
                "Orders",
                "--partitions",
                "4",
                "--ocid",
                "ocid1.o"
            ])
            .expect(0)
            .out,
        "Orders made\n"
    );
    let again = served.run(&["streams", "create", "Orders"]).expect(1);
    assert!(again.err.contains("409 exists"), "{again:?}");
    let list = served.run(&["streams", "ls"]).expect(0).out;
    let row = list
        .lines()
        .find(|line| line.starts_with("Orders "))
        .unwrap();
    assert_eq!(
        row.split_whitespace().collect::<Vec<_>>(),
        ["Orders", "4", "api", "ocid1.o"]
    );
    assert_eq!(list.lines().count(), 7, "{list}");
    let shown = served.run(&["streams", "show", "Orders"]).expect(0).out;
    assert!(shown.contains("partitions  4\n"), "{shown}");
    assert_eq!(
        served.json(&["streams", "show", "Orders"])["bounds"]
            .as_array()
            .unwrap()
            .len(),
        4
    );
}

#[test]
fn streams_are_purged_for_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let target = Target::start();
    let served = Served::start(dir.path(), &[]);
    let message = file(dir.path(), "m.json", &target.message("/404"));
    served.run(&["sync", message.to_str().unwrap()]).expect(0);
    assert_eq!(target.next_call(), "/404");
    assert_eq!(served.dispatched(), 1);
    let purge = ["streams", "purge", "UnrecoverableErrorStream"];
    let without = served.run(&purge).expect(2);
    assert!(without.err.contains("--reason"), "{without:?}");
    let purge = [&purge[..], &["--reason", "it is known", "--yes"]].concat();
    assert_eq!(
        served.run(&purge).expect(0).out,
        "UnrecoverableErrorStream purged: 1 record removed, 1 of them was open and is discarded\n"
    );
    let all = served.json(&[&purge[..], &["--discard-pending"]].concat());
    assert_eq!((&all["removed"], &all["discarded"]), (&json!(0), &json!(0)));
    let shown = served
        .run(&["streams", "show", "UnrecoverableErrorStream"])
        .expect(0)
        .out;
    assert!(shown.contains("it is known"), "{shown}");

    let message = file(dir.path(), "m.json", &target.message("/held"));
    served.run(&["sync", message.to_str().unwrap()]).expect(0);
    assert_eq!(target.next_call(), "/held");
    let purge = ["streams", "purge", "DataSyncStream", "--reason", "x"];
    let refused = served.run(&purge).expect(1);
    let what = "nothing was purged: DataSyncStream has 1 record without dispatch; --discard-pending gives them up";
    assert!(refused.err.contains(what), "{refused:?}");
    let purge = [&purge[..], &["--yes"]].concat();
    let refused = served.run(&purge).expect(1);
    assert!(refused.err.contains("409 stream_in_use"), "{refused:?}");
    let done = served.json(&[&purge[..], &["--discard-pending"]].concat());
    assert_eq!(
        (&done["removed"], &done["discarded"]),
        (&json!(2), &json!(1))
    );
    target.let_go.send(()).unwrap();
}

#[test]
fn the_demo_ends_as_expected_and_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let output = syncgate(&["demo"])
        .env("TMPDIR", temporary.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let ended = super::process::Ended::from(output).expect(0);
    for word in [
        "accepted",
        "delivered",
        "→ ServerUnavailableStream (status 503)",
        "SYNCGATE.DataSyncStream  INSERT  0.6  order-6  POST http://127.0.0.1:",
        "Everything came as expected",
    ] {
        assert!(ended.out.contains(word), "{ended:?}");
    }
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
}
