//! A retry that meets retention.

use serde_json::json;

use crate::testkit::{Act, Gateway, StubTarget, message, poll};

const INTERNAL: &str = "InternalserverErrorStream";
const SMALL_FILES: &str =
    "[log]\nsegment_bytes = 1048576\n[sync]\nbatch_bytes_max = 524288\nrecord_bytes_max = 262144\n";

/// The target breaks the calls when retention has removed their records: each has an end by then, which the failure does
/// not give it once more.
#[tokio::test]
async fn records_that_retention_removes_during_their_calls_are_passed_over_and_counted() {
    const LEN: u64 = 24;
    let target = StubTarget::with(|_| Act::status(500)).await;
    let seldom = "[retention]\ninterval_seconds = 86400\n";
    let config = format!("{SMALL_FILES}{seldom}");
    let gateway = Gateway::with_config(&config);
    let large = message(&target.url("/x"), json!("x".repeat(200_000)));
    for _ in 0..LEN / 2 {
        gateway.sync_all(&[large.clone(), large.clone()]).await;
    }
    gateway.drained("DataSyncStream").await;

    target.now(|_| Act::Hold);
    let (report, ()) = tokio::join!(gateway.retry(INTERNAL, -1, 3), async {
        target.wait_for_calls(24 + 3).await;
        let less = format!("{config}error_bytes = 1000\n");
        gateway.reload(&less).await.ok();
        poll("the records to go", async || {
            let stream = gateway.get(&format!("/v1/streams/{INTERNAL}")).await.ok();
            (stream["bounds"][0]["earliest"].as_u64() >= Some(4)).then_some(())
        })
        .await;
        drop(target);
    });
    let counts = [
        "attempted",
        "processedmessages",
        "failedMessages",
        "moved",
        "trimmed",
    ];
    assert_eq!(
        counts.map(|count| &report[count]),
        [3, 0, 3, 0, 3].map(|n| json!(n)).each_ref(),
        "{report}"
    );
    assert_eq!(
        (&report["lastReadOffset"], &report["endOfStream"]),
        (&json!(2), &json!(false)),
        "{report}"
    );
    // None of them has left a copy, and the books say where they went.
    let expired = gateway.count(INTERNAL, "expired").await;
    assert!(expired >= 4, "{expired}");
    for stream in ["DefaultErrorStream", "ServerUnavailableStream"] {
        assert_eq!(gateway.records(stream).await.len(), 0, "{stream}");
    }
    let ledger = gateway.get("/v1/ledger").await.ok();
    assert_eq!(ledger["total"]["difference"], 0, "{ledger}");
}
