//! `Idempotency-Key` of `POST /stream/sync`.

use super::*;
use crate::storage::conformance::{eventually, in_time};

const KEY: (&str, &str) = ("idempotency-key", "order-1");

impl Edge {
    async fn keyed(&self, headers: &[(&str, &str)], body: &str) -> Reply {
        self.send("POST", "/stream/sync", headers, body).await
    }
}

#[tokio::test]
async fn the_same_request_again_has_the_same_answer_in_the_form_that_it_asks_for() {
    let edge = Edge::plain().await;
    for (offset, body) in [(0, GOOD.to_owned()), (1, format!("[{GOOD},{GOOD}]"))] {
        let name = offset.to_string();
        let key = ("idempotency-key", &*name);
        let first = edge.keyed(&[key], &body).await;
        assert_eq!(first.status, 200, "{}", first.text());
        let again = edge.keyed(&[key], &body).await;
        assert_eq!((again.status, again.text()), (200, first.text()));
        assert_eq!(again.header("x-message-id"), first.header("x-message-id"));
        let text = edge.keyed(&[key, ("accept", "text/plain")], &body).await;
        assert_eq!((text.status, text.text()), (200, "success"));
        assert_eq!(text.header("x-message-id"), first.header("x-message-id"));
    }
    let metrics = edge.get("/metrics").await;
    for line in [
        "syncgate_accepted_messages_total 3\n",
        "syncgate_repeated_requests_total 4\n",
    ] {
        assert!(metrics.text().contains(line), "{}", metrics.text());
    }
    let other = edge.keyed(&[("idempotency-key", "0")], "{}").await;
    other.check_problem(422, "idempotency_mismatch");
    // Compressed, it is the same body.
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(GOOD.as_bytes()).unwrap();
    let headers = [("idempotency-key", "0"), ("content-encoding", "gzip")];
    let packed = gzip.finish().unwrap();
    let packed = edge.send("POST", "/stream/sync", &headers, packed).await;
    assert_eq!(packed.json()["offset"], 0);
}

#[tokio::test]
async fn an_invalid_key_is_refused_with_the_name_of_its_header() {
    let edge = Edge::plain().await;
    let long = "k".repeat(256);
    for bad in ["", "a b", "ä", "\u{1}", &long] {
        let answer = edge.keyed(&[("Idempotency-Key", bad)], GOOD).await;
        // hyper refuses an invalid header before the route.
        if bad == "\u{1}" {
            assert_eq!(answer.status, 400);
            continue;
        }
        let problem = answer.check_problem(400, "invalid_request");
        let detail = problem["detail"].as_str().unwrap();
        let rule = "header idempotency-key must be 1 to 255 visible ASCII";
        assert!(detail.starts_with(rule), "{detail}");
    }
    let twice = edge.keyed(&[KEY, KEY], GOOD).await;
    let problem = twice.check_problem(400, "invalid_request");
    let detail = "header idempotency-key is there more than once";
    assert_eq!(problem["detail"], detail);
    let own = "the mark of the master key, and the key of positions";
    assert_eq!(edge.engine.commits_len(), 2, "{own}");
}

#[tokio::test]
async fn while_a_request_has_no_answer_another_with_its_key_is_told_to_wait() {
    let edge = Edge::plain().await;
    edge.engine.hold(true);
    let mut connection = TcpStream::connect(edge.address).await.unwrap();
    let request = format!(
        "POST /stream/sync HTTP/1.1\r\nhost: localhost\r\nidempotency-key: order-1\r\ncontent-length: {}\r\n\r\n{GOOD}",
        GOOD.len()
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    eventually("the commit", || edge.engine.held_len() == 1).await;
    let refused = edge.keyed(&[KEY], GOOD).await;
    refused.check_problem(409, "idempotency_in_flight");
    assert_eq!(refused.header("retry-after"), "1");
    // A client that hangs up does not change that.
    drop(connection);
    let refused = edge.keyed(&[KEY], GOOD).await;
    refused.check_problem(409, "idempotency_in_flight");
    assert_eq!(edge.engine.held_len(), 1);
    edge.engine.hold(false);
    let of = edge.partition("DataSyncStream", 0);
    let mut tail = edge.engine.tail(of).unwrap();
    tail.wait_for(|tail| *tail == Offset(1)).await.unwrap();
    // The record is stored, and the request has no answer yet.
    let answered = async {
        loop {
            let answer = edge.keyed(&[KEY], GOOD).await;
            if answer.status != 409 {
                break answer;
            }
        }
    };
    let answer = in_time(answered).await;
    assert_eq!((answer.status, &answer.json()["offset"]), (200, &json!(0)));
    edge.stop.cancel();
    assert_eq!(edge.tasks.join(Duration::from_secs(10)).await, 0);
    assert_eq!(edge.engine.status(of).unwrap().bounds.tail, Offset(1));
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_free_its_key() {
    let edge = Edge::plain().await;
    edge.engine.hold(true);
    let waiting = edge.engine.held_len();
    let mut hung_up = TcpStream::connect(edge.address).await.unwrap();
    let request = format!(
        "POST /stream/sync HTTP/1.1\r\nhost: localhost\r\nidempotency-key: order-1\r\ncontent-length: {}\r\n\r\n{GOOD}",
        GOOD.len()
    );
    hung_up.write_all(request.as_bytes()).await.unwrap();
    eventually("the commit", || edge.engine.held_len() > waiting).await;
    drop(hung_up);
    let again = in_time(edge.keyed(&[KEY], GOOD)).await;
    again.check_problem(409, "idempotency_in_flight");
    edge.engine.hold(false);
    let again = in_time(async {
        loop {
            let again = edge.keyed(&[KEY], GOOD).await;
            if again.status != 409 {
                break again;
            }
        }
    });
    assert_eq!(again.await.json()["offset"], 0);
    assert!(
        edge.get("/metrics")
            .await
            .text()
            .contains("syncgate_repeated_requests_total 1\n")
    );
    assert_eq!(edge.engine.commits_len(), 3, "nothing is stored twice");
}
