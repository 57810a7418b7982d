//! Commands against a server that answers 200 to every request, such as a target or a login page: none of them succeeds.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use super::process::{Served, file, run};

/// Starts a server that answers every request with 200 and this body.
fn server(body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            // A command may close the connection early.
            drop(answer(&stream.unwrap(), body));
        }
    });
    url
}

fn answer(mut stream: &TcpStream, body: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let head = head.to_ascii_lowercase();
    let len = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    reader.read_exact(&mut vec![0; len.unwrap_or(0)])?;
    let len = body.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {len}\r\n\r\n{body}"
    )
}

#[test]
fn no_command_takes_another_server_for_a_gateway() {
    let dir = tempfile::tempdir().unwrap();
    let message = "{\"streamMessage\":{}}\n";
    let messages = file(dir.path(), "m.ndjson", &message.repeat(1_500));
    let messages = messages.to_str().unwrap();
    let commands: [&[&str]; 19] = [
        &["sync", messages],
        &["status"],
        &["verify"],
        &["healthcheck"],
        &["reload"],
        &["retry", "S"],
        &["records", "S"],
        &["records", "S/0/1"],
        &["tail", "s"],
        &["streams", "ls"],
        &["streams", "show", "S"],
        &["streams", "create", "S"],
        &["streams", "set", "S", "--partitions", "2"],
        &["streams", "purge", "S", "--reason", "x", "--yes"],
        &["streams", "rm", "S", "--yes"],
        &["data-streams", "ls"],
        &["data-streams", "rm", "s", "--yes"],
        &["cursors", "ls", "s"],
        &["cursors", "rm", "s", "c", "--yes"],
    ];
    let page = "<!DOCTYPE html>\n<html><body>Please log in</body></html>\n";
    for body in ["", page, "{}", "[]", r#"{"items":7,"results":[]}"#] {
        let url = server(body);
        for output in ["text", "json"] {
            for command in commands {
                let ended = run(&[command, &["--url", &url, "--output", output]].concat());
                let what = format!("{command:?} {body:?} {ended:?}");
                assert_eq!(ended.code, Some(1), "{what}");
                let said = format!("{url}/ is not a gateway: it did not send ");
                assert!(ended.err.contains(&said), "{what}");
                assert!(!ended.err.contains("<html>"), "{what}");
                // Only `sync` reports in JSON after a failure, with nothing accepted.
                let is_empty = match (command[0], output) {
                    ("sync", "json") => ended.json()["accepted"] == 0,
                    _ => ended.out.is_empty(),
                };
                assert!(is_empty, "{what}");
            }
        }
    }
}

#[test]
fn sync_reads_no_more_than_it_may_send() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = ["--url", "http://127.0.0.1:1"];
    let sync = |file: &str| run(&[&["sync", file][..], &nobody].concat());
    let zero = sync("/dev/zero").expect(1);
    let bound = "the first message has more than 8 MiB";
    assert!(zero.err.contains(bound), "{zero:?}");
    // A directory and a socket are refused before anything is sent, so nothing is said about a rest.
    let directory = sync(dir.path().to_str().unwrap()).expect(2);
    let told = "is a directory, not a file with messages\n";
    assert!(directory.err.ends_with(told), "{directory:?}");
    let socket = dir.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let socket = sync(socket.to_str().unwrap()).expect(2);
    let told = "is a socket, not a file with messages\n";
    assert!(socket.err.ends_with(told), "{socket:?}");
}

#[test]
fn sync_says_that_a_user_of_the_address_is_not_checked() {
    let dir = tempfile::tempdir().unwrap();
    let target = super::process::Target::start();
    let served = Served::start(dir.path(), &[]);
    let messages = file(dir.path(), "m.json", &target.message("/200"));
    let messages = messages.to_str().unwrap();
    let url = served.url.replace("://", "://ada:wrong@");
    let ended = run(&["sync", messages, "--url", &url]).expect(0);
    assert!(ended.err.contains("not sent or checked"), "{ended:?}");
    assert!(!ended.err.contains("wrong"), "{ended:?}");
    let ended = served.run(&["sync", messages]).expect(0);
    assert!(!ended.err.contains("user"), "{ended:?}");
}

#[test]
fn every_command_shows_its_help() {
    let reference = include_str!("../../../src/docs/commands.md");
    let headings = reference
        .lines()
        .filter_map(|line| line.strip_prefix("## "));
    let mut len = 0;
    for heading in headings {
        let mut words: Vec<_> = heading.split(' ').skip(1).collect();
        words.push("--help");
        let ended = run(&words).expect(0);
        assert!(ended.out.contains("Usage: "), "{heading}: {ended:?}");
        len += 1;
    }
    assert!(len > 30, "{len} commands");
}
