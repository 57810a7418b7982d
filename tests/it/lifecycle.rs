//! Start, stop, and directories that are not as they were left.

use std::{fs, io::Write, os::unix::fs::OpenOptionsExt, path::Path, process::Command};

use reqwest::Method;
use serde_json::json;

use crate::testkit::{Act, Gateway, Place, StubTarget, keyed, poll};

/// Whoever runs the tests under `nohup` hands its deafness on.
const HEARS_HANGUPS: [&str; 2] = ["env", "--default-signal=HUP"];

fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_stop_waits_for_attempts_and_loses_nothing() {
    for signal in ["TERM", "INT"] {
        stops_by(signal).await;
    }
}

async fn stops_by(signal: &str) {
    let target = StubTarget::with(|_| Act::Hold).await;
    let gateway = Place::new().start();
    for n in 0..10 {
        gateway
            .sync(&keyed(&n.to_string(), &target.url("/x"), json!(n)))
            .await;
    }
    target.wait_for_calls(10).await;
    gateway.signal(signal);
    poll(
        "readiness to be off, or the listener to be closed",
        async || {
            let request = gateway
                .request(reqwest::Method::GET, "/readyz")
                .send()
                .await;
            (!request.is_ok_and(|answer| answer.status().is_success())).then_some(())
        },
    )
    .await;
    target.release(10);
    let (status, place) = gateway.ended().await;
    assert!(status.success(), "{signal}: {status}");
    let gateway = place.start();
    gateway.drained("DataSyncStream").await;
    assert_eq!(gateway.count("DataSyncStream", "delivered").await, 10);
    assert_eq!(target.calls().len(), 10);
}

#[tokio::test]
async fn a_second_signal_ends_at_once_and_what_was_cut_is_dispatched_again() {
    let target = StubTarget::with(|_| Act::Hang).await;
    let gateway = Gateway::start();
    gateway.sync(&keyed("k", &target.url("/x"), json!(1))).await;
    target.wait_for_calls(1).await;
    gateway.signal("TERM");
    poll("the drain to begin", async || {
        let request = gateway
            .request(reqwest::Method::GET, "/readyz")
            .send()
            .await;
        (!request.is_ok_and(|answer| answer.status().is_success())).then_some(())
    })
    .await;
    gateway.signal("TERM");
    let (status, place) = gateway.ended().await;
    assert!(!status.success());
    target.now(|_| Act::status(200));
    let gateway = place.start();
    target.wait_for_calls(2).await;
    gateway.drained("DataSyncStream").await;
}

/// A hangup would reach it only later, so what is looked at is whether it would be heard at all.
#[tokio::test]
async fn under_nohup_a_hangup_stays_unheard() {
    for (wrapper, heard) in [(&HEARS_HANGUPS[..], true), (&["nohup"], false)] {
        let gateway = Place::new().started_by(wrapper).start();
        let status = fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
        let mut lines = status.lines();
        let caught = lines.find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
        assert_eq!(caught & 1 == 1, heard, "{status}");
        gateway.stop().await;
    }
}

#[tokio::test]
async fn a_signal_during_a_long_start_ends_it_and_harms_nothing() {
    let target = StubTarget::start().await;
    let mut place = used(&target).await;
    let pipe = place.path().join("pipe");
    let command = format!("[secrets]\nmaster_key_command = [\"cat\", {pipe:?}]\n");
    let log = ("the log being opened", place.data().join("index/conf"), "");
    let key = ("the master key being read", pipe, &*command);
    for ((step, held, config), signal) in
        [(&log, "TERM"), (&log, "INT"), (&key, "INT"), (&key, "TERM")]
    {
        // The start waits at a pipe for as long as nothing is written to it.
        let kept = place.path().join("kept");
        let had_file = fs::rename(held, &kept).is_ok();
        let made = Command::new("mkfifo")
            .args(["-m", "600"])
            .arg(held)
            .status();
        assert!(made.unwrap().success());
        place = place.configured(config);
        let gateway = place.start_slowly();
        let silent = poll(step, async || writer_of(held)).await;
        gateway.signal(signal);
        let (status, left) = gateway.ended().await;
        assert!(status.success(), "{step}, {signal}: {status}");
        let said = "ended by a signal before the start was over";
        assert!(
            left.log().contains(said),
            "{step}, {signal}: {}",
            left.log()
        );
        drop(silent);
        fs::remove_file(held).unwrap();
        if had_file {
            fs::rename(&kept, held).unwrap();
        }
        fs::remove_file(left.path().join("log")).unwrap();
        place = left;
    }
    let gateway = place.configured("").start();
    assert_eq!(gateway.records("DataSyncStream").await.len(), 10);
    assert_eq!(
        gateway.sync(&keyed("k", &target.url("/x"), json!(1))).await,
        10
    );
    gateway.drained("DataSyncStream").await;
    assert_eq!(target.calls().len(), 11);
}

