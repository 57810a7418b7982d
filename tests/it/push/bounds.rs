//! Every bound of a configuration, on both sides, as clients meet it (`data-streams.md` §1.2, §1.3).

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::raw::{path, refused, send};
use crate::testkit::Gateway;

const CONFIG_BYTES_MAX: usize = 256 << 10;

/// Returns a configuration in which a member, told by its pointer, has that value.
fn with(pointer: &str, value: Value) -> Value {
    let mut config = json!({ "source": { "trail": "a1" } });
    let mut at = &mut config;
    for name in pointer.split('/').skip(1) {
        let members = at.as_object_mut().unwrap();
        let next = || Value::Object(Map::new());
        at = members.entry(name).or_insert_with(next);
    }
    *at = value;
    config
}

/// Checks that the first values are taken and the others are refused, with the pointer of what is wrong.
async fn check(gateway: &Gateway, pointer: &str, good: Vec<Value>, bad: Vec<Value>) {
    check_at(gateway, pointer, pointer, good, bad).await;
}

/// The same where what is wrong is in a part of the member.
async fn check_at(
    gateway: &Gateway,
    pointer: &str,
    wrong_at: &str,
    good: Vec<Value>,
    bad: Vec<Value>,
) {
    for value in good {
        let config = with(pointer, value);
        let made = gateway.post(&path("bounds"), &config).await;
        assert_eq!(made.status, 201, "{pointer}: {}", made.body);
        // What was taken is shown as it was given.
        let shown = gateway.get(&path("bounds")).await.ok();
        let shown = shown["response"].pointer(pointer).unwrap();
        assert_eq!(Some(shown), config.pointer(pointer));
        send(gateway, Method::DELETE, &path("bounds"), "")
            .await
            .ok();
    }
    for value in bad {
        let answer = gateway.post(&path("bounds"), &with(pointer, value)).await;
        refused(&answer, 400, "invalid_request", "OGG-12018");
        let messages = answer.body["messages"].as_array().unwrap();
        let begins = format!("{wrong_at}: ");
        let title = messages[0]["title"].as_str().unwrap();
        assert!(
            title.starts_with(&begins) && messages.len() == 1,
            "{}",
            answer.body
        );
    }
}

fn text(len: usize) -> Value {
    "ü".repeat(len).into()
}

fn numbers(all: &[u64]) -> Vec<Value> {
    all.iter().copied().map(Value::from).collect()
}

#[tokio::test]
async fn every_number_and_every_text_has_its_bounds() {
    let gateway = Gateway::start();
    let frame = (
        numbers(&[131_072, 10_485_760]),
        numbers(&[131_071, 10_485_761]),
    );
    for (pointer, (good, bad)) in [
        ("/bufferSize", frame.clone()),
        ("/encoding/json/maxRecordSize", frame),
        (
            "/tcpKeepAliveTimeout",
            (numbers(&[1, 10_800]), numbers(&[0, 10_801])),
        ),
        (
            "/encoding/json/maxDDLTextSize",
            (numbers(&[1, u64::from(u32::MAX)]), numbers(&[0, 1 << 32])),
        ),
        (
            "/encoding/json/maxLobSize",
            (numbers(&[1, u64::MAX]), numbers(&[0])),
        ),
        (
            "/description",
            (vec![text(1), text(4095)], vec![text(0), text(4096)]),
        ),
        (
            "/encoding/json/beforeImageName",
            (vec![text(1), text(32)], vec![text(0), text(33)]),
        ),
        (
            "/encoding/json/afterImageName",
            (vec![text(1), text(32)], vec![text(0), text(33)]),
        ),
        (
            "/encoding/json/flattenDelimiter",
            (vec![text(0), text(32)], vec![text(33)]),
        ),
        (
            "/encoding/json/operationStrings/INSERT",
            (vec![text(1), text(32)], vec![text(0), text(33)]),
        ),
    ] {
        check(&gateway, pointer, good, bad).await;
    }
    // Larger than any number that we have.
    let body =
        r#"{"source":{"trail":"a1"},"encoding":{"json":{"maxLobSize":18446744073709551616}}}"#;
    let answer = send(&gateway, Method::POST, &path("bounds"), body).await;
    refused(&answer, 400, "invalid_request", "OGG-12018");
    // A trail of the least and of the greatest length is refused for another reason: there is none.
    for (len, known) in [(1, false), (2, true), (512, true), (513, false)] {
        let config = json!({ "source": { "trail": "t".repeat(len) } });
        let answer = gateway.post(&path("bounds"), &config).await;
        refused(&answer, 400, "invalid_request", "OGG-12018");
        let title = answer.body["messages"][0]["title"].as_str().unwrap();
        assert!(title.starts_with("/source/trail: "), "{title}");
        assert_eq!(title.contains("names no stream"), known, "{len}: {title}");
    }
}

