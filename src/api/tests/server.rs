//! Connections: their bounds and their end.

use flate2::{Compression, write::GzEncoder};

use super::*;

#[tokio::test]
async fn a_stop_answers_requests_under_way_and_refuses_later_ones() {
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
async fn a_malformed_request_gets_a_status_without_a_body() {
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
    first.write_all(HEALTH).await.unwrap();
    is_served(&mut first).await;
    let mut second = TcpStream::connect(edge.address).await.unwrap();
    second.write_all(HEALTH).await.unwrap();
    waits(&second, &mut first).await;
    drop(first);
    is_served(&mut second).await;
}

#[tokio::test]
async fn a_client_that_stops_in_the_middle_gets_408_or_is_disconnected() {
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
async fn a_client_may_close_its_sending_half_and_still_read_the_answer() {
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

#[tokio::test]
async fn transfer_codings_but_one_chunked_are_not_known() {
    let edge = Edge::plain().await;
    let send = |codings: &str| {
        let mut request =
            b"POST /stream/sync HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n".to_vec();
        request.extend_from_slice(codings.as_bytes());
        let len = format!("\r\n{:x}\r\n{GOOD}\r\n0\r\n\r\n", GOOD.len());
        request.extend_from_slice(len.as_bytes());
        edge.raw(request)
    };
    for known in [
        "transfer-encoding: chunked\r\n",
        "Transfer-Encoding: CHUNKED \r\n",
    ] {
        assert_eq!(send(known).await.status, 200, "{known}");
    }
    for unknown in [
        "transfer-encoding: gzip, chunked\r\n",
        "transfer-encoding: chunked, chunked\r\n",
        "transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: identity, chunked\r\n",
    ] {
        let answer = send(unknown).await;
        let problem = answer.check_problem(501, "not_implemented");
        assert!(
            problem["detail"]
                .as_str()
                .unwrap()
                .contains("Content-Encoding")
        );
    }
    // If the last coding is not chunked, the end of the body is unknown (RFC 9112 §6.3).
    assert_eq!(send("transfer-encoding: gzip\r\n").await.status, 400);
}

#[tokio::test]
async fn a_content_length_of_64_bits_is_400_and_not_431() {
    let edge = Edge::plain().await;
    for (length, status) in [
        ("8388609", 413),
        ("9223372036854775807", 413),
        ("9223372036854775808", 413),
        ("18446744073709551613", 413),
        ("18446744073709551614", 400),
        ("18446744073709551615", 400),
        ("18446744073709551616", 400),
        ("99999999999999999999999", 400),
        ("-1", 400),
        ("1, 2", 400),
    ] {
        let answer = edge.raw(format!(
            "POST /stream/sync HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{GOOD}"
        ));
        let answer = answer.await;
        assert_eq!(answer.status, status, "{length}");
    }
}

#[tokio::test]
async fn a_client_that_reads_late_still_gets_its_refusal() {
    let edge = Edge::plain().await;
    let body = vec![b' '; 8 << 20];
    for (headers, status) in [
        ("origin: https://evil.example\r\n", 403),
        ("host: evil.example\r\n", 400),
        ("content-type: multipart/form-data\r\n", 415),
        ("content-encoding: br\r\n", 415),
    ] {
        let mut open = TcpStream::connect(edge.address).await.unwrap();
        let head = format!(
            "POST /stream/sync HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: {}\r\n\r\n",
            body.len()
        );
        open.write_all(head.as_bytes()).await.unwrap();
        open.write_all(&body)
            .await
            .expect("the whole body is taken");
        assert_eq!(Reply::read(&mut open).await.status, status, "{headers}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_of_a_page_may_take_nothing_for_ten_seconds_and_one_of_events_for_thirty() {
    let edge = Edge::plain().await;
    let trail = edge.post("/services/v2/stream/s1", r#"{"source":{"trail":"a1"}}"#);
    assert_eq!(trail.await.status, 201);
    // More bytes than the kernel buffers for a client.
    let large = GOOD.replace("18jan", &"x".repeat(700 << 10));
    for _ in 0..16 {
        assert_eq!(edge.sync(&large).await.status, 200);
    }
    for (path, headers, secs) in [
        ("/v1/streams/DataSyncStream/partitions/0/records", "", 10),
        (
            "/services/v2/stream/s1?begin=earliest",
            "accept: text/event-stream\r\n",
            30,
        ),
    ] {
        let mut open = edge.open(path, headers).await;
        let mut said = [0; 12];
        open.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"HTTP/1.1 200", "{path}");
        let reset = async {
            while open.take_error().unwrap().is_none() {
                tokio::task::yield_now().await;
            }
        };
        let ((), took) = while_seconds_pass(reset).await;
        // The kernel may buffer more later, which restarts the clock.
        let patience = Duration::from_secs(secs);
        assert!((patience..patience * 3 / 2).contains(&took), "{took:?}");
    }
}
