//! Accepted, delivered, in order, once.

use std::collections::HashMap;

use reqwest::Method;
use serde_json::{Value, json};

use crate::testkit::{Act, Gateway, StubTarget, keyed, message};

#[tokio::test]
async fn an_accepted_message_reaches_its_target_byte_for_byte() {
    let target = StubTarget::start().await;
    let gateway = Gateway::start();
    let body = format!(
        r#"{{"streamKey":"k1","streamMessage":{{"targetRestApi":"{}","targetRestApiOperation":"PUT",
        "targetRestApiPayload":{{ "price" : 1.10, "name":"Zoë ☃", "n":1e400, "n":2 }},
        "targetRestApiHeaders":[{{"key":"X-One","value":"a"}},{{"key":"X-Two","value":"b"}},{{"key":"x-one","value":"c"}}]}}}}"#,
        target.url("/orders/7?full=1")
    );
    let answer = gateway
        .send(gateway.request(Method::POST, "/stream/sync").body(body))
        .await;
    let id = answer.headers["x-message-id"].to_str().unwrap().to_owned();
    let answer = answer.ok();
    assert_eq!(answer["messageId"], id);
    assert_eq!(
        (&answer["stream"], &answer["partition"], &answer["offset"]),
        (&json!("DataSyncStream"), &json!("0"), &json!(0))
    );
    assert_eq!(answer["warnings"], json!([]));

    let call = target.next_call().await;
    assert_eq!(
        (call.method.as_str(), call.path.as_str()),
        ("PUT", "/orders/7?full=1")
    );
    assert_eq!(
        call.body,
        r#"{ "price" : 1.10, "name":"Zoë ☃", "n":1e400, "n":2 }"#
    );
    let ones: Vec<_> = call.headers.get_all("x-one").iter().collect();
    assert_eq!(ones, ["a", "c"]);
    assert_eq!(call.header("x-two"), Some("b"));
    assert!(call.header("user-agent").unwrap().starts_with("syncgate/"));
    assert_eq!(
        call.header("host"),
        Some(format!("127.0.0.1:{}", target.port()).as_str())
    );
    assert_eq!(call.header("content-type"), Some("application/json"));
    gateway.drained("DataSyncStream").await;
    assert_eq!(gateway.count("DataSyncStream", "delivered").await, 1);
}

#[tokio::test]
async fn every_method_arrives_and_only_those_with_a_body_have_one() {
    let target = StubTarget::start().await;
    let gateway = Gateway::start();
    for (method, body) in [
        ("POST", "{\"a\":1}"),
        ("PUT", "{\"a\":1}"),
        ("PATCH", "{\"a\":1}"),
        ("DELETE", ""),
        ("GET", ""),
    ] {
        let mut message = message(&target.url("/x"), json!({"a": 1}));
        message["streamMessage"]["targetRestApiOperation"] = method.into();
        gateway.sync(&message).await;
        let call = target.next_call().await;
        assert_eq!(
            (call.method.as_str(), &call.body[..]),
            (method, body.as_bytes())
        );
    }
}

#[tokio::test]
async fn a_target_may_ask_for_bodies_always() {
    let target = StubTarget::start().await;
    let config = format!(
        "[[targets]]\nname = \"t\"\norigin = \"http://127.0.0.1:{}\"\nbody_always = true\n",
        target.port()
    );
    let gateway = Gateway::with_config(&config);
    let mut message = message(&target.url("/x"), json!({"a": 1}));
    message["streamMessage"]["targetRestApiOperation"] = "DELETE".into();
    gateway.sync(&message).await;
    assert_eq!(target.next_call().await.json(), json!({"a": 1}));
}

#[tokio::test]
async fn a_token_reaches_the_target_as_one_header_and_nothing_else_shows_it() {
    const TOKEN: &str = "Bearer s3cr3t-t0ken";
    let target = StubTarget::by_path().await;
    let gateway = Gateway::start();
    let mut message = message(&target.url("/status/401"), json!({"a": 1}));
    message["streamMessage"]["vaultSecretName"] = "orders".into();
    message["streamMessage"]["targetRestApiHeaders"] =
        json!([{"key": "authorization", "value": "mine"}]);
    let request = gateway
        .request(Method::POST, "/stream/sync")
        .header("authorization", TOKEN)
        .json(&message);
    gateway.send(request).await.ok();
    assert_eq!(
        target.next_call().await.header("authorization"),
        Some(TOKEN)
    );

    let record = gateway.record("DefaultErrorStream", 1).await;
    assert_eq!(record["headers"]["secret-name"], "orders");
    assert_eq!(record["headers"]["secret-version"], "1");
    let metrics = gateway.get("/metrics").await;
    for (place, text) in [
        ("the error record", record.to_string()),
        ("metrics", metrics.body.to_string()),
    ] {
        assert!(!text.contains("s3cr3t"), "{place} shows the token");
    }
    let place = gateway.stop().await;
    assert!(!place.log().contains("s3cr3t"), "the log shows the token");
    for entry in walk(&place.data()) {
        let bytes = std::fs::read(&entry).unwrap();
        assert!(
            !bytes.windows(6).any(|window| window == b"s3cr3t"),
            "{} holds the token",
            entry.display()
        );
    }
}

