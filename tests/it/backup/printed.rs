//! What `backup create` prints is all that somebody needs on an empty machine.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use reqwest::Method;
use serde_json::json;

use crate::testkit::{Act, Place, StubTarget, keyed, syncgate};

const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";
const VARIABLE: &str = "SYNCGATE_MASTER_KEY";

/// How the master key is kept, and what is said of it.
struct Case {
    /// Lines of `[secrets]`; `DIR` is the directory of the old machine.
    secrets: &'static str,
    with_master_key: bool,
    /// What the text must have.
    says: &'static str,
    /// A file that is gone with the machine, although it was not in the data directory.
    gone: Option<&'static str>,
    /// The key is brought as `./master.key`.
    brings_key: bool,
}

const IN_DATA: Case = Case {
    secrets: "",
    with_master_key: false,
    says: "DIR/data/master.key, which is not in the copy",
    gone: None,
    brings_key: true,
};

/// A process that ends with the test.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _dead = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// A shell command on the other machine: the binary is there, and the variables that were said to be needed.
fn shell(command: &str, dir: &Path, printed: &str) -> Command {
    let binary = PathBuf::from(syncgate().get_program());
    let path = std::env::var("PATH").unwrap();
    let mut shell = Command::new("sh");
    shell
        .args(["-e", "-c", &format!("exec {command}")])
        .current_dir(dir)
        .env_clear()
        .env(
            "PATH",
            format!("{}:{path}", binary.parent().unwrap().display()),
        );
    if printed.contains(&format!("the environment variable {VARIABLE} ")) {
        shell.env(VARIABLE, KEY.trim());
    }
    shell
}

async fn check(case: &Case) {
    let target = StubTarget::with(|_| Act::Hold).await;
    let place = Place::new();
    let dir = place.path().to_owned();
    let in_dir = |text: &str| text.replace("DIR", dir.to_str().unwrap());
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[secrets]\n{}\n[roles]\nsource = \"Orders\"\n",
        in_dir(case.secrets)
    );
    for name in ["named.key", "printed.key"] {
        let key = dir.join(name);
        fs::write(&key, KEY).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let place = place.configured(&config);
    let in_variable = case.secrets.contains(VARIABLE);
    let gateway = match in_variable {
        true => place.env(VARIABLE, KEY.trim()).start(),
        false => place.start(),
    };
    let token = "Bearer of-the-target";
    let message = keyed("k", &target.url("/x"), json!(1));
    let request = gateway
        .request(Method::POST, "/stream/sync")
        .header("authorization", token);
    gateway.send(request.json(&message)).await.ok();
    target.wait_for_calls(1).await;

    let copies = tempfile::tempdir().unwrap();
    let copy = copies.path().join("the copy");
    let mut create = syncgate();
    create.args(["backup", "create"]).arg(&copy);
    create.args(case.with_master_key.then_some("--with-master-key"));
    create
        .arg("--data")
        .arg(gateway.place().data())
        .arg("--config")
        .arg(gateway.place().config_file());
    if in_variable {
        create.env(VARIABLE, KEY.trim());
    }
    let created = create.output().unwrap();
    let said = String::from_utf8(created.stderr).unwrap();
    assert!(created.status.success(), "{said}");
    let printed = String::from_utf8(created.stdout).unwrap();
    assert!(printed.contains(&in_dir(case.says)), "{printed}");
    assert!(!printed.contains(KEY.trim()), "{printed}");
    assert!(printed.contains("roles.source"), "{printed}");
    let commands: Vec<_> = printed
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .collect();

    // The machine is gone, and the other one has what was said to be needed.
    let place = gateway.kill();
    let here = tempfile::tempdir().unwrap();
    if case.brings_key {
        // With its permissions.
        let brought = here.path().join("master.key");
        fs::copy(place.data().join("master.key"), brought).unwrap();
    }
    fs::remove_dir_all(place.data()).unwrap();
    if let Some(name) = case.gone {
        fs::remove_file(dir.join(name)).unwrap();
    }
    target.now(|_| Act::status(200));
    let (serve, before) = commands.split_last().expect("commands");
    for command in before {
        let done = shell(command, here.path(), &printed).output().unwrap();
        assert!(done.status.success(), "{command}: {done:?}");
    }
    let mut serve = shell(serve, here.path(), &printed);
    let log = fs::File::create(here.path().join("log")).unwrap();
    let mut started = Started(serve.stdout(Stdio::piped()).stderr(log).spawn().unwrap());
    let mut first = String::new();
    let stdout = started.0.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut first).unwrap();
    let log = fs::read_to_string(here.path().join("log")).unwrap();
    assert!(first.starts_with("listening on"), "{printed}\n{log}");
    target.wait_for_calls(2).await;
    assert_eq!(target.calls()[1].header("authorization"), Some(token));
}

#[tokio::test]
async fn a_copy_is_restored_and_started_by_the_commands_that_were_printed() {
    check(&IN_DATA).await;
}

#[tokio::test]
async fn a_copy_with_its_key_needs_no_other_one() {
    check(&Case {
        with_master_key: true,
        says: "the one in the copy",
        brings_key: false,
        ..IN_DATA
    })
    .await;
}

#[tokio::test]
async fn a_key_that_the_settings_name_is_said_to_be_needed_where_it_is() {
    check(&Case {
        secrets: "master_key_file = \"DIR/named.key\"",
        says: "DIR/named.key, which is not in the copy",
        brings_key: false,
        ..IN_DATA
    })
    .await;
    // In the copy it goes to its place by one of the commands.
    check(&Case {
        secrets: "master_key_file = \"DIR/named.key\"",
        with_master_key: true,
        says: "the one in the copy",
        gone: Some("named.key"),
        brings_key: false,
    })
    .await;
}

#[tokio::test]
async fn a_variable_or_a_command_with_the_key_is_said_to_be_needed() {
    check(&Case {
        secrets: "master_key_env = \"SYNCGATE_MASTER_KEY\"",
        says: "the environment variable SYNCGATE_MASTER_KEY with the master key",
        brings_key: false,
        ..IN_DATA
    })
    .await;
    check(&Case {
        secrets: "master_key_command = [\"cat\", \"DIR/printed.key\"]",
        says: "the command cat, which prints the master key",
        brings_key: false,
        ..IN_DATA
    })
    .await;
}
