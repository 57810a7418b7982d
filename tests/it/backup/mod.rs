//! `syncgate backup`: a copy is whole or is not there, and it can be restored and started by what its making has printed.

mod cut_off;
mod keys;
mod printed;
mod whole;

use std::{fs, path::Path, process::Output};

use serde_json::json;

use crate::testkit::{Gateway, Place, StubTarget, keyed, syncgate};

/// A stopped gateway whose journal has about 200 KB.
async fn lived() -> Place {
    let target = StubTarget::start().await;
    let gateway = Gateway::start();
    for n in 0..10 {
        let text = "x".repeat(20_000);
        gateway
            .sync(&keyed(&format!("k{n}"), &target.url("/x"), json!(text)))
            .await;
    }
    gateway.drained("DataSyncStream").await;
    gateway.stop().await
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// Runs the binary with a bound for each file that it writes, 64 KiB at most. A write beyond that fails, or kills it.
fn bounded(kills: bool, arguments: &[&str], data: &Path) -> Output {
    let ignores = if kills { "" } else { "trap '' XFSZ; " };
    let script = format!("{ignores}ulimit -c 0; ulimit -f 64; exec \"$0\" \"$@\"");
    let binary = syncgate();
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", &script])
        .arg(binary.get_program())
        .args(arguments)
        .arg("--data")
        .arg(data);
    for (name, value) in binary.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
