//! Files are freed and compacted without loss of live data.

use std::{fs, path::Path};

use crate::{
    model::ids::{Offset, PartitionId},
    storage::{
        Log, NewSettlement, OpenRecords, PurgeNote, ReadError,
        local::{
            format::segment::{SNAPSHOT_AT, number_of},
            repair::verify::verify,
        },
    },
};

use super::{Bench, append, fill, marked, partition, put, settle, settles, states, until};

/// A bench without memory of the newest frames, so that everything is read from files.
fn bench() -> Bench {
    Bench::with(|log| log.cache_bytes = 0)
}

async fn until_tidy(bench: &Bench) {
    until("files to be freed", || bench.engine().is_tidy()).await;
}

/// Makes a stream and returns its only partition.
async fn only(bench: &Bench, stream: &str) -> PartitionId {
    let stream = bench.stream(stream, 1).await;
    partition(&stream, 0)
}

fn numbers(bench: &Bench) -> Vec<u64> {
    let names = bench.journal();
    let names = names.iter().filter_map(|path| path.file_name()?.to_str());
    names.filter_map(number_of).collect()
}

fn bytes(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| entry.metadata().unwrap())
        .filter(fs::Metadata::is_file)
        .map(|metadata| metadata.len())
        .sum()
}

fn journal_bytes(bench: &Bench) -> u64 {
    bytes(&bench.dir.path().join("journal"))
}

/// A stream over many files, and another with one small record in each.
async fn interleaved(bench: &Bench) -> (PartitionId, PartitionId) {
    let orders = only(bench, "orders").await;
    let errors = only(bench, "errors").await;
    for number in 0..8 {
        bench.append(errors, &[&format!("kept {number}")]).await;
        fill(bench, orders, 5).await;
    }
    (orders, errors)
}

fn kept() -> Vec<String> {
    (0..8).map(|number| format!("kept {number}")).collect()
}

#[tokio::test]
async fn files_of_which_everything_is_trimmed_are_freed_and_used_again() {
    let mut bench = bench();
    let of = only(&bench, "orders").await;
    for round in 1..=6 {
        fill(&bench, of, 20).await;
        bench.engine().trim(of, Offset(round * 20)).await.unwrap();
        until_tidy(&bench).await;
        let numbers = numbers(&bench);
        assert!(numbers.len() <= 3, "{numbers:?}");
        // What the writer takes next is one of them.
        assert!(bytes(&bench.dir.path().join("journal/spare")) > 0);
    }
    assert!(numbers(&bench)[0] > 10);
    assert_eq!(bench.engine().shared.index.find((0, 0), 3), None);
    let below = bench.engine().read(of, Offset(3), 1_000).await;
    assert!(matches!(below, Err(ReadError::Trimmed { earliest, .. }) if earliest == Offset(120)));
    for _ in 0..2 {
        bench.append(of, &["next"]).await;
        bench.crash();
    }
    let records = bench.all(of).await;
    assert_eq!(records[0].offset, Offset(120));
    assert_eq!(records.len(), 2);
    bench.close().await;
    let verified = verify(bench.dir.path()).unwrap();
    assert_eq!(verified.faults, [""; 0]);
    assert_eq!(verified.taken_over.streams[0].counts.expired, 120 - 20);
}

#[tokio::test]
async fn files_of_which_everything_is_purged_are_freed() {
    let mut bench = bench();
    let of = only(&bench, "orders").await;
    for round in 1..=3 {
        fill(&bench, of, 20).await;
        let before = numbers(&bench).len();
        let note = PurgeNote::default();
        let purge = bench
            .engine()
            .purge_stream(of.stream, OpenRecords::Drop, note);
        assert_eq!(purge.await.unwrap().partitions[0].discarded, 20);
        until_tidy(&bench).await;
        let numbers = numbers(&bench);
        assert!(before > 3 && numbers.len() <= 3, "{before} {numbers:?}");
        bench.crash();
        let status = bench.engine().status(of).unwrap();
        assert_eq!(status.bounds.earliest, Offset(round * 20));
        assert_eq!(status.counts.discarded, round * 20);
    }
    bench.close().await;
    let verified = verify(bench.dir.path()).unwrap();
    assert_eq!(verified.faults, [""; 0]);
}

#[tokio::test]
async fn a_file_that_a_few_records_need_keeps_only_these() {
    let mut bench = bench();
    let (orders, errors) = interleaved(&bench).await;
    let end = settle(errors, 2, NewSettlement::Discarded);
    bench.engine().commit(settles([end])).await.unwrap();
    bench
        .engine()
        .commit(states([put("a", "b", None)]))
        .await
        .unwrap();
    let files = numbers(&bench);
    let before = journal_bytes(&bench);
    bench.engine().trim(orders, Offset(37)).await.unwrap();
    until_tidy(&bench).await;
    assert_eq!(numbers(&bench), files, "each holds a record");
    assert!(journal_bytes(&bench) < before / 2);
    for index_is_kept in [true, true, false] {
        assert_eq!(bench.values(errors).await, kept());
        assert_eq!(bench.all(orders).await.len(), 3);
        bench.reopen().await;
        if !index_is_kept {
            bench.close().await;
            fs::remove_dir_all(bench.dir.path().join("index")).unwrap();
            bench.open().unwrap();
        }
    }
    assert_eq!(bench.values(errors).await, kept());
    let ended = bench
        .engine()
        .settled_offsets(errors, Offset(0)..Offset(8))
        .unwrap();
    assert!((0..8).all(|offset| ended.contains(Offset(offset)) == (offset == 2)));
    let ledger = bench.engine().ledger();
    bench.close().await;
    let verified = verify(bench.dir.path()).unwrap();
    assert_eq!(verified.faults, [""; 0]);
    assert!(verified.shortened_len > 3, "{}", verified.shortened_len);
    assert_eq!(format!("{:?}", verified.ledger), format!("{ledger:?}"));
}

