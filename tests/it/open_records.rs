//! `open=true`: the records without an end, and what those wait for that are called again.

use serde_json::{Value, json};
use syncgate::clock::{Clock, Timestamp};

use crate::harness::{Act, Gateway, StubTarget, keyed, poll, syncgate};

const INTERNAL: &str = "InternalserverErrorStream";

async fn open(gateway: &Gateway, stream: &str, query: &str) -> Value {
    let path = format!("/v1/streams/{stream}/partitions/0/records?open=true{query}");
    gateway.get(&path).await.ok()
}

fn offsets(page: &Value) -> Vec<u64> {
    let items = page["items"].as_array().unwrap().iter();
    items.map(|item| item["offset"].as_u64().unwrap()).collect()
}

/// Runs `syncgate records --open` and returns what it prints.
fn printed(gateway: &Gateway, stream: &str) -> String {
    let ended = syncgate()
        .args(["records", stream, "--open", "--url", &gateway.url])
        .output()
        .unwrap();
    assert!(ended.status.success(), "{ended:?}");
    String::from_utf8(ended.stdout).unwrap()
}

#[tokio::test]
async fn what_no_retry_has_settled_is_open_in_an_error_stream() {
    let target = StubTarget::with(|_| Act::status(500)).await;
    let gateway = Gateway::start();
    for n in 0..5 {
        let message = keyed("k", &target.url("/x"), json!(n));
        gateway.sync(&message).await;
    }
    gateway.record(INTERNAL, 5).await;
    target.now(|_| Act::status(200));
    assert_eq!(
        offsets(&open(&gateway, INTERNAL, "").await),
        [0, 1, 2, 3, 4]
    );
    gateway.retry(INTERNAL, 1, 2).await;
    let page = open(&gateway, INTERNAL, "").await;
    assert_eq!(
        (offsets(&page), &page["next"]),
        (vec![0, 1, 4], &Value::Null)
    );
    assert_eq!(page["items"][0]["cause"]["status"], 500);
    let page = open(&gateway, INTERNAL, "&from=1&limit=1").await;
    assert_eq!((offsets(&page), &page["next"]), (vec![1], &json!(2)));
    let shown = printed(&gateway, INTERNAL);
    let rows: Vec<_> = shown.lines().collect();
    assert_eq!(rows.len(), 1 + 3 + 1, "{shown}");
    assert!(rows[3].trim_start().starts_with("4 "), "{shown}");
    assert!(
        rows[3].contains("status 500: the target answered 500"),
        "{shown}"
    );
    gateway.retry(INTERNAL, -1, 10).await;
    assert_eq!(offsets(&open(&gateway, INTERNAL, "").await), [0; 0]);
    gateway.drained("DataSyncStream").await;
    assert_eq!(offsets(&open(&gateway, "DataSyncStream", "").await), [0; 0]);
}

#[tokio::test]
async fn a_record_that_its_target_puts_off_shows_its_last_cause_and_when_it_is_due() {
    let target = StubTarget::with(|call| match call.path.as_str() {
        "/later" => Act::Answer(429, vec![("retry-after", "1800".to_owned())]),
        _ => Act::status(200),
    })
    .await;
    let gateway = Gateway::start();
    for (key, path) in [("k", "/later"), ("k", "/behind"), ("l", "/other")] {
        gateway.sync(&keyed(key, &target.url(path), json!(1))).await;
    }
    let stream = "DataSyncStream";
    let page = poll(
        "the first to wait, and the third to be delivered",
        async || {
            let page = open(&gateway, stream, "").await;
            let waits = page["items"][0].get("waiting").is_some();
            (waits && offsets(&page) == [0, 1]).then_some(page)
        },
    )
    .await;
    let waiting = &page["items"][0]["waiting"];
    assert_eq!(
        waiting["cause"],
        json!({"class": "status", "status": 429}),
        "{page}"
    );
    assert_eq!(waiting["attempts"], 1, "{page}");
    let due = Timestamp::parse(waiting["due"].as_str().unwrap()).unwrap();
    let wait = due.since(Clock::system().now()).as_secs();
    assert!((1_000..=1_800).contains(&wait), "{page}");
    // The second waits for its key only.
    assert!(page["items"][1].get("waiting").is_none(), "{page}");
    let shown = printed(&gateway, stream);
    let rows: Vec<_> = shown.lines().collect();
    assert!(
        rows[1].contains("status 429: 1 call, again at 20"),
        "{shown}"
    );
    assert!(!rows[2].contains("again"), "{shown}");
}
