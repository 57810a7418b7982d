//! `syncgate sync` over connections that break: each batch is stored once.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use serde_json::json;

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
fn a_run_that_fails_prints_json_with_what_was_stored_and_the_command_that_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let target = Target::start();
    let served = Served::start(dir.path(), &[]);
    let good = target.message("/200");
    let bad = good.replace("\"POST\"", "\"post\"");
    let mut lines = vec![good.as_str(); 1_500];
    lines[1_200] = &bad;
    let messages = file(dir.path(), "it's.ndjson", &lines.join("\n"));
    let messages = messages.to_str().unwrap();
    let ended = served
        .run(&["sync", messages, "--output", "json"])
        .expect(1);
    assert!(
        ended.err.starts_with("error: line 1201: /streamMessage/"),
        "{ended:?}"
    );
    let report = ended.json();
    assert_eq!(
        (&report["accepted"], &report["batches"]),
        (&json!(1_000), &json!(1)),
        "{report}"
    );
    assert_eq!(report["last"]["offset"], 999, "{report}");
    let error = &report["error"];
    assert_eq!(
        (&error["status"], &error["code"]),
        (&json!(400), &json!("invalid_message")),
        "{report}"
    );
    assert!(
        error["detail"].as_str().unwrap().starts_with("line 1201: "),
        "{report}"
    );
    // A shell runs the command as it stands.
    fs::write(messages, vec![good.as_str(); 1_500].join("\n")).unwrap();
    let next = report["next"].as_str().unwrap();
    let ended = std::process::Command::new("sh")
        .args(["-c", &next.replacen("syncgate", "\"$BINARY\"", 1)])
        .env("BINARY", env!("CARGO_BIN_EXE_syncgate"))
        .output()
        .unwrap();
    let ended = super::process::Ended::from(ended).expect(0);
    assert!(
        ended.out.starts_with("1500 messages accepted in 2 batches"),
        "{ended:?}"
    );
    assert_eq!(served.dispatched(), 1_500);

    // The same where nobody answers.
    let nobody = [
        "sync",
        messages,
        "--output",
        "json",
        "--url",
        "http://127.0.0.1:1",
    ];
    let report = run(&nobody).expect(1).json();
    assert_eq!(
        (&report["accepted"], &report["error"]["code"]),
        (&json!(0), &json!(null)),
        "{report}"
    );
    let detail = report["error"]["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("no gateway answers at http://127.0.0.1:1/"),
        "{report}"
    );
}

#[test]
fn a_signal_ends_with_its_code_and_says_what_was_stored_and_how_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let target = Target::start();
    let served = Served::start(dir.path(), &[]);
    // While it waits for its input, and while it waits for an answer that never comes.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_url = format!("http://{}", silent.local_addr().unwrap());
    let line = format!("{}\n", target.message("/200"));
    // More than a pipe holds: once it is written, the command reads.
    let part = format!("{}{line}", " ".repeat(300_000));
    for (url, input, has_sent, signal, code, told) in [
        (
            &*served.url,
            part,
            false,
            "-TERM",
            143,
            "0 messages accepted before that\n",
        ),
        (
            &silent_url,
            line.repeat(1_000),
            true,
            "-INT",
            130,
            "0 messages accepted before that; whether lines 1 to 1000 were stored, all of them or none, is not known",
        ),
    ] {
        let mut child = super::process::syncgate(&["sync", "-", "--url", url])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        // The connection is kept, and nothing is answered.
        let asked = has_sent.then(|| {
            let (connection, _) = silent.accept().unwrap();
            whole(&connection);
            connection
        });
        let sent = std::process::Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
        let ended = super::process::Ended::from(child.wait_with_output().unwrap()).expect(code);
        drop((stdin, asked));
        assert!(
            ended.err.starts_with("error: stopped by a signal\n"),
            "{ended:?}"
        );
        assert!(ended.err.contains(told), "{ended:?}");
        let next =
            "to send the rest, and store nothing twice: syncgate sync - --idempotency-prefix sync-";
        assert!(ended.err.contains(next), "{ended:?}");
        assert!(ended.err.ends_with(&format!(" --url {url}\n")), "{ended:?}");
    }
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
