//! Every way in which a call can fail, and the error record that it leaves.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    harness::{
        DEFAULT, Harness, INTERNAL, OWN_ADDRESS, SOURCE, UNAVAILABLE, UNRECOVERABLE, header,
        message, record,
    },
    reload::named,
    stub::{StubTarget, raw_target, read_head, within},
};
use crate::{config::Config, runtime::clock::Timestamp, storage::AppendKind};

/// Dispatches one message; checks cause and status of the error record in `stream`.
#[track_caller]
fn check(
    message: Value,
    set: impl FnOnce(&mut Config),
    stream: &'static str,
    cause: &'static str,
    status: &'static str,
) -> impl Future<Output = ()> {
    let at = std::panic::Location::caller();
    async move {
        let gateway = Harness::start(set).await;
        gateway.sync("k", &message).await;
        let counts = gateway.settled().await;
        assert_eq!(counts.routed, 1, "{at}");
        let failed = gateway.record_at(stream, 0).await;
        let found = (
            header(&failed, "cause-class"),
            header(&failed, "cause-status"),
        );
        let reason = header(&failed, "cause-reason");
        assert_eq!(found, (cause, status), "{at}: {reason}");
        assert!(!reason.contains("SECRET"), "{at}: {reason}");
        assert_eq!(failed.record.value, message.to_string());
        gateway.stop().await;
    }
}

async fn answering(status: u16) -> Value {
    message(StubTarget::always(status).await, "/x")
}

/// Says something in place of HTTP.
async fn saying(text: &'static [u8]) -> Value {
    let target = raw_target(move |mut stream: TcpStream| async move {
        read_head(&mut stream).await;
        drop(stream.write_all(text).await);
    });
    message(target.await, "/x")
}

#[tokio::test]
async fn statuses_are_routed_by_the_outcome_table() {
    for (status, stream) in [
        (400, UNRECOVERABLE),
        (401, DEFAULT),
        (404, UNRECOVERABLE),
        (429, UNAVAILABLE),
        (500, INTERNAL),
        (503, UNAVAILABLE),
    ] {
        let text = status.to_string().leak();
        // A target that puts a record off would get it again.
        let at_once = |config: &mut Config| config.dispatch.deferred_ms_max = 0;
        check(answering(status).await, at_once, stream, "status", text).await;
    }
}

