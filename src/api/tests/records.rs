//! Pages of records, and single records.

use super::*;
use crate::dispatch::Cause;

#[tokio::test]
async fn records_are_shown_with_cause_and_without_credentials() {
    let edge = Edge::plain().await;
    let message = GOOD
        .replace("Content-Type", "Authorization")
        .replace("application/json", "TOPSECRET");
    edge.sync(&message).await;
    let stream = "/v1/streams/DataSyncStream/partitions/0/records";
    let answer = edge.get(stream).await;
    let page = answer.json();
    assert_eq!(
        (&page["next"], &page["earliest"], &page["tail"]),
        (&Value::Null, &json!(0), &json!(1))
    );
    let item = &page["items"][0];
    assert_eq!(item["value"]["targetRestApiHeaders"][0]["value"], "***");
    assert!(
        answer.text().contains(r#""n": 1.10"#),
        "numbers keep their digits"
    );
    assert!(!answer.text().contains("TOPSECRET"));
    assert_eq!(
        (
            &item["offset"],
            &item["partition"],
            &item["key"],
            &item["settled"]
        ),
        (&json!(0), &json!("0"), &json!("key1"), &json!(false))
    );
    assert_eq!(item["headers"]["target"], "http://127.0.0.1:9");
    assert!(item.get("cause").is_none());
    let raw = edge.get(&format!("{stream}/0?raw=true")).await;
    assert!(raw.text().contains("TOPSECRET") && message.contains(raw.text()));
    assert_eq!(raw.header("content-type"), "application/octet-stream");
    assert_eq!(raw.header("x-content-type-options"), "nosniff");
    assert_eq!(
        raw.header("content-disposition"),
        "attachment; filename=\"DataSyncStream-0-0\""
    );
    edge.settle("DataSyncStream", 0).await;
    let one = edge.get(&format!("{stream}/0")).await.json();
    assert_eq!(
        (&one["settled"], &one["messageId"]),
        (&json!(true), &item["messageId"])
    );

    let mut headers = HeadersBuilder::default();
    headers
        .push(header::MESSAGE_ID, "first")
        .push(header::CAUSE_CLASS, "status");
    headers
        .push(header::CAUSE_STATUS, "404")
        .push(header::CAUSE_REASON, "Not Found")
        .push(header::CAUSE_BODY, "<b>");
    let odd = Record {
        key: b"\xff".as_slice().into(),
        value: b"\xfe{".as_slice().into(),
        headers: headers.build(),
    };
    edge.append("DefaultErrorStream", vec![odd]).await;
    let item = edge
        .get("/v1/streams/DefaultErrorStream/partitions/0/records/0")
        .await
        .json();
    assert_eq!(
        item["cause"],
        json!({"class": "status", "status": 404, "reason": "Not Found", "body": "<b>"})
    );
    assert_eq!(
        (&item["messageId"], &item["key"], &item["keyBase64"]),
        (&json!("first"), &Value::Null, &json!("/w=="))
    );
    assert_eq!(
        (item.get("value"), &item["valueBase64"]),
        (None, &json!("/ns="))
    );
}

#[tokio::test]
async fn records_are_found_by_offset_and_by_time() {
    let edge = Edge::plain().await;
    for n in 0..5 {
        edge.append("DataSyncStream", vec![record("", &n.to_string())])
            .await;
    }
    let path = "/v1/streams/DataSyncStream/partitions/0/records";
    let page = |query: &str| {
        let path = format!("{path}?{query}");
        let edge = &edge;
        async move {
            let page = edge.get(&path).await.json();
            let offsets: Vec<_> = page["items"]
                .as_array()
                .unwrap_or_else(|| panic!("{path}: {page}"))
                .iter()
                .map(|item| item["offset"].as_u64().unwrap())
                .collect();
            (offsets, page["next"].as_u64(), page)
        }
    };
    assert_eq!(page("limit=2").await.0, [0, 1]);
    assert_eq!(page("limit=2").await.1, Some(2));
    assert_eq!(page("from=2&limit=2").await.0, [2, 3]);
    assert_eq!(
        page("from=4").await,
        (vec![4], None, page("from=4").await.2)
    );
    assert_eq!(page("from=tail").await.0, [0; 0]);
    assert_eq!(page("from=99").await.0, [0; 0]);
    assert_eq!(page("from=18446744073709551615").await.0, [0; 0]);
    let time = page("").await.2["items"][3]["time"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(page(&format!("at={time}")).await.0, [3, 4]);
    assert_eq!(page("at=1970-01-01T00:00:00Z").await.0.len(), 5);
    for wrong in [
        "from=-1",
        "from=x",
        "at=yesterday",
        "from=1&at=1970-01-01T00:00:00Z",
        "limit=0",
        "offset=1",
        "from=1&from=2",
    ] {
        edge.get(&format!("{path}?{wrong}"))
            .await
            .check_problem(400, "invalid_request");
    }
    edge.engine
        .trim(edge.partition("DataSyncStream", 0), Offset(2))
        .await
        .unwrap();
    assert_eq!(page("from=earliest").await.0, [2, 3, 4]);
    let problem = edge
        .get(&format!("{path}?from=1"))
        .await
        .check_problem(410, "offset_trimmed");
    assert_eq!(problem["earliest"], 2);
    edge.get(&format!("{path}/1"))
        .await
        .check_problem(410, "offset_trimmed");
    for absent in ["5", "99999999999999999999", "-1", "x"] {
        edge.get(&format!("{path}/{absent}"))
            .await
            .check_problem(404, "not_found");
    }
    edge.get(&format!("{path}/3?raw=yes"))
        .await
        .check_problem(400, "invalid_request");
    let wrong = |path: &str| path.replace("/0/", "/1/");
    edge.get(&wrong(path).replace("partitions/0", "partitions/1"))
        .await
        .check_problem(404, "partition_unknown");
    for partition in ["x", "-1", "00", "65536"] {
        let path = path.replace("partitions/0", &format!("partitions/{partition}"));
        edge.get(&path)
            .await
            .check_problem(404, "partition_unknown");
    }
    edge.get("/v1/streams/Nowhere/partitions/0/records")
        .await
        .check_problem(404, "stream_unknown");
}

#[tokio::test]
async fn a_page_of_large_records_ends_early() {
    let edge = Edge::plain().await;
    let large = format!("\"{}\"", "x".repeat(1 << 20));
    for _ in 0..6 {
        edge.append("DataSyncStream", vec![record("", &large)])
            .await;
    }
    let page = edge
        .get("/v1/streams/DataSyncStream/partitions/0/records")
        .await
        .json();
    assert_eq!(
        (page["items"].as_array().unwrap().len(), &page["next"]),
        (4, &json!(4))
    );
}

#[tokio::test]
async fn a_long_page_is_written_in_parts_with_the_same_records() {
    let edge = Edge::plain().await;
    let value = |n: usize| format!(r#"{{"n":{n},"x":"{}"}}"#, "x".repeat(5_000));
    let records = (0..60).map(|n| record("k", &value(n))).collect();
    edge.append("DataSyncStream", records).await;
    // One record is larger than a part.
    let large = format!(r#""{}""#, "y".repeat(700 << 10));
    edge.append("DataSyncStream", vec![record("k", &large), record("", "1")])
        .await;
    edge.settle("DataSyncStream", 7).await;
    let path = "/v1/streams/DataSyncStream/partitions/0/records";
    let page = edge.get(&format!("{path}?limit=1000")).await;
    assert_eq!(page.header("transfer-encoding"), "chunked");
    let page = page.json();
    let items = page["items"].as_array().unwrap();
    let offsets: Vec<_> = items.iter().map(|item| item["offset"].as_u64()).collect();
    assert_eq!(offsets, (0..62).map(Some).collect::<Vec<_>>());
    assert!((0..60).all(|n| items[n]["value"]["n"] == n));
    assert!((0..62).all(|n| items[n]["settled"] == (n == 7)));
    assert_eq!(items[60]["value"], large[1..large.len() - 1]);
    let ends = |page: &Value| [&page["next"], &page["earliest"], &page["tail"]].map(Value::as_u64);
    assert_eq!(ends(&page), [None, Some(0), Some(62)]);
    // Before the end, in the middle of a part, and at the end of one.
    for (from, limit) in [(0, 1), (3, 20), (59, 1), (59, 2)] {
        let page = edge.get(&format!("{path}?from={from}&limit={limit}")).await;
        let page = page.json();
        let next = from + limit;
        assert_eq!(page["items"].as_array().unwrap().len() as u64, limit);
        assert_eq!(ends(&page), [Some(next), Some(0), Some(62)]);
    }
    // A page of one part has `Content-Length`, and so has a page without records.
    for (from, len) in [("61", 1), ("62", 0), ("tail", 0)] {
        let page = edge.get(&format!("{path}?from={from}")).await;
        assert!(!page.header("content-length").is_empty());
        assert_eq!(page.json()["items"].as_array().unwrap().len(), len);
    }
    let head = edge.send("HEAD", path, &[], "").await;
    assert_eq!((head.status, head.text()), (200, ""));
}

#[tokio::test]
async fn a_page_ends_early_by_its_bytes() {
    let edge = Edge::plain().await;
    let value = format!(r#""{}""#, "x".repeat(900 << 10));
    for _ in 0..8 {
        edge.append("DataSyncStream", vec![record("", &value)])
            .await;
    }
    let path = "/v1/streams/DataSyncStream/partitions/0/records";
    let page = edge.get(path).await.json();
    assert_eq!(page["items"].as_array().unwrap().len(), 5);
    assert_eq!(page["next"], 5);
}

#[tokio::test]
async fn open_records_are_found_among_many_settled_ones() {
    const LEN: u64 = 40_000;
    let open = [3, 4, 5, 16_383, 16_384, 32_768, LEN - 1];
    let edge = Edge::plain().await;
    let stream = "ServerUnavailableStream";
    let records = (0..LEN).map(|n| record("", &n.to_string())).collect();
    edge.append(stream, records).await;
    let of = edge.partition(stream, 0);
    let ended = (0..LEN).filter(|at| !open.contains(at));
    let settles = ended.map(|at| Settle {
        of,
        offset: Offset(at),
        end: NewSettlement::Delivered,
        attempts: 1,
        status: Some(200),
        epoch: Epoch(1),
    });
    let commit = Commit {
        settles: settles.collect(),
        ..Commit::default()
    };
    edge.engine.commit(commit).await.unwrap();
    let page = async |query: &str| {
        let path = format!("/v1/streams/{stream}/partitions/0/records?open=true{query}");
        let page = edge.get(&path).await.json();
        let items = page["items"].as_array().unwrap().clone();
        let offsets = items.iter().map(|item| {
            assert_eq!(item["settled"], false);
            assert_eq!(item["value"], item["offset"]);
            item["offset"].as_u64().unwrap()
        });
        (offsets.collect::<Vec<_>>(), page["next"].as_u64())
    };
    assert_eq!(page("").await, (open.to_vec(), None));
    assert_eq!(page("&from=4").await, (open[1..].to_vec(), None));
    assert_eq!(
        page("&from=16384&limit=2").await,
        (vec![16_384, 32_768], Some(32_769))
    );
    assert_eq!(page("&from=tail").await, (Vec::new(), None));
    let (mut from, mut all) = (0, Vec::new());
    loop {
        let (mut offsets, next) = page(&format!("&limit=1&from={from}")).await;
        all.append(&mut offsets);
        let Some(next) = next else { break };
        from = next;
    }
    assert_eq!(all, open);
    edge.engine.trim(of, Offset(5)).await.unwrap();
    assert_eq!(page("&from=earliest&limit=1").await, (vec![5], Some(6)));
    let path = format!("/v1/streams/{stream}/partitions/0/records?open=true&from=4");
    let problem = edge.get(&path).await.check_problem(410, "offset_trimmed");
    assert_eq!(problem["earliest"], 5);
    edge.get(&path.replace("true", "yes"))
        .await
        .check_problem(400, "invalid_request");
}

#[tokio::test]
async fn an_open_record_says_what_it_waits_for() {
    let edge = Edge::plain().await;
    let due = Timestamp::parse("2026-01-02T03:04:05Z");
    let waiting = |offset, waits_for, cause, due| WaitingRecord {
        partition: Partition(0),
        offset: Offset(offset),
        waits_for,
        cause,
        attempts: u32::from(cause.is_some()) * 2,
        due,
    };
    *edge.waits.0.lock().unwrap() = vec![
        waiting(1, WaitsFor::RetryAfter, Some(Cause::Status(429)), due),
        waiting(2, WaitsFor::Key, None, None),
        waiting(3, WaitsFor::TargetOpen, Some(Cause::Timeout), due),
    ];
    for stream in ["DataSyncStream", "DefaultErrorStream"] {
        let records = (0..4).map(|n| record("", &n.to_string())).collect();
        edge.append(stream, records).await;
    }
    let shown = async |stream: &str, query: &str| {
        let path = format!("/v1/streams/{stream}/partitions/{query}");
        let page = edge.get(&path).await.json();
        let items = page["items"].as_array().unwrap().iter();
        items
            .map(|item| item["waiting"].clone())
            .collect::<Vec<_>>()
    };
    let due = "2026-01-02T03:04:05.000000Z";
    let all = [
        json!({"for": "turn", "attempts": 0}),
        json!({"for": "retry_after", "cause": {"class": "status", "status": 429}, "attempts": 2, "due": due}),
        json!({"for": "key", "attempts": 0}),
        json!({"for": "target_open", "cause": {"class": "timeout"}, "attempts": 2, "due": due}),
    ];
    assert_eq!(shown("DataSyncStream", "0/records?open=true").await, all);
    assert_eq!(shown("DataSyncStream", "*/records?open=true").await, all);
    let path = "/v1/streams/DataSyncStream/partitions/0/records/3";
    assert_eq!(edge.get(path).await.json()["waiting"], all[3]);
    // Only records of the source stream wait, and a page shows it only with `open=true`.
    let none = vec![Value::Null; 4];
    assert_eq!(shown("DataSyncStream", "*/records?open=false").await, none);
    assert_eq!(
        shown("DefaultErrorStream", "*/records?open=true").await,
        none
    );
    edge.settle("DataSyncStream", 3).await;
    assert!(edge.get(path).await.json().get("waiting").is_none());
}
