//! `syncgate check` says no where the start refuses, in the same words.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use reqwest::Method;
use serde_json::json;

use crate::testkit::{Place, StubTarget, keyed, poll, syncgate};

const OTHER_KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a command that must end by itself.
async fn ended(mut command: Command) -> Output {
    let piped = std::process::Stdio::piped;
    let mut child = command.stdout(piped()).stderr(piped()).spawn().unwrap();
    poll("the command to end", async || child.try_wait().unwrap()).await;
    child.wait_with_output().unwrap()
}

async fn check(place: &Place) -> Output {
    let mut check = syncgate();
    check.arg("check").arg("--config").arg(place.config_file());
    check.arg("--data").arg(place.data());
    ended(check).await
}

/// `start_code` is 2 where the settings are wrong, and 3 where something else is.
async fn refuses(place: &Place, start_code: i32, words: &str) {
    let checked = check(place).await;
    assert_eq!(checked.status.code(), Some(2), "{}", said(&checked));
    assert!(
        said(&checked).contains(words),
        "{words} not in {}",
        said(&checked)
    );
    let refused = place.start_refused().await;
    let code = refused.status.code();
    assert_eq!(code, Some(start_code), "{}", said(&refused));
    assert!(
        said(&refused).contains(words),
        "{words} not in {}",
        said(&refused)
    );
}

async fn passes(place: &Place) {
    let checked = check(place).await;
    assert_eq!(checked.status.code(), Some(0), "{}", said(&checked));
    assert_eq!(checked.stdout, b"ok\n");
}

fn pipe(path: &Path) {
    let made = Command::new("mkfifo")
        .args(["-m", "600"])
        .arg(path)
        .status();
    assert!(made.unwrap().success());
}

fn private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A stopped gateway with two partitions, which has sealed a token.
async fn lived(config: &str) -> Place {
    let target = StubTarget::start().await;
    let gateway = Place::with_config(config).start();
    let request = gateway
        .request(Method::POST, "/stream/sync")
        .header("authorization", "Bearer t");
    let message = keyed("k", &target.url("/x"), json!(1));
    gateway.send(request.json(&message)).await.ok();
    gateway.drained("DataSyncStream").await;
    gateway.stop().await
}

#[tokio::test]
async fn files_that_settings_name_are_read_as_the_start_reads_them() {
    let place = Place::new();
    let file = place.path().join("authorities.pem");
    let config = format!("[dispatch]\nca_file = \"{}\"\n", file.display());
    let place = place.configured(&config);
    let line = "line 2: dispatch.ca_file: ";
    let refused = async |words: &str| refuses(&place, 2, &format!("{line}{words}")).await;
    let shown = file.display();
    refused(&format!("{shown} cannot be read: No such file")).await;
    fs::write(&file, "hello").unwrap();
    refused(&format!("{shown} holds no certificate")).await;
    fs::write(
        &file,
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    refused(&format!("certificate 1 of {shown} cannot be used")).await;
    fs::remove_file(&file).unwrap();
    pipe(&file);
    refused(&format!("{shown} cannot be read: it is a pipe")).await;
    fs::remove_file(&file).unwrap();
    let good = "src/dispatch/tests/tls/authority.pem";
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join(good), &file).unwrap();
    passes(&place).await;
    // The configuration itself.
    fs::remove_file(place.config_file()).unwrap();
    pipe(&place.config_file());
    refuses(&place, 2, "syncgate.toml: cannot be read: it is a pipe").await;
}

