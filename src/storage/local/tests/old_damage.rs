//! Damage in files that no start reads. `verify` and `doctor` must name it, because a start replays only the newest file.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    model::ids::Offset,
    storage::{
        Log,
        local::{
            OpenError,
            format::{
                frame::HEADER_LEN,
                segment::{SNAPSHOT_AT, SegmentHeader},
            },
            repair::{
                doctor::{FileState, examine},
                verify::verify,
            },
        },
    },
};

use super::{Bench, damage::frames, fill, partition, until};

/// A closed directory with files of each kind: shortened, whole, and ended by a crash.
async fn lived() -> Bench {
    let mut bench = Bench::new();
    let (orders, errors) = (
        bench.stream("orders", 1).await,
        bench.stream("errors", 1).await,
    );
    let (orders, errors) = (partition(&orders, 0), partition(&errors, 0));
    for number in 0..4 {
        bench.append(errors, &[&format!("kept {number}")]).await;
        fill(&bench, orders, 5).await;
    }
    bench.engine().trim(orders, Offset(20)).await.unwrap();
    until("files to be shortened", || bench.engine().is_tidy()).await;
    fill(&bench, orders, 8).await;
    for number in 0..2 {
        bench.append(errors, &[&format!("kept {number}")]).await;
        bench.crash();
    }
    bench.append(errors, &["the newest file"]).await;
    bench.close().await;
    bench
}

fn header(file: &Path) -> SegmentHeader {
    SegmentHeader::decode(&fs::read(file).unwrap()).unwrap().0
}

/// What is damaged in the files of a directory, by `doctor`.
fn damages(bench: &Bench) -> Vec<(PathBuf, u64)> {
    let files = examine(bench.dir.path()).unwrap().files.into_iter();
    let of_file = |file: FileState| {
        let damages = file.damages.into_iter();
        damages.map(move |damage| (file.path.clone(), damage.at))
    };
    files.flat_map(of_file).collect()
}

/// Changes a bit, looks, and changes it back.
#[track_caller]
fn check(bench: &Bench, file: &Path, bit_at: u64, named_at: u64) {
    let whole = fs::read(file).unwrap();
    let mut damaged = whole.clone();
    damaged[usize::try_from(bit_at).unwrap()] ^= 0x10;
    fs::write(file, damaged).unwrap();
    check_named(bench, file, named_at);
    fs::write(file, whole).unwrap();
}

#[track_caller]
fn check_named(bench: &Bench, file: &Path, named_at: u64) {
    match verify(bench.dir.path()) {
        Err(OpenError::Damaged {
            file: named, at, ..
        }) => assert_eq!((named.as_path(), at), (file, named_at), "verify"),
        other => panic!("verify: {} {named_at}: {other:?}", file.display()),
    }
    let named = (file.to_owned(), named_at);
    assert_eq!(damages(bench), [named], "doctor");
}

#[tokio::test]
async fn a_changed_bit_anywhere_in_a_file_that_no_start_reads_is_named() {
    let bench = lived().await;
    assert_eq!(damages(&bench), []);
    verify(bench.dir.path()).unwrap();
    let mut older = bench.journal();
    older.pop();
    let (mut shortened, mut whole, mut ended_by_a_crash) = (0, 0, 0);
    for file in &older {
        let (header, frames) = (header(file), frames(file));
        let last = frames.last().unwrap();
        match (header.rewrite > 0, last.last) {
            (true, _) => shortened += 1,
            (false, true) => whole += 1,
            (false, false) => ended_by_a_crash += 1,
        }
        check(&bench, file, SNAPSHOT_AT + 6, SNAPSHOT_AT);
        for frame in &frames {
            let at = frame.at.place;
            check(&bench, file, at + 20, at);
            if frame.body_len > 0 {
                let body = at + HEADER_LEN as u64;
                check(&bench, file, body + 1, at);
                check(&bench, file, body + u64::from(frame.body_len) - 1, at);
            }
        }
    }
    let kinds = (shortened, whole, ended_by_a_crash);
    assert!(
        shortened > 1 && whole > 0 && ended_by_a_crash > 0,
        "{kinds:?}"
    );
}

#[tokio::test]
async fn a_shortened_file_that_was_cut_off_is_named() {
    let bench = lived().await;
    let file = &bench.journal()[0];
    assert!(header(file).rewrite > 0);
    let whole = fs::read(file).unwrap();
    for frame in frames(file) {
        let at = frame.at.place;
        for len in [at, at + 20, at + frame.frame_len() - 1] {
            fs::write(file, &whole[..usize::try_from(len).unwrap()]).unwrap();
            check_named(&bench, file, at);
        }
    }
}
