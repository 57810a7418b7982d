//! `POST /stream/retry`: the seed's contract, and the defects of the original mended.

mod cron;
pub mod hang_up;
mod open;
mod outcomes;
mod retention;
mod secret;

use serde_json::{Value, json};

use crate::testkit::{Act, Gateway, StubTarget, keyed};

const UNAVAILABLE: &str = "ServerUnavailableStream";

/// A gateway with `count` records in the unavailable stream, and their target, which answers 200 from now on.
async fn failed(count: usize) -> (Gateway, StubTarget) {
    // A 408 belongs into the unavailable stream, and opens no breaker: a retry would stop at an open one.
    let target = StubTarget::with(|_| Act::status(408)).await;
    let gateway = Gateway::start();
    let messages: Vec<_> = (0..count)
        .map(|n| keyed(&format!("k{n}"), &target.url("/x"), json!({ "n": n })))
        .collect();
    if !messages.is_empty() {
        gateway.sync_all(&messages).await;
        gateway.record(UNAVAILABLE, count).await;
    }
    target.now(|_| Act::status(200));
    (gateway, target)
}

#[tokio::test]
async fn a_retry_delivers_and_a_second_one_finds_nothing_to_do() {
    let (gateway, target) = failed(3).await;
    let report = gateway.retry(UNAVAILABLE, -1, 100).await;
    assert_eq!(report["lastReadOffset"], 2);
    assert_eq!(
        (&report["processedmessages"], &report["failedMessages"]),
        (&json!(3), &json!(0))
    );
    assert_eq!(report["endOfStream"], true);
    target.wait_for_calls(6).await;
    let again = gateway.retry(UNAVAILABLE, -1, 100).await;
    assert_eq!(
        (
            &again["processedmessages"],
            &again["failedMessages"],
            &again["skipped"]
        ),
        (&json!(0), &json!(0), &json!(3))
    );
    assert_eq!(again["endOfStream"], true);
    assert_eq!(target.calls().len(), 6);
    assert_eq!(gateway.count(UNAVAILABLE, "open").await, 0);
}

#[tokio::test]
async fn redeliver_sends_resolved_ones_again() {
    let (gateway, target) = failed(2).await;
    gateway.retry(UNAVAILABLE, -1, 100).await;
    let body = json!({ "streamOCIDToRetry": UNAVAILABLE, "noOfMessagesToProcess": 10, "readAfterOffset": -1,
        "readPartition": "0", "errormapping": [], "redeliver": true });
    let report = gateway.post("/stream/retry", &body).await.ok();
    assert_eq!(report["processedmessages"], 2);
    assert_eq!(target.calls().len(), 6);
}

#[tokio::test]
async fn the_cap_is_exact_and_exactly_as_many_left_is_the_end() {
    let (gateway, target) = failed(7).await;
    let first = gateway.retry(UNAVAILABLE, -1, 3).await;
    assert_eq!(
        (&first["lastReadOffset"], &first["processedmessages"]),
        (&json!(2), &json!(3))
    );
    assert_eq!(first["endOfStream"], false);
    assert_eq!(target.calls().len(), 7 + 3);
    let second = gateway.retry(UNAVAILABLE, 2, 4).await;
    assert_eq!(
        (&second["lastReadOffset"], &second["processedmessages"]),
        (&json!(6), &json!(4))
    );
    assert_eq!(second["endOfStream"], true);
}

#[tokio::test]
async fn a_loop_that_feeds_back_the_offset_visits_each_record_once() {
    let (gateway, target) = failed(20).await;
    let mut after = -1;
    for _ in 0..20 {
        let report = gateway.retry(UNAVAILABLE, after, 5).await;
        after = report["lastReadOffset"].as_i64().unwrap();
        if report["endOfStream"] == true {
            break;
        }
    }
    assert_eq!(after, 19);
    let mut visited: Vec<_> = target.calls()[20..]
        .iter()
        .map(|call| call.json()["n"].as_u64().unwrap())
        .collect();
    visited.sort_unstable();
    assert_eq!(visited, (0..20).collect::<Vec<u64>>());
}

