//! Offsets that do not fit into 32 bits, which no test can wait for.

use super::*;
use crate::{
    model::ids::{Incarnation, StreamId},
    storage::{
        Counts, ReadError,
        local::{
            books::{Books, PartitionBook, settled::SettledSet},
            format::{
                ops::StreamImage,
                segment::{SegmentHeader, snapshot_crc},
                snapshot,
            },
        },
    },
};

/// Writes a journal into an empty directory, of streams with one partition each, whose next record gets offset `next`;
/// all before are delivered and trimmed.
pub(crate) fn journal_at(dir: &Path, names: &[&str], next: u64) {
    let mut books = Books::default();
    for (number, name) in (0_u32..).zip(names) {
        let stream = Stream {
            id: StreamId([u8::try_from(number).unwrap(); 16]),
            incarnation: Incarnation(1),
            name: name.parse().unwrap(),
            partitions: 1,
            config: StreamConfig::default(),
            revision: 1,
            events: Vec::new(),
            last_purge: None,
        };
        let mut settled = SettledSet::default();
        settled.trim(next);
        let mut counts = Counts {
            delivered: next,
            ..Counts::default()
        };
        counts.appended[AppendKind::Accepted as usize] = next;
        let partition = PartitionBook {
            next,
            earliest: next,
            counts,
            settled,
            ..PartitionBook::default()
        };
        let stream = Arc::new(stream);
        let image = StreamImage { number, stream };
        books.add_stream(&image, vec![partition]).unwrap();
    }
    let snapshot = snapshot::encode(&books, None);
    let header = SegmentHeader {
        version: 1,
        number: 1,
        life: 7,
        rewrite: 0,
        first_frame: 1,
        last_frame: 0,
        created: 0,
        snapshot_len: snapshot.len() as u64,
        snapshot_crc: snapshot_crc(7, &snapshot),
        journal: [9; 16],
    };
    let mut file = header.encode();
    file.extend_from_slice(&snapshot);
    file.resize(usize::try_from(header.frames_at()).unwrap() + 4_096, 0);
    let journal = dir.join("journal");
    std::fs::create_dir_all(&journal).unwrap();
    std::fs::write(journal.join("0000000001.seg"), file).unwrap();
}

/// So large that a file holds five.
fn value(number: usize) -> String {
    format!("{number:0>51200}")
}

/// Ten records over the edge, one commit each, a second apart: which are read, found by time, and ended.
async fn check(bench: &Bench, of: PartitionId, first: u64, when: &str) {
    let engine = bench.engine();
    let bounds = engine.status(of).unwrap().bounds;
    assert_eq!(
        (bounds.earliest.0, bounds.tail.0),
        (first, first + 10),
        "{when}"
    );
    let all = bench.all(of).await;
    let offsets: Vec<_> = all.iter().map(|stored| stored.offset.0).collect();
    assert_eq!(offsets, Vec::from_iter(first..first + 10), "{when}");
    for (number, stored) in all.iter().enumerate() {
        assert_eq!(stored.record.value, value(number), "{when}");
        let from = bench.from(of, stored.offset).await;
        assert_eq!(from, all[number..], "{when}");
        let found = engine.offset_at(of, stored.time).await.unwrap();
        assert_eq!(found, stored.offset, "{when}");
    }
    let settled = engine.settled_offsets(of, Offset(first)..Offset(first + 10));
    let settled = settled.unwrap();
    let ended: Vec<_> = (first..first + 10)
        .filter(|offset| settled.contains(Offset(*offset)))
        .collect();
    assert_eq!(ended, [first, first + 5, first + 7], "{when}");
    assert_eq!(engine.status(of).unwrap().low_mark.0, first + 1, "{when}");
}

#[tokio::test]
async fn offsets_go_on_over_each_edge_of_32_bits() {
    for edge in [1_u64 << 31, 1 << 32, 1 << 53] {
        let first = edge - 5;
        let mut bench = Bench::new();
        bench.close().await;
        bench.dir = tempfile::tempdir().unwrap();
        bench.clock = Clock::manual(at(1_767_323_045_000_000));
        journal_at(bench.dir.path(), &["orders", "errors"], first);
        bench.open().unwrap();
        let of = partition(
            &bench.engine().stream(&"orders".parse().unwrap()).unwrap(),
            0,
        );
        let errors = bench.engine().stream(&"errors".parse().unwrap()).unwrap();
        let errors = partition(&errors, 0);
        for (number, offset) in (0..10).zip(first..) {
            let now = bench.clock.now();
            bench.clock.set(now.plus_micros(1_000_000));
            let committed = bench.append(of, &[&value(number)]).await;
            assert_eq!(committed.appends[0].first.0, offset);
        }
        let ends = [first, first + 5].map(|offset| settle(of, offset, NewSettlement::Delivered));
        bench.engine().commit(settles(ends)).await.unwrap();
        let mut routed = appends([append(errors, &["copy"])]);
        routed.settles = vec![settle(of, first + 7, NewSettlement::Routed { append: 0 })];
        let committed = bench.engine().commit(routed).await.unwrap();
        assert_eq!(committed.appends[0].first.0, first);
        let again = settles([settle(of, first + 5, NewSettlement::Delivered)]);
        assert!(bench.engine().commit(again).await.is_err());

        check(&bench, of, first, "at first").await;
        bench.reopen().await;
        check(&bench, of, first, "after a close").await;
        bench.crash();
        check(&bench, of, first, "after a crash").await;
        bench.close().await;
        std::fs::remove_dir_all(bench.dir.path().join("index")).unwrap();
        bench.open().unwrap();
        check(&bench, of, first, "with a new index").await;

        let counts = bench.engine().status(of).unwrap().counts;
        assert_eq!((counts.delivered, counts.routed), (first + 2, 1));
        assert_eq!(counts.open_len(), 7);
        bench.engine().trim(of, Offset(edge)).await.unwrap();
        bench.reopen().await;
        let below = bench.engine().read(of, Offset(edge - 1), 1).await;
        assert!(
            matches!(below, Err(ReadError::Trimmed { earliest, .. }) if earliest.0 == edge),
            "{below:?}"
        );
        let left = bench.all(of).await;
        assert_eq!((left.len(), left[0].offset.0), (5, edge));
    }
}