/// Opens a pipe for writing, if someone waits at its other end.
fn writer_of(pipe: &Path) -> Option<fs::File> {
    const O_NONBLOCK: i32 = 0o4000;
    let mut options = fs::OpenOptions::new();
    options.write(true).custom_flags(O_NONBLOCK).open(pipe).ok()
}

#[tokio::test]
async fn a_log_that_nobody_reads_any_more_stops_nothing() {
    let target = StubTarget::with(|_| Act::status(404)).await;
    let (reader, writer) = std::io::pipe().unwrap();
    let gateway = Place::new().start_logging_to(writer);
    drop(reader);
    gateway.sync(&keyed("k", &target.url("/x"), json!(1))).await;
    gateway.drained("DataSyncStream").await;
    gateway.signal("TERM");
    let (status, _place) = gateway.ended().await;
    assert!(status.success(), "{status}");
}

/// Ten messages that the target took, and the directory they lie in.
async fn used(target: &StubTarget) -> Place {
    let gateway = Gateway::start();
    for n in 0..10 {
        gateway
            .sync(&keyed(&n.to_string(), &target.url("/x"), json!(n)))
            .await;
    }
    gateway.drained("DataSyncStream").await;
    gateway.stop().await
}

#[tokio::test]
async fn a_newer_format_is_refused_and_left_alone() {
    let target = StubTarget::start().await;
    let place = used(&target).await;
    let segment = place.segments().pop().unwrap();
    let before = fs::read(&segment).unwrap();
    let mut newer = before.clone();
    // Both copies of the header; their checksum is of no matter for a version we cannot read.
    for at in [8, 4096 + 8] {
        newer[at] = 99;
    }
    fs::write(&segment, &newer).unwrap();
    let output = place.start_refused().await;
    assert_eq!(output.status.code(), Some(3));
    assert!(fs::read(&segment).unwrap() == newer, "the file was changed");
    fs::write(&segment, &before).unwrap();
    let gateway = place.configured("").start();
    assert_eq!(gateway.records("DataSyncStream").await.len(), 10);
}

#[tokio::test]
async fn a_flipped_bit_in_the_middle_is_named_and_nothing_is_touched() {
    let target = StubTarget::start().await;
    let place = used(&target).await;
    let segment = place.segments().pop().unwrap();
    let good = fs::read(&segment).unwrap();
    let at = good
        .windows(13)
        .position(|window| window == b"targetRestApi")
        .unwrap();
    let mut bad = good.clone();
    bad[at] ^= 1;
    fs::write(&segment, &bad).unwrap();
    let output = place.start_refused().await;
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let name = segment.file_name().unwrap().to_string_lossy().into_owned();
    assert!(said(&output).contains(&name), "{}", said(&output));
    assert!(fs::read(&segment).unwrap() == bad, "the file was changed");
    fs::write(&segment, &good).unwrap();
    let gateway = place.start();
    assert_eq!(gateway.count("DataSyncStream", "delivered").await, 10);
}

#[tokio::test]
async fn an_index_that_is_gone_cut_or_foreign_is_made_again() {
    let target = StubTarget::start().await;
    let mut place = used(&target).await;
    let other = used(&target).await;
    let index = place.data().join("index");
    type Damage = fn(&std::path::Path, &std::path::Path);
    let damages: [Damage; 4] = [
        |index, _| fs::remove_dir_all(index).unwrap(),
        |index, _| {
            for_each_file(index, |file| {
                fs::File::options()
                    .write(true)
                    .open(file)
                    .unwrap()
                    .set_len(7)
                    .unwrap()
            })
        },
        |index, _| for_each_file(index, |file| fs::write(file, [0xa5; 5000]).unwrap()),
        |index, other| {
            fs::remove_dir_all(index).unwrap();
            fs::create_dir(index).unwrap();
            for_each_file(other, |file| {
                fs::copy(file, index.join(file.file_name().unwrap()))
                    .map(drop)
                    .unwrap()
            });
        },
    ];
    for (at, damage) in damages.into_iter().enumerate() {
        damage(&index, &other.data().join("index"));
        let gateway = place.start();
        let values: Vec<_> = gateway
            .records("DataSyncStream")
            .await
            .iter()
            .map(|record| record["value"]["targetRestApiPayload"].clone())
            .collect();
        assert_eq!(
            values,
            (0..10).map(|n| json!(n)).collect::<Vec<_>>(),
            "damage {at}"
        );
        assert_eq!(gateway.count("DataSyncStream", "delivered").await, 10);
        place = gateway.stop().await;
    }
}