#[tokio::test]
async fn a_failed_retry_moves_the_record_and_a_stream_mapped_to_itself_ends() {
    let (gateway, target) = failed(4).await;
    target.now(|_| Act::status(503));
    let mapping = json!([{ "responsecode": "503", "stream": UNAVAILABLE }]);
    let report = gateway
        .retry_with(UNAVAILABLE, -1, 100, mapping.clone())
        .await
        .ok();
    assert_eq!(
        (&report["processedmessages"], &report["failedMessages"]),
        (&json!(0), &json!(4))
    );
    assert_eq!(
        (&report["lastReadOffset"], &report["endOfStream"]),
        (&json!(3), &json!(true))
    );
    let records = gateway.records(UNAVAILABLE).await;
    assert_eq!(records.len(), 8);
    assert_eq!(records[7]["headers"]["retries"], "1");
    assert_eq!(records[7]["headers"]["origin-stream"], "DataSyncStream");
    assert_eq!(gateway.count(UNAVAILABLE, "open").await, 4);
    // The moved ones are settled: a pass over everything tries each message once.
    target.now(|_| Act::status(200));
    let report = gateway.retry_with(UNAVAILABLE, -1, 100, mapping).await.ok();
    assert_eq!(
        (&report["processedmessages"], &report["skipped"]),
        (&json!(4), &json!(4))
    );
    assert_eq!(gateway.count(UNAVAILABLE, "open").await, 0);
}

#[tokio::test]
async fn failures_go_where_the_mapping_says() {
    let (gateway, target) = failed(5).await;
    target.now(|call| match call.json()["n"].as_u64() {
        Some(0) => Act::status(404),
        Some(1) => Act::status(500),
        Some(2) => Act::status(418),
        Some(3) => Act::Reset,
        _ => Act::status(200),
    });
    let mapping = json!([
        { "responsecode": 404, "stream": "InternalserverErrorStream" },
        { "responsecode": "5xx", "stream": "UnrecoverableErrorStream" },
        { "responsecode": "unexpectedError", "stream": UNAVAILABLE },
    ]);
    let report = gateway.retry_with(UNAVAILABLE, -1, 100, mapping).await.ok();
    assert_eq!(
        (&report["processedmessages"], &report["failedMessages"]),
        (&json!(1), &json!(4))
    );
    let n = async |stream| {
        gateway
            .records(stream)
            .await
            .last()
            .map(|record: &Value| record["value"]["targetRestApiPayload"]["n"].clone())
    };
    assert_eq!(n("InternalserverErrorStream").await, Some(json!(0)));
    assert_eq!(n("UnrecoverableErrorStream").await, Some(json!(1)));
    assert_eq!(n("DefaultErrorStream").await, Some(json!(2)));
    assert_eq!(n(UNAVAILABLE).await, Some(json!(3)));
    assert_eq!(gateway.records(UNAVAILABLE).await.len(), 6);
}

#[tokio::test]
async fn without_unexpected_error_such_failures_go_to_the_default_stream() {
    let (gateway, target) = failed(2).await;
    target.now(|_| Act::Reset);
    let report = gateway
        .retry_with(UNAVAILABLE, -1, 10, json!([]))
        .await
        .ok();
    assert_eq!(
        (&report["failedMessages"], &report["endOfStream"]),
        (&json!(2), &json!(true))
    );
    assert_eq!(gateway.records("DefaultErrorStream").await.len(), 2);
}

