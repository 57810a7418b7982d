//! `syncgate retry` against a gateway whose answers are made up: what it asks for, and what it makes of the answers.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use super::super::process::Ended;
use crate::testkit::syncgate;

const TARGET: &str = "http://orders.example:80";
/// More calls than any of these tests makes of one partition: a loop that does not go on ends with an error.
const CALLS_MAX: usize = 20;

/// A made-up gateway with a stream `S`, and what it was asked.
#[derive(Clone)]
struct Scripted {
    url: String,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Scripted {
    /// Answers each call of a retry by its body. The tails of the partitions answer the first question, `open` records are
    /// open at the end.
    fn start(
        tails: &'static [u64],
        open: u64,
        mut answer: impl FnMut(&Value) -> (u16, Value) + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let scripted = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            asked: Arc::default(),
        };
        let asked = scripted.asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let (status, body) = match request(&mut stream) {
                    None => (200, detail(open)),
                    Some(body) if body["dryRun"] == true => (200, counted(tails, &body)),
                    Some(body) => {
                        let mut asked = asked.lock().unwrap();
                        asked.push(body.clone());
                        match asked.len() > CALLS_MAX {
                            true => (500, json!({})),
                            false => answer(&body),
                        }
                    }
                };
                respond(&mut stream, status, &body);
            }
        });
        scripted
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        let mut command: Command = syncgate();
        command.args(["retry", "S"]).args(arguments);
        command.env("SYNCGATE_URL", &self.url);
        Ended::from(command.output().unwrap())
    }
}

/// Returns the body of a call of a retry; `None` for another request.
fn request(stream: &mut TcpStream) -> Option<Value> {
    let mut request = Vec::new();
    loop {
        let mut part = [0; 4096];
        let len = stream.read(&mut part).unwrap();
        assert!(len > 0, "a whole request");
        request.extend_from_slice(&part[..len]);
        let text = String::from_utf8_lossy(&request);
        match text.split_once("\r\n\r\n") {
            Some((head, _)) if head.starts_with("GET ") => return None,
            Some((_, body)) if body.ends_with('}') => {
                return Some(serde_json::from_str(body).unwrap());
            }
            _ => {}
        }
    }
}

fn respond(stream: &mut TcpStream, status: u16, body: &Value) {
    let body = body.to_string();
    let answer = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).unwrap();
}

fn detail(open: u64) -> Value {
    let partition = |name: &str, open: u64| json!({"partition": name, "open": open});
    json!({"name": "S", "roles": [], "bounds": [partition("0", open), partition("1", 0)]})
}

fn counted(tails: &[u64], body: &Value) -> Value {
    let mut answer = report(body, 0, 0, true);
    let of = |(partition, tail): (usize, &u64)| (partition.to_string(), json!({"tail": tail}));
    match body["readPartition"].as_str().unwrap() {
        "*" => {
            let all: BTreeMap<_, _> = tails.iter().enumerate().map(of).collect();
            answer["partitions"] = json!(all);
        }
        partition => {
            let tail = tails[partition.parse::<usize>().unwrap()];
            answer["tail"] = tail.into();
            answer["attempted"] = tail.into();
        }
    }
    answer
}

fn report(body: &Value, delivered: u64, failed: u64, is_end: bool) -> Value {
    json!({
        "lastReadOffset": body["readAfterOffset"], "processedmessages": delivered, "failedMessages": failed,
        "endOfStream": is_end, "attempted": delivered + failed, "skipped": 0, "unmatched": 0, "startOffset": 0,
        "nextOffset": 0, "tail": 9, "movedTo": {}
    })
}

/// An answer that leaves records of a target that is not called for an hour.
fn open(body: &Value, count: u64) -> Value {
    let until = "2126-01-02T03:04:05.000000Z";
    let mut answer = report(body, 0, 0, false);
    answer["stopped"] = json!({"reason": "target_open", "target": TARGET, "until": until});
    answer["waiting"] = json!([{"target": TARGET, "count": count, "until": until}]);
    answer
}

fn running() -> (u16, Value) {
    let told = json!({"code": "retry_running", "detail": "a retry runs", "since": "2026-01-02T03:04:05Z", "by": "alice"});
    (409, told)
}

/// Copies that a run leaves behind these ends are not for it, and the gateway is told so with every call.
#[test]
fn each_call_of_a_loop_names_the_end_that_its_partition_had_at_first() {
    let mut calls = 0;
    let gateway = Scripted::start(&[2, 3], 0, move |body| {
        calls += 1;
        (200, report(body, 1, 0, calls >= 4))
    });
    let ended = gateway.run(&["--loop", "--output", "json"]).expect(0);
    assert_eq!(ended.json()["total"], 5, "{ended:?}");
    let asked = gateway.asked.lock().unwrap();
    for body in &*asked {
        let end = match body["readPartition"].as_str() {
            Some("0") => 2,
            _ => 3,
        };
        assert_eq!(body["readBeforeOffset"], end, "{body}");
        assert_eq!(body["noOfMessagesToProcess"], 1_000, "{body}");
    }
    assert_eq!(asked.len(), 5);
}

