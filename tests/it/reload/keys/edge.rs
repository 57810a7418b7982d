//! `[server]`, `[metrics]` and `[sync]`.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{effects, take, told};
use crate::edge::slow_reader;
use crate::testkit::{Act, Answer, Gateway, Place, StubTarget, keyed, message, within};

effects! {
    "server.hosts" => another_name_is_ours,
    "server.connections_max" => more_connections_are_served,
    "server.request_timeout_ms" => a_slow_body_is_given_up_sooner,
    "server.answers_bytes_max" => answers_that_wait_take_all_there_is,
    "server.grace_ms" => a_stop_waits_for_less,
    "server.cors_origins" => another_origin_may_change_things,
    "metrics.public" => metrics_are_for_everyone,
    "sync.answer" => a_success_looks_otherwise,
    "sync.token_header" => the_token_comes_in_another_header,
    "sync.lenient" => messages_that_cannot_be_delivered_are_taken,
    "sync.operations" => another_operation_is_refused,
    "sync.record_bytes_max" => a_smaller_message_is_too_large,
    "sync.key_bytes_max" => a_shorter_key_is_too_long,
    "sync.headers_bytes_max" => fewer_headers_are_too_long,
    "sync.batch_bytes_max" => a_smaller_body_is_too_large,
    "sync.batch_len_max" => a_shorter_batch_is_too_long,
}

fn plain() -> Gateway {
    Gateway::with_config("# nothing yet\n")
}

/// A message for a target that need not be there.
fn any() -> Value {
    keyed("long key", "http://127.0.0.1:9/x", json!(1))
}

async fn post(gateway: &Gateway, body: &Value) -> Answer {
    gateway.post("/stream/sync", body).await
}

const USER: (&str, &str) = ("ada", "correct horse battery");

/// A gateway with users, some settings of which need them.
fn with_users() -> Gateway {
    let place = Place::with_config("# nothing yet\n");
    let place = place.env("SYNCGATE_ADMIN_USER", USER.0);
    place.env("SYNCGATE_ADMIN_PASSWORD", USER.1).start()
}

/// As [`take`], where there are users.
async fn take_as_user(gateway: &Gateway, key: &str, config: &str) {
    gateway.write_config(config);
    let request = gateway.request(Method::POST, "/v1/reload");
    let answer = gateway.send(request.basic_auth(USER.0, Some(USER.1))).await;
    assert_eq!(answer.ok(), told(&[key], &[]), "{config}");
}

async fn another_name_is_ours() {
    let gateway = with_users();
    let ask = || {
        let request = gateway.request(Method::GET, "/v1/streams");
        let request = request.basic_auth(USER.0, Some(USER.1));
        gateway.send(request.header("host", "gate.example"))
    };
    ask().await.problem(421, "host_not_allowed");
    let hosts = "[server]\nhosts = [\"gate.example\"]";
    take_as_user(&gateway, "server.hosts", hosts).await;
    ask().await.ok();
}

async fn another_origin_may_change_things() {
    let gateway = plain();
    let ask = || {
        let request = gateway.request(Method::POST, "/v1/reload");
        gateway.send(request.header("origin", "https://console.example"))
    };
    ask().await.problem(403, "origin_not_allowed");
    let text = "[server]\ncors_origins = [\"https://console.example\"]";
    take(&gateway, "server.cors_origins", text).await;
    ask().await.ok();
}

/// Opens a connection of its own and sends this.
async fn open(gateway: &Gateway, text: &str) -> TcpStream {
    let address = gateway.url.strip_prefix("http://").unwrap();
    let mut open = TcpStream::connect(address).await.unwrap();
    open.write_all(text.as_bytes()).await.unwrap();
    open
}

async fn more_connections_are_served() {
    // The one place is that of the client's own connection, which it keeps.
    let gateway = Gateway::with_config("[server]\nconnections_max = 1\n");
    gateway.get("/healthz").await.ok();
    let mut other = open(&gateway, "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    take(
        &gateway,
        "server.connections_max",
        "[server]\nconnections_max = 2",
    )
    .await;
    within("an answer", other.read_exact(&mut [0; 12]))
        .await
        .unwrap();
}

async fn a_slow_body_is_given_up_sooner() {
    let gateway = Gateway::with_config("[server]\nrequest_timeout_ms = 3600000\n");
    take(
        &gateway,
        "server.request_timeout_ms",
        "[server]\nrequest_timeout_ms = 100",
    )
    .await;
    let half = "POST /stream/sync HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\nconnection: close\r\n\r\n{";
    let (mut body, mut head) = (
        open(&gateway, half).await,
        open(&gateway, "POST /str").await,
    );
    let mut said = Vec::new();
    within("an answer", body.read_to_end(&mut said))
        .await
        .unwrap();
    assert!(
        said.starts_with(b"HTTP/1.1 408"),
        "{}",
        String::from_utf8_lossy(&said)
    );
    // Half a head gets no answer of ours, and no connection for ever.
    drop(within("an end", head.read_to_end(&mut said)).await);
}

async fn answers_that_wait_take_all_there_is() {
    let gateway = Gateway::with_config("[server]\nanswers_bytes_max = 67108864\n");
    let payload = Value::from("x".repeat(900 << 10));
    for _ in 0..4 {
        gateway
            .sync(&keyed("k", "http://127.0.0.1:9/x", payload.clone()))
            .await;
    }
    let page = "/v1/streams/DataSyncStream/partitions/0/records";
    let mut slow = slow_reader(&gateway, page).await;
    gateway.get(page).await.ok();
    // So little that one part is still waiting, and enough to be no client that takes nothing.
    slow.read_exact(&mut [0; 32 << 10]).await.unwrap();
    let text = "[server]\nanswers_bytes_max = 1048576";
    take(&gateway, "server.answers_bytes_max", text).await;
    gateway.get(page).await.problem(503, "queue_full");
}