#[tokio::test]
async fn nothing_is_kept_of_an_answer_that_echoes_a_credential() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|config| {
        config.push.masked_headers = vec!["X-Own".into()];
        config.targets = vec![named("orders", &target)];
        config.targets[0].secret_header = Some("X-Pass".into());
    })
    .await;
    let mut message = message(target.address, "/x");
    message["vaultSecretName"] = json!("long");
    message["targetRestApiHeaders"] = json!([
        {"key": "X-Api-Key", "value": "key-of-the-list"}, {"key": "X-Own", "value": "key-of-the-setting"},
        {"key": "Cookie", "value": "a=1; session=c00k1e-0f-it"}, {"key": "X-Pass", "value": "pass-of-the-message"}, {"key": "X-Note", "value": "nothing secret"}]);
    let bodies = [
        ("no Bearer token-of-the-target", "-"),
        (r#"{"sent":"token\u002dof-the\u002dtarget"}"#, "-"),
        ("Y: dG9rZW4tb2YtdGhlLXRhcmdldA", "-"),
        ("bad key key-of-the-list", "-"),
        ("bad key key%2Dof-the-setting", "-"),
        ("c00k1e-0f-it is over", "-"),
        ("pass-of-the-message was not sent", "-"),
        ("nothing secret", "nothing secret"),
    ];
    for (at, (body, kept)) in bodies.into_iter().enumerate() {
        gateway.sync("k", &message).await;
        target.next_call().await.answer_with(401, &[], body);
        gateway.settled().await;
        let failed = gateway.record_at(DEFAULT, at as u64).await;
        assert_eq!(header(&failed, "cause-body"), kept, "{body}");
        let reason = header(&failed, "cause-reason");
        assert!(
            reason.starts_with("the target answered 401 Unauthorized"),
            "{reason}"
        );
        assert_eq!(reason.contains("is not kept"), kept == "-", "{reason}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_no_success() {
    let mut elsewhere = StubTarget::start().await;
    let location = format!(
        "HTTP/1.1 302 Found\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n",
        elsewhere.url("/")
    );
    let message = saying(location.leak().as_bytes()).await;
    check(message, |_| {}, UNRECOVERABLE, "status", "302").await;
    assert!(elsewhere.waiting_call().is_none());
}

#[tokio::test]
async fn a_target_that_breaks_off_is_a_reset() {
    for text in [
        &b""[..],
        b"HTTP/1.1 200",
        b"what do you want?\r\n\r\n",
        b"HTTP/1.1 999999 X\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ] {
        check(saying(text).await, |_| {}, UNAVAILABLE, "reset", "-").await;
    }
}

#[tokio::test]
async fn a_head_may_have_100_headers_and_is_called_too_large_beyond() {
    let answer = |headers_len: usize, header: &str| {
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n{}\r\n",
            header.repeat(headers_len)
        );
        saying(head.into_bytes().leak())
    };
    let gateway = Harness::start(|_| {}).await;
    gateway
        .sync("k", &answer(99, "set-cookie: a=b\r\n").await)
        .await;
    assert_eq!(gateway.settled().await.delivered, 1);
    let long = format!("x-more: {}\r\n", "more".repeat(1024));
    for (at, too_large) in [answer(100, "set-cookie: a=b\r\n"), answer(64, &long)]
        .into_iter()
        .enumerate()
    {
        gateway.sync("k", &too_large.await).await;
        gateway.settled().await;
        let failed = gateway.record_at(UNAVAILABLE, at as u64).await;
        assert_eq!(header(&failed, "cause-class"), "reset");
        assert_eq!(
            header(&failed, "cause-reason"),
            "the head of the answer is too large: more than 64 KiB, or more than 100 headers"
        );
    }
}

#[tokio::test]
async fn a_target_that_is_not_there_is_recoverable() {
    let gone: SocketAddr = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    check(message(gone, "/x"), |_| {}, UNAVAILABLE, "connect", "-").await;
    let mut nowhere = message(gone, "/x");
    nowhere["targetRestApi"] = json!("http://nowhere.invalid/");
    check(nowhere, |_| {}, UNAVAILABLE, "dns", "-").await;
}

#[tokio::test]
async fn a_target_that_hangs_is_a_timeout() {
    let silent = || {
        raw_target(|stream| async move {
            std::future::pending::<()>().await;
            drop(stream);
        })
    };
    let response = |config: &mut Config| config.dispatch.response_timeout_ms = 50;
    check(
        message(silent().await, "/x"),
        response,
        UNAVAILABLE,
        "timeout",
        "-",
    )
    .await;
    let attempt = |config: &mut Config| config.dispatch.attempt_timeout_ms = 50;
    check(
        message(silent().await, "/x"),
        attempt,
        UNAVAILABLE,
        "timeout",
        "-",
    )
    .await;
    // A handshake that never goes on is a connection that does not stand.
    let connect = |config: &mut Config| config.dispatch.connect_timeout_ms = 50;
    let mut tls = message(silent().await, "/x");
    tls["targetRestApi"] = json!(format!("https://{}/", silent().await));
    check(tls, connect, UNAVAILABLE, "timeout", "-").await;
    let mut no_tls = answering(200).await;
    let url = no_tls["targetRestApi"]
        .as_str()
        .unwrap()
        .replace("http:", "https:");
    no_tls["targetRestApi"] = json!(url);
    check(no_tls, |_| {}, UNAVAILABLE, "tls", "-").await;
}

#[tokio::test]
async fn the_head_of_a_response_decides_whatever_its_body_does() {
    let endless = |status: &'static str| {
        raw_target(move |mut stream: TcpStream| async move {
            read_head(&mut stream).await;
            let head = format!("HTTP/1.1 {status}\r\ntransfer-encoding: chunked\r\n\r\n");
            let mut sent = stream.write_all(head.as_bytes()).await;
            while sent.is_ok() {
                sent = stream.write_all(b"a\r\n0123456789\r\n").await;
            }
        })
    };
    let gateway = Harness::start(|config| config.dispatch.attempt_timeout_ms = 10_000).await;
    gateway
        .sync("", &message(endless("200 OK").await, "/x"))
        .await;
    gateway
        .sync("", &message(endless("500 No").await, "/x"))
        .await;
    let hanging = raw_target(|mut stream: TcpStream| async move {
        read_head(&mut stream).await;
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc";
        drop(stream.write_all(head).await);
        drop(stream.read(&mut [0; 8]).await);
    });
    let hanging = hanging.await;
    let counts = gateway.settled().await;
    assert_eq!((counts.delivered, counts.routed), (1, 1));
    let failed = gateway.record_at(INTERNAL, 0).await;
    assert_eq!(header(&failed, "cause-body").len(), 2048);
    gateway.stop().await;

    let gateway = Harness::start(|config| config.dispatch.attempt_timeout_ms = 100).await;
    gateway.sync("", &message(hanging, "/x")).await;
    assert_eq!(gateway.settled().await.delivered, 1);
}

