//! Streams by the API and by the config.

use reqwest::Method;
use serde_json::json;

use crate::testkit::{Act, Gateway, StubTarget, keyed};

#[tokio::test]
async fn the_five_streams_are_there_from_the_first_start() {
    let gateway = Gateway::start();
    let list = gateway.get("/v1/streams").await.ok();
    let mut names: Vec<_> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|stream| stream["name"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "DataSyncStream",
            "DefaultErrorStream",
            "InternalserverErrorStream",
            "ServerUnavailableStream",
            "UnrecoverableErrorStream"
        ]
    );
    assert_eq!(list["next"], json!(null));
}

#[tokio::test]
async fn a_stream_is_made_changed_and_deleted() {
    let gateway = Gateway::start();
    let made = gateway
        .post("/v1/streams", &json!({"name": "Orders", "partitions": 2}))
        .await;
    assert_eq!(made.status, 201);
    gateway
        .post("/v1/streams", &json!({"name": "Orders"}))
        .await
        .problem(409, "exists");
    for bad in [
        json!({"name": "9"}),
        json!({"name": "Ok1", "partitions": 0}),
        json!({"name": "Ok1", "partitions": 257}),
        json!({"name": "Ok1", "more": 1}),
        json!({}),
        json!([]),
    ] {
        gateway
            .post("/v1/streams", &bad)
            .await
            .problem(400, "invalid_request");
    }
    let got = gateway.get("/v1/streams/Orders").await;
    let etag = got.headers["etag"].to_str().unwrap().to_owned();
    assert_eq!(got.ok()["partitions"], 2);
    let patch = |body| {
        gateway
            .request(Method::PATCH, "/v1/streams/Orders")
            .json(&body)
    };
    gateway
        .send(patch(json!({"partitions": 1})))
        .await
        .problem(409, "partitions_shrink");
    gateway
        .send(patch(json!({"partitions": 3})).header("if-match", &etag))
        .await
        .ok();
    gateway
        .send(patch(json!({"partitions": 4})).header("if-match", &etag))
        .await
        .problem(412, "changed_meanwhile");
    let gateway = gateway.stop().await.start();
    assert_eq!(
        gateway.get("/v1/streams/Orders").await.ok()["partitions"],
        3
    );
    let deleted = gateway
        .send(gateway.request(Method::DELETE, "/v1/streams/Orders"))
        .await;
    assert_eq!(deleted.status, 204);
    gateway
        .get("/v1/streams/Orders")
        .await
        .problem(404, "stream_unknown");
    gateway
        .send(gateway.request(Method::DELETE, "/v1/streams/DataSyncStream"))
        .await
        .problem(409, "stream_in_use");
}

#[tokio::test]
async fn a_stream_of_the_config_is_changed_in_the_config() {
    let gateway = Gateway::with_config("[[streams]]\nname = \"Mine\"\npartitions = 2\n");
    assert_eq!(gateway.get("/v1/streams/Mine").await.ok()["partitions"], 2);
    let request = gateway
        .request(Method::PATCH, "/v1/streams/Mine")
        .json(&json!({"partitions": 3}));
    gateway.send(request).await.problem(409, "stream_in_config");
    let place = gateway
        .stop()
        .await
        .configured("[[streams]]\nname = \"Mine\"\npartitions = 4\n");
    let gateway = place.start();
    assert_eq!(gateway.get("/v1/streams/Mine").await.ok()["partitions"], 4);
}

