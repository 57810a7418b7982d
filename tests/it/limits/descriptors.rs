//! File descriptors: idle clients and targets that hang take their share, and no more.

use std::net::TcpStream;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net,
};

use crate::testkit::{Act, Gateway, Place, StubTarget, message, poll, within};

/// Starts the gateway where it may open 128 files.
const LOW: &[&str] = &["sh", "-c", "ulimit -n 128; exec \"$0\" \"$@\""];

/// Files of a MiB, so that a few messages fill one; nothing ends by itself while a test looks.
const SMALL_FILES: &str = "[server]\nrequest_timeout_ms = 600000\n[log]\nsegment_bytes = 1048576\n\
     [sync]\nrecord_bytes_max = 262144\nbatch_bytes_max = 524288\n";

/// A message of about 100 KB.
fn large(url: &str, n: usize) -> serde_json::Value {
    message(url, json!({"n": n, "fill": "x".repeat(100_000)}))
}

fn newest_segment(place: &Place) -> u64 {
    let newest = place.segments().pop().unwrap();
    newest
        .file_stem()
        .unwrap()
        .to_string_lossy()
        .parse()
        .unwrap()
}

#[tokio::test]
async fn idle_clients_and_targets_that_hang_leave_the_log_its_files_and_others_their_calls() {
    let config = format!(
        "{SMALL_FILES}[dispatch]\nresponse_timeout_ms = 3600000\nattempt_timeout_ms = 3600000\n"
    );
    let gateway = Place::with_config(&config).started_by(LOW).start();
    // From here on this client has a connection.
    gateway.get("/healthz").await.ok();
    let address = gateway.url.strip_prefix("http://").unwrap();
    let idle: Vec<_> = (0..120)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    let mut hanging = Vec::new();
    for _ in 0..16 {
        hanging.push(StubTarget::with(|_| Act::Hang).await);
    }
    for target in &hanging {
        for n in 0..8 {
            gateway.sync(&message(&target.url("/"), json!(n))).await;
        }
    }
    for target in &hanging {
        target.wait_for_calls(1).await;
    }
    let prompt = StubTarget::start().await;
    let before = newest_segment(gateway.place());
    for n in 0..40 {
        gateway.sync(&large(&prompt.url("/"), n)).await;
    }
    prompt.wait_for_calls(40).await;
    assert!(newest_segment(gateway.place()) >= before + 3);
    gateway.get("/readyz").await.ok();
    let calls: usize = hanging.iter().map(|target| target.calls().len()).sum();
    assert!((16..=32).contains(&calls), "{calls}");
    let log = gateway.place().log();
    assert!(log.contains("may open 128 files"), "{log}");
    assert!(!log.contains("no connection could be accepted"), "{log}");
    // Whoever waited in the kernel's queue is served once others have gone.
    drop(idle);
    let newcomer = crate::testkit::client().get(format!("{}/healthz", gateway.url));
    let served = within("an answer", newcomer.send()).await.unwrap();
    assert!(served.status().is_success());
    // And targets that answer again get what waited.
    for target in &hanging {
        target.now(|_| Act::status(200));
    }
}

#[tokio::test]
async fn the_soft_limit_is_raised_to_the_hard_one() {
    const SOFT: &[&str] = &[
        "sh",
        "-c",
        "ulimit -Hn 600; ulimit -Sn 40; exec \"$0\" \"$@\"",
    ];
    let gateway = Place::with_config(SMALL_FILES).started_by(SOFT).start();
    let address = gateway.url.strip_prefix("http://").unwrap();
    let mut connected = Vec::new();
    for _ in 0..80 {
        let mut client = within("a connection", net::TcpStream::connect(address))
            .await
            .unwrap();
        let request = format!("GET /healthz HTTP/1.1\r\nhost: {address}\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        within("an answer", client.read_exact(&mut answer))
            .await
            .unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        connected.push(client);
    }
}

/// Changes how many files a running gateway may open.
fn allow(gateway: &Gateway, files: u64) {
    let pid = Pid::from_raw(i32::try_from(gateway.pid()).unwrap());
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: Some(files),
        maximum,
    };
    prlimit(pid, Resource::Nofile, limit).unwrap();
}

#[tokio::test]
async fn without_a_free_descriptor_everything_waits_and_nothing_is_lost() {
    let gateway = Gateway::with_config(SMALL_FILES);
    gateway.get("/healthz").await.ok();
    let (before, target) = (StubTarget::start().await, StubTarget::start().await);
    gateway.sync(&message(&before.url("/"), json!(0))).await;
    before.wait_for_calls(1).await;
    // None of the numbers below is free, so nothing can be opened.
    allow(&gateway, 4);
    let waiting = async {
        let waits = "waits until a file descriptor is free";
        poll("the log to wait", async || {
            gateway.place().log().contains(waits).then_some(())
        })
        .await;
        // The door is open, but nobody comes in.
        let address = gateway.url.strip_prefix("http://").unwrap();
        let stranger = TcpStream::connect(address).unwrap();
        let refused = "no connection could be accepted";
        poll("an accept to fail", async || {
            gateway.place().log().contains(refused).then_some(())
        })
        .await;
        assert_eq!(target.connections_len(), 0);
        allow(&gateway, 1024);
        drop(stranger);
    };
    let posting = async {
        for n in 0..30 {
            gateway.sync(&large(&target.url("/"), n)).await;
        }
    };
    tokio::join!(waiting, posting);
    target.wait_for_calls(30).await;
    gateway.drained("DataSyncStream").await;
    assert_eq!(target.calls().len(), 30);
    assert_eq!(gateway.count("DataSyncStream", "delivered").await, 31);
    gateway.get("/readyz").await.ok();
    let log = gateway.place().log();
    assert!(!log.contains("attempt failed"), "{log}");
    assert!(!log.contains("the log has stopped"), "{log}");
}

#[tokio::test]
async fn idle_connections_give_way_to_other_targets_when_descriptors_are_scarce() {
    // No connection is closed because of its age while the test looks.
    let config = format!("{SMALL_FILES}[dispatch]\nidle_timeout_ms = 86400000\n");
    let gateway = Place::with_config(&config).started_by(LOW).start();
    // 128 files leave 32 connections to targets.
    let mut targets = Vec::new();
    for n in 0..40 {
        let target = StubTarget::start().await;
        gateway.sync(&message(&target.url("/"), json!(n))).await;
        target.wait_for_calls(1).await;
        gateway.drained("DataSyncStream").await;
        targets.push(target);
    }
    // As long as they are not scarce, an idle connection is used again.
    let first = &targets[0];
    gateway.sync(&message(&first.url("/"), json!(40))).await;
    first.wait_for_calls(2).await;
    assert_eq!(first.connections_len(), 1);
}
