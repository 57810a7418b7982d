//! Restarts with lagging targets: other targets do not wait while their records are read. No record is lost or called
//! out of order, whatever the stored checkpoint says.

use std::{fs, future::Future, path::Path};

use serde_json::Value;
use tempfile::TempDir;

use super::{
    harness::{Harness, SOURCE, message, record},
    stub::{StubTarget, within},
};
use crate::{
    config::Config,
    model::record::Record,
    storage::{Commit, Log, State, StateChange},
};

fn narrow(config: &mut Config) {
    config.dispatch.queue_len_max = 64;
    config.dispatch.in_flight_max = 2;
    config.dispatch.attempt_timeout_ms = 600_000;
    config.dispatch.response_timeout_ms = 600_000;
    config.log.segment_bytes = 64 << 20;
}

fn numbered(target: &StubTarget, key: &str, at: usize) -> Record {
    record(key, &message(target.address, &format!("/{key}/{at}")), &[])
}

fn key_of_checkpoint(gateway: &Harness) -> String {
    format!("behind/{}", gateway.partition(SOURCE, 0))
}

async fn checkpoint(gateway: &Harness) -> Option<Value> {
    let stored = gateway.engine.get(&key_of_checkpoint(gateway)).await?;
    Some(serde_json::from_slice(&stored.value).unwrap())
}

