//! Connections that the target ends while a call is on its way.
//!
//! Each target here ends the connection only once it has seen a part of the request: so close and request are in the
//! socket at the same time, whatever the machine does.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use serde_json::json;

use super::{
    harness::{Harness, INTERNAL, UNAVAILABLE, header, message},
    stub::{Raw, raw_target, value},
};

const GOOD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// How a target ends a connection at its second request.
#[derive(Clone, Copy, Debug)]
enum End {
    /// Reads the request and closes.
    Close,
    /// Reads the request and resets.
    Reset,
    /// Reads the beginning of the request and resets.
    ResetWithin,
    /// Says that it waited too long for a request, and closes.
    TooLate,
}

/// Idempotency keys of the requests that a target has read.
type Keys = Arc<Mutex<Vec<String>>>;

/// Starts a target that answers the first request of each connection with the next of `answers` and the last of them for
/// ever after, and ends the connection at the second one.
async fn ending_target(end: End, answers: &'static [&'static str]) -> (SocketAddr, Keys) {
    let keys = Keys::default();
    let (noted, connections) = (keys.clone(), Mutex::new(0));
    let target = raw_target(move |stream| {
        let mut count = connections.lock().unwrap();
        let answer = answers[usize::min(*count, answers.len() - 1)];
        *count += 1;
        let noted = noted.clone();
        let note = move |head: &str| {
            let key = value(head, "idempotency-key").unwrap();
            noted.lock().unwrap().push(key.to_owned());
        };
        async move {
            let mut raw = Raw::new(stream);
            let Some(head) = raw.request().await else {
                return;
            };
            note(&head);
            raw.say(answer).await;
            if let End::ResetWithin = end {
                raw.more().await;
                return raw.reset();
            }
            let Some(head) = raw.request().await else {
                return;
            };
            note(&head);
            match end {
                End::Close | End::ResetWithin => {}
                End::Reset => raw.reset(),
                End::TooLate => {
                    raw.say("HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
                        .await;
                }
            }
        }
    });
    (target.await, keys)
}

#[tokio::test]
async fn a_reused_connection_that_ends_before_an_answer_costs_no_record() {
    for end in [End::Close, End::Reset, End::ResetWithin, End::TooLate] {
        let (target, keys) = ending_target(end, &[GOOD]).await;
        let gateway = Harness::start(|config| config.dispatch.in_flight_max = 1).await;
        for at in 1..=6 {
            gateway.sync("k", &message(target, "/x")).await;
            let counts = gateway.settled().await;
            assert_eq!(counts.delivered, at, "{end:?}: {counts:?}");
        }
        let mut keys = keys.lock().unwrap().clone();
        if let End::ResetWithin = end {
            assert_eq!(keys.len(), 6, "{end:?}");
        } else {
            // Each but the first was read twice, and was the same call both times.
            assert_eq!(keys.len(), 11, "{end:?}");
            assert!(keys[1..].chunks(2).all(|twice| twice[0] == twice[1]));
        }
        keys.dedup();
        assert_eq!(keys.len(), 6, "{end:?}");
        gateway.stop().await;
    }
}

#[tokio::test]
async fn a_call_that_a_reused_connection_has_lost_is_no_attempt() {
    let no = "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n";
    let (target, keys) = ending_target(End::Close, Box::leak(Box::new([GOOD, no]))).await;
    let gateway = Harness::start(|config| config.dispatch.in_flight_max = 1).await;
    for _ in 0..2 {
        gateway.sync("k", &message(target, "/x")).await;
        gateway.settled().await;
    }
    let failed = gateway.record_at(INTERNAL, 0).await;
    assert_eq!(header(&failed, "attempts"), "1");
    assert_eq!(keys.lock().unwrap().len(), 3);
    assert!(!gateway.dispatcher.targets()[0].is_closed);
}

#[tokio::test]
async fn an_answer_that_has_begun_is_not_asked_for_again() {
    for text in ["HTTP/1.1 20", "HTTP/1.1 100 Continue\r\n\r\n"] {
        let requests = Arc::new(Mutex::new(0));
        let counted = requests.clone();
        let target = raw_target(move |stream| {
            let counted = counted.clone();
            async move {
                let mut raw = Raw::new(stream);
                for text in [GOOD, text] {
                    if raw.request().await.is_some() {
                        *counted.lock().unwrap() += 1;
                        raw.say(text).await;
                    }
                }
            }
        });
        let target = target.await;
        let gateway = Harness::start(|config| config.dispatch.in_flight_max = 1).await;
        for _ in 0..2 {
            gateway.sync("k", &message(target, "/x")).await;
            gateway.settled().await;
        }
        let failed = gateway.record_at(UNAVAILABLE, 0).await;
        assert_eq!(header(&failed, "cause-class"), "reset", "{text:?}");
        assert_eq!(*requests.lock().unwrap(), 2, "{text:?}");
        gateway.stop().await;
    }
}

#[tokio::test]
async fn a_fresh_connection_that_ends_is_a_failure_also_behind_a_reused_one() {
    // The first connection carries one call, all later ones none.
    let connections = Mutex::new(0);
    let target = raw_target(move |stream| {
        let mut count = connections.lock().unwrap();
        *count += 1;
        let answers = usize::from(*count == 1);
        async move {
            let mut raw = Raw::new(stream);
            for _ in 0..answers {
                raw.request().await;
                raw.say(GOOD).await;
            }
            raw.request().await;
        }
    });
    let target = target.await;
    let gateway = Harness::start(|config| config.dispatch.in_flight_max = 1).await;
    for _ in 0..2 {
        gateway.sync("k", &message(target, "/x")).await;
        gateway.settled().await;
    }
    let failed = gateway.record_at(UNAVAILABLE, 0).await;
    assert_eq!(header(&failed, "cause-class"), "reset");
    assert_eq!(header(&failed, "attempts"), "1");
}

#[tokio::test]
async fn a_target_that_answers_and_does_not_read_on_keeps_nobody_waiting() {
    // More than the sockets hold: the rest of it is never read.
    let payload = "x".repeat(6 << 20);
    let connections = Arc::new(Mutex::new(Vec::new()));
    let kept = connections.clone();
    let target = raw_target(move |stream| {
        let kept = kept.clone();
        async move {
            let mut raw = Raw::new(stream);
            raw.more().await;
            raw.say("HTTP/1.1 413 Too large\r\ncontent-length: 0\r\n\r\n")
                .await;
            kept.lock().unwrap().push(raw);
        }
    });
    let target = target.await;
    let gateway = Harness::start(|config| config.dispatch.in_flight_max = 1).await;
    let mut large = message(target, "/x");
    large["targetRestApiPayload"] = json!(payload);
    gateway.sync("k", &large).await;
    gateway.sync("k", &message(target, "/x")).await;
    let counts = gateway.settled().await;
    assert_eq!(counts.routed, 2);
    assert_eq!(connections.lock().unwrap().len(), 2);
}
