//! `[dispatch]` and `[[targets]]`.

use std::sync::Arc;

use reqwest::Method;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::{effects, metric, take};
use crate::testkit::{Act, Gateway, Place, StubTarget, message};

effects! {
    "dispatch.in_flight_max" => more_calls_are_made_at_once,
    "dispatch.rate_per_second" => calls_begin_more_often,
    "dispatch.attempts_max" => a_record_is_called_again,
    "dispatch.backoff_ms" => it_is_called_again_sooner,
    "dispatch.backoff_ms_max" => waits_of_our_own_are_cut,
    "dispatch.retry_after_ms_max" => what_a_target_asks_for_is_cut,
    "dispatch.deferred_ms_max" => a_record_is_put_off_no_more,
    "dispatch.connect_timeout_ms" => a_connection_that_does_not_stand_is_given_up,
    "dispatch.dns_ms" => addresses_are_kept,
    "dispatch.response_timeout_ms" => a_response_that_does_not_begin_is_given_up,
    "dispatch.attempt_timeout_ms" => a_response_that_does_not_end_is_given_up,
    "dispatch.queue_len_max" => more_records_wait_in_memory,
    "dispatch.queue_bytes_max" => more_bytes_wait_in_memory,
    "dispatch.queues_bytes_max" => more_bytes_wait_for_all_together,
    "dispatch.targets_max" => one_more_target_gets_its_own_queue,
    "dispatch.idle_connections_max" => connections_are_kept,
    "dispatch.idle_timeout_ms" => idle_targets_go_sooner,
    "dispatch.private_addresses" => private_addresses_are_called,
    "dispatch.loopback_addresses" => loopback_addresses_are_not_called,
    "dispatch.ca_file" => another_authority_is_trusted,
    "targets.name" => a_target_is_called_otherwise,
    "targets.origin" => settings_go_to_another_target,
    "targets.in_flight_max" => more_calls_of_one_target_are_made_at_once,
    "targets.rate_per_second" => calls_of_one_target_begin_more_often,
    "targets.attempts_max" => a_record_of_one_target_is_called_again,
    "targets.connect_timeout_ms" => a_connection_of_one_target_is_given_up,
    "targets.response_timeout_ms" => a_response_of_one_target_is_given_up,
    "targets.attempt_timeout_ms" => a_response_of_one_target_is_cut,
    "targets.body_always" => one_target_gets_a_body_with_delete,
    "targets.secret_header" => one_target_gets_its_secret_in_another_header,
}

/// An hour for everything: no test lives to see the end of it.
const PATIENT: &str = "[dispatch]\nattempt_timeout_ms = 3600000\nresponse_timeout_ms = 3600000\nconnect_timeout_ms = 3600000\n";
const LATER: &str = "ServerUnavailableStream";

async fn post(gateway: &Gateway, url: &str, count: usize) {
    let one = message(url, json!("x".repeat(500)));
    gateway.sync_all(&vec![one; count]).await;
}

fn entry(url: &str, more: &str) -> String {
    format!("[[targets]]\nname = \"orders\"\norigin = \"{url}\"\n{more}\n")
}

fn with(section: &str, more: &str) -> String {
    format!("{section}{more}\n")
}

/// Waits for the first failure, and returns its cause.
async fn cause(gateway: &Gateway, stream: &str) -> Value {
    gateway.record(stream, 1).await["cause"]["class"].clone()
}

async fn more_calls_are_made_at_once() {
    let target = StubTarget::with(|_| Act::Hold).await;
    let gateway = Gateway::with_config("[dispatch]\nin_flight_max = 1\n");
    post(&gateway, &target.url("/x"), 3).await;
    target.wait_for_calls(1).await;
    take(
        &gateway,
        "dispatch.in_flight_max",
        "[dispatch]\nin_flight_max = 3",
    )
    .await;
    target.wait_for_calls(3).await;
}

async fn more_calls_of_one_target_are_made_at_once() {
    let target = StubTarget::with(|_| Act::Hold).await;
    let gateway = Gateway::with_config(&entry(&target.url(""), "in_flight_max = 1"));
    post(&gateway, &target.url("/x"), 3).await;
    target.wait_for_calls(1).await;
    let text = entry(&target.url(""), "in_flight_max = 3");
    take(&gateway, "targets[0].in_flight_max", &text).await;
    target.wait_for_calls(3).await;
}