fn for_each_file(dir: &std::path::Path, mut act: impl FnMut(&std::path::Path)) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            act(&path);
        }
    }
}

#[tokio::test]
async fn a_torn_tail_is_cut_off_and_the_rest_is_there() {
    let target = StubTarget::start().await;
    let gateway = Gateway::start();
    gateway
        .sync(&keyed("k", &target.url("/x"), json!("kept")))
        .await;
    gateway.drained("DataSyncStream").await;
    let place = gateway.kill();
    // A crash in the middle of a write leaves bytes of no frame behind the last one.
    let segment = place.segments().pop().unwrap();
    let bytes = fs::read(&segment).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut torn = bytes;
    let until = (end + 700).min(torn.len());
    torn[end.next_multiple_of(8)..until].fill(0x5a);
    fs::write(&segment, torn).unwrap();
    let gateway = place.start();
    assert_eq!(gateway.records("DataSyncStream").await.len(), 1);
    assert_eq!(
        gateway
            .sync(&keyed("k", &target.url("/x"), json!("next")))
            .await,
        1
    );
    target.wait_for_calls(2).await;
}

#[tokio::test]
async fn another_master_key_stops_the_start() {
    let target = StubTarget::start().await;
    let gateway = Gateway::start();
    let request = gateway
        .request(reqwest::Method::POST, "/stream/sync")
        .header("authorization", "tok");
    gateway
        .send(request.json(&keyed("k", &target.url("/x"), json!(1))))
        .await
        .ok();
    let place = gateway.stop().await;
    let key = place.data().join("master.key");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&key).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let good = fs::read(&key).unwrap();
    let mut file = fs::File::create(&key).unwrap();
    file.write_all(b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n")
        .unwrap();
    drop(file);
    let output = place.start_refused().await;
    assert_eq!(output.status.code(), Some(3));
    assert!(said(&output).contains("master key"), "{}", said(&output));
    fs::write(&key, good).unwrap();
    place.start().get("/readyz").await.ok();
}

#[tokio::test]
async fn metrics_health_and_readiness_are_served() {
    let target = StubTarget::start().await;
    let gateway = Gateway::start();
    let messages = [target.url("/x"), "http://127.0.0.1:1/refuses".to_owned()];
    let messages = messages.map(|url| keyed("k", &url, json!(1)));
    gateway.sync_all(&messages).await;
    let with_token = gateway.request(Method::POST, "/stream/sync");
    let with_token = with_token.header("authorization", "Bearer a-token");
    let message = keyed("k", &target.url("/x"), json!(1));
    gateway.send(with_token.json(&message)).await.ok();
    gateway.drained("DataSyncStream").await;
    let config = json!({"source": {"trail": "DataSyncStream"}});
    gateway.post("/services/v2/stream/s", &config).await;
    let cursor = gateway.request(Method::PUT, "/v1/data-streams/s/cursors/c");
    let cursor = cursor.json(&json!({"begin": "earliest"}));
    gateway.send(cursor).await.ok();
    gateway.get("/healthz").await.ok();
    gateway.get("/readyz").await.ok();
    let metrics = gateway.get("/metrics").await.ok();
    let text = metrics.as_str().unwrap();
    assert!(text.ends_with("# EOF\n"));
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let mut served: Vec<_> = types.filter_map(|line| line.split(' ').next()).collect();
    served.sort_unstable();
    // Every metric of the manual is served, and no other.
    let manual =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/metrics.md"));
    let manual = manual.unwrap();
    let is_name = |part: &&str| part.starts_with("syncgate_") || part.starts_with("process_");
    let rows = manual.lines().filter(|line| line.starts_with("| `"));
    let names = rows.flat_map(|row| row.split('`').filter(is_name));
    let mut named: Vec<_> = names
        .filter_map(|name| name.split('{').next())
        .map(|name| name.trim_end_matches("_total").trim_end_matches("_info"))
        .collect();
    named.sort_unstable();
    assert_eq!(served, named, "{text}");
    check_labels(&manual, text);
    let data_stream = r#"{data_stream="s"}"#;
    for sample in [
        "syncgate_accepted_messages_total 3".to_owned(),
        format!("syncgate_push_subscribers{data_stream} 0.0"),
        r#"syncgate_cursor_lag_records{data_stream="s",cursor="c"} 3.0"#.to_owned(),
        format!(
            r#"syncgate_target_attempts_total{{target="{}"}} 2"#,
            target.url("")
        ),
        r#"syncgate_target_failures_total{target="http://127.0.0.1:1",outcome="connect"} 1"#
            .to_owned(),
        r#"syncgate_settled_records_total{stream="DataSyncStream",end="delivered"} 2.0"#.to_owned(),
        r#"syncgate_settled_records_total{stream="DataSyncStream",end="moved"} 1.0"#.to_owned(),
        r#"syncgate_settled_records_total{stream="DataSyncStream",end="expired"} 0.0"#.to_owned(),
        "syncgate_secrets 1.0".to_owned(),
        "syncgate_reload_successful 1".to_owned(),
    ] {
        assert!(
            text.lines().any(|line| line == sample),
            "no {sample} in {text}"
        );
    }
}

