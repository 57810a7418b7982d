//! The cron line of the manual, run as cron runs it.

use std::process::Output;

use serde_json::json;

use super::UNAVAILABLE;
use crate::testkit::{Act, Gateway, StubTarget, keyed, poll, syncgate};

const LEN: u64 = 12;

/// Returns what stands behind the five fields of time and `syncgate`.
fn cron_line() -> Vec<String> {
    let page = crate::docs::page_text("retry");
    let mut lines = page.lines().filter(|line| line.starts_with("*/5 * * * * "));
    let line = lines.next().expect("a cron line");
    assert_eq!(lines.next(), None, "another cron line");
    let mut words = line.split_whitespace().skip(5).map(str::to_owned);
    assert_eq!(words.next().as_deref(), Some("syncgate"));
    words.collect()
}

async fn run(gateway: &Gateway) -> Output {
    let mut command = syncgate();
    command.args(cron_line()).env("SYNCGATE_URL", &gateway.url);
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

#[tokio::test]
async fn records_stay_in_their_stream_while_their_target_is_down_and_are_delivered_when_it_is_up() {
    let target = StubTarget::with(|_| Act::status(503)).await;
    let gateway = Gateway::with_config("[[streams]]\nname = \"DataSyncStream\"\npartitions = 4\n");
    let messages: Vec<_> = (0..LEN)
        .map(|n| keyed(&format!("k{n}"), &target.url("/x"), json!({ "n": n })))
        .collect();
    gateway.sync_all(&messages).await;
    poll("the first dispatch to fail", async || {
        (gateway.count(UNAVAILABLE, "open").await == LEN).then_some(())
    })
    .await;
    for round in 0..2 {
        let ended = run(&gateway).await;
        assert_eq!(ended.status.code(), Some(1), "{round}: {ended:?}");
        assert_eq!(gateway.count(UNAVAILABLE, "open").await, LEN, "{ended:?}");
        let (out, err) = (
            String::from_utf8_lossy(&ended.stdout).into_owned(),
            String::from_utf8_lossy(&ended.stderr).into_owned(),
        );
        assert!(out.contains("MOVED TO"), "{out}");
        assert!(out.contains(UNAVAILABLE), "{out}");
        let last = format!(
            "{LEN} records are still open here; see `syncgate records {UNAVAILABLE} --open`\n"
        );
        assert!(out.ends_with(&last), "{out}");
        assert!(
            err.contains(" records failed again, and none was delivered"),
            "{err}"
        );
    }
    for stream in [
        "DefaultErrorStream",
        "InternalserverErrorStream",
        "UnrecoverableErrorStream",
    ] {
        assert_eq!(gateway.count(stream, "appended").await, 0, "{stream}");
    }
    let before = target.calls().len();
    target.now(|_| Act::status(200));
    let ended = run(&gateway).await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert_eq!(gateway.count(UNAVAILABLE, "open").await, 0, "{ended:?}");
    let calls = target.calls();
    let mut delivered: Vec<_> = calls[before..]
        .iter()
        .map(|call| call.json()["n"].as_u64().unwrap())
        .collect();
    delivered.sort_unstable();
    assert_eq!(delivered, (0..LEN).collect::<Vec<_>>());
    // There is nothing left to do, and that is no failure.
    let ended = run(&gateway).await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}
