//! A copy is whole, or there is nothing of it.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
};

use serde_json::json;

use super::{bounded, lived, names, said};
use crate::testkit::{Act, Gateway, Place, StubTarget, keyed, poll, run_on, syncgate};

#[tokio::test]
async fn a_copy_made_while_the_gateway_runs_goes_on_where_it_was_made_with_new_incarnations() {
    let target = StubTarget::with(|_| Act::Hold).await;
    let gateway = Gateway::start();
    let message = |n: usize| keyed(&format!("k{n}"), &target.url("/x"), json!({ "n": n }));
    for n in 0..20 {
        gateway.sync(&message(n)).await;
    }
    let first = gateway
        .get("/v1/streams/DataSyncStream/partitions/0/records/0")
        .await
        .ok();
    let copies = tempfile::tempdir().unwrap();
    let copy = copies.path().join("copy");
    let to = copy.to_str().unwrap();
    let (code, report, said) = run_on(&["backup", "create", to], &gateway.place().data());
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert!(report["files"].as_u64() >= Some(1), "{report}");
    assert_eq!(report["tokens"], 0);
    assert_eq!(report["needs"]["masterKey"], json!(null));
    assert_eq!(names(copies.path()), ["copy"]);
    let (code, _, said) = run_on(&["backup", "create", to], &gateway.place().data());
    assert_eq!(code, Some(1));
    assert!(said.contains("is not empty"), "{said}");
    gateway.sync(&message(20)).await;
    let (code, _, said) = run_on(&["verify"], &copy);
    assert_eq!((code, said.as_str()), (Some(0), ""));

    // Everything after the copy is lost, with the directory and the key, of which nothing needs it.
    let place = gateway.kill();
    fs::remove_dir_all(place.data()).unwrap();
    let (code, _, said) = run_on(&["backup", "restore", to], &place.data());
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert_eq!(names(&place.data()), ["index", "journal"]);
    let (code, _, said) = run_on(&["backup", "restore", to], &place.data());
    assert_eq!(code, Some(1));
    assert!(said.contains("is not empty"), "{said}");
    target.now(|_| Act::status(200));
    let gateway = place.start();
    gateway.drained("DataSyncStream").await;
    assert_eq!(gateway.count("DataSyncStream", "delivered").await, 20);
    let again = gateway
        .get("/v1/streams/DataSyncStream/partitions/0/records/0")
        .await
        .ok();
    assert_eq!(again["streamMessage"], first["streamMessage"]);
    assert_ne!(again["messageId"], first["messageId"]);
    assert_eq!(gateway.sync(&message(21)).await, 20);
    assert!(gateway.place().data().join("master.key").exists());
}

#[tokio::test]
async fn the_master_key_goes_along_only_when_asked_for_and_stays_private() {
    let place = lived().await;
    let copies = tempfile::tempdir().unwrap();
    for (with_key, name) in [(false, "without"), (true, "with")] {
        let copy = copies.path().join(name);
        let mut arguments = vec!["backup", "create", copy.to_str().unwrap()];
        arguments.extend(with_key.then_some("--with-master-key"));
        let (code, _, said) = run_on(&arguments, &place.data());
        assert_eq!(code, Some(0), "{said}");
        let mode =
            |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&copy), 0o700);
        assert_eq!(mode(&copy.join("journal")), 0o700);
        let key = copy.join("master.key");
        assert_eq!(key.exists(), with_key);
        if with_key {
            assert_eq!(mode(&key), 0o600);
            let restored = copies.path().join("restored");
            let (code, _, said) = run_on(&["backup", "restore", copy.to_str().unwrap()], &restored);
            assert_eq!(code, Some(0), "{said}");
            let (here, there) = (place.data().join("master.key"), restored.join("master.key"));
            assert_eq!(fs::read(here).unwrap(), fs::read(&there).unwrap());
            assert_eq!(mode(&there), 0o600);
            assert_eq!(mode(&restored), 0o700);
        }
    }
}

