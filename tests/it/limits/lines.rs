//! Log lines: each member once, and lines that nobody reads.

use std::{
    fs::File,
    io::{Read, Write, pipe},
};

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::{Value, json};

use crate::testkit::{Act, Place, StubTarget, message, poll};

/// More than a pipe and the lines that may wait hold together.
const MESSAGES: usize = 9_000;

async fn dropped(gateway: &crate::testkit::Gateway) -> Option<u64> {
    let text = gateway.get("/metrics").await.ok();
    let name = "syncgate_log_lines_dropped_total ";
    let mut lines = text.as_str()?.lines();
    let line = lines.find_map(|line| line.strip_prefix(name))?;
    line.parse().ok()
}

#[tokio::test]
async fn a_standard_error_that_nobody_reads_stops_nothing_and_what_is_lost_is_counted() {
    let target = StubTarget::start().await;
    let (mut reader, writer) = pipe().unwrap();
    let place = Place::with_config("[logging]\nlevel = \"debug\"\nformat = \"json\"\n");
    let gateway = place.start_logging_to(writer);
    let url = target.url("/");
    let mut sent = 0;
    while sent < MESSAGES {
        let messages: Vec<_> = (0..500).map(|n| message(&url, json!(n))).collect();
        gateway.sync_all(&messages).await;
        sent += messages.len();
    }
    target.wait_for_calls(MESSAGES).await;
    gateway.drained("DataSyncStream").await;
    let lost = poll("lines to be dropped", async || {
        dropped(&gateway).await.filter(|lost| *lost > 0)
    })
    .await;
    // Once somebody reads, the log says how many lines are missing, and goes on to its end.
    let reading = std::thread::spawn(move || {
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        said
    });
    let place = gateway.stop().await;
    drop(place);
    let said = reading.join().unwrap();
    let told: Vec<serde_json::Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .filter(|line: &serde_json::Value| line["lines"].is_u64())
        .collect();
    let sum: u64 = told.iter().filter_map(|line| line["lines"].as_u64()).sum();
    assert!(sum >= lost, "{sum} of {lost}: {told:?}");
    assert!(said.trim_end().ends_with('}'));
    assert!(said.lines().last().unwrap().contains("stopped"), "{said}");
}

#[tokio::test]
async fn a_start_that_fails_ends_though_nobody_reads_why_and_says_why_if_somebody_does() {
    let place = Place::new();
    std::fs::write(place.data(), "no directory").unwrap();
    let said = place.start_refused().await;
    assert_eq!(said.status.code(), Some(3));
    let text = String::from_utf8(said.stderr).unwrap();
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("error: cannot take the lock"), "{text}");
    // A pipe that is full, and that nobody empties.
    let (reader, writer) = pipe().unwrap();
    let full = File::from(std::os::fd::OwnedFd::from(writer));
    rustix::io::ioctl_fionbio(&full, true).unwrap();
    while (&full).write(&[b'x'; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&full, false).unwrap();
    let mut child = place.command_logging_to(full).spawn().unwrap();
    let status = poll("the process to end", async || child.try_wait().unwrap()).await;
    assert_eq!(status.code(), Some(3));
    drop(reader);
}

/// An object, read by a reader that refuses a member that is there twice.
struct Once(serde_json::Map<String, Value>);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Once;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Once, A::Error> {
                let mut members = serde_json::Map::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if members.insert(name.clone(), value).is_some() {
                        return Err(A::Error::custom(format!("{name} is there twice")));
                    }
                }
                Ok(Once(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

#[tokio::test]
async fn a_json_line_has_each_member_once() {
    let target = StubTarget::with(|_| Act::status(503)).await;
    let config = "[dispatch]\nattempts_max = 2\nbackoff_ms = 1\n[logging]\nlevel = \"debug\"\nformat = \"json\"\n";
    let gateway = Place::with_config(config).start();
    let messages = vec![message(&target.url("/"), json!(1)); 20];
    gateway.sync_all(&messages).await;
    // The breaker opens, and closes once the target is well again.
    target.wait_for_calls(10).await;
    target.now(|_| Act::status(200));
    gateway.drained("DataSyncStream").await;
    gateway.retry("ServerUnavailableStream", -1, 100).await;
    gateway.get("/v1/nowhere").await.problem(404, "not_found");
    let place = gateway.stop().await;
    let log = place.log();
    let lines: Vec<_> = log
        .lines()
        .map(|line| {
            serde_json::from_str::<Once>(line).unwrap_or_else(|error| panic!("{error}: {line}"))
        })
        .map(|Once(members)| members)
        .collect();
    for line in &lines {
        for name in ["timestamp", "level", "module", "message"] {
            assert!(line[name].is_string(), "{line:?}");
        }
    }
    // Those that had two: what is called, and the module that calls.
    for said in [
        "attempt failed",
        "breaker opened: the target is not called for now",
        "record delivered",
    ] {
        let line = lines.iter().find(|line| line["message"] == said);
        let line = line.unwrap_or_else(|| panic!("{said} is not in {log}"));
        assert_eq!(line["target"], target.url(""), "{line:?}");
        assert_eq!(line["module"], "syncgate::dispatch::worker");
    }
}
