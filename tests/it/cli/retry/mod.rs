//! `syncgate retry`: loops, and what it says about a call that was stopped.

mod loops;
mod partitions;
mod scripted;

use serde_json::{Value, json};

use super::process::{DEADLINE, Served, Target, file};

const DEFAULT: &str = "DefaultErrorStream";
const UNAVAILABLE: &str = "ServerUnavailableStream";

/// A gateway with `len` records in the default stream, whose target answers 418 again.
fn failed(dir: &tempfile::TempDir, len: usize) -> (Served, Target) {
    let target = Target::start();
    let config = "[retry]\nfailing_calls_max = 7\nin_flight_max = 1\n";
    let config = file(dir.path(), "gate.toml", config);
    let served = Served::start(dir.path(), &["--config", config.to_str().unwrap()]);
    let messages = vec![target.message("/418"); len].join("\n");
    let messages = file(dir.path(), "m.ndjson", &messages);
    served.run(&["sync", messages.to_str().unwrap()]).expect(0);
    assert_eq!(served.dispatched(), len as u64);
    (served, target)
}

/// Runs a command whose calls fail and deliver nothing, and returns what it printed as JSON.
#[track_caller]
fn in_vain(served: &Served, arguments: &[&str]) -> Value {
    let ended = served.run(&[arguments, &["--output", "json"]].concat());
    let ended = ended.expect(1);
    let said = " failed again, and none was delivered";
    assert!(ended.err.contains(said), "{ended:?}");
    ended.json()
}

/// What fails comes back behind the end: the default stream is its own default.
#[test]
fn a_loop_over_a_stream_mapped_to_itself_calls_each_record_once() {
    let dir = tempfile::tempdir().unwrap();
    let (served, _target) = failed(&dir, 5);
    for first in [0, 5] {
        let after = (first - 1).to_string();
        let arguments = ["retry", DEFAULT, "--loop", "--max", "2", "--after", &after];
        let looped = in_vain(&served, &arguments);
        let pass = &looped["partitions"][0];
        assert_eq!(
            (
                &pass["failedMessages"],
                &pass["lastReadOffset"],
                &pass["endOfStream"],
                &pass["calls"]
            ),
            (&json!(5), &json!(first + 4), &json!(true), &json!(3)),
            "{looped}"
        );
    }
    let records = served.json(&["records", DEFAULT, "--limit", "1000"]);
    let retries = records["items"].as_array().unwrap().iter();
    let retries: Vec<_> = retries.map(|one| &one["headers"]["retries"]).collect();
    let expected = [["0"; 5], ["1"; 5], ["2"; 5]].concat();
    assert_eq!(retries, expected);
}

#[test]
fn a_target_that_only_fails_ends_a_loop_with_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let (served, target) = failed(&dir, 12);
    let ended = served.run(&["retry", DEFAULT, "--loop"]).expect(1);
    let said = format!("the first 7 calls to {} all came to 418", target.url);
    assert!(ended.err.contains(&said), "{ended:?}");
    let row = ended.out.lines().nth(1).unwrap();
    let row: Vec<_> = row.split_whitespace().collect();
    assert_eq!(row, ["0", "1", "0", "7", "0", "6", "no"], "{ended:?}");
    let way = format!(
        "partition 0 not at the end: calls to {} failed alike (418)",
        target.url
    );
    assert!(ended.out.contains(&way), "{ended:?}");
}

/// The loop that cron runs, while the breaker of the target is open.
#[test]
fn a_target_that_is_open_ends_a_loop_with_an_error_that_says_until_when() {
    let dir = tempfile::tempdir().unwrap();
    let hour = [
        ("SYNCGATE_DISPATCH__BACKOFF_MS", "3600000"),
        ("SYNCGATE_DISPATCH__BACKOFF_MS_MAX", "3600000"),
    ];
    let served = Served::start_with(dir.path(), &[], &hour);
    let target = Target::start();
    let messages = vec![target.message("/502"); 12].join("\n");
    let messages = file(dir.path(), "m.ndjson", &messages);
    served.run(&["sync", messages.to_str().unwrap()]).expect(0);
    // The others stay in the main stream.
    let begun = std::time::Instant::now();
    let failed = loop {
        assert!(begun.elapsed() < DEADLINE, "too few have failed");
        let ledger = served.json(&["streams", "show", UNAVAILABLE]);
        let failed = ledger["bounds"][0]["open"].as_u64().unwrap();
        if failed >= 5 {
            break failed;
        }
    };
    for group in [&[][..], &["--group", "cron"], &["--partition", "*"]] {
        let arguments = [&["retry", UNAVAILABLE, "--loop"], group].concat();
        let ended = served.run(&arguments).expect(1);
        let said = format!("{} is not called before 20", target.url);
        assert!(ended.err.contains(&said), "{ended:?}");
        assert!(ended.err.contains("left for it"), "{ended:?}");
        let row = ended.out.lines().nth(1).unwrap();
        let row: Vec<_> = row.split_whitespace().collect();
        assert_eq!(row, ["0", "1", "0", "0", "0", "-", "no"], "{ended:?}");
    }
    // To go on at once would end in the same way.
    let ended = served.run(&["retry", UNAVAILABLE]).expect(1);
    let way = format!(" left for {}; call again after 20", target.url);
    assert!(ended.out.contains(&way), "{ended:?}");
    assert!(!ended.out.contains("go on with"), "{ended:?}");
    let shown = served.json(&["streams", "show", UNAVAILABLE]);
    assert!(shown["bounds"][0]["open"].as_u64().unwrap() >= failed);
}

