//! The configuration is read again while the gateway runs.

mod keys;

use std::{fs, process::Command};

use serde_json::{Value, json};

use crate::testkit::{Act, Answer, Gateway, Place, StubTarget, keyed, message, poll, syncgate};

/// Whoever runs the tests under `nohup` hands its deafness on.
const HEARS_HANGUPS: [&str; 2] = ["env", "--default-signal=HUP"];
const LATER: &str = "ServerUnavailableStream";
const NEVER: &str = "UnrecoverableErrorStream";

fn told(applied: &[&str], needs_restart: &[&str]) -> Value {
    json!({"applied": applied, "needsRestart": needs_restart})
}

/// Waits until the log has a line with all of these words.
async fn logged(gateway: &Gateway, words: &[&str]) {
    poll(&format!("{words:?} in the log"), async || {
        let log = gateway.place().log();
        let has_all = |line: &str| words.iter().all(|word| line.contains(word));
        log.lines().any(has_all).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_stream_for_401_and_403_comes_by_a_reload_without_a_restart() {
    let target = StubTarget::by_path().await;
    let gateway = Gateway::with_config("# nothing yet\n");
    gateway
        .sync(&message(&target.url("/status/401"), json!(1)))
        .await;
    gateway.record("DefaultErrorStream", 1).await;
    let auth = "[[streams]]\nname = \"Auth\"\n[outcomes]\n401 = \"Auth\"\n403 = \"Auth\"\n";
    let answer = gateway.reload(auth).await.ok();
    assert_eq!(
        answer,
        told(&["outcomes.401", "outcomes.403", "streams[0]"], &[])
    );
    for status in [401, 403] {
        gateway
            .sync(&message(
                &target.url(&format!("/status/{status}")),
                json!(2),
            ))
            .await;
    }
    let record = gateway.record("Auth", 2).await;
    assert_eq!(record["cause"]["class"], "status", "{record}");
    assert_eq!(gateway.records("DefaultErrorStream").await.len(), 1);
    let stream = gateway.get("/v1/streams/Auth").await.ok();
    assert_eq!(stream["madeBy"], "config");
    assert_eq!(stream["roles"], json!(["outcome"]));
    // And a restart finds the same.
    let gateway = gateway.stop().await.start();
    assert_eq!(gateway.reload(auth).await.ok(), told(&[], &[]));
}

#[tokio::test]
async fn a_hangup_reloads_and_tells_the_log() {
    let target = StubTarget::by_path().await;
    let place = Place::with_config("# nothing yet\n").started_by(&HEARS_HANGUPS);
    let gateway = place.start();
    gateway.write_config("[outcomes]\n404 = \"unavailable\"\n[log]\ncache_bytes = 65536\n");
    gateway.signal("HUP");
    let words = ["configuration reloaded", "outcomes.404", "log.cache_bytes"];
    logged(&gateway, &words).await;
    gateway
        .sync(&message(&target.url("/status/404"), json!(1)))
        .await;
    gateway.record(LATER, 1).await;
    gateway.write_config("[outcomes]\n404 = \"nowhere\"\n[server]\ngrace_ms = \"x\"\n");
    gateway.signal("HUP");
    logged(&gateway, &["ERROR", "line 2: outcomes.404:", "\"nowhere\""]).await;
    logged(&gateway, &["ERROR", "line 4: server.grace_ms:"]).await;
    logged(&gateway, &["ERROR", "nothing of it is applied"]).await;
    gateway
        .sync(&message(&target.url("/status/404"), json!(2)))
        .await;
    gateway.record(LATER, 2).await;
}

#[tokio::test]
async fn a_hangup_during_the_start_is_a_reload_after_it() {
    let target = StubTarget::start().await;
    let gateway = Gateway::start();
    gateway.sync(&keyed("k", &target.url("/x"), json!(1))).await;
    gateway.drained("DataSyncStream").await;
    let place = gateway.stop().await;
    let held = place.path().join("pipe");
    let made = Command::new("mkfifo").arg(&held).status();
    assert!(made.unwrap().success());
    let key = format!("[secrets]\nmaster_key_command = [\"cat\", {held:?}]\n");
    let place = place.configured(&key);
    let kept = place.data().join("master.key");
    let gateway = place.started_by(&HEARS_HANGUPS).start_slowly();
    // The start waits at the pipe for its end.
    let pipe = poll("the master key being read", async || {
        use std::os::unix::fs::OpenOptionsExt;
        const O_NONBLOCK: i32 = 0o4000;
        let mut options = fs::OpenOptions::new();
        options
            .write(true)
            .custom_flags(O_NONBLOCK)
            .open(&held)
            .ok()
    })
    .await;
    gateway.write_config(&format!("[server]\ngrace_ms = 77\n{key}"));
    gateway.signal("HUP");
    std::io::Write::write_all(&mut &pipe, &fs::read(&kept).unwrap()).unwrap();
    drop(pipe);
    logged(&gateway, &["configuration reloaded", "server.grace_ms"]).await;
}

#[tokio::test]
async fn a_bad_configuration_changes_nothing_and_every_wrong_key_is_named() {
    let target = StubTarget::by_path().await;
    let good = "[outcomes]\n404 = \"unavailable\"\n[sync]\nkey_bytes_max = 4\n";
    let gateway = Gateway::with_config(good);
    let before = gateway.get("/v1/streams").await.ok();
    let bad = "[outcomes]\n404 = \"default\"\n[sync]\nkey_bytes_max = 1\nanswer = \"jsn\"\n[dispatch]\nin_flight_max = 0\n\
               [[streams]]\nname = \"New\"\n[sever]\nx = 1\n";
    let problem = gateway.reload(bad).await.problem(422, "config_invalid");
    let errors: Vec<_> = problem["errors"].as_array().unwrap().iter().collect();
    let wrong = [
        (
            "sync.answer",
            "line 5: unknown variant `jsn`, expected `json` or `text`",
        ),
        (
            "dispatch.in_flight_max",
            "line 7: is 0, but must be 1 to 10000",
        ),
        (
            "sever",
            "line 10: unknown section; did you mean \"server\"?",
        ),
    ];
    assert_eq!(errors.len(), wrong.len(), "{problem}");
    for (error, (key, detail)) in errors.iter().zip(wrong) {
        assert_eq!(
            (&error["pointer"], &error["code"]),
            (&json!(key), &json!("setting_invalid"))
        );
        assert!(
            error["detail"].as_str().unwrap().contains(detail),
            "{error}"
        );
    }
    // Neither the stream nor the limit nor the table.
    assert_eq!(gateway.get("/v1/streams").await.ok(), before);
    gateway
        .sync(&keyed("four", &target.url("/status/404"), json!(1)))
        .await;
    gateway.record(LATER, 1).await;
    fs::remove_file(gateway.place().config_file()).unwrap();
    let answer = gateway.post("/v1/reload", &json!({})).await;
    let problem = answer.problem(422, "config_invalid");
    let detail = problem["errors"][0]["detail"].as_str().unwrap();
    assert!(
        detail.contains("syncgate.toml: cannot be read"),
        "{problem}"
    );
    assert_eq!(gateway.reload(good).await.ok(), told(&[], &[]));
}

#[tokio::test]
async fn without_a_file_a_reload_finds_nothing_new() {
    let gateway = Place::new()
        .env("SYNCGATE_OUTCOMES__404", "default")
        .start();
    let answer = gateway.post("/v1/reload", &json!({})).await.ok();
    assert_eq!(answer, told(&[], &[]));
}

#[tokio::test]
async fn what_the_environment_says_wins_over_the_file_at_a_reload_too() {
    let place = Place::with_config("# nothing yet\n");
    let gateway = place.env("SYNCGATE_SYNC__ANSWER", "json").start();
    let answer = gateway
        .reload("[sync]\nanswer = \"text\"\n[server]\nlisten = \"127.0.0.1:1\"\n")
        .await;
    assert_eq!(answer.ok(), told(&[], &[]));
}

#[tokio::test]
async fn reloads_at_the_same_time_are_one_after_the_other() {
    let gateway = Gateway::with_config("# nothing yet\n");
    gateway.write_config(
        "[[streams]]\nname = \"Orders\"\npartitions = 3\n[outcomes]\n404 = \"Orders\"\n",
    );
    let ask = async || gateway.post("/v1/reload", &json!({})).await;
    let all: [Answer; 4] = tokio::join!(ask(), ask(), ask(), ask()).into();
    let mut applied: Vec<Value> = all
        .into_iter()
        .map(|answer| answer.ok()["applied"].clone())
        .collect();
    applied.sort_by_key(|keys| keys.as_array().unwrap().len());
    let once = json!(["outcomes.404", "streams[0]"]);
    assert_eq!(applied, [json!([]), json!([]), json!([]), once]);
    let stream = gateway.get("/v1/streams/Orders").await.ok();
    assert_eq!(stream["partitions"], 3);
}

#[tokio::test]
async fn what_needs_a_restart_is_told_until_there_was_one() {
    let gateway = Gateway::with_config("[logging]\nformat = \"json\"\n");
    let text = "[logging]\nformat = \"text\"\n[log]\ndedup_len_max = 7\n[roles]\nsource = \"Orders\"\n[server]\ngrace_ms = 7\n";
    let waits = ["log.dedup_len_max", "logging.format", "roles.source"];
    let answer = gateway.reload(text).await.ok();
    assert_eq!(answer, told(&["server.grace_ms"], &waits));
    assert_eq!(gateway.reload(text).await.ok(), told(&[], &waits));
    gateway
        .get("/v1/streams/Orders")
        .await
        .problem(404, "stream_unknown");
    let gateway = gateway.stop().await.start();
    assert_eq!(gateway.reload(text).await.ok(), told(&[], &[]));
    gateway.get("/v1/streams/Orders").await.ok();
}

#[tokio::test]
async fn the_source_stream_grows_while_records_are_pending() {
    let target = StubTarget::with(|_| Act::Hold).await;
    let gateway = Gateway::with_config("# nothing yet\n");
    gateway.sync(&message(&target.url("/x"), json!(1))).await;
    target.wait_for_calls(1).await;
    let text = "[[streams]]\nname = \"DataSyncStream\"\npartitions = 4\n[outcomes]\n404 = \"unavailable\"\n";
    let answer = gateway.reload(text).await.ok();
    assert_eq!(answer, told(&["outcomes.404", "streams[0]"], &[]));
    assert_eq!(gateway.count("DataSyncStream", "open").await, 1);
    for stream in [
        "DataSyncStream",
        LATER,
        NEVER,
        "DefaultErrorStream",
        "InternalserverErrorStream",
    ] {
        let stream = gateway.get(&format!("/v1/streams/{stream}")).await.ok();
        assert_eq!(stream["partitions"], 4, "{stream}");
    }
    target.release(1);
    gateway.drained("DataSyncStream").await;
    target.now(|_| Act::status(404));
    for n in 0..4 {
        gateway.sync(&message(&target.url("/x"), json!(n))).await;
    }
    gateway.drained("DataSyncStream").await;
    assert_eq!(gateway.count(LATER, "open").await, 4);
    // Partitions cannot go, and nothing else of such a file is taken.
    let fewer = text.replace("= 4", "= 3").replace("unavailable", "default")
        + "[[streams]]\nname = \"DefaultErrorStream\"\npartitions = 2\n";
    let problem = gateway.reload(&fewer).await.problem(422, "config_invalid");
    assert_eq!(problem["errors"][1]["pointer"], "streams[1].partitions");
    assert_eq!(problem["errors"][0]["pointer"], "streams[0].partitions");
    let detail = problem["errors"][0]["detail"].as_str().unwrap();
    assert!(
        detail.contains("line 3: ") && detail.contains("give it 4 or more"),
        "{problem}"
    );
    gateway.sync(&message(&target.url("/x"), json!(9))).await;
    gateway.drained("DataSyncStream").await;
    assert_eq!(gateway.count(LATER, "open").await, 5);
}

#[tokio::test]
async fn when_a_stream_cannot_change_no_part_takes_a_setting_and_the_next_reload_takes_all() {
    let target = StubTarget::by_path().await;
    let gateway = Gateway::with_config("# nothing yet\n");
    let more = json!({ "partitions": 2 });
    for stream in [LATER, NEVER] {
        let path = format!("/v1/streams/{stream}");
        let request = gateway.request(reqwest::Method::PATCH, &path).json(&more);
        gateway.send(request).await.ok();
    }
    // One setting of each part, and a stream that would lose a partition.
    let text = "[outcomes]\n404 = \"unavailable\"\n[sync]\nanswer = \"text\"\nkey_bytes_max = 1\n[retry]\nrecords_max = 1\n\
                [retention]\nerror_hours = 1\n[logging]\nlevel = \"error\"\n[server]\ngrace_ms = 77\n\
                [[streams]]\nname = \"UnrecoverableErrorStream\"\npartitions = 1\n";
    let problem = gateway.reload(text).await.problem(422, "config_invalid");
    assert_eq!(problem["errors"][0]["pointer"], "streams[0].partitions");
    // `sync` reads a JSON answer.
    for n in 0..2 {
        let url = target.url("/status/404");
        gateway.sync(&keyed("four", &url, json!(n))).await;
    }
    gateway.drained("DataSyncStream").await;
    assert_eq!(gateway.count(LATER, "open").await, 0);
    assert_eq!(gateway.count(NEVER, "open").await, 2);
    let retried = gateway.retry(NEVER, -1, 2).await;
    assert_eq!(retried["failedMessages"], 2, "{retried}");
    logged(&gateway, &["ERROR", "nothing of it is applied"]).await;

    let text = text.replace("partitions = 1", "partitions = 2");
    let keys = [
        "logging.level",
        "outcomes.404",
        "retention.error_hours",
        "retry.records_max",
        "server.grace_ms",
        "streams[0]",
        "sync.answer",
        "sync.key_bytes_max",
    ];
    assert_eq!(gateway.reload(&text).await.ok(), told(&keys, &[]));
    let four = keyed("four", &target.url("/x"), json!(1));
    let answer = gateway.post("/stream/sync", &four).await;
    assert!(answer.status.is_client_error(), "{answer:?}");
}

#[tokio::test]
async fn the_command_tells_it_to_people_and_to_programs() {
    let gateway = Gateway::with_config("# nothing yet\n");
    let run = |arguments: &[&str]| {
        let mut command = syncgate();
        let output = command
            .args(["reload", "--url", &gateway.url])
            .args(arguments)
            .output();
        let output = output.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    assert_eq!(
        run(&[]),
        (Some(0), "nothing has changed\n".into(), String::new())
    );
    gateway.write_config(
        "[server]\ngrace_ms = 7\nlisten = \"127.0.0.1:1\"\n[log]\ncache_bytes = 65536\n",
    );
    let rows = "applied          server.grace_ms\nneeds a restart  log.cache_bytes\n";
    assert_eq!(run(&[]), (Some(0), rows.into(), String::new()));
    let (code, out, _) = run(&["--output", "json"]);
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, answer), (Some(0), told(&[], &["log.cache_bytes"])));
    gateway.write_config("[server]\ngrace_ms = 3600001\n");
    let (code, out, err) = run(&[]);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(
        err.starts_with("error: the configuration is wrong: nothing of it is applied\n"),
        "{err}"
    );
    assert!(
        err.contains("server.grace_ms: ")
            && err.contains("line 2: is 3600001, but must be 0 to 3600000"),
        "{err}"
    );
}
