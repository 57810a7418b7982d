//! `begin`: where clients start, at exact boundaries, and what is refused before the upgrade (`push-decisions.md` §2).

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::Method;
use serde_json::{Value, json};

use super::raw::{Raw, create, handshake, path, post, refused, send};
use crate::testkit::{Gateway, run_on};

const QUALITIES: [&str; 3] = ["exactlyOnce", "atLeastOnce", "atMostOnce"];

/// Checks that this beginning is refused, by WebSocket and by events, before anything is sent.
async fn check_refused(
    gateway: &Gateway,
    name: &str,
    query: &str,
    status: u16,
    word: &str,
    number: &str,
) {
    let at = format!("{}?{query}", path(name));
    let events = gateway.request(Method::GET, &at);
    for request in [
        handshake(gateway, Method::GET, &at),
        events.header("accept", "text/event-stream"),
    ] {
        refused(&gateway.send(request).await, status, word, number);
    }
}

/// Positions of the first records of a data stream: `xid` and `pos`.
async fn positions(gateway: &Gateway, name: &str, count: usize) -> Vec<(String, String)> {
    let mut raw = Raw::new(gateway, name, "earliest").await;
    let mut all = Vec::new();
    for _ in 0..count {
        // One by one, as each is the end of a life.
        let xid = raw.records(1).await.remove(0);
        let pos = raw.pos.clone().unwrap();
        raw = Raw::new(gateway, name, &pos).await;
        all.push((xid, pos));
    }
    all
}

#[tokio::test]
async fn what_is_no_beginning_is_refused_under_every_quality_of_service() {
    let gateway = Gateway::start();
    post(&gateway, 2).await;
    for quality in QUALITIES {
        create(&gateway, quality, json!({ "qualityOfService": quality })).await;
        let known = positions(&gateway, quality, 2).await;
        let pos = &known[1].1;
        let flipped = |at: usize| {
            let other = match &pos[at..=at] {
                "A" => "B",
                _ => "A",
            };
            [&pos[..at], other, &pos[at + 1..]].concat()
        };
        for begin in [
            "",
            "latest",
            "Earliest",
            "0",
            "1767323045",
            "2026-01-02T03:04",
            "2026-01-02T03:04:05.0000000001Z",
            "2026-01-02T03:04:05%2B2",
            "2026-02-30",
            "26-01-02",
            "p1",
            "p1%21%21%21",
            "p2AAAA",
            &pos[..pos.len() - 1],
            &format!("{pos}A"),
            &format!("{pos}%3D"),
            &format!("%20{pos}"),
            // In the contract, in the numbers, and in the code behind them.
            &flipped(4),
            &flipped(pos.len() / 2),
            &flipped(pos.len() - 2),
        ] {
            let query = format!("begin={begin}");
            check_refused(&gateway, quality, &query, 400, "begin_invalid", "OGG-12135").await;
        }
        let twice = "begin=now&cursor=c&begin=now";
        check_refused(
            &gateway,
            quality,
            twice,
            400,
            "invalid_request",
            "OGG-12135",
        )
        .await;
        let unknown = format!("x=1&begin={pos}");
        check_refused(
            &gateway,
            quality,
            &unknown,
            400,
            "invalid_request",
            "OGG-12135",
        )
        .await;
        // A name is one in any form.
        let query = format!("%62egin={}", pos.replace('p', "%70"));
        let request = handshake(&gateway, Method::GET, &format!("{}?{query}", path(quality)));
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 101);
        assert_eq!(answer.headers()["x-syncgate-position"], **pos);
    }
}

/// A position is good for its resource, stream and view, whatever else changes.
#[tokio::test]
async fn a_position_of_another_contract_is_foreign_and_one_of_the_same_goes_on() {
    let gateway = Gateway::start();
    let objects = json!({ "view": "operations",
        "objects": [ { "object": "A.B", "url": "http://127.0.0.1:9/x", "keys": [ "n" ] } ] });
    post(&gateway, 3).await;
    for quality in QUALITIES {
        let config = json!({ "qualityOfService": quality });
        create(&gateway, quality, config.clone()).await;
        let pos = positions(&gateway, quality, 2).await.remove(1).1;
        let query = format!("begin={pos}");
        let other = format!("{quality}2");
        create(&gateway, &other, config.clone()).await;
        check_refused(
            &gateway,
            &other,
            &query,
            409,
            "position_foreign",
            "OGG-12004",
        )
        .await;
        let patch = async |body: Value| {
            let at = path(quality);
            let patched = send(&gateway, Method::PATCH, &at, body.to_string());
            patched.await.ok();
        };
        for body in [
            json!({ "source": { "trail": "DefaultErrorStream" } }),
            json!({ "source": { "trail": "a1" }, "x-syncgate": objects }),
        ] {
            patch(body).await;
            check_refused(
                &gateway,
                quality,
                &query,
                409,
                "position_foreign",
                "OGG-12004",
            )
            .await;
        }
        let goes_on = async || {
            let rest = Raw::new(&gateway, quality, &pos).await.records(2).await;
            assert_eq!(rest, ["0.1", "0.2"]);
        };
        patch(json!({ "x-syncgate": null })).await;
        goes_on().await;
        // The trail's own name is no other trail than its alias.
        patch(json!({ "source": { "trail": "DataSyncStream" }, "bufferSize": 131_072, "cloudEventsFormat": false,
            "encoding": { "json": { "staticFields": { "a": 1 }, "metaFields": { "csn": true } } },
            "rules": [ { "action": "exclude", "filter": { "objectTypes": [ "DDL" ] } } ] }))
        .await;
        goes_on().await;
        send(&gateway, Method::DELETE, &path(quality), "")
            .await
            .ok();
        create(&gateway, quality, config).await;
        goes_on().await;
    }
}

