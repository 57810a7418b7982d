//! `syncgate doctor --accept-loss`: a damaged directory goes on without what cannot be read, and says what that was.

use std::{collections::BTreeSet, fs, path::PathBuf};

use serde_json::{Value, json};

use crate::testkit::{Act, Gateway, Place, StubTarget, keyed, poll, run_on, syncgate};

/// Spoils the value of a record, which is told by a word in it; returns the file.
pub(crate) fn spoil(place: &Place, word: &str) -> PathBuf {
    for file in place.segments() {
        let mut bytes = fs::read(&file).unwrap();
        let found = bytes
            .windows(word.len())
            .position(|part| part == word.as_bytes());
        if let Some(at) = found {
            bytes[at] ^= 1;
            fs::write(&file, bytes).unwrap();
            return file;
        }
    }
    panic!("{word} is nowhere");
}

/// A target that is down, and a stopped gateway with messages that wait for it.
pub(crate) async fn waiting(words: &[&str]) -> (StubTarget, Place) {
    let target = StubTarget::with(|_| Act::Hold).await;
    let gateway = Gateway::start();
    for word in words {
        gateway
            .sync(&keyed(word, &target.url("/x"), json!({ "word": word })))
            .await;
    }
    (target, gateway.kill())
}

/// The words that a target got, once there are so many. A word may come twice: the target may have read the call of a
/// gateway that was killed only after that.
async fn words(target: &StubTarget, count: usize) -> Vec<String> {
    poll("calls", async || {
        let calls = target.calls();
        let word = |at: usize| calls[at].json()["word"].as_str().unwrap().to_owned();
        let answered = target.answered().into_iter();
        let words: BTreeSet<_> = answered.map(|(at, _)| word(at)).collect();
        (words.len() >= count).then(|| words.into_iter().collect())
    })
    .await
}

fn verified(place: &Place) -> Value {
    let (code, report, said) = run_on(&["verify"], &place.data());
    assert_eq!((code, said.as_str()), (Some(0), ""), "{report}");
    report
}

#[tokio::test]
async fn a_damaged_newest_file_is_given_up_as_far_as_it_cannot_be_read_and_the_rest_is_delivered() {
    let (target, place) = waiting(&["alder", "birch", "cedar", "dogwood"]).await;
    let file = spoil(&place, "birch");
    let spoilt = fs::read(&file).unwrap();
    let name = file.to_str().unwrap();
    let refused = place.start_refused().await;
    let why = String::from_utf8(refused.stderr).unwrap();
    assert!(why.contains("--accept-loss") && why.contains(name), "{why}");

    let (code, report, _) = run_on(&["doctor"], &place.data());
    assert_eq!(code, Some(1));
    let lost = json!([{
        "stream": "DataSyncStream", "partition": 0, "offsets": [{"first": 1, "last": 1}], "ended": 0, "open": 1,
    }]);
    assert_eq!(report["wouldLose"]["records"], lost);
    assert_eq!(fs::read(&file).unwrap(), spoilt, "nothing is changed");

    let (code, report, said) = run_on(&["doctor", "--accept-loss", name], &place.data());
    assert_eq!((code, said.as_str()), (Some(0), ""));
    let accepted = &report["accepted"];
    assert_eq!(
        (&accepted["records"], &accepted["moreMayBeLost"]),
        (&lost, &json!(false))
    );
    let kept = accepted["files"][0]["keptAs"].as_str().unwrap();
    assert_eq!(fs::read(kept).unwrap(), spoilt);
    // Once more: it is done.
    let (code, _, said) = run_on(&["doctor", "--accept-loss", name], &place.data());
    assert_eq!(code, Some(0), "{said}");
    let (code, report, said) = run_on(&["doctor"], &place.data());
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert_eq!(report["acceptedLosses"].as_array().unwrap().len(), 1);
    assert_eq!(report["acceptedLosses"][0]["recordsOpen"], 1);

    target.now(|_| Act::status(200));
    let gateway = place.start();
    assert_eq!(words(&target, 3).await, ["alder", "cedar", "dogwood"]);
    gateway.drained("DataSyncStream").await;
    let lost = "/v1/streams/DataSyncStream/partitions/0/records/1";
    gateway.get(lost).await.problem(410, "record_lost");
    let offsets: Vec<_> = gateway.all_records("DataSyncStream").await;
    let offsets: Vec<_> = offsets
        .iter()
        .map(|record| record["offset"].clone())
        .collect();
    assert_eq!(offsets, [0, 2, 3]);
    assert_eq!(
        gateway
            .sync(&keyed("k", &target.url("/x"), json!({"word": "elm"})))
            .await,
        4
    );
    gateway.drained("DataSyncStream").await;
    let ledger = gateway.get("/v1/ledger").await.ok();
    assert_eq!(
        (&ledger["balanced"], &ledger["acceptedLosses"]),
        (&json!(true), &json!(1))
    );
    assert_eq!(
        (&ledger["total"]["lost"], &ledger["total"]["delivered"]),
        (&json!(1), &json!(4))
    );
    // A replay passes over it as well.
    let replayed = gateway.retry("DataSyncStream", -1, 100).await;
    let counts = (
        &replayed["processedmessages"],
        &replayed["skipped"],
        &replayed["endOfStream"],
    );
    assert_eq!(counts, (&json!(4), &json!(1), &json!(true)), "{replayed}");
    let place = gateway.stop().await;
    assert_eq!(verified(&place)["total"]["lost"], 1);
    let copies = tempfile::tempdir().unwrap();
    let copy = copies.path().join("copy");
    let (code, _, said) = run_on(&["backup", "create", copy.to_str().unwrap()], &place.data());
    assert_eq!(code, Some(0), "{said}");
    let restored = copies.path().join("restored");
    let (code, _, said) = run_on(&["backup", "restore", copy.to_str().unwrap()], &restored);
    assert_eq!(code, Some(0), "{said}");
    let (code, report, said) = run_on(&["verify"], &restored);
    assert_eq!((code, said.as_str()), (Some(0), ""), "{report}");
}