/// An id, not a name, is what a record's end hangs on: a stream made again has nothing to do with the old one.
#[tokio::test]
async fn a_stream_deleted_and_made_again_sends_all_its_new_messages() {
    let target = StubTarget::with(|_| Act::status(500)).await;
    let gateway = Gateway::start();
    for round in 0..2 {
        gateway
            .post("/v1/streams", &json!({"name": "Again"}))
            .await
            .ok();
        target.now(|_| Act::status(500));
        let first = gateway.records("InternalserverErrorStream").await.len();
        for n in 0..5 {
            gateway
                .sync(&keyed(
                    &n.to_string(),
                    &target.url("/x"),
                    json!({"round": round, "n": n}),
                ))
                .await;
        }
        gateway.record("InternalserverErrorStream", first + 5).await;
        let mapping = json!([{"responsecode": "500", "stream": "Again"}]);
        gateway
            .retry_with("InternalserverErrorStream", -1, 100, mapping)
            .await
            .ok();
        assert_eq!(gateway.records("Again").await.len(), 5);
        target.now(|_| Act::status(200));
        let before = target.calls().len();
        let report = gateway.retry("Again", -1, 100).await;
        assert_eq!(
            (&report["processedmessages"], &report["skipped"]),
            (&json!(5), &json!(0)),
            "round {round}"
        );
        let rounds: Vec<_> = target.calls()[before..]
            .iter()
            .map(|call| call.json()["round"].clone())
            .collect();
        assert_eq!(rounds, vec![json!(round); 5]);
        let deleted = gateway
            .send(gateway.request(Method::DELETE, "/v1/streams/Again"))
            .await;
        assert_eq!(deleted.status, 204);
    }
}

#[tokio::test]
async fn more_partitions_keep_a_key_in_one_of_them() {
    let target = StubTarget::start().await;
    let gateway = Gateway::start();
    let request = gateway
        .request(Method::PATCH, "/v1/streams/DataSyncStream")
        .json(&json!({"partitions": 4}));
    gateway.send(request).await.ok();
    let mut partitions = std::collections::HashMap::new();
    for n in 0..100 {
        let key = format!("k{}", n % 10);
        let answer = gateway
            .post("/stream/sync", &keyed(&key, &target.url("/x"), json!(n)))
            .await
            .ok();
        let partition = answer["partition"].as_str().unwrap().to_owned();
        assert_eq!(
            *partitions.entry(key).or_insert(partition.clone()),
            partition
        );
    }
    assert!(
        partitions
            .values()
            .collect::<std::collections::HashSet<_>>()
            .len()
            > 1
    );
    target.wait_for_calls(100).await;
    gateway.drained("DataSyncStream").await;
}

#[tokio::test]
async fn partitions_are_added_while_keyed_records_wait_and_each_key_keeps_its_order() {
    const KEYS: usize = 24;
    let (target, live) = (
        StubTarget::with(|_| Act::Hold).await,
        StubTarget::start().await,
    );
    // Much waits, and little of it in memory.
    let gateway = Gateway::with_config("[dispatch]\nqueue_len_max = 4\nin_flight_max = 2\n");
    let mut sent = 0;
    let mut used = std::collections::HashSet::new();
    for partitions in [1, 3, 4] {
        if partitions > 1 {
            let patch = gateway
                .request(Method::PATCH, "/v1/streams/DataSyncStream")
                .json(&json!({"partitions": partitions}));
            let grown = gateway.send(patch).await.ok();
            assert_eq!(grown["partitions"], partitions);
            assert!(grown["readers"][0]["lag"].as_u64() > Some(0), "{grown}");
        }
        for _ in 0..4 {
            let batch = |url: String| {
                let message = |key: usize| keyed(&format!("k{key}"), &url, json!([key, sent]));
                (0..KEYS).map(message).collect::<Vec<_>>()
            };
            for url in [target.url("/x"), live.url("/x")] {
                let answer = gateway.post("/stream/sync", &json!(batch(url))).await.ok();
                let results = answer["results"].as_array().unwrap();
                used.extend(results.iter().map(|one| one["partition"].to_string()));
            }
            sent += 1;
        }
        live.wait_for_calls(sent * KEYS).await;
    }
    assert_eq!(used.len(), 4);
    target.release(sent * KEYS);
    gateway.drained("DataSyncStream").await;
    for target in [target, live] {
        let calls = target.calls();
        assert_eq!(calls.len(), sent * KEYS);
        for key in 0..KEYS {
            let bodies = calls.iter().map(|call| call.json());
            let of_key = bodies.filter(|body| body[0] == key);
            assert!(
                of_key
                    .map(|body| body[1].clone())
                    .eq((0..sent).map(|at| json!(at)))
            );
        }
    }
}

