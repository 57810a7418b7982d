//! Strangers at the door: what they send, or do not read, costs the others nothing.

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::testkit::{Gateway, Place, keyed, poll, within};

const PAGE: &str = "/v1/streams/DataSyncStream/partitions/0/records?limit=1000";
const HEAD_BYTES_MAX: usize = 4 << 10;

fn address(gateway: &Gateway) -> &str {
    gateway.url.strip_prefix("http://").unwrap()
}

/// Asks for something on a connection that has hardly any room for the answer, and reads the head of it.
pub async fn slow_reader(gateway: &Gateway, path: &str) -> TcpStream {
    let (stream, head) = slow_answer(gateway, path).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    stream
}

async fn slow_answer(gateway: &Gateway, path: &str) -> (TcpStream, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let at = address(gateway);
    let mut stream = socket.connect(at.parse().unwrap()).await.unwrap();
    let ask = format!("GET {path} HTTP/1.1\r\nhost: {at}\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within("a head", stream.read_u8()).await.unwrap());
        assert!(head.len() < HEAD_BYTES_MAX);
    }
    (stream, String::from_utf8(head).unwrap())
}

/// Reads an answer to its end: status, head and body.
async fn answer(stream: &mut TcpStream) -> (u16, String) {
    let mut said = Vec::new();
    within("an answer", stream.read_to_end(&mut said))
        .await
        .unwrap();
    let said = String::from_utf8(said).unwrap();
    let status = said
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("{said}")), said)
}

/// Memory of the gateway's own, in bytes.
fn memory(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib: u64 = line
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    kib << 10
}

#[tokio::test]
async fn answers_that_nobody_reads_are_bounded_and_their_clients_dropped() {
    let gateway = Gateway::start();
    for n in 0..8 {
        let payload = Value::from("x".repeat(700 << 10));
        gateway
            .sync(&keyed(&n.to_string(), "http://127.0.0.1:9/x", payload))
            .await;
    }
    let before = memory(&gateway);
    let (mut held, mut refused) = (Vec::new(), 0);
    for _ in 0..300 {
        let (stream, head) = slow_answer(&gateway, PAGE).await;
        match head.split(' ').nth(1) {
            Some("200") => held.push(stream),
            Some("503") => {
                assert!(
                    head.to_lowercase().contains("\r\nretry-after: 5\r\n"),
                    "{head}"
                );
                refused += 1;
            }
            _ => panic!("{head}"),
        }
    }
    let grown = memory(&gateway).saturating_sub(before) >> 20;
    assert!(grown < 200, "{} pages take {grown} MiB", held.len());
    assert!(held.len() > 20 && refused > 100, "{}", held.len());
    gateway.get(PAGE).await.problem(503, "queue_full");
    // What has little to say is answered all the while.
    gateway.get("/readyz").await.ok();
    gateway
        .sync(&keyed("k", "http://127.0.0.1:9/x", json!(1)))
        .await;
    let batch: Vec<_> = (0..1_000)
        .map(|n| {
            keyed(
                &n.to_string(),
                "http://127.0.0.1:9/x",
                json!("y".repeat(1_000)),
            )
        })
        .collect();
    gateway.sync_all(&batch).await;
    // A full window is probed and the probes are answered, so the system alone would keep them.
    for stream in held {
        poll("a reset", async || stream.take_error().unwrap()).await;
    }
    gateway.get(PAGE).await.ok();
}

#[tokio::test]
async fn a_slow_reader_gets_all_of_its_page_and_an_idle_connection_stays() {
    let gateway = Gateway::start();
    for n in 0..3 {
        let payload = Value::from("x".repeat(700 << 10));
        gateway
            .sync(&keyed(&n.to_string(), "http://127.0.0.1:9/x", payload))
            .await;
    }
    let ask = format!(
        "GET /healthz HTTP/1.1\r\nhost: {}\r\n\r\n",
        address(&gateway)
    );
    let mut idle = TcpStream::connect(address(&gateway)).await.unwrap();
    let healthy = async |idle: &mut TcpStream| {
        idle.write_all(ask.as_bytes()).await.unwrap();
        let mut said = [0; 12];
        within("an answer", idle.read_exact(&mut said))
            .await
            .unwrap();
        assert_eq!(&said, b"HTTP/1.1 200");
        let mut some = [0; 1 << 10];
        assert!(idle.read(&mut some).await.unwrap() > 0);
    };
    healthy(&mut idle).await;
    let mut slow = slow_reader(&gateway, PAGE).await;
    let mut page = Vec::new();
    for _ in 0..4 {
        healthy(&mut idle).await;
        let mut some = vec![0; 100 << 10];
        within("more", slow.read_exact(&mut some)).await.unwrap();
        page.extend(some);
    }
    while !page.ends_with(b"\r\n0\r\n\r\n") {
        let mut some = vec![0; 64 << 10];
        let len = within("the rest", slow.read(&mut some)).await.unwrap();
        assert!(len > 0, "{} bytes", page.len());
        page.extend_from_slice(&some[..len]);
    }
    healthy(&mut idle).await;
}