#[tokio::test]
async fn settings_that_the_directory_forbids_are_refused_with_the_code_of_settings() {
    let hosts = "[server]\nhosts = [\"gate.example\"]\n";
    let place = lived("[[streams]]\nname = \"Orders\"\npartitions = 3\n").await;
    let place = place.configured(hosts);
    let words =
        "line 2: server.hosts: \"gate.example\" is a name for other machines, but there is no user";
    refuses(&place, 2, words).await;
    let place = place.configured("[[streams]]\nname = \"Orders\"\npartitions = 2\n");
    let words =
        "line 3: streams[0].partitions: [[streams]] gives Orders 2 partitions, but it has 3";
    refuses(&place, 2, words).await;
    let place = place.configured("[[streams]]\nname = \"audit\"\n");
    refuses(&place, 2, "line 2: streams[0].name: audit is reserved").await;
    // Without a directory, too, and `check` makes none.
    let place = Place::with_config("[roles]\nunavailable = \"audit\"\n");
    assert_eq!(check(&place).await.status.code(), Some(2));
    assert!(!place.data().exists());
    refuses(&place, 2, "line 2: roles.unavailable: audit is reserved").await;
    fs::remove_dir_all(place.data()).unwrap();
    fs::write(place.data(), "no directory").unwrap();
    let place = place.configured("# nothing\n");
    refuses(&place, 3, "cannot take the lock").await;
}

#[tokio::test]
async fn a_master_key_that_a_start_cannot_use_is_told_by_check() {
    let place = lived("# nothing\n").await;
    let key = place.data().join("master.key");
    let data = place.data();
    let good = fs::read_to_string(&key).unwrap();
    passes(&place).await;
    let give_up = format!(
        "`syncgate doctor --data {} --forget-secrets`",
        data.display()
    );
    let from = format!("the master key from the file {}", key.display());
    private(&key, OTHER_KEY);
    let wrong = "is not the one that the stored tokens were sealed with; put that one in its place, or give these tokens up";
    refuses(&place, 3, &format!("{from} {wrong}: {give_up}")).await;
    private(&key, "hello");
    let malformed = format!("{from} is not 32 bytes as base64; put the right key there");
    refuses(&place, 3, &malformed).await;
    // `doctor` has the same words.
    let mut doctor = syncgate();
    doctor.arg("doctor").arg("--data").arg(&data);
    let doctor = said(&ended(doctor).await);
    assert!(doctor.contains(&malformed), "{doctor}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    refuses(&place, 3, "is open to others (mode 644); chmod 600 it").await;
    fs::remove_file(&key).unwrap();
    let missing = "is missing, and tokens are sealed with it (1)";
    refuses(&place, 3, missing).await;
    pipe(&key);
    refuses(&place, 3, "it is a pipe; name a regular file").await;
    fs::remove_file(&key).unwrap();
    private(&key, &good);
    let place = place.configured("[secrets]\nmaster_key_env = \"NO_SUCH_KEY\"\n");
    let unset = "environment variable NO_SUCH_KEY with the master key is not set, or is empty";
    refuses(&place, 3, unset).await;
    // A command is not run by a look.
    let place = place.configured("[secrets]\nmaster_key_command = [\"false\"]\n");
    passes(&place).await;
    assert_eq!(place.start_refused().await.status.code(), Some(3));
    // A malformed key stops a start over no token, too, and `doctor` does not call that good.
    let place = Place::new().start().stop().await;
    private(&place.data().join("master.key"), "hello");
    let place = place.configured("# nothing\n");
    refuses(&place, 3, "is not 32 bytes as base64").await;
    let mut doctor = syncgate();
    doctor.arg("doctor").arg("--data").arg(place.data());
    let doctor = ended(doctor).await;
    assert_eq!(doctor.status.code(), Some(1), "{doctor:?}");
}

#[tokio::test]
async fn a_look_keeps_nobody_from_the_directory_and_changes_nothing() {
    let place = lived("# nothing\n").await;
    let lock = fs::read(place.data().join("LOCK")).unwrap();
    passes(&place).await;
    assert_eq!(fs::read(place.data().join("LOCK")).unwrap(), lock);
    // A gateway that runs has the lock, and its files go on to change.
    let gateway = place.start();
    passes(gateway.place()).await;
    let place = gateway
        .stop()
        .await
        .configured("[logging]\nlevel = \"loud\"\n");
    refuses(&place, 2, "line 2: logging.level: \"loud\" is not a level").await;
}
