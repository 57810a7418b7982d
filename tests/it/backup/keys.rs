//! A copy whose key is another one, or cannot be tried, is made, and the command says so.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
};

use reqwest::Method;
use serde_json::{Value, json};

use super::{names, said};
use crate::testkit::{Gateway, Place, StubTarget, keyed, poll, syncgate};

const OTHER_KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";

/// A stopped gateway that has sealed a token.
async fn sealed() -> Place {
    let target = StubTarget::start().await;
    let gateway = Gateway::start();
    let request = gateway
        .request(Method::POST, "/stream/sync")
        .header("authorization", "Bearer t");
    let message = keyed("k", &target.url("/x"), json!(1));
    gateway.send(request.json(&message)).await.ok();
    gateway.drained("DataSyncStream").await;
    gateway.stop().await
}

/// Makes a copy with these lines of `[secrets]`: what it printed as text and as JSON, and what it said.
#[track_caller]
fn create(place: &Place, secrets: &str) -> (String, Value, String) {
    let config = place.path().join("backup.toml");
    fs::write(&config, format!("[secrets]\n{secrets}\n")).unwrap();
    let make = |form: &str| {
        let copies = tempfile::tempdir().unwrap();
        let mut create = syncgate();
        create
            .args(["backup", "create", "--output", form])
            .arg(copies.path().join("copy"));
        create.arg("--config").arg(&config);
        let created = create.arg("--data").arg(place.data()).output().unwrap();
        assert!(created.status.success(), "{}", said(&created));
        (
            String::from_utf8(created.stdout.clone()).unwrap(),
            said(&created),
        )
    };
    let (text, said) = make("text");
    let (json, said_again) = make("json");
    assert_eq!(said, said_again);
    (text, serde_json::from_str(&json).unwrap(), said)
}

#[tokio::test]
async fn a_key_that_does_not_open_the_tokens_or_cannot_be_tried_is_told() {
    let place = sealed().await;
    let key = place.data().join("master.key");
    let good = fs::read_to_string(&key).unwrap();
    let (text, report, told) = create(&place, "");
    assert_eq!(told, "");
    assert_eq!(report["needs"]["masterKeyFits"], true, "{report}");
    assert!(text.contains("which is not in the copy: 1 token"), "{text}");
    let file = key.display();
    let check = |secrets: &str, fits: Option<bool>, warning: &str| {
        let (text, report, told) = create(&place, secrets);
        assert_eq!(report["needs"]["masterKeyFits"], json!(fits), "{report}");
        assert_eq!(told, format!("warning: {warning}\n"));
        text
    };
    fs::write(&key, OTHER_KEY).unwrap();
    let text = check(
        "",
        Some(false),
        &format!(
            "the master key from the file {file} does not open the tokens in the copy; find the one that they were sealed \
             with, because the copy does not start with this one"
        ),
    );
    assert!(
        text.contains(&format!("- the right master key in the file {file};")),
        "{text}"
    );
    fs::write(&key, "hello").unwrap();
    check(
        "",
        Some(false),
        &format!(
            "the master key from the file {file} is not 32 bytes as base64; put the right key there; the copy does not \
             start with this one"
        ),
    );
    fs::remove_file(&key).unwrap();
    let text = check(
        "",
        Some(false),
        &format!("the master key file {file} is missing here; without it the copy does not start"),
    );
    assert!(text.contains("which is missing here: 1 token"), "{text}");
    let unknown = "so it is not known whether it opens the tokens in the copy";
    fs::write(&key, good).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    check(
        "",
        None,
        &format!(
            "the master key could not be tried (the master key file {file} is open to others (mode 640); chmod 600 it), {unknown}"
        ),
    );
    check(
        "master_key_env = \"NO_SUCH_KEY\"",
        None,
        &format!(
            "the master key could not be tried (environment variable NO_SUCH_KEY with the master key is not set, or is \
             empty), {unknown}"
        ),
    );
    check(
        "master_key_command = [\"cat\", \"/nowhere\"]",
        None,
        &format!(
            "the master key from the command cat was not tried, because a backup runs no command, {unknown}"
        ),
    );
}

#[tokio::test]
async fn a_restore_says_that_the_key_which_is_there_is_another_one() {
    let place = sealed().await;
    let named = place.path().join("named.key");
    fs::write(&named, OTHER_KEY).unwrap();
    fs::set_permissions(&named, fs::Permissions::from_mode(0o600)).unwrap();
    let copies = tempfile::tempdir().unwrap();
    let copy = copies.path().join("copy");
    let created = syncgate()
        .args(["backup", "create"])
        .arg(&copy)
        .arg("--data")
        .arg(place.data())
        .output()
        .unwrap();
    assert!(created.status.success(), "{}", said(&created));
    let restored = syncgate()
        .args(["backup", "restore"])
        .arg(&copy)
        .arg("--data")
        .arg(copies.path().join("data"))
        .env("SYNCGATE_SECRETS__MASTER_KEY_FILE", &named)
        .output()
        .unwrap();
    assert!(restored.status.success(), "{}", said(&restored));
    let told = said(&restored);
    assert!(
        told.starts_with("note: a start would refuse: the master key from the file ")
            && told.contains("is not the one that the stored tokens were sealed with"),
        "{told}"
    );
}

/// Runs a command that must not wait for a pipe.
async fn ended(mut command: Command) -> Output {
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    poll("the command to end", async || child.try_wait().unwrap()).await;
    child.wait_with_output().unwrap()
}

fn pipe(path: &Path) {
    let made = Command::new("mkfifo")
        .args(["-m", "600"])
        .arg(path)
        .status();
    assert!(made.unwrap().success());
}

#[tokio::test]
async fn a_pipe_in_place_of_a_file_ends_a_backup_and_is_not_waited_for() {
    let place = sealed().await;
    let copies = tempfile::tempdir().unwrap();
    let copy = copies.path().join("copy");
    let create = |options: &[&str]| {
        let mut create = syncgate();
        create.args(["backup", "create"]).arg(&copy).args(options);
        create.arg("--data").arg(place.data());
        create
    };
    let made = ended(create(&["--with-master-key"])).await;
    assert!(made.status.success(), "{}", said(&made));
    let key = copy.join("master.key");
    let journal = copy.join("journal");
    let segment = journal.join(&names(&journal)[0]);
    let is_refused = |output: &Output| {
        let told = said(output);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains("it is a pipe; name a regular file"), "{told}");
    };
    for file in [&key, &segment] {
        let kept = copies.path().join("kept");
        fs::rename(file, &kept).unwrap();
        pipe(file);
        let data = copies.path().join("data");
        let mut restore = syncgate();
        restore.args(["backup", "restore"]).arg(&copy);
        restore.arg("--data").arg(&data);
        is_refused(&ended(restore).await);
        assert!(!data.exists());
        fs::remove_file(file).unwrap();
        fs::rename(&kept, file).unwrap();
    }
    fs::remove_dir_all(&copy).unwrap();
    // Where a backup is made, and in the data directory.
    let incomplete = copies.path().join("copy.incomplete");
    fs::create_dir(&incomplete).unwrap();
    fs::write(incomplete.join("incomplete"), "").unwrap();
    pipe(&incomplete.join("journal"));
    let output = ended(create(&[])).await;
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    fs::remove_dir_all(&incomplete).unwrap();
    let segment = &place.segments()[0];
    fs::rename(segment, place.path().join("kept")).unwrap();
    pipe(segment);
    is_refused(&ended(create(&[])).await);
}