/// Blocks are kept whole, so the file looks as much in need of that afterwards.
#[tokio::test]
async fn a_file_is_not_written_again_for_what_stays_in_it() {
    let bench = bench();
    let (orders, errors) = (only(&bench, "orders").await, only(&bench, "errors").await);
    let large = "x".repeat(10_000);
    bench.append(errors, &[large.as_str(); 10]).await;
    fill(&bench, orders, 30).await;
    let engine = bench.engine();
    engine.trim(orders, Offset(25)).await.unwrap();
    engine.trim(errors, Offset(9)).await.unwrap();
    until_tidy(&bench).await;
    assert_eq!(bench.values(errors).await, [large]);
}

#[tokio::test]
async fn a_stream_that_is_deleted_gives_its_space_back() {
    let bench = bench();
    let (orders, errors) = interleaved(&bench).await;
    let before = journal_bytes(&bench);
    let deleted = bench
        .engine()
        .delete_stream(orders.stream, None, OpenRecords::Drop);
    deleted.await.unwrap();
    until_tidy(&bench).await;
    assert!(journal_bytes(&bench) < before / 2);
    assert_eq!(bench.values(errors).await, kept());
}

#[tokio::test]
async fn a_commit_is_recognised_though_its_record_is_trimmed_and_its_file_gone_or_short() {
    let mut bench = bench();
    let orders = only(&bench, "orders").await;
    let once = |number: u8| marked(append(orders, &["once"]), number);
    for number in 0..5 {
        let stored = bench.engine().commit(once(number)).await.unwrap();
        assert_eq!(stored.repeats, None);
        fill(&bench, orders, 6).await;
    }
    bench.engine().trim(orders, Offset(35)).await.unwrap();
    until_tidy(&bench).await;
    assert!(journal_bytes(&bench) < 4 * bench.log.segment_bytes);
    bench.close().await;
    fs::remove_dir_all(bench.dir.path().join("index")).unwrap();
    bench.open().unwrap();
    for number in 0..5 {
        let stored = bench.engine().commit(once(number)).await.unwrap();
        assert_eq!(stored.repeats.unwrap()[..], [number; 100]);
        assert_eq!(stored.appends[0].first, Offset(u64::from(number) * 7));
    }
}

#[tokio::test]
async fn a_start_leaves_no_file_full_of_zeros_behind() {
    let mut bench = bench();
    let of = only(&bench, "orders").await;
    for _ in 0..12 {
        bench.append(of, &["a"]).await;
        bench.crash();
        until_tidy(&bench).await;
    }
    assert!(numbers(&bench).len() > 12);
    assert!(journal_bytes(&bench) < 2 * bench.log.segment_bytes);
    assert_eq!(bench.all(of).await.len(), 12);
}

#[tokio::test]
async fn a_file_with_damage_is_neither_freed_nor_shortened() {
    let mut bench = bench();
    let (orders, errors) = interleaved(&bench).await;
    bench.close().await;
    let second = &bench.journal()[1];
    let mut damaged = fs::read(second).unwrap();
    damaged[100_000] ^= 1;
    fs::write(second, &damaged).unwrap();
    fs::remove_dir_all(bench.dir.path().join("index")).unwrap();
    bench.open().unwrap();
    for of in [orders, errors] {
        let tail = bench.engine().status(of).unwrap().bounds.tail;
        bench.engine().trim(of, tail).await.unwrap();
    }
    until_tidy(&bench).await;
    assert_eq!(numbers(&bench)[0], 2);
    assert_eq!(fs::read(&bench.journal()[0]).unwrap(), damaged);
}

#[tokio::test]
async fn the_file_before_the_newest_stays_so_that_a_damaged_snapshot_is_made_again() {
    let mut bench = bench();
    let of = only(&bench, "orders").await;
    fill(&bench, of, 30).await;
    bench.engine().trim(of, Offset(30)).await.unwrap();
    until_tidy(&bench).await;
    let newest = bench.journal().pop().unwrap();
    bench.close().await;
    let mut bytes = fs::read(&newest).unwrap();
    bytes[usize::try_from(SNAPSHOT_AT).unwrap() + 9] ^= 1;
    fs::write(&newest, bytes).unwrap();
    bench.open().unwrap();
    let stored = bench.append(of, &["next"]).await;
    assert_eq!(stored.appends[0].first, Offset(30));
}

#[tokio::test]
async fn readers_go_on_while_files_are_written_again_and_freed() {
    let bench = bench();
    let (orders, errors) = interleaved(&bench).await;
    for below in 1..=40 {
        let (trimmed, values) = tokio::join!(
            bench.engine().trim(orders, Offset(below)),
            bench.values(errors)
        );
        trimmed.unwrap();
        assert_eq!(values, kept());
        match bench.engine().read(orders, Offset(below - 1), 1).await {
            Ok(page) => assert_eq!(page.records[0].offset, Offset(below - 1)),
            Err(error) => assert!(matches!(error, ReadError::Trimmed { .. }), "{error}"),
        }
    }
    until_tidy(&bench).await;
    assert_eq!(bench.values(errors).await, kept());
}
