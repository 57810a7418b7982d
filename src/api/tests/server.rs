//! Connections: their bounds, their end.

use flate2::{Compression, write::GzEncoder};

use super::*;

#[tokio::test]
async fn a_stop_answers_what_is_under_way_and_refuses_what_comes_later() {
    let edge = Edge::plain().await;
    let mut open = TcpStream::connect(edge.address).await.unwrap();
    let head = format!(
        "POST /stream/sync HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
        GOOD.len()
    );
    open.write_all(head.as_bytes()).await.unwrap();
    let mut told = [0; 25];
    open.read_exact(&mut told).await.unwrap();
    assert!(
        told.starts_with(b"HTTP/1.1 100"),
        "the request is under way"
    );
    edge.stop.cancel();
    open.write_all(GOOD.as_bytes()).await.unwrap();
    let answer = Reply::read(&mut open).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(
        edge.tasks.join(Duration::from_secs(10)).await,
        0,
        "every connection ended"
    );
    assert!(TcpStream::connect(edge.address).await.is_err());
}

#[tokio::test]
async fn what_is_no_readable_request_gets_a_status_without_a_body() {
    let edge = Edge::plain().await;
    let with = |headers: &str| format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
    let cases = [
        (with(&"x: y\r\n".repeat(100)), 431),
        (with(&format!("x: {}\r\n", "y".repeat(64 << 10))), 431),
        (format!("GET /{}", "x".repeat(64 << 10)), 431),
        (with("no colon\r\n"), 400),
        (with("content-length: many\r\n"), 400),
        ("GET /healthz HTTP/9.9\r\n\r\n".into(), 400),
        ("what do you want?\r\n\r\n".into(), 400),
    ];
    for (request, status) in cases {
        let answer = edge.raw(&request).await;
        let shown = &request[..request.len().min(60)];
        assert_eq!((answer.status, answer.text()), (status, ""), "{shown}");
        assert_eq!(answer.header("connection"), "close", "{shown}");
    }
    let most = format!("connection: close\r\n{}", "x: y\r\n".repeat(98));
    assert_eq!(edge.raw(with(&most)).await.status, 200);
    let mut http2 = TcpStream::connect(edge.address).await.unwrap();
    http2
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    let mut said = Vec::new();
    let closed = http2.read_to_end(&mut said);
    let closed = tokio::time::timeout(Duration::from_secs(10), closed).await;
    drop(closed.expect("an end"));
    assert_eq!(said, b"");
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_their_turn() {
    let edge = Edge::start(|config| config.server.connections_max = 1).await;
    let mut first = TcpStream::connect(edge.address).await.unwrap();
    let ask = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    first.write_all(ask).await.unwrap();
    let mut byte = [0];
    first.read_exact(&mut byte).await.unwrap();
    let mut second = TcpStream::connect(edge.address).await.unwrap();
    second.write_all(ask).await.unwrap();
    let early =
        tokio::time::timeout(Duration::from_millis(100), second.read_exact(&mut byte)).await;
    assert!(early.is_err(), "the second was served beside the first");
    drop(first);
    second.read_exact(&mut byte).await.unwrap();
}

#[tokio::test]
async fn a_sender_that_stops_in_the_middle_is_told_or_cut_off() {
    let edge = Edge::start(|config| config.server.request_timeout_ms = 100).await;
    let half = "POST /stream/sync HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\nconnection: close\r\n\r\n{";
    edge.raw(half).await.check_problem(408, "invalid_request");
    let mut idle = TcpStream::connect(edge.address).await.unwrap();
    idle.write_all(b"POST /stream/sync HT").await.unwrap();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(10), idle.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "half a head holds a connection for ever");
}

#[tokio::test]
async fn a_sender_that_has_said_all_may_close_its_direction_and_still_reads_the_answer() {
    let edge = Edge::plain().await;
    let mut open = TcpStream::connect(edge.address).await.unwrap();
    // Unpacking it takes longer than the end of the sender takes to arrive.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&[b' '; 4 << 20]).unwrap();
    encoder.write_all(GOOD.as_bytes()).unwrap();
    let body = encoder.finish().unwrap();
    let head = format!(
        "POST /stream/sync HTTP/1.1\r\nhost: localhost\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    open.write_all(&[head.as_bytes(), &body].concat())
        .await
        .unwrap();
    open.shutdown().await.unwrap();
    assert_eq!(Reply::read(&mut open).await.status, 200);
}

#[tokio::test]
async fn a_body_that_is_announced_too_large_is_refused_though_it_never_comes() {
    let edge = Edge::plain().await;
    for more in ["", "expect: 100-continue\r\n"] {
        let head = format!(
            "POST /stream/sync HTTP/1.1\r\nhost: localhost\r\n{more}content-length: 8388609\r\n\r\n"
        );
        edge.raw(head).await.check_problem(413, "body_too_large");
    }
}
