//! How connections end: what the client is told, and that neither the gateway nor the next client suffers from it.

use std::fs;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::raw::{Raw, create, handshake, masked, path, post, refused, send};
use crate::testkit::{Act, Gateway, Place, StubTarget, keyed, poll};

/// Lots of data, in files that go soon.
const SMALL_FILES: &str = "[log]\nsegment_bytes = 1048576\n\n[sync]\nrecord_bytes_max = 65536\nbatch_bytes_max = 262144\n";
const LARGE_LEN: usize = 240;

/// Posts records of 60 KB, and waits until they are delivered: retention leaves alone what is not.
async fn post_large(gateway: &Gateway, target: &StubTarget) {
    let fill = "x".repeat(60_000);
    let one = |n| keyed("k", &target.url("/x"), json!({ "n": n, "fill": fill }));
    let all: Vec<_> = (0..LARGE_LEN).map(one).collect();
    for some in all.chunks(4) {
        gateway.sync_all(some).await;
    }
    gateway.drained("DataSyncStream").await;
}

/// Offsets of the records in what comes until the close or the end of a gap; with the gap, or code and reason.
async fn offsets(raw: &mut Raw) -> (Vec<u64>, Result<Value, (u16, String)>) {
    let mut all = Vec::new();
    loop {
        let (opcode, payload) = raw.frame().await.expect("a close before the end");
        match opcode {
            1 => {}
            9 => continue,
            _ => {
                assert_eq!(raw.frame().await, None, "nothing comes behind a close");
                let (code, reason) = payload.split_first_chunk().unwrap();
                let reason = String::from_utf8(reason.to_vec()).unwrap();
                return (all, Err((u16::from_be_bytes(*code), reason)));
            }
        }
        let records: Vec<Value> = serde_json::from_slice(&payload).unwrap();
        if let Some(gap) = records
            .iter()
            .find_map(|record| record["source"].get("gap"))
        {
            assert_eq!(records.len(), 1, "it has a frame of its own");
            return (all, Ok(gap.clone()));
        }
        for record in records.iter().filter(|record| record.get("pos").is_some()) {
            raw.pos = Some(record["pos"].as_str().unwrap().to_owned());
            let xid = record["xid"].as_str().unwrap();
            all.extend(xid.strip_prefix("0.").map(|n| n.parse::<u64>().unwrap()));
        }
    }
}

#[tokio::test]
async fn a_slow_client_that_retention_passes_is_closed_or_hears_what_is_missing() {
    let target = StubTarget::start().await;
    let gateway = Gateway::with_config(SMALL_FILES);
    for (name, quality) in [("strict", "exactlyOnce"), ("loose", "atMostOnce")] {
        let more = json!({ "qualityOfService": quality, "bufferSize": 131_072 });
        create(&gateway, name, more).await;
    }
    post_large(&gateway, &target).await;
    // These read the beginning, and then nothing until the rest has gone.
    let mut strict = Raw::slow(&gateway, "strict", "earliest").await;
    let mut loose = Raw::slow(&gateway, "loose", "earliest").await;
    for raw in [&mut strict, &mut loose] {
        let (opcode, schemas) = raw.frame().await.unwrap();
        assert!(opcode == 1 && schemas.starts_with(b"[{"));
    }
    let few = format!("{SMALL_FILES}\n[retention]\nsource_bytes = 1048576\n");
    gateway.reload(&few).await.ok();
    let earliest = poll("records to go", async || {
        let shown = gateway.get("/v1/streams/DataSyncStream").await.ok();
        shown["bounds"][0]["earliest"]
            .as_u64()
            .filter(|earliest| *earliest > 150)
    })
    .await;

    let (told, closed) = offsets(&mut strict).await;
    let passed = told.len() as u64;
    assert!(told.iter().copied().eq(0..passed), "{told:?}");
    assert!(passed < earliest, "it was not slow: {passed}");
    let pos = strict.pos.unwrap();
    let reason = format!("position_gone pos={pos}");
    assert_eq!(closed, Err((4410, reason)));
    let at = format!("{}?begin={pos}", path("strict"));
    let answer = gateway.send(handshake(&gateway, Method::GET, &at)).await;
    refused(&answer, 410, "position_gone", "OGG-12004");

    let (told, gap) = offsets(&mut loose).await;
    let passed = told.len() as u64;
    assert!(told.iter().copied().eq(0..passed), "{told:?}");
    assert_eq!(gap, Ok(json!({ "0": { "from": passed, "to": earliest } })));
    let len = LARGE_LEN as u64;
    let rest: Vec<_> = (earliest..len).map(|n| format!("0.{n}")).collect();
    assert_eq!(loose.records(rest.len()).await, rest);
    let metrics = gateway.get("/metrics").await.body;
    let metrics = metrics.as_str().unwrap();
    assert!(metrics.contains("syncgate_push_gaps_total 1"), "{metrics}");
    // Who comes now gets what there is.
    let mut next = Raw::new(&gateway, "strict", "earliest").await;
    assert_eq!(next.records(rest.len()).await, rest);
}

