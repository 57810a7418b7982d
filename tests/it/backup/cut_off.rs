//! The leftover of a run that was killed, and how the next run and a start treat it.

use std::{
    fs,
    os::unix::{fs::symlink, process::ExitStatusExt},
};

use super::{bounded, lived, names, said};
use crate::testkit::{run_on, syncgate};

const SIGXFSZ: i32 = 25;

#[tokio::test]
async fn a_backup_that_is_killed_has_no_name_and_the_next_run_tells() {
    let place = lived().await;
    let data = place.data();
    let copies = tempfile::tempdir().unwrap();
    let at = |name: &str| copies.path().join(name).to_str().unwrap().to_owned();
    let killed = bounded(true, &["backup", "create", &at("copy")], &data);
    assert_eq!(killed.status.signal(), Some(SIGXFSZ), "{}", said(&killed));
    assert_eq!(names(copies.path()), ["copy.incomplete"]);
    // Another copy, perhaps of another day, tells and touches nothing.
    let (code, _, told) = run_on(&["backup", "create", &at("other")], &data);
    assert_eq!(code, Some(0), "{told}");
    let what = format!("{} is what a backup has left", at("copy.incomplete"));
    assert!(told.contains(&what), "{told}");
    assert_eq!(names(copies.path()), ["copy.incomplete", "other"]);
    // The same one removes it, and says so.
    let (code, _, told) = run_on(&["backup", "create", &at("copy")], &data);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("an earlier run was cut off here"), "{told}");
    assert_eq!(names(copies.path()), ["copy", "other"]);
    let (code, _, told) = run_on(&["verify"], &copies.path().join("copy"));
    assert_eq!((code, told.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn what_only_looks_like_a_leftover_stays() {
    let place = lived().await;
    let copies = tempfile::tempdir().unwrap();
    let at = |name: &str| copies.path().join(name).to_str().unwrap().to_owned();
    let refused = |why: &str| {
        let (code, _, said) = run_on(&["backup", "create", &at("copy")], &place.data());
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(why), "{said}");
    };
    let incomplete = copies.path().join("copy.incomplete");
    fs::create_dir_all(incomplete.join("journal")).unwrap();
    fs::write(incomplete.join("letter"), "mine").unwrap();
    refused("is in the way");
    assert_eq!(names(&incomplete), ["journal", "letter"]);
    fs::remove_file(incomplete.join("letter")).unwrap();
    // Somebody may have called a data directory so.
    refused("is in the way");
    assert_eq!(names(&incomplete), ["journal"]);
    // Another process works on it.
    fs::write(incomplete.join("incomplete"), "").unwrap();
    let journal = fs::File::open(incomplete.join("journal")).unwrap();
    journal.lock().unwrap();
    refused("is in use by another process");
    assert_eq!(names(&incomplete), ["incomplete", "journal"]);
    drop(journal);
    fs::remove_dir_all(&incomplete).unwrap();
    // A link, which somebody may have put there to have its target written to or removed.
    let victim = copies.path().join("victim");
    fs::create_dir_all(victim.join("journal")).unwrap();
    symlink(&victim, &incomplete).unwrap();
    refused("is in the way");
    assert_eq!(names(&victim), ["journal"]);
}

#[tokio::test]
async fn a_restore_that_is_killed_does_not_start_and_is_done_again() {
    let place = lived().await;
    let copies = tempfile::tempdir().unwrap();
    let copy = copies.path().join("copy").to_str().unwrap().to_owned();
    let (code, ..) = run_on(
        &["backup", "create", &copy, "--with-master-key"],
        &place.data(),
    );
    assert_eq!(code, Some(0));
    fs::remove_dir_all(place.data()).unwrap();
    let killed = bounded(true, &["backup", "restore", &copy], &place.data());
    assert_eq!(killed.status.signal(), Some(SIGXFSZ), "{}", said(&killed));
    let left = ["restore.incomplete"];
    assert_eq!(names(&place.data()), left);
    // A start would begin another journal beside it, and nobody would see that the records are missing.
    let refused = place.start_refused().await;
    assert_eq!(refused.status.code(), Some(3));
    assert!(said(&refused).contains("was cut off"), "{}", said(&refused));
    for arguments in [&["doctor"][..], &["verify"]] {
        let (code, _, told) = run_on(arguments, &place.data());
        assert_eq!(code, Some(1), "{told}");
        assert!(told.contains("syncgate backup restore"), "{told}");
    }
    assert_eq!(names(&place.data()), left);
    let (code, _, told) = run_on(&["backup", "restore", &copy], &place.data());
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("an earlier run was cut off here"), "{told}");
    assert_eq!(names(&place.data()), ["index", "journal", "master.key"]);
    let gateway = place.start();
    assert_eq!(gateway.records("DataSyncStream").await.len(), 10);
    // Nor is a directory taken that a gateway works with.
    let data = gateway.place().data();
    let onto = syncgate()
        .args(["backup", "restore", &copy, "--data"])
        .arg(&data)
        .output()
        .unwrap();
    assert_eq!(onto.status.code(), Some(1));
    assert!(
        said(&onto).contains("in use by another process"),
        "{}",
        said(&onto)
    );
}

#[tokio::test]
async fn a_data_directory_with_the_name_of_a_leftover_stays() {
    let place = lived().await;
    let copies = tempfile::tempdir().unwrap();
    let at = |name: &str| copies.path().join(name).to_str().unwrap().to_owned();
    let create = |name: &str| run_on(&["backup", "create", &at(name)], &place.data());
    assert_eq!(create("monday").0, Some(0));
    let renamed = copies.path().join("monday.incomplete");
    fs::rename(copies.path().join("monday"), &renamed).unwrap();
    let before = names(&renamed);
    assert!(before.iter().any(|name| name == "journal"), "{before:?}");
    let (code, _, said) = create("monday");
    assert!(code == Some(1) && said.contains("is in the way"), "{said}");
    assert_eq!(names(&renamed), before);
}

#[tokio::test]
async fn a_copy_is_not_made_in_the_directory_that_it_is_of() {
    let place = lived().await;
    let before = names(&place.data());
    for inside in ["copy", "journal/copy", "journal/new/copy", "../data/copy"] {
        let to = place.data().join(inside).to_str().unwrap().to_owned();
        let (code, _, said) = run_on(&["backup", "create", &to], &place.data());
        assert_eq!(code, Some(1), "{inside}: {said}");
        assert!(said.contains("lies in the data directory itself"), "{said}");
    }
    assert_eq!(names(&place.data()), before);
    assert!(!place.data().join("journal/new").exists());
}