async fn a_stop_waits_for_less() {
    let target = StubTarget::with(|_| Act::Hang).await;
    let gateway = Gateway::with_config("[server]\ngrace_ms = 3600000\n");
    gateway.sync(&message(&target.url("/x"), json!(1))).await;
    target.wait_for_calls(1).await;
    take(&gateway, "server.grace_ms", "[server]\ngrace_ms = 100").await;
    gateway.stop().await;
}

async fn metrics_are_for_everyone() {
    let gateway = with_users();
    let elsewhere = || {
        let request = gateway.request(Method::GET, "/metrics");
        gateway.send(request.header("host", "10.1.2.3:9090"))
    };
    gateway
        .get("/metrics")
        .await
        .problem(401, "unauthenticated");
    elsewhere().await.problem(421, "host_not_allowed");
    take_as_user(&gateway, "metrics.public", "[metrics]\npublic = true").await;
    gateway.get("/metrics").await.ok();
    elsewhere().await.ok();
}

async fn a_success_looks_otherwise() {
    let gateway = plain();
    let request = || gateway.request(Method::POST, "/stream/sync").json(&any());
    assert_eq!(gateway.send(request()).await.ok()["status"], "success");
    take(&gateway, "sync.answer", "[sync]\nanswer = \"text\"").await;
    assert_eq!(gateway.send(request()).await.ok(), "success");
}

async fn the_token_comes_in_another_header() {
    let target = StubTarget::start().await;
    let gateway = plain();
    take(
        &gateway,
        "sync.token_header",
        "[sync]\ntoken_header = \"x-target-token\"",
    )
    .await;
    let request = gateway
        .request(Method::POST, "/stream/sync")
        .header("x-target-token", "the-token");
    gateway
        .send(request.json(&message(&target.url("/x"), json!(1))))
        .await
        .ok();
    let call = target.next_call().await;
    assert_eq!(call.header("authorization"), Some("the-token"));
    assert_eq!(call.header("x-target-token"), None);
}

async fn messages_that_cannot_be_delivered_are_taken() {
    let gateway = plain();
    let body = json!({"streamKey": 7, "streamMessage": {"x": 1}});
    post(&gateway, &body).await.problem(400, "invalid_message");
    take(&gateway, "sync.lenient", "[sync]\nlenient = true").await;
    post(&gateway, &body).await.ok();
}

async fn another_operation_is_refused() {
    let gateway = plain();
    post(&gateway, &any()).await.ok();
    take(
        &gateway,
        "sync.operations",
        "[sync]\noperations = [\"PUT\"]",
    )
    .await;
    let problem = post(&gateway, &any()).await.problem(400, "invalid_message");
    assert_eq!(problem["errors"][0]["code"], "method_not_allowed");
}

async fn a_smaller_message_is_too_large() {
    let small = "[sync]\nheaders_bytes_max = 512\n";
    let gateway = Gateway::with_config(small);
    let body = message("http://127.0.0.1:9/x", json!("x".repeat(2_000)));
    post(&gateway, &body).await.ok();
    take(
        &gateway,
        "sync.record_bytes_max",
        &format!("{small}record_bytes_max = 1024"),
    )
    .await;
    post(&gateway, &body).await.problem(413, "body_too_large");
}

async fn a_shorter_key_is_too_long() {
    let gateway = plain();
    post(&gateway, &any()).await.ok();
    take(&gateway, "sync.key_bytes_max", "[sync]\nkey_bytes_max = 3").await;
    let problem = post(&gateway, &any()).await.problem(400, "invalid_message");
    assert_eq!(problem["errors"][0]["pointer"], "/streamKey");
}

async fn fewer_headers_are_too_long() {
    let gateway = plain();
    post(&gateway, &any()).await.ok();
    take(
        &gateway,
        "sync.headers_bytes_max",
        "[sync]\nheaders_bytes_max = 3",
    )
    .await;
    let problem = post(&gateway, &any()).await.problem(400, "invalid_message");
    assert_eq!(
        problem["errors"][0]["pointer"],
        "/streamMessage/targetRestApiHeaders"
    );
}

async fn a_smaller_body_is_too_large() {
    let small = "[sync]\nheaders_bytes_max = 512\nrecord_bytes_max = 2048\n";
    let gateway = Gateway::with_config(small);
    let one = message("http://127.0.0.1:9/x", json!("x".repeat(1_500)));
    let body = json!([one, one, one]);
    post(&gateway, &body).await.ok();
    take(
        &gateway,
        "sync.batch_bytes_max",
        &format!("{small}batch_bytes_max = 4096"),
    )
    .await;
    post(&gateway, &body).await.problem(413, "body_too_large");
}

async fn a_shorter_batch_is_too_long() {
    let gateway = plain();
    let body = json!([any(), any()]);
    post(&gateway, &body).await.ok();
    take(&gateway, "sync.batch_len_max", "[sync]\nbatch_len_max = 1").await;
    let problem = post(&gateway, &body).await.problem(400, "invalid_message");
    assert_eq!(problem["errors"][0]["code"], "too_long");
}