#[tokio::test]
async fn addresses_that_must_not_be_called_are_blocked_without_a_call() {
    let to = |url: &str| {
        let mut message = message("127.0.0.1:1".parse().unwrap(), "/x");
        message["targetRestApi"] = json!(url);
        message
    };
    for url in [
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:a9fe:a9fe]/",
        "http://0.0.0.0:1/",
        "http://10.1.2.3/",
        "http://[fd00:ec2::254]/",
        &format!("http://{OWN_ADDRESS}/stream/sync"),
        "http://localhost:9002/",
        "http://0x7f000001:9002/",
    ] {
        check(to(url), |_| {}, DEFAULT, "blocked", "-").await;
    }
    let no_loopback = |config: &mut Config| config.dispatch.loopback_addresses = Some(false);
    check(answering(200).await, no_loopback, DEFAULT, "blocked", "-").await;
}

#[tokio::test]
async fn a_record_that_makes_no_call_is_invalid_and_the_next_one_goes_on() {
    let target = StubTarget::always(200).await;
    let mut wrong_header = message(target, "/x");
    wrong_header["targetRestApiHeaders"] = json!([{"key": "Host", "value": "SECRET"}]);
    let mut no_url = message(target, "/x");
    no_url["targetRestApi"] = json!("SECRET");
    for message in [json!({}), json!("SECRET"), wrong_header, no_url] {
        check(message, |_| {}, UNRECOVERABLE, "invalid", "-").await;
    }
    let gateway = Harness::start(|_| {}).await;
    let mut bytes = record("k", &json!(null), &[]);
    bytes.value = b"\xff{".as_slice().into();
    gateway.append(SOURCE, 0, vec![bytes]).await;
    gateway.sync("k", &message(target, "/x")).await;
    let counts = gateway.settled().await;
    assert_eq!((counts.delivered, counts.routed), (1, 1));
    let failed = gateway.record_at(UNRECOVERABLE, 0).await;
    assert_eq!(failed.record.value, b"\xff{".as_slice());
    assert_eq!(failed.record.key, "k");
}

