//! The master key is gone: no start covers that up, and what was sealed with it can be given up.

use std::fs;

use reqwest::Method;
use serde_json::{Value, json};

use crate::testkit::{Act, Gateway, Place, StubTarget, keyed, run_on, syncgate};

const OLD: &str = "Bearer old";
const NEW: &str = "Bearer new";

async fn post(gateway: &Gateway, message: &Value, token: &str) {
    let request = gateway
        .request(Method::POST, "/stream/sync")
        .header("authorization", token);
    gateway.send(request.json(message)).await.ok();
}

fn named(key: &str, target: &StubTarget) -> Value {
    let mut message = keyed(key, &target.url("/x"), json!({ "key": key }));
    message["streamMessage"]["vaultSecretName"] = "login".into();
    message
}

/// A stopped gateway without its key file: two records that failed with 503 need the token `login`, one needs a token
/// without a name, and one needs none.
async fn without_key(target: &StubTarget) -> Place {
    target.now(|_| Act::status(503));
    let gateway = Gateway::start();
    for key in ["a", "b"] {
        post(&gateway, &named(key, target), OLD).await;
    }
    post(&gateway, &keyed("c", &target.url("/x"), json!(1)), OLD).await;
    gateway.sync(&keyed("d", &target.url("/x"), json!(1))).await;
    gateway.drained("DataSyncStream").await;
    let place = gateway.stop().await;
    fs::rename(place.data().join("master.key"), place.path().join("kept")).unwrap();
    place
}

#[tokio::test]
async fn a_start_makes_no_new_key_over_sealed_tokens() {
    let target = StubTarget::start().await;
    let place = without_key(&target).await;
    for _ in 0..2 {
        let refused = place.start_refused().await;
        assert_eq!(refused.status.code(), Some(3));
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(
            said.contains("master.key is missing, and tokens are sealed with it (2)"),
            "{said}"
        );
        assert!(said.contains("--forget-secrets"), "{said}");
        assert!(!place.data().join("master.key").exists());
        assert!(!place.data().join("master.key.new").exists());
    }
    fs::rename(place.path().join("kept"), place.data().join("master.key")).unwrap();
    let gateway = place.start();
    target.now(|_| Act::status(200));
    let report = gateway.retry("ServerUnavailableStream", -1, 10).await;
    assert_eq!(report["processedmessages"], 4, "{report}");
    let tokens = target.calls().into_iter().rev().take(4);
    let with_token = tokens.filter(|call| call.header("authorization") == Some(OLD));
    assert_eq!(with_token.count(), 3);
}

