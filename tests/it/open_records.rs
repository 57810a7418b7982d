//! `open=true`: the records without an end, and what those wait for that are called again.

use serde_json::{Value, json};
use syncgate::runtime::clock::{Clock, Timestamp};

use crate::testkit::{Act, Gateway, Place, StubTarget, keyed, poll, syncgate};

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
    let cells: Vec<_> = rows[3].split_whitespace().collect();
    assert_eq!(cells[..2], ["0", "4"], "{shown}");
    assert!(rows[3].contains("  retry  "), "{shown}");
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
            let waits = page["items"][0]["waiting"]["for"] == "retry_after";
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
    assert_eq!(
        page["items"][1]["waiting"],
        json!({"for": "key", "attempts": 0}),
        "{page}"
    );
    let shown = printed(&gateway, stream);
    let rows: Vec<_> = shown.lines().collect();
    // Two looks at the clocks may differ by a microsecond.
    assert!(rows[1].contains("  retry after  20"), "{shown}");
    assert!(rows[1].contains("status 429: 1 call"), "{shown}");
    assert!(rows[2].contains("  key          -  "), "{shown}");
    assert_eq!(
        rows[3],
        "2 open records of the only partition, up to the end"
    );
}

/// Waits until the open records of the main stream, in order, wait for these.
async fn waits_for(gateway: &Gateway, expected: &[&str]) -> Vec<Value> {
    let what = format!("open records to wait for {expected:?}");
    poll(&what, async || {
        let page = open(gateway, "DataSyncStream", "").await;
        let items = page["items"].as_array().unwrap().clone();
        let words = items.iter().map(|item| item["waiting"]["for"].as_str());
        (words.eq(expected.iter().map(|word| Some(*word)))).then_some(items)
    })
    .await
}

#[tokio::test]
async fn each_open_record_says_what_it_waits_for() {
    let target = StubTarget::with(|_| Act::Hold).await;
    let config = "[dispatch]\nin_flight_max = 1\n";
    let gateway = Gateway::with_config(config);
    let url = target.url("/hold");
    // One is called, its key holds the next one up, and the only slot of the target all others.
    for key in ["k", "k", ""] {
        gateway.sync(&keyed(key, &url, json!(1))).await;
    }
    waits_for(&gateway, &["answer", "key", "turn"]).await;
    let shown = printed(&gateway, "DataSyncStream");
    for word in ["  answer  ", "  key  ", "  turn  "] {
        assert!(shown.contains(word), "{shown}");
    }
    let one = gateway
        .get("/v1/streams/DataSyncStream/partitions/0/records/1")
        .await
        .ok();
    assert_eq!(one["waiting"]["for"], "key");
    target.release(3);
    gateway.drained("DataSyncStream").await;
    let one = gateway
        .get("/v1/streams/DataSyncStream/partitions/0/records/1")
        .await
        .ok();
    assert!(one.get("waiting").is_none(), "{one}");
}

#[tokio::test]
async fn records_behind_an_open_breaker_say_so_and_until_when() {
    let target =
        StubTarget::with(|_| Act::Answer(429, vec![("retry-after", "1800".to_owned())])).await;
    let config = "[dispatch]\nin_flight_max = 1\n";
    let gateway = Gateway::with_config(config);
    for n in 0..8 {
        let message = keyed("", &target.url("/busy"), json!(n));
        gateway.sync(&message).await;
    }
    // The first five showed it; of these the target has asked for nothing later than the fifth.
    let mut expected = vec!["target_open"; 8];
    expected[4] = "retry_after";
    let items = waits_for(&gateway, &expected).await;
    let now = Clock::system().now();
    for item in [&items[0], &items[7]] {
        let due = item["waiting"]["due"].as_str().unwrap();
        let wait = Timestamp::parse(due).unwrap().since(now).as_secs();
        assert!((1_000..=1_800).contains(&wait), "{item}");
    }
    assert_eq!(items[0]["waiting"]["attempts"], 1);
    assert_eq!(items[0]["waiting"]["cause"]["status"], 429);
    assert_eq!(items[7]["waiting"]["attempts"], 0);
    assert!(items[7]["waiting"].get("cause").is_none());
    let shown = printed(&gateway, "DataSyncStream");
    assert!(shown.contains("  target open  20"), "{shown}");
}

#[tokio::test]
async fn records_behind_a_rate_and_between_attempts_say_so() {
    let slow = StubTarget::start().await;
    let down = StubTarget::with(|_| Act::status(503)).await;
    let config = format!(
        "[dispatch]\nattempts_max = 1000\nbackoff_ms = 600000\nbackoff_ms_max = 600000\n\
        [[targets]]\nname = \"slow\"\norigin = \"{}\"\nrate_per_second = 1\n",
        slow.url("")
    );
    let gateway = Place::with_config(&config).patient().start();
    gateway.sync(&keyed("", &down.url("/x"), json!(0))).await;
    for n in 0..60 {
        gateway.sync(&keyed("", &slow.url("/x"), json!(n))).await;
    }
    let items = poll(
        "a record between attempts, and others behind the rate",
        async || {
            let page = open(&gateway, "DataSyncStream", "").await;
            let items = page["items"].as_array().unwrap().clone();
            let waits_for = |at: usize, word: &str| items[at]["waiting"]["for"] == word;
            let last = items.len() - 1;
            (waits_for(0, "backoff") && waits_for(last, "rate")).then_some(items)
        },
    )
    .await;
    let due = |at: usize| Timestamp::parse(items[at]["waiting"]["due"].as_str().unwrap()).unwrap();
    let last = items.len() - 1;
    let apart = due(last).since(due(last - 10)).as_secs_f32();
    assert!((9.0..=11.0).contains(&apart), "one a second: {apart}");
    assert_eq!(items[0]["waiting"]["cause"]["status"], 503);
}
