//! A DNS server that says nothing, in a network namespace of its own, so that it can have port 53.
//!
//! The system's resolver is asked there as everywhere: names stand in `hosts`, all others go to the server.

use std::{fmt::Write as _, path::Path, process::Command};

use serde_json::json;
use tempfile::TempDir;
use tokio::net::UdpSocket;

use crate::testkit::{Gateway, StubTarget, message, poll, within};

/// Set where the test runs inside the namespace.
const INSIDE: &str = "SYNCGATE_TEST_INSIDE";

/// Files of `/etc` that are others inside, from the directory that is the first argument; then the command.
const ENTER: &str = "ip link set lo up || exit; \
    for file in resolv.conf hosts nsswitch.conf; do mount --bind \"$1/$file\" /etc/$file || exit; done; \
    shift; exec \"$@\"";

const SILENT_LEN: usize = 400;
const HEALTHY_LEN: usize = 40;
const LOOKUPS_MAX: usize = 128;

fn inside(etc: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "--mount"]);
    command.args(["sh", "-c", ENTER, "sh"]).arg(etc);
    command
}

#[tokio::test]
async fn names_that_no_server_answers_fail_no_healthy_target() {
    if std::env::var_os(INSIDE).is_some() {
        return beside_a_silent_server().await;
    }
    let etc = TempDir::new().unwrap();
    let mut hosts = "127.0.0.1 localhost".to_owned();
    for at in 0..HEALTHY_LEN {
        write!(hosts, " api{at}.good.example").unwrap();
    }
    for (file, text) in [
        ("resolv.conf", "nameserver 127.0.0.1\n"),
        ("hosts", &(hosts + "\n")),
        ("nsswitch.conf", "hosts: files dns\n"),
    ] {
        std::fs::write(etc.path().join(file), text).unwrap();
    }
    let tried = inside(etc.path()).arg("true").output();
    match tried {
        Ok(tried) if tried.status.success() => {}
        Ok(tried) => {
            let why = String::from_utf8_lossy(&tried.stderr);
            return eprintln!("SKIPPED: no network namespace can be made here: {why}");
        }
        Err(error) => return eprintln!("SKIPPED: unshare cannot be run here: {error}"),
    }
    let ran = inside(etc.path())
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "dns::names_that_no_server_answers_fail_no_healthy_target",
        ])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
}

async fn beside_a_silent_server() {
    let silent = UdpSocket::bind("127.0.0.1:53").await.unwrap();
    let target = StubTarget::start().await;
    let gateway = Gateway::start();
    let url = |host: String| format!("http://{host}:{}/x", target.port());
    let post = async |len: usize, host: fn(usize) -> String| {
        let each = |at| message(&url(host(at)), json!(at));
        gateway
            .sync_all(&(0..len).map(each).collect::<Vec<_>>())
            .await;
    };
    post(SILENT_LEN, |at| format!("t{at}.silent.example")).await;
    poll("names that wait", async || {
        let text = gateway.get("/metrics").await.ok();
        let mut lines = text.as_str().unwrap().lines();
        let waiting = lines.find_map(|line| line.strip_prefix("syncgate_lookups_waiting "))?;
        // More than there would be if the names had all look-ups, fewer than 400 less 16 if the machine is slow.
        (waiting.parse::<usize>().unwrap() > SILENT_LEN - LOOKUPS_MAX).then_some(())
    })
    .await;
    post(HEALTHY_LEN, |at| format!("api{at}.good.example")).await;
    target.wait_for_calls(HEALTHY_LEN).await;
    poll("the healthy targets", async || {
        let delivered = gateway.count("DataSyncStream", "delivered").await;
        (delivered == HEALTHY_LEN as u64).then_some(())
    })
    .await;
    let failed = gateway.all_records("ServerUnavailableStream").await;
    let is_silent = |record: &serde_json::Value| record.to_string().contains("silent.example");
    assert!(failed.iter().all(is_silent), "{failed:?}");
    // Nobody has answered, and somebody was asked.
    let mut question = [0; 512];
    let asked = silent.recv_from(&mut question);
    within("a question to the server", asked).await.unwrap();
    drop(gateway.kill());
}
