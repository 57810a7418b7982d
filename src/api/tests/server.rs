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