/// Answers 500 to the first call of all.
fn fails_once(call: &crate::testkit::Call) -> Act {
    Act::status(if call.number == 0 { 500 } else { 200 })
}

async fn a_record_is_called_again() {
    let target = StubTarget::with(fails_once).await;
    let gateway = Gateway::with_config("# nothing yet\n");
    take(
        &gateway,
        "dispatch.attempts_max",
        "[dispatch]\nattempts_max = 2",
    )
    .await;
    post(&gateway, &target.url("/x"), 1).await;
    target.wait_for_calls(2).await;
}

async fn a_record_of_one_target_is_called_again() {
    let target = StubTarget::with(fails_once).await;
    let gateway = Gateway::with_config(&entry(&target.url(""), ""));
    let text = entry(&target.url(""), "attempts_max = 2");
    take(&gateway, "targets[0].attempts_max", &text).await;
    post(&gateway, &target.url("/x"), 1).await;
    target.wait_for_calls(2).await;
}

async fn it_is_called_again_sooner() {
    let target = StubTarget::with(fails_once).await;
    let long = "[dispatch]\nattempts_max = 2\nbackoff_ms_max = 3600000\n";
    let gateway = Place::with_config(&with(long, "backoff_ms = 3600000"))
        .patient()
        .start();
    take(
        &gateway,
        "dispatch.backoff_ms",
        &with(long, "backoff_ms = 1"),
    )
    .await;
    post(&gateway, &target.url("/x"), 1).await;
    target.wait_for_calls(2).await;
}

async fn what_a_target_asks_for_is_cut() {
    let rule = |call: &crate::testkit::Call| match call.number {
        0 => Act::Answer(503, vec![("retry-after", "3600".into())]),
        _ => Act::status(200),
    };
    let target = StubTarget::with(rule).await;
    let gateway = Place::with_config("[dispatch]\nretry_after_ms_max = 1800000\n")
        .patient()
        .start();
    post(&gateway, &target.url("/x"), 1).await;
    target.wait_for_calls(1).await;
    // It is called again after the wait.
    metric(&gateway, &queued(&target), Some(1)).await;
    take(
        &gateway,
        "dispatch.retry_after_ms_max",
        "[dispatch]\nretry_after_ms_max = 20",
    )
    .await;
    target.wait_for_calls(2).await;
}

async fn addresses_are_kept() {
    let target = StubTarget::start().await;
    let url = format!("http://localhost:{}/x", target.port());
    // Each call has a connection of its own.
    let one = "[dispatch]\nin_flight_max = 1\nidle_connections_max = 0\n";
    let gateway = Gateway::with_config(&with(one, "dns_ms = 0"));
    let call = async |count| {
        for _ in 0..count {
            post(&gateway, &url, 1).await;
            gateway.drained("DataSyncStream").await;
        }
    };
    let lookups = async |len: u64| {
        let text = gateway.get("/metrics").await.ok();
        let sample = format!("syncgate_lookups_total {len}\n");
        assert!(text.as_str().unwrap().contains(&sample), "{text}");
    };
    call(2).await;
    lookups(2).await;
    take(&gateway, "dispatch.dns_ms", &with(one, "dns_ms = 3600000")).await;
    call(3).await;
    lookups(2).await;
    assert_eq!(target.connections_len(), 5);
}

async fn waits_of_our_own_are_cut() {
    let target = StubTarget::with(|_| Act::status(500)).await;
    let many = "[dispatch]\nattempts_max = 1000\nbackoff_ms = 20\n";
    let gateway = Place::with_config(&with(many, "backoff_ms_max = 86400000"))
        .patient()
        .start();
    post(&gateway, &target.url("/x"), 1).await;
    // From then on each wait is longer than all before it.
    target.wait_for_calls(6).await;
    let key = "dispatch.backoff_ms_max";
    take(&gateway, key, &with(many, "backoff_ms_max = 20")).await;
    target.wait_for_calls(60).await;
}