#[tokio::test]
async fn a_backup_that_fails_leaves_nothing() {
    let place = lived().await;
    let data = place.data();
    let copies = tempfile::tempdir().unwrap();
    let at = |name: &str| copies.path().join(name).to_str().unwrap().to_owned();
    let refused = |to: &str, options: &[&str], why: &str| {
        let before = names(copies.path());
        let arguments = [&["backup", "create", to], options].concat();
        let (code, _, said) = run_on(&arguments, &data);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(why), "{said}");
        assert_eq!(names(copies.path()), before, "{said}");
    };
    // A disk that takes no more; the directories above were made for the copy.
    let full = bounded(false, &["backup", "create", &at("a/b/copy")], &data);
    assert_eq!(full.status.code(), Some(1), "{}", said(&full));
    assert!(said(&full).contains("File too large"), "{}", said(&full));
    assert_eq!(names(copies.path()), [""; 0]);
    // What is in its place.
    fs::write(copies.path().join("file"), "mine").unwrap();
    refused(&at("file"), &[], "is no directory");
    fs::create_dir_all(copies.path().join("full/of")).unwrap();
    refused(&at("full"), &[], "is not empty");
    fs::create_dir(copies.path().join("empty")).unwrap();
    symlink(copies.path().join("empty"), copies.path().join("link")).unwrap();
    symlink("nowhere", copies.path().join("dangling")).unwrap();
    refused(&at("link"), &[], "is a link");
    refused(&at("link/"), &[], "is a link");
    refused(&at("dangling"), &[], "is a link");
    refused(&at(".."), &[], "has no name of its own");
    assert_eq!(names(&copies.path().join("empty")), [""; 0]);
    // A key that does not come along, and one that opens nothing.
    let (key, kept) = (data.join("master.key"), place.path().join("kept"));
    fs::rename(&key, &kept).unwrap();
    refused(&at("copy"), &["--with-master-key"], "is missing");
    fs::write(&key, "nonsense").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    refused(&at("copy"), &["--with-master-key"], "is not 32 bytes");
    fs::rename(&kept, &key).unwrap();
    // A damaged journal.
    let file = &place.segments()[0];
    let good = fs::read(file).unwrap();
    let mut bad = good.clone();
    let at_frame = bad.windows(4).position(|four| four == b"SGFR").unwrap();
    bad[at_frame + 60] ^= 1;
    fs::write(file, bad).unwrap();
    refused(&at("copy"), &[], "is damaged at byte");
    fs::write(file, good).unwrap();
    // An empty directory is a place.
    let (code, _, said) = run_on(&["backup", "create", &at("empty")], &data);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(names(&copies.path().join("empty")), ["journal"]);
}

#[tokio::test]
async fn a_restore_that_fails_leaves_nothing() {
    let place = lived().await;
    let copies = tempfile::tempdir().unwrap();
    let copy = copies.path().join("copy").to_str().unwrap().to_owned();
    let (code, _, said_by) = run_on(&["backup", "create", &copy], &place.data());
    assert_eq!(code, Some(0), "{said_by}");
    let before = names(copies.path());
    let absent = copies.path().join("x/y/data");
    let full = bounded(false, &["backup", "restore", &copy], &absent);
    assert_eq!(full.status.code(), Some(1), "{}", said(&full));
    assert_eq!(names(copies.path()), before);
    // The root of a volume stays.
    let volume = copies.path().join("volume");
    fs::create_dir_all(volume.join("lost+found")).unwrap();
    let full = bounded(false, &["backup", "restore", &copy], &volume);
    assert_eq!(full.status.code(), Some(1), "{}", said(&full));
    assert_eq!(names(&volume), ["lost+found"]);
    let (code, _, said_by) = run_on(&["backup", "restore", &copy], &volume);
    assert_eq!(code, Some(0), "{said_by}");
    assert_eq!(names(&volume), ["index", "journal", "lost+found"]);
    // A key that opens nothing in the copy.
    let foreign = copies.path().join("copy/master.key");
    fs::write(&foreign, "nonsense").unwrap();
    fs::set_permissions(&foreign, fs::Permissions::from_mode(0o600)).unwrap();
    let (code, _, said_by) = run_on(&["backup", "restore", &copy], &absent);
    assert_eq!(code, Some(1));
    assert!(said_by.contains("is not 32 bytes"), "{said_by}");
    assert!(!copies.path().join("x").exists());
}

