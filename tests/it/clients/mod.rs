//! Clients that others have written, against the binary: the sample of the protocol's documentation, the SDK of
//! CloudEvents, what the AsyncAPI ecosystem makes of our documents, and readers of metrics.
//!
//! They need what cargo cannot bring: a directory, named by `SYNCGATE_TEST_CLIENTS`, with a Python environment in `venv`
//! (`requirements.txt`, with Node in it), `node_modules` (`package.json`) and `prometheus` (Debian's package, unpacked). `.ci/run` makes it. Without the name these
//! tests say that they are skipped; with it, what is missing there fails them.

mod metrics;

use std::{
    ffi::OsString,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use reqwest::Method;
use serde_json::{Value, json};

use crate::testkit::{Gateway, Place, keyed};

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/clients");
/// The newest one of all.
const GENERATOR: &str = "@asyncapi/generator";
/// Its JavaScript clients run; those of the newest one require a package that is not published.
const GENERATOR_2: &str = "generator-2";

/// Where the programs find what they need; nothing if there is no such place.
fn tools(test: &str) -> Option<PathBuf> {
    tools_in(std::env::var_os("SYNCGATE_TEST_CLIENTS"), test)
}

fn tools_in(named: Option<OsString>, test: &str) -> Option<PathBuf> {
    let Some(named) = named else {
        // Not by a macro, as the test runner keeps what those print to itself.
        let said = format!("skipped: clients::{test}: SYNCGATE_TEST_CLIENTS names no directory\n");
        std::io::stderr().write_all(said.as_bytes()).unwrap();
        return None;
    };
    let tools = PathBuf::from(named);
    for needed in [
        "venv/bin/python",
        "venv/bin/node",
        "node_modules",
        "prometheus/usr/bin/promtool",
        "prometheus/usr/bin/prometheus",
    ] {
        let needed = tools.join(needed);
        assert!(needed.exists(), "{} is missing", needed.display());
    }
    Some(tools)
}

async fn run(program: &Path, script: &str, arguments: &[&str], tools: &Path) -> Output {
    // One that hangs is ended. Pages take 15 s on a machine that has nothing else to do.
    let mut command = Command::new("timeout");
    command
        .arg("180")
        .arg(program)
        .arg(format!("{SOURCES}/{script}"))
        .args(arguments)
        .env("NODE_PATH", tools.join("node_modules"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null());
    let ended = tokio::task::spawn_blocking(move || command.output());
    ended.await.unwrap().unwrap()
}

/// Lines of a program that has ended well.
fn lines(output: Output) -> Vec<String> {
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{}: {out}{err}", output.status);
    out.lines().map(str::to_owned).collect()
}

async fn python(tools: &Path, script: &str, arguments: &[&str]) -> Vec<String> {
    let program = tools.join("venv/bin/python");
    lines(run(&program, script, arguments, tools).await)
}

async fn node(tools: &Path, script: &str, arguments: &[&str]) -> Vec<String> {
    let program = tools.join("venv/bin/node");
    lines(run(&program, script, arguments, tools).await)
}

/// What a generator's template makes of a document.
async fn generate(tools: &Path, with: [&str; 2], file: &Path, into: &Path, parameter: &str) {
    let [generator, template] = with;
    let (file, into) = (file.to_str().unwrap(), into.to_str().unwrap());
    let arguments = ["generate", generator, template, file, into, parameter];
    node(tools, "documents.cjs", &arguments).await;
}

fn address(gateway: &Gateway) -> &str {
    gateway.url.strip_prefix("http://").unwrap()
}

async fn sync(gateway: &Gateway, count: usize) {
    let one = |n| {
        keyed(
            &format!("k{n}"),
            "http://127.0.0.1:9/orders",
            json!({ "n": n }),
        )
    };
    gateway.sync_all(&Vec::from_iter((0..count).map(one))).await;
}

#[tokio::test]
async fn the_sample_client_of_the_protocol_reads_and_resumes() {
    let Some(tools) = tools("the_sample_client_of_the_protocol_reads_and_resumes") else {
        return;
    };
    let gateway = Gateway::start();
    sync(&gateway, 5).await;
    let at = address(&gateway).to_owned();
    let all = python(&tools, "seed.py", &[&at, "earliest", "6"]).await;
    let xids: Vec<_> = all
        .iter()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(xids, ["ddl.1", "0.0", "0.1", "0.2", "0.3", "0.4"]);
    let pos = all[3].split(' ').nth(1).unwrap();
    assert_eq!(python(&tools, "seed.py", &[&at, pos, "2"]).await, all[4..]);
    drop(gateway);

    let place = Place::new()
        .env("SYNCGATE_ADMIN_USER", "ada")
        .env("SYNCGATE_ADMIN_PASSWORD", "correct-horse-battery");
    let gateway = place.start();
    sync(&gateway, 2).await;
    let at = address(&gateway);
    let known = [at, "earliest", "3", "ada", "correct-horse-battery"];
    assert_eq!(python(&tools, "seed.py", &known).await.len(), 3);
    let program = tools.join("venv/bin/python");
    let unknown = [at, "earliest", "3", "ada", "wrong"];
    let refused = run(&program, "seed.py", &unknown, &tools).await;
    assert!(!refused.status.success());
}

#[tokio::test]
async fn the_sdk_of_cloud_events_takes_every_event() {
    let Some(tools) = tools("the_sdk_of_cloud_events_takes_every_event") else {
        return;
    };
    let gateway = Gateway::start();
    let config = json!({"source": {"trail": "a1"}, "cloudEventsFormat": true});
    gateway.post("/services/v2/stream/s1", &config).await.ok();
    sync(&gateway, 2).await;
    let shown = python(&tools, "events.py", &[address(&gateway), "3"]).await;
    let shown: Vec<Value> = shown
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let event = |kind: &str, key: Value, xid: &str| {
        json!({"type": format!("syncgate.datastream.{kind}.v1"), "subject": "SYNCGATE.DataSyncStream",
               "source": "/services/v2/stream/s1", "key": key, "data": xid})
    };
    let expected = [
        event("ddl", Value::Null, "ddl.1"),
        event("insert", json!("k0"), "0.0"),
        event("insert", json!("k1"), "0.1"),
    ];
    // In arrays, and as messages of their own.
    assert_eq!(shown, [&expected[..], &expected[..]].concat());
}

/// Makes data streams of every kind.
async fn create_all(gateway: &Gateway) -> [&'static str; 4] {
    let object = json!({"object": "SHOP.ORDERS", "url": "http://*/orders", "keys": ["n"],
                        "columns": {"n": {"type": "number"}, "at": {"type": "object"}}});
    let all = [
        ("s1", json!({})),
        ("events", json!({"cloudEventsFormat": true})),
        (
            "shop-1",
            json!({"x-syncgate": {"view": "operations", "objects": [object]}}),
        ),
        (
            "row.1",
            json!({"encoding": {"json": {"model": "row", "treatAllColumnsAsStrings": true,
                   "metaFields": {"csn": true, "opTs": "at"}, "staticFields": {"from": "here"}}}}),
        ),
    ];
    for (name, members) in &all {
        let mut config = json!({"source": {"trail": "a1"}});
        let members = members.as_object().unwrap().clone();
        config.as_object_mut().unwrap().extend(members);
        gateway
            .post(&format!("/services/v2/stream/{name}"), &config)
            .await
            .ok();
    }
    all.map(|(name, _)| name)
}

/// Writes a document as it is served.
async fn fetch(gateway: &Gateway, path: &str, file: &Path) {
    let document = gateway.get(path).await;
    assert_eq!(document.status, 200);
    std::fs::write(file, document.body.as_str().unwrap()).unwrap();
}

#[tokio::test]
async fn documents_are_valid() {
    let Some(tools) = tools("documents_are_valid") else {
        return;
    };
    let gateway = Gateway::start();
    let mut paths = vec!["/asyncapi.yaml".to_owned()];
    for name in create_all(&gateway).await {
        let path = format!("/services/v2/stream/{name}/yaml");
        paths.extend([path.clone(), format!("{path}?layout=pathname")]);
    }
    let dir = tempfile::tempdir().unwrap();
    let file = |number: usize| dir.path().join(format!("{number}.yaml"));
    let mut arguments = vec!["parse".to_owned()];
    for (number, path) in paths.iter().enumerate() {
        fetch(&gateway, path, &file(number)).await;
        arguments.push(file(number).to_str().unwrap().to_owned());
    }
    // One more has a security scheme.
    let guarded = Place::new()
        .env("SYNCGATE_ADMIN_USER", "ada")
        .env("SYNCGATE_ADMIN_PASSWORD", "correct-horse-battery")
        .start();
    let as_ada = async |method, path: &str| {
        let request = guarded.request(method, path);
        let request = request.basic_auth("ada", Some("correct-horse-battery"));
        let config = json!({"source": {"trail": "a1"}});
        guarded.send(request.json(&config)).await
    };
    as_ada(Method::POST, "/services/v2/stream/s1").await.ok();
    let served = as_ada(Method::GET, "/asyncapi.yaml").await;
    let text = served.body.as_str().unwrap();
    assert!(text.contains("securitySchemes:"), "{text}");
    let number = paths.len();
    std::fs::write(file(number), text).unwrap();
    arguments.push(file(number).to_str().unwrap().to_owned());
    let arguments = Vec::from_iter(arguments.iter().map(String::as_str));
    let parsed = node(&tools, "documents.cjs", &arguments).await;
    let one = |number| format!("{number}.yaml 3.0.0 1");
    let expected = ["0.yaml 3.0.0 4".to_owned()]
        .into_iter()
        .chain((1..=number).map(one));
    assert_eq!(parsed, Vec::from_iter(expected));

    // That it can fail.
    let broken = std::fs::read_to_string(file(1))
        .unwrap()
        .replace("action: receive", "action: take");
    std::fs::write(file(1), broken).unwrap();
    let program = tools.join("venv/bin/node");
    let refused = run(&program, "documents.cjs", &arguments[..3], &tools).await;
    assert!(!refused.status.success());
}

#[tokio::test]
async fn clients_that_the_generator_has_made_receive_records() {
    let Some(tools) = tools("clients_that_the_generator_has_made_receive_records") else {
        return;
    };
    let gateway = Gateway::start();
    create_all(&gateway).await;
    sync(&gateway, 3).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("s1.yaml");
    // These templates do not look at the address of a channel.
    let path = "/services/v2/stream/s1/yaml?layout=pathname";
    fetch(&gateway, path, &file).await;

    let client = dir.path().join("python");
    let with = [GENERATOR, "core-template-client-websocket-python"];
    generate(&tools, with, &file, &client, "server=main").await;
    let read = python(&tools, "generated.py", &[client.to_str().unwrap(), "4"]).await;
    let xids = |read: Vec<String>| {
        let xids = read.iter().filter_map(|line| line.strip_prefix("xid "));
        Vec::from_iter(xids.map(str::to_owned))
    };
    let expected = ["ddl.1", "0.0", "0.1", "0.2"];
    assert_eq!(xids(read), expected);

    let client = dir.path().join("javascript");
    let with = [GENERATOR_2, "core-template-client-websocket-javascript"];
    generate(&tools, with, &file, &client, "server=main").await;
    let read = node(&tools, "generated.cjs", &[client.to_str().unwrap(), "4"]).await;
    assert_eq!(xids(read), expected);
}

#[tokio::test]
async fn a_document_makes_pages_for_people() {
    let Some(tools) = tools("a_document_makes_pages_for_people") else {
        return;
    };
    let gateway = Gateway::start();
    create_all(&gateway).await;
    let dir = tempfile::tempdir().unwrap();
    let (file, pages) = (dir.path().join("all.yaml"), dir.path().join("pages"));
    fetch(&gateway, "/asyncapi.yaml", &file).await;
    let with = [GENERATOR, "@asyncapi/html-template"];
    generate(&tools, with, &file, &pages, "singleFile=true").await;
    let page = std::fs::read_to_string(pages.join("index.html")).unwrap();
    assert!(page.contains("/services/v2/stream/shop-1"));
}

#[test]
#[should_panic(expected = "venv/bin/python is missing")]
fn a_directory_without_what_is_needed_fails_the_tests() {
    let empty = tempfile::tempdir().unwrap();
    drop(tools_in(Some(empty.path().into()), "none"));
}