#[tokio::test]
async fn a_panic_is_the_outcome_of_its_record_and_the_worker_lives_on() {
    let target = StubTarget::always(200).await;
    let gateway = Harness::start(|config| config.dispatch.in_flight_max = 1).await;
    let mut panics = message(target, "/x");
    panics["vaultSecretName"] = json!("panics");
    gateway.sync("k", &panics).await;
    gateway.sync("k", &message(target, "/x")).await;
    let counts = gateway.settled().await;
    assert_eq!((counts.delivered, counts.routed), (1, 1));
    let failed = gateway.record_at(DEFAULT, 0).await;
    assert_eq!(header(&failed, "cause-class"), "internal");
    gateway.stop().await;
}

#[tokio::test]
async fn an_error_record_holds_the_whole_cause_and_where_it_came_from() {
    let mut target = StubTarget::start().await;
    let gateway = Harness::start(|_| {}).await;
    let own = [
        ("source", "shop"),
        ("traceparent", "00-t"),
        ("x-future", "kept"),
    ];
    let sent = record("key ä", &message(target.address, "/x"), &own);
    gateway.append(SOURCE, 0, vec![sent.clone()]).await;
    let call = target.next_call().await;
    call.answer_with(418, &[], &"ü".repeat(2000));
    gateway.settled().await;
    let failed = gateway.record_at(DEFAULT, 0).await;
    assert_eq!(
        (&failed.record.key, &failed.record.value),
        (&sent.key, &sent.value)
    );
    let message_id = crate::log::Streams::message_id(
        &gateway.stream(SOURCE),
        crate::model::ids::Partition(0),
        crate::model::ids::Offset(0),
    )
    .to_string();
    let body = "ü".repeat(1024);
    let expected = [
        ("message-id", message_id.as_str()),
        ("source", "shop"),
        ("traceparent", "00-t"),
        ("x-future", "kept"),
        ("cause-class", "status"),
        ("cause-status", "418"),
        ("cause-reason", "the target answered 418 I'm a teapot"),
        ("cause-body", body.as_str()),
        ("attempts", "1"),
        ("retries", "0"),
        ("origin-stream", SOURCE),
        ("origin-partition", "0"),
        ("origin-offset", "0"),
    ];
    for (name, value) in expected {
        assert_eq!(header(&failed, name), value, "{name}");
    }
    for name in ["first-attempt-at", "last-attempt-at"] {
        assert!(Timestamp::parse(header(&failed, name)).is_some(), "{name}");
    }
    let counts = gateway.counts(DEFAULT);
    assert_eq!(counts.appended[AppendKind::Routed as usize], 1);
}

#[tokio::test]
async fn a_connection_that_the_target_closed_while_idle_costs_no_record() {
    // Each connection carries one exchange, then it is closed without a word.
    let (closed, mut is_closed) = tokio::sync::mpsc::channel(64);
    let target = raw_target(move |mut stream: TcpStream| {
        let closed = closed.clone();
        async move {
            read_head(&mut stream).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            drop(stream.write_all(answer).await);
            drop(stream);
            closed.send(()).await.unwrap();
        }
    })
    .await;
    let other = StubTarget::always(200).await;
    let gateway = Harness::start(|config| config.dispatch.in_flight_max = 1).await;
    let no_body =
        json!({"targetRestApi": format!("http://{target}/"), "targetRestApiOperation": "GET"});
    for at in 1..=20 {
        gateway.sync("k", &no_body).await;
        within("the connection to be closed", is_closed.recv()).await;
        // What happens on other sockets after it shows that the end of this one has arrived.
        gateway.sync("other", &message(other, "/x")).await;
        let counts = gateway.settled().await;
        assert_eq!(counts.delivered, 2 * at, "{counts:?}");
    }
}

#[tokio::test]
async fn an_error_stream_that_is_missing_is_stood_in_for_by_the_default_one() {
    let target = StubTarget::always(404).await;
    let missing = |config: &mut Config| {
        config
            .outcomes
            .insert("404".into(), "NotThereStream".into());
    };
    check(message(target, "/x"), missing, DEFAULT, "status", "404").await;
}
