//! Checks of a whole journal.

use std::{fs, path::Path, sync::Arc};

use crate::{
    model::ids::{Offset, PartitionId},
    storage::{
        Append, AppendKind, Commit, Ledger, Log, NewSettlement, OpenRecords,
        local::{
            RealDisk,
            disk::Disk,
            format::{
                frame::Frame,
                ops::Op,
                scan::Frames,
                segment::{SNAPSHOT_AT, SegmentHeader, snapshot_crc},
                snapshot,
            },
            repair::verify::{Faults, verify},
        },
    },
};

use super::{Bench, append, fill, partition, settle, settles};

/// Ends a record as routed to another place.
async fn route(bench: &Bench, from: PartitionId, offset: u64, to: PartitionId) {
    let commit = Commit {
        appends: vec![Append {
            kind: AppendKind::Routed,
            ..append(to, &["copy"])
        }],
        settles: vec![settle(from, offset, NewSettlement::Routed { append: 0 })],
        ..Commit::default()
    };
    bench.engine().commit(commit).await.unwrap();
}

/// A directory with several files, streams that came and went, copies and ends.
async fn lived() -> (Bench, Ledger) {
    let mut bench = Bench::new();
    let (orders, errors) = (
        bench.stream("orders", 2).await,
        bench.stream("errors", 2).await,
    );
    let (orders, errors) = (partition(&orders, 1), partition(&errors, 1));
    // Nobody trims this one, so the first file stays as it is.
    bench.append(errors, &[&"kept".repeat(10_000)]).await;
    let brief = bench.stream("brief", 1).await;
    bench.append(partition(&brief, 0), &["a", "b"]).await;
    let end = settle(partition(&brief, 0), 0, NewSettlement::Delivered);
    bench.engine().commit(settles([end])).await.unwrap();
    let deleted = bench
        .engine()
        .delete_stream(brief.id, None, OpenRecords::Drop);
    deleted.await.unwrap();
    for round in 0..4 {
        fill(&bench, orders, 6).await;
        route(&bench, orders, round * 6, errors).await;
        let ends = [1, 2, 4].map(|n| settle(orders, round * 6 + n, NewSettlement::Delivered));
        bench.engine().commit(settles(ends)).await.unwrap();
        bench.crash();
    }
    bench.engine().trim(orders, Offset(4)).await.unwrap();
    let ledger = bench.engine().ledger();
    bench.close().await;
    (bench, ledger)
}

#[tokio::test]
async fn a_whole_journal_has_no_faults_and_says_what_the_engine_said() {
    let (bench, ledger) = lived().await;
    let verified = verify(bench.dir.path()).unwrap();
    assert_eq!(verified.faults, [""; 0]);
    assert!(verified.files_len > 4 && verified.frames_len > 40);
    assert_eq!(verified.taken_over.streams.len(), 0);
    assert_eq!(format!("{:?}", verified.ledger), format!("{ledger:?}"));
    let (gone, errors, orders) = (&ledger.gone, &ledger.streams[0], &ledger.streams[1]);
    assert_eq!(
        (gone.appended_len(), gone.delivered, gone.discarded),
        (2, 1, 1)
    );
    assert_eq!((errors.counts.appended_len(), errors.open), (5, 5));
    assert_eq!((orders.counts.delivered, orders.counts.routed), (12, 4));
    assert_eq!(
        (orders.counts.expired, orders.open, orders.placed),
        (1, 7, 24)
    );
}

#[tokio::test]
async fn a_directory_that_is_in_use_or_none_is_refused_and_not_made() {
    let bench = Bench::new();
    let refused = verify(bench.dir.path()).unwrap_err();
    assert!(refused.to_string().contains("in use"), "{refused}");
    let nowhere = bench.dir.path().join("nowhere");
    let refused = verify(&nowhere).unwrap_err();
    assert!(refused.to_string().contains("nowhere"), "{refused}");
    assert!(!nowhere.exists());
    let empty = tempfile::tempdir().unwrap();
    fs::create_dir(empty.path().join("journal")).unwrap();
    let refused = verify(empty.path()).unwrap_err();
    assert!(refused.to_string().contains("journal file"), "{refused}");
}

#[tokio::test]
async fn a_snapshot_that_says_something_else_than_the_frames_is_named() {
    let (bench, _) = lived().await;
    let file = &bench.journal()[2];
    let mut bytes = fs::read(file).unwrap();
    let (mut header, _) = SegmentHeader::decode(&bytes).unwrap();
    let at = usize::try_from(SNAPSHOT_AT).unwrap();
    let end = at + usize::try_from(header.snapshot_len).unwrap();
    let (mut books, before) = snapshot::decode(&bytes[at..end]).unwrap();
    books.gone.delivered += 1;
    let forged = snapshot::encode(&books, before.as_ref());
    assert_eq!(forged.len(), end - at);
    header.snapshot_crc = snapshot_crc(header.life, &forged);
    bytes[..at].copy_from_slice(&header.encode());
    bytes[at..end].copy_from_slice(&forged);
    fs::write(file, bytes).unwrap();
    let verified = verify(bench.dir.path()).unwrap();
    let name = file.file_name().unwrap().to_str().unwrap();
    assert_eq!(verified.faults_len, 1);
    let fault = &verified.faults[0];
    assert!(fault.contains(name) && fault.contains("gone"), "{fault}");
}

/// All frames of a file.
fn frames(file: &Path) -> Vec<Frame> {
    let (header, _) = SegmentHeader::decode(&fs::read(file).unwrap()).unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let opened = Arc::from(disk.open(file).unwrap());
    let (place, first) = (header.frames_at(), header.first_frame);
    let mut frames = Frames::new(opened, header.life, place, first).unwrap();
    std::iter::from_fn(|| frames.next().unwrap().ok()).collect()
}

#[tokio::test]
async fn a_copy_without_its_end_and_an_end_without_its_copy_are_named() {
    let (bench, _) = lived().await;
    let copies = |frame: &Frame| {
        let copied = |op: &Op| matches!(op, Op::Settle(run) if run.copies.is_some());
        frame.ops.iter().any(copied)
    };
    let mut all = bench.journal().into_iter().flat_map(|file| frames(&file));
    let frame = all.find(copies).unwrap();
    let (books, _) = snapshot::decode(&[]).unwrap();
    let faults = |keep: fn(&Op) -> bool| {
        let mut faults = Faults::default();
        let mut changed = frame.clone();
        changed.ops.retain(keep);
        faults.copies(&books, &changed);
        faults.named
    };
    assert_eq!(faults(|_| true), [""; 0]);
    let without_copy = faults(|op| !matches!(op, Op::Append(_)));
    assert!(without_copy[0].contains("is missing"), "{without_copy:?}");
    let without_end = faults(|op| !matches!(op, Op::Settle(_)));
    assert!(without_end[0].contains("nothing ended"), "{without_end:?}");
}
