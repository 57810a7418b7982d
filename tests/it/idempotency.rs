//! Requests that are sent again under their `Idempotency-Key`: one record each, whatever happened in between.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    sync::{Arc, Mutex},
    time::Duration,
};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::testkit::{Answer, Gateway, Place, StubTarget, client, keyed, message, poll, within};

const SOURCE: &str = "DataSyncStream";

/// Three partitions, and as little memory for keys as the test asks for.
fn config(keys_max: usize) -> String {
    format!(
        "[log]\nsegment_bytes = 1048576\ndedup_len_max = {keys_max}\n\n[sync]\nrecord_bytes_max = 65536\nbatch_bytes_max = 262144\n\n[[streams]]\nname = \"{SOURCE}\"\npartitions = 3\n"
    )
}

async fn send(gateway: &Gateway, key: &str, body: &str) -> Answer {
    let request = gateway.request(Method::POST, "/stream/sync");
    let request = request.header("idempotency-key", key).body(body.to_owned());
    gateway.send(request).await
}

/// A batch with keys and without.
fn batch(url: &str) -> String {
    let messages = (0..20).map(|n| match n % 3 {
        0 => message(url, json!(n)),
        _ => keyed(&format!("k{n}"), url, json!(n)),
    });
    Value::Array(messages.collect()).to_string()
}

async fn stored_len(gateway: &Gateway) -> u64 {
    gateway.count(SOURCE, "appended").await
}

#[tokio::test]
async fn a_request_is_answered_as_before_after_a_kill_and_without_the_index() {
    let target = StubTarget::start().await;
    let url = target.url("/x");
    let gateway = Gateway::with_config(&config(1_000));
    let one = keyed("k", &url, json!({"order": 1})).to_string();
    let many = batch(&url);
    let told = [
        send(&gateway, "one", &one).await.ok(),
        send(&gateway, "many", &many).await.ok(),
    ];
    assert_eq!(told[1]["results"].as_array().unwrap().len(), 20);
    let check = async |gateway: &Gateway| {
        assert_eq!(send(gateway, "one", &one).await.ok(), told[0]);
        assert_eq!(send(gateway, "many", &many).await.ok(), told[1]);
        assert_eq!(stored_len(gateway).await, 21);
        let other = send(gateway, "one", &many).await;
        other.problem(422, "idempotency_mismatch");
    };
    check(&gateway).await;
    let gateway = gateway.kill().start();
    check(&gateway).await;
    let place = gateway.stop().await;
    std::fs::remove_dir_all(place.data().join("index")).unwrap();
    let gateway = place.start();
    check(&gateway).await;
    let partition = told[0]["partition"].as_str().unwrap();
    let path = format!(
        "/v1/streams/{SOURCE}/partitions/{partition}/records/{}",
        told[0]["offset"]
    );
    let record = gateway.get(&path).await.ok();
    assert_eq!(record["headers"]["idempotency-key"], "one");
    assert!(record["headers"]["idempotency-digest"].is_string());
    let ledger = gateway.get("/v1/ledger").await.ok();
    assert_eq!(
        (&ledger["balanced"], &ledger["total"]["accepted"]),
        (&json!(true), &json!(21))
    );
}

