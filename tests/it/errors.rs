//! Each failure lies in the right error stream, with its cause; none is lost, none holds up the others.

use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::testkit::{Act, Call, Gateway, StubTarget, keyed, message, poll};

/// Small waits: a hang is a failure after 300 ms.
const QUICK: &str =
    "[dispatch]\nconnect_timeout_ms = 300\nresponse_timeout_ms = 300\nattempt_timeout_ms = 600\n";

async fn check(gateway: &Gateway, url: &str, stream: &str, class: &str, status: Option<u16>) {
    let before = gateway.records(stream).await.len();
    let message = keyed("key-ä", url, json!({"id": 7}));
    let offset = gateway.sync(&message).await;
    let record = gateway.record(stream, before + 1).await;
    let headers = &record["headers"];
    assert_eq!(headers["cause-class"], class, "{url}: {record}");
    assert_eq!(
        headers["cause-status"],
        status.map_or(Value::Null, |status| status.to_string().into()),
        "{url}"
    );
    assert!(
        headers["cause-reason"]
            .as_str()
            .is_some_and(|reason| !reason.is_empty()),
        "{url}: {record}"
    );
    assert_eq!(
        headers["attempts"],
        if ["invalid", "secret", "blocked"].contains(&class) {
            "0"
        } else {
            "1"
        },
        "{url}: {record}"
    );
    assert_eq!(headers["retries"].as_str().unwrap_or("0"), "0", "{url}");
    assert_eq!(headers["origin-stream"], "DataSyncStream", "{url}");
    assert_eq!(headers["origin-partition"], "0", "{url}");
    assert_eq!(headers["origin-offset"], offset.to_string(), "{url}");
    assert_eq!(record["key"], "key-ä", "{url}");
    assert_eq!(record["value"], message["streamMessage"], "{url}");
}

#[tokio::test]
async fn each_status_goes_where_the_default_table_says() {
    let target = StubTarget::by_path().await;
    // A target that puts a message off gets it again before the table has it.
    let gateway = Gateway::with_config("[dispatch]\ndeferred_ms_max = 0\n");
    let table = [
        (
            "ServerUnavailableStream",
            &[408, 425, 429, 502, 503, 504][..],
        ),
        ("InternalserverErrorStream", &[500]),
        (
            "UnrecoverableErrorStream",
            &[400, 404, 405, 409, 410, 413, 415, 422, 301, 302, 304, 307],
        ),
        ("DefaultErrorStream", &[401, 402, 403, 418, 451, 501, 505]),
    ];
    for (stream, statuses) in table {
        for status in statuses {
            check(
                &gateway,
                &target.url(&format!("/status/{status}")),
                stream,
                "status",
                Some(*status),
            )
            .await;
        }
    }
    for status in [200, 201, 202, 204] {
        gateway
            .sync(&message(
                &target.url(&format!("/status/{status}")),
                json!(1),
            ))
            .await;
    }
    gateway.drained("DataSyncStream").await;
    assert_eq!(gateway.count("DataSyncStream", "delivered").await, 4);
    let record = gateway.record("InternalserverErrorStream", 1).await;
    assert_eq!(record["headers"]["cause-body"], "answer 500");
}

#[tokio::test]
async fn each_broken_connection_has_its_cause_and_can_be_retried() {
    let target = StubTarget::by_path().await;
    let gateway = Gateway::with_config(QUICK);
    let refused = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = refused.local_addr().unwrap();
    drop(refused);
    let stream = "ServerUnavailableStream";
    check(
        &gateway,
        &format!("http://{closed}/"),
        stream,
        "connect",
        None,
    )
    .await;
    check(
        &gateway,
        "http://no-such-host.invalid/",
        stream,
        "dns",
        None,
    )
    .await;
    check(&gateway, &target.url("/hang"), stream, "timeout", None).await;
    check(&gateway, &target.url("/reset"), stream, "reset", None).await;
    check(
        &gateway,
        &target.url("/x").replace("http:", "https:"),
        stream,
        "tls",
        None,
    )
    .await;
}

#[tokio::test]
async fn addresses_that_no_target_may_have_are_blocked() {
    let gateway = Gateway::start();
    let own = format!("{}/healthz", gateway.url);
    for url in [
        "http://169.254.169.254/latest/meta-data",
        "http://[fe80::1]/",
        "http://10.0.0.1/",
        "http://192.168.1.1/",
        "http://[::ffff:169.254.169.254]/",
        "http://0.0.0.0/",
        own.as_str(),
    ] {
        check(&gateway, url, "DefaultErrorStream", "blocked", None).await;
    }
}

#[tokio::test]
async fn an_outcome_table_of_the_config_wins_over_the_default() {
    let target = StubTarget::by_path().await;
    let gateway = Gateway::with_config(
        "[outcomes]\n\"404\" = \"unavailable\"\n\"5xx\" = \"Special\"\n\"401\" = \"Auth\"\n\n[[streams]]\nname = \"Special\"\n\n[[streams]]\nname = \"Auth\"\n",
    );
    check(
        &gateway,
        &target.url("/status/404"),
        "ServerUnavailableStream",
        "status",
        Some(404),
    )
    .await;
    check(
        &gateway,
        &target.url("/status/401"),
        "Auth",
        "status",
        Some(401),
    )
    .await;
    check(
        &gateway,
        &target.url("/status/501"),
        "Special",
        "status",
        Some(501),
    )
    .await;
    check(
        &gateway,
        &target.url("/status/400"),
        "UnrecoverableErrorStream",
        "status",
        Some(400),
    )
    .await;
}

