//! A client that goes away ends its retry, and while a retry runs others are told whose it is.

use serde_json::{Value, json};
use syncgate::runtime::clock::{Clock, Timestamp};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::UNAVAILABLE;
use crate::testkit::{Act, Gateway, Place, StubTarget, keyed, poll, within};

const LEN: usize = 6;

/// A gateway that makes one call of a retry at a time, with records whose target holds its calls from now on.
pub async fn held() -> (Gateway, StubTarget) {
    let target = StubTarget::with(|_| Act::status(503)).await;
    let place = Place::with_config("[retry]\nin_flight_max = 1\n");
    let gateway = place.env("SYNCGATE_LOGGING__LEVEL", "debug").start();
    for n in 0..LEN {
        let key = format!("k{n}");
        gateway
            .sync(&keyed(&key, &target.url("/x"), json!({ "n": n })))
            .await;
    }
    gateway.record(UNAVAILABLE, LEN).await;
    target.now(|_| Act::Hold);
    (gateway, target)
}

fn body() -> Value {
    json!({ "streamOCIDToRetry": UNAVAILABLE, "noOfMessagesToProcess": 100, "readAfterOffset": -1, "readPartition": "0" })
}

/// Lets the call go that is held, once the gateway has seen that the client is gone: no other call may follow. The next
/// retry gets the rest.
pub async fn check_only_one_was_called(gateway: &Gateway, target: &StubTarget) {
    poll("the gateway to see it", async || {
        let log = gateway.place().log();
        log.contains("the client has hung up").then_some(())
    })
    .await;
    target.release(1);
    target.now(|_| Act::status(200));
    let report = poll("the pass to end", async || {
        let answer = gateway.post("/stream/retry", &body()).await;
        (answer.status != 409).then(|| answer.ok())
    })
    .await;
    let counts = ["processedmessages", "failedMessages", "skipped"].map(|name| &report[name]);
    assert_eq!(counts, [&json!(LEN - 1), &json!(0), &json!(1)], "{report}");
    assert_eq!(target.calls().len(), LEN + LEN);
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_its_retry_after_the_calls_in_flight() {
    // Some clients send a line's end behind a body, others their next request.
    for ahead in ["", "\r\n", "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"] {
        for closes_half in [false, true] {
            let (gateway, target) = held().await;
            let host = gateway.url.strip_prefix("http://").unwrap();
            let mut client = TcpStream::connect(host).await.unwrap();
            let body = body().to_string();
            let request = format!(
                "POST /stream/retry HTTP/1.1\r\nhost: {host}\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            client.write_all(request.as_bytes()).await.unwrap();
            target.wait_for_calls(LEN + 1).await;
            // What comes with the request is read with it, and would hide nothing.
            client.write_all(ahead.as_bytes()).await.unwrap();
            if closes_half {
                client.shutdown().await.unwrap();
                let mut answer = Vec::new();
                let read = within("the end of the connection", client.read_to_end(&mut answer));
                // What it has sent ahead is not read, which may reset the connection.
                let ended = read.await;
                assert!(ended.is_ok() || !ahead.is_empty(), "{ahead:?}: {ended:?}");
                assert!(answer.is_empty(), "{ahead:?}: {answer:?}");
            } else {
                drop(client);
            }
            check_only_one_was_called(&gateway, &target).await;
        }
    }
}

/// The bytes that a client sends ahead are not lost, and do not end its retry.
#[tokio::test]
async fn a_request_that_is_sent_ahead_of_the_answer_to_a_retry_is_answered_behind_it() {
    let (gateway, target) = held().await;
    let host = gateway.url.strip_prefix("http://").unwrap();
    let mut client = TcpStream::connect(host).await.unwrap();
    let mut body = body();
    body["noOfMessagesToProcess"] = 1.into();
    let body = body.to_string();
    let request = format!(
        "POST /stream/retry HTTP/1.1\r\nhost: {host}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    client.write_all(request.as_bytes()).await.unwrap();
    target.wait_for_calls(LEN + 1).await;
    let next = format!("GET /healthz HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    client.write_all(next.as_bytes()).await.unwrap();
    target.release(1);
    let mut answers = String::new();
    let read = within("two answers", client.read_to_string(&mut answers));
    read.await.unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
    assert!(answers.contains("\"processedmessages\":1"), "{answers}");
}

#[tokio::test]
async fn a_retry_that_runs_is_told_with_its_user_and_its_time() {
    let (user, password) = ("alice", "a long password of alice");
    for named in [false, true] {
        let mut place = Place::new();
        if named {
            place = place
                .env("SYNCGATE_ADMIN_USER", user)
                .env("SYNCGATE_ADMIN_PASSWORD", password);
        }
        let gateway = place.start();
        let target = StubTarget::with(|_| Act::status(503)).await;
        gateway.sync(&keyed("k", &target.url("/x"), json!(1))).await;
        target.next_call().await;
        let retry = |records_max: u64| {
            let mut body = body();
            body["noOfMessagesToProcess"] = records_max.into();
            let request = gateway.request(reqwest::Method::POST, "/stream/retry");
            gateway.send(request.basic_auth(user, Some(password)).json(&body))
        };
        target.now(|_| Act::Hold);
        let before = Clock::system().now();
        // The record comes a little later than its call.
        let first = poll("a record to retry", async || {
            let report = retry(100).await.ok();
            (report["attempted"] != 0).then_some(report)
        });
        let (first, ()) = tokio::join!(first, async {
            target.wait_for_calls(2).await;
            let problem = retry(1).await.problem(409, "retry_running");
            let since = Timestamp::parse(problem["since"].as_str().unwrap()).unwrap();
            assert!(
                before <= since && since <= Clock::system().now(),
                "{problem}"
            );
            let by = problem["by"].as_str().unwrap();
            match named {
                true => assert_eq!(by, user),
                false => assert!(by.starts_with("127.0.0.1:"), "{by}"),
            }
            let detail = problem["detail"].as_str().unwrap();
            let told = format!(
                "a retry of {UNAVAILABLE}, partition 0, is running, by {by}; its present call began at {}; send the request again",
                problem["since"].as_str().unwrap()
            );
            assert!(detail.starts_with(&told), "{detail}");
            target.release(1);
        });
        assert_eq!(first["processedmessages"], 1, "{first}");
    }
}
