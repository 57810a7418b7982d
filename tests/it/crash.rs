//! `kill -9` at random moments under load: nothing acknowledged is lost, each record ends once, no offset is used twice.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};

use crate::testkit::{Gateway, Place, StubTarget, client, keyed, syncgate};

pub(crate) const SOURCE: &str = "DataSyncStream";
pub(crate) const ERRORS: [&str; 4] = [
    "ServerUnavailableStream",
    "InternalserverErrorStream",
    "UnrecoverableErrorStream",
    "DefaultErrorStream",
];
const PATHS: [&str; 8] = [
    "/ok",
    "/ok",
    "/ok",
    "/status/404",
    "/status/503",
    "/status/500",
    "/reset",
    "/hang",
];

/// What the senders were told: message number by offset.
#[derive(Default)]
struct Told {
    offsets: BTreeMap<u64, u64>,
    next: u64,
}

/// 20 rounds; `SYNCGATE_TEST_CRASH_ROUNDS=200` for more. The seed is printed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_random_moments_it_keeps_every_promise() {
    let rounds: u64 =
        std::env::var("SYNCGATE_TEST_CRASH_ROUNDS").map_or(20, |rounds| rounds.parse().unwrap());
    let seed = std::env::var("SYNCGATE_TEST_SEED").map_or_else(
        |_| u64::from(std::process::id()),
        |seed| seed.parse().unwrap(),
    );
    println!("seed {seed} (SYNCGATE_TEST_SEED), {rounds} rounds");
    let mut random = Random(seed);
    let target = StubTarget::by_path().await;
    let mut place = Place::with_config(
        "[dispatch]\nconnect_timeout_ms = 50\nresponse_timeout_ms = 50\nattempt_timeout_ms = 100\n\n[log]\nsegment_bytes = 1048576\n\n[sync]\nrecord_bytes_max = 65536\nbatch_bytes_max = 262144\n",
    );
    let told = Arc::new(Mutex::new(Told::default()));
    for _ in 0..rounds {
        let gateway = place.start();
        let senders: Vec<_> = (0..4)
            .map(|_| {
                tokio::spawn(send_until_gone(
                    gateway.url.clone(),
                    target.port(),
                    told.clone(),
                ))
            })
            .collect();
        // The moment of the kill is the one thing here that is meant to be random.
        tokio::time::sleep(Duration::from_millis(20 + random.below(400))).await;
        place = gateway.kill();
        for sender in senders {
            sender.await.unwrap();
        }
        check_journal(&place);
    }
    let gateway = place.start();
    gateway.drained(SOURCE).await;
    let ledger = gateway.get("/v1/ledger").await.ok();
    assert_eq!(ledger["balanced"], true, "{ledger}");
    let told = std::mem::take(&mut *told.lock().unwrap());
    println!("{} messages acknowledged", told.offsets.len());
    assert!(told.offsets.len() as u64 > rounds, "hardly any load");
    check(&gateway, &target, &told).await;
}

/// What the crash has left adds up, snapshots included.
pub(crate) fn check_journal(place: &Place) {
    let data = place.data();
    let ended = syncgate().args(["verify", "--data"]).arg(data).output();
    let ended = ended.unwrap();
    assert!(ended.status.success(), "{ended:?}");
}

async fn send_until_gone(url: String, target: u16, told: Arc<Mutex<Told>>) {
    let client = client();
    loop {
        let number = {
            let mut told = told.lock().unwrap();
            told.next += 1;
            told.next
        };
        let path = PATHS[usize::try_from(number).unwrap() % PATHS.len()];
        let message = keyed(
            &format!("k{}", number % 50),
            &format!("http://127.0.0.1:{target}{path}"),
            json!({ "number": number }),
        );
        let Ok(answer) = client
            .post(format!("{url}/stream/sync"))
            .json(&message)
            .send()
            .await
        else {
            return;
        };
        let status = answer.status();
        let Ok(answer) = answer.json::<Value>().await else {
            return;
        };
        assert_eq!(status, 200, "{answer}");
        let offset = answer["offset"].as_u64().unwrap();
        let before = told.lock().unwrap().offsets.insert(offset, number);
        assert_eq!(before, None, "offset {offset} was given twice");
    }
}

async fn check(gateway: &Gateway, target: &StubTarget, told: &Told) {
    let number = |record: &Value| {
        record["value"]["targetRestApiPayload"]["number"]
            .as_u64()
            .unwrap()
    };
    let stored: HashMap<u64, u64> = gateway
        .all_records(SOURCE)
        .await
        .iter()
        .map(|record| (record["offset"].as_u64().unwrap(), number(record)))
        .collect();
    for (offset, sent) in &told.offsets {
        assert_eq!(
            stored.get(offset),
            Some(sent),
            "offset {offset} holds another message than the one acknowledged"
        );
    }
    let (mut routed, mut origins) = (HashSet::new(), HashSet::new());
    for stream in ERRORS {
        for record in gateway.all_records(stream).await {
            let origin: u64 = record["headers"]["origin-offset"]
                .as_str()
                .unwrap()
                .parse()
                .unwrap();
            assert!(
                origins.insert(origin),
                "record {origin} has two error records"
            );
            assert_eq!(stored[&origin], number(&record));
            routed.insert(number(&record));
        }
    }
    let calls = target.calls();
    let delivered: HashSet<u64> = target
        .answered()
        .iter()
        .filter(|(_, status)| *status == 200)
        .map(|(call, _)| calls[*call].json()["number"].as_u64().unwrap())
        .collect();
    for number in told.offsets.values() {
        assert!(
            delivered.contains(number) || routed.contains(number),
            "message {number} is neither delivered nor in an error stream"
        );
    }
    let total = stored.len() as u64;
    assert_eq!(gateway.count(SOURCE, "moved").await, routed.len() as u64);
    assert_eq!(
        gateway.count(SOURCE, "delivered").await,
        total - routed.len() as u64
    );
    assert!(
        (0..total).all(|offset| stored.contains_key(&offset)),
        "offsets have gaps"
    );
}

/// xorshift: a seed gives the same moments again.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d;
        self.0 ^= self.0 >> 29;
        self.0 % bound
    }
}