async fn a_record_is_put_off_no_more() {
    let target = StubTarget::with(|_| Act::status(429)).await;
    let gateway = Gateway::with_config("# nothing yet\n");
    take(
        &gateway,
        "dispatch.deferred_ms_max",
        "[dispatch]\ndeferred_ms_max = 0",
    )
    .await;
    post(&gateway, &target.url("/x"), 1).await;
    assert_eq!(cause(&gateway, LATER).await, "status");
}

async fn calls_begin_more_often() {
    let target = StubTarget::with(|_| Act::status(200)).await;
    let gateway = Gateway::with_config("[dispatch]\nrate_per_second = 1\n");
    post(&gateway, &target.url("/x"), 60).await;
    target.wait_for_calls(1).await;
    let text = "[dispatch]\nrate_per_second = 10000";
    take(&gateway, "dispatch.rate_per_second", text).await;
    target.wait_for_calls(60).await;
}

async fn calls_of_one_target_begin_more_often() {
    let target = StubTarget::with(|_| Act::status(200)).await;
    let gateway = Gateway::with_config(&entry(&target.url(""), "rate_per_second = 1"));
    post(&gateway, &target.url("/x"), 60).await;
    target.wait_for_calls(1).await;
    let text = entry(&target.url(""), "rate_per_second = 10000");
    take(&gateway, "targets[0].rate_per_second", &text).await;
    target.wait_for_calls(60).await;
}

/// Takes connections and says nothing.
async fn mute() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    (listener, url)
}

async fn a_connection_that_does_not_stand_is_given_up() {
    let (_listener, url) = mute().await;
    let gateway = Gateway::with_config(PATIENT);
    let text = PATIENT.replace("connect_timeout_ms = 3600000", "connect_timeout_ms = 50");
    take(&gateway, "dispatch.connect_timeout_ms", &text).await;
    post(&gateway, &url, 1).await;
    assert_eq!(cause(&gateway, LATER).await, "timeout");
}

async fn a_connection_of_one_target_is_given_up() {
    let (_listener, url) = mute().await;
    let gateway = Gateway::with_config(&(PATIENT.to_owned() + &entry(&url, "")));
    let text = PATIENT.to_owned() + &entry(&url, "connect_timeout_ms = 50");
    take(&gateway, "targets[0].connect_timeout_ms", &text).await;
    post(&gateway, &url, 1).await;
    assert_eq!(cause(&gateway, LATER).await, "timeout");
}

async fn a_response_that_does_not_begin_is_given_up() {
    let target = StubTarget::with(|_| Act::Hang).await;
    let gateway = Gateway::with_config(PATIENT);
    let text = PATIENT.replace("response_timeout_ms = 3600000", "response_timeout_ms = 50");
    take(&gateway, "dispatch.response_timeout_ms", &text).await;
    post(&gateway, &target.url("/x"), 1).await;
    assert_eq!(cause(&gateway, LATER).await, "timeout");
}

async fn a_response_of_one_target_is_given_up() {
    let target = StubTarget::with(|_| Act::Hang).await;
    let gateway = Gateway::with_config(&(PATIENT.to_owned() + &entry(&target.url(""), "")));
    let text = PATIENT.to_owned() + &entry(&target.url(""), "response_timeout_ms = 50");
    take(&gateway, "targets[0].response_timeout_ms", &text).await;
    post(&gateway, &target.url("/x"), 1).await;
    assert_eq!(cause(&gateway, LATER).await, "timeout");
}

async fn head_of_a_request(stream: &mut (impl AsyncRead + Unpin)) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte).await {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
}

/// Answers 200 and begins a body that never ends.
async fn endless() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            head_of_a_request(&mut stream).await;
            drop(
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx")
                    .await,
            );
            open.push(stream);
        }
    });
    url
}

async fn a_response_that_does_not_end_is_given_up() {
    let url = endless().await;
    let short = "[dispatch]\nconnect_timeout_ms = 1000\nresponse_timeout_ms = 1000\n";
    let gateway = Gateway::with_config(&with(short, "attempt_timeout_ms = 3600000"));
    let text = with(short, "attempt_timeout_ms = 1000");
    take(&gateway, "dispatch.attempt_timeout_ms", &text).await;
    post(&gateway, &url, 1).await;
    gateway.drained("DataSyncStream").await;
}

