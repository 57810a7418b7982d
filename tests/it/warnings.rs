//! Messages that are stored and yet will hardly do what was meant: the answer says so.

use reqwest::Method;
use serde_json::{Value, json};

use crate::testkit::{Answer, Gateway, Place, StubTarget, message};

/// A message that lacks its payload by a slip.
fn slipped(url: &str) -> Value {
    let mut message = message(url, json!(1));
    let inner = message["streamMessage"].as_object_mut().unwrap();
    let payload = inner.remove("targetRestApiPayload").unwrap();
    inner.insert("targetRestApiPayloda".into(), payload);
    message
}

/// Code and detail of each warning.
fn told(answer: &Value) -> Vec<(&str, &str)> {
    let warnings = answer["warnings"].as_array().unwrap().iter();
    let text = |warning| (text(warning, "code"), text(warning, "detail"));
    warnings.map(text).collect()
}

fn text<'a>(warning: &'a Value, member: &str) -> &'a str {
    warning[member].as_str().unwrap()
}

const SLIP: (&str, &str) = (
    "unknown_member",
    "streamMessage has \"targetRestApiPayloda\", which is kept and not looked at; did you mean \"targetRestApiPayload\"?",
);

#[tokio::test]
async fn a_member_that_is_nearly_one_of_ours_is_kept_and_told() {
    let target = StubTarget::start().await;
    let gateway = Gateway::start();
    let mut sent = slipped(&target.url("/x"));
    sent["streamMessage"]["id"] = json!(7);
    sent["streamMessage"]["targetSystem"] = json!("erp");
    let answer = gateway.post("/stream/sync", &sent).await.ok();
    assert_eq!(told(&answer), [SLIP], "{answer}");
    assert!(target.next_call().await.body.is_empty());
    let records = gateway.records("DataSyncStream").await;
    assert_eq!(records[0]["value"], sent["streamMessage"]);
    // Neither their number nor their length is the sender's to choose.
    let mut many = message(&target.url("/x"), json!(1));
    for n in 0..100 {
        let name = format!("targetRestApi{}{n}", "-".repeat(100));
        many["streamMessage"][name] = json!(n);
    }
    let long = "targetRestApi".to_owned() + &"_".repeat(100_000);
    many["streamMessage"][long] = json!(1);
    let answer = gateway.post("/stream/sync", &many).await.ok();
    assert_eq!(told(&answer).len(), 3, "{answer}");
    assert!(answer.to_string().len() < 2_000, "{answer}");
    let good = message(&target.url("/x"), json!(1));
    let batch = Value::Array([vec![slipped(&target.url("/x")); 150], vec![good]].concat());
    let answer = gateway.post("/stream/sync", &batch).await.ok();
    let results = answer["results"].as_array().unwrap();
    let warned = results.iter().filter(|result| told(result) == [SLIP]);
    assert_eq!(warned.count(), 100);
    assert_eq!(told(&results[150]), []);
}

#[tokio::test]
async fn a_target_whose_address_is_blocked_is_told_at_once() {
    let blocked = |why: &str| {
        format!("the target's address is not called, so dispatch fails with cause blocked; {why}")
    };
    let private = blocked("dispatch.private_addresses = true would allow it");
    let loopback = blocked("dispatch.loopback_addresses = true would allow it");
    let never = blocked("no setting allows link-local, metadata and reserved addresses");
    let gateway = Gateway::with_config("[dispatch]\nloopback_addresses = false\n");
    let ask = async |url: &str| {
        let sent = message(url, json!(1));
        gateway.post("/stream/sync", &sent).await.ok()
    };
    for (url, why) in [
        ("http://10.1.2.3/x", &private),
        ("http://[::ffff:10.1.2.3]/x", &private),
        ("http://127.0.0.1:9/x", &loopback),
        ("http://LOCALHOST:9/x", &loopback),
        ("http://169.254.169.254/latest", &never),
    ] {
        let answer = ask(url).await;
        assert_eq!(told(&answer), [("target_blocked", &**why)], "{url}");
    }
    // What it says is what comes of it.
    let record = gateway.record("DefaultErrorStream", 5).await;
    assert_eq!(record["cause"]["class"], "blocked", "{record}");
    // What a name leads to is known when it is looked up, and not before.
    assert_eq!(told(&ask("http://orders.invalid/x").await), []);
    let allowed = "[dispatch]\nloopback_addresses = true\nprivate_addresses = true\n";
    gateway.reload(allowed).await.ok();
    assert_eq!(told(&ask("http://127.0.0.1:9/x").await), []);
    assert_eq!(told(&ask("http://169.254.169.254/x").await).len(), 1);
}

