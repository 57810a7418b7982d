//! Clients that others have written, against the binary: the sample of the protocol's documentation, the SDK of
//! CloudEvents, and what the AsyncAPI ecosystem makes of our documents.
//!
//! They need what cargo cannot bring: a directory, named by `SYNCGATE_TEST_CLIENTS`, with a Python environment in `venv`
//! (`requirements.txt`) and `node_modules` (`package.json`). `.ci/run` makes it. Without it these tests say that they are
//! skipped.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

use crate::harness::{Gateway, Place, keyed, within};

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/clients");

/// Where the programs find what they need; nothing if there is no such place.
fn tools(test: &str) -> Option<PathBuf> {
    let tools = std::env::var_os("SYNCGATE_TEST_CLIENTS").map(PathBuf::from);
    if tools.is_none() {
        skipped(test, "SYNCGATE_TEST_CLIENTS names no directory");
    }
    tools
}

/// Says so aloud: not by a macro, as the test runner keeps what those print to itself.
fn skipped(test: &str, why: &str) {
    let said = format!("skipped: clients::{test}: {why}\n");
    std::io::stderr().write_all(said.as_bytes()).unwrap();
}

/// Whether Node can run the generator, which wants a newer one than some systems have.
fn node_is_new() -> bool {
    let said = Command::new("node").arg("--version").output().unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let major = said.trim_start_matches('v').split('.').next();
    major.is_some_and(|major| major.parse::<u32>().is_ok_and(|major| major >= 20))
}

async fn run(program: &Path, script: &str, arguments: &[&str], tools: &Path) -> Output {
    // One that hangs is ended; a test that gives up would leave it.
    let mut command = Command::new("timeout");
    command
        .arg("50")
        .arg(program)
        .arg(format!("{SOURCES}/{script}"))
        .args(arguments)
        .env("NODE_PATH", tools.join("node_modules"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null());
    let ended = tokio::task::spawn_blocking(move || command.output());
    within(script, ended).await.unwrap().unwrap()
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

async fn node(tools: &Path, arguments: &[&str]) -> Vec<String> {
    lines(run(Path::new("node"), "documents.cjs", arguments, tools).await)
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

#[tokio::test]
async fn documents_are_valid_and_make_a_client_that_reads_and_pages_for_people() {
    let Some(tools) = tools("documents_are_valid_and_make_a_client_that_reads") else {
        return;
    };
    if !node_is_new() {
        skipped("documents", "the generator wants Node 20 or later");
        return;
    }
    let gateway = Gateway::start();
    let object = json!({"object": "SHOP.ORDERS", "url": "http://*/orders", "keys": ["n"],
                        "columns": {"n": {"type": "number"}, "at": {"type": "object"}}});
    for (name, members) in [
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
    ] {
        let mut config = json!({"source": {"trail": "a1"}});
        let members = members.as_object().unwrap().clone();
        config.as_object_mut().unwrap().extend(members);
        gateway
            .post(&format!("/services/v2/stream/{name}"), &config)
            .await
            .ok();
    }
    sync(&gateway, 3).await;
    let dir = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    let mut paths = vec!["/asyncapi.yaml".to_owned()];
    for name in ["s1", "events", "shop-1", "row.1"] {
        let path = format!("/services/v2/stream/{name}/yaml");
        paths.extend([path.clone(), format!("{path}?layout=pathname")]);
    }
    for (number, path) in paths.iter().enumerate() {
        let document = gateway.get(path).await;
        assert_eq!(document.status, 200);
        let file = dir.path().join(format!("{number}.yaml"));
        std::fs::write(&file, document.body.as_str().unwrap()).unwrap();
        files.push(file.to_str().unwrap().to_owned());
    }
    let arguments = ["parse"]
        .into_iter()
        .chain(files.iter().map(String::as_str));
    let parsed = node(&tools, &Vec::from_iter(arguments)).await;
    let one = |number| format!("{number}.yaml 3.0.0 1");
    let expected = ["0.yaml 3.0.0 4".to_owned()]
        .into_iter()
        .chain((1..9).map(one));
    assert_eq!(parsed, Vec::from_iter(expected));
    // That it can fail: a document without its channels' server.
    let broken = std::fs::read_to_string(&files[1])
        .unwrap()
        .replace("action: receive", "action: take");
    std::fs::write(&files[1], broken).unwrap();
    let refused = run(
        Path::new("node"),
        "documents.cjs",
        &["parse", &files[1]],
        &tools,
    )
    .await;
    assert!(!refused.status.success());

    // This template does not look at the address of a channel.
    let client = dir.path().join("client");
    let client = client.to_str().unwrap();
    let template = "core-template-client-websocket-python";
    node(
        &tools,
        &["generate", template, &files[2], client, "server=main"],
    )
    .await;
    let read = python(&tools, "generated.py", &[client, "4"]).await;
    let xids = read.iter().filter(|line| line.starts_with("xid "));
    assert_eq!(
        Vec::from_iter(xids),
        ["xid ddl.1", "xid 0.0", "xid 0.1", "xid 0.2"]
    );

    let pages = dir.path().join("pages");
    let pages = pages.to_str().unwrap();
    let template = "@asyncapi/html-template";
    node(
        &tools,
        &["generate", template, &files[0], pages, "singleFile=true"],
    )
    .await;
    let page = std::fs::read_to_string(dir.path().join("pages/index.html")).unwrap();
    assert!(page.contains("/services/v2/stream/shop-1"));
}
