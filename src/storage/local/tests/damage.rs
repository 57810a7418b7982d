//! Damaged files: which are refused, which are cut off, and which are repaired.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
};

use crate::{
    model::ids::{Offset, Partition, PartitionId},
    storage::{
        Log, ReadError,
        local::{
            OpenError,
            format::{
                frame::{FrameHeader, HEADER_LEN},
                segment::SegmentHeader,
            },
            lock,
        },
    },
};

use super::{Bench, copy_dir, format::newer, until};

async fn bench_with(values: &[&str]) -> (Bench, PartitionId) {
    let bench = Bench::new();
    let stream = bench.stream("orders", 1).await;
    let of = stream.partition(Partition(0)).unwrap();
    for value in values {
        bench.append(of, &[value]).await;
    }
    (bench, of)
}

/// Places and headers of the frames of a file, in order.
pub(super) fn frames(file: &Path) -> Vec<FrameHeader> {
    let bytes = fs::read(file).unwrap();
    let (header, _) = SegmentHeader::decode(&bytes).unwrap();
    let mut place = usize::try_from(header.frames_at()).unwrap();
    let mut frames = Vec::new();
    while let Ok(frame) = FrameHeader::decode(&bytes[place..])
        && frame.at.life == header.life
    {
        place += usize::try_from(frame.frame_len()).unwrap();
        frames.push(frame);
    }
    frames
}

fn place(frame: &FrameHeader) -> usize {
    usize::try_from(frame.at.place).unwrap()
}

fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 0x10;
    fs::write(file, bytes).unwrap();
}

/// Everything in the journal, by name.
fn content(bench: &Bench) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = bench.journal().into_iter();
    files
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

#[track_caller]
fn check_refused(bench: &mut Bench, bad_file: &Path, bad_at: u64) {
    let before = content(bench);
    match bench.open() {
        Err(OpenError::Damaged { file, at, .. }) => {
            assert_eq!((file.as_path(), at), (bad_file, bad_at));
        }
        other => panic!("{other:?}"),
    }
    assert!(before == content(bench), "the journal was changed");
}

#[tokio::test]
async fn a_flipped_bit_in_the_middle_is_reported_with_its_file_and_place() {
    let (mut bench, _) = bench_with(&["a", "b", "c"]).await;
    bench.engine = None;
    let file = bench.journal().pop().unwrap();
    let frames = frames(&file);
    assert_eq!(frames.len(), 4);
    for within in [0, 20, HEADER_LEN + 1, HEADER_LEN + 60] {
        flip(&file, place(&frames[2]) + within);
        check_refused(&mut bench, &file, frames[2].at.place);
        flip(&file, place(&frames[2]) + within);
    }
    bench.open().unwrap();
}

#[tokio::test]
async fn a_flipped_bit_in_the_last_frame_is_damage_once_an_empty_frame_follows() {
    let (mut bench, of) = bench_with(&["a", "b"]).await;
    bench.close().await;
    let file = bench.journal().pop().unwrap();
    let [.., last, empty] = &frames(&file)[..] else {
        panic!("there are frames")
    };
    assert_eq!(empty.body_len, 0);
    flip(&file, place(last) + HEADER_LEN + 50);
    check_refused(&mut bench, &file, last.at.place);

    // Without it nobody can tell damage from a write that was cut.
    let mut bytes = fs::read(&file).unwrap();
    let end = place(empty) + HEADER_LEN;
    bytes[place(empty)..end].fill(0);
    fs::write(&file, bytes).unwrap();
    bench.open().unwrap();
    assert_eq!(bench.values(of).await, ["a"]);
}

#[tokio::test]
async fn an_idle_second_proves_the_last_frame() {
    let (mut bench, _) = bench_with(&["a"]).await;
    let file = bench.journal().pop().unwrap();
    let proven = || frames(&file).last().unwrap().body_len == 0;
    until("an empty frame", proven).await;
    bench.engine = None;
    let [.., last, _empty] = &frames(&file)[..] else {
        panic!("there are frames")
    };
    flip(&file, place(last) + HEADER_LEN + 50);
    check_refused(&mut bench, &file, last.at.place);
}