/// A loop asks for calls of three seconds by itself.
#[test]
fn a_loop_takes_what_time_the_gateway_allows() {
    let dir = tempfile::tempdir().unwrap();
    let config = file(dir.path(), "gate.toml", "[retry]\ntime_budget_ms = 500\n");
    let served = Served::start(dir.path(), &["--config", config.to_str().unwrap()]);
    let looped = served.json(&["retry", DEFAULT, "--loop"]);
    assert_eq!(looped["partitions"][0]["endOfStream"], true, "{looped}");
    let long = ["retry", DEFAULT, "--loop", "--time-budget-ms", "501"];
    let ended = served.run(&long).expect(1);
    let said = "--time-budget-ms: this must be a whole number from 1 to 500\n       (the gateway answered 400 invalid_request";
    assert!(ended.err.contains(said), "{ended:?}");
}

#[test]
fn a_dry_run_leaves_the_offset_file_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (served, _target) = failed(&dir, 3);
    let offsets = dir.path().join("offsets");
    let file = offsets.to_str().unwrap();
    let after = |arguments: &[&str]| {
        let kept = ["retry", DEFAULT, "--max", "1", "--offset-file", file];
        let arguments = [&kept[..], arguments].concat();
        let told = match arguments.contains(&"--dry-run") {
            true => served.json(&arguments),
            false => in_vain(&served, &arguments),
        };
        let last = told["partitions"][0]["lastReadOffset"].clone();
        (last, std::fs::read(&offsets).ok())
    };
    assert_eq!(after(&["--dry-run"]), (json!(0), None));
    let (last, kept) = after(&[]);
    assert_eq!(last, 0);
    assert!(kept.is_some());
    assert_eq!(after(&["--dry-run"]), (json!(1), kept.clone()));
    assert_ne!(after(&[]), (json!(1), kept));
}

#[test]
fn a_filter_chooses_records_and_one_that_is_wrong_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (served, target) = failed(&dir, 3);
    let chosen = |conditions: &[&str]| {
        let filters = conditions
            .iter()
            .flat_map(|condition| ["--filter", condition]);
        let mut arguments = vec!["retry", DEFAULT, "--dry-run"];
        arguments.extend(filters);
        let pass = &served.json(&arguments)["partitions"][0];
        (pass["attempted"].clone(), pass["unmatched"].clone())
    };
    let here = format!("target={}", target.url);
    assert_eq!(
        chosen(&[&here, "cause=404", "cause=4xx", "key="]),
        (json!(3), json!(0))
    );
    assert_eq!(chosen(&["cause=network"]), (json!(0), json!(3)));
    let ended = served
        .run(&["retry", DEFAULT, "--filter", "status=418"])
        .expect(1);
    assert!(ended.err.contains("400 filter_invalid"), "{ended:?}");
}

#[test]
fn a_group_goes_on_in_the_next_run_and_a_dry_run_leaves_it() {
    let dir = tempfile::tempdir().unwrap();
    let (served, _target) = failed(&dir, 5);
    let elsewhere = "418=ServerUnavailableStream";
    let run = |more: &[&str]| {
        let arguments = [
            "retry", DEFAULT, "--max", "2", "--map", elsewhere, "--group", "cron",
        ];
        let arguments = [&arguments, more].concat();
        let ended = served.run(&[&arguments[..], &["--output", "json"]].concat());
        let report = ended.json();
        let failed = report["partitions"][0]["failedMessages"].as_u64();
        let code = i32::from(failed != Some(0));
        assert_eq!(ended.code, Some(code), "{ended:?}");
        let pass = &report["partitions"][0];
        (pass["attempted"].clone(), pass["lastReadOffset"].clone())
    };
    assert_eq!(run(&[]), (json!(2), json!(1)));
    assert_eq!(run(&["--dry-run", "--loop"]), (json!(3), json!(4)));
    assert_eq!(run(&["--loop"]), (json!(3), json!(4)));
    assert_eq!(run(&["--loop"]), (json!(0), json!(4)));
    // What was moved is called again only if that is asked for.
    assert_eq!(run(&["--after", "2", "--redeliver"]), (json!(2), json!(4)));
    let twice = ["retry", DEFAULT, "--group", "cron", "--offset-file", "x"];
    served.run(&twice).expect(2);
}

#[test]
fn what_is_wrong_is_told_once_and_in_the_words_of_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(dir.path(), &[]);
    for (arguments, said) in [
        (
            &["Nowhere"][..],
            "error: STREAM: no stream is called `Nowhere`; list them with: syncgate streams ls --url ",
        ),
        (
            &[DEFAULT, "--partition", "7"],
            "error: --partition: the stream has partitions 0 to 0\n",
        ),
        (
            &[DEFAULT, "--max", "0"],
            "error: --max: this must be a whole number from 1 to 100000\n",
        ),
        (
            &[DEFAULT, "--map", "404=Nowhere"],
            "error: --map: no stream is called `Nowhere`; list them with: syncgate streams ls --url ",
        ),
        (&[DEFAULT, "--filter", "status=1"], "--filter status: "),
    ] {
        let ended = served.run(&[&["retry"], arguments].concat()).expect(1);
        assert!(ended.err.contains(said), "{ended:?}");
        assert!(!ended.err.contains("\n       /"), "{ended:?}");
    }
}
