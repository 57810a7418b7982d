//! `syncgate tail`: records as they come, over as many connections as it takes, none twice and none left out.

mod log_stream;
mod records;
mod scripted;

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
};

use serde_json::Value;
use tokio::sync::mpsc;

use crate::testkit::{syncgate, within};

/// A running `syncgate tail`, killed when it goes.
struct Tail {
    child: Child,
    lines: mpsc::Receiver<String>,
    said: mpsc::Receiver<String>,
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _dead = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Tail {
    fn start(url: &str, arguments: &[&str]) -> Self {
        Self::start_with(url, arguments, &[])
    }

    fn start_with(url: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut child = syncgate()
            .args(["tail", "--url", url])
            .args(arguments)
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let lines = read_lines(child.stdout.take().expect("piped"));
        let said = read_lines(child.stderr.take().expect("piped"));
        Self { child, lines, said }
    }

    async fn line(&mut self) -> String {
        let line = within("a line", self.lines.recv()).await;
        line.unwrap_or_else(|| panic!("it has ended, and said {}", self.said_now()))
    }

    async fn record(&mut self) -> Value {
        let line = self.line().await;
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    async fn xids(&mut self, count: usize) -> Vec<String> {
        let mut xids = Vec::new();
        for _ in 0..count {
            xids.push(self.record().await["xid"].as_str().unwrap().to_owned());
        }
        xids
    }

    /// Waits until it has said something with these words on standard error.
    async fn says(&mut self, words: &str) -> String {
        loop {
            let line = within(words, self.said.recv()).await;
            let line = line.unwrap_or_else(|| panic!("it has ended without saying {words}"));
            if line.contains(words) {
                return line;
            }
        }
    }

    fn said_now(&mut self) -> String {
        std::iter::from_fn(|| self.said.try_recv().ok()).collect()
    }

    fn interrupt(&self) {
        let sent = std::process::Command::new("kill")
            .args(["-INT", &self.child.id().to_string()])
            .status();
        assert!(sent.expect("the system has `kill`").success());
    }

    /// Waits for its end; returns the exit code, what is left of standard output, and what it said.
    async fn end(mut self) -> (Option<i32>, Vec<String>, String) {
        let (mut lines, mut said) = (Vec::new(), String::new());
        while let Some(line) = within("its end", self.lines.recv()).await {
            lines.push(line);
        }
        while let Some(line) = within("its end", self.said.recv()).await {
            said = format!("{said}{line}\n");
        }
        (self.child.wait().unwrap().code(), lines, said)
    }

    async fn fails(self, code: i32, words: &str) {
        let (found, lines, said) = self.end().await;
        assert_eq!((found, lines), (Some(code), Vec::new()), "{said}");
        assert!(said.contains(words), "{words} is not in {said}");
    }
}

fn read_lines(from: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(10_000);
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines() {
            let Ok(line) = line else { return };
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}