#[tokio::test]
async fn a_write_torn_at_pages_in_any_order_is_cut_off() {
    let large = "x".repeat(13_000);
    let (mut bench, of) = bench_with(&["a", &large]).await;
    bench.engine = None;
    let file = bench.journal().pop().unwrap();
    let last = *frames(&file).last().unwrap();
    let whole = fs::read(&file).unwrap();
    let (start, end) = (
        place(&last),
        place(&last) + usize::try_from(last.frame_len()).unwrap(),
    );
    let pages: Vec<_> = (start / 4096..=(end - 1) / 4096).collect();
    assert!(pages.len() >= 4);
    let all = 1 << pages.len();
    for kept in 0..all {
        // A directory of its own each time: opening begins a new file.
        let copy = tempfile::tempdir().unwrap();
        let journal = copy.path().join("journal");
        fs::create_dir_all(&journal).unwrap();
        let mut bytes = whole.clone();
        for (at, page) in pages.iter().enumerate() {
            if kept & (1 << at) == 0 {
                let from = (page * 4096).max(start);
                bytes[from..((page + 1) * 4096).min(end)].fill(0);
            }
        }
        fs::write(journal.join(file.file_name().unwrap()), &bytes).unwrap();
        let engine = super::open(copy.path(), &bench.log, &bench.clock).unwrap();
        let tail = engine.status(of).unwrap().bounds.tail;
        assert_eq!(
            tail,
            Offset(if kept == all - 1 { 2 } else { 1 }),
            "{kept:b}"
        );
        let page = engine.read(of, Offset(0), 1 << 20).await.unwrap();
        assert_eq!(page.records.len() as u64, tail.0);
        drop(engine);
        let torn = fs::read(journal.join(file.file_name().unwrap())).unwrap();
        assert!(
            torn.len() >= start && bytes.starts_with(&torn),
            "the torn file was changed"
        );
    }
    bench.open().unwrap();
}

#[tokio::test]
async fn a_payload_that_looks_like_a_frame_is_not_taken_for_one() {
    let (bench, of) = bench_with(&["a", "b"]).await;
    let file = bench.journal().pop().unwrap();
    let bytes = fs::read(&file).unwrap();
    let last = *frames(&file).last().unwrap();
    // Good frames of this very file and life, at all distances from a multiple of 8, with numbers beyond the next.
    let mut next = bytes[place(&last)..place(&last) + HEADER_LEN].to_vec();
    next[16..24].copy_from_slice(&(last.at.number + 9).to_le_bytes());
    let crc = crc32c::crc32c(&next[..52]);
    next[52..56].copy_from_slice(&crc.to_le_bytes());
    assert!(FrameHeader::decode(&next).is_ok());
    let mut payload = bytes[place(&last)..place(&last) + 300].to_vec();
    for at in 0..8 {
        payload.extend(vec![0; at]);
        payload.extend(&next);
    }
    let mut commit = super::appends([super::append(of, &["c"])]);
    commit.appends[0].records[0].value = payload.clone().into();
    bench.engine().commit(commit).await.unwrap();
    let mut bench = bench;
    bench.crash();
    assert_eq!(bench.all(of).await[2].record.value, payload);

    // The same behind a frame that was cut: the search for good frames passes over the payload.
    bench.engine = None;
    let last = *frames(&file).last().unwrap();
    flip(&file, place(&last) + 1);
    let newer = bench.journal().pop().unwrap();
    assert_ne!(newer, file);
    fs::remove_file(newer).unwrap();
    bench.open().unwrap();
    assert_eq!(bench.values(of).await, ["a", "b"]);
}

#[tokio::test]
async fn frames_of_an_older_life_in_a_reused_file_are_not_read() {
    let (mut bench, of) = bench_with(&["a", "b", "c", "d"]).await;
    bench.close().await;
    let file = bench.journal().pop().unwrap();
    // The next file is made of this one, so old frames stand where new ones will end.
    let spare = bench.dir.path().join("journal/spare/7.ready");
    fs::copy(&file, spare).unwrap();
    bench.open().unwrap();
    for number in 0..4 {
        assert_eq!(bench.values(of).await.len(), 4 + number);
        bench.append(of, &["new"]).await;
        let reused = bench.journal().pop().unwrap();
        let spare = bench
            .dir
            .path()
            .join(format!("journal/spare/1{number}.ready"));
        fs::copy(reused, spare).unwrap();
        bench.crash();
    }
    assert_eq!(bench.values(of).await.len(), 8);
}