#[tokio::test]
async fn every_list_and_every_set_of_members_has_its_bounds() {
    let gateway = Gateway::start();
    let filter = json!({ "relation": "AND", "negate": false, "objectNames": [ "A.B" ] });
    let rule = json!({ "action": "exclude", "filter": filter });
    let rules = |len: usize| Value::from(vec![rule.clone(); len]);
    check(
        &gateway,
        "/rules",
        vec![rules(1), rules(1024)],
        vec![rules(0), rules(1025)],
    )
    .await;
    for (kind, entry) in [
        ("objectNames", json!("A.B")),
        ("objectTypes", json!("DML")),
        ("tags", json!({ "name": "source" })),
        (
            "columnValues",
            json!({ "column": "KEY", "operator": "EQ", "value": "k" }),
        ),
    ] {
        let entries =
            |len: usize| json!([{ "action": "exclude", "filter": { kind: vec![&entry; len] } }]);
        for (len, is_good) in [(0, false), (1, true), (1024, true), (1025, false)] {
            let config = with("/rules", entries(len));
            let answer = gateway.post(&path("lists"), &config).await;
            if is_good {
                answer.ok();
                send(&gateway, Method::DELETE, &path("lists"), "")
                    .await
                    .ok();
                continue;
            }
            refused(&answer, 400, "invalid_request", "OGG-12018");
            let title = answer.body["messages"][0]["title"].as_str().unwrap();
            let begins = format!("/rules/0/filter/{kind}: ");
            assert!(title.starts_with(&begins), "{title}");
        }
    }
    let fields = |len: usize| {
        let fields = (0..len).map(|n| (format!("f{n}"), n.into()));
        Value::Object(fields.collect())
    };
    let at = "/encoding/json/staticFields";
    check(&gateway, at, vec![fields(0), fields(32)], vec![fields(33)]).await;
    for (len, is_good) in [(0, false), (1, true), (64, true), (65, false)] {
        let name = "n".repeat(len);
        let field = json!({ name.as_str(): 1 });
        let (good, bad) = match is_good {
            true => (vec![field], vec![]),
            false => (vec![], vec![field]),
        };
        // A pointer tells the beginning of a long name.
        let wrong_at = format!("{at}/{}", &name[..len.min(64)]);
        check_at(&gateway, at, &wrong_at, good, bad).await;
        let at = "/encoding/json/metaFields/pos";
        let (good, bad) = match is_good {
            true => (vec![json!(name)], vec![]),
            false => (vec![], vec![json!(name)]),
        };
        check(&gateway, at, good, bad).await;
    }
}

#[tokio::test]
async fn a_configuration_has_256_kib_as_it_is_sent_and_as_it_is_kept() {
    let gateway = Gateway::start();
    let make = async |body: &Value, len: usize| {
        // Blanks are sent and not kept.
        let mut body = body.to_string();
        body += &" ".repeat(len.saturating_sub(body.len()));
        send(&gateway, Method::POST, &path("s1"), body).await
    };
    let smallest = json!({ "source": { "trail": "a1" } });
    let sent = make(&smallest, CONFIG_BYTES_MAX + 1).await;
    refused(&sent, 413, "body_too_large", "OGG-12004");
    make(&smallest, CONFIG_BYTES_MAX).await.ok();
    let config = |rules: usize, description: usize| {
        let tag = json!({ "name": "source", "value": "x".repeat(2000) });
        let rule = json!({ "action": "exclude", "filter": { "tags": [ tag ] } });
        json!({ "source": { "trail": "a1" }, "rules": vec![rule; rules], "description": "d".repeat(description) })
    };
    // With its defaults it is longer than it was sent.
    let kept = async |config: &Value| {
        let patch = gateway.request(Method::PATCH, &path("s1")).json(config);
        let changed = gateway.send(patch).await.ok();
        changed["response"].to_string().len()
    };
    let (one, two) = (kept(&config(1, 1)).await, kept(&config(2, 1)).await);
    let rules = (CONFIG_BYTES_MAX - one) / (two - one);
    let description = CONFIG_BYTES_MAX - one - rules * (two - one) + 1;
    let most = config(rules + 1, description);
    assert!(most.to_string().len() < CONFIG_BYTES_MAX);
    assert_eq!(kept(&most).await, CONFIG_BYTES_MAX);
    let before = gateway.get(&path("s1")).await;
    let more = config(rules + 1, description + 1);
    let patch = gateway.request(Method::PATCH, &path("s1")).json(&more);
    refused(
        &gateway.send(patch).await,
        413,
        "body_too_large",
        "OGG-12004",
    );
    let after = gateway.get(&path("s1")).await;
    assert_eq!(after.headers["etag"], before.headers["etag"]);
    send(&gateway, Method::DELETE, &path("s1"), "").await.ok();
    refused(&make(&more, 0).await, 413, "body_too_large", "OGG-12004");
    make(&most, 0).await.ok();
}

#[tokio::test]
async fn a_name_has_32_characters_at_most() {
    let gateway = Gateway::start();
    let config = json!({ "source": { "trail": "a1" } });
    for (name, is_good) in [
        ("s".to_owned(), true),
        ("S".repeat(32), true),
        ("s".repeat(33), false),
        ("s.1-_".to_owned(), true),
        ("-s".to_owned(), false),
    ] {
        let answer = gateway.post(&path(&name), &config).await;
        if is_good {
            answer.ok();
            gateway.get(&path(&name)).await.ok();
            continue;
        }
        refused(&answer, 400, "invalid_request", "OGG-12135");
        assert_eq!(gateway.get(&path(&name)).await.status, 404);
    }
}