#[tokio::test]
async fn what_is_sent_again_under_its_key_is_warned_of_again() {
    let place = Place::with_config("[dispatch]\nloopback_addresses = false\n");
    let gateway = place.start();
    let one = slipped("http://127.0.0.1:9/x");
    let mut secret = message("http://127.0.0.1:9/x", json!(1));
    secret["streamMessage"]["vaultSecretName"] = json!("unseen");
    let good = message("http://orders.invalid/x", json!(1));
    let batch = json!([good, one, secret, one]);
    let send = async |gateway: &Gateway, key: &'static str, body: &Value| -> Answer {
        let request = gateway.request(Method::POST, "/stream/sync");
        let request = request.header("idempotency-key", key);
        gateway.send(request.json(body)).await
    };
    let first = [
        send(&gateway, "one", &one).await.ok(),
        send(&gateway, "batch", &batch).await.ok(),
    ];
    let codes = |answer: &Value| -> Vec<String> {
        let told = told(answer);
        told.iter().map(|(code, _)| (*code).to_owned()).collect()
    };
    assert_eq!(codes(&first[0]), ["unknown_member", "target_blocked"]);
    let of_batch: Vec<_> = (0..4).map(|at| codes(&first[1]["results"][at])).collect();
    let both = ["unknown_member", "target_blocked"].map(String::from);
    let of_secret = ["secret_unknown", "target_blocked"].map(String::from);
    assert_eq!(of_batch, [&[][..], &both, &of_secret, &both]);
    // Also after a crash, and by other settings.
    let place = gateway.kill().configured("# as they come\n");
    let gateway = place.start();
    let again = [
        send(&gateway, "one", &one).await.ok(),
        send(&gateway, "batch", &batch).await.ok(),
    ];
    assert_eq!(again, first);
    assert_eq!(gateway.records("DataSyncStream").await.len(), 5);
}

#[tokio::test]
async fn a_token_in_a_header_that_is_not_looked_at_is_told() {
    let target = StubTarget::start().await;
    let gateway = Gateway::with_config("[sync]\ntoken_header = \"X-Target-Token\"\n");
    let one = message(&target.url("/x"), json!(1));
    let ask = async |headers: &[(&str, &str)], body: &Value| {
        let mut request = gateway.request(Method::POST, "/stream/sync");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        gateway.send(request.json(body)).await.ok()
    };
    let astray = ("authorization", "Bearer t0ps3cret");
    let answer = ask(&[astray], &one).await;
    let told_of = told(&answer);
    assert_eq!(told_of.len(), 1, "{answer}");
    let (code, detail) = told_of[0];
    assert_eq!(code, "authorization_ignored");
    assert!(
        detail.contains("from the header x-target-token (sync.token_header)"),
        "{detail}"
    );
    assert!(!answer.to_string().contains("t0ps3cret"), "{answer}");
    assert_eq!(target.next_call().await.header("authorization"), None);
    // Once for a request.
    let batch = ask(&[astray], &json!([one, one])).await;
    assert_eq!(told(&batch["results"][0]).len(), 1, "{batch}");
    assert_eq!(told(&batch["results"][1]), [], "{batch}");
    // A sender that knows, and one without a token.
    let right = ("x-target-token", "Bearer t");
    assert_eq!(told(&ask(&[astray, right], &one).await), []);
    assert_eq!(told(&ask(&[], &one).await), []);
    gateway.reload("# the usual one\n").await.ok();
    assert_eq!(told(&ask(&[astray], &one).await), []);
}
