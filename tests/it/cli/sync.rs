//! `syncgate sync` over connections that break: each batch is stored once.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use super::process::{Served, Target, file, run};

/// Stands between the command and a gateway: hands requests on one by one, and `cut` says of which it keeps the answer
/// to itself and breaks the connection off.
fn line_with_cuts(gateway: &str, cut: fn(usize) -> bool) -> String {
    let gateway = gateway.strip_prefix("http://").unwrap().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for (number, connection) in listener.incoming().enumerate() {
            let connection = connection.unwrap();
            let request = whole(&connection);
            let request = request.replacen("\r\n", "\r\nconnection: close\r\n", 1);
            let mut upstream = TcpStream::connect(&gateway).unwrap();
            upstream.write_all(request.as_bytes()).unwrap();
            let mut answer = Vec::new();
            upstream.read_to_end(&mut answer).unwrap();
            if !cut(number) {
                (&connection).write_all(&answer).unwrap();
            }
        }
    });
    url
}

/// Reads one request.
fn whole(connection: &TcpStream) -> String {
    let mut reader = BufReader::new(connection);
    let (mut request, mut len) = (String::new(), 0);
    while !request.ends_with("\r\n\r\n") {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line_lower = line.to_ascii_lowercase();
        if let Some(bytes) = line_lower.strip_prefix("content-length: ") {
            len = bytes.trim().parse().unwrap();
        }
        request += &line;
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body).unwrap();
    request + &String::from_utf8(body).unwrap()
}

#[test]
fn a_batch_whose_answer_was_lost_is_sent_again_and_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    let target = Target::start();
    let served = Served::start(dir.path(), &[]);
    let url = line_with_cuts(&served.url, |number| number % 2 == 0);
    let lines = vec![target.message("/200"); 1_500];
    let messages = file(dir.path(), "m.ndjson", &lines.join("\n"));
    let ended = run(&["sync", messages.to_str().unwrap(), "--url", &url]).expect(0);
    let out = "1500 messages accepted in 2 batches: first DataSyncStream/0 offset 0, last DataSyncStream/0 offset 1499\n";
    assert_eq!(ended.out, out);
    assert_eq!(served.dispatched(), 1_500);
}

#[test]
fn another_run_with_the_same_prefix_goes_on_where_the_first_one_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let target = Target::start();
    let served = Served::start(dir.path(), &[]);
    let good = target.message("/200");
    let bad = good.replace("\"POST\"", "\"post\"");
    let mut lines = vec![good.as_str(); 2_500];
    lines[2_100] = &bad;
    let messages = file(dir.path(), "m.ndjson", &lines.join("\n"));
    let messages = messages.to_str().unwrap();
    let ended = served.run(&["sync", messages]).expect(1);
    assert_eq!(served.dispatched(), 2_000);
    let (_, told) = ended.err.split_once("--idempotency-prefix ").unwrap();
    let prefix = told.split_whitespace().next().unwrap();
    lines[2_100] = &good;
    fs::write(messages, lines.join("\n")).unwrap();
    let again = ["sync", messages, "--idempotency-prefix", prefix];
    for _ in 0..2 {
        let ended = served.run(&again).expect(0);
        let out = "2500 messages accepted in 3 batches: first DataSyncStream/0 offset 0, last DataSyncStream/0 offset 2499\n";
        assert_eq!(ended.out, out);
        assert_eq!(served.dispatched(), 2_500);
    }
    // Another file is told apart.
    lines[0] = &bad;
    fs::write(messages, lines.join("\n")).unwrap();
    let ended = served.run(&again).expect(1);
    let told = "the gateway answered 422 idempotency_mismatch";
    assert!(ended.err.contains(told), "{ended:?}");
    for bad in ["", "a b", "ä", &"x".repeat(201)] {
        let ended = served.run(&["sync", messages, "--idempotency-prefix", bad]);
        let told = "1 to 200 visible ASCII characters";
        assert!(ended.expect(2).err.contains(told));
    }
}
