//! `syncgate target`: a target for trying things.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::process::{DEADLINE, Served, run, syncgate};

/// A target in a process of its own, killed when it goes.
struct Target {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// `127.0.0.1:PORT`.
    address: String,
    _watched: SyncSender<()>,
}

impl Target {
    fn start(arguments: &[&str]) -> Self {
        let mut all = vec!["target", "--port", "0"];
        all.extend(arguments);
        let mut child = syncgate(&all)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut target = Self {
            stdout: BufReader::new(child.stdout.take().unwrap()),
            _watched: watched(child.id()),
            child,
            address: String::new(),
        };
        let first = target.line();
        let url = match arguments.contains(&"json") {
            true => serde_json::from_str::<Value>(&first).unwrap()["listening"].clone(),
            false => first.strip_prefix("listening on ").unwrap().into(),
        };
        target.address = url
            .as_str()
            .unwrap()
            .strip_prefix("http://")
            .unwrap()
            .into();
        target
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim_end_matches('\n').to_owned()
    }

    /// The next call in print, without its time.
    fn first_line(&mut self) -> String {
        loop {
            let line = self.line();
            assert!(!line.is_empty(), "the target has ended");
            if let Some((_time, call)) = line.split_once("Z  ") {
                return call.to_owned();
            }
        }
    }

    fn connect(&self) -> Client {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Client(BufReader::new(stream))
    }

    fn ask(&self, head: &str) -> String {
        let mut client = self.connect();
        client.send(head, "");
        client.answer()
    }

    fn interrupt(&self) {
        signal("INT", self.child.id());
    }