async fn a_response_of_one_target_is_cut() {
    let url = endless().await;
    let gateway = Gateway::with_config(&(PATIENT.to_owned() + &entry(&url, "")));
    let text = PATIENT.to_owned() + &entry(&url, "attempt_timeout_ms = 1000");
    take(&gateway, "targets[0].attempt_timeout_ms", &text).await;
    post(&gateway, &url, 1).await;
    gateway.drained("DataSyncStream").await;
}

fn queued(target: &StubTarget) -> String {
    format!("syncgate_queued{{target=\"{}\"}}", target.url(""))
}

async fn more_records_wait_in_memory() {
    let target = StubTarget::with(|_| Act::Hold).await;
    let one = "[dispatch]\nin_flight_max = 1\n";
    let gateway = Gateway::with_config(&with(one, "queue_len_max = 4"));
    post(&gateway, &target.url("/x"), 10).await;
    metric(&gateway, &queued(&target), Some(4)).await;
    take(
        &gateway,
        "dispatch.queue_len_max",
        &with(one, "queue_len_max = 20"),
    )
    .await;
    metric(&gateway, &queued(&target), Some(9)).await;
}

/// Room for fewer than 110 records of 700 bytes.
const NARROW: &str =
    "[sync]\nheaders_bytes_max = 512\nrecord_bytes_max = 1024\n[dispatch]\nin_flight_max = 1\n";

async fn more_bytes_wait_in_memory() {
    let target = StubTarget::with(|_| Act::Hold).await;
    let gateway = Gateway::with_config(&with(NARROW, "queue_bytes_max = 66560"));
    post(&gateway, &target.url("/x"), 300).await;
    target.wait_for_calls(1).await;
    take(
        &gateway,
        "dispatch.queue_bytes_max",
        &with(NARROW, "queue_bytes_max = 8388609"),
    )
    .await;
    metric(&gateway, &queued(&target), Some(299)).await;
}

async fn more_bytes_wait_for_all_together() {
    let target = StubTarget::with(|_| Act::Hold).await;
    let narrow = with(NARROW, "queue_bytes_max = 66560");
    let gateway = Gateway::with_config(&with(&narrow, "queues_bytes_max = 66560"));
    let others = [
        StubTarget::with(|_| Act::Hold).await,
        StubTarget::with(|_| Act::Hold).await,
    ];
    for other in &others {
        post(&gateway, &other.url("/x"), 60).await;
        other.wait_for_calls(1).await;
    }
    post(&gateway, &target.url("/x"), 30).await;
    // Beyond the bound each has one.
    metric(&gateway, &queued(&target), Some(1)).await;
    take(
        &gateway,
        "dispatch.queues_bytes_max",
        &with(&narrow, "queues_bytes_max = 8388608"),
    )
    .await;
    metric(&gateway, &queued(&target), Some(29)).await;
}

async fn one_more_target_gets_its_own_queue() {
    let mut targets = Vec::new();
    for _ in 0..3 {
        targets.push(StubTarget::with(|_| Act::Hold).await);
    }
    let gateway = Gateway::with_config("[dispatch]\ntargets_max = 1\n");
    for target in &targets[..2] {
        post(&gateway, &target.url("/x"), 1).await;
        target.wait_for_calls(1).await;
    }
    metric(&gateway, "syncgate_in_flight{target=\"*\"}", Some(1)).await;
    take(
        &gateway,
        "dispatch.targets_max",
        "[dispatch]\ntargets_max = 2",
    )
    .await;
    post(&gateway, &targets[2].url("/x"), 1).await;
    let own = format!("syncgate_in_flight{{target=\"{}\"}}", targets[2].url(""));
    metric(&gateway, &own, Some(1)).await;
}

