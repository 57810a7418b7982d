//! A retry heals an expired token: which version of a secret it sends.

use reqwest::Method;
use serde_json::{Value, json};

use crate::testkit::{Act, Call, Gateway, StubTarget, message};

const DEFAULT: &str = "DefaultErrorStream";

/// Posts a message whose secret is `orders`, with this token for it.
async fn post(gateway: &Gateway, url: &str, token: &str) {
    let mut message = message(url, json!(token));
    message["streamMessage"]["vaultSecretName"] = "orders".into();
    let request = gateway
        .request(Method::POST, "/stream/sync")
        .header("authorization", token)
        .json(&message);
    gateway.send(request).await.ok();
    gateway.drained("DataSyncStream").await;
}

fn token(call: &Call) -> Option<&str> {
    call.header("authorization")
}

fn version(record: &Value) -> &str {
    record["headers"]["secret-version"].as_str().unwrap()
}

#[tokio::test]
async fn a_record_that_was_refused_with_an_old_token_is_retried_with_the_newest_one() {
    for refused in [401, 403] {
        let target = StubTarget::with(move |_| Act::status(refused)).await;
        let gateway = Gateway::start();
        post(&gateway, &target.url("/x"), "token of monday").await;
        post(&gateway, &target.url("/x"), "token of tuesday").await;

        // The copy that a failure leaves names the version that was sent.
        let report = gateway.retry(DEFAULT, -1, 1).await;
        assert_eq!(report["failedMessages"], 1, "{report}");
        let records = gateway.records(DEFAULT).await;
        let versions: Vec<_> = records.iter().map(version).collect();
        assert_eq!(versions, ["1", "2", "2"]);
        assert_eq!(records[2]["headers"]["retries"], "1");
        assert_eq!(records[2]["value"], records[0]["value"]);

        target.now(|call| match token(call) {
            Some("token of wednesday") => Act::status(200),
            _ => Act::status(401),
        });
        post(&gateway, &target.url("/x"), "token of wednesday").await;
        // After a restart too, when no token is known by heart.
        let gateway = gateway.kill().start();
        let report = gateway.retry(DEFAULT, -1, 10).await;
        assert_eq!(
            (&report["processedmessages"], &report["failedMessages"]),
            (&json!(2), &json!(0)),
            "{report}"
        );
        let calls = target.calls();
        let sent: Vec<_> = calls.iter().map(|call| token(call).unwrap()).collect();
        let [monday, tuesday, wednesday] =
            ["monday", "tuesday", "wednesday"].map(|day| format!("token of {day}"));
        assert_eq!(
            sent,
            [
                &monday, &tuesday, &tuesday, &wednesday, &wednesday, &wednesday
            ]
        );
        assert_eq!(gateway.count(DEFAULT, "open").await, 0);
    }
}

#[tokio::test]
async fn a_newer_token_goes_to_no_target_for_which_nobody_presented_it() {
    let mine = StubTarget::with(|_| Act::status(401)).await;
    let theirs = StubTarget::start().await;
    let gateway = Gateway::start();
    post(&gateway, &mine.url("/x"), "mine").await;
    post(&gateway, &theirs.url("/x"), "theirs").await;
    let report = gateway.retry(DEFAULT, -1, 1).await;
    assert_eq!(report["failedMessages"], 1, "{report}");
    let sent: Vec<_> = mine
        .calls()
        .iter()
        .map(|call| token(call).map(String::from))
        .collect();
    assert_eq!(sent, [Some("mine".to_owned()), Some("mine".to_owned())]);
    let copy = gateway.record(DEFAULT, 2).await;
    assert_eq!(version(&copy), "1");
    let reason = copy["headers"]["cause-reason"].as_str().unwrap();
    assert_eq!(
        reason,
        "the target answered 401 Unauthorized; version 2 of the secret is newer, but was never presented for this target"
    );
}

#[tokio::test]
async fn a_record_whose_failure_was_no_matter_of_its_token_keeps_it() {
    let target = StubTarget::with(|_| Act::status(500)).await;
    let gateway = Gateway::start();
    post(&gateway, &target.url("/x"), "old").await;
    target.now(|_| Act::status(200));
    post(&gateway, &target.url("/x"), "new").await;
    let report = gateway.retry("InternalserverErrorStream", -1, 1).await;
    assert_eq!(report["processedmessages"], 1, "{report}");
    let calls = target.calls();
    assert_eq!(calls.last().and_then(token), Some("old"));
}