#[tokio::test]
async fn dispatch_waits_at_damage_in_an_older_file_says_so_and_goes_on_once_it_is_given_up() {
    let (target, place) = waiting(&["alder", "birch", "cedar"]).await;
    let gateway = place.start();
    // What follows is in a later file.
    gateway
        .sync(&keyed("d", &target.url("/x"), json!({"word": "dogwood"})))
        .await;
    let place = gateway.kill();
    let file = spoil(&place, "birch");
    target.now(|_| Act::status(200));
    let gateway = place.start();
    let metric = poll("the metric", async || {
        let text = gateway
            .request(reqwest::Method::GET, "/metrics")
            .send()
            .await
            .unwrap();
        let text = text.text().await.unwrap();
        text.contains("syncgate_unreadable_partitions 1")
            .then_some(text)
    });
    metric.await;
    gateway.get("/readyz").await.ok();
    let place = gateway.stop().await;
    let log = place.log();
    let said = log
        .lines()
        .find(|line| line.contains("read failed; records from this offset on are not dispatched"));
    let said = said.unwrap_or_else(|| panic!("{log}"));
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(
        said.contains(name) && said.contains("syncgate doctor"),
        "{said}"
    );

    let (code, report, said) = run_on(&["doctor", "--accept-loss", name], &place.data());
    assert_eq!((code, said.as_str()), (Some(0), ""), "{report}");
    assert_eq!(report["accepted"]["moreMayBeLost"], false);
    let gateway = place.start();
    gateway.drained("DataSyncStream").await;
    let ledger = gateway.get("/v1/ledger").await.ok();
    assert_eq!(
        (&ledger["total"]["lost"], &ledger["total"]["delivered"]),
        (&json!(1), &json!(3))
    );
    assert_eq!(words(&target, 3).await, ["alder", "cedar", "dogwood"]);
    verified(&gateway.stop().await);
}

#[tokio::test]
async fn where_newest_records_may_be_lost_no_message_id_is_used_twice() {
    let (target, place) = waiting(&["alder", "birch", "cedar"]).await;
    // The target answers no call before the end of this gateway, so nothing is gained by waiting for it.
    let gateway = place.env("SYNCGATE_SERVER__GRACE_MS", "0").start();
    let first = "/v1/streams/DataSyncStream/partitions/0/records/0";
    let before = gateway.get(first).await.ok();
    let place = gateway.stop().await;
    let newest = place.segments().pop().unwrap();
    let mut bytes = fs::read(&newest).unwrap();
    bytes[..8192].fill(0);
    fs::write(&newest, bytes).unwrap();
    let name = newest.file_name().unwrap().to_str().unwrap();
    let (code, report, said) = run_on(&["doctor", "--accept-loss", name], &place.data());
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert_eq!(report["accepted"]["moreMayBeLost"], true);
    assert!(
        report["accepted"]["renewedStreams"].as_u64() >= Some(5),
        "{report}"
    );
    target.now(|_| Act::status(200));
    let gateway = place.start();
    gateway.drained("DataSyncStream").await;
    let after = gateway.get(first).await.ok();
    assert_eq!(after["streamMessage"], before["streamMessage"]);
    assert_ne!(after["messageId"], before["messageId"]);
    verified(&gateway.stop().await);
}

#[tokio::test]
async fn what_is_not_damaged_is_not_given_up() {
    let (_target, place) = waiting(&["alder"]).await;
    let file = place.segments().remove(0);
    let before = fs::read(&file).unwrap();
    let (code, _, said) = run_on(
        &["doctor", "--accept-loss", file.to_str().unwrap()],
        &place.data(),
    );
    assert_eq!(code, Some(1));
    assert!(
        said.contains("is not damaged; nothing was changed"),
        "{said}"
    );
    let (code, _, said) = run_on(
        &["doctor", "--accept-loss", "0000000099.seg"],
        &place.data(),
    );
    assert_eq!(code, Some(1));
    assert!(
        said.contains("0000000099.seg is no file of the journal"),
        "{said}"
    );
    assert_eq!(fs::read(&file).unwrap(), before);
    let text = syncgate()
        .args(["doctor", "--data"])
        .arg(place.data())
        .output()
        .unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(!text.contains("give up"), "{text}");
}
