//! A program under measurement: started, found by the address it prints, asked for CPU and memory, ended.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::grown;

/// The target of a held round answers late, and 429s or errors are not what is measured then.
const PATIENT: &str = "[dispatch]\nresponse_timeout_ms = 600000\nattempt_timeout_ms = 600000\n";
const IMPATIENT: &str = "[dispatch]\nconnect_timeout_ms = 1000\nresponse_timeout_ms = 1000\nattempt_timeout_ms = 1000\n";

pub struct Process {
    /// `127.0.0.1:port`, or empty for a program that listens nowhere.
    pub url: String,
    child: Child,
    /// Absent once another process has it.
    dir: Option<TempDir>,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Process {
    /// The gateway with its defaults and a directory of its own.
    pub fn gateway() -> Self {
        Self::gateway_in(directory(), PATIENT)
    }

    /// The same with timeouts of a second.
    pub fn impatient_gateway() -> Self {
        Self::gateway_in(directory(), IMPATIENT)
    }

    /// Starts the gateway again with `count` more records in its log, all of them delivered.
    pub async fn filled(mut self, count: u64) -> Self {
        let dir = self.dir.take().unwrap();
        drop(self);
        grown::fill(&dir.path().join("data"), count).await;
        Self::gateway_in(dir, PATIENT)
    }

    /// Ends the gateway as a crash does and starts it again, with its index or without; returns how long that takes.
    pub fn again(mut self, forget_index: bool) -> (Self, Duration) {
        let dir = self.dir.take().unwrap();
        drop(self);
        if forget_index {
            std::fs::remove_dir_all(dir.path().join("data/index")).unwrap();
        }
        let begun = Instant::now();
        (Self::gateway_in(dir, PATIENT), begun.elapsed())
    }

    fn gateway_in(dir: TempDir, dispatch: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_syncgate"));
        let config = dir.path().join("config.toml");
        let logging = "[logging]\nlevel = \"error\"\n";
        std::fs::write(&config, format!("{dispatch}\n{logging}")).unwrap();
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(dir.path().join("data"))
            .arg("--config")
            .arg(config);
        Self::started(command, dir)
    }

    /// This program in another role.
    pub fn role(role: &str, arguments: &[&str]) -> Self {
        Self::role_with(role, arguments, |_| {})
    }

    /// The same, in a directory that was prepared.
    pub fn role_with(role: &str, arguments: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        let dir = directory();
        prepare(dir.path());
        Self::role_in(dir, role, arguments)
    }

    /// Ends it, and starts one in its directory.
    pub fn role_again(mut self, role: &str, arguments: &[&str]) -> Self {
        let dir = self.dir.take().unwrap();
        drop(self);
        Self::role_in(dir, role, arguments)
    }

    fn role_in(dir: TempDir, role: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .env("FIGURES_ROLE", role)
            .env("FIGURES_DIR", dir.path());
        command.env("FIGURES_ARGUMENTS", arguments.join(" "));
        Self::started(command, dir)
    }

    fn started(mut command: Command, dir: TempDir) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let url = line
            .trim()
            .trim_start_matches("listening on http://")
            .to_owned();
        Self {
            url,
            child,
            dir: Some(dir),
        }
    }

    /// User and system time until now. The kernel counts in hundredths of a second.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let behind_name = stat.rsplit_once(')').unwrap().1;
        let fields: Vec<u64> = behind_name
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|field| field.parse().unwrap())
            .collect();
        Duration::from_millis((fields[0] + fields[1]) * 10)
    }

    /// Returns once it does nothing by itself: what it does after a start is not what is measured.
    pub async fn settled(&self) {
        loop {
            let before = self.cpu();
            tokio::time::sleep(Duration::from_millis(300)).await;
            if self.cpu() - before <= Duration::from_millis(10) {
                return;
            }
        }
    }

    /// Time of those of its threads until now whose names begin with none of these.
    pub fn cpu_beside(&self, names: &[&str]) -> Duration {
        let mut nanos = 0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap() {
            let thread = thread.unwrap().path();
            let read = |file: &str| std::fs::read_to_string(thread.join(file)).unwrap_or_default();
            let name = read("comm");
            if !names.iter().any(|other| name.starts_with(other)) {
                let stat = read("schedstat");
                let first = stat.split(' ').next().and_then(|text| text.parse().ok());
                nanos += first.unwrap_or(0);
            }
        }
        Duration::from_nanos(nanos)
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.dir.as_ref().unwrap().path()
    }

    pub fn rss_mib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<f64>()
            .unwrap()
            / 1024.0
    }
}

/// Beside the build, so that the disk is a real one even where `/tmp` is memory.
fn directory() -> TempDir {
    let exe = std::env::current_exe().unwrap();
    TempDir::new_in(exe.parent().unwrap()).unwrap()
}