/// The moment between storing and answering: the record is seen, the answer never read.
#[tokio::test]
async fn a_retry_after_a_kill_gets_the_answer_that_nobody_has_heard() {
    let target = StubTarget::start().await;
    let mut gateway = Gateway::start();
    for round in 0..3 {
        let body = keyed("k", &target.url("/x"), json!(round)).to_string();
        let key = format!("round-{round}");
        let address = gateway.url.strip_prefix("http://").unwrap().to_owned();
        let mut connection = TcpStream::connect(&address).unwrap();
        let request = format!(
            "POST /stream/sync HTTP/1.1\r\nhost: {address}\r\nidempotency-key: {key}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        connection.write_all(request.as_bytes()).unwrap();
        let stored = gateway.record(SOURCE, round + 1).await;
        gateway = gateway.kill().start();
        let mut unheard = Vec::new();
        drop(connection.read_to_end(&mut unheard));
        let told = send(&gateway, &key, &body).await.ok();
        assert_eq!(told["offset"], stored["offset"]);
        assert_eq!(told["messageId"], stored["messageId"]);
        assert_eq!(gateway.records(SOURCE).await.len(), round + 1);
    }
    gateway.drained(SOURCE).await;
}

#[tokio::test]
async fn only_the_newest_keys_are_remembered_also_after_a_kill() {
    let target = StubTarget::start().await;
    let mut gateway = Gateway::with_config(&config(3));
    let body = |n: u64| keyed("k", &target.url("/x"), json!(n)).to_string();
    for n in 0..5 {
        send(&gateway, &n.to_string(), &body(n)).await.ok();
    }
    gateway = gateway.kill().start();
    for n in [2, 3, 4] {
        send(&gateway, &n.to_string(), &body(n)).await.ok();
        assert_eq!(stored_len(&gateway).await, 5, "{n}");
    }
    send(&gateway, "1", &body(1)).await.ok();
    assert_eq!(stored_len(&gateway).await, 6);
}

/// What the senders were told: place by number of the message.
#[derive(Default)]
struct Told {
    places: BTreeMap<u64, Value>,
    next: u64,
    enough: bool,
}

/// 8 rounds; `SYNCGATE_TEST_CRASH_ROUNDS=200` for more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senders_that_retry_through_kills_have_each_message_stored_once() {
    let rounds: u64 =
        std::env::var("SYNCGATE_TEST_CRASH_ROUNDS").map_or(8, |rounds| rounds.parse().unwrap());
    let target = StubTarget::start().await;
    let mut place = Place::with_config(&config(100_000));
    let told = Arc::new(Mutex::new(Told::default()));
    let (url, _) = watch::channel(String::new());
    let senders: Vec<_> = (0..4)
        .map(|_| {
            let target = target.url("/x");
            tokio::spawn(send_until_enough(url.subscribe(), target, told.clone()))
        })
        .collect();
    for round in 0..rounds {
        let gateway = place.start();
        url.send_replace(gateway.url.clone());
        // At another moment each time, whatever is on its way then.
        tokio::time::sleep(Duration::from_millis(60 + 37 * (round % 7))).await;
        place = gateway.kill();
    }
    let gateway = place.start();
    let last = told.lock().unwrap().next;
    url.send_replace(gateway.url.clone());
    poll("messages of the last gateway", async || {
        (told.lock().unwrap().next > last + 20).then_some(())
    })
    .await;
    told.lock().unwrap().enough = true;
    for sender in senders {
        within("the end of a sender", sender).await.unwrap();
    }
    gateway.drained(SOURCE).await;
    let told = std::mem::take(&mut *told.lock().unwrap());
    println!("{} messages", told.places.len());
    assert_eq!(told.places.len() as u64, told.next);
    let mut stored = BTreeMap::new();
    for partition in 0..3 {
        let mut from = "earliest".to_owned();
        while from != "null" {
            let path = format!("/v1/streams/{SOURCE}/partitions/{partition}/records?from={from}");
            let page = gateway.get(&path).await.ok();
            for record in page["items"].as_array().unwrap() {
                let number = record["value"]["targetRestApiPayload"].as_u64().unwrap();
                let place = json!([record["partition"], record["offset"]]);
                let twice = stored.insert(number, place);
                assert_eq!(twice, None, "message {number} is stored twice");
            }
            from = page["next"].to_string();
        }
    }
    assert_eq!(stored, told.places);
}

/// Sends message by message, each as often as it takes to hear where it is.
async fn send_until_enough(
    mut url: watch::Receiver<String>,
    target: String,
    told: Arc<Mutex<Told>>,
) {
    let client = client();
    loop {
        let number = {
            let mut told = told.lock().unwrap();
            if told.enough {
                return;
            }
            told.next += 1;
            told.next
        };
        let key = if number.is_multiple_of(2) { "" } else { "k" };
        let body = keyed(key, &target, json!(number)).to_string();
        let place = loop {
            let now = url.wait_for(|url| !url.is_empty()).await.unwrap().clone();
            let request = client.post(format!("{now}/stream/sync"));
            let request = request.header("idempotency-key", format!("message-{number}"));
            let Ok(answer) = request.body(body.clone()).send().await else {
                // It was killed; another one comes.
                let other = url.wait_for(|url| *url != now).await;
                drop(other.unwrap());
                continue;
            };
            let status = answer.status().as_u16();
            let Ok(answer) = answer.json::<Value>().await else {
                continue;
            };
            assert_eq!(status, 200, "{answer}");
            break json!([answer["partition"], answer["offset"]]);
        };
        told.lock().unwrap().places.insert(number, place);
    }
}
