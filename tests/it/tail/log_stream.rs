//! A log stream that no data stream shows.

use reqwest::Method;
use serde_json::json;

use super::{Tail, records::Door};
use crate::testkit::{Gateway, keyed, on_terminal, syncgate};

const STREAM: &str = "DataSyncStream";

async fn sync(gateway: &Gateway, numbers: std::ops::Range<u32>) {
    for n in numbers {
        let message = keyed(&format!("k{n}"), "http://127.0.0.1:9/x", json!({"n": n}));
        gateway.sync(&message).await;
    }
}

/// The payloads' numbers of that many records.
async fn numbers(tail: &mut Tail, count: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    for _ in 0..count {
        let record = tail.record().await;
        let n = &record["value"]["targetRestApiPayload"]["n"];
        numbers.push(n.as_u64().unwrap_or_else(|| panic!("{record}")));
    }
    numbers
}

async fn with_partitions(partitions: u16) -> Gateway {
    let gateway = Gateway::start();
    let request = gateway.request(Method::PATCH, "/v1/streams/DataSyncStream");
    gateway
        .send(request.json(&json!({"partitions": partitions})))
        .await
        .ok();
    gateway
}

#[tokio::test]
async fn its_records_are_printed_as_they_come_over_all_partitions() {
    let gateway = with_partitions(4).await;
    sync(&gateway, 0..9).await;
    let mut tail = Tail::start(
        &gateway.url,
        &[STREAM, "--begin", "earliest", "--output", "json"],
    );
    let note = tail.says("no data stream is called DataSyncStream").await;
    let next = "syncgate data-streams create DataSyncStream --stream DataSyncStream --url";
    assert!(note.ends_with(&format!("{next} {}", gateway.url)), "{note}");
    assert_eq!(numbers(&mut tail, 9).await, (0..9).collect::<Vec<_>>());
    sync(&gateway, 9..20).await;
    assert_eq!(numbers(&mut tail, 11).await, (9..20).collect::<Vec<_>>());
    tail.interrupt();
    let (code, lines, said) = tail.end().await;
    assert_eq!((code, lines.len()), (Some(0), 0));
    // The command that is told goes on there.
    let (told, next) = said
        .trim_end()
        .split_once("; go on behind it with: ")
        .unwrap();
    let (_, last) = told
        .rsplit_once("note: stopped; the last record printed is ")
        .unwrap();
    assert!(last.ends_with(" (partition.offset)"), "{said}");
    let next = next.strip_prefix("syncgate tail ").unwrap();
    let next: Vec<_> = next.split(' ').filter(|word| *word != "--url").collect();
    sync(&gateway, 20..21).await;
    let mut tail = Tail::start(&gateway.url, &next[..next.len() - 1]);
    assert_eq!(numbers(&mut tail, 1).await, [20]);
    // For people: columns that stay in place, and an end after a count.
    let (code, lines, said) = Tail::start(
        &gateway.url,
        &[STREAM, "--begin", "earliest", "--count", "3"],
    )
    .end()
    .await;
    assert_eq!((code, lines.len()), (Some(0), 3), "{said}");
    assert!(lines[0].contains("  DataSyncStream  "), "{lines:?}");
    assert!(
        lines[0].ends_with(r#"  k0  POST http://127.0.0.1:9/x {"n":0}"#),
        "{lines:?}"
    );
}

#[tokio::test]
async fn what_comes_from_now_on_is_printed_once_whatever_becomes_of_the_gateway() {
    let mut gateway = with_partitions(3).await;
    sync(&gateway, 0..2).await;
    let door = Door::to(&gateway).await;
    let mut tail = Tail::start(&door.url, &[STREAM, "--output", "json"]);
    tail.says("so the log stream is read").await;
    // Where now is, the first answer says; until then nothing is promised.
    sync(&gateway, 2..3).await;
    let first = tail.record().await;
    assert_eq!(first["value"]["targetRestApiPayload"]["n"], 2, "{first}");
    for round in 1..3 {
        let next = 3 + (round - 1) * 10;
        door.close();
        // Of these nobody hears before the door is open again.
        sync(&gateway, next..next + 5).await;
        gateway = gateway.kill().start();
        tail.says("asking again in").await;
        door.open(&gateway);
        sync(&gateway, next + 5..next + 10).await;
        let expected: Vec<_> = (next..next + 10).map(u64::from).collect();
        assert_eq!(numbers(&mut tail, 10).await, expected);
    }
    tail.interrupt();
    assert_eq!(tail.end().await.0, Some(0));
}

#[tokio::test]
async fn what_cannot_be_is_told() {
    let gateway = Gateway::start();
    let fails = async |arguments: &[&str], code, words: &str| {
        Tail::start(&gateway.url, arguments)
            .fails(code, words)
            .await;
    };
    fails(
        &[STREAM, "--cursor", "c1"],
        2,
        "a cursor is kept by a data stream; make one with: syncgate data-streams create",
    )
    .await;
    fails(
        &[STREAM, "--begin", "p1abc"],
        2,
        "a pos is a place in a data stream",
    )
    .await;
    fails(&[STREAM, "--begin", "r1abc"], 1, "this next is damaged").await;
    fails(&[STREAM, "--begin", "yesterday"], 1, "400 invalid_request").await;
    // One that goes meanwhile: it is told where to go on.
    let made = json!({"name": "Short", "partitions": 2, "ocid": "ocid1.stream.oc1..short"});
    gateway.post("/v1/streams", &made).await;
    let mut tail = Tail::start(&gateway.url, &["ocid1.stream.oc1..short"]);
    tail.says("syncgate data-streams create Short --stream Short")
        .await;
    gateway
        .send(gateway.request(Method::DELETE, "/v1/streams/Short"))
        .await;
    let (code, lines, said) = tail.end().await;
    assert_eq!((code, lines.len()), (Some(1), 0), "{said}");
    assert!(said.contains("404 stream_unknown"), "{said}");
    assert!(!said.contains("go on"), "{said}");
}

#[tokio::test]
async fn on_a_terminal_a_record_is_a_line_of_it() {
    let gateway = Gateway::start();
    sync(&gateway, 0..2).await;
    for columns in [80, 200] {
        let mut command = syncgate();
        command.args(["tail", STREAM, "--begin", "earliest", "--count", "2"]);
        command.args(["--url", &gateway.url]);
        let (status, text) = on_terminal(columns, &mut command);
        assert!(status.success(), "{text}");
        let records = |with: &str| {
            let lines = text.lines().filter(|line| line.contains(with));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        // At 80 columns there is no room for the name of the one stream that is read, nor for the address of the target.
        let records = match columns {
            80 => records("  POST /x {\"n\":"),
            _ => records("  DataSyncStream  0."),
        };
        assert_eq!(records.len(), 2, "{text}");
        assert!(records[1].ends_with("{\"n\":1}"), "{text}");
        if columns == 80 {
            let words: Vec<_> = records[1].split_whitespace().collect();
            assert_eq!(words[0], "0.1", "{text}");
            assert_eq!(words[1].matches(':').count(), 2, "{text}");
        }
        let widest = records.iter().map(|line| line.chars().count()).max();
        assert!(widest <= Some(usize::from(columns)), "{text}");
        assert!(
            text.contains("note: no data stream is called DataSyncStream"),
            "{text}"
        );
    }
}
