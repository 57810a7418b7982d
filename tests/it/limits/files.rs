//! Files of the gateway: who may read them, which links are not followed, how much is read, what ends with it.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use serde_json::json;

use crate::testkit::{Place, StubTarget, message, poll, run_on, syncgate};

/// Starts the gateway where new files are open to everybody.
const OPEN: &[&str] = &["sh", "-c", "umask 000; exec \"$0\" \"$@\""];

/// Everything below a directory, and itself.
fn all_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_owned()];
    let mut at = 0;
    while at < found.len() {
        if found[at].is_dir() {
            let entries = fs::read_dir(&found[at]).unwrap();
            let entries: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
            found.extend(entries);
        }
        at += 1;
    }
    found
}

#[track_caller]
fn check_private(dir: &Path, least: usize) {
    let found = all_below(dir);
    assert!(found.len() >= least, "{found:?}");
    for path in found {
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let right = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, right, "{mode:o} {}", path.display());
    }
}

/// A directory in which something was stored and delivered.
async fn lived() -> Place {
    let target = StubTarget::start().await;
    let gateway = Place::new().started_by(OPEN).start();
    gateway.sync(&message(&target.url("/"), json!(1))).await;
    gateway.drained("DataSyncStream").await;
    gateway.stop().await
}

#[tokio::test]
async fn directories_and_files_are_their_owners_alone_and_doctor_names_those_that_are_not() {
    let place = lived().await;
    check_private(&place.data(), 8);
    let copy = place.path().join("copy");
    let (code, report, _) = run_on(&["backup", "create", copy.to_str().unwrap()], &place.data());
    assert_eq!(code, Some(0), "{report}");
    check_private(&copy, 3);
    let restored = place.path().join("restored");
    let (code, _, said) = run_on(&["backup", "restore", copy.to_str().unwrap()], &restored);
    assert_eq!(code, Some(0), "{said}");
    check_private(&restored, 3);
    let (_, report, _) = run_on(&["doctor"], &place.data());
    assert_eq!(report["openToOthers"]["count"], 0, "{report}");

    // As older releases made them.
    let segment = place.segments().remove(0);
    fs::set_permissions(place.data(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&segment, fs::Permissions::from_mode(0o644)).unwrap();
    let (code, report, _) = run_on(&["doctor"], &place.data());
    assert_eq!(code, Some(0), "{report}");
    let named = json!([place.data(), segment]);
    assert_eq!(report["openToOthers"], json!({"count": 2, "paths": named}));
    let said = syncgate()
        .arg("doctor")
        .arg("--data")
        .arg(place.data())
        .output()
        .unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let command = format!("chmod -R go= {}", place.data().display());
    assert!(
        said.contains("2 files and directories") && said.contains(&command),
        "{said}"
    );
    let gateway = place.start();
    assert!(
        gateway.place().log().contains("chmod -R go="),
        "{}",
        gateway.place().log()
    );
}

#[tokio::test]
async fn a_lock_file_that_is_a_link_or_another_files_second_name_is_not_written() {
    let place = Place::new();
    fs::create_dir_all(place.data().join("journal")).unwrap();
    let (victim, lock) = (place.path().join("victim"), place.data().join("LOCK"));
    fs::write(&victim, "precious").unwrap();
    symlink(&victim, &lock).unwrap();
    let (code, _, said) = run_on(&["doctor"], &place.data());
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert!(code == Some(1) && said.contains("LOCK"), "{said}");
    let refused = place.start_refused().await;
    assert_eq!(refused.status.code(), Some(3));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("LOCK"), "{said}");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    fs::remove_file(&lock).unwrap();
    fs::hard_link(&victim, &lock).unwrap();
    let gateway = place.start();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    gateway.stop().await;
}