#[tokio::test]
async fn metrics_say_whether_the_last_reload_was_applied() {
    let place = Place::new().configured("[dispatch]\nattempts_max = 2\n");
    let file = place.config_file();
    let gateway = place.start();
    let figures = async || {
        let metrics = gateway.get("/metrics").await.ok();
        let text = metrics.as_str().unwrap().to_owned();
        let figure = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().trim().parse::<f64>().unwrap()
        };
        let (is_applied, at) = (
            figure("syncgate_reload_successful "),
            figure("syncgate_reload_time_seconds "),
        );
        (is_applied, at)
    };
    let (is_applied, begun) = figures().await;
    assert_eq!(is_applied, 1.0);
    std::fs::write(&file, "[dispatch]\nattempts_max = 0\n").unwrap();
    assert_eq!(gateway.post("/v1/reload", &json!({})).await.status, 422);
    assert_eq!(figures().await, (0.0, begun));
    std::fs::write(&file, "[dispatch]\nattempts_max = 3\n").unwrap();
    gateway.post("/v1/reload", &json!({})).await.ok();
    let (is_applied, at) = figures().await;
    assert!(is_applied == 1.0 && at > begun, "{is_applied} {at} {begun}");
}

#[tokio::test]
async fn counters_whose_values_are_known_are_there_from_the_start() {
    let gateway = Gateway::start();
    let text = gateway.get("/metrics").await.ok();
    let lines: Vec<_> = text.as_str().expect("a text").lines().collect();
    for (name, values, len) in [
        (
            "refused_requests_total{code",
            ["invalid_message", "queue_full", "secrets_full"],
            16,
        ),
        ("push_closes_total{code", ["1001", "4408", "4429"], 13),
        ("panics_total{part", ["connection", "retry", "target"], 10),
        ("attempts_total{outcome", ["delivered", "5xx", "timeout"], 0),
    ] {
        for value in values {
            let line = format!("syncgate_{name}=\"{value}\"}} 0");
            assert!(lines.contains(&&*line), "{line} is not in {text}");
        }
        let name = format!("syncgate_{name}=");
        let shown = lines.iter().filter(|line| line.starts_with(&name));
        let shown = shown.count();
        assert!(len == 0 || shown == len, "{shown} of {name}");
    }
}

/// Checks that each sample has the labels that the manual names, those of buckets left out.
fn check_labels(manual: &str, text: &str) {
    for row in manual.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let name = cells[1].trim_matches('`');
        let mut named: Vec<&str> = cells[3]
            .split(", ")
            .map(|label| label.trim_matches('`'))
            .collect();
        named.retain(|label| !label.is_empty());
        for sample in text.lines() {
            let (of, labels) = sample.split_once(['{', ' ']).unwrap_or((sample, ""));
            let plain = of.trim_end_matches("_bucket").trim_end_matches("_sum");
            if of != name && plain.trim_end_matches("_count") != name {
                continue;
            }
            let labels = if sample.contains('{') { labels } else { "" };
            let names = labels
                .split("\",")
                .filter_map(|label| label.split_once("=\""))
                .map(|(label, _)| label);
            let shown: Vec<&str> = names.filter(|label| *label != "le").collect();
            assert_eq!(shown, named, "{sample}");
        }
    }
}
