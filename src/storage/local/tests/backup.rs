//! Copies of a journal while the gateway writes, frees and compacts files.

use std::{fs, path::Path};

use tokio_util::sync::CancellationToken;

use crate::{
    model::ids::Offset,
    storage::{
        Log,
        local::repair::{
            backup::{self, BackupError, Copied, Copy},
            verify::verify,
        },
    },
};

use super::{Bench, open, partition};

fn create(from: &Path, to: &Path) -> Result<Copied, BackupError> {
    completed(backup::create(from, to, &CancellationToken::new()))
}

fn restore(from: &Path, to: &Path) -> Result<Copied, BackupError> {
    completed(backup::restore(from, to, &CancellationToken::new()))
}

fn completed(copy: Result<Copy, BackupError>) -> Result<Copied, BackupError> {
    let copy = copy?;
    let copied = copy.copied();
    copy.complete().map(|()| copied)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_holds_all_that_was_stored_before_it_began_whatever_goes_on_meanwhile() {
    let bench = Bench::new();
    let orders = partition(&*bench.stream("orders", 1).await, 0);
    let errors = partition(&*bench.stream("errors", 1).await, 0);
    let value = "x".repeat(20_000);
    let dir = tempfile::tempdir().unwrap();
    let mut kept = 0;
    for round in 0..12 {
        bench.append(errors, &["kept"]).await;
        kept += 1;
        let to = dir.path().join(round.to_string());
        let (from, copy_to) = (bench.dir.path().to_owned(), to.clone());
        let copying = tokio::task::spawn_blocking(move || create(&from, &copy_to));
        let mut tail = 0;
        while !copying.is_finished() || tail == 0 {
            tail = bench.append(orders, &[&value]).await.appends[0].first.0;
            if tail % 8 == 0 {
                bench.engine().trim(orders, Offset(tail)).await.unwrap();
            }
        }
        let copied = copying.await.unwrap().unwrap();
        let verified = verify(&to).unwrap();
        assert_eq!(verified.faults, [""; 0]);
        assert_eq!(verified.files_len, copied.files_len);
        assert_eq!(verified.torn, None);
        let engine = open(&to, &bench.log, &bench.clock).unwrap();
        assert_eq!(engine.status(errors).unwrap().bounds.tail, Offset(kept));
        let page = engine.read(errors, Offset(0), 1 << 20).await.unwrap();
        assert_eq!(page.records.len() as u64, kept);
        let there = engine.status(orders).unwrap().bounds;
        if there.earliest < there.tail {
            let page = engine.read(orders, there.earliest, 1).await.unwrap();
            assert_eq!(page.records[0].offset, there.earliest);
        }
    }
}

#[tokio::test]
async fn a_copy_of_nothing_or_onto_something_is_refused() {
    let bench = Bench::new();
    let dir = tempfile::tempdir().unwrap();
    let (nothing, full) = (dir.path().join("nothing"), dir.path().join("full"));
    fs::create_dir(&full).unwrap();
    fs::write(full.join("file"), "").unwrap();
    let refused = create(&nothing, &dir.path().join("a"));
    assert!(
        matches!(refused, Err(BackupError::NoJournal(_))),
        "{refused:?}"
    );
    let refused = restore(&nothing, &dir.path().join("b"));
    assert!(
        matches!(refused, Err(BackupError::NoJournal(_))),
        "{refused:?}"
    );
    let refused = create(bench.dir.path(), &full);
    assert!(
        matches!(refused, Err(BackupError::NotEmpty(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_copy_that_is_not_finished_or_told_to_stop_leaves_nothing() {
    let bench = Bench::new();
    let of = partition(&*bench.stream("orders", 1).await, 0);
    bench.append(of, &["a"]).await;
    let dir = tempfile::tempdir().unwrap();
    let names = || fs::read_dir(dir.path()).unwrap().count();
    let (from, to) = (bench.dir.path(), dir.path().join("a/copy"));
    let go_on = CancellationToken::new();
    let copy = backup::create(from, &to, &go_on).unwrap();
    assert!(copy.dir().join("journal").is_dir() && !to.exists());
    drop(copy);
    assert_eq!(names(), 0);
    let stop = CancellationToken::new();
    stop.cancel();
    let stopped = backup::create(from, &to, &stop).map(drop);
    assert!(matches!(stopped, Err(BackupError::Stopped)), "{stopped:?}");
    assert_eq!(names(), 0);
    create(from, &to).unwrap();
    let restored = dir.path().join("restored");
    drop(backup::restore(&to, &restored, &go_on).unwrap());
    let stopped = backup::restore(&to, &restored, &stop).map(drop);
    assert!(matches!(stopped, Err(BackupError::Stopped)), "{stopped:?}");
    assert!(!restored.exists());
    restore(&to, &restored).unwrap();
    let engine = open(&restored, &bench.log, &bench.clock).unwrap();
    assert_eq!(engine.status(of).unwrap().bounds.tail, Offset(1));
}

/// All entries but the journal are in their place then.
#[tokio::test]
async fn a_restore_that_was_killed_at_its_end_is_done_again() {
    let bench = Bench::new();
    let of = partition(&*bench.stream("orders", 1).await, 0);
    bench.append(of, &["a"]).await;
    let dir = tempfile::tempdir().unwrap();
    let (copy, to) = (dir.path().join("copy"), dir.path().join("restored"));
    create(bench.dir.path(), &copy).unwrap();
    fs::create_dir_all(to.join("index")).unwrap();
    fs::write(to.join("index/old"), "old").unwrap();
    fs::write(to.join("master.key"), "key").unwrap();
    let refused = restore(&copy, &to);
    assert!(
        matches!(refused, Err(BackupError::NotEmpty(_))),
        "{refused:?}"
    );
    let again = |key: &str| {
        fs::create_dir_all(to.join("restore.incomplete/journal")).unwrap();
        let again = backup::restore(&copy, &to, &CancellationToken::new()).unwrap();
        fs::create_dir(again.dir().join("index")).unwrap();
        fs::write(again.dir().join("master.key"), key).unwrap();
        again.complete()
    };
    let other = again("another key");
    assert!(matches!(other, Err(BackupError::Io { .. })), "{other:?}");
    assert_eq!(fs::read_to_string(to.join("master.key")).unwrap(), "key");
    again("key").unwrap();
    assert!(!to.join("index/old").exists() && to.join("journal").is_dir());
    let engine = open(&to, &bench.log, &bench.clock).unwrap();
    assert_eq!(engine.status(of).unwrap().bounds.tail, Offset(1));
}

#[tokio::test]
async fn a_damaged_file_is_named_and_not_copied_as_if_it_were_good() {
    let mut bench = Bench::new();
    let of = partition(&*bench.stream("orders", 1).await, 0);
    for _ in 0..10 {
        bench.append(of, &[&"x".repeat(50_000)]).await;
    }
    bench.close().await;
    let file = &bench.journal()[0];
    let mut bytes = fs::read(file).unwrap();
    bytes[100_000] ^= 1;
    fs::write(file, bytes).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let refused = create(bench.dir.path(), &dir.path().join("copy"));
    assert!(
        matches!(&refused, Err(BackupError::Damaged { file: named, .. }) if named == file),
        "{refused:?}"
    );
}