#[tokio::test]
async fn no_link_inside_of_a_data_directory_is_followed() {
    let place = lived().await;
    let victim = place.path().join("victim");
    // The index is sled's, which follows links: it is set aside and made anew.
    let db = place.data().join("index").join("db");
    fs::rename(&db, &victim).unwrap();
    let before = fs::read(&victim).unwrap();
    symlink(&victim, &db).unwrap();
    let place = place.start().stop().await;
    assert_eq!(fs::read(&victim).unwrap(), before);
    assert!(!fs::symlink_metadata(&db).unwrap().is_symlink());
    // A file of the journal.
    let segment = place.segments().pop().unwrap();
    fs::rename(&segment, &victim).unwrap();
    symlink(&victim, &segment).unwrap();
    let before = fs::read(&victim).unwrap();
    assert_eq!(place.start_refused().await.status.code(), Some(3));
    assert_eq!(fs::read(&victim).unwrap(), before);
    fs::remove_file(&segment).unwrap();
    fs::rename(&victim, &segment).unwrap();
    // The key that we make ourselves.
    let key = place.data().join("master.key");
    fs::rename(&key, &victim).unwrap();
    symlink(&victim, &key).unwrap();
    let said = String::from_utf8(place.start_refused().await.stderr).unwrap();
    assert!(said.contains("cannot read the master key file"), "{said}");
    let copy = place.path().join("copy");
    let create = [
        "backup",
        "create",
        copy.to_str().unwrap(),
        "--with-master-key",
    ];
    let (code, _, said) = run_on(&create, &place.data());
    assert!(
        code == Some(1) && !copy.join("master.key").exists(),
        "{said}"
    );
    fs::remove_file(&key).unwrap();
    fs::rename(&victim, &key).unwrap();
    // The data directory itself may be a link.
    let elsewhere = place.path().join("elsewhere");
    fs::rename(place.data(), &elsewhere).unwrap();
    symlink(&elsewhere, place.data()).unwrap();
    let gateway = place.start();
    assert_eq!(gateway.records("DataSyncStream").await.len(), 1);
}

#[tokio::test]
async fn files_without_an_end_are_refused() {
    let place = Place::new();
    let check = |arguments: &[&str]| {
        let output = syncgate().args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("it has more than"), "{said}");
    };
    check(&["check", "--config", "/dev/zero"]);
    check(&["serve", "--config", "/dev/zero"]);
    check(&["sync", "/dev/null", "--token-file", "/dev/zero"]);
    let place = place.configured("[dispatch]\nca_file = \"/dev/zero\"\n");
    check(&["check", "--config", place.config_file().to_str().unwrap()]);
    let offsets = ["retry", "DataSyncStream", "--offset-file", "/dev/zero"];
    check(&offsets);
    let place = place.configured("[secrets]\nmaster_key_file = \"/dev/zero\"\n");
    assert_eq!(place.start_refused().await.status.code(), Some(3));
}

#[tokio::test]
async fn the_command_for_the_master_key_ends_with_the_start_that_waits_for_it() {
    let place = Place::new();
    let (shell, child) = (place.path().join("shell"), place.path().join("child"));
    // A shell with a child of its own, which holds the pipe too.
    let script = format!(
        "sleep 3600 & echo $! > {0}.new; mv {0}.new {0}; echo $$ > {1}.new; mv {1}.new {1}; wait",
        child.display(),
        shell.display()
    );
    let config = format!("[secrets]\nmaster_key_command = [\"sh\", \"-c\", \"{script}\"]\n");
    let gateway = place.configured(&config).start_slowly();
    let shell = poll("the command to run", async || {
        fs::read_to_string(&shell).ok()
    })
    .await;
    let pids = [shell, fs::read_to_string(&child).unwrap()];
    let proc = |pid: &String| Path::new("/proc").join(pid.trim()).join("stat");
    for pid in &pids {
        assert!(proc(pid).exists());
    }
    gateway.signal("TERM");
    let (status, place) = gateway.ended().await;
    assert!(status.success(), "{status} {}", place.log());
    for pid in &pids {
        poll("the command to end", async || {
            // What nobody has waited for yet is a zombie.
            let state = fs::read_to_string(proc(pid)).unwrap_or_default();
            (state.is_empty() || state.contains(") Z ")).then_some(())
        })
        .await;
    }
}
