//! `syncgate doctor` and `syncgate backup`: a damaged directory is explained, a copy is a directory of its own.

use std::{fs, path::Path};

use serde_json::json;

use crate::harness::{Act, Gateway, Place, StubTarget, keyed, run_on, syncgate};

/// A stopped gateway with some messages delivered and some failed, and files of two runs.
async fn lived() -> Place {
    let target = StubTarget::by_path().await;
    let gateway = Gateway::start();
    let messages: Vec<_> = (0..6)
        .map(|n| {
            let status = if n % 2 == 0 { 200 } else { 503 };
            keyed(
                &format!("k{n}"),
                &target.url(&format!("/{status}")),
                json!({ "n": n }),
            )
        })
        .collect();
    gateway.sync_all(&messages).await;
    gateway.drained("DataSyncStream").await;
    let gateway = gateway.stop().await.start();
    gateway.sync_all(&messages).await;
    gateway.drained("DataSyncStream").await;
    gateway.stop().await
}

fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 1;
    fs::write(file, bytes).unwrap();
}

/// Where the frames of a file begin: behind header and snapshot, both of which end before the first frame's magic.
fn first_frame(file: &Path) -> usize {
    let bytes = fs::read(file).unwrap();
    let found = bytes.windows(4).position(|four| four == b"SGFR");
    found.expect("a frame")
}

#[tokio::test]
async fn a_good_directory_is_called_good_and_one_in_use_is_left_alone() {
    let place = lived().await;
    let (code, report, said) = run_on(&["doctor"], &place.data());
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert_eq!(
        (&report["starts"], &report["hasIndex"]),
        (&json!(true), &json!(true))
    );
    for file in report["files"].as_array().unwrap() {
        assert_eq!(file["damages"], json!([]), "{file}");
        assert!(file["frames"].as_u64() > Some(0), "{file}");
    }
    let text = syncgate()
        .arg("doctor")
        .arg("--data")
        .arg(place.data())
        .output()
        .unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(
        text.ends_with("a gateway starts with this directory\n"),
        "{text}"
    );

    let gateway = place.start();
    for arguments in [
        &["doctor"][..],
        &["doctor", "--rebuild-index"],
        &["doctor", "--restored"],
    ] {
        let (code, _, said) = run_on(arguments, &gateway.place().data());
        assert_eq!(code, Some(1), "{arguments:?}");
        assert!(said.contains("in use by another process"), "{said}");
    }
    let nowhere = gateway.place().path().join("nowhere");
    for arguments in [
        &["doctor"][..],
        &["doctor", "--rebuild-index"],
        &["doctor", "--restored"],
    ] {
        let (code, _, said) = run_on(arguments, &nowhere);
        assert_eq!(code, Some(1), "{arguments:?}");
        assert!(said.contains("nowhere"), "{said}");
        assert!(!nowhere.exists());
    }
}

#[tokio::test]
async fn damage_in_an_old_file_is_named_and_a_gateway_starts_all_the_same() {
    let place = lived().await;
    let old = &place.segments()[0];
    let at = first_frame(old);
    flip(old, at + 60);
    let before = fs::read(old).unwrap();
    let (code, report, said) = run_on(&["doctor"], &place.data());
    assert_eq!((code, &report["starts"]), (Some(1), &json!(true)));
    assert!(said.contains("restore a backup"), "{said}");
    let damage = &report["files"][0]["damages"][0];
    assert_eq!(damage["at"], at);
    assert!(damage["goodAt"].as_u64() > Some(at as u64), "{damage}");
    assert_eq!(fs::read(old).unwrap(), before, "nothing is changed");
    let gateway = place.start();
    gateway.get("/readyz").await.ok();
}

#[tokio::test]
async fn damage_in_the_newest_file_is_why_a_gateway_does_not_start() {
    let place = lived().await;
    let newest = place.segments().pop().unwrap();
    flip(&newest, first_frame(&newest) + 60);
    let (code, report, said) = run_on(&["doctor"], &place.data());
    assert_eq!((code, &report["starts"]), (Some(1), &json!(false)));
    assert!(said.contains("is damaged at byte"), "{said}");
    let refused = place.start_refused().await;
    assert_eq!(refused.status.code(), Some(3));
    let why = String::from_utf8(refused.stderr).unwrap();
    assert!(why.contains("syncgate doctor"), "{why}");
}

#[tokio::test]
async fn an_index_is_made_anew_on_request() {
    let place = lived().await;
    let index = place.data().join("index/db");
    fs::write(&index, b"nonsense").unwrap();
    let (code, report, said) = run_on(&["doctor", "--rebuild-index"], &place.data());
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert!(report["indexedFiles"].as_u64() >= Some(1), "{report}");
    assert_eq!(
        fs::read(place.data().join("damaged/index/db")).unwrap(),
        b"nonsense"
    );
    let gateway = place.start();
    assert_eq!(gateway.all_records("DataSyncStream").await.len(), 12);
}

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
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("master key is not in the copy"), "{said}");
    assert!(report["files"].as_u64() >= Some(1), "{report}");
    let (code, _, said) = run_on(&["backup", "create", to], &gateway.place().data());
    assert_eq!(code, Some(1));
    assert!(said.contains("is not empty"), "{said}");
    gateway.sync(&message(20)).await;
    let (code, _, said) = run_on(&["verify"], &copy);
    assert_eq!((code, said.as_str()), (Some(0), ""));

    // Everything after the copy is lost, with the directory.
    let place = gateway.kill();
    // With its permissions.
    let key = copies.path().join("key");
    fs::copy(place.data().join("master.key"), &key).unwrap();
    fs::remove_dir_all(place.data()).unwrap();
    let (code, _, said) = run_on(&["backup", "restore", to], &place.data());
    assert_eq!(code, Some(0), "{said}");
    let (code, _, said) = run_on(&["backup", "restore", to], &place.data());
    assert_eq!(code, Some(1));
    assert!(said.contains("is not empty"), "{said}");
    fs::copy(key, place.data().join("master.key")).unwrap();
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
}

#[tokio::test]
async fn the_master_key_goes_along_only_when_asked_for_and_stays_private() {
    use std::os::unix::fs::PermissionsExt;
    let place = lived().await;
    let copies = tempfile::tempdir().unwrap();
    for (with_key, name) in [(false, "without"), (true, "with")] {
        let copy = copies.path().join(name);
        let mut arguments = vec!["backup", "create", copy.to_str().unwrap()];
        arguments.extend(with_key.then_some("--with-master-key"));
        let (code, _, said) = run_on(&arguments, &place.data());
        assert_eq!(code, Some(0), "{said}");
        let key = copy.join("master.key");
        assert_eq!(key.exists(), with_key);
        if with_key {
            let mode = fs::metadata(&key).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            let restored = copies.path().join("restored");
            let (code, _, said) = run_on(&["backup", "restore", copy.to_str().unwrap()], &restored);
            assert_eq!(code, Some(0), "{said}");
            let (here, there) = (place.data().join("master.key"), restored.join("master.key"));
            assert_eq!(fs::read(here).unwrap(), fs::read(there).unwrap());
        }
    }
}