#[tokio::test]
async fn a_hanging_target_does_not_hold_up_another_one() {
    let (hung, alive) = (
        StubTarget::with(|_| Act::Hang).await,
        StubTarget::start().await,
    );
    let gateway = Gateway::start();
    for n in 0..200 {
        gateway
            .sync(&keyed(&n.to_string(), &hung.url("/x"), json!(n)))
            .await;
        gateway
            .sync(&keyed(&n.to_string(), &alive.url("/x"), json!(n)))
            .await;
    }
    alive.wait_for_calls(200).await;
    assert_eq!(hung.in_flight_max(), 64);
}

#[tokio::test]
async fn a_later_record_of_a_key_passes_one_that_was_routed() {
    let target =
        StubTarget::with(|call| Act::status(if call.number == 0 { 503 } else { 200 })).await;
    let gateway = Gateway::start();
    gateway.sync(&keyed("k", &target.url("/x"), json!(1))).await;
    gateway.sync(&keyed("k", &target.url("/x"), json!(2))).await;
    target.wait_for_calls(2).await;
    gateway.drained("DataSyncStream").await;
    assert_eq!(gateway.records("ServerUnavailableStream").await.len(), 1);
}

#[tokio::test]
async fn transient_failures_are_tried_again_as_often_as_configured() {
    let target =
        StubTarget::with(|call| Act::status(if call.number < 2 { 503 } else { 200 })).await;
    let gateway = Gateway::with_config("[dispatch]\nattempts_max = 3\nbackoff_ms = 1\n");
    gateway.sync(&keyed("k", &target.url("/x"), json!(1))).await;
    gateway.sync(&keyed("k", &target.url("/x"), json!(2))).await;
    target.wait_for_calls(4).await;
    gateway.drained("DataSyncStream").await;
    let order: Vec<_> = target.calls().iter().map(Call::json).collect();
    assert_eq!(order, [json!(1), json!(1), json!(1), json!(2)]);
    assert_eq!(gateway.count("DataSyncStream", "delivered").await, 2);

    target.now(|_| Act::status(503));
    gateway.sync(&keyed("k", &target.url("/x"), json!(3))).await;
    let record = gateway.record("ServerUnavailableStream", 1).await;
    assert_eq!(record["headers"]["attempts"], "3");
    assert_eq!(target.calls().len(), 7);
    // What can never succeed is tried once, however many attempts there are.
    target.now(|_| Act::status(404));
    gateway.sync(&keyed("k", &target.url("/x"), json!(4))).await;
    assert_eq!(
        gateway.record("UnrecoverableErrorStream", 1).await["headers"]["attempts"],
        "1"
    );
}

#[tokio::test]
async fn a_target_that_asks_for_time_gets_it_and_other_targets_go_on() {
    let target = StubTarget::with(|call| match call.number {
        0..5 => Act::Answer(503, vec![("retry-after", "1800".into())]),
        _ => Act::status(200),
    })
    .await;
    let other = StubTarget::start().await;
    let gateway = Gateway::start();
    for n in 0..5 {
        let first = keyed(&format!("a{n}"), &target.url("/x"), json!("first"));
        gateway.sync(&first).await;
    }
    target.wait_for_calls(5).await;
    let open = format!("syncgate_target_closed{{target=\"{}\"}} 1", target.url(""));
    poll("its breaker to open", async || {
        let text = gateway.get("/metrics").await.ok();
        text.as_str()?.contains(&open).then_some(())
    })
    .await;
    for n in 0..10 {
        let (waits, goes_on) = (target.url("/x"), other.url("/x"));
        gateway.sync(&keyed("b", &waits, json!(n))).await;
        gateway.sync(&keyed("b", &goes_on, json!(n))).await;
    }
    other.wait_for_calls(10).await;
    assert_eq!(target.calls().len(), 5);
    // What fails does not leave the main stream for it, either.
    assert_eq!(gateway.records("ServerUnavailableStream").await.len(), 0);
}

#[tokio::test]
async fn a_message_that_cannot_be_called_fails_as_invalid_in_lenient_mode() {
    let target = StubTarget::start().await;
    let gateway = Gateway::with_config("[sync]\nlenient = true\n");
    let bad = [
        json!({"streamMessage": {"targetRestApiOperation": "POST"}}),
        json!({"streamMessage": {"targetRestApi": "not a url", "targetRestApiOperation": "POST"}}),
        json!({"streamMessage": {"targetRestApi": target.url("/x"), "targetRestApiOperation": "post"}}),
        json!({"streamMessage": {"targetRestApi": target.url("/x"), "targetRestApiOperation": "POST", "targetRestApiHeaders": {"a": 1}}}),
        json!({"streamMessage": {"targetRestApi": null, "targetRestApiOperation": "POST"}}),
        json!({"streamMessage": {}}),
    ];
    for (at, message) in bad.iter().enumerate() {
        gateway.sync(message).await;
        let record = gateway.record("UnrecoverableErrorStream", at + 1).await;
        assert_eq!(record["headers"]["cause-class"], "invalid", "{record}");
        assert_eq!(record["value"], message["streamMessage"]);
    }
    assert!(target.calls().is_empty());
}

#[tokio::test]
async fn a_failure_is_written_before_its_record_ends() {
    let target = StubTarget::with(|_| Act::status(500)).await;
    let gateway = Gateway::start();
    let messages: Vec<_> = (0..500)
        .map(|n| keyed(&n.to_string(), &target.url("/x"), json!(n)))
        .collect();
    gateway.sync_all(&messages).await;
    poll("500 error records", async || {
        let moved = gateway.count("DataSyncStream", "moved").await;
        let errors = gateway.all_records("InternalserverErrorStream").await.len() as u64;
        assert!(moved <= errors, "{moved} moved, but {errors} error records");
        (moved == 500).then_some(())
    })
    .await;
}
