//! `kill -9` every two seconds with everything under way at once: sources, dispatch, retries, retention, growth, purges. The books
//! balance after each, nothing acknowledged is lost, and no call of a lane comes before its turn.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use reqwest::Client;
use serde_json::{Value, json};

use crate::{
    crash::{ERRORS, Random, SOURCE, check_journal},
    testkit::{Act, Call, Gateway, Place, StubTarget, client, keyed},
};

const ROUND: Duration = Duration::from_secs(2);
const SENDERS_LEN: u64 = 4;
/// What a sender sends in a round, at most.
const SENT_LEN_MAX: u64 = 200;
const PARTITIONS_MAX: u64 = 8;

/// The response time is longer than a good target takes on a busy machine. A call that the gateway gives up can reach the
/// target behind the next one of its lane.
const CONFIG: &str = "
[dispatch]
connect_timeout_ms = 1000
response_timeout_ms = 1000
attempt_timeout_ms = 1500
queue_len_max = 64

[log]
segment_bytes = 1048576

[retention]
source_bytes = 1048576
interval_seconds = 1

[sync]
record_bytes_max = 65536
batch_bytes_max = 262144
";

/// One minute; `SYNCGATE_TEST_STORM_SECONDS=600` for ten. The seed is printed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_every_two_seconds_in_the_middle_of_everything_it_keeps_every_promise() {
    let seconds: u64 =
        std::env::var("SYNCGATE_TEST_STORM_SECONDS").map_or(60, |seconds| seconds.parse().unwrap());
    let seed = std::env::var("SYNCGATE_TEST_SEED")
        .map_or_else(|_| std::process::id().into(), |seed| seed.parse().unwrap());
    println!("seed {seed} (SYNCGATE_TEST_SEED), {seconds} seconds");
    let mut random = Random(seed);
    let targets = [
        StubTarget::start().await,
        StubTarget::with(moody).await,
        StubTarget::with(worse).await,
    ];
    let ports = targets.each_ref().map(StubTarget::port);
    let told = Arc::new(Told::default());
    let mut place = Place::with_config(CONFIG);
    let mut partitions = 1;
    for _ in 0..seconds.div_ceil(ROUND.as_secs()) {
        let gateway = place.start();
        let url = gateway.url.clone();
        let mut users: Vec<_> = (0..SENDERS_LEN)
            .map(|sender| tokio::spawn(send(url.clone(), sender, ports, told.clone())))
            .collect();
        users.push(tokio::spawn(retry(url.clone())));
        users.push(tokio::spawn(purge(url.clone())));
        // Moments that are meant to be random.
        let grows_after = Duration::from_millis(random.below(1_500));
        tokio::time::sleep(grows_after).await;
        if partitions < PARTITIONS_MAX && random.below(4) == 0 {
            partitions += 1;
            grow(&gateway, partitions).await;
        }
        let jitter = Duration::from_millis(random.below(100));
        tokio::time::sleep(ROUND - grows_after - jitter).await;
        place = gateway.kill();
        for user in users {
            user.await.unwrap();
        }
        check_journal(&place);
    }
    for target in &targets {
        target.now(|_| Act::status(200));
    }
    let gateway = place.start();
    gateway.drained(SOURCE).await;
    for stream in ERRORS {
        while gateway.count(stream, "open").await > 0 {
            gateway.post("/stream/retry", &whole(stream)).await.ok();
        }
    }
    let ledger = gateway.get("/v1/ledger").await.ok();
    assert_eq!(ledger["balanced"], true, "{ledger}");
    assert_eq!(ledger["total"]["expired"], 0, "{ledger}");
    assert_eq!(ledger["total"]["discarded"], 0, "{ledger}");
    let sizes = gateway.get(&format!("/v1/streams/{SOURCE}")).await.ok();
    println!(
        "{} acknowledged, {partitions} partitions, {}",
        told.acknowledged.lock().unwrap().len(),
        sizes["bounds"]
    );
    check(&targets, &told);
}

/// What sources were told.
#[derive(Default)]
struct Told {
    numbers: AtomicU64,
    acknowledged: std::sync::Mutex<BTreeSet<u64>>,
}

fn number(call: &Call) -> u64 {
    call.json()["number"].as_u64().unwrap()
}

