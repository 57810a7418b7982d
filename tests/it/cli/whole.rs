//! The commands one after the other against one gateway: many messages in, all failed, all brought back.

use std::{
    io::Write,
    process::{Output, Stdio},
};

use serde_json::{Value, json};

use crate::testkit::{Act, Gateway, StubTarget, keyed, syncgate};

/// Runs a command to its end, beside the async tests.
async fn run(arguments: &[&str], input: &str) -> Output {
    let mut command = syncgate();
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let input = input.to_owned();
    let ended = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().unwrap();
        // A command that reads no input may have closed it.
        let _written = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    });
    ended.await.unwrap()
}

#[track_caller]
fn ended(output: &Output, code: i32) -> String {
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert_eq!(
        output.status.code(),
        Some(code),
        "stdout: {out}\nstderr: {err}"
    );
    format!("{out}{err}")
}

#[track_caller]
fn json_of(output: &Output) -> Value {
    ended(output, 0);
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("no JSON: {}", String::from_utf8_lossy(&output.stdout)))
}

#[tokio::test]
async fn sync_retry_records_and_streams_do_what_the_api_does() {
    // After a 500 the next call begins at once. A 503 would have each of them wait.
    let target = StubTarget::with(|_| Act::status(500)).await;
    let gateway = Gateway::start();
    let url = gateway.url.as_str();
    ended(&run(&["healthcheck", "--url", url], "").await, 0);

    let lines: Vec<_> = (0..2_500)
        .map(|n| keyed(&format!("k{}", n % 100), &target.url("/x"), json!(n)).to_string())
        .collect();
    let file = gateway.place().path().join("messages.ndjson");
    std::fs::write(&file, lines.join("\n")).unwrap();
    ended(
        &run(&["sync", file.to_str().unwrap(), "--url", url], "").await,
        0,
    );
    ended(&run(&["sync", "-", "--url", url], &lines[0]).await, 0);
    gateway.drained("DataSyncStream").await;
    assert_eq!(
        gateway.count("InternalserverErrorStream", "open").await,
        2_501
    );
    let said = ended(
        &run(
            &["sync", "-", "--url", url],
            r#"{"streamMessage":{"targetRestApiOperation":"POST"}}"#,
        )
        .await,
        1,
    );
    assert!(said.contains("/streamMessage/targetRestApi"), "{said}");

    let records = json_of(
        &run(
            &[
                "records",
                "InternalserverErrorStream",
                "--limit",
                "2",
                "--url",
                url,
                "--output",
                "json",
            ],
            "",
        )
        .await,
    );
    assert_eq!(records["items"].as_array().unwrap().len(), 2);
    let said = ended(
        &run(
            &[
                "records",
                "InternalserverErrorStream",
                "--limit",
                "2",
                "--url",
                url,
            ],
            "",
        )
        .await,
        0,
    );
    assert!(said.contains("500"), "{said}");

    target.now(|_| Act::status(200));
    let offsets = gateway.place().path().join("offset");
    let offset_file = offsets.to_str().unwrap();
    let one = [
        "retry",
        "InternalserverErrorStream",
        "--max",
        "1000",
        "--offset-file",
        offset_file,
        "--url",
        url,
    ];
    ended(&run(&one, "").await, 0);
    assert_eq!(
        gateway
            .count("InternalserverErrorStream", "delivered")
            .await,
        1_000
    );
    assert!(std::fs::read_to_string(&offsets).unwrap().contains("999"));
    let all = [
        "retry",
        "InternalserverErrorStream",
        "--loop",
        "--max",
        "600",
        "--offset-file",
        offset_file,
        "--url",
        url,
        "--output",
        "json",
    ];
    ended(&run(&all, "").await, 0);
    assert_eq!(gateway.count("InternalserverErrorStream", "open").await, 0);
    assert_eq!(target.calls().len(), 2 * 2_501);

    ended(
        &run(
            &[
                "streams",
                "create",
                "Mine",
                "--partitions",
                "3",
                "--url",
                url,
            ],
            "",
        )
        .await,
        0,
    );
    let list = json_of(&run(&["streams", "ls", "--url", url, "--output", "json"], "").await);
    assert!(
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .any(|stream| stream["name"] == "Mine")
    );
    let shown = json_of(
        &run(
            &["streams", "show", "Mine", "--url", url, "--output", "json"],
            "",
        )
        .await,
    );
    assert_eq!(shown["partitions"], 3);
    ended(
        &run(&["streams", "show", "Nowhere", "--url", url], "").await,
        1,
    );
    ended(&run(&["retry", "Nowhere", "--url", url], "").await, 1);
}