/// Spoils the value of a record, which is told by a word in it.
fn spoil(place: &Place, word: &str) {
    let spoilt = place.segments().into_iter().any(|file| {
        let mut bytes = fs::read(&file).unwrap();
        let mut words = bytes.windows(word.len());
        let found = words.position(|part| part == word.as_bytes());
        if let Some(at) = found {
            bytes[at] ^= 1;
            fs::write(&file, bytes).unwrap();
        }
        found.is_some()
    });
    assert!(spoilt, "{word} is nowhere");
}

#[tokio::test]
async fn damage_under_a_reader_ends_its_connection_and_no_other() {
    let target = StubTarget::with(|_| Act::Hold).await;
    let gateway = Gateway::start();
    create(&gateway, "s1", json!({})).await;
    let sync = async |gateway: &Gateway, word: &str| {
        let message = keyed(word, &target.url("/x"), json!({ "word": word }));
        gateway.sync(&message).await
    };
    for word in ["alder", "birch", "cedar"] {
        sync(&gateway, word).await;
    }
    // What follows is in a later file: the one before is read when a reader comes there, and not at the start.
    let gateway = gateway.kill().start();
    sync(&gateway, "dogwood").await;
    let place = gateway.kill();
    spoil(&place, "birch");
    let gateway = place.start();
    for _ in 0..2 {
        let mut reader = Raw::new(&gateway, "s1", "earliest").await;
        let (told, closed) = offsets(&mut reader).await;
        assert!(told.iter().copied().eq(0..told.len() as u64) && told.len() < 2);
        let reason = format!("internal pos={}", reader.pos.unwrap());
        assert_eq!(closed, Err((1011, reason)));
    }
    let mut other = Raw::new(&gateway, "s1", "now").await;
    assert_eq!(sync(&gateway, "elm").await, 4);
    assert_eq!(other.records(1).await, ["0.4"]);
    assert!(
        gateway
            .place()
            .log()
            .contains("a data stream cannot be read")
    );
    gateway.get("/healthz").await.ok();
}

#[tokio::test]
async fn whoever_is_closed_from_here_learns_where_it_was() {
    let gateway = Gateway::start();
    post(&gateway, 3).await;
    for name in ["s1", "s2"] {
        create(&gateway, name, json!({})).await;
    }
    for (name, method, code, word) in [
        ("s1", Some(Method::PATCH), 4412, "config_changed"),
        ("s1", Some(Method::DELETE), 4404, "deleted"),
        ("s2", None, 1001, "drain"),
    ] {
        let mut raw = Raw::new(&gateway, name, "earliest").await;
        assert_eq!(raw.records(4).await, ["ddl.1", "0.0", "0.1", "0.2"]);
        let pos = raw.pos.clone().unwrap();
        match method {
            Some(method) => drop(send(&gateway, method, &path(name), "{}").await.ok()),
            None => gateway.signal("TERM"),
        }
        assert_eq!(raw.closed().await, (code, format!("{word} pos={pos}")));
    }
    let (status, _) = gateway.ended().await;
    assert!(status.success());
}

