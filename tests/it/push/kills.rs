//! Server and clients die at random moments under load: what each client got in all its lives is what the log holds, in
//! one order, once.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{client_async, tungstenite::Message};

use crate::{
    crash::{Random, SOURCE, check_journal},
    harness::{Gateway, Place, client, keyed, within},
};

const ROUNDS: u32 = 8;
const KEYS: u64 = 40;
/// Name, members beside the trail, and the key of whose records nothing is sent.
const STREAMS: [(&str, &str, Option<&str>); 4] = [
    ("plain", "{}", None),
    (
        "small",
        r#"{"bufferSize":131072,"encoding":{"json":{"model":"row","treatAllColumnsAsStrings":true}}}"#,
        None,
    ),
    (
        "ruled",
        r#"{"rules":[{"name":"one","action":"exclude","filter":{"columnValues":[{"column":"KEY","operator":"EQ","value":"k7"}]}}]}"#,
        Some("k7"),
    ),
    (
        "shop",
        r#"{"x-syncgate":{"view":"operations","objects":[{"object":"SHOP.ORDERS","url":"http://127.0.0.1:*/orders","keys":["n"]}]}}"#,
        None,
    ),
];

/// A client over all its lives.
struct Reader {
    name: &'static str,
    random: Random,
    /// Where it goes on.
    begin: String,
    xids: Vec<String>,
}

/// When it stops: the server is gone, or it has that many records.
#[derive(Clone, Copy)]
enum Until {
    Gone,
    Len(usize),
}

impl Reader {
    /// Reads, dies after some records and comes again, and so on.
    async fn read(&mut self, address: &str, until: Until) {
        loop {
            let patience = 1 + usize::try_from(self.random.below(300)).unwrap();
            let gone = self.live(address, patience, until).await.is_none();
            match until {
                Until::Gone if gone => return,
                Until::Len(len) if self.xids.len() >= len => return,
                _ => {}
            }
        }
    }

