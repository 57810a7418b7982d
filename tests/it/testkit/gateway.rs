//! The gateway: the real binary in a process and a directory of its own.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::Arc,
};

use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{poll, within};

/// A directory, and what the next start will be told.
pub struct Place {
    dir: TempDir,
    config: String,
    env: Vec<(String, String)>,
    wrapper: &'static [&'static str],
    quick_again: bool,
}

impl Place {
    pub fn new() -> Self {
        Self::with_config("")
    }

    /// `config` is TOML.
    pub fn with_config(config: &str) -> Self {
        let place = Self {
            dir: TempDir::new().expect("a directory"),
            config: String::new(),
            env: Vec::new(),
            wrapper: &[],
            quick_again: true,
        };
        place.configured(config)
    }

    pub fn configured(mut self, config: &str) -> Self {
        config.clone_into(&mut self.config);
        std::fs::write(self.config_file(), config).expect("writing the configuration");
        self
    }

    /// From now on it starts with this environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// From now on it starts with no variable but those that every start has.
    pub fn without_variables(mut self) -> Self {
        self.env.clear();
        self
    }

    /// From now on a target that was left alone is tried again when the configuration says so, and not sooner.
    pub fn patient(mut self) -> Self {
        self.quick_again = false;
        self
    }

    /// From now on this command starts it.
    pub fn started_by(mut self, wrapper: &'static [&'static str]) -> Self {
        self.wrapper = wrapper;
        self
    }

    pub fn config_file(&self) -> PathBuf {
        self.dir.path().join("syncgate.toml")
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Journal files in order.
    pub fn segments(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.data().join("journal")).expect("a journal");
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "seg"));
        files.sort();
        files
    }

    fn command(&self) -> Command {
        let mut command = match self.wrapper {
            [] => syncgate(),
            [wrapper, arguments @ ..] => {
                let mut command = without_settings(Command::new(wrapper));
                command.args(arguments).arg(BINARY);
                command
            }
        };
        command
            .arg("serve")
            .arg("--data")
            .arg(self.data())
            .args(["--listen", "127.0.0.1:0"]);
        if !self.config.is_empty() {
            command.arg("--config").arg(self.config_file());
        }
        // A target that was left alone is soon tried again.
        if self.quick_again {
            command.env("SYNCGATE_DISPATCH__BACKOFF_MS", "1");
            command.env("SYNCGATE_DISPATCH__BACKOFF_MS_MAX", "20");
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts the gateway and waits until it listens.
    pub fn start(self) -> Gateway {
        let log = self.log_file();
        self.start_logging_to(log)
    }

    /// Starts the gateway and does not wait: it has no address yet.
    pub fn start_slowly(self) -> Gateway {
        let place = Arc::new(self);
        let child = place
            .command()
            .stdout(Stdio::null())
            .stderr(place.log_file())
            .spawn()
            .expect("the binary starts");
        Gateway {
            url: String::new(),
            child,
            place,
            client: client(),
        }
    }

    fn log_file(&self) -> std::fs::File {
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))
            .expect("a log file")
    }

    /// As [`Place::start`], with this for standard error.
    pub fn start_logging_to(self, log: impl Into<Stdio>) -> Gateway {
        let place = Arc::new(self);
        let mut child = place
            .command()
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        let stdout = child.stdout.take().expect("piped");
        let mut first = String::new();
        BufReader::new(stdout).read_line(&mut first).expect("text");
        let Some(address) = first.trim().strip_prefix("listening on http://") else {
            let _ended = child.wait();
            panic!("no address in {first:?}; the log says: {}", place.log());
        };
        Gateway {
            url: format!("http://{address}"),
            child,
            place: place.clone(),
            client: client(),
        }
    }

    /// The command that starts it, with this for standard error.
    pub fn command_logging_to(&self, log: impl Into<Stdio>) -> Command {
        let mut command = self.command();
        command.stdout(Stdio::null()).stderr(log);
        command
    }

    /// Starts the gateway where it must not start, and returns what it said.
    pub async fn start_refused(&self) -> Output {
        let mut command = self.command();
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        poll("the refused gateway to end", async || {
            child.try_wait().expect("it is ours")
        })
        .await;
        let output = child.wait_with_output().expect("it has ended");
        assert!(!output.status.success(), "it started");
        output
    }

    /// What the gateway wrote to standard error, over all starts.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

const BINARY: &str = env!("CARGO_BIN_EXE_syncgate");

/// The binary, with no `SYNCGATE_` variable of the machine around it.
pub fn syncgate() -> Command {
    without_settings(Command::new(BINARY))
}

/// Runs a command on a data directory: its exit code, what it printed as JSON, and what it said.
pub fn run_on(arguments: &[&str], data: &Path) -> (Option<i32>, Value, String) {
    let ended = syncgate()
        .args(arguments)
        .args(["--output", "json", "--data"])
        .arg(data)
        .output()
        .expect("the binary runs");
    let report = serde_json::from_slice(&ended.stdout).unwrap_or(Value::Null);
    let said = String::from_utf8(ended.stderr).expect("text");
    (ended.status.code(), report, said)
}

fn without_settings(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SYNCGATE_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// A client without connection reuse: a restarted gateway has another port anyway.
pub fn client() -> Client {
    let _already = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().build().expect("a client")
}

/// A running gateway. Dropping it kills the process.
pub struct Gateway {
    pub url: String,
    child: Child,
    place: Arc<Place>,
    client: Client,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _dead = self.child.kill();
        let _reaped = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the gateway's log ---\n{}", self.place.log());
        }
    }
}