/// What a client does, and the code with which it is closed; none if it has gone by itself.
fn abuses() -> Vec<(&'static str, Vec<u8>, Option<u16>)> {
    let fragments = |parts: &[(u8, &[u8])]| {
        let parts = parts.iter();
        parts
            .flat_map(|(first, part)| masked(*first, part))
            .collect()
    };
    let text = |len: usize| masked(0x81, &vec![b'x'; len]);
    let long = |len: u64| {
        let mut head = vec![0x81, 0xff];
        head.extend(len.to_be_bytes());
        head.extend([1, 2, 3, 4]);
        head
    };
    vec![
        ("text without a mask", b"\x81\x01x".to_vec(), Some(1002)),
        ("a ping without a mask", b"\x89\x00".to_vec(), Some(1002)),
        ("the first part of a ping", masked(0x09, b""), Some(1002)),
        ("the first part of a pong", masked(0x0a, b""), Some(1002)),
        (
            "the first part of a close",
            masked(0x08, b"\x03\xe8"),
            Some(1002),
        ),
        ("a reserved bit", masked(0xc1, b"x"), Some(1002)),
        ("another one", masked(0xa1, b"x"), Some(1002)),
        ("an unknown kind", masked(0x83, b""), Some(1002)),
        ("an unknown control frame", masked(0x8b, b""), Some(1002)),
        ("a continuation of nothing", masked(0x80, b"x"), Some(1002)),
        (
            "text within text",
            fragments(&[(0x01, b"a"), (0x81, b"b")]),
            Some(1002),
        ),
        (
            "a ping that is too long",
            masked(0x89, &[0; 126]),
            Some(1002),
        ),
        ("a close of one byte", masked(0x88, b"\x03"), Some(1002)),
        (
            "a close with a code that there is not",
            masked(0x88, b"\x03\xe7"),
            Some(1002),
        ),
        (
            "a close with a code that is never sent",
            masked(0x88, b"\x03\xed"),
            Some(1002),
        ),
        (
            "a close with a reason that is not UTF-8",
            masked(0x88, b"\x03\xe8\xff"),
            Some(1007),
        ),
        ("text that is not UTF-8", masked(0x81, b"\xff"), Some(1007)),
        (
            "text that is cut in a character",
            fragments(&[(0x01, b"\xc3"), (0x80, b"(")]),
            Some(1007),
        ),
        ("binary data", masked(0x82, b"x"), Some(1003)),
        ("text of 4097 bytes", text(4097), Some(1009)),
        (
            "parts of 4097 bytes",
            fragments(&[(0x01, &[b'x'; 4096]), (0x80, b"x")]),
            Some(1009),
        ),
        ("a terabyte, announced", long(1 << 40), Some(1009)),
        ("more than there can be", long(u64::MAX), Some(1009)),
        // So many that some second has too many of them.
        (
            "much talk",
            [text(1), text(4096)].concat().repeat(30),
            Some(4429),
        ),
        ("many pings", masked(0x89, b"").repeat(1000), Some(4429)),
        ("many pongs", masked(0x8a, b"").repeat(1000), Some(4429)),
        (
            "a message of nothing, without end",
            [masked(0x01, b""), masked(0x00, b"").repeat(20_000)].concat(),
            Some(4429),
        ),
        // It is read until it is too large: what is wrong with it is not the number of its parts.
        (
            "a byte in each part",
            [masked(0x01, b"x"), masked(0x00, b"x").repeat(4_096)].concat(),
            Some(1009),
        ),
        ("half a frame", text(100)[..50].to_vec(), None),
        ("half a head", b"\x81".to_vec(), None),
        ("the end", Vec::new(), None),
    ]
}

#[tokio::test]
async fn whatever_a_client_does_the_next_one_gets_everything() {
    let gateway = Gateway::start();
    create(&gateway, "s1", json!({})).await;
    post(&gateway, 1000).await;
    let mut all = vec!["ddl.1".to_owned()];
    all.extend((0..1000).map(|n| format!("0.{n}")));
    let mut faithful = Raw::new(&gateway, "s1", "earliest").await;
    for (what, bytes, code) in abuses() {
        let mut raw = Raw::new(&gateway, "s1", "earliest").await;
        // It may be closed before it is done.
        let _sent = raw.stream.write_all(&bytes).await;
        match code {
            Some(code) => {
                let closed = raw.closed().await;
                assert_eq!(closed.0, code, "{what}");
                assert!(code == 4429 || closed.1.is_empty(), "{what}: {closed:?}");
            }
            // Without a farewell, and without looking at what has come.
            None => {
                raw.stream.set_zero_linger().unwrap();
                drop(raw);
            }
        }
        let mut next = Raw::new(&gateway, "s1", "earliest").await;
        assert_eq!(next.records(all.len()).await, all, "behind {what}");
    }
    assert_eq!(faithful.records(all.len()).await, all);
    drop(faithful);
    poll("all seats to be free", async || {
        let list = gateway.get(super::raw::ALL).await.ok();
        (list["response"]["items"][0]["status"] == "stopped").then_some(())
    })
    .await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_handshake_that_breaks_off_takes_no_seat() {
    let gateway = Gateway::with_config("[push]\nclients_max = 1\n");
    create(&gateway, "s1", json!({})).await;
    let at = gateway.url.strip_prefix("http://").unwrap();
    let whole = format!(
        "GET {} HTTP/1.1\r\nhost: {at}\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        path("s1")
    );
    for len in [1, 40, whole.len() - 1, whole.len()] {
        let mut stream = tokio::net::TcpStream::connect(at).await.unwrap();
        stream.write_all(&whole.as_bytes()[..len]).await.unwrap();
        stream.set_zero_linger().unwrap();
        drop(stream);
        // The last one may have had it for a moment.
        let next = poll("the seat", async || {
            let answer = handshake(&gateway, Method::GET, &path("s1")).send().await;
            (answer.unwrap().status() == 101).then_some(())
        });
        next.await;
        let free = async || {
            let list = gateway.get(super::raw::ALL).await.ok();
            (list["response"]["items"][0]["status"] == "stopped").then_some(())
        };
        poll("the seat to be free again", free).await;
    }
}