async fn connections_are_kept() {
    let target = StubTarget::start().await;
    let one = "[dispatch]\nin_flight_max = 1\n";
    let gateway = Gateway::with_config(&with(one, "idle_connections_max = 0"));
    let call = async |count| {
        for _ in 0..count {
            post(&gateway, &target.url("/x"), 1).await;
            gateway.drained("DataSyncStream").await;
        }
    };
    call(2).await;
    assert_eq!(target.connections_len(), 2);
    take(
        &gateway,
        "dispatch.idle_connections_max",
        &with(one, "idle_connections_max = 1"),
    )
    .await;
    call(3).await;
    assert_eq!(target.connections_len(), 3, "one for all three");
}

async fn idle_targets_go_sooner() {
    let target = StubTarget::start().await;
    let gateway = Gateway::with_config("[dispatch]\nidle_timeout_ms = 86400000\n");
    post(&gateway, &target.url("/x"), 1).await;
    gateway.drained("DataSyncStream").await;
    metric(&gateway, &queued(&target), Some(0)).await;
    take(
        &gateway,
        "dispatch.idle_timeout_ms",
        "[dispatch]\nidle_timeout_ms = 20",
    )
    .await;
    metric(&gateway, &queued(&target), None).await;
}

async fn private_addresses_are_called() {
    let short = "[dispatch]\nconnect_timeout_ms = 50\n";
    let gateway = Gateway::with_config(short);
    post(&gateway, "http://10.255.255.1:9/x", 1).await;
    assert_eq!(cause(&gateway, "DefaultErrorStream").await, "blocked");
    let text = with(short, "private_addresses = true");
    take(&gateway, "dispatch.private_addresses", &text).await;
    post(&gateway, "http://10.255.255.1:9/x", 1).await;
    gateway.drained("DataSyncStream").await;
    // What comes of a call there is the network's affair, but there was one.
    let failed = gateway.records("DefaultErrorStream").await;
    let blocked = failed
        .iter()
        .filter(|record| record["cause"]["class"] == "blocked");
    assert_eq!(blocked.count(), 1);
}

async fn loopback_addresses_are_not_called() {
    let target = StubTarget::start().await;
    let gateway = Gateway::with_config("# nothing yet\n");
    post(&gateway, &target.url("/x"), 1).await;
    gateway.drained("DataSyncStream").await;
    take(
        &gateway,
        "dispatch.loopback_addresses",
        "[dispatch]\nloopback_addresses = false",
    )
    .await;
    post(&gateway, &target.url("/x"), 1).await;
    assert_eq!(cause(&gateway, "DefaultErrorStream").await, "blocked");
}

const TLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/dispatch/tests/tls");

/// Answers 200 over TLS, with a certificate of an authority of our own.
async fn tls_target() -> String {
    let certificate = CertificateDer::from_pem_file(format!("{TLS}/localhost.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(format!("{TLS}/localhost.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "https://localhost:{}",
        listener.local_addr().unwrap().port()
    );
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            head_of_a_request(&mut stream).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            drop(stream.write_all(answer).await);
            drop(stream.shutdown().await);
        }
    });
    url
}

async fn another_authority_is_trusted() {
    let url = tls_target().await;
    let gateway = Gateway::with_config("# nothing yet\n");
    post(&gateway, &url, 1).await;
    assert_eq!(cause(&gateway, LATER).await, "tls");
    let text = format!("[dispatch]\nca_file = \"{TLS}/authority.pem\"");
    take(&gateway, "dispatch.ca_file", &text).await;
    post(&gateway, &url, 1).await;
    gateway.drained("DataSyncStream").await;
    assert_eq!(gateway.count("DataSyncStream", "delivered").await, 1);
    // A file that holds no certificate is found before anything is applied.
    let wrong = format!("[dispatch]\nca_file = \"{TLS}/localhost.key\"\nin_flight_max = 7");
    let problem = gateway.reload(&wrong).await.problem(422, "config_invalid");
    assert_eq!(problem["errors"][0]["pointer"], "dispatch.ca_file");
    take(
        &gateway,
        "dispatch.in_flight_max",
        &format!("{text}\nin_flight_max = 7"),
    )
    .await;
}

