//! `syncgate retry --loop`: what it shows, what it waits for, and Ctrl-C.

use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

use crate::{
    retry::hang_up::{check_only_one_was_called, held},
    testkit::{Act, Gateway, StubTarget, keyed, on_terminal, syncgate},
};

const UNAVAILABLE: &str = "ServerUnavailableStream";

/// A gateway with three records, whose target asks once for a call four seconds later.
async fn asks_for_later() -> (Gateway, StubTarget) {
    let target = StubTarget::with(|_| Act::status(503)).await;
    let gateway = Gateway::start();
    for n in 0..3 {
        let key = format!("k{n}");
        gateway
            .sync(&keyed(&key, &target.url("/x"), json!(n)))
            .await;
    }
    gateway.record(UNAVAILABLE, 3).await;
    let first = target.calls().len();
    target.now(move |call| match call.number < first + 1 {
        true => Act::Answer(429, vec![("retry-after", "4".to_owned())]),
        false => Act::status(200),
    });
    (gateway, target)
}

fn command(gateway: &Gateway, arguments: &[&str]) -> Command {
    let mut command = syncgate();
    command.args(arguments).env("SYNCGATE_URL", &gateway.url);
    command
}

async fn run(mut command: Command) -> Output {
    let ended = tokio::task::spawn_blocking(move || command.output().unwrap());
    ended.await.unwrap()
}

/// Returns what a terminal would show of each line, and of each state that a line had.
fn lines(text: &str) -> Vec<String> {
    let mut shown = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => drop(rest.find(char::is_ascii_alphabetic)),
            c => shown.push(c),
        }
    }
    shown.split(['\n', '\r']).map(str::to_owned).collect()
}

#[tokio::test]
async fn on_a_terminal_a_loop_shows_how_far_it_is_and_why_it_waits() {
    for columns in [80, 200] {
        let (gateway, target) = asks_for_later().await;
        let mut command = command(&gateway, &["retry", UNAVAILABLE, "--loop", "--rate", "50"]);
        let ended = tokio::task::spawn_blocking(move || on_terminal(columns, &mut command));
        let (status, text) = ended.await.unwrap();
        assert!(status.success(), "{text}");
        let lines = lines(&text);
        let paused = |line: &String| {
            let progress = line.contains("delivered of 3");
            progress && line.contains("paused for another ") && line.contains(" s: http")
        };
        assert!(lines.iter().any(paused), "{lines:?}");
        let paced = |line: &String| line.contains("partition 0, at most 50/s by --rate");
        assert!(lines.iter().any(paced), "{lines:?}");
        assert!(!text.contains("MOVED TO"), "{text}");
        for line in &lines {
            assert!(line.chars().count() <= columns.into(), "{line:?}");
            // The pause is told in whole, or says that it is not.
            if let Some((_, why)) = line.trim_end().split_once("paused for another ") {
                let is_whole = why.ends_with(" is not called until then");
                assert_eq!(is_whole, columns == 200, "{line:?}");
                assert!(is_whole || why.ends_with('…'), "{line:?}");
            }
        }
        assert_eq!(gateway.count(UNAVAILABLE, "open").await, 0);
        drop(target);
    }
}

#[tokio::test]
async fn in_a_pipe_a_loop_says_once_why_it_waits() {
    let (gateway, target) = asks_for_later().await;
    let ended = run(command(&gateway, &["retry", UNAVAILABLE, "--loop"])).await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let said = String::from_utf8(ended.stderr).unwrap();
    let target = target.url("");
    let expected = format!(" s: {target} is not called until then\n");
    assert_eq!(said.matches("paused for another ").count(), 1, "{said}");
    assert!(said.contains(" delivered of 3, "), "{said}");
    assert!(said.ends_with(&expected), "{said}");
    let out = String::from_utf8(ended.stdout).unwrap();
    let rows: Vec<Vec<_>> = out
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        rows[0][..3],
        ["PARTITION", "REQUESTS", "DELIVERED"],
        "{out}"
    );
    let row = &rows[1];
    assert_eq!((row[0], row[2], row[3]), ("0", "3", "0"), "{out}");
}

fn interrupt(child: &Child) {
    let pid = child.id().to_string();
    let sent = Command::new("kill").args(["-INT", &pid]).status();
    assert!(sent.unwrap().success());
}

#[tokio::test]
async fn ctrl_c_takes_no_new_record_and_says_how_far_the_loop_came() {
    for arguments in [&["--loop"][..], &["--loop", "--group", "cron"], &[]] {
        let (gateway, target) = held().await;
        let all = [&["retry", UNAVAILABLE], arguments].concat();
        let mut command = command(&gateway, &all);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        target.wait_for_calls(7).await;
        interrupt(&child);
        let ended = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
        let ended = ended.await.unwrap();
        assert_eq!(ended.status.code(), Some(130), "{ended:?}");
        let said = String::from_utf8(ended.stderr).unwrap();
        let done = match arguments {
            [] => "interrupted at 0 delivered\n",
            _ => "interrupted at 0 delivered of 6\n",
        };
        assert!(said.contains(done), "{said}");
        let way = match arguments {
            [_, _, _] => "go on with the same command: the group stands",
            _ => "go on with --partition 0 --after -1",
        };
        assert!(said.contains(way), "{said}");
        check_only_one_was_called(&gateway, &target).await;
    }
}

/// Retries everything by a call of its own.
async fn retry(gateway: &Gateway) -> Value {
    let body = json!({ "streamOCIDToRetry": UNAVAILABLE, "noOfMessagesToProcess": 100, "readAfterOffset": -1,
        "readPartition": "0" });
    gateway.post("/stream/retry", &body).await.ok()
}

#[tokio::test]
async fn a_loop_waits_for_another_retry_and_says_whose_it_is_and_one_call_does_not() {
    let (gateway, target) = held().await;
    let (first, ()) = tokio::join!(retry(&gateway), async {
        target.wait_for_calls(7).await;
        let once = run(command(&gateway, &["retry", UNAVAILABLE])).await;
        assert_eq!(once.status.code(), Some(1), "{once:?}");
        let said = String::from_utf8(once.stderr).unwrap();
        let told =
            "error: a retry of ServerUnavailableStream, partition 0, is running, by 127.0.0.1:";
        assert!(said.contains(told), "{said}");
        assert!(said.contains("; its present call began at 20"), "{said}");
        assert!(said.contains("409 retry_running"), "{said}");
        let way = "
       with --loop, the command waits until the other one is done
";
        assert!(said.ends_with(way), "{said}");

        let mut looped = command(&gateway, &["retry", UNAVAILABLE, "--loop"]);
        looped.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut looped = looped.spawn().unwrap();
        let mut said = std::io::BufReader::new(looped.stderr.take().unwrap());
        let read = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            std::io::BufRead::read_line(&mut said, &mut line).unwrap();
            (line, said)
        });
        let (line, said) = read.await.unwrap();
        let told = "waiting for another retry of partition 0 by 127.0.0.1:";
        assert!(line.contains(told), "{line}");
        let told = ", whose present call began at 20";
        assert!(line.contains(told), "{line}");
        target.now(|_| Act::status(200));
        target.release(1);
        let ended = tokio::task::spawn_blocking(move || looped.wait_with_output().unwrap());
        let ended = ended.await.unwrap();
        drop(said);
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    });
    assert_eq!(first["processedmessages"], 6, "{first}");
}
