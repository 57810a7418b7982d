//! `syncgate retry` of a stream with several partitions.

use std::path::Path;

use serde_json::{Value, json};

use super::super::process::{Served, Target, file};

const INTERNAL: &str = "InternalserverErrorStream";
const LEN: u64 = 40;

/// A gateway with records in four partitions, whose target answers 500 again.
fn failed(dir: &Path) -> (Served, Target) {
    let config =
        "[[streams]]\nname = \"DataSyncStream\"\npartitions = 4\n[retry]\nfailing_calls_max = 0\n";
    let config = file(dir, "gate.toml", config);
    let served = Served::start(dir, &["--config", config.to_str().unwrap()]);
    let target = Target::start();
    let message = target.message("/500");
    let keyed = |n| message.replacen('{', &format!("{{\"streamKey\":\"k{n}\","), 1);
    let messages: Vec<_> = (0..LEN).map(keyed).collect();
    let messages = file(dir, "m.ndjson", &messages.join("\n"));
    served.run(&["sync", messages.to_str().unwrap()]).expect(0);
    assert_eq!(served.dispatched(), LEN);
    (served, target)
}

fn json_of(served: &Served, arguments: &[&str]) -> Vec<Value> {
    let ended = served.run(&[arguments, &["--output", "json"]].concat());
    let partitions = ended.json()["partitions"].take();
    partitions.as_array().unwrap().clone()
}

fn sum(passes: &[Value], name: &str) -> u64 {
    passes.iter().map(|pass| pass[name].as_u64().unwrap()).sum()
}

#[test]
fn all_partitions_are_retried_and_one_is_if_it_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (served, _target) = failed(dir.path());
    let one = json_of(
        &served,
        &["retry", INTERNAL, "--partition", "2", "--dry-run"],
    );
    assert_eq!((one.len(), &one[0]["partition"]), (1, &json!("2")));
    let of_one = sum(&one, "attempted");
    assert!(0 < of_one && of_one < LEN, "{one:?}");
    let all = json_of(&served, &["retry", INTERNAL, "--dry-run"]);
    let names: Vec<_> = all.iter().map(|pass| &pass["partition"]).collect();
    assert_eq!(names, ["0", "1", "2", "3"]);
    assert_eq!(sum(&all, "attempted"), LEN);

    let ended = served
        .run(&["retry", INTERNAL, "--loop", "--max", "3"])
        .expect(1);
    let rows: Vec<Vec<_>> = ended
        .out
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0][0], "PARTITION", "{ended:?}");
    for (partition, row) in (0..4).zip(&rows[1..]) {
        assert_eq!(
            (row[0], row[2]),
            (&*partition.to_string(), "0"),
            "{ended:?}"
        );
        assert_eq!(row.last(), Some(&"yes"), "{ended:?}");
    }
    assert_eq!(rows[6], ["MOVED", "TO", "RECORDS"], "{ended:?}");
    assert_eq!(rows[7], [INTERNAL, "40"], "{ended:?}");
    let said = "40 records failed again, and none was delivered";
    assert!(ended.err.contains(said), "{ended:?}");
}

#[test]
fn an_offset_needs_a_partition_and_files_and_groups_have_one_for_each() {
    let dir = tempfile::tempdir().unwrap();
    let (served, _target) = failed(dir.path());
    let ended = served.run(&["retry", INTERNAL, "--after", "3"]).expect(2);
    let said = "--after 3 is an offset of one partition, and InternalserverErrorStream has 4: give --partition P too";
    assert!(ended.err.contains(said), "{ended:?}");
    let all = json_of(&served, &["retry", INTERNAL, "--after", "-1", "--dry-run"]);
    assert_eq!(sum(&all, "attempted"), LEN);
    let one = [
        "retry",
        INTERNAL,
        "--partition",
        "1",
        "--after",
        "0",
        "--dry-run",
    ];
    assert_eq!(json_of(&served, &one)[0]["lastAnswer"]["startOffset"], 1);

    let offsets = dir.path().join("offsets");
    let offsets = offsets.to_str().unwrap();
    for kept in [["--offset-file", offsets], ["--group", "nightly"]] {
        // The tails grow by what fails again.
        let tails = served.json(&["streams", "show", INTERNAL]);
        let tails = tails["bounds"].as_array().unwrap().clone();
        let arguments = [&["retry", INTERNAL, "--loop"], &kept[..]].concat();
        let passes = json_of(&served, &arguments);
        assert_eq!(sum(&passes, "failedMessages"), LEN, "{passes:?}");
        for (pass, bounds) in passes.iter().zip(&tails) {
            let last = pass["lastReadOffset"].as_u64().unwrap();
            assert_eq!(last + 1, bounds["tail"].as_u64().unwrap(), "{pass}");
        }
        let arguments = [&["retry", INTERNAL, "--dry-run"], &kept[..]].concat();
        for (pass, before) in json_of(&served, &arguments).iter().zip(&passes) {
            let start = pass["lastAnswer"]["startOffset"].as_i64().unwrap();
            assert_eq!(
                start - 1,
                before["lastReadOffset"].as_i64().unwrap(),
                "{pass}"
            );
        }
    }
    let ended = served.run(&["retry", INTERNAL, "--max", "1", "--offset-file", offsets]);
    let way = format!(
        "go on with the same command: {offsets} holds where this run came to, or take --loop"
    );
    assert!(ended.out.contains(&way), "{ended:?}");
}
