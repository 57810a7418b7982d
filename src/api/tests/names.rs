//! Names of streams, data streams and cursors, and answers about unknown ones.

use super::*;

#[tokio::test]
async fn streams_are_found_by_ocid_and_a_wrong_name_gets_the_nearest() {
    let edge = Edge::plain().await;
    let config = StreamConfig {
        ocid: Some("ocid1.stream.oc1..aaa/b c".into()),
        ..StreamConfig::default()
    };
    let made = edge
        .engine
        .create_stream("Orders".parse().unwrap(), 1, config);
    made.await.unwrap();
    edge.append("Orders", vec![record("", "7")]).await;
    let ocid = "ocid1.stream.oc1..aaa%2Fb%20c";
    for path in [
        "",
        "/partitions",
        "/partitions/0/records",
        "/partitions/0/records/0",
    ] {
        let path = format!("/v1/streams/{ocid}{path}");
        let answer = edge.get(&path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
    let ledger = edge.get(&format!("/v1/ledger?stream={ocid}")).await.json();
    assert_eq!(ledger["streams"][0]["stream"], "Orders", "{ledger}");
    let near = "no stream is called `DataSyncStrem`; did you mean `DataSyncStream`?";
    for path in [
        "",
        "/partitions",
        "/partitions/0/records",
        "/partitions/0/records/0",
    ] {
        let path = format!("/v1/streams/DataSyncStrem{path}");
        let problem = edge.get(&path).await.check_problem(404, "stream_unknown");
        assert_eq!(problem["detail"], near, "{path}");
    }
    let purge = edge
        .post("/v1/streams/DataSyncStrem/purge", r#"{"reason": "r"}"#)
        .await;
    assert_eq!(purge.check_problem(404, "stream_unknown")["detail"], near);
    let ledger = edge.get("/v1/ledger?stream=DataSyncStrem").await;
    assert_eq!(ledger.check_problem(404, "stream_unknown")["detail"], near);
    let retry = r#"{"streamOCIDToRetry":"DataSyncStrem","noOfMessagesToProcess":1,"readPartition":"0","readAfterOffset":-1,"errormapping":[]}"#;
    let problem = edge
        .post("/stream/retry", retry)
        .await
        .check_problem(404, "stream_unknown");
    assert_eq!(problem["detail"], format!("/streamOCIDToRetry: {near}"));
    let problem = edge
        .get("/v1/streams/xyz")
        .await
        .check_problem(404, "stream_unknown");
    assert_eq!(
        problem["detail"],
        "no stream is called `xyz`; GET /v1/streams lists them"
    );
}

#[tokio::test]
async fn data_streams_and_cursors_with_a_wrong_name_get_the_nearest() {
    let edge = Edge::plain().await;
    let config = r#"{"source": {"trail": "DataSyncStream"}}"#;
    let made = edge.post("/services/v2/stream/orders", config).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let cursor = "/v1/data-streams/orders/cursors/warehouse";
    let put = edge
        .send("PUT", cursor, &[], r#"{"begin": "earliest"}"#)
        .await;
    assert_eq!(put.status, 200, "{}", put.text());
    let near = "no data stream is called `order`; did you mean `orders`?";
    for path in [
        "/services/v2/stream/order",
        "/v1/data-streams/order/cursors",
    ] {
        let problem = edge.get(path).await.check_problem(404, "not_found");
        assert_eq!(problem["detail"], near, "{path}");
    }
    let near = "no cursor is called `warehous`; did you mean `warehouse`?";
    let wrong = "/v1/data-streams/orders/cursors/warehous";
    let deleted = edge.send("DELETE", wrong, &[], "").await;
    assert_eq!(deleted.check_problem(404, "not_found")["detail"], near);
    let pos = put.json()["pos"].as_str().unwrap().to_owned();
    let acked = edge
        .post(&format!("{wrong}/ack"), format!(r#"{{"ack": "{pos}"}}"#))
        .await;
    assert_eq!(acked.check_problem(404, "not_found")["detail"], near);
    let config = r#"{"source": {"trail": "DataSyncStrem"}}"#;
    let refused = edge.post("/services/v2/stream/other", config).await;
    let detail = refused.check_problem(400, "invalid_request");
    let detail = detail["detail"].as_str().unwrap();
    assert!(
        detail.ends_with("did you mean `DataSyncStream`?"),
        "{detail}"
    );
}