    #[track_caller]
    fn ends(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

/// Kills a process that outlives the deadline, so that a test which reads from it fails and does not hang. Dropping what
/// this returns ends the watch.
fn watched(id: u32) -> SyncSender<()> {
    let (watched, dropped) = sync_channel(0);
    thread::spawn(move || {
        if dropped.recv_timeout(DEADLINE) == Err(RecvTimeoutError::Timeout) {
            signal("KILL", id);
        }
    });
    watched
}

fn signal(name: &str, id: u32) {
    let sent = Command::new("kill")
        .args([&format!("-{name}"), &id.to_string()])
        .status();
    assert!(sent.unwrap().success());
}

impl Drop for Target {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    /// Sends a request; `head` is `METHOD PATH` and header lines.
    fn send(&mut self, head: &str, body: &str) {
        let (first, headers) = head.split_once('\n').unwrap_or((head, ""));
        let mut request = format!("{first} HTTP/1.1\r\nhost: x\r\n");
        for line in headers.lines() {
            request += &format!("{line}\r\n");
        }
        request += &format!("content-length: {}\r\n\r\n{body}", body.len());
        self.0.get_ref().write_all(request.as_bytes()).unwrap();
    }

    /// Returns status line and headers; empty if the connection was closed instead.
    fn answer(&mut self) -> String {
        let mut answer = String::new();
        while !answer.ends_with("\r\n\r\n") {
            if self.0.read_line(&mut answer).unwrap() == 0 {
                break;
            }
        }
        answer
    }
}

#[test]
fn a_call_is_answered_by_its_path_and_printed() {
    let mut target = Target::start(&[
        "--answer",
        "/down=503",
        "--answer",
        "/old/*=410",
        "--answer",
        "/busy=429,retry-after:7s",
        "--answer",
        "/cut=close",
        "--answer",
        "/slow=201,delay:300ms",
    ]);
    for (call, answered, printed) in [
        ("POST /orders?a=b", "HTTP/1.1 200", "answered 200"),
        ("PUT /down", "HTTP/1.1 503", "answered 503"),
        ("DELETE /old/7", "HTTP/1.1 410", "answered 410"),
        ("GET /busy", "HTTP/1.1 429", "answered 429, Retry-After 7"),
        ("GET /cut", "", "closed without an answer"),
        ("PATCH /slow", "HTTP/1.1 201", "answered 201 after 300ms"),
    ] {
        let begun = Instant::now();
        let answer = target.ask(call);
        assert_eq!(answer.get(..12).unwrap_or_default(), answered, "{call}");
        assert_eq!(
            answer.contains("retry-after: 7"),
            call.contains("busy"),
            "{answer}"
        );
        if call.contains("slow") {
            assert!(begun.elapsed() >= Duration::from_millis(300));
        }
        assert_eq!(target.first_line(), format!("{call}  {printed}"));
    }
    target.interrupt();
    let (code, _) = target.ends();
    assert_eq!(code, Some(0));
}

#[test]
fn a_call_that_hangs_is_printed_and_does_not_hold_up_the_end() {
    let mut target = Target::start(&["--answer", "/stuck=hang"]);
    let mut stuck = target.connect();
    stuck.send("POST /stuck", "");
    assert_eq!(target.first_line(), "POST /stuck  not answered");
    // A later call is answered on a connection of its own, while the first one still is not.
    assert!(target.ask("GET /").starts_with("HTTP/1.1 200"));
    stuck.0.get_ref().set_nonblocking(true).unwrap();
    let nothing = stuck.0.get_ref().peek(&mut [0]).unwrap_err();
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
    stuck.0.get_ref().set_nonblocking(false).unwrap();
    target.interrupt();
    assert_eq!(target.ends().0, Some(0));
    assert_eq!(stuck.answer(), "");
}

#[test]
fn credentials_are_masked_and_a_missing_token_is_told() {
    let headers = "Authorization: Bearer geheim\nX-Api-Key: geheim\nContent-Type: text/plain\nX-Ring: a\u{7f}b";
    let body = "a\u{1b}[2Jb";
    for form in ["text", "json"] {
        let mut target = Target::start(&["--output", form]);
        let mut client = target.connect();
        client.send(
            &format!("POST /orders\n{}", headers.replace('\u{7f}', "\u{e9}")),
            body,
        );
        client.answer();
        client.send("GET /", "");
        client.answer();
        target.interrupt();
        let mut printed = String::new();
        target.stdout.read_to_string(&mut printed).unwrap();
        assert!(!printed.contains("geheim"), "{printed}");
        assert!(!printed.contains('\u{1b}'), "{printed:?}");
        match form {
            "text" => {
                let lines: Vec<_> = printed.lines().collect();
                assert_eq!(
                    lines[1..3],
                    [
                        "  authorization: ***  x-api-key: ***  content-type: text/plain  x-ring: aéb",
                        "  a\\u{1b}[2Jb"
                    ]
                );
                assert!(lines[3].ends_with("Z  GET /  answered 200"), "{printed}");
                assert_eq!(lines[4..], ["  authorization: none"]);
            }
            _ => {
                let calls: Vec<Value> = printed
                    .lines()
                    .map(|line| serde_json::from_str(line).unwrap())
                    .collect();
                let call = &calls[0];
                assert_eq!(call["body"], body);
                assert_eq!(call["answer"], json!({"status": 200}));
                let names = call["headers"].as_array().unwrap();
                assert!(names.contains(&json!({"name": "authorization", "value": "***"})));
                assert!(names.contains(&json!({"name": "host", "value": "x"})));
                assert_eq!(calls[1].get("body"), None);
            }
        }
    }
}

#[test]
fn a_body_is_cut_to_the_line_and_kept_up_to_a_bound() {
    let long = "ä".repeat(600);
    let huge = "x".repeat((1 << 20) + 3);
    let mut target = Target::start(&[]);
    let mut client = target.connect();
    client.send("POST /", &long);
    client.answer();
    target.first_line();
    target.line();
    let line = target.line();
    assert!(line.ends_with("ää…  (1200 bytes)"), "{line}");
    assert_eq!(line.chars().count(), 400);

    let mut target = Target::start(&["--output", "json"]);
    let mut client = target.connect();
    client.send("POST /", &huge);
    assert!(client.answer().starts_with("HTTP/1.1 200"));
    let call: Value = serde_json::from_str(&target.line()).unwrap();
    assert_eq!(call["bodyBytes"], (1 << 20) + 3);
    assert_eq!(call["bodyCut"], true);
    assert_eq!(call["body"].as_str().unwrap().len(), 1 << 20);
}

#[test]
fn the_target_ends_when_nobody_reads_it() {
    let mut target = Target::start(&["--answer", "/stuck=hang"]);
    let mut stuck = target.connect();
    stuck.send("GET /stuck", "");
    target.first_line();
    let Target { child, stdout, .. } = &mut target;
    // `syncgate target | head -1` has seen enough.
    let other = std::mem::replace(stdout, BufReader::new(piped_nothing()));
    drop(other);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// The output of a process that prints nothing.
fn piped_nothing() -> ChildStdout {
    let mut child = Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
    let stdout = child.stdout.take().unwrap();
    child.wait().unwrap();
    stdout
}

#[test]
fn connections_are_bounded_and_further_ones_wait() {
    let mut target = Target::start(&[]);
    let mut clients: Vec<_> = (0..256).map(|_| target.connect()).collect();
    for client in &mut clients {
        client.send("GET /first", "");
        client.answer();
        assert_eq!(target.first_line(), "GET /first  answered 200");
    }
    let mut late = target.connect();
    late.send("GET /late", "");
    // An open connection goes on; the late one waits until one of them ends.
    for client in &mut clients {
        client.send("GET /again", "");
        client.answer();
        assert_eq!(target.first_line(), "GET /again  answered 200");
    }
    clients[0].0.get_ref().shutdown(Shutdown::Both).unwrap();
    late.answer();
    assert_eq!(target.first_line(), "GET /late  answered 200");
}

#[test]
fn a_wrong_argument_and_a_port_in_use_are_told() {
    let ended = run(&["target", "--answer", "/down=teapot"]).expect(2);
    assert!(
        ended
            .err
            .contains("\"teapot\" is no answer: give 503, delay:2s"),
        "{ended:?}"
    );
    let target = Target::start(&[]);
    let port = target.address.rsplit(':').next().unwrap();
    let ended = run(&["target", "--port", port]).expect(3);
    assert!(
        ended.err.contains(&format!("127.0.0.1:{port}: ")),
        "{ended:?}"
    );
    let help = run(&["target", "--help"]).expect(0);
    assert!(
        help.out.contains("syncgate target --answer /down=503"),
        "{help:?}"
    );
}

#[test]
fn a_gateway_delivers_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut target = Target::start(&["--output", "json"]);
    let served = Served::start(dir.path(), &[]);
    let message = json!({"streamKey": "k", "streamMessage": {
        "targetRestApi": format!("http://{}/orders", target.address),
        "targetRestApiOperation": "POST", "targetRestApiPayload": {"n": 1.5}}});
    let file = super::process::file(dir.path(), "message.json", &message.to_string());
    let sync = ["sync", file.to_str().unwrap(), "--url", &served.url];
    let sent = syncgate(&sync)
        .env("SYNCGATE_TOKEN", "Bearer geheim")
        .output();
    assert!(sent.unwrap().status.success());
    let line = target.line();
    assert!(!line.contains("geheim"), "{line}");
    let call: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(call["path"], "/orders");
    assert_eq!(call["body"], r#"{"n":1.5}"#);
    let headers = call["headers"].as_array().unwrap();
    assert!(
        headers.contains(&json!({"name": "authorization", "value": "***"})),
        "{line}"
    );
    assert!(
        headers
            .iter()
            .any(|header| header["name"] == "idempotency-key"),
        "{line}"
    );
    assert_eq!(served.dispatched(), 1);
}
