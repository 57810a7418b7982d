//! Accepted losses, by operation: the books rebuilt from the remaining operations.

use std::{fs, path::PathBuf};

use crate::{
    model::ids::{Offset, PartitionId},
    runtime::clock::Clock,
    storage::{
        Append, AppendKind, Commit, Log, NewSettlement, OpenRecords, PurgeNote, State,
        StreamConfig,
        ledger::Balance,
        local::{
            format::frame::{FrameHeader, HEADER_LEN},
            repair::doctor::{LossReport, accept_loss, examine},
            verify,
        },
    },
};

use super::{Bench, append, damage, marked, partition, put, settle, settles, states};

impl Bench {
    /// The newest frame that is not empty; commits come one by one, so it is that of the last one.
    fn last_frame(&self) -> (PathBuf, FrameHeader) {
        let file = self.journal().pop().unwrap();
        let frames = damage::frames(&file);
        let last = frames.into_iter().rev().find(|frame| frame.body_len > 0);
        (file, last.unwrap())
    }

    async fn accept_all(&mut self) -> LossReport {
        let examined = examine(self.dir.path()).unwrap();
        let files: Vec<_> = examined
            .loss
            .unwrap()
            .files
            .into_iter()
            .map(|f| f.path)
            .collect();
        let report = accept_loss(self.dir.path(), &files, &Clock::system()).unwrap();
        let verified = verify(self.dir.path()).unwrap();
        assert_eq!(verified.faults, [""; 0]);
        assert!(
            Balance::of(&verified.ledger, None).balanced,
            "{:?}",
            verified.ledger
        );
        self.open().unwrap();
        let ledger = self.engine().ledger();
        assert!(Balance::of(&ledger, None).balanced, "{ledger:?}");
        assert_eq!(ledger.losses_len, 1);
        report
    }
}

/// Makes a frame unreadable as a whole.
fn wipe((file, frame): &(PathBuf, FrameHeader)) {
    let mut bytes = fs::read(file).unwrap();
    let at = usize::try_from(frame.at.place).unwrap();
    let len = usize::try_from(frame.frame_len()).unwrap();
    bytes[at..at + len].fill(0);
    fs::write(file, bytes).unwrap();
}

fn open_len(bench: &Bench, of: PartitionId) -> u64 {
    let counts = bench.engine().status(of).unwrap().counts;
    counts.open_len()
}

async fn deliver(bench: &Bench, of: PartitionId, offset: u64) {
    let end = settle(of, offset, NewSettlement::Delivered);
    bench.engine().commit(settles([end])).await.unwrap();
}

#[tokio::test]
async fn an_end_behind_what_is_lost_is_kept_and_one_in_it_is_not() {
    let mut bench = Bench::new();
    let stream = bench.stream("orders", 1).await;
    let of = partition(&stream, 0);
    bench.append(of, &["a"]).await;
    bench.append(of, &["b", "c"]).await;
    let lost_records = bench.last_frame();
    deliver(&bench, of, 0).await;
    let lost_end = bench.last_frame();
    bench.append(of, &["d"]).await;
    deliver(&bench, of, 1).await;
    deliver(&bench, of, 3).await;
    bench.close().await;
    wipe(&lost_records);
    wipe(&lost_end);
    let report = bench.accept_all().await;
    assert!(report.unknown);
    let [lost] = &report.partitions[..] else {
        panic!("{report:?}")
    };
    assert_eq!(lost.ranges, [(Offset(1), Offset(2))]);
    assert_eq!((lost.ended, lost.open), (1, 1));
    let status = bench.engine().status(of).unwrap();
    let counts = status.counts;
    assert_eq!((counts.delivered, counts.lost, counts.unknown), (2, 1, 2));
    assert_eq!((open_len(&bench, of), status.low_mark), (1, Offset(0)));
    assert_eq!(bench.values(of).await, ["a", "d"]);
    let now = bench.engine().stream_by_id(stream.id).unwrap();
    assert_ne!(now.incarnation, stream.incarnation);
    let again = settle(of, 2, NewSettlement::Delivered);
    let refused = bench.engine().commit(settles([again])).await;
    assert!(refused.is_err(), "it was lost");
}