const LARGE_BYTES: usize = 8 << 20;
const SMALL_BYTES: usize = 64 << 10;

/// Sends a request for a body of that size, and so much of it.
async fn begin(gateway: &Gateway, bytes: usize, sent_bytes: usize) -> TcpStream {
    let at = address(gateway);
    let mut stream = TcpStream::connect(at).await.unwrap();
    let head = format!(
        "POST /stream/sync HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\ncontent-length: {bytes}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // It may be refused meanwhile.
    let _sent = stream.write_all(&vec![b' '; sent_bytes]).await;
    stream
}

/// Sends a little more of each body, so that none is given up as too slow in the next seconds.
async fn drip(slow: &mut [TcpStream]) {
    for stream in slow {
        let _refused = stream.write_all(&[b' '; 8 << 10]).await;
    }
}

#[tokio::test]
async fn slow_senders_leave_space_for_small_bodies_and_these_leave_some_for_users() {
    let gateway = Gateway::with_config("[server]\nrequest_timeout_ms = 300000\n");
    let begun = Instant::now();
    let blanks = async |bytes: usize| {
        let request = gateway.request(Method::POST, "/stream/sync");
        gateway.send(request.body(" ".repeat(bytes))).await
    };
    let mut slow = Vec::new();
    let is_full = async || {
        slow.push(begin(&gateway, LARGE_BYTES, LARGE_BYTES * 3 / 4).await);
        drip(&mut slow).await;
        // Again and again, because bodies that are still on their way may be refused and leave space.
        for _ in 0..20 {
            if blanks(SMALL_BYTES + 1).await.status != 503 {
                return None;
            }
        }
        Some(())
    };
    poll("the space for large bodies to be full", is_full).await;
    // They go on for as long as the test takes, and however long that is.
    let _dripping = tokio::spawn(async move {
        loop {
            drip(&mut slow).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    // A client that sends all before it reads still reads why it was refused.
    let mut refused = begin(&gateway, LARGE_BYTES, LARGE_BYTES).await;
    let (status, said) = answer(&mut refused).await;
    assert_eq!(status, 503, "{said}");
    let head = said.to_lowercase();
    assert!(head.contains("\r\nretry-after: 1\r\n"), "{said}");
    assert!(said.contains("queue_full"), "{said}");
    for n in 0..50 {
        gateway
            .sync(&keyed(&n.to_string(), "http://127.0.0.1:9/x", json!(n)))
            .await;
    }
    let name = json!({"name": "Orders"});
    gateway.post("/v1/streams", &name).await.ok();
    for _ in 0..100 {
        blanks(SMALL_BYTES + 1).await.problem(503, "queue_full");
    }
    let mut small = Vec::new();
    let is_full = async || {
        for _ in 0..32 {
            small.push(begin(&gateway, SMALL_BYTES, SMALL_BYTES * 3 / 4).await);
        }
        (blanks(SMALL_BYTES).await.status == 503).then_some(())
    };
    poll("the space for small bodies to be full", is_full).await;
    // As large as one of those that were refused.
    let named = json!({"name": "Payments"}).to_string();
    let blank = " ".repeat(SMALL_BYTES - named.len());
    let request = gateway.request(Method::POST, "/v1/streams");
    gateway.send(request.body(named + &blank)).await.ok();
    let log = gateway.place().log();
    let lines = log.lines().filter(|line| line.contains("request refused"));
    let lines = lines.filter(|line| line.contains("queue_full")).count() as u64;
    let intervals = begun.elapsed().as_secs() / 10 + 2;
    assert!((1..=intervals).contains(&lines), "{lines} lines: {log}");
}

#[tokio::test]
async fn a_body_that_hardly_comes_is_given_up_after_five_seconds() {
    let gateway = Gateway::with_config("[server]\nrequest_timeout_ms = 3600000\n");
    for sent_bytes in [0, 1, 7 << 20] {
        let mut stream = begin(&gateway, LARGE_BYTES, sent_bytes).await;
        let (status, said) = answer(&mut stream).await;
        assert_eq!(status, 408, "{said}");
        assert!(said.contains("less than 1 KiB a second"), "{said}");
    }
}

#[tokio::test]
async fn a_large_body_leaves_the_only_serving_thread_to_others() {
    let gateway = Place::new().env("TOKIO_WORKER_THREADS", "1").start();
    // Many small members in few bytes; the last message is wrong, so that nothing is stored.
    let message = |operation: &str| {
        let payload = format!("[{}1]", "1,".repeat(4_000));
        format!(
            r#"{{"streamMessage":{{"targetRestApi":"http://127.0.0.1:9/x","targetRestApiOperation":"{operation}","targetRestApiPayload":{payload}}}}}"#
        )
    };
    let lines = [vec![message("POST"); 999], vec![message("post")]].concat();
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(lines.join("\n").as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    assert!(packed.len() < 64 << 10);
    // Of the time that the answer takes, the longest part in which nobody else was served.
    let share = async || {
        let request = gateway.request(Method::POST, "/stream/sync");
        let request = request
            .header("content-type", "application/x-ndjson")
            .header("content-encoding", "gzip");
        let (begun, mut served, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
        let others = async {
            loop {
                gateway.get("/healthz").await.ok();
                longest = longest.max(served.elapsed());
                served = Instant::now();
            }
        };
        tokio::select! {
            answer = gateway.send(request.body(packed.clone())) => {
                answer.problem(400, "invalid_message");
            }
            () = others => unreachable!("it never ends"),
        }
        longest = longest.max(served.elapsed());
        longest.as_secs_f64() / begun.elapsed().as_secs_f64()
    };
    // A busy machine may keep others waiting now and then, but not each time for so long.
    let prompt = async || (share().await < 0.3).then_some(());
    poll("others to be served while a body is read", prompt).await;
}

#[tokio::test]
async fn a_foreign_page_takes_no_cursor_from_its_client() {
    let place = Place::with_config("[server]\ncors_origins = [\"https://console.example\"]\n");
    let gateway = place.start();
    let stream = "/services/v2/stream/s1";
    let config = json!({"source": {"trail": "a1"}});
    gateway.post(stream, &config).await.ok();
    let reads = |name: &'static str, value: &'static str| {
        let path = format!("{stream}?cursor=mine&takeover=true");
        let request = gateway.request(Method::GET, &path);
        request
            .header("accept", "text/event-stream")
            .header(name, value)
    };
    for (name, value) in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        // One that is let in has an answer without an end.
        let answer = within("an answer", reads(name, value).send())
            .await
            .unwrap();
        assert_eq!(answer.status(), 403, "{name}: {value}");
    }
    let cursors = gateway.get("/v1/data-streams/s1/cursors").await.ok();
    assert_eq!(cursors["items"], json!([]));
    for (name, value) in [
        ("origin", "https://console.example"),
        ("sec-fetch-site", "same-origin"),
    ] {
        let answer = within("events", reads(name, value).send()).await.unwrap();
        assert_eq!(answer.status(), 200, "{name}");
        let allowed = answer.headers().get("access-control-allow-origin");
        assert_eq!(allowed.is_some(), name == "origin");
    }
}

#[tokio::test]
async fn a_reserved_name_of_the_configuration_is_refused_before_anything_is_made() {
    let place = Place::with_config("[[streams]]\nname = \"audit\"\n");
    let refused = place.start_refused().await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(
        said.contains("streams[0].name: audit is reserved"),
        "{said}"
    );
    // Nothing stands in the way of a better one.
    let gateway = place.configured("[[streams]]\nname = \"Audits\"\n").start();
    let answer = gateway.reload("[[streams]]\nname = \"responses\"\n").await;
    let problem = answer.problem(422, "config_invalid");
    assert_eq!(
        problem["errors"][0]["pointer"], "streams[0].name",
        "{problem}"
    );
    gateway.get("/v1/streams/Audits").await.ok();
}