async fn until_checkpoint(gateway: &Harness, holds: impl Fn(&Value) -> bool) {
    within("the checkpoint", async {
        while !checkpoint(gateway).await.as_ref().is_some_and(&holds) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Stores a value in place of a checkpoint.
async fn forge(gateway: &Harness, key: &str, value: &str) {
    let change = StateChange {
        key: key.into(),
        value: Some(value.to_owned().into()),
        expected: None,
    };
    let commit = Commit {
        state: vec![change],
        ..Commit::default()
    };
    gateway.engine.commit(commit).await.unwrap();
}

/// Answers calls while something else goes on; returns the paths too.
async fn answering<T>(
    target: &mut StubTarget,
    during: impl Future<Output = T>,
) -> (T, Vec<String>) {
    let mut paths = Vec::new();
    let mut during = std::pin::pin!(during);
    loop {
        tokio::select! {
            done = &mut during => return (done, paths),
            call = target.next_call() => {
                paths.push(call.path.clone());
                call.answer(200);
            }
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => match fs::copy(entry.path(), to) {
                // A file that is only made ready may get its name meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            },
        }
    }
}

/// The directory as a crash would leave it now.
pub(super) fn crashed(gateway: &Harness) -> TempDir {
    let dir = TempDir::new().unwrap();
    // The index is rebuilt.
    copy(
        &gateway.dir.path().join("journal"),
        &dir.path().join("journal"),
    );
    dir
}

#[tokio::test]
async fn a_live_target_does_not_wait_until_the_backlog_of_another_is_read() {
    const EACH: usize = 10_000;
    let (mut hanging, mut live) = (StubTarget::start().await, StubTarget::start().await);
    let gateway = Harness::start(narrow).await;
    let pair = |at| [numbered(&hanging, "k", at), numbered(&live, "k", at)];
    let records: Vec<_> = (0..EACH).flat_map(pair).collect();
    for some in records.chunks(1_000) {
        gateway.append(SOURCE, 0, some.to_vec()).await;
    }
    let held = hanging.next_call().await;
    for at in 0..EACH {
        let call = live.next_call().await;
        assert_eq!(call.path, format!("/k/{at}"));
        call.answer(200);
    }
    held.answer(200);
    let (dir, called) = answering(&mut hanging, gateway.stop()).await;

    let gateway = Harness::start_in(dir, 1, narrow).await;
    gateway
        .append(SOURCE, 0, vec![numbered(&live, "k", EACH)])
        .await;
    let call = live.next_call().await;
    assert_eq!(call.path, format!("/k/{EACH}"));
    // Some are read for the other target meanwhile; all of them would be twice as many.
    let read = gateway.stats.read_records.get();
    assert!(read < EACH as u64, "{read} records were read for it");
    call.answer(200);
    for at in (called.len() + 1..).take(200) {
        let call = hanging.next_call().await;
        assert_eq!(call.path, format!("/k/{at}"));
        call.answer(200);
    }
}

#[tokio::test]
async fn records_in_flight_at_a_crash_are_called_again_before_later_ones() {
    let (mut hanging, mut live) = (StubTarget::start().await, StubTarget::start().await);
    let gateway = Harness::start(narrow).await;
    let mut records = Vec::new();
    for at in 0..300 {
        records.push(numbered(&hanging, "k", at));
        records.push(numbered(&live, "b", at));
        if at == 99 {
            records.push(numbered(&live, "a", 0));
        }
    }
    records.push(numbered(&live, "a", 1));
    gateway.append(SOURCE, 0, records).await;
    let mut held = vec![hanging.next_call().await];
    for _ in 0..=300 {
        let call = live.next_call().await;
        match call.path.as_str() {
            "/a/0" => held.push(call),
            _ => call.answer(200),
        }
    }
    gateway
        .append(SOURCE, 0, vec![numbered(&live, "a", 2)])
        .await;
    within("the ends to be stored", async {
        while gateway.counts(SOURCE).delivered < 300 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // The scanner is past all of it.
    until_checkpoint(&gateway, |checkpoint| checkpoint["scanned"] == 200).await;
    let dir = crashed(&gateway);
    held.into_iter().for_each(|call| call.answer(200));
    answering(&mut hanging, answering(&mut live, gateway.stop())).await;

    let gateway = Harness::start_in(dir, 1, narrow).await;
    for at in 0..3 {
        let call = live.next_call().await;
        assert_eq!(call.path, format!("/a/{at}"));
        call.answer(200);
    }
    for at in 0..300 {
        let call = hanging.next_call().await;
        assert_eq!(call.path, format!("/k/{at}"));
        call.answer(200);
    }
    assert_eq!(gateway.settled().await.delivered, 603);
    assert!(live.waiting_call().is_none(), "nothing was called twice");
    // No target is lagging.
    within("the checkpoint to go", async {
        while checkpoint(&gateway).await.is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Starts over 200 open records of two targets with this value as checkpoint, in which `A` stands for the first target; checks
/// that all are called once, and in order unless the checkpoint leaves out the first ones: it is believed about those behind.
async fn start_with(value: &str) {
    let (mut a, mut b) = (StubTarget::start().await, StubTarget::start().await);
    let gateway = Harness::start_in(TempDir::new().unwrap(), 1, |config| {
        narrow(config);
        config.dispatch.queue_len_max = 1_000;
    })
    .await;
    let pair = |at| [numbered(&a, "k", at), numbered(&b, "k", at)];
    gateway
        .append(SOURCE, 0, (0..100).flat_map(pair).collect())
        .await;
    let held = [a.next_call().await, b.next_call().await];
    let value = value.replace('A', &a.url(""));
    forge(&gateway, &key_of_checkpoint(&gateway), &value).await;
    let dir = crashed(&gateway);
    held.into_iter().for_each(|call| call.answer(200));
    answering(&mut a, answering(&mut b, gateway.stop())).await;

    let gateway = Harness::start_in(dir, 1, |config| {
        narrow(config);
        config.dispatch.queue_len_max = 8;
    })
    .await;
    let leaves_out = value.contains(r#""from":90"#) || value.contains(r#""from":199"#);
    let all = async |target: &mut StubTarget| {
        let mut paths = Vec::new();
        for _ in 0..100 {
            let call = target.next_call().await;
            paths.push(call.path.clone());
            call.answer(200);
        }
        let mut expected: Vec<_> = (0..100).map(|at| format!("/k/{at}")).collect();
        if leaves_out {
            expected.sort();
            paths.sort();
        }
        assert_eq!(paths, expected, "{value}");
    };
    tokio::join!(all(&mut a), all(&mut b));
    assert_eq!(gateway.settled().await.delivered, 200, "{value}");
    assert!(a.waiting_call().is_none() && b.waiting_call().is_none());
}

#[tokio::test]
async fn a_checkpoint_that_is_wrong_loses_nothing() {
    for value in [
        // One of the two is not named.
        r#"{"version":1,"scanned":200,"behind":[{"target":"A","from":0}]}"#,
        // It begins too late.
        r#"{"version":1,"scanned":200,"behind":[{"target":"A","from":90}]}"#,
        // Neither is named.
        r#"{"version":1,"scanned":200,"behind":[{"target":"http://no.example:80","from":0}]}"#,
        r#"{"version":1,"scanned":200,"behind":[{"target":null,"from":199}]}"#,
        // Of no use at all.
        r#"{"version":1,"scanned":201,"behind":[{"target":"A","from":0}]}"#,
        r#"{"version":2,"scanned":200,"behind":[{"target":"A","from":0}]}"#,
        r#"{"version":1,"scanned":200,"behind":[]}"#,
        "",
    ] {
        start_with(value).await;
    }
}

#[tokio::test]
async fn checkpoints_about_streams_that_are_gone_are_removed_at_the_start() {
    let gateway = Harness::start(narrow).await;
    let gone = format!("behind/{}/0", "0".repeat(32));
    forge(&gateway, &gone, "{}").await;
    forge(&gateway, "other/0", "{}").await;
    let dir = gateway.stop().await;
    let gateway = Harness::start_in(dir, 1, narrow).await;
    within("the checkpoint to go", async {
        while gateway.engine.get(&gone).await.is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(gateway.engine.get("other/0").await.is_some());
}