/// What cannot be the file of a journal is not copied, and the error names the file that is there, not its copy.
#[tokio::test]
async fn a_restore_of_a_damaged_copy_names_the_file_in_the_copy() {
    let place = lived().await;
    let copies = tempfile::tempdir().unwrap();
    let copy = copies.path().join("copy");
    let (code, _, said) = run_on(&["backup", "create", copy.to_str().unwrap()], &place.data());
    assert_eq!(code, Some(0), "{said}");
    let file = copy.join("journal/0000000001.seg");
    let good = fs::read(&file).unwrap();
    let refused = |to: &str, why: &[&str]| {
        let to = copies.path().join(to);
        let (code, _, said) = run_on(&["backup", "restore", copy.to_str().unwrap()], &to);
        assert_eq!(code, Some(1), "{said}");
        for why in why {
            assert!(said.contains(why), "{why}: {said}");
        }
        assert!(!said.contains("restore.incomplete"), "{said}");
        assert_eq!(names(copies.path()), ["copy"], "{said}");
    };
    let advice = format!(
        "syncgate doctor --data {} --accept-loss {}",
        copy.display(),
        file.display()
    );
    let mut bad = good.clone();
    let at_frame = bad.windows(4).position(|four| four == b"SGFR").unwrap();
    bad[at_frame + 60] ^= 1;
    fs::write(&file, bad).unwrap();
    refused("damaged", &["is damaged at byte", &advice]);
    // Far longer than the files that a journal makes, with a good header and with none. Both are sparse.
    fs::write(&file, &good).unwrap();
    let set_len = |len| {
        fs::OpenOptions::new()
            .write(true)
            .open(&file)
            .unwrap()
            .set_len(len)
    };
    set_len(8 << 30).unwrap();
    refused(
        "long",
        &["0000000001.seg has 8589934592 bytes", "nothing was copied"],
    );
    set_len(0).unwrap();
    set_len(8 << 30).unwrap();
    refused("none", &["is damaged at byte 0", &advice]);
    fs::write(&file, &good).unwrap();
    let (code, _, said) = run_on(
        &["backup", "restore", copy.to_str().unwrap()],
        &copies.path().join("restored"),
    );
    assert_eq!(code, Some(0), "{said}");
}

/// Whenever the signal comes, there is a whole copy and the code says so, or nothing.
#[tokio::test]
async fn a_signal_ends_a_backup_and_leaves_nothing() {
    let target = StubTarget::with(|_| Act::Hold).await;
    let gateway = Gateway::start();
    for batch in 0..3 {
        let message = |n: usize| {
            let text = "x".repeat(900_000);
            keyed(&format!("{batch} {n}"), &target.url("/x"), json!(text))
        };
        gateway
            .sync_all(&(0..7).map(message).collect::<Vec<_>>())
            .await;
    }
    let place: Place = gateway.kill();
    let copies = tempfile::tempdir().unwrap();
    for signal in ["-TERM", "-INT", "-TERM", "-INT"] {
        let copy = copies.path().join("copy");
        let mut making = syncgate()
            .args(["backup", "create"])
            .arg(&copy)
            .arg("--data")
            .arg(place.data())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let begun = copies.path().join("copy.incomplete");
        poll("the copy to be begun", async || {
            (begun.exists() || copy.exists()).then_some(())
        })
        .await;
        let sent = std::process::Command::new("kill")
            .args([signal, &making.id().to_string()])
            .status();
        let status = poll("the end of the backup", async || making.try_wait().unwrap()).await;
        match status.code() {
            Some(0) => {
                assert_eq!(names(copies.path()), ["copy"]);
                fs::remove_dir_all(&copy).unwrap();
            }
            code => {
                // As shells have it for Ctrl-C.
                let expected = if signal == "-INT" { 130 } else { 1 };
                assert_eq!(code, Some(expected), "{signal} {sent:?}");
                assert_eq!(names(copies.path()), [""; 0]);
            }
        }
    }
}