#[tokio::test]
async fn a_start_adds_partitions_while_records_wait() {
    const CONFIG: &str = "[server]\ngrace_ms = 50\n";
    let target = StubTarget::with(|_| Act::Hold).await;
    let gateway = Gateway::with_config(CONFIG);
    let send = async |gateway: &Gateway, n: usize| {
        for key in ["a", "b", "c", "d", "e", "f"] {
            let message = keyed(key, &target.url("/x"), json!([key, n]));
            gateway.sync(&message).await;
        }
    };
    send(&gateway, 0).await;
    target.wait_for_calls(6).await;
    send(&gateway, 1).await;
    let grown = format!("{CONFIG}[[streams]]\nname = \"DataSyncStream\"\npartitions = 4\n");
    let gateway = gateway.stop().await.configured(&grown).start();
    let stream = gateway.get("/v1/streams/DataSyncStream").await.ok();
    assert_eq!(stream["partitions"], 4);
    send(&gateway, 2).await;
    target.release(100);
    gateway.drained("DataSyncStream").await;
    let calls = target.calls();
    for key in ["a", "b", "c", "d", "e", "f"] {
        let bodies = calls.iter().map(|call| call.json());
        let of_key = bodies.filter(|body| body[0] == key);
        let of_key: Vec<_> = of_key.map(|body| body[1].as_u64().unwrap()).collect();
        // What was cut off is called again.
        assert_eq!(of_key, [0, 0, 1, 2]);
    }
}

#[tokio::test]
async fn records_show_the_message_with_its_credentials_masked_and_raw_ones_as_they_are() {
    let target = StubTarget::with(|_| Act::status(500)).await;
    let gateway = Gateway::start();
    let mut message = keyed("k", &target.url("/x"), json!({"price": 1}));
    message["streamMessage"]["targetRestApiHeaders"] =
        json!([{"key": "X-Api-Key", "value": "hush"}, {"key": "A", "value": "b"}]);
    gateway.sync(&message).await;
    let path = "/v1/streams/DataSyncStream/partitions/0/records/0";
    let record = gateway.get(path).await.ok();
    assert_eq!(
        record["value"]["targetRestApiHeaders"],
        json!([{"key": "X-Api-Key", "value": "***"}, {"key": "A", "value": "b"}])
    );
    assert_eq!(record["key"], "k");
    let raw = gateway.get(&format!("{path}?raw=true")).await;
    assert_eq!(raw.headers["content-type"], "application/octet-stream");
    assert_eq!(raw.body, message["streamMessage"]);
    let page = gateway
        .get("/v1/streams/DataSyncStream/partitions/0/records?from=tail")
        .await
        .ok();
    assert_eq!(page["items"], json!([]));
    assert_eq!(page["tail"], 1);
}

#[tokio::test]
async fn more_streams_than_the_setting_allows_are_refused_by_a_code_of_their_own() {
    let config = "[log]\nstreams_max = 6\n";
    let gateway = Gateway::with_config(config);
    let make = |name: &str| json!({ "name": name });
    let made = gateway.post("/v1/streams", &make("Sixth")).await;
    assert_eq!(made.status, 201);
    let refused = gateway.post("/v1/streams", &make("Seventh")).await;
    assert_eq!(refused.headers.get("retry-after"), None);
    let problem = refused.problem(507, "state_full");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("log.streams_max"), "{detail}");
    gateway
        .send(gateway.request(Method::DELETE, "/v1/streams/Sixth"))
        .await
        .ok();
    gateway.post("/v1/streams", &make("Seventh")).await.ok();
    // A lower bound keeps what is there.
    let place = gateway.stop().await.configured("[log]\nstreams_max = 2\n");
    let gateway = place.start();
    let list = gateway.get("/v1/streams").await.ok();
    assert_eq!(list["items"].as_array().unwrap().len(), 6);
    gateway
        .post("/v1/streams", &make("Eighth"))
        .await
        .problem(507, "state_full");
}