#[tokio::test]
async fn what_speaks_of_a_stream_that_was_made_in_what_is_lost_is_left_out_and_its_number_stays_its_own()
 {
    let mut bench = Bench::new();
    let orders = bench.stream("orders", 1).await;
    let of = partition(&orders, 0);
    bench.append(of, &["a"]).await;
    let brief = bench.stream("brief", 1).await;
    let made = bench.last_frame();
    let known = marked(append(partition(&brief, 0), &["x", "y"]), 7);
    bench.engine().commit(known).await.unwrap();
    deliver(&bench, partition(&brief, 0), 0).await;
    bench.append(of, &["b"]).await;
    bench.close().await;
    wipe(&made);
    let report = bench.accept_all().await;
    assert_eq!(report.strangers, [(1, 2)]);
    assert!(bench.engine().stream(&"brief".parse().unwrap()).is_none());
    assert_eq!(bench.values(of).await, ["a", "b"]);
    // One of the same name is another one.
    let again = bench.stream("brief", 1).await;
    bench.crash();
    // Nothing that is told of the lost one is taken for something of this one.
    let known = marked(append(partition(&again, 0), &["z"]), 7);
    let committed = bench.engine().commit(known).await.unwrap();
    assert_eq!(committed.repeats, None);
    bench.crash();
    assert_eq!(bench.values(partition(&again, 0)).await, ["z"]);
}

#[tokio::test]
async fn growth_and_deletion_in_what_is_lost_show_in_what_follows() {
    let mut bench = Bench::new();
    let orders = bench.stream("orders", 1).await;
    let other = bench.stream("other", 1).await;
    bench.append(partition(&other, 0), &["old"]).await;
    let config = StreamConfig::default();
    let grown = bench
        .engine()
        .change_stream(orders.id, 3, config, None)
        .await
        .unwrap();
    let growth = bench.last_frame();
    bench.append(partition(&grown, 1), &["a"]).await;
    let deleted = bench
        .engine()
        .delete_stream(other.id, None, OpenRecords::Drop);
    deleted.await.unwrap();
    let deletion = bench.last_frame();
    let again = bench.stream("other", 1).await;
    bench.append(partition(&again, 0), &["new"]).await;
    bench
        .engine()
        .commit(states([put("t/a", "1", None)]))
        .await
        .unwrap();
    bench.close().await;
    wipe(&growth);
    wipe(&deletion);
    let report = bench.accept_all().await;
    assert_eq!(report.grown, ["orders"]);
    assert_eq!(report.deleted, ["other"]);
    assert_eq!(bench.values(partition(&grown, 1)).await, ["a"]);
    assert_eq!(bench.values(partition(&again, 0)).await, ["new"]);
    assert_eq!(
        bench.engine().stream_by_id(orders.id).unwrap().partitions,
        2
    );
    assert!(bench.engine().get("t/a").await.is_some());
}

#[tokio::test]
async fn a_copy_that_has_lost_its_origin_s_end_stays_and_the_balance_says_by_how_much() {
    let mut bench = Bench::new();
    let (orders, errors) = (
        bench.stream("orders", 1).await,
        bench.stream("errors", 1).await,
    );
    let (of, errors) = (partition(&orders, 0), partition(&errors, 0));
    bench.append(of, &["a"]).await;
    let commit = Commit {
        appends: vec![Append {
            kind: AppendKind::Routed,
            ..append(errors, &["copy"])
        }],
        settles: vec![settle(of, 0, NewSettlement::Routed { append: 0 })],
        ..Commit::default()
    };
    bench.engine().commit(commit).await.unwrap();
    let (file, frame) = bench.last_frame();
    bench.append(of, &["b"]).await;
    bench.close().await;
    // The last byte of the body is of the end; the block before it has a checksum of its own.
    let mut bytes = fs::read(&file).unwrap();
    let at = usize::try_from(frame.at.place).unwrap() + HEADER_LEN + frame.body_len as usize;
    bytes[at - 1] ^= 1;
    fs::write(&file, bytes).unwrap();
    let report = bench.accept_all().await;
    assert!(report.unknown && report.partitions.is_empty(), "{report:?}");
    assert_eq!(bench.engine().ledger().unmatched, -1);
    assert_eq!((open_len(&bench, of), open_len(&bench, errors)), (2, 1));
    assert_eq!(bench.values(errors).await, ["copy"]);
}

