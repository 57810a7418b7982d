//! Tokens of targets fill their space: old ones give way, open records keep theirs, and refusals say so.

use serde_json::{Value, json};

use crate::testkit::{Act, Answer, Gateway, StubTarget, keyed, poll};

/// About 22 KB of state each: 380 of them fill the share.
const TOKEN_BYTES: usize = 16_000;
/// More than the share has room for.
const TOO_MANY: usize = 420;

fn token(number: usize) -> String {
    format!("Bearer {number:0>TOKEN_BYTES$}")
}

/// Posts a message with a token of its own.
async fn post(gateway: &Gateway, target: &StubTarget, name: &str, number: usize) -> Answer {
    let mut message = keyed(
        &format!("k{number}"),
        &target.url("/"),
        json!({"n": number}),
    );
    message["streamMessage"]["vaultSecretName"] = name.into();
    let request = gateway
        .request(reqwest::Method::POST, "/stream/sync")
        .header("authorization", token(number));
    gateway.send(request.json(&message)).await
}

async fn full_percent(gateway: &Gateway) -> u64 {
    let ready = gateway.get("/readyz").await.ok();
    ready["secretsFullPercent"].as_u64().expect("a number")
}

/// Every call had the token of its message.
fn assert_own_tokens(target: &StubTarget) {
    for call in target.calls() {
        let number = call.json()["n"].as_u64().unwrap();
        let expected = token(usize::try_from(number).unwrap());
        assert_eq!(call.header("authorization"), Some(&*expected), "{number}");
    }
}

#[tokio::test]
async fn more_log_ins_than_there_is_room_for_do_not_end_ingest() {
    let target = StubTarget::start().await;
    let gateway = Gateway::start();
    // One name for all of them, then a name derived from each: both ways fill the same space.
    for (name, numbers) in [("login", 0..TOO_MANY), ("", TOO_MANY..TOO_MANY + 60)] {
        for number in numbers {
            poll("room for a token", async || {
                let answer = post(&gateway, &target, name, number).await;
                match answer.body["code"].as_str() {
                    None => {
                        answer.ok();
                        Some(())
                    }
                    // While what gives way is looked for, or as its records are still under way.
                    Some("queue_full" | "secrets_full") => None,
                    Some(other) => panic!("{other}"),
                }
            })
            .await;
        }
    }
    gateway.drained("DataSyncStream").await;
    assert_eq!(target.calls().len(), TOO_MANY + 60);
    assert_own_tokens(&target);
    assert!((90..=100).contains(&full_percent(&gateway).await));
    let metrics = gateway.get("/metrics").await.ok();
    let gone = metrics.as_str().unwrap().lines();
    let gone = gone.filter_map(|line| line.strip_prefix("syncgate_secrets_gone_total "));
    let gone: Vec<f64> = gone.map(|count| count.parse().unwrap()).collect();
    assert!(gone[0] >= 90.0, "{gone:?}");
    // It all holds after a crash too.
    let gateway = gateway.kill().start();
    assert!((90..=100).contains(&full_percent(&gateway).await));
    post(&gateway, &target, "login", 5_000).await.ok();
    gateway.drained("DataSyncStream").await;
    assert_own_tokens(&target);
}

#[tokio::test]
async fn tokens_of_open_records_stay_and_the_refusal_names_them() {
    let target = StubTarget::with(|_| Act::Hold).await;
    let gateway = Gateway::start();
    // A token that only names its secret later, and nobody needs it at the moment.
    let mut taken = 0;
    let refused = loop {
        let answer = post(&gateway, &target, "login", taken).await;
        if answer.body["code"] == "queue_full" {
            continue;
        }
        if !answer.status.is_success() {
            break answer;
        }
        taken += 1;
        assert!(taken < TOO_MANY, "{taken} fit");
    };
    assert!(taken > 300, "only {taken} fit");
    assert_eq!(refused.headers.get("retry-after"), None);
    let problem = refused.problem(507, "secrets_full");
    assert!(problem["detail"].as_str().unwrap().contains("open records"));
    assert!(full_percent(&gateway).await >= 99);
    let metrics = gateway.get("/metrics").await.ok();
    let metrics = metrics.as_str().unwrap();
    for line in [
        "syncgate_refused_requests_total{code=\"secrets_full\"} ",
        "syncgate_state_bytes{kind=\"tokens\"} ",
        "syncgate_state_share_bytes{kind=\"tokens\"} 8388608",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    // What needs no new token goes on.
    let plain = keyed("plain", &target.url("/"), json!({"n": 0}));
    let known: Value = {
        let mut message = plain.clone();
        message["streamMessage"]["vaultSecretName"] = "login".into();
        message
    };
    gateway.sync(&known).await;
    post(&gateway, &target, "login", 0).await.ok();
    // Once the records have ended their tokens can go.
    target.now(|_| Act::status(200));
    target.release(TOO_MANY);
    gateway.drained("DataSyncStream").await;
    poll("room for one more", async || {
        let answer = post(&gateway, &target, "login", 7_000).await;
        answer.status.is_success().then_some(())
    })
    .await;
    gateway.drained("DataSyncStream").await;
    let with_token = target
        .calls()
        .into_iter()
        .filter(|call| call.json()["n"] != 0);
    for call in with_token {
        let number = usize::try_from(call.json()["n"].as_u64().unwrap()).unwrap();
        assert_eq!(call.header("authorization"), Some(&*token(number)));
    }
}

#[tokio::test]
async fn a_token_that_a_failed_record_needs_for_its_retry_stays() {
    let target = StubTarget::by_path().await;
    let gateway = Gateway::start();
    let mut failing = keyed("f", &target.url("/status/500"), json!({"n": 9_000}));
    failing["streamMessage"]["vaultSecretName"] = "login".into();
    let request = gateway
        .request(reqwest::Method::POST, "/stream/sync")
        .header("authorization", token(9_000));
    gateway.send(request.json(&failing)).await.ok();
    gateway.record("InternalserverErrorStream", 1).await;
    for number in 0..TOO_MANY {
        poll("room for a token", async || {
            let answer = post(&gateway, &target, "login", number).await;
            answer.status.is_success().then_some(())
        })
        .await;
    }
    target.now(|_| Act::status(200));
    let report = gateway.retry("InternalserverErrorStream", -1, 10).await;
    assert_eq!(report["processedmessages"], 1, "{report}");
    assert_own_tokens(&target);
}

#[tokio::test]
async fn one_token_goes_to_two_ports_of_a_host_and_to_no_third() {
    let targets = [
        StubTarget::start().await,
        StubTarget::start().await,
        StubTarget::start().await,
    ];
    let gateway = Gateway::start();
    for target in &targets[..2] {
        for number in 1..=2 {
            post(&gateway, target, "shared", 1).await.ok();
            target.wait_for_calls(number).await;
        }
        assert!(
            target
                .calls()
                .iter()
                .all(|call| call.header("authorization") == Some(&*token(1)))
        );
    }
    let mut named = keyed("k", &targets[2].url("/"), json!({"n": 1}));
    named["streamMessage"]["vaultSecretName"] = "shared".into();
    let refused = gateway.post("/stream/sync", &named).await;
    refused.problem(403, "secret_not_for_target");
    named["streamMessage"]["targetRestApi"] = targets[1].url("/").into();
    gateway.sync(&named).await;
    targets[1].wait_for_calls(3).await;
    assert_own_tokens(&targets[1]);
    assert!(targets[2].calls().is_empty());
}