pub(crate) fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                walk(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

#[tokio::test]
async fn one_name_with_two_tokens_delivers_each_message_with_its_own() {
    let target = StubTarget::start().await;
    let gateway = Gateway::start();
    for token in ["first", "second", "first"] {
        let mut message = message(&target.url("/x"), json!(1));
        message["streamMessage"]["vaultSecretName"] = "one".into();
        let request = gateway
            .request(Method::POST, "/stream/sync")
            .header("authorization", token)
            .json(&message);
        gateway.send(request).await.ok();
        assert_eq!(
            target.next_call().await.header("authorization"),
            Some(token)
        );
    }
}

#[tokio::test]
async fn a_token_without_a_name_gets_one_and_survives_a_restart() {
    let target = StubTarget::with(|_| Act::status(503)).await;
    let gateway = Gateway::start();
    let request = gateway
        .request(Method::POST, "/stream/sync")
        .header("authorization", "tok");
    gateway
        .send(request.json(&message(&target.url("/x"), json!(1))))
        .await
        .ok();
    assert_eq!(
        target.next_call().await.header("authorization"),
        Some("tok")
    );
    gateway.record("ServerUnavailableStream", 1).await;

    let gateway = gateway.stop().await.start();
    target.now(|_| Act::status(200));
    let report = gateway.retry("ServerUnavailableStream", -1, 10).await;
    assert_eq!(report["processedmessages"], 1);
    assert_eq!(
        target.next_call().await.header("authorization"),
        Some("tok")
    );
}

#[tokio::test]
async fn a_secret_is_not_sent_to_a_target_it_is_not_bound_to() {
    let (theirs, mine) = (StubTarget::start().await, StubTarget::start().await);
    let gateway = Gateway::start();
    let mut message = message(&theirs.url("/x"), json!(1));
    message["streamMessage"]["vaultSecretName"] = "theirs".into();
    let request = gateway
        .request(Method::POST, "/stream/sync")
        .header("authorization", "tok")
        .json(&message);
    gateway.send(request).await.ok();
    theirs.next_call().await;

    message["streamMessage"]["targetRestApi"] = mine.url("/steal").into();
    gateway
        .post("/stream/sync", &message)
        .await
        .problem(403, "secret_not_for_target");
    message["streamMessage"]["targetRestApi"] = theirs.url("/fine").into();
    gateway.sync(&message).await;
    assert_eq!(
        theirs.next_call().await.header("authorization"),
        Some("tok")
    );
    assert!(mine.calls().is_empty());
}

#[tokio::test]
async fn an_unknown_secret_is_warned_of_and_fails_with_its_cause() {
    let target = StubTarget::start().await;
    let gateway = Gateway::start();
    let mut message = message(&target.url("/x"), json!(1));
    message["streamMessage"]["vaultSecretName"] = "nobody".into();
    let answer = gateway.post("/stream/sync", &message).await.ok();
    assert_eq!(answer["warnings"].as_array().unwrap().len(), 1, "{answer}");
    let record = gateway.record("DefaultErrorStream", 1).await;
    assert_eq!(record["headers"]["cause-class"], "secret");
    assert!(target.calls().is_empty());
}

#[tokio::test]
async fn a_batch_is_answered_in_order_and_delivered() {
    let target = StubTarget::start().await;
    let gateway = Gateway::start();
    let messages: Vec<_> = (0..100)
        .map(|n| keyed(&format!("k{}", n % 7), &target.url("/b"), json!({ "n": n })))
        .collect();
    let answer = gateway
        .post("/stream/sync", &Value::Array(messages.clone()))
        .await
        .ok();
    let offsets: Vec<_> = answer["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["offset"].as_u64().unwrap())
        .collect();
    assert_eq!(offsets, (0..100).collect::<Vec<u64>>());
    let answer = gateway.sync_all(&messages).await;
    assert_eq!(answer["results"][99]["offset"], 199);
    target.wait_for_calls(200).await;
    gateway.drained("DataSyncStream").await;
    assert_eq!(gateway.count("DataSyncStream", "delivered").await, 200);
}

#[tokio::test]
async fn calls_of_a_key_keep_log_order_and_never_overlap() {
    const KEYS: usize = 1_000;
    const EACH: usize = 3;
    // The number of a call decides how long it is held: released in steps, so answers come in another order than calls.
    let target = StubTarget::with(|call| {
        if call.number % 3 == 0 {
            Act::Hold
        } else {
            Act::status(200)
        }
    })
    .await;
    let gateway = Gateway::with_config("[dispatch]\nin_flight_max = 64\n");
    for round in 0..EACH {
        let messages: Vec<_> = (0..KEYS)
            .map(|key| {
                keyed(
                    &format!("key-{key}"),
                    &target.url("/o"),
                    json!({ "key": key, "round": round }),
                )
            })
            .collect();
        gateway.sync_all(&messages).await;
    }
    for step in 0..KEYS * EACH {
        target.release(1 + step % 5);
    }
    target.wait_for_calls(KEYS * EACH).await;
    gateway.drained("DataSyncStream").await;
    let mut rounds: HashMap<u64, Vec<u64>> = HashMap::new();
    let calls = target.calls();
    for call in &calls {
        let json = call.json();
        rounds
            .entry(json["key"].as_u64().unwrap())
            .or_default()
            .push(json["round"].as_u64().unwrap());
    }
    assert_eq!(rounds.len(), KEYS);
    assert!(
        rounds.values().all(|rounds| *rounds == [0, 1, 2]),
        "a key's calls are out of order"
    );
    // A call of a key begins after the one before was answered.
    let answered: HashMap<usize, usize> = target
        .answered()
        .iter()
        .enumerate()
        .map(|(at, (number, _))| (*number, at))
        .collect();
    assert_eq!(answered.len(), calls.len());
    assert!(
        target.in_flight_max() <= 64,
        "{} at once",
        target.in_flight_max()
    );
    assert!(
        target.in_flight_max() > 8,
        "only {} at once",
        target.in_flight_max()
    );
}

#[tokio::test]
async fn text_is_answered_to_those_who_ask_for_it() {
    let target = StubTarget::start().await;
    let gateway = Gateway::start();
    let request = gateway
        .request(Method::POST, "/stream/sync")
        .header("accept", "text/plain");
    let answer = gateway
        .send(request.json(&message(&target.url("/x"), json!(1))))
        .await;
    assert_eq!(answer.body, "success");
    let gateway = Gateway::with_config("[sync]\nanswer = \"text\"\n");
    let answer = gateway
        .post("/stream/sync", &message(&target.url("/x"), json!(1)))
        .await;
    assert_eq!(
        (answer.status.as_u16(), answer.body),
        (200, json!("success"))
    );
}

#[tokio::test]
async fn missing_null_and_empty_keys_are_no_key() {
    let target = StubTarget::start().await;
    let gateway = Gateway::start();
    let mut message = message(&target.url("/x"), json!(1));
    gateway.sync(&message).await;
    message["streamKey"] = Value::Null;
    gateway.sync(&message).await;
    message.as_object_mut().unwrap().remove("streamKey");
    gateway.sync(&message).await;
    let records = gateway.records("DataSyncStream").await;
    assert!(
        records.iter().all(|record| record["key"].is_null()),
        "{records:?}"
    );
}

#[tokio::test]
async fn five_seconds_of_target_do_not_slow_the_source() {
    let target = StubTarget::with(|_| Act::Hold).await;
    let gateway = Gateway::start();
    for n in 0..100 {
        gateway
            .sync(&keyed(&n.to_string(), &target.url("/slow"), json!(n)))
            .await;
    }
    assert_eq!(gateway.count("DataSyncStream", "open").await, 100);
    target.release(100);
    target.wait_for_calls(100).await;
    gateway.drained("DataSyncStream").await;
}

#[tokio::test]
async fn every_attempt_carries_one_idempotency_key_through_failure_restart_and_retry() {
    let target = StubTarget::with(|_| Act::status(503)).await;
    let gateway = Gateway::start();
    gateway.sync(&keyed("k", &target.url("/x"), json!(1))).await;
    let first = target
        .next_call()
        .await
        .header("idempotency-key")
        .unwrap()
        .to_owned();
    gateway.record("ServerUnavailableStream", 1).await;
    gateway.retry("ServerUnavailableStream", -1, 10).await;
    assert_eq!(
        target.next_call().await.header("idempotency-key"),
        Some(first.as_str())
    );
    let gateway = gateway.stop().await.start();
    target.now(|_| Act::status(200));
    gateway.retry("DefaultErrorStream", -1, 10).await;
    assert_eq!(
        target.next_call().await.header("idempotency-key"),
        Some(first.as_str())
    );
    gateway.sync(&keyed("k", &target.url("/x"), json!(2))).await;
    assert_ne!(
        target.next_call().await.header("idempotency-key"),
        Some(first.as_str())
    );
    let mut own = keyed("k", &target.url("/x"), json!(3));
    own["streamMessage"]["targetRestApiHeaders"] =
        json!([{"key": "Idempotency-Key", "value": "mine"}]);
    gateway.sync(&own).await;
    assert_eq!(
        target.next_call().await.header("idempotency-key"),
        Some("mine")
    );
}
