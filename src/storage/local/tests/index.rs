//! Records are found without the index, and with a damaged one.

use std::{fs, path::PathBuf};

use crate::model::ids::{Offset, Partition, PartitionId};

use super::{Bench, copy_dir};

const RECORDS: u64 = 40;

/// A closed directory with records in many files, all sealed ones indexed.
async fn many_files() -> (Bench, PartitionId) {
    let mut bench = Bench::with(|log| log.cache_bytes = 0);
    let stream = bench.stream("orders", 1).await;
    let of = stream.partition(Partition(0)).unwrap();
    for number in 0..RECORDS {
        bench.append(of, &[&format!("{number:0>51200}")]).await;
    }
    bench.reopen().await;
    bench.close().await;
    assert!(bench.journal().len() > 8);
    (bench, of)
}

async fn check(bench: &Bench, of: PartitionId) {
    for from in [0, 17, RECORDS - 1] {
        let records = bench.from(of, Offset(from)).await;
        assert_eq!(records.len() as u64, RECORDS - from);
        for (offset, record) in (from..).zip(&records) {
            assert_eq!(record.record.value, format!("{offset:0>51200}"));
        }
    }
}

fn index(bench: &Bench) -> PathBuf {
    bench.dir.path().join("index")
}

#[tokio::test]
async fn a_sealed_file_is_found_through_the_index_alone() {
    let (mut bench, of) = many_files().await;
    bench.open().unwrap();
    check(&bench, of).await;
    let shared = &bench.engine().shared;
    let found = shared.index.find((0, 0), 3).unwrap();
    assert!(found.holds(3));
    assert!(shared.index.has(found.segment));
    assert!(shared.index.find((0, 0), RECORDS).is_none());
    assert!(shared.index.find((0, 1), 0).is_none());
}

#[tokio::test]
async fn an_index_that_was_deleted_is_made_again() {
    let (mut bench, of) = many_files().await;
    fs::remove_dir_all(index(&bench)).unwrap();
    bench.open().unwrap();
    check(&bench, of).await;
    assert!(bench.engine().shared.index.find((0, 0), 3).is_some());
}

#[tokio::test]
async fn an_index_that_was_cut_or_overwritten_is_made_again() {
    for len in [0, 10, 5_000, 200_000] {
        for fill in [None, Some(0xa5)] {
            let (mut bench, of) = many_files().await;
            let db = index(&bench).join("db");
            let mut bytes = fs::read(&db).unwrap();
            match fill {
                None => bytes.truncate(len),
                Some(fill) => {
                    let end = bytes.len().min(len + 100_000);
                    bytes[len.min(end)..end].fill(fill);
                }
            }
            fs::write(&db, bytes).unwrap();
            bench.open().unwrap();
            check(&bench, of).await;
        }
    }
}

#[tokio::test]
async fn an_index_of_another_directory_is_not_believed() {
    let (mut bench, of) = many_files().await;
    let (other, _) = many_files().await;
    fs::remove_dir_all(index(&bench)).unwrap();
    copy_dir(&index(&other), &index(&bench));
    bench.open().unwrap();
    check(&bench, of).await;
    assert!(bench.dir.path().join("damaged/index").exists());
    assert!(bench.engine().shared.index.find((0, 0), 3).is_some());
}

#[tokio::test]
async fn an_index_that_is_older_than_the_journal_catches_up() {
    let (mut bench, of) = many_files().await;
    let old = tempfile::tempdir().unwrap();
    copy_dir(&index(&bench), old.path());
    bench.open().unwrap();
    for number in RECORDS..RECORDS + 20 {
        bench.append(of, &[&format!("{number:0>51200}")]).await;
    }
    bench.reopen().await;
    bench.close().await;
    fs::remove_dir_all(index(&bench)).unwrap();
    copy_dir(old.path(), &index(&bench));
    bench.open().unwrap();
    assert_eq!(bench.from(of, Offset(0)).await.len() as u64, RECORDS + 20);
    assert!(!bench.dir.path().join("damaged/index").exists());
}

#[tokio::test]
async fn without_an_index_the_files_are_searched() {
    let (mut bench, of) = many_files().await;
    bench.open().unwrap();
    bench.engine().shared.index.disagrees();
    check(&bench, of).await;
    // The next start has one again.
    bench.reopen().await;
    assert!(bench.engine().shared.index.find((0, 0), 3).is_some());
}