/// A status and a body.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Answer {
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!(self.status.is_success(), "{} {}", self.status, self.body);
        self.body
    }

    /// Checks status and problem code, and returns the problem.
    #[track_caller]
    pub fn problem(self, status: u16, code: &str) -> Value {
        if self.body["$schema"] == "api:standardResponse" {
            let told = &self.body["messages"][0]["type"];
            let wanted = format!("urn:syncgate:problem:{code}");
            assert_eq!(
                (self.status.as_u16(), told),
                (status, &json!(wanted)),
                "{}",
                self.body
            );
            return self.body;
        }
        assert_eq!(
            (self.status.as_u16(), self.body["code"].as_str()),
            (status, Some(code)),
            "{}",
            self.body
        );
        assert_eq!(self.body["type"], format!("urn:syncgate:problem:{code}"));
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.body["status"], status);
        self.body
    }
}

impl Gateway {
    /// A gateway with defaults in a new directory.
    pub fn start() -> Self {
        Place::new().start()
    }

    pub fn with_config(config: &str) -> Self {
        Place::with_config(config).start()
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    pub async fn send(&self, request: RequestBuilder) -> Answer {
        let response = within("an answer of the gateway", request.send())
            .await
            .expect("an answer");
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.expect("a body");
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Answer {
            status,
            headers,
            body,
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// Posts one message and returns its offset.
    pub async fn sync(&self, message: &Value) -> u64 {
        let answer = self.post("/stream/sync", message).await.ok();
        assert_eq!(answer["status"], "success", "{answer}");
        answer["offset"].as_u64().expect("an offset")
    }

    /// Posts messages as one NDJSON batch.
    pub async fn sync_all(&self, messages: &[Value]) -> Value {
        let lines: Vec<String> = messages.iter().map(Value::to_string).collect();
        let request = self
            .request(Method::POST, "/stream/sync")
            .header("content-type", "application/x-ndjson");
        self.send(request.body(lines.join("\n"))).await.ok()
    }

    /// Runs a retry over partition 0 from `after`, at most `count` records.
    pub async fn retry(&self, stream: &str, after: i64, count: u64) -> Value {
        self.retry_with(stream, after, count, json!([])).await.ok()
    }

    pub async fn retry_with(&self, stream: &str, after: i64, count: u64, mapping: Value) -> Answer {
        let body = json!({ "streamOCIDToRetry": stream, "noOfMessagesToProcess": count, "readAfterOffset": after,
            "readPartition": "0", "errormapping": mapping });
        self.post("/stream/retry", &body).await
    }

    /// Records of a partition from its beginning, at most 1,000.
    pub async fn records(&self, stream: &str) -> Vec<Value> {
        let path = format!("/v1/streams/{stream}/partitions/0/records?from=earliest&limit=1000");
        let page = self.get(&path).await.ok();
        page["items"].as_array().expect("items").clone()
    }

    /// Every record of a partition.
    pub async fn all_records(&self, stream: &str) -> Vec<Value> {
        let (mut all, mut from) = (Vec::new(), "earliest".to_owned());
        loop {
            let path = format!("/v1/streams/{stream}/partitions/0/records?from={from}&limit=1000");
            let page = self.get(&path).await.ok();
            all.extend(page["items"].as_array().expect("items").iter().cloned());
            match &page["next"] {
                Value::Null => return all,
                Value::String(next) => from.clone_from(next),
                next => from = next.to_string(),
            }
        }
    }

    /// Waits until a stream's partition 0 has at least that many records, and returns the last of them.
    pub async fn record(&self, stream: &str, count: usize) -> Value {
        poll(&format!("record {count} of {stream}"), async || {
            let records = self.records(stream).await;
            (records.len() >= count).then(|| records[count - 1].clone())
        })
        .await
    }

    /// Sum over the partitions of one count of a stream: `open`, `delivered`, `routed` …
    pub async fn count(&self, stream: &str, count: &str) -> u64 {
        let stream = self.get(&format!("/v1/streams/{stream}")).await.ok();
        let partitions = stream["bounds"]
            .as_array()
            .unwrap_or_else(|| panic!("{stream}"));
        let counts = partitions.iter().map(|partition| match count {
            "open" => &partition["open"],
            count => &partition["counts"][count],
        });
        counts
            .map(|count| count.as_u64().unwrap_or_else(|| panic!("{stream}")))
            .sum()
    }

    /// Waits until nothing of a stream waits for its end.
    pub async fn drained(&self, stream: &str) {
        poll(&format!("{stream} to have no open record"), async || {
            (self.count(stream, "open").await == 0).then_some(())
        })
        .await;
    }

    /// Writes its configuration anew, which changes nothing by itself.
    pub fn write_config(&self, config: &str) {
        std::fs::write(self.place.config_file(), config).expect("writing the configuration");
    }

    /// Writes its configuration anew and has it reloaded.
    pub async fn reload(&self, config: &str) -> Answer {
        self.write_config(config);
        self.post("/v1/reload", &json!({})).await
    }

    /// `kill -9`.
    pub fn kill(mut self) -> Place {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it is ours");
        self.into_place()
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.pid().to_string())
            .status();
        assert!(sent.expect("the system has `kill`").success());
    }

    /// Waits for the process to end by itself.
    pub async fn ended(mut self) -> (ExitStatus, Place) {
        let status = poll("the gateway to end", async || {
            self.child.try_wait().expect("it is ours")
        })
        .await;
        (status, self.into_place())
    }

    /// SIGTERM, and waits for a clean end.
    pub async fn stop(self) -> Place {
        self.signal("TERM");
        let (status, place) = self.ended().await;
        assert!(status.success(), "{status}; the log says: {}", place.log());
        place
    }

    fn into_place(self) -> Place {
        let place = self.place.clone();
        drop(self);
        Arc::into_inner(place).expect("the gateway was the last to hold it")
    }
}
