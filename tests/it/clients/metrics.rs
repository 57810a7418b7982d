//! What reads metrics: Prometheus, its `promtool`, and the parser of its Python client.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use reqwest::Method;
use serde_json::{Value, json};

use crate::testkit::{Act, Gateway, StubTarget, keyed, poll};

use super::{SOURCES, address, lines, tools};

/// A gateway with figures of all kinds: calls that delivered, calls that failed, a data stream with a cursor.
async fn measured() -> (Gateway, StubTarget) {
    let target = StubTarget::with(|call| match call.path.as_str() {
        "/down" => Act::status(503),
        _ => Act::status(200),
    })
    .await;
    let gateway = Gateway::start();
    let messages = ["/x", "/down"].map(|path| keyed("k", &target.url(path), json!(1)));
    gateway.sync_all(&messages).await;
    gateway.drained("DataSyncStream").await;
    let config = json!({"source": {"trail": "DataSyncStream"}});
    let made = gateway.post("/services/v2/stream/s1", &config).await;
    assert_eq!(made.status, 201);
    let cursor = gateway.request(Method::PUT, "/v1/data-streams/s1/cursors/c1");
    gateway
        .send(cursor.json(&json!({"begin": "earliest"})))
        .await
        .ok();
    (gateway, target)
}

async fn metrics(gateway: &Gateway, accept: &str) -> String {
    let request = gateway.request(Method::GET, "/metrics");
    let answer = gateway.send(request.header("accept", accept)).await.ok();
    answer.as_str().unwrap().to_owned()
}

/// Runs a program that reads `text`, to its end.
fn read_by(program: &Path, arguments: &[&str], text: String) -> Output {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    output
}

#[tokio::test]
async fn promtool_finds_no_fault_with_the_text_form() {
    let Some(tools) = tools("metrics::promtool_finds_no_fault_with_the_text_form") else {
        return;
    };
    let (gateway, _target) = measured().await;
    let text = metrics(&gateway, "text/plain").await;
    let promtool = tools.join("prometheus/usr/bin/promtool");
    let output = read_by(&promtool, &["check", "metrics"], text.clone());
    // It tells remarks and ends with 3, or an error and ends with 1.
    assert_eq!(lines(output), [""; 0], "{text}");
}

#[tokio::test]
async fn the_python_client_reads_open_metrics() {
    let Some(tools) = tools("metrics::the_python_client_reads_open_metrics") else {
        return;
    };
    let (gateway, _target) = measured().await;
    let text = metrics(&gateway, "application/openmetrics-text").await;
    let types = text.lines().filter(|line| line.starts_with("# TYPE "));
    let len = types.count();
    let script = format!("{SOURCES}/metrics.py");
    let python = tools.join("venv/bin/python");
    let read = lines(read_by(&python, &[&script], text.clone()));
    assert_eq!(read.len(), len, "{text}");
    for line in [
        "syncgate_target_failures counter 1",
        "syncgate_build info 1",
        "syncgate_cursor_lag_records gauge 1",
        "process_cpu_seconds counter 1",
    ] {
        assert!(read.iter().any(|read| read == line), "{line}: {read:#?}");
    }
}

/// A Prometheus, ended with the test.
struct Prometheus(Child);

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _ended = self.0.wait();
    }
}

#[tokio::test]
async fn a_prometheus_scrapes_with_the_configuration_that_we_give_away() {
    let test = "metrics::a_prometheus_scrapes_with_the_configuration_that_we_give_away";
    let Some(tools) = tools(test) else { return };
    let (gateway, _target) = measured().await;
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/config/prometheus.yml");
    let config = std::fs::read_to_string(config).unwrap();
    let mine = config
        .replace("127.0.0.1:9002", address(&gateway))
        .replace("15s", "1s");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("prometheus.yml");
    std::fs::write(&file, mine).unwrap();
    let mut child = Command::new(tools.join("prometheus/usr/bin/prometheus"))
        .arg("--web.listen-address=127.0.0.1:0")
        .arg(format!("--config.file={}", file.display()))
        .arg(format!(
            "--storage.tsdb.path={}",
            dir.path().join("tsdb").display()
        ))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = child.stderr.take().unwrap();
    let _prometheus = Prometheus(child);
    let mut log = BufReader::new(log);
    let mut said = String::new();
    let at = loop {
        let mut line = String::new();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "it ended: {said}");
        said += &line;
        let listening = line.contains("Listening on");
        let at = line.split_once("address=127.0.0.1:").filter(|_| listening);
        if let Some((_, port)) = at {
            break format!("127.0.0.1:{}", port.trim());
        }
    };
    // It goes on writing there, and must not wait for a reader.
    std::thread::spawn(move || log.read_to_end(&mut Vec::new()));
    let value = async |query: &str| -> Option<Value> {
        let url = format!("http://{at}/api/v1/query");
        let url = url::Url::parse_with_params(&url, [("query", query)]).unwrap();
        let request = reqwest::Client::new().get(url).send().await.ok()?;
        let answer: Value = request.json().await.ok()?;
        Some(answer["data"]["result"][0]["value"][1].clone()).filter(|value| !value.is_null())
    };
    for (query, expected) in [
        ("syncgate_accepted_messages_total", "2"),
        ("sum(syncgate_target_attempts_total)", "2"),
        (r#"syncgate_target_failures_total{outcome="5xx"}"#, "1"),
        (
            r#"syncgate_settled_records_total{stream="DataSyncStream",end="moved"}"#,
            "1",
        ),
        (r#"up{job="syncgate"}"#, "1"),
    ] {
        let came = poll(query, async || value(query).await).await;
        assert_eq!(came, expected, "{query}");
    }
}