#[tokio::test]
async fn the_main_stream_can_be_replayed() {
    let target = StubTarget::start().await;
    let gateway = Gateway::start();
    for n in 0..3 {
        gateway.sync(&keyed("k", &target.url("/x"), json!(n))).await;
    }
    gateway.drained("DataSyncStream").await;
    let report = gateway.retry("DataSyncStream", 0, 10).await;
    assert_eq!(
        (&report["processedmessages"], &report["lastReadOffset"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(target.calls().len(), 5);
    target.now(|_| Act::status(400));
    let mapping = json!([{ "responsecode": "400", "stream": "UnrecoverableErrorStream" }]);
    let report = gateway
        .retry_with("DataSyncStream", -1, 10, mapping)
        .await
        .ok();
    assert_eq!(report["failedMessages"], 3);
    assert_eq!(gateway.records("UnrecoverableErrorStream").await.len(), 3);
    assert_eq!(gateway.count("DataSyncStream", "delivered").await, 3);
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let (gateway, target) = failed(3).await;
    let body = json!({ "streamOCIDToRetry": UNAVAILABLE, "noOfMessagesToProcess": 10, "readAfterOffset": -1,
        "readPartition": 0, "errormapping": [], "dryRun": true });
    gateway.post("/stream/retry", &body).await.ok();
    assert_eq!(target.calls().len(), 3);
    assert_eq!(gateway.count(UNAVAILABLE, "open").await, 3);
}

#[tokio::test]
async fn a_time_budget_ends_a_call_at_an_offset_to_go_on_from() {
    let (gateway, target) = failed(200).await;
    let (mut after, mut processed, mut calls) = (-1, 0, 0);
    loop {
        let body = json!({ "streamOCIDToRetry": UNAVAILABLE, "noOfMessagesToProcess": 200, "readAfterOffset": after,
            "readPartition": "0", "errormapping": [], "timeBudgetMs": 5 });
        let report = gateway.post("/stream/retry", &body).await.ok();
        after = report["lastReadOffset"].as_i64().unwrap();
        processed += report["processedmessages"].as_i64().unwrap();
        calls += 1;
        // Calls overtake each other; what was overtaken is left for the next pass, and what is done is skipped there.
        assert!(processed > after, "a pass left a gap behind: {report}");
        if report["endOfStream"] == true {
            break;
        }
    }
    assert_eq!(processed, 200);
    assert!(calls > 1, "200 calls of a target took less than 5 ms");
    let mut visited: Vec<_> = target.calls()[200..]
        .iter()
        .map(|call| call.json()["n"].as_u64().unwrap())
        .collect();
    visited.sort_unstable();
    assert_eq!(visited, (0..200).collect::<Vec<u64>>());
}

#[tokio::test]
async fn one_retry_at_a_time_for_a_partition_and_a_dry_run_beside_it() {
    let (gateway, target) = failed(1).await;
    target.now(|_| Act::Hold);
    let (first, ()) = tokio::join!(gateway.retry(UNAVAILABLE, -1, 10), async {
        target.wait_for_calls(2).await;
        gateway
            .retry_with(UNAVAILABLE, -1, 10, json!([]))
            .await
            .problem(409, "retry_running");
        let mut dry = json!({ "streamOCIDToRetry": UNAVAILABLE, "noOfMessagesToProcess": 10, "readAfterOffset": -1,
            "readPartition": "*", "dryRun": true });
        let report = gateway.post("/stream/retry", &dry).await.ok();
        assert_eq!(report["attempted"], 1, "{report}");
        dry["dryRun"] = false.into();
        let refused = gateway.post("/stream/retry", &dry).await;
        refused.problem(409, "retry_running");
        target.release(1);
    });
    assert_eq!(first["processedmessages"], 1);
}

#[tokio::test]
async fn an_empty_answer_keeps_the_callers_offset() {
    let (gateway, _target) = failed(1).await;
    for after in [-1, 0, 0] {
        let report = gateway.retry(UNAVAILABLE, after, 10).await;
        assert_eq!(
            (&report["lastReadOffset"], &report["endOfStream"]),
            (&json!(0), &json!(true)),
            "{after}"
        );
    }
    let (gateway, _target) = failed(0).await;
    let report = gateway.retry(UNAVAILABLE, -1, 10).await;
    assert_eq!(
        (&report["lastReadOffset"], &report["endOfStream"]),
        (&json!(-1), &json!(true))
    );
    assert_eq!(
        (&report["processedmessages"], &report["failedMessages"]),
        (&json!(0), &json!(0))
    );
}

#[tokio::test]
async fn bad_requests_name_the_member_and_change_nothing() {
    let (gateway, target) = failed(1).await;
    let good = json!({ "streamOCIDToRetry": UNAVAILABLE, "noOfMessagesToProcess": 10, "readAfterOffset": -1,
        "readPartition": "0", "errormapping": [] });
    let changes = [
        ("streamOCIDToRetry", json!(7), 400),
        ("streamOCIDToRetry", json!("Nowhere"), 404),
        ("noOfMessagesToProcess", json!(0), 400),
        ("noOfMessagesToProcess", json!(-1), 400),
        ("noOfMessagesToProcess", json!("many"), 400),
        ("noOfMessagesToProcess", json!(1.5), 400),
        ("noOfMessagesToProcess", Value::Null, 400),
        ("readAfterOffset", json!(-2), 400),
        ("readAfterOffset", json!("x"), 400),
        ("readAfterOffset", json!([]), 400),
        ("readAfterOffset", json!(1), 400),
        ("readAfterOffset", json!(i64::MAX), 400),
        ("readPartition", json!("one"), 400),
        ("readPartition", json!("9"), 404),
        ("readPartition", json!(-1), 400),
        ("errormapping", json!({}), 400),
        ("errormapping", json!([{"responsecode": "404"}]), 400),
        (
            "errormapping",
            json!([{"responsecode": "never", "stream": UNAVAILABLE}]),
            400,
        ),
        (
            "errormapping",
            json!([{"responsecode": "404", "stream": "Nowhere"}]),
            404,
        ),
        (
            "errormapping",
            json!([{"responsecode": "404", "stream": "DataSyncStream"}]),
            400,
        ),
        ("timeBudgetMs", json!(0), 400),
        ("dryRun", json!("yes"), 400),
        ("group", json!("9g"), 400),
        ("group", Value::Null, 400),
        ("filter", json!("record.key == 'k'"), 400),
        ("filter", json!({ "status": 503 }), 400),
        ("ratePerSecond", json!(0), 400),
        ("ratePerSecond", json!(100_001), 400),
        ("more", json!(1), 400),
    ];
    for (member, value, status) in changes {
        let mut body = good.clone();
        body[member] = value.clone();
        let answer = gateway.post("/stream/retry", &body).await;
        assert_eq!(
            answer.status.as_u16(),
            status,
            "{member}: {value}: {}",
            answer.body
        );
        assert!(
            answer.body.to_string().contains(member),
            "{member}: {value}: {}",
            answer.body
        );
    }
    for member in [
        "streamOCIDToRetry",
        "noOfMessagesToProcess",
        "readAfterOffset",
        "readPartition",
    ] {
        let mut body = good.clone();
        body.as_object_mut().unwrap().remove(member);
        let problem = gateway
            .post("/stream/retry", &body)
            .await
            .problem(400, "invalid_request");
        assert_eq!(problem["errors"][0]["pointer"], format!("/{member}"));
        assert_eq!(problem["errors"][0]["code"], "required");
    }
    assert_eq!(target.calls().len(), 1);
    // Numeric text is a number, as the sample has it.
    let mut body = good;
    body["noOfMessagesToProcess"] = "5".into();
    body["readAfterOffset"] = "-1".into();
    assert_eq!(
        gateway.post("/stream/retry", &body).await.ok()["processedmessages"],
        1
    );
}

#[tokio::test]
async fn too_many_retries_end_in_the_unrecoverable_stream() {
    let target = StubTarget::with(|_| Act::status(503)).await;
    let gateway = Gateway::with_config("[retry]\nretries_max = 2\n");
    gateway.sync(&keyed("k", &target.url("/x"), json!(1))).await;
    gateway.record(UNAVAILABLE, 1).await;
    let mapping = json!([{ "responsecode": "503", "stream": UNAVAILABLE }]);
    for _ in 0..2 {
        gateway
            .retry_with(UNAVAILABLE, -1, 10, mapping.clone())
            .await
            .ok();
    }
    assert_eq!(gateway.count(UNAVAILABLE, "open").await, 0);
    let record = gateway.record("UnrecoverableErrorStream", 1).await;
    assert_eq!(record["headers"]["retries"], "2");
}

/// What the default stream holds fails again, and its failures have no other place to go: with the defaults, and as the
/// sample sets it up, where the default stream is the unavailable one.
#[tokio::test]
async fn retries_of_the_default_stream_end_while_its_target_is_down() {
    let sample = "[oci_sample]\nserviceUnavailable_error_stream_ocid = \"o\"\ndefault_error_stream_ocid = \"o\"\n";
    for (config, stream) in [("", "DefaultErrorStream"), (sample, UNAVAILABLE)] {
        let target = StubTarget::with(|_| Act::status(418)).await;
        let gateway = Gateway::with_config(&format!("{config}[retry]\nretries_max = 4\n"));
        for n in 0..3 {
            gateway.sync(&keyed("k", &target.url("/x"), json!(n))).await;
        }
        gateway.record(stream, 3).await;
        drop(target);
        let report = gateway.retry(stream, -1, 100).await;
        assert_eq!(
            (&report["failedMessages"], &report["lastReadOffset"]),
            (&json!(3), &json!(2)),
            "{stream}"
        );
        assert_eq!(report["endOfStream"], true, "{stream}: {report}");
        assert_eq!(gateway.count(stream, "open").await, 3);

        // A loop in small steps runs after its own copies, until they have been retried as often as they may.
        let (mut after, mut attempted, mut calls_len) = (-1, 0, 0);
        loop {
            let report = gateway.retry(stream, after, 2).await;
            after = report["lastReadOffset"].as_i64().unwrap();
            attempted += report["attempted"].as_u64().unwrap();
            assert_eq!(report["attempted"], report["failedMessages"], "{report}");
            calls_len += 1;
            if report["endOfStream"] == true {
                break;
            }
            assert!(calls_len < 20, "{stream}: the loop does not end");
        }
        assert_eq!(attempted, 3 * 3, "{stream}");
        assert_eq!(gateway.count(stream, "open").await, 0);
        let mut left = gateway.records("UnrecoverableErrorStream").await;
        left.sort_by_key(|record| record["headers"]["origin-offset"].to_string());
        let facts = |record: &Value| {
            assert_eq!(record["headers"]["retries"], "4", "{record}");
            assert_eq!(record["headers"]["origin-stream"], "DataSyncStream");
            record["value"]["targetRestApiPayload"].clone()
        };
        let left: Vec<_> = left.iter().map(facts).collect();
        assert_eq!(left, [json!(0), json!(1), json!(2)], "{stream}");
    }
}

#[tokio::test]
async fn a_stream_is_found_by_its_ocid() {
    let target = StubTarget::with(|_| Act::status(503)).await;
    let gateway = Gateway::with_config(
        "[oci_sample]\nserviceUnavailable_error_stream_ocid = \"ocid1.stream.oc1..aaaa\"\n",
    );
    gateway.sync(&keyed("k", &target.url("/x"), json!(1))).await;
    gateway.record(UNAVAILABLE, 1).await;
    target.now(|_| Act::status(200));
    assert_eq!(
        gateway.retry("ocid1.stream.oc1..aaaa", -1, 10).await["processedmessages"],
        1
    );
}

#[tokio::test]
async fn a_group_stands_where_its_last_call_came_to_after_a_kill() {
    let (gateway, target) = failed(5).await;
    let mut body = json!({ "streamOCIDToRetry": UNAVAILABLE, "noOfMessagesToProcess": 2, "group": "nightly",
        "readPartition": "*", "errormapping": [], "redeliver": true });
    let report = gateway.post("/stream/retry", &body).await.ok();
    let stands = |last: u64| json!({ "name": "nightly", "positions": { "0": last } });
    assert_eq!(
        (&report["attempted"], &report["group"]),
        (&json!(2), &stands(1))
    );
    let gateway = gateway.kill().start();
    let report = gateway.post("/stream/retry", &body).await.ok();
    assert_eq!(
        (&report["attempted"], &report["group"]),
        (&json!(2), &stands(3))
    );
    assert_eq!(report["partitions"]["0"]["startOffset"], 2);
    let stream = gateway
        .get(&format!("/v1/streams/{UNAVAILABLE}"))
        .await
        .ok();
    let lag = json!([{ "kind": "retry", "name": "nightly", "lag": 1 }]);
    assert_eq!(stream["readers"], lag);
    body["readPartition"] = "0".into();
    let report = gateway.post("/stream/retry", &body).await.ok();
    assert_eq!(
        (&report["attempted"], &report["group"]),
        (&json!(1), &stands(4))
    );
    assert_eq!(
        (&report["lastReadOffset"], &report["endOfStream"]),
        (&json!(4), &json!(true))
    );
    assert_eq!(target.calls().len(), 5 + 5);
}
