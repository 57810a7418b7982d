//! Clients that stand at the same place get the same bytes, wherever they began.

use reqwest::Method;
use serde_json::json;

use super::raw::{Raw, create, post};
use crate::testkit::Gateway;

/// What comes while they are connected.
const LIVE: [usize; 4] = [1, 2, 900, 40];

/// The next message, head and all.
async fn message(raw: &mut Raw) -> Vec<u8> {
    loop {
        let frame = raw.whole_frame().await.expect("it is open");
        match frame[0] {
            0x81 => return frame,
            other => assert_eq!(other, 0x89, "a ping, or else text"),
        }
    }
}

/// Messages until so many records have come; schemas have no such texts.
async fn messages(raw: &mut Raw, count: usize) -> Vec<Vec<u8>> {
    let (mut all, mut len) = (Vec::new(), 0);
    while len < count {
        let message = message(raw).await;
        len += texts(&message, "xid").len();
        all.push(message);
    }
    assert_eq!(len, count);
    all
}

/// The records of messages, one behind the other, without those that have no position.
fn records(messages: &[Vec<u8>]) -> Vec<u8> {
    let behind_schemas = messages[1..].iter();
    let arrays = behind_schemas.map(|message| {
        let begin = message.iter().position(|byte| *byte == b'[').unwrap();
        &message[begin + 1..message.len() - 1]
    });
    arrays.collect::<Vec<_>>().join(&b","[..])
}

/// The texts of that member.
fn texts(message: &[u8], member: &str) -> Vec<String> {
    let text = String::from_utf8_lossy(message);
    let begin = format!("\"{member}\":\"");
    let behind = text.split(&begin).skip(1);
    let texts = behind.map(|behind| behind.split('"').next().unwrap().to_owned());
    texts.collect()
}

#[tokio::test]
async fn clients_that_began_anywhere_get_the_same_bytes_from_then_on() {
    let gateway = Gateway::start();
    for (name, buffer) in [("s1", 131_072), ("s2", 1 << 20)] {
        create(&gateway, name, json!({ "bufferSize": buffer })).await;
    }
    let grown = gateway.request(Method::PATCH, "/v1/streams/DataSyncStream");
    gateway
        .send(grown.json(&json!({ "partitions": 3 })))
        .await
        .ok();
    for _ in 0..3 {
        post(&gateway, 200).await;
    }
    let live: usize = LIVE.iter().sum();
    // Two events, and for the second what came live before.
    for (name, len) in [("s1", 602), ("s2", 602 + live)] {
        let mut first = Raw::new(&gateway, name, "earliest").await;
        let of_first = messages(&mut first, len).await;
        let all: Vec<_> = of_first
            .iter()
            .flat_map(|message| texts(message, "pos"))
            .collect();
        // One begins in the middle of a frame, one at a time, one at the last record, one behind it.
        let mut middle = Raw::new(&gateway, name, &all[99]).await;
        let of_middle = messages(&mut middle, len - 100).await;
        let told: Vec<_> = of_middle
            .iter()
            .flat_map(|message| texts(message, "pos"))
            .collect();
        assert_eq!(told, all[100..]);
        // Records are the same bytes, however they are cut into frames.
        assert!(
            records(&of_first).ends_with(&records(&of_middle)),
            "{name}: other bytes"
        );
        let mut timed = Raw::new(&gateway, name, "1999-01-01").await;
        let of_timed = messages(&mut timed, len).await;
        assert!(
            records(&of_timed) == records(&of_first),
            "{name}: other bytes"
        );
        let mut end = Raw::new(&gateway, name, &all[len - 1]).await;
        let mut now = Raw::new(&gateway, name, "now").await;
        for client in [&mut end, &mut now] {
            assert_eq!(message(client).await, of_first[0], "schemas");
        }
        // What comes then comes to all of them in the same bytes.
        for count in LIVE {
            post(&gateway, count).await;
        }
        let of_first = messages(&mut first, live).await;
        for client in [&mut middle, &mut timed, &mut end, &mut now] {
            assert!(
                messages(client, live).await == of_first,
                "{name}: other bytes"
            );
        }
    }
}
