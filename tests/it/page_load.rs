//! Pages of records cost what they show, and leave the way to how the gateway is.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    edge::slow_reader,
    testkit::{Gateway, Place, StubTarget, keyed, poll},
};

const SOURCE: &str = "DataSyncStream";
const MERGED: &str = "/v1/streams/DataSyncStream/partitions/*/records";

/// Bytes that the gateway has read from files so far.
fn read_bytes(gateway: &Gateway) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{}/io", gateway.pid())).unwrap();
    let read = io.lines().find_map(|line| line.strip_prefix("rchar: "));
    read.unwrap().parse().unwrap()
}

/// A gateway whose source stream has 256 partitions with about 24 MiB of settled records, none of them in memory.
async fn wide() -> Gateway {
    const RECORD_BYTES: usize = 16 << 10;
    let target = StubTarget::start().await;
    let gateway = Place::with_config("[log]\ncache_bytes = 65536\n").start();
    let grow = gateway.request(Method::PATCH, "/v1/streams/DataSyncStream");
    gateway
        .send(grow.json(&json!({"partitions": 256})))
        .await
        .ok();
    let payload = Value::from("x".repeat(RECORD_BYTES));
    let messages: Vec<_> = (0..1_500)
        .map(|n| keyed(&format!("k{n}"), &target.url("/x"), payload.clone()))
        .collect();
    for some in messages.chunks(100) {
        gateway.sync_all(some).await;
    }
    gateway.drained(SOURCE).await;
    gateway
}

#[tokio::test]
async fn the_first_record_of_256_partitions_is_found_without_reading_the_others() {
    const READ_BYTES_MAX: u64 = 1 << 20;
    let gateway = wide().await;
    for open in ["", "&at=2026-01-01T00:00:00Z"] {
        let before = read_bytes(&gateway);
        let page = gateway.get(&format!("{MERGED}?limit=1{open}")).await.ok();
        assert_eq!(page["items"].as_array().unwrap().len(), 1, "{page}");
        let read = read_bytes(&gateway) - before;
        println!("limit=1{open}: {read} bytes read");
        assert!(read < READ_BYTES_MAX, "{open}: {read}");
    }
    // It is the oldest one, as the whole says.
    let first = gateway.get(&format!("{MERGED}?limit=1")).await.ok();
    let all = gateway.get(&format!("{MERGED}?limit=200")).await.ok();
    let items = all["items"].as_array().unwrap().iter();
    let times: Vec<_> = items.map(|item| item["time"].as_str().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(first["items"][0], all["items"][0]);
}

#[tokio::test]
async fn thirty_readers_of_all_partitions_do_not_keep_the_status_away() {
    let gateway = wide().await;
    let reader =
        || async { while gateway.get(&format!("{MERGED}?limit=100")).await.status == 200 {} };
    let readers = futures_util::future::join_all((0..30).map(|_| reader()));
    let looks = async {
        for _ in 0..5 {
            // Past the half second for which a report serves.
            tokio::time::sleep(Duration::from_millis(600)).await;
            let began = std::time::Instant::now();
            let status = gateway.get("/v1/status").await.ok();
            println!("status after {:?}", began.elapsed());
            assert_eq!(status["verdict"], "well", "{status}");
            assert_eq!(status["openRecords"]["complete"], true, "{status}");
        }
    };
    tokio::select! {
        _ = readers => panic!("all readers were refused"),
        () = looks => {}
    }
}

/// Slow pages hold some space. The bound is taken down until other answers are refused: those that say how the gateway is
/// still come.
#[tokio::test]
async fn slow_pages_leave_space_for_answers_that_say_how_the_gateway_is() {
    let config = |bytes: usize| format!("[server]\nanswers_bytes_max = {bytes}\n");
    let gateway = Gateway::with_config(&config(64 << 20));
    let payload = Value::from("x".repeat(900 << 10));
    for _ in 0..4 {
        let lost = keyed("k", "http://127.0.0.1:9/x", payload.clone());
        gateway.sync(&lost).await;
    }
    let page = "/v1/streams/DataSyncStream/partitions/0/records";
    let mut slow = Vec::new();
    for _ in 0..4 {
        slow.push(slow_reader(&gateway, page).await);
    }
    // The pages may still take more, so the bound goes up again where it was taken down too far.
    let mut bytes_max: usize = 8 << 20;
    poll("a bound that refuses all but looks", async || {
        gateway.reload(&config(bytes_max)).await.ok();
        for look in ["/v1/status", "/v1/ledger", "/metrics", "/readyz"] {
            if gateway.get(look).await.status != 200 {
                bytes_max += bytes_max / 30;
                return None;
            }
        }
        let other = gateway.get("/v1/streams").await;
        let more = gateway.get(page).await;
        if (other.status.as_u16(), more.status.as_u16()) == (503, 503) {
            other.problem(503, "queue_full");
            more.problem(503, "queue_full");
            return Some(());
        }
        bytes_max -= bytes_max / 20;
        assert!(bytes_max > 1 << 20, "the slow pages hold nothing");
        None
    })
    .await;
}
