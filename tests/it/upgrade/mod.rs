//! A data directory of an earlier release still opens, and positions, cursors and groups of it go on.
//!
//! `before-renaming.seg.gz` is the journal of a release in which the record header `retries` was called `redrives`:
//! - `DataSyncStream` has four records with the keys `k0` to `k3`. The dispatch of `k0` failed with status 408.
//! - `ServerUnavailableStream` has the copy of `k0`. Two failed retries moved it to `DefaultErrorStream`, offsets 0 and 1.
//! - The data stream `s1` shows `DataSyncStream`. Its cursor `c1` has acknowledged [`POSITION`].
//! - The retry group `nightly` has read offset 0 of `DefaultErrorStream`.

use std::{fs, io::Read as _};

use flate2::read::GzDecoder;
use serde_json::{Value, json};

use crate::{
    push::{open, records, xid},
    testkit::{Gateway, Place},
};

const JOURNAL: &[u8] = include_bytes!("before-renaming.seg.gz");
/// The `pos` that the old release gave to record 0.
const POSITION: &str = "p1hUEbha--yddtYM-H1HDdHQEBATZ68FoyUQTa";

/// Starts a gateway on a copy of the old directory.
fn opened() -> Gateway {
    let place = Place::new();
    let journal = place.data().join("journal");
    fs::create_dir_all(&journal).unwrap();
    let mut bytes = Vec::new();
    GzDecoder::new(JOURNAL).read_to_end(&mut bytes).unwrap();
    fs::write(journal.join("0000000001.seg"), bytes).unwrap();
    place.start()
}

fn xids(records: &[Value]) -> Vec<&str> {
    records.iter().map(xid).collect()
}

#[tokio::test]
async fn the_header_redrives_of_an_old_record_is_shown_as_retries() {
    let gateway = opened();
    let unavailable = gateway.records("ServerUnavailableStream").await;
    let headers = unavailable[0]["headers"].as_object().unwrap();
    assert_eq!(headers["retries"], "0");
    assert!(!headers.contains_key("redrives"), "{headers:?}");
    let retries: Vec<_> = gateway.records("DefaultErrorStream").await;
    let retries: Vec<_> = retries.iter().map(|r| &r["headers"]["retries"]).collect();
    assert_eq!(retries, ["1", "2"]);
}

#[tokio::test]
async fn an_old_position_and_an_old_cursor_go_on_at_the_next_record() {
    let gateway = opened();
    let query = format!("?begin={POSITION}");
    let mut by_position = open(&gateway, &query).await.unwrap();
    let behind = records(&mut by_position, 3).await;
    assert_eq!(xids(&behind), ["0.1", "0.2", "0.3"]);

    let cursors = gateway.get("/v1/data-streams/s1/cursors").await.ok();
    assert_eq!(cursors["items"][0]["recordsBehind"], 3, "{cursors}");
    let mut by_cursor = open(&gateway, "?cursor=c1&begin=now").await.unwrap();
    assert_eq!(records(&mut by_cursor, 3).await, behind);
}

#[tokio::test]
async fn an_old_retry_group_goes_on_at_the_next_record() {
    let gateway = opened();
    let body = json!({ "streamOCIDToRetry": "DefaultErrorStream", "noOfMessagesToProcess": 10, "group": "nightly",
        "readPartition": "0", "errormapping": [] });
    let report = gateway.post("/stream/retry", &body).await.ok();
    assert_eq!(
        (&report["startOffset"], &report["attempted"]),
        (&json!(1), &json!(1)),
        "{report}"
    );
}
