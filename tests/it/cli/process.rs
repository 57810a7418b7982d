//! The binary as a process, and a target that stands for the other side.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Output, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use serde_json::Value;

/// Whatever a test waits for comes within this time, or it never does.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// `syncgate` with these arguments, away from the environment of the test.
pub fn syncgate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_syncgate"));
    let inherited = std::env::vars_os().map(|(name, _)| name);
    for name in inherited.filter(|name| name.to_string_lossy().starts_with("SYNCGATE_")) {
        command.env_remove(name);
    }
    command.args(arguments);
    command
}

/// Runs a command to its end.
#[track_caller]
pub fn run(arguments: &[&str]) -> Ended {
    Ended::from(syncgate(arguments).stdin(Stdio::null()).output().unwrap())
}

/// What a command left.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ended {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }
}

/// A gateway of its own, killed when it goes.
#[derive(Debug)]
pub struct Served {
    child: Child,
    stdout: BufReader<ChildStdout>,
    pub url: String,
}

impl Served {
    /// Starts `serve` on a free port and waits for its address.
    pub fn start(dir: &Path, arguments: &[&str]) -> Self {
        // A target that was left alone is soon tried again.
        let quick = [
            ("SYNCGATE_DISPATCH__BACKOFF_MS", "1"),
            ("SYNCGATE_DISPATCH__BACKOFF_MS_MAX", "20"),
        ];
        Self::start_with(dir, arguments, &quick)
    }

    /// The same, with other variables.
    pub fn start_with(dir: &Path, arguments: &[&str], env: &[(&str, &str)]) -> Self {
        let mut all = vec![
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--data",
            dir.to_str().unwrap(),
        ];
        all.extend(arguments);
        let mut child = syncgate(&all)
            .env("SYNCGATE_LOGGING__LEVEL", "warn")
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        stdout.read_line(&mut first).unwrap();
        let url = first.trim_end().strip_prefix("listening on ");
        let url = url
            .unwrap_or_else(|| panic!("the first line is {first:?}"))
            .to_owned();
        Self { child, stdout, url }
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    }

    /// Waits for its end; returns the exit code and what else it printed to standard output.
    pub fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }

    /// Runs a command against it.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Ended {
        let mut all = arguments.to_vec();
        all.extend(["--url", &self.url]);
        run(&all)
    }

    /// Runs a command against it and returns what it printed as JSON.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let mut all = arguments.to_vec();
        all.extend(["--output", "json"]);
        self.run(&all).expect(0).json()
    }

    /// Waits until all records of the source stream have ended, and returns how many there are.
    #[track_caller]
    pub fn dispatched(&self) -> u64 {
        let begun = std::time::Instant::now();
        loop {
            let stream = self.json(&["streams", "show", "DataSyncStream"]);
            let sum = |name: &str| -> u64 {
                let partitions = stream["bounds"].as_array().unwrap();
                partitions
                    .iter()
                    .map(|partition| partition[name].as_u64().unwrap())
                    .sum()
            };
            if sum("open") == 0 {
                return sum("tail");
            }
            assert!(begun.elapsed() < DEADLINE, "still open: {stream}");
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended long ago.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A target that answers with the status that the path ends in, `/held` once it is let go, and tells each path.
#[derive(Debug)]
pub struct Target {
    pub url: String,
    pub calls: Receiver<String>,
    pub let_go: SyncSender<()>,
}

impl Target {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (told, calls) = sync_channel(100_000);
        let (let_go, held) = sync_channel(100);
        let held = Arc::new(Mutex::new(held));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (told, held) = (told.clone(), held.clone());
                thread::spawn(move || drop(answer(&stream.unwrap(), &told, &held)));
            }
        });
        Self { url, calls, let_go }
    }

    /// Returns the path of the next call.
    #[track_caller]
    pub fn next_call(&self) -> String {
        self.calls
            .recv_timeout(DEADLINE)
            .expect("a call of the target")
    }

    /// A message for a path, on one line.
    pub fn message(&self, path: &str) -> String {
        let url = format!("{}{path}", self.url);
        format!(
            r#"{{"streamMessage":{{"targetRestApi":"{url}","targetRestApiOperation":"POST","targetRestApiPayload":{{"n":1}}}}}}"#
        )
    }
}

fn answer(
    stream: &TcpStream,
    told: &SyncSender<String>,
    held: &Mutex<Receiver<()>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let len = head
            .lines()
            .find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("content-length: ")?
                    .parse()
                    .ok()
            })
            .unwrap_or(0);
        reader.read_exact(&mut vec![0; len])?;
        let path = head.split(' ').nth(1).unwrap().to_owned();
        told.send(path.clone()).unwrap();
        let status = match path.rsplit('/').next().unwrap() {
            "held" => {
                // Ends when the test does.
                let _let_go = held.lock().unwrap().recv();
                "200"
            }
            status => status,
        };
        write!(
            &mut &*stream,
            "HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n"
        )?;
    }
}

/// A file in a directory of the test.
pub fn file(dir: &Path, name: &str, content: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, content).unwrap();
    path
}