    /// One life of at most so many records; nothing if the server has gone.
    async fn live(&mut self, address: &str, patience: usize, until: Until) -> Option<()> {
        let path = format!("/services/v2/stream/{}?begin={}", self.name, self.begin);
        let stream = TcpStream::connect(address).await.ok()?;
        let opened = client_async(format!("ws://{address}{path}"), stream).await;
        let (mut socket, _) = opened.ok()?;
        let mut left = patience;
        while left > 0 {
            let text = match within("a frame", socket.next()).await {
                Some(Ok(Message::Text(text))) => text,
                Some(Ok(Message::Ping(_))) => continue,
                _ => return None,
            };
            let records: Vec<Value> = serde_json::from_str(&text).unwrap();
            let records = records.iter().filter(|record| record.get("pos").is_some());
            // It dies in the middle of a frame: what it has not looked at comes again.
            for record in records.take(left) {
                self.begin = record["pos"].as_str().unwrap().to_owned();
                let xid = record["xid"].as_str().unwrap();
                if !xid.starts_with("ddl.") {
                    self.xids.push(xid.to_owned());
                }
                left -= 1;
            }
            if matches!(until, Until::Len(len) if self.xids.len() >= len) {
                break;
            }
        }
        Some(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_dies_anywhere_gets_what_the_log_holds_once_and_in_order() {
    let seed = std::env::var("SYNCGATE_TEST_SEED").map_or_else(
        |_| u64::from(std::process::id()),
        |seed| seed.parse().unwrap(),
    );
    println!("seed {seed} (SYNCGATE_TEST_SEED)");
    let mut random = Random(seed);
    let mut place = Place::with_config(
        "[log]\nsegment_bytes = 1048576\n\n[sync]\nrecord_bytes_max = 65536\nbatch_bytes_max = 262144\n",
    );
    let mut readers = Vec::new();
    for (at, (name, ..)) in (0..).zip(STREAMS) {
        readers.push(Reader {
            name,
            random: Random(seed.wrapping_add(at + 1)),
            begin: "earliest".into(),
            xids: Vec::new(),
        });
    }
    for round in 0..ROUNDS {
        let gateway = place.start();
        if round == 0 {
            make(&gateway).await;
        }
        if round % 3 == 1 {
            let partitions = json!({ "partitions": 1 + round });
            let grown = gateway.request(Method::PATCH, &format!("/v1/streams/{SOURCE}"));
            gateway.send(grown.json(&partitions)).await.ok();
        }
        let address = gateway.url.trim_start_matches("http://").to_owned();
        let sender = tokio::spawn(send_until_gone(gateway.url.clone(), random.below(1 << 32)));
        let mut lives = Vec::new();
        for mut reader in readers.drain(..) {
            let address = address.clone();
            lives.push(tokio::spawn(async move {
                reader.read(&address, Until::Gone).await;
                reader
            }));
        }
        // The moment of the kill is meant to be random.
        tokio::time::sleep(Duration::from_millis(50 + random.below(400))).await;
        place = gateway.kill();
        sender.await.unwrap();
        for life in lives {
            readers.push(life.await.unwrap());
        }
        check_journal(&place);
    }
    let gateway = place.start();
    let held = held(&gateway).await;
    println!("{} records", held.len());
    assert!(held.len() > 100, "hardly any load");
    let address = gateway.url.trim_start_matches("http://").to_owned();
    for (mut reader, (name, _, left_out)) in readers.into_iter().zip(STREAMS) {
        let sent = held.iter().filter(|(key, _)| Some(&**key) != left_out);
        let expected: Vec<_> = sent.map(|(_, xid)| xid.clone()).collect();
        reader.read(&address, Until::Len(expected.len())).await;
        assert!(
            reader.xids == expected,
            "{name}: {}",
            differ(&reader.xids, &expected)
        );
        // And once more, in one go.
        let mut whole = Reader {
            begin: "earliest".into(),
            xids: Vec::new(),
            ..reader
        };
        let live = whole.live(&address, usize::MAX, Until::Len(expected.len()));
        live.await.expect("the server is there");
        assert!(
            whole.xids == expected,
            "{name}: {}",
            differ(&whole.xids, &expected)
        );
    }
}

async fn make(gateway: &Gateway) {
    for (name, members, _) in STREAMS {
        let mut config: Value = serde_json::from_str(members).unwrap();
        config["source"] = json!({"trail": SOURCE});
        let path = format!("/services/v2/stream/{name}");
        gateway.post(&path, &config).await.ok();
    }
}

/// Sends batches of all lengths; nobody takes them.
async fn send_until_gone(url: String, seed: u64) {
    let (client, mut random) = (client(), Random(seed));
    loop {
        let message = |_| {
            let key = format!("k{}", random.below(KEYS));
            let path = ["orders", "other"][usize::try_from(random.below(2)).unwrap()];
            let n = random.below(1_000);
            keyed(
                &key,
                &format!("http://127.0.0.1:9/{path}"),
                json!({ "n": n }),
            )
            .to_string()
        };
        let lines: Vec<_> = (0..1 + seed % 40).map(message).collect();
        let request = client
            .post(format!("{url}/stream/sync"))
            .header("content-type", "application/x-ndjson")
            .body(lines.join("\n"));
        if request.send().await.is_err() {
            return;
        }
    }
}

/// Key and `xid` of every record that the log holds, in the order of delivery.
async fn held(gateway: &Gateway) -> Vec<(String, String)> {
    let partitions = format!("/v1/streams/{SOURCE}/partitions");
    let bounds = gateway.get(&partitions).await.ok();
    let mut held = Vec::new();
    for partition in 0..bounds["items"].as_array().unwrap().len() {
        let mut from = "earliest".to_owned();
        loop {
            let page = format!("{partitions}/{partition}/records?from={from}&limit=1000");
            let page = gateway.get(&page).await.ok();
            for record in page["items"].as_array().unwrap() {
                let offset = record["offset"].as_u64().unwrap();
                let time = record["time"].as_str().unwrap().to_owned();
                let key = record["key"].as_str().unwrap().to_owned();
                held.push((time, partition, offset, key));
            }
            match page["next"].as_u64() {
                Some(next) => from = next.to_string(),
                None => break,
            }
        }
    }
    held.sort();
    let one = |(_, partition, offset, key)| (key, format!("{partition}.{offset}"));
    held.into_iter().map(one).collect()
}

/// Says where two lists part.
fn differ(got: &[String], expected: &[String]) -> String {
    let at = got.iter().zip(expected).take_while(|(a, b)| a == b).count();
    format!(
        "{} of {} records; at {at} came {:?} in place of {:?}",
        got.len(),
        expected.len(),
        got.get(at),
        expected.get(at)
    )
}
