//! Where failures of a retry go that has no `errormapping`: where the first dispatch of the record would put them.

use serde_json::{Value, json};

use super::UNAVAILABLE;
use crate::testkit::{Act, Answer, Gateway, StubTarget, keyed, message};

/// Retries partition 0 of a stream; `mapping` is the member, or its absence.
async fn retry(gateway: &Gateway, stream: &str, mapping: Option<Value>) -> Answer {
    let mut body = json!({ "streamOCIDToRetry": stream, "noOfMessagesToProcess": 100, "readAfterOffset": -1,
        "readPartition": "0" });
    if let Some(mapping) = mapping {
        body["errormapping"] = mapping;
    }
    gateway.post("/stream/retry", &body).await
}

/// Enhancement E9: dispatch and retry classify alike.
#[tokio::test]
async fn the_same_failure_has_the_same_stream_and_the_same_error_record_from_dispatch_and_from_retry()
 {
    let cases = [
        ("/status/503", UNAVAILABLE),
        ("/status/500", "InternalserverErrorStream"),
        ("/status/404", "UnrecoverableErrorStream"),
        ("/status/401", "DefaultErrorStream"),
        ("/reset", UNAVAILABLE),
    ];
    for (path, stream) in cases {
        let target = StubTarget::by_path().await;
        let gateway = Gateway::start();
        gateway.sync(&message(&target.url(path), json!(1))).await;
        let first = gateway.record(stream, 1).await;
        for (round, absent) in [(1, None), (2, Some(Value::Null))] {
            let report = retry(&gateway, stream, absent).await.ok();
            assert_eq!(report["movedTo"], json!({ stream: 1 }), "{path}: {report}");
            assert_eq!(report["failedMessages"], 1, "{path}: {report}");
            let again = gateway.record(stream, 1 + round).await;
            assert_eq!(again["cause"], first["cause"], "{path}");
            assert_eq!(again["value"], first["value"], "{path}");
            let names = [
                "cause-class",
                "cause-status",
                "origin-stream",
                "origin-offset",
            ];
            for name in names {
                assert_eq!(
                    again["headers"][name], first["headers"][name],
                    "{path} {name}"
                );
            }
            assert_eq!(again["headers"]["retries"], round.to_string(), "{path}");
        }
        assert_eq!(gateway.count(stream, "open").await, 1, "{path}");
    }
}

#[tokio::test]
async fn the_outcomes_of_the_configuration_count_and_a_given_mapping_counts_for_all_failures() {
    let target = StubTarget::with(|_| Act::status(500)).await;
    let gateway =
        Gateway::with_config("[[streams]]\nname = \"Later\"\n[outcomes]\n500 = \"Later\"\n");
    for n in 0..2 {
        let key = format!("k{n}");
        gateway
            .sync(&keyed(&key, &target.url("/x"), json!(n)))
            .await;
    }
    gateway.record("Later", 2).await;
    let report = retry(&gateway, "Later", None).await.ok();
    assert_eq!(report["movedTo"], json!({ "Later": 2 }), "{report}");
    // As in the sample: what the mapping does not name goes to the default stream, also if it names nothing.
    for (mapping, len) in [
        (json!([{"responsecode": "404", "stream": "Later"}]), 2),
        (json!([]), 0),
    ] {
        let report = retry(&gateway, "Later", Some(mapping)).await.ok();
        let expected = match len {
            0 => json!({}),
            len => json!({ "DefaultErrorStream": len }),
        };
        assert_eq!(report["movedTo"], expected, "{report}");
    }
    let report = retry(&gateway, "DefaultErrorStream", Some(json!([])))
        .await
        .ok();
    assert_eq!(
        report["movedTo"],
        json!({ "DefaultErrorStream": 2 }),
        "{report}"
    );
}

#[tokio::test]
async fn a_record_that_stays_in_its_stream_leaves_it_after_so_many_retries() {
    let target = StubTarget::with(|_| Act::status(503)).await;
    let gateway = Gateway::with_config("[retry]\nretries_max = 2\n");
    gateway.sync(&keyed("k", &target.url("/x"), json!(1))).await;
    gateway.record(UNAVAILABLE, 1).await;
    for stream in [UNAVAILABLE, "UnrecoverableErrorStream"] {
        let report = retry(&gateway, UNAVAILABLE, None).await.ok();
        assert_eq!(report["movedTo"], json!({ stream: 1 }), "{report}");
    }
    assert_eq!(gateway.count(UNAVAILABLE, "open").await, 0);
    // There it stays as it is: no retry leaves another copy.
    let report = retry(&gateway, "UnrecoverableErrorStream", None).await.ok();
    assert_eq!(
        (&report["failedMessages"], &report["movedTo"]),
        (&json!(1), &json!({})),
        "{report}"
    );
    assert_eq!(gateway.count("UnrecoverableErrorStream", "open").await, 1);
}
