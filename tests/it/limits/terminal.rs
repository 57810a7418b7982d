//! Text of others on a terminal: a wrong server, and a record whose sender means harm.

use std::{
    io::{Read, Write},
    net::TcpListener,
    process::Output,
};

use serde_json::json;

use crate::testkit::{Gateway, StubTarget, message, syncgate};

/// Clears the screen, in two ways; turns text around; rings.
const HARM: &str = "\u{1b}[2J\u{9b}2J\u{202e}drow\u{2066}\u{7f}\u{7}";

/// Answers every request with this, until the process ends.
fn wrong_server(answer: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let mut len = 0;
            while !request[..len].windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut request[len..]) {
                    Ok(read) if read > 0 => len += read,
                    _ => break,
                }
            }
            let _gone = stream.write_all(answer.as_bytes());
        }
    });
    url
}

fn answer(status: &str, kind: &str, body: &str) -> String {
    let len = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len}\r\nconnection: close\r\n\r\n{body}"
    )
}

/// Neither output holds anything that a terminal obeys.
#[track_caller]
fn check_harmless(output: &Output) -> String {
    let mut all = String::new();
    for bytes in [&output.stdout, &output.stderr] {
        let text = String::from_utf8(bytes.clone()).unwrap();
        let is_obeyed = |c: char| (c.is_control() && c != '\n') || "\u{202e}\u{2066}".contains(c);
        assert!(!text.contains(is_obeyed), "{text:?}");
        all += &text;
    }
    all
}

#[test]
fn answers_of_a_wrong_server_are_shown_and_not_obeyed() {
    let problem = json!({"title": "t", "code": "c", "detail": HARM, "requestId": HARM,
        "errors": [{"pointer": HARM, "detail": HARM}]});
    let list = json!({"items": [{"name": HARM, "partitions": HARM, "kind": HARM}], "earliest": HARM,
        "next": 7, HARM: HARM});
    let cases = [
        ("404 Not Found", "application/json", problem.to_string()),
        ("500 Oops", "text/plain", HARM.to_owned()),
        ("200 OK", "application/json", list.to_string()),
        ("200 OK", "text/plain", HARM.to_owned()),
    ];
    for (status, kind, body) in cases {
        let url = wrong_server(answer(status, kind, &body));
        for command in [
            &["streams", "ls"][..],
            &["streams", "show", "S"],
            &["records", "S"],
            &["verify"],
            &["reload"],
            &["healthcheck"],
            &["tail", "s"],
            &["retry", "S"],
        ] {
            for output in ["text", "json"] {
                let said = syncgate()
                    .args(command)
                    .args(["--url", &url, "--output", output])
                    .output()
                    .unwrap();
                let all = check_harmless(&said);
                if status.starts_with(['4', '5']) && command != ["healthcheck"] {
                    assert!(
                        all.contains("\\u{1b}[2J\\u{9b}2J\\u{202e}drow"),
                        "{command:?}: {all}"
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn records_are_shown_and_not_obeyed_and_their_json_is_the_same_value() {
    let target = StubTarget::by_path().await;
    let gateway = Gateway::start();
    let mut harm = message(&target.url("/status/404"), json!({ HARM: HARM }));
    harm["streamKey"] = HARM.into();
    gateway.sync(&harm).await;
    gateway.record("UnrecoverableErrorStream", 1).await;
    let trail = json!({"source": {"trail": "DataSyncStream"}});
    gateway.post("/services/v2/stream/s1", &trail).await.ok();
    for stream in ["DataSyncStream", "UnrecoverableErrorStream"] {
        let run = |output: &str| {
            let mut command = syncgate();
            command.args(["records", stream, "--url", &gateway.url, "--output", output]);
            command.output().unwrap()
        };
        let text = check_harmless(&run("text"));
        assert!(text.contains("\\u{202e}drow"), "{text}");
        let printed = check_harmless(&run("json"));
        let page: serde_json::Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(page["items"][0]["key"], HARM);
        assert_eq!(
            page["items"][0]["value"]["targetRestApiPayload"][HARM],
            HARM
        );
    }
    // The first record says that the stream was made.
    let tail = [
        "tail",
        "s1",
        "--begin",
        "earliest",
        "--count",
        "2",
        "--url",
        &gateway.url,
    ];
    let said = syncgate().args(tail).output().unwrap();
    let text = check_harmless(&said);
    assert!(text.contains("\\u{202e}drow"), "{text}");
    // A program gets what was sent.
    let said = syncgate()
        .args(tail)
        .args(["--output", "json"])
        .output()
        .unwrap();
    let sent = String::from_utf8(said.stdout).unwrap();
    let record: serde_json::Value = serde_json::from_str(sent.lines().last().unwrap()).unwrap();
    assert_eq!(record["after"]["KEY"], HARM);
    assert!(sent.contains('\u{202e}'));
}

#[test]
fn an_answer_without_an_end_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // What comes before the request is no answer.
        let _request = stream.read(&mut [0; 4096]).unwrap();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n[";
        stream.write_all(head.as_bytes()).unwrap();
        while stream.write_all(&[b'1'; 64 << 10]).is_ok() {}
    });
    let said = syncgate()
        .args(["streams", "ls", "--url", &url])
        .output()
        .unwrap();
    assert_eq!(said.status.code(), Some(1));
    assert!(check_harmless(&said).contains("more than 64 MiB"));
}

#[test]
fn pages_without_an_end_are_given_up() {
    let page = json!({"items": [], "next": "again"}).to_string();
    let url = wrong_server(answer("200 OK", "application/json", &page));
    let said = syncgate()
        .args(["streams", "ls", "--url", &url])
        .output()
        .unwrap();
    assert_eq!(said.status.code(), Some(1));
    assert!(check_harmless(&said).contains("1000 pages"));
}