#[tokio::test]
async fn a_frame_of_another_life_is_not_read_where_the_next_one_belongs() {
    let (mut bench, of) = bench_with(&["a"]).await;
    bench.close().await;
    // A copy that does not know what the original did next, and gets its file to reuse.
    let copy = tempfile::tempdir().unwrap();
    copy_dir(bench.dir.path(), copy.path());
    bench.open().unwrap();
    bench.append(of, &["of another life"]).await;
    bench.close().await;
    let other = bench.journal().pop().unwrap();
    fs::copy(&other, copy.path().join("journal/spare/7.ready")).unwrap();
    drop(super::open(copy.path(), &bench.log, &bench.clock).unwrap());
    let reused = copy.path().join("journal").join(other.file_name().unwrap());
    assert_eq!(frames(&reused).len(), 0);
    let (there, wanted) = (frames(&other)[0].at, fs::read(reused).unwrap());
    let stale = FrameHeader::decode(&wanted[usize::try_from(there.place).unwrap()..]).unwrap();
    assert_eq!(stale.at, there, "the case is not the one that is meant");

    let engine = super::open(copy.path(), &bench.log, &bench.clock).unwrap();
    assert_eq!(engine.status(of).unwrap().bounds.tail, Offset(1));
}

#[tokio::test]
async fn a_newer_format_is_left_alone() {
    let (mut bench, _) = bench_with(&["a"]).await;
    bench.close().await;
    let file = bench.journal().pop().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let (header, _) = SegmentHeader::decode(&bytes).unwrap();
    bytes[..8192].copy_from_slice(&newer(&header));
    fs::write(&file, bytes).unwrap();
    let before = content(&bench);
    let error = bench.open().unwrap_err();
    assert!(matches!(
        &error,
        OpenError::NewerFormat {
            found: 3,
            known: 2,
            ..
        }
    ));
    assert!(error.to_string().contains("version 3"), "{error}");
    assert!(before == content(&bench));
}

#[tokio::test]
async fn a_second_open_is_refused_and_names_the_process() {
    let (bench, _) = bench_with(&[]).await;
    let error = super::open(bench.dir.path(), &bench.log, &bench.clock).unwrap_err();
    let own = std::process::id();
    assert!(matches!(error, OpenError::InUse { pid: Some(pid), .. } if pid == own));
    assert!(error.to_string().contains(&own.to_string()), "{error}");
    // A lock file that looks forgotten is gone quickly.
    fs::remove_file(bench.dir.path().join("LOCK")).unwrap();
    let error = super::open(bench.dir.path(), &bench.log, &bench.clock).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
}

#[test]
fn a_directory_is_free_when_it_is_given_back_though_a_child_still_has_its_open_files() {
    let dir = tempfile::tempdir().unwrap();
    let lock = lock::take_dir(dir.path()).unwrap();
    // What a fork does to them.
    let of_a_child = (
        lock.file.try_clone(),
        lock.dir.as_ref().map(File::try_clone),
    );
    drop(lock);
    lock::take_dir(dir.path()).unwrap();
    drop(of_a_child);
}

#[tokio::test]
async fn headers_snapshots_and_files_that_are_gone_are_told_apart() {
    let (mut bench, of) = bench_with(&["a"]).await;
    for value in ["b", "c"] {
        bench.crash();
        bench.append(of, &[value]).await;
    }
    bench.close().await;
    let files = bench.journal();
    let [first, second, third] = &files[..] else {
        panic!("there are three files")
    };
    // One copy of a header.
    flip(second, 30);
    // The newest snapshot: the file before it tells the same.
    flip(third, 8192 + 6);
    bench.open().unwrap();
    assert_eq!(bench.values(of).await, ["a", "b", "c"]);
    bench.close().await;

    flip(second, 4096 + 30);
    check_refused(&mut bench, second, 0);
    flip(second, 4096 + 30);
    let kept = fs::read(second).unwrap();
    fs::remove_file(second).unwrap();
    check_refused(&mut bench, second, 0);
    fs::write(second, kept).unwrap();
    bench.open().unwrap();
    bench.engine = None;

    // All snapshots.
    for file in bench.journal() {
        let (header, _) = SegmentHeader::decode(&fs::read(&file).unwrap()).unwrap();
        if &file != third {
            assert!(header.snapshot_len > 0);
            flip(&file, 8192 + 6);
        }
    }
    check_refused(&mut bench, first, 8192);
}

#[tokio::test]
async fn a_damaged_block_is_named_and_others_are_read() {
    let (mut bench, of) = bench_with(&["a"]).await;
    bench.crash();
    bench.append(of, &["b"]).await;
    bench.close().await;
    let first = bench.journal().remove(0);
    let frames = frames(&first);
    flip(&first, place(&frames[1]) + HEADER_LEN + 50);
    bench.open().unwrap();
    let bad = bench.engine().read(of, Offset(0), 1).await;
    assert!(matches!(bad, Err(ReadError::Damaged(_))), "{bad:?}");
    let good = bench.from(of, Offset(1)).await;
    assert_eq!(super::texts(&good), ["b"]);
}