#[tokio::test]
async fn a_position_of_another_life_of_the_log_is_gone_or_a_gap() {
    let gateway = Gateway::start();
    let mut known = Vec::new();
    post(&gateway, 2).await;
    for quality in QUALITIES {
        create(&gateway, quality, json!({ "qualityOfService": quality })).await;
        known.push((quality, positions(&gateway, quality, 2).await.remove(1).1));
    }
    let place = gateway.stop().await;
    let (code, _, said) = run_on(&["doctor", "--restored"], &place.data());
    assert_eq!(code, Some(0), "{said}");
    let gateway = place.start();
    for (quality, pos) in known {
        if quality != "atMostOnce" {
            let query = format!("begin={pos}");
            check_refused(&gateway, quality, &query, 410, "position_gone", "OGG-12004").await;
            continue;
        }
        let mut raw = Raw::new(&gateway, quality, &pos).await;
        let preamble: Value = serde_json::from_slice(&raw.frame().await.unwrap().1).unwrap();
        // There is nothing of which a log made anew could say that it is missing.
        assert_eq!(preamble[1]["source"]["gap"], json!({}), "{preamble}");
        assert_eq!(raw.records(3).await, ["ddl.1", "0.0", "0.1"]);
    }
}

/// Microseconds as the log has them.
fn time(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

#[tokio::test]
async fn a_time_starts_at_the_first_record_at_or_behind_it_over_all_partitions() {
    let gateway = Gateway::start();
    create(&gateway, "s1", json!({})).await;
    post(&gateway, 4).await;
    let grown = gateway.request(Method::PATCH, "/v1/streams/DataSyncStream");
    gateway
        .send(grown.json(&json!({ "partitions": 3 })))
        .await
        .ok();
    // Records of one commit have one time, in whatever partitions they are.
    for count in [5, 1, 7] {
        post(&gateway, count).await;
    }
    let mut raw = Raw::new(&gateway, "s1", "earliest").await;
    let mut all: Vec<(DateTime<Utc>, String)> = Vec::new();
    while all.len() < 19 {
        let (opcode, payload) = raw.frame().await.unwrap();
        let records: Vec<Value> = match opcode {
            1 => serde_json::from_slice(&payload).unwrap(),
            _ => Vec::new(),
        };
        for record in records.iter().filter(|record| record.get("pos").is_some()) {
            let xid = record["xid"].as_str().unwrap().to_owned();
            all.push((time(record["op_ts"].as_str().unwrap()), xid));
        }
    }
    assert!(
        ["0.", "1.", "2."]
            .iter()
            .all(|of| all.iter().any(|(_, xid)| xid.starts_with(of)))
    );
    let mut times: Vec<_> = all.iter().map(|(time, _)| *time).collect();
    times.dedup();
    assert_eq!(
        times.len(),
        6,
        "four commits, and the stream was made and grown"
    );
    let check = async |begin: &str, from: DateTime<Utc>| {
        let expected = all.iter().filter(|(time, _)| *time >= from);
        let expected: Vec<_> = expected.map(|(_, xid)| xid.clone()).collect();
        let mut raw = Raw::new(&gateway, "s1", begin).await;
        assert_eq!(raw.records(expected.len()).await, expected, "{begin}");
    };
    let micro = TimeDelta::microseconds(1);
    for at in &times {
        let text = |time: DateTime<Utc>| time.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
        check(&text(*at), *at).await;
        check(&text(*at - micro), *at).await;
        check(&text(*at + micro), *at + micro).await;
        // A nanosecond later is later, and nothing later is not.
        let nanos = |digits: &str| {
            at.format(&format!("%Y-%m-%d %H:%M:%S%.6f{digits}"))
                .to_string()
        };
        check(&nanos("000").replace(' ', "%20"), *at).await;
        check(&nanos("001").replace(' ', "+"), *at + micro).await;
        // Other clocks; a plus that nobody encoded is a blank.
        let east = *at + TimeDelta::minutes(330);
        check(&east.format("%Y-%m-%dt%H:%M:%S%.6f+05:30").to_string(), *at).await;
        check(
            &east.format("%Y-%m-%dT%H:%M:%S%.6f%%2B05:30").to_string(),
            *at,
        )
        .await;
        let west = *at - TimeDelta::minutes(570);
        check(&west.format("%Y-%m-%dT%H:%M:%S%.6f-09:30").to_string(), *at).await;
    }
    // Fewer digits are an earlier moment; a day is its first.
    let at = times[4].format("%Y-%m-%dT%H:%M:%S%.6f").to_string();
    for len in ["2026-01-02T03:04:05".len(), at.len() - 5, at.len() - 3] {
        let begin = &at[..len];
        check(begin, time(&format!("{begin}Z"))).await;
    }
    let day = &at[..10];
    check(day, time(&format!("{day}T00:00:00Z"))).await;
}