#[test]
fn a_partition_that_waits_for_another_retry_or_for_a_turn_does_not_hold_the_others_up() {
    for is_other in [true, false] {
        let mut is_served = false;
        let gateway = Scripted::start(&[2, 3], 0, move |body| {
            match (body["readPartition"].as_str(), is_served) {
                (Some("0"), false) if is_other => running(),
                (Some("0"), false) => (200, report(body, 0, 0, false)),
                (Some("0"), true) => (200, report(body, 2, 0, true)),
                _ => {
                    is_served = true;
                    (200, report(body, 3, 0, true))
                }
            }
        });
        let ended = gateway.run(&["--loop"]).expect(0);
        let asked = gateway.asked.lock().unwrap();
        let order: Vec<_> = asked
            .iter()
            .map(|body| body["readPartition"].as_str().unwrap())
            .collect();
        assert_eq!(order, ["0", "1", "0"], "{ended:?}");
        let said = match is_other {
            true => {
                "waiting for another retry of partition 0 by alice, whose present call began at 2026-01-02"
            }
            false => "waiting for a turn: new messages take all calls of the targets",
        };
        // Also in a pipe, and with how far the loop is.
        assert!(ended.err.contains(said), "{ended:?}");
        assert!(ended.err.contains("3 delivered of 5, "), "{ended:?}");
    }
}

/// Without a loop, too: the other partitions get their call.
#[test]
fn one_call_that_meets_another_retry_says_what_waits_for_it() {
    let gateway = Scripted::start(&[2, 3], 0, |body| match body["readPartition"].as_str() {
        Some("0") => running(),
        _ => (200, report(body, 3, 0, true)),
    });
    let ended = gateway.run(&[]).expect(1);
    assert_eq!(gateway.asked.lock().unwrap().len(), 2);
    assert!(ended.err.contains("error: a retry runs\n"), "{ended:?}");
    let way = "with --loop, the command waits until the other one is done";
    assert!(ended.err.contains(way), "{ended:?}");
    assert!(
        ended.out.contains("1 partition not at the end"),
        "{ended:?}"
    );
}

#[test]
fn what_is_left_is_the_sum_of_all_partitions_and_a_run_without_a_call_says_why() {
    let gateway = Scripted::start(&[2, 3], 21, |body| {
        let count = if body["readPartition"] == "0" { 9 } else { 12 };
        (200, open(body, count))
    });
    for arguments in [&["--loop"][..], &[]] {
        let ended = gateway.run(arguments).expect(1);
        let said = format!(
            "{TARGET} is not called before 2126-01-02T03:04:05.000000Z: stopped, 21 records left for it"
        );
        assert!(ended.err.contains(&said), "{ended:?}");
        let notes: Vec<_> = ended.out.lines().skip(3).collect();
        let expected = [
            format!(
                "no record was called: the breaker of {TARGET} is not closed, and new messages may have taken every probe of it"
            ),
            format!(
                "partitions 0, 1 not at the end: 21 records left for {TARGET}; call again after 2126-01-02T03:04:05.000000Z"
            ),
            "21 records are still open here; see `syncgate records S --open`".to_owned(),
        ];
        assert_eq!(notes, expected, "{ended:?}");
        let told = gateway
            .run(&[arguments, &["--output", "json"]].concat())
            .json();
        assert_eq!(
            (&told["notes"], &told["open"]),
            (&json!(expected), &json!(21)),
            "{told}"
        );
    }
}

#[test]
fn a_run_that_delivers_says_what_is_open_all_the_same() {
    let gateway = Scripted::start(&[5], 2, |body| (200, report(body, 3, 2, true)));
    let ended = gateway.run(&["--loop", "--partition", "0"]).expect(0);
    let last = "2 records are still open here; see `syncgate records S --partition 0 --open`\n";
    assert!(ended.out.ends_with(last), "{ended:?}");
    let one = Scripted::start(&[5], 1, |body| (200, report(body, 3, 2, true)));
    let ended = one.run(&[]).expect(0);
    let last = "1 record is still open here; see `syncgate records S --open`\n";
    assert!(ended.out.ends_with(last), "{ended:?}");
    // Nothing is called by a dry run, and nothing is open when all is delivered.
    assert!(!one.run(&["--dry-run"]).out.contains("still open"));
    let none = Scripted::start(&[5], 0, |body| (200, report(body, 5, 0, true)));
    assert!(!none.run(&[]).out.contains("still open"));
}

#[test]
fn a_loop_waits_for_its_turn_beside_new_messages() {
    let busy = || {
        let mut calls = 0;
        Scripted::start(&[1], 0, move |body| {
            calls += 1;
            (200, report(body, u64::from(calls == 8), 0, calls == 8))
        })
    };
    let ended = busy().run(&["--loop", "--partition", "0"]).expect(0);
    let said = "waiting for a turn: new messages take all calls of the targets";
    assert_eq!(ended.err.matches(said).count(), 1, "{ended:?}");
    // A time that is too short for any call is told.
    let short = ["--loop", "--partition", "0", "--time-budget-ms", "1"];
    let ended = busy().run(&short).expect(1);
    assert!(ended.err.contains("--time-budget-ms"), "{ended:?}");
}
