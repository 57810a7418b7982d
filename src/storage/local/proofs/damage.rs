//! Changed bytes: the engine refuses them by name, or repairs them from a second copy, and never returns another record.

use super::{
    crashes::history,
    faulty::{Crash, Dice, segment},
    rig::{Rig, Run, shut},
};
use crate::storage::{
    CommitError, Log, State,
    conformance::{append, change, content::Content, make, part, record, stored},
    local::{COMMIT_BYTES_MAX, OpenError},
};

/// A closed engine's disk and what it holds.
async fn closed() -> (Rig, Content) {
    let mut run = Run::new(Rig::new());
    for step in history() {
        run.step(&step).await;
    }
    let run = run.end().await;
    let engine = run.rig.open();
    let content = Content::of(engine.as_ref()).await;
    shut(engine).await;
    (run.rig, content)
}

fn segments(rig: &Rig) -> Vec<String> {
    let names = rig.disk.names().into_iter();
    names.filter(|name| segment(name)).collect()
}

/// Reads everything that can be read; what is read is right.
async fn is_right_or_an_error(rig: &Rig, wanted: &Content, when: &str) {
    let before = rig.disk.fingerprint();
    let engine = match rig.try_open() {
        Ok(engine) => engine,
        Err(error) => {
            assert!(error.to_string().contains(".seg"), "{when}: {error}");
            assert_eq!(rig.disk.fingerprint(), before, "{when}: touched");
            return;
        }
    };
    for stream in &wanted.streams {
        for (of, partition) in stream.stream.all_partitions().zip(&stream.partitions) {
            let status = engine.status(of);
            assert_eq!(status.unwrap(), partition.status, "{when}");
            let mut rest = &partition.records[..];
            while let Some(first) = rest.first() {
                let read = engine.read(of, first.offset, 1 << 20).await;
                let records = read.map(|page| page.records).unwrap_or_default();
                assert!(rest.starts_with(&records), "{when}: {of}/{}", first.offset);
                // A bad one is passed over.
                rest = &rest[records.len().max(1)..];
            }
        }
    }
    shut(engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_is_never_another_record() {
    let (rig, wanted) = closed().await;
    let mut dice = Dice(7);
    for name in segments(&rig) {
        let written = rig.disk.content(&name);
        let used = written.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
        for round in 0..16 {
            let at = match round {
                // Either copy of the header, the newest bytes, and anything.
                0..2 => dice.below(88),
                2..4 => 4096 + dice.below(88),
                4..8 => used - 1 - dice.below(64),
                _ => dice.below(used),
            };
            let bit = 1 << dice.below(8);
            let rig = Rig::on(rig.disk.fork());
            rig.disk.damage(&name, at as u64, &[written[at] ^ bit]);
            let when = format!("bit {bit} of byte {at} of {name}");
            is_right_or_an_error(&rig, &wanted, &when).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_in_a_frame_s_header_is_seen() {
    let rig = Rig::new();
    let engine = rig.open();
    let of = part(make(engine.as_ref(), "src", 1).await.as_ref(), 0);
    for size in [10, 20, 30, 40] {
        stored(engine.as_ref(), append(of, vec![record(vec![1; size])])).await;
    }
    shut(engine).await;
    let name = segments(&rig).pop().unwrap();
    let content = rig.disk.content(&name);
    let frames: Vec<usize> = (0..content.len() - 4)
        .filter(|at| content[*at..].starts_with(b"SGFR"))
        .collect();
    assert!(frames.len() > 4, "{frames:?}");
    let header = frames[2]..frames[2] + 56;
    for (at, byte) in header.clone().zip(&content[header]) {
        let rig = Rig::on(rig.disk.fork());
        let bit = 1 << (at % 8);
        rig.disk.damage(&name, at as u64, &[byte ^ bit]);
        let opened = rig.try_open().map(drop);
        assert!(opened.is_err(), "byte {} of a header", at - frames[2]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_of_another_life_is_not_believed() {
    // Two journals of one shape; the second one has a frame more, which lies where the first one's next frame goes.
    let mut rigs = Vec::new();
    for frames in [3, 4] {
        let rig = Rig::new();
        let engine = rig.open();
        for frame in 0..frames {
            let key = format!("t/{frame}");
            stored(engine.as_ref(), change(&key, Some("value"), None)).await;
        }
        rig.disk.crash(Crash::Process);
        shut(engine).await;
        rigs.push(rig);
    }
    let name = segments(&rigs[0]).pop().unwrap();
    let [one, two] = [0, 1].map(|at| rigs[at].disk.content(&name));
    let used = |content: &[u8]| {
        let frames = (0..content.len() - 4).filter(|at| content[*at..].starts_with(b"SGFR"));
        frames.max().unwrap()
    };
    let foreign = used(&two);
    assert!(used(&one) < foreign, "the shapes differ");
    let rig = rigs.remove(0);
    rig.disk
        .damage(&name, foreign as u64, &two[foreign..foreign + 200]);
    let engine = rig.open();
    let keys: Vec<_> = engine.list("t/").await.into_iter().map(|e| e.0).collect();
    assert_eq!(keys.len(), 3, "{keys:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_copy_of_a_header_loses_nothing() {
    let (rig, wanted) = closed().await;
    for name in segments(&rig) {
        for at in [0, 9, 4096, 4096 + 20] {
            let rig = Rig::on(rig.disk.fork());
            rig.disk.damage(&name, at, &[0xff; 4]);
            let engine = rig.open();
            let content = Content::of(engine.as_ref()).await;
            wanted.assert_same(&content, &format!("header of {name}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_segment_is_named() {
    let (rig, _) = closed().await;
    let segments = segments(&rig);
    assert!(segments.len() > 3);
    let middle = &segments[segments.len() / 2];
    let without = Rig::on(rig.disk.fork());
    without.disk.lose(middle);
    let before = without.disk.fingerprint();
    let error = without.try_open().unwrap_err().to_string();
    assert!(error.contains(".seg"), "{error}");
    assert_eq!(without.disk.fingerprint(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_before_good_frames_is_refused_and_a_torn_tail_is_cut() {
    let rig = Rig::new();
    let engine = rig.open();
    let of = part(make(engine.as_ref(), "src", 1).await.as_ref(), 0);
    for byte in b'A'..=b'H' {
        let records = vec![record(vec![byte; 1_000])];
        stored(engine.as_ref(), append(of, records)).await;
    }
    // Not closed: the segment ends with the last record's frame.
    let name = segments(&rig).pop().unwrap();
    let content = rig.disk.content(&name);
    for byte in b'A'..=b'H' {
        let inside = content
            .windows(1_000)
            .position(|window| window == [byte; 1_000])
            .unwrap();
        let crashed = Rig::on(rig.disk.fork());
        crashed.disk.crash(Crash::Process);
        crashed.disk.damage(&name, inside as u64 + 500, b"x");
        let before = crashed.disk.fingerprint();
        match crashed.try_open() {
            Ok(engine) => {
                assert_eq!(byte, b'H', "only the last may be a torn write");
                assert_eq!(engine.status(of).unwrap().bounds.tail.0, 7);
            }
            Err(error) => {
                assert!(byte < b'H', "{error}");
                assert!(error.to_string().contains(&name[8..]), "{error}");
                assert_eq!(crashed.disk.fingerprint(), before, "touched");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_close_damage_in_the_last_frame_is_damage() {
    let rig = Rig::new();
    let engine = rig.open();
    let of = part(make(engine.as_ref(), "src", 1).await.as_ref(), 0);
    let records = vec![record(vec![b'Z'; 1_000])];
    stored(engine.as_ref(), append(of, records)).await;
    shut(engine).await;
    let name = segments(&rig).pop().unwrap();
    let content = rig.disk.content(&name);
    let inside = content
        .windows(1_000)
        .position(|window| window == [b'Z'; 1_000])
        .unwrap();
    rig.disk.damage(&name, inside as u64 + 500, b"x");
    let error = rig.try_open().unwrap_err().to_string();
    assert!(error.contains(&name[8..]), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_of_rubbish_is_made_again() {
    let (rig, wanted) = closed().await;
    let index = rig.dir().join("index");
    let files = std::fs::read_dir(&index).unwrap();
    let files: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
    let mut spoilt = 0;
    for file in files.iter().filter(|file| file.is_file()) {
        std::fs::write(file, b"rubbish".repeat(1_000)).unwrap();
        spoilt += 1;
    }
    assert!(spoilt > 0, "no index in {}", index.display());
    for _ in 0..2 {
        let engine = rig.open();
        let content = Content::of(engine.as_ref()).await;
        wanted.assert_same(&content, "without an index");
        shut(engine).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_of_another_directory_is_not_believed() {
    let (rig, wanted) = closed().await;
    let mut other = Run::new(Rig::new());
    for step in history().iter().skip(1).chain(&history()) {
        other.step(step).await;
    }
    let other = other.end().await.rig;
    shut(other.open()).await;
    let (index, foreign) = (rig.dir().join("index"), other.dir().join("index"));
    std::fs::remove_dir_all(&index).unwrap();
    std::fs::rename(foreign, &index).unwrap();
    let engine = rig.open();
    let content = Content::of(engine.as_ref()).await;
    wanted.assert_same(&content, "with a foreign index");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_is_opened_once() {
    let rig = Rig::new();
    let first = rig.open();
    assert!(matches!(rig.try_open(), Err(OpenError::InUse { .. })));
    shut(first).await;
    shut(rig.open()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_larger_than_a_segment_has_one_of_its_own() {
    let rig = Rig::new();
    let engine = rig.open();
    let of = part(make(engine.as_ref(), "src", 1).await.as_ref(), 0);
    for size in [70_000, 10, 200_000, 300_000, 40_000] {
        let large = append(of, vec![record(vec![1; size]); 2]);
        stored(engine.as_ref(), large).await;
    }
    let before = Content::of(engine.as_ref()).await;
    let too_large = append(of, vec![record(vec![1; COMMIT_BYTES_MAX + 1])]);
    let error = engine.commit(too_large.into()).await.unwrap_err();
    assert!(matches!(error, CommitError::TooLarge { .. }), "{error}");
    before.assert_same(&Content::of(engine.as_ref()).await, "refused");
    rig.disk.crash(Crash::LoseAll);
    shut(engine).await;
    let engine = rig.open();
    before.assert_same(&Content::of(engine.as_ref()).await, "after a crash");
}