async fn a_target_is_called_otherwise() {
    let target = StubTarget::with(|_| Act::Hold).await;
    let gateway = Gateway::with_config(&entry(&target.url(""), ""));
    post(&gateway, &target.url("/x"), 1).await;
    metric(&gateway, "syncgate_in_flight{target=\"orders\"}", Some(1)).await;
    let text = entry(&target.url(""), "").replace("orders", "other");
    take(&gateway, "targets[0]", &text).await;
    metric(&gateway, "syncgate_in_flight{target=\"other\"}", Some(1)).await;
}

/// Posts a DELETE with a payload and returns what reaches the target of it.
async fn deleted(gateway: &Gateway, target: &StubTarget) -> Vec<u8> {
    let mut delete = message(&target.url("/x"), json!(7));
    delete["streamMessage"]["targetRestApiOperation"] = Method::DELETE.as_str().into();
    gateway.sync(&delete).await;
    target.next_call().await.body.to_vec()
}

async fn settings_go_to_another_target() {
    let target = StubTarget::start().await;
    let gateway = Gateway::with_config(&entry("http://127.0.0.1:9", "body_always = true"));
    assert_eq!(deleted(&gateway, &target).await, b"");
    let text = entry(&target.url(""), "body_always = true");
    take(&gateway, "targets[0].origin", &text).await;
    assert_eq!(deleted(&gateway, &target).await, b"7");
}

async fn one_target_gets_a_body_with_delete() {
    let target = StubTarget::start().await;
    let gateway = Gateway::with_config(&entry(&target.url(""), ""));
    assert_eq!(deleted(&gateway, &target).await, b"");
    let text = entry(&target.url(""), "body_always = true");
    take(&gateway, "targets[0].body_always", &text).await;
    assert_eq!(deleted(&gateway, &target).await, b"7");
}

/// A message whose own headers name the one that the target will want, with a token for the target or none.
async fn send_with_key(gateway: &Gateway, target: &StubTarget, token: Option<&str>) {
    let mut one = message(&target.url("/x"), json!(1));
    let headers = &mut one["streamMessage"]["targetRestApiHeaders"];
    *headers = json!([{"key": "X-Pass", "value": "of-the-message"}]);
    let mut request = gateway.request(Method::POST, "/stream/sync").json(&one);
    if let Some(token) = token {
        request = request.header("authorization", token);
    }
    gateway.send(request).await.ok();
}

async fn one_target_gets_its_secret_in_another_header() {
    let target = StubTarget::start().await;
    let gateway = Gateway::with_config(&entry(&target.url(""), ""));
    let page = "/v1/streams/DataSyncStream/partitions/0/records";
    let shown = async |at: usize| {
        let page = gateway.get(page).await.ok();
        page["items"][at]["value"]["targetRestApiHeaders"][0]["value"].clone()
    };
    send_with_key(&gateway, &target, Some("Bearer t1")).await;
    let call = target.next_call().await;
    assert_eq!(call.header("authorization"), Some("Bearer t1"));
    assert_eq!(call.header("x-pass"), Some("of-the-message"));
    assert_eq!(shown(0).await, "of-the-message");

    let text = entry(&target.url(""), "secret_header = \"X-Pass\"");
    take(&gateway, "targets[0].secret_header", &text).await;
    send_with_key(&gateway, &target, Some("t2")).await;
    let call = target.next_call().await;
    assert_eq!(call.header("authorization"), None);
    assert_eq!(call.header("x-pass"), Some("t2"));
    // Without a secret the message's own header goes out. It is a credential now, and nobody is shown it.
    send_with_key(&gateway, &target, None).await;
    let call = target.next_call().await;
    assert_eq!(call.header("x-pass"), Some("of-the-message"));
    assert_eq!(
        (shown(0).await, shown(2).await),
        (json!("***"), json!("***"))
    );
    // What was stored meanwhile stays hidden without the setting, also after a start.
    take(
        &gateway,
        "targets[0].secret_header",
        &entry(&target.url(""), ""),
    )
    .await;
    assert_eq!(shown(2).await, "***");
    let gateway = gateway.kill().start();
    let page = gateway.get(page).await.ok();
    let header = &page["items"][2]["value"]["targetRestApiHeaders"][0];
    assert_eq!(*header, json!({"key": "X-Pass", "value": "***"}), "{page}");
}
