//! `syncgate doctor`: a damaged directory is explained, and what cannot be opened any more is given up.

use std::{fs, path::Path};

use serde_json::json;

use crate::testkit::{Gateway, Place, StubTarget, keyed, run_on, syncgate};

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