#[tokio::test]
async fn a_trim_behind_what_is_lost_takes_it_along() {
    let mut bench = Bench::new();
    let stream = bench.stream("orders", 1).await;
    let of = partition(&stream, 0);
    bench.append(of, &["a"]).await;
    bench.append(of, &["b", "c"]).await;
    let lost = bench.last_frame();
    bench.engine().trim(of, Offset(2)).await.unwrap();
    bench.append(of, &["d"]).await;
    bench.close().await;
    wipe(&lost);
    let report = bench.accept_all().await;
    assert_eq!(report.trimmed, 1);
    assert_eq!(report.partitions[0].ranges, [(Offset(2), Offset(2))]);
    let counts = bench.engine().status(of).unwrap().counts;
    assert_eq!((counts.expired, counts.lost, counts.unknown), (1, 2, 2));
    assert_eq!(bench.values(of).await, ["d"]);
}

async fn purge(bench: &Bench, of: PartitionId) {
    let note = PurgeNote {
        reason: "a test".into(),
        by: None,
    };
    let open = OpenRecords::Drop;
    let purged = bench.engine().purge_stream(of.stream, open, note);
    purged.await.unwrap();
}

#[tokio::test]
async fn a_purge_behind_what_is_lost_takes_it_along() {
    let mut bench = Bench::new();
    let stream = bench.stream("orders", 1).await;
    let of = partition(&stream, 0);
    bench.append(of, &["a"]).await;
    bench.append(of, &["b", "c"]).await;
    let lost = bench.last_frame();
    purge(&bench, of).await;
    bench.append(of, &["d"]).await;
    bench.close().await;
    wipe(&lost);
    let report = bench.accept_all().await;
    assert_eq!(report.trimmed, 2);
    assert!(report.partitions.is_empty(), "{report:?}");
    let counts = bench.engine().status(of).unwrap().counts;
    assert_eq!((counts.discarded, counts.lost, counts.unknown), (1, 2, 2));
    assert_eq!(bench.values(of).await, ["d"]);
}

#[tokio::test]
async fn a_purge_in_what_is_lost_shows_in_whatever_changes_the_stream_later() {
    let mut bench = Bench::new();
    let stream = bench.stream("orders", 1).await;
    let of = partition(&stream, 0);
    bench.append(of, &["a", "b"]).await;
    deliver(&bench, of, 0).await;
    purge(&bench, of).await;
    let lost = bench.last_frame();
    bench.append(of, &["c"]).await;
    for hours in [1, 2] {
        let config = StreamConfig {
            retention_hours: Some(hours),
            ..StreamConfig::default()
        };
        let changed = bench.engine().change_stream(stream.id, 1, config, None);
        changed.await.unwrap();
        bench.append(of, &["d"]).await;
    }
    bench.close().await;
    wipe(&lost);
    let report = bench.accept_all().await;
    assert!(report.partitions.is_empty(), "{report:?}");
    let status = bench.engine().status(of).unwrap();
    assert_eq!(status.bounds.earliest, Offset(2), "it is purged once");
    let counts = status.counts;
    assert_eq!((counts.delivered, counts.discarded), (1, 1));
    assert_eq!(bench.values(of).await, ["c", "d", "d"]);
    assert_eq!(open_len(&bench, of), 3);
    let now = bench.engine().stream_by_id(stream.id).unwrap();
    assert_eq!(now.last_purge.as_ref().unwrap().reason, "a test");
}

#[tokio::test]
async fn a_stream_that_was_made_in_what_is_lost_begins_where_it_was_purged() {
    let mut bench = Bench::new();
    bench.stream("orders", 1).await;
    let brief = bench.stream("brief", 1).await;
    let made = bench.last_frame();
    let of = partition(&brief, 0);
    bench.append(of, &["a", "b"]).await;
    purge(&bench, of).await;
    bench.append(of, &["c"]).await;
    bench.close().await;
    wipe(&made);
    bench.accept_all().await;
    let status = bench.engine().status(of).unwrap();
    assert_eq!(status.bounds.earliest, Offset(2));
    let counts = status.counts;
    assert_eq!((counts.discarded, counts.lost, counts.unknown), (0, 2, 2));
    assert_eq!(bench.values(of).await, ["c"]);
}