/// Most first calls go well.
fn moody(call: &Call) -> Act {
    match (number(call) % 5, call.number % 3) {
        (0, 0 | 1) => Act::status([404, 500, 503][call.number % 3]),
        _ => Act::status(200),
    }
}

/// Few do.
fn worse(call: &Call) -> Act {
    match call.number % 6 {
        0 => Act::Reset,
        1 if call.number % 24 == 1 => Act::Hang,
        2 => Act::status(502),
        3 => Act::Answer(429, vec![("retry-after", "0".into())]),
        _ => Act::status(200),
    }
}

/// Sends one message after the other until the gateway is gone. A key is one sender's, so its numbers are in log order.
async fn send(url: String, sender: u64, ports: [u16; 3], told: Arc<Told>) {
    let client = client();
    let pad = "x".repeat(1_000);
    for _ in 0..SENT_LEN_MAX {
        let number = told.numbers.fetch_add(1, Ordering::Relaxed);
        let port = ports[usize::try_from(number % 7 % 3).unwrap()];
        let message = keyed(
            &format!("k{sender}-{}", number % 3),
            &format!("http://127.0.0.1:{port}/storm"),
            json!({ "number": number, "sender": sender, "pad": pad }),
        );
        let request = client.post(format!("{url}/stream/sync")).json(&message);
        let Ok(answer) = request.send().await else {
            return;
        };
        let status = answer.status();
        let Ok(answer) = answer.json::<Value>().await else {
            return;
        };
        assert_eq!(status, 200, "{answer}");
        told.acknowledged.lock().unwrap().insert(number);
    }
}

fn whole(stream: &str) -> Value {
    json!({ "streamOCIDToRetry": stream, "noOfMessagesToProcess": 1_000, "readAfterOffset": -1,
        "readPartition": "*", "errormapping": [] })
}

/// Retries every error stream, again and again, until the gateway is gone.
async fn retry(url: String) {
    let client: Client = client();
    for stream in ERRORS.iter().cycle() {
        let mut body = whole(stream);
        body["noOfMessagesToProcess"] = 50.into();
        let request = client.post(format!("{url}/stream/retry")).json(&body);
        let Ok(answer) = request.send().await else {
            return;
        };
        assert!(answer.status().is_success(), "{answer:?}");
    }
}

/// Purges the source stream, again and again, whenever nothing of it waits.
async fn purge(url: String) {
    let client: Client = client();
    loop {
        let path = format!("{url}/v1/streams/{SOURCE}/purge");
        let request = client.post(path).json(&json!({ "reason": "storm" }));
        let Ok(answer) = request.send().await else {
            return;
        };
        let status = answer.status().as_u16();
        assert!([200, 409].contains(&status), "{answer:?}");
        // The rest of the load is to have its turn.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn grow(gateway: &Gateway, partitions: u64) {
    let path = format!("/v1/streams/{SOURCE}");
    let request = gateway.request(reqwest::Method::PATCH, &path);
    let grown = gateway.send(request.json(&json!({ "partitions": partitions })));
    assert_eq!(grown.await.ok()["partitions"], partitions);
}

fn check(targets: &[StubTarget], told: &Told) {
    let (mut delivered, mut keys) = (BTreeSet::new(), HashMap::new());
    for target in targets {
        let calls = target.calls();
        let answered = target.answered().into_iter();
        let taken = answered.filter(|(_, status)| *status == 200);
        delivered.extend(taken.map(|(call, _)| number(&calls[call])));
        // First calls of a lane are in the order of the log, whatever comes again later.
        let mut newest: BTreeMap<u64, u64> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for call in &calls {
            let (sender, n) = (call.json()["sender"].as_u64().unwrap(), number(call));
            let key = call.header("idempotency-key").unwrap().to_owned();
            assert_eq!(*keys.entry(n).or_insert_with(|| key.clone()), key, "{n}");
            if seen.insert(n) {
                let before = newest.insert(sender * 3 + n % 3, n);
                assert!(
                    before.is_none_or(|before| before < n),
                    "{n} came after {before:?}"
                );
            }
        }
    }
    let acknowledged = told.acknowledged.lock().unwrap();
    let lost: Vec<_> = acknowledged.difference(&delivered).collect();
    assert!(lost.is_empty(), "never delivered: {lost:?}");
    assert!(acknowledged.len() as u64 > 1_000, "hardly any load");
}