#[tokio::test]
async fn doctor_says_what_waits_for_the_key_and_gives_it_up_when_told_to() {
    let target = StubTarget::start().await;
    let place = without_key(&target).await;
    let waiting = json!({
        "records": 3, "otherRecords": 0, "unreadablePartitions": 0,
        "by": [
            {"stream": "ServerUnavailableStream", "secret": null, "records": 1},
            {"stream": "ServerUnavailableStream", "secret": "login", "records": 2},
        ],
    });
    let (code, report, said) = run_on(&["doctor"], &place.data());
    assert_eq!((code, &report["starts"]), (Some(1), &json!(false)));
    assert_eq!(report["tokens"]["count"], 2);
    assert_eq!(report["tokens"]["masterKeyFits"], false);
    assert_eq!(report["tokens"]["waiting"], waiting);
    assert!(
        said.contains("is missing") && said.contains("--forget-secrets"),
        "{said}"
    );
    let text = syncgate()
        .arg("doctor")
        .arg("--data")
        .arg(place.data())
        .output()
        .unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    for line in [
        "2 tokens are sealed with the master key",
        "what --forget-secrets would give up:",
        "  2 tokens; open records that need one: 3",
        "  ServerUnavailableStream  login",
        "(no name)",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(
        !text.contains("a gateway starts with this directory"),
        "{text}"
    );

    let (code, report, said) = run_on(&["doctor", "--forget-secrets"], &place.data());
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert_eq!(
        report["forgotten"],
        json!({"tokens": 2, "waiting": waiting})
    );
    let (code, _, said) = run_on(&["doctor", "--forget-secrets"], &place.data());
    assert_eq!(code, Some(1));
    assert!(said.contains("no token is sealed"), "{said}");
    let (code, report, said) = run_on(&["doctor"], &place.data());
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert_eq!(report["starts"], true);

    // It starts with a new key, and a new token under the same name serves the records that waited.
    let gateway = place.start();
    assert!(gateway.place().data().join("master.key").exists());
    target.now(|_| Act::status(200));
    let calls = target.calls().len();
    let report = gateway.retry("ServerUnavailableStream", -1, 10).await;
    assert_eq!(
        (&report["processedmessages"], &report["failedMessages"]),
        (&json!(1), &json!(3))
    );
    assert_eq!(target.calls().len(), calls + 1, "no call without its token");
    post(&gateway, &named("e", &target), NEW).await;
    gateway.drained("DataSyncStream").await;
    let streams = gateway.get("/v1/streams").await.ok();
    let items = streams["items"].as_array().unwrap().iter();
    let names: Vec<_> = items.filter_map(|stream| stream["name"].as_str()).collect();
    let before = target.calls().len();
    for stream in names.iter().filter(|name| **name != "DataSyncStream") {
        gateway.retry(stream, -1, 10).await;
    }
    let calls = target.calls().split_off(before);
    let sent = calls.iter().map(|call| call.json()["key"].to_string());
    let mut sent: Vec<_> = sent.collect();
    sent.sort();
    assert_eq!(sent, ["\"a\"", "\"b\""]);
    for call in calls {
        assert_eq!(call.header("authorization"), Some(NEW));
    }
    // The books still balance.
    let (code, _, said) = run_on(&["verify"], &gateway.stop().await.data());
    assert_eq!((code, said.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn what_a_key_opens_is_not_given_up() {
    let target = StubTarget::start().await;
    let place = without_key(&target).await;
    let key = place.data().join("master.key");
    let kept = fs::read(place.path().join("kept")).unwrap();
    fs::rename(place.path().join("kept"), &key).unwrap();
    let forget = |why: &str| {
        let (code, _, said) = run_on(&["doctor", "--forget-secrets"], &place.data());
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.contains(why) && said.contains("nothing was changed"),
            "{said}"
        );
    };
    forget("opens the tokens");
    // It may be the right one.
    let mode = |mode| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(&key, mode).unwrap();
    };
    mode(0o644);
    forget("chmod 600");
    mode(0o600);
    // Another one is not, and it does not stay in the way of the start that follows.
    fs::write(&key, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n").unwrap();
    let (code, report, _) = run_on(&["doctor"], &place.data());
    assert_eq!((code, &report["starts"]), (Some(1), &json!(false)));
    let refused = place.start_refused().await;
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("is not the one"), "{said}");
    // A copy with it would be taken for one that can be opened.
    let copy = place.path().join("copy").to_str().unwrap().to_owned();
    let create = ["backup", "create", &copy, "--with-master-key"];
    let (code, _, said) = run_on(&create, &place.data());
    assert_eq!(code, Some(1));
    assert!(
        said.contains("is not the one that the tokens in the copy"),
        "{said}"
    );
    assert!(!place.path().join("copy").exists());
    assert!(!place.path().join("copy.incomplete").exists());
    let (code, _, said) = run_on(&["doctor", "--forget-secrets"], &place.data());
    assert_eq!(code, Some(0), "{said}");
    let place = place.start().stop().await;
    // The old key fits as well: nothing is sealed.
    fs::write(&key, kept).unwrap();
    place.start().get("/readyz").await.ok();
}

#[tokio::test]
async fn secrets_of_a_directory_in_use_or_of_none_are_left_alone() {
    let gateway = Gateway::start();
    let (code, _, said) = run_on(&["doctor", "--forget-secrets"], &gateway.place().data());
    assert_eq!(code, Some(1));
    assert!(said.contains("in use by another process"), "{said}");
    let nowhere = gateway.place().path().join("nowhere");
    let (code, _, said) = run_on(&["doctor", "--forget-secrets"], &nowhere);
    assert_eq!(code, Some(1));
    assert!(said.contains("nowhere") && !nowhere.exists(), "{said}");
}

#[tokio::test]
async fn tokens_whose_key_is_elsewhere_are_not_given_up() {
    let target = StubTarget::start().await;
    let place = without_key(&target).await;
    let kept = place.path().join("kept");
    let forget = |secrets: &str| {
        let config = place.path().join("key.toml");
        fs::write(&config, format!("[secrets]\n{secrets}\n")).unwrap();
        let config = config.to_str().unwrap();
        run_on(
            &["doctor", "--forget-secrets", "--config", config],
            &place.data(),
        )
    };
    let command = |program: &str| {
        format!(
            "master_key_command = [\"{program}\", \"{}\"]",
            kept.display()
        )
    };
    for (secrets, why) in [
        // The command is run, because what is given up is gone.
        (command("cat"), "opens the tokens"),
        (command("false"), "nothing was changed"),
        // The gateway has it, and this shell has not.
        (
            "master_key_env = \"NO_SUCH_KEY\"".to_owned(),
            "was not found here",
        ),
    ] {
        let (code, _, said) = forget(&secrets);
        assert_eq!(code, Some(1), "{secrets}: {said}");
        assert!(
            said.contains(why) && said.contains("nothing was changed"),
            "{secrets}: {said}"
        );
    }
    // Nothing was given up meanwhile.
    let (code, _, said) = run_on(&["doctor", "--forget-secrets"], &place.data());
    assert_eq!(code, Some(0), "{said}");
}

#[tokio::test]
async fn a_new_token_serves_waiting_records_whatever_they_failed_with() {
    let target = StubTarget::start().await;
    let place = without_key(&target).await;
    let (code, _, said) = run_on(&["doctor", "--forget-secrets"], &place.data());
    assert_eq!(code, Some(0), "{said}");
    let gateway = place.start();
    target.now(|_| Act::status(200));
    post(&gateway, &named("e", &target), NEW).await;
    gateway.drained("DataSyncStream").await;
    let before = target.calls().len();
    let report = gateway.retry("ServerUnavailableStream", -1, 10).await;
    // The one whose token has no name cannot get another.
    assert_eq!(
        (&report["processedmessages"], &report["failedMessages"]),
        (&json!(3), &json!(1))
    );
    let calls = target.calls().split_off(before);
    let renewed = calls
        .iter()
        .filter(|call| call.header("authorization") == Some(NEW));
    assert_eq!((calls.len(), renewed.count()), (3, 2));
}
