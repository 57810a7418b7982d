//! Create, change, purge and delete streams.

use super::*;

#[tokio::test]
async fn of_concurrent_requests_for_one_ocid_one_succeeds() {
    let edge = Edge::plain().await;
    let bodies: Vec<_> = (0..8)
        .map(|n| format!(r#"{{"name":"Racer{n}","ocid":"ocid1.stream.x"}}"#))
        .collect();
    let asked = bodies.iter().map(|body| edge.post("/v1/streams", body));
    let mut refused_len = 0;
    for answer in futures_util::future::join_all(asked).await {
        if answer.status != 201 {
            answer.check_problem(409, "exists");
            refused_len += 1;
        }
    }
    assert_eq!(refused_len, 7);
}

#[tokio::test]
async fn streams_are_made_listed_changed_and_deleted() {
    let edge = Edge::plain().await;
    let answer = edge
        .post(
            "/v1/streams",
            r#"{"name":"Mine","partitions":2,"ocid":"ocid1.stream.x"}"#,
        )
        .await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (201, "/v1/streams/Mine"),
        "{}",
        answer.text()
    );
    let made = answer.json();
    assert_eq!(
        (&made["madeBy"], &made["partitions"]),
        (&json!("api"), &json!(2))
    );
    assert_eq!(
        made["bounds"][1],
        json!({"partition": "1", "earliest": 0, "tail": 0, "lowMark": 0, "open": 0,
               "counts": {"appended": 0, "delivered": 0, "filtered": 0, "moved": 0,
                          "discarded": 0, "expired": 0, "lost": 0}})
    );
    for taken in [
        r#"{"name":"Mine"}"#,
        r#"{"name":"Other","ocid":"ocid1.stream.x"}"#,
        r#"{"name":"Other","ocid":"Mine"}"#,
    ] {
        edge.post("/v1/streams", taken)
            .await
            .check_problem(409, "exists");
    }
    let problem = edge
        .post("/v1/streams", r#"{"name":"a b","group":1}"#)
        .await
        .check_problem(400, "invalid_request");
    assert_eq!(problem["errors"].as_array().unwrap().len(), 2);

    let mut names = Vec::new();
    let mut path = "/v1/streams?limit=4".to_owned();
    loop {
        let page = edge.get(&path).await.json();
        names.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|item| item["name"].as_str().unwrap().to_owned()),
        );
        match page["next"].as_str() {
            Some(next) => path = format!("/v1/streams?limit=4&after={next}"),
            None => break,
        }
    }
    assert_eq!(names.len(), 6);
    assert!(names.is_sorted() && names.contains(&"Mine".to_owned()));

    let etag = answer.header("etag").to_owned();
    let patch = async |headers: &[(&str, &str)], body: &str| {
        edge.send("PATCH", "/v1/streams/Mine", headers, body).await
    };
    let changed = patch(&[("if-match", &etag)], r#"{"partitions":3}"#).await;
    assert_eq!(
        (changed.status, &changed.json()["partitions"]),
        (200, &json!(3))
    );
    assert_ne!(changed.header("etag"), etag);
    patch(&[("if-match", &etag)], r#"{"partitions":4}"#)
        .await
        .check_problem(412, "changed_meanwhile");
    patch(&[], r#"{"partitions":2}"#)
        .await
        .check_problem(409, "partitions_shrink");
    patch(&[], r#"{"name":"x"}"#)
        .await
        .check_problem(400, "invalid_request");
    assert_eq!(
        patch(&[("if-match", "*")], r#"{"partitions":3}"#)
            .await
            .json()["partitions"],
        3
    );
    assert_eq!(
        edge.get("/v1/streams/Mine/partitions?limit=2").await.json()["next"],
        "1"
    );
    let rest = edge
        .get("/v1/streams/Mine/partitions?limit=2&after=1")
        .await
        .json();
    assert_eq!(
        (&rest["items"][0]["partition"], &rest["next"]),
        (&json!("2"), &Value::Null)
    );

    let delete = async |name: &str, headers: &[(&str, &str)]| {
        edge.send("DELETE", &format!("/v1/streams/{name}"), headers, "")
            .await
    };
    delete("Mine", &[("if-match", &etag)])
        .await
        .check_problem(412, "changed_meanwhile");
    edge.append("Mine", vec![record("", "{}")]).await;
    delete("Mine", &[])
        .await
        .check_problem(409, "stream_in_use");
    edge.settle("Mine", 0).await;
    assert_eq!(delete("Mine", &[]).await.status, 204);
    delete("Mine", &[])
        .await
        .check_problem(404, "stream_unknown");
    delete("UnrecoverableErrorStream", &[])
        .await
        .check_problem(409, "stream_in_use");

    let config = StreamConfig {
        made_by: MadeBy::Config,
        ..StreamConfig::default()
    };
    edge.engine
        .create_stream("Fixed".parse().unwrap(), 1, config)
        .await
        .unwrap();
    delete("Fixed", &[])
        .await
        .check_problem(409, "stream_in_config");
    edge.send("PATCH", "/v1/streams/Fixed", &[], r#"{"partitions":2}"#)
        .await
        .check_problem(409, "stream_in_config");
}

#[tokio::test]
async fn the_source_grows_while_records_wait_and_its_error_streams_with_it() {
    let edge = Edge::plain().await;
    edge.sync(GOOD).await;
    let grow = async |partitions: u16| {
        let change = json!({"partitions": partitions}).to_string();
        edge.send("PATCH", "/v1/streams/DataSyncStream", &[], &change)
            .await
    };
    grow(257).await.check_problem(400, "invalid_request");
    let grown = grow(3).await;
    assert_eq!(
        (grown.status, &grown.json()["readers"]),
        (
            200,
            &json!([{"kind": "dispatch", "name": "dispatch", "lag": 1}])
        ),
        "{}",
        grown.text()
    );
    grow(2).await.check_problem(409, "partitions_shrink");
    for stream in [
        "DataSyncStream",
        "DefaultErrorStream",
        "InternalserverErrorStream",
    ] {
        assert_eq!(edge.stream(stream).partitions, 3, "{stream}");
    }
    // An error stream may grow while its failures are open: their partition is their origin's, not the key's.
    edge.append("DefaultErrorStream", vec![record("k", "{}")])
        .await;
    let grown = edge
        .send(
            "PATCH",
            "/v1/streams/DefaultErrorStream",
            &[],
            r#"{"partitions":4}"#,
        )
        .await;
    assert_eq!(grown.status, 200);
    assert_eq!(edge.sync(GOOD).await.status, 200);
}

#[tokio::test]
async fn a_purge_tells_what_it_removed_and_keeps_its_reason_with_the_stream() {
    let edge = Edge::plain().await;
    let path = |stream: &str| format!("/v1/streams/{stream}/purge");
    edge.append(
        "DefaultErrorStream",
        vec![record("", "{}"), record("", "{}")],
    )
    .await;
    edge.settle("DefaultErrorStream", 1).await;
    let asked = r#"{"reason":"wrong target"}"#;
    let answer = edge.post(&path("DefaultErrorStream"), asked).await;
    let done = answer.json();
    assert_eq!(answer.status, 200, "{done}");
    let at = done["at"].as_str().unwrap();
    let partition = json!({"partition": "0", "removed": 2, "discarded": 1, "tail": 2});
    let expected = json!({"stream": "DefaultErrorStream", "at": at, "removed": 2, "discarded": 1,
                          "partitions": [partition]});
    assert_eq!(done, expected);
    let shown = edge.get("/v1/streams/DefaultErrorStream").await.json();
    let purge = json!({"at": at, "reason": "wrong target", "by": null});
    assert_eq!(shown["lastPurge"], purge);
    assert_eq!(shown["bounds"][0]["earliest"], 2);
    assert_eq!(shown["bounds"][0]["counts"]["discarded"], 1);
    let other = edge.get("/v1/streams/DataSyncStream").await.json();
    assert_eq!(other.get("lastPurge"), None);
    let again = edge.post(&path("DefaultErrorStream"), asked).await.json();
    assert_eq!(
        (&again["removed"], &again["discarded"], &again["at"]),
        (&json!(0), &json!(0), &json!(at))
    );

    edge.post(&path("Nowhere"), asked)
        .await
        .check_problem(404, "stream_unknown");
    edge.post(&format!("{}?force=true", path("DefaultErrorStream")), asked)
        .await
        .check_problem(400, "invalid_request");
    let problem = edge
        .post(
            &path("DefaultErrorStream"),
            r#"{"discardPending":1,"why":"x"}"#,
        )
        .await
        .check_problem(400, "invalid_request");
    let faults = problem["errors"].as_array().unwrap().iter();
    let faults: Vec<_> = faults
        .map(|fault| (&fault["pointer"], &fault["code"]))
        .collect();
    let expected = [
        (&json!("/why"), &json!("unknown_member")),
        (&json!("/reason"), &json!("required")),
        (&json!("/discardPending"), &json!("wrong_type")),
    ];
    assert_eq!(faults, expected);
}

#[tokio::test]
async fn pending_records_are_purged_only_with_discard_pending() {
    let edge = Edge::plain().await;
    let purge = async |body: &str| edge.post("/v1/streams/DataSyncStream/purge", body).await;
    edge.append("DataSyncStream", vec![record("", "{}"), record("", "{}")])
        .await;
    edge.settle("DataSyncStream", 0).await;
    for body in [
        r#"{"reason":"x"}"#,
        r#"{"reason":"x","discardPending":false}"#,
    ] {
        let problem = purge(body).await.check_problem(409, "stream_in_use");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.starts_with("1 of its records wait"), "{detail}");
    }
    let stream = edge.get("/v1/streams/DataSyncStream").await.json();
    assert_eq!(stream["bounds"][0]["earliest"], 0);
    let done = purge(r#"{"reason":"x","discardPending":true}"#).await;
    assert_eq!(done.json()["discarded"], 1);
    // No record is pending now.
    assert_eq!(purge(r#"{"reason":"x"}"#).await.status, 200);
}

#[tokio::test]
async fn a_stream_is_not_purged_while_a_retry_of_it_runs() {
    let edge = Edge::plain().await;
    edge.append("DefaultErrorStream", vec![record("", "{}")])
        .await;
    let purge = async |stream: &str| {
        let path = format!("/v1/streams/{stream}/purge");
        edge.post(&path, r#"{"reason":"x"}"#).await
    };
    let running = taken(&edge, "DefaultErrorStream", Work::Retry);
    *edge.retries.running.lock().unwrap() = Some(running);
    let refused = purge("DefaultErrorStream").await;
    let problem = refused.check_problem(409, "retry_running");
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.contains("DefaultErrorStream, partition 0"),
        "{detail}"
    );
    assert_eq!(purge("UnrecoverableErrorStream").await.status, 200);
    *edge.retries.running.lock().unwrap() = None;
    assert_eq!(purge("DefaultErrorStream").await.json()["removed"], 1);
}

#[tokio::test]
async fn a_stream_of_the_config_is_purged_as_any_other() {
    let edge = Edge::plain().await;
    let config = StreamConfig {
        made_by: MadeBy::Config,
        ..StreamConfig::default()
    };
    let name = "Fixed".parse().unwrap();
    edge.engine.create_stream(name, 1, config).await.unwrap();
    edge.append("Fixed", vec![record("", "{}")]).await;
    let etag = [("if-match", "\"0\"")];
    let done = edge
        .send(
            "POST",
            "/v1/streams/Fixed/purge",
            &etag,
            r#"{"reason":"x"}"#,
        )
        .await;
    assert_eq!(done.json()["discarded"], 1, "no If-Match is looked at");
}

#[tokio::test(start_paused = true)]
async fn a_growth_behind_a_log_that_does_not_answer_gives_up_after_ten_seconds_and_messages_go_on()
{
    let _still = stand_still();
    let edge = Edge::plain().await;
    edge.engine.hold(true);
    let on_its_way = || edge.engine.held_len() > 0;
    let grows = async {
        until("the first message", on_its_way).await;
        let grow = r#"{"partitions":2}"#;
        let grown = edge.send("PATCH", "/v1/streams/DataSyncStream", &[], grow);
        let (grown, took) = while_seconds_pass(grown).await;
        let ten = Duration::from_secs(10);
        assert!((ten..2 * ten).contains(&took), "{took:?}");
        let problem = grown.check_problem(503, "queue_full");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("nothing was changed"), "{detail}");
        // The message that has waited with it is on its way too.
        until("the second message", || edge.engine.held_len() == 2).await;
        edge.engine.hold(false);
    };
    let second = async {
        until("the first message", on_its_way).await;
        edge.sync(GOOD).await
    };
    let (first, second, ()) = tokio::join!(edge.sync(GOOD), second, grows);
    assert_eq!((first.status, second.status), (200, 200));
    assert_eq!(edge.stream("DataSyncStream").partitions, 1);
}
