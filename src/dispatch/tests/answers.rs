//! Answers in every form that HTTP/1.1 allows, and in some that it does not.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    harness::{Harness, INTERNAL, header, message},
    stub::{Raw, raw_target},
};

/// Starts a target that answers each request with these bytes and keeps its connections open; counts them.
async fn saying(
    answer: impl AsRef<[u8]> + Send + Sync + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let connections = Arc::new(AtomicUsize::new(0));
    let (counted, answer) = (connections.clone(), Arc::new(answer));
    let target = raw_target(move |stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        let answer = answer.clone();
        async move {
            let mut raw = Raw::new(stream);
            while raw.request().await.is_some() {
                raw.say(answer.as_ref().as_ref()).await;
            }
        }
    });
    (target.await, connections)
}

#[tokio::test]
async fn an_answer_whose_end_is_known_keeps_its_connection() {
    for (answer, delivered) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", true),
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", true),
        ("HTTP/1.1 204 No Content\r\n\r\n", true),
        ("HTTP/1.1 304 Not Modified\r\netag: \"a\"\r\n\r\n", false),
        (
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 500\r\n\r\n",
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            true,
        ),
        (
            "HTTP/1.1 500 No\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n2\r\nno\r\n3;a=b\r\nyes\r\n0\r\n\r\n",
            false,
        ),
        (
            "HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-a\r\n\r\n2\r\nok\r\n0\r\nx-a: 1\r\nx-b: 2\r\n\r\n",
            true,
        ),
        (
            "HTTP/1.1 103 Early Checkpoints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            true,
        ),
    ] {
        let (target, connections) = saying(answer).await;
        let gateway = Harness::start(|config| config.dispatch.in_flight_max = 1).await;
        for at in 1..=4 {
            gateway.sync("k", &message(target, "/x")).await;
            let counts = gateway.settled().await;
            let ended = if delivered {
                counts.delivered
            } else {
                counts.routed
            };
            assert_eq!(ended, at, "{answer}: {counts:?}");
        }
        assert_eq!(connections.load(Ordering::SeqCst), 1, "{answer}");
        gateway.stop().await;
    }
}

#[tokio::test]
async fn an_answer_without_a_length_ends_its_call_though_its_connection_stays_open() {
    let endless = [&b"HTTP/1.1 200 OK\r\n\r\n"[..], &[b'x'; 200_000]].concat();
    for (answer, delivered) in [
        (b"HTTP/1.1 200 OK\r\n\r\nok".to_vec(), true),
        (b"HTTP/1.0 200 OK\r\n\r\n".to_vec(), true),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nok".to_vec(),
            true,
        ),
        (b"HTTP/1.1 500 No\r\n\r\nthe reason".to_vec(), false),
        (endless, true),
    ] {
        let (target, connections) = saying(answer).await;
        // A wait for the end of the body would outlast the test.
        let gateway = Harness::start(|_| {}).await;
        for _ in 0..2 {
            gateway.sync("k", &message(target, "/x")).await;
        }
        let counts = gateway.settled().await;
        let expected = if delivered { (2, 0) } else { (0, 2) };
        assert_eq!((counts.delivered, counts.routed), expected);
        assert_eq!(connections.load(Ordering::SeqCst), 2);
        if !delivered {
            let failed = gateway.record_at(INTERNAL, 0).await;
            assert_eq!(header(&failed, "cause-body"), "the reason");
        }
        gateway.stop().await;
    }
}

#[tokio::test]
async fn malformed_header_lines_are_taken_as_browsers_take_them() {
    for line in [
        "no colon here",
        "x-a : blank before the colon",
        "x-a: folded\r\n over\r\n\ttwo lines",
        "x a: blank in the name",
        "(x): no name",
        ": no name",
        "x-a: \u{fc} and \u{7f}",
        "",
    ] {
        for (status, body) in [
            (200, "content-length: 2\r\n\r\nok"),
            (500, "content-length : 2\r\n\r\nok"),
        ] {
            let line = if line.is_empty() {
                String::new()
            } else {
                format!("{line}\r\n")
            };
            let answer = format!("HTTP/1.1 {status} So\r\nserver: x\r\n{line}{body}");
            let (target, connections) = saying(answer.clone()).await;
            let gateway = Harness::start(|_| {}).await;
            for _ in 0..2 {
                gateway.sync("k", &message(target, "/x")).await;
            }
            let counts = gateway.settled().await;
            let ended = if status == 200 {
                counts.delivered
            } else {
                counts.routed
            };
            assert_eq!(ended, 2, "{answer}: {counts:?}");
            if status == 500 {
                let failed = gateway.record_at(INTERNAL, 0).await;
                assert_eq!(header(&failed, "cause-body"), "ok", "{answer}");
            }
            assert_eq!(connections.load(Ordering::SeqCst), 1, "{answer}");
            gateway.stop().await;
        }
    }
}
