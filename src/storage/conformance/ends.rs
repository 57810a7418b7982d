//! Settlements: once for each record, counted, and durable.

use std::ops::Range;

use super::{
    Content, EngineHome, append, change, eventually, make, numbered, one_partition, part, record,
    refused, reopened, settle, stored,
};
use crate::{
    model::ids::{Offset, Partition, PartitionId},
    storage::{AppendKind, Commit, CommitError, Engine, Epoch, NewSettlement, Settle, Settlement},
};

/// Returns how records of a range ended, by offset; nothing if the engine keeps no ends.
async fn settled(
    engine: &dyn Engine,
    of: PartitionId,
    offsets: Range<u64>,
) -> Vec<(u64, Settlement)> {
    let sought = [(of, Offset(offsets.start)..Offset(offsets.end))];
    let found = engine.settled(&sought).await.unwrap();
    assert!(found.iter().all(|one| one.of == of && one.time.0 > 0));
    let mut found: Vec<_> = found.iter().map(|one| (one.offset.0, one.end)).collect();
    found.sort_unstable_by_key(|(offset, _)| *offset);
    found
}

/// Returns the offsets below 64 that have an end.
fn ended(engine: &dyn Engine, of: PartitionId) -> Vec<u64> {
    let settled = engine.settled_offsets(of, Offset(0)..Offset(64)).unwrap();
    (0..64).filter(|n| settled.contains(Offset(*n))).collect()
}

pub(crate) async fn every_end_is_counted_and_moves_the_low_mark(place: &dyn EngineHome) {
    let engine = place.open();
    let of = one_partition(engine.as_ref()).await;
    stored(engine.as_ref(), numbered(of, 0..8)).await;
    let ends = [
        (2, NewSettlement::Delivered, 0),
        (0, NewSettlement::Filtered, 1),
        (1, NewSettlement::Discarded, 3),
        (7, NewSettlement::Delivered, 3),
        (4, NewSettlement::Delivered, 3),
        (3, NewSettlement::Delivered, 5),
    ];
    for (offset, end, low_mark) in ends {
        stored(engine.as_ref(), vec![settle(of, offset, end)]).await;
        let status = engine.status(of).unwrap();
        assert_eq!(status.low_mark, Offset(low_mark), "after {offset}");
    }
    let both = vec![
        settle(of, 6, NewSettlement::Delivered),
        settle(of, 5, NewSettlement::Delivered),
    ];
    let engine = reopened(engine, place).await;
    stored(engine.as_ref(), both).await;
    let status = engine.status(of).unwrap();
    assert_eq!(status.low_mark, Offset(8));
    let counts = status.counts;
    assert_eq!(
        (counts.delivered, counts.filtered, counts.discarded),
        (6, 1, 1)
    );
    assert_eq!((counts.appended_len(), counts.open_len()), (8, 0));
    let engine = reopened(engine, place).await;
    let mut told = vec![
        (0, Settlement::Filtered),
        (1, Settlement::Discarded),
        (2, Settlement::Delivered),
    ];
    assert_eq!(settled(engine.as_ref(), of, 0..3).await, told);
    told.extend((3..8).map(|offset| (offset, Settlement::Delivered)));
    assert_eq!(settled(engine.as_ref(), of, 0..u64::MAX).await, told);
    assert_eq!(settled(engine.as_ref(), of, 2..3).await, told[2..3]);
    assert_eq!(settled(engine.as_ref(), of, 8..9).await, []);
    if engine.caps().trim {
        engine.trim(of, Offset(5)).await.unwrap();
        assert_eq!(settled(engine.as_ref(), of, 0..9).await, told[5..]);
    }
    reopened(engine, place).await;
}

pub(crate) async fn records_without_an_end_are_named_in_order(place: &dyn EngineHome) {
    let engine = place.open();
    let of = one_partition(engine.as_ref()).await;
    let open = |engine: &dyn Engine, from, len_max| -> Vec<u64> {
        let open = engine.open_offsets(of, Offset(from), len_max).unwrap();
        open.into_iter().map(|offset| offset.0).collect()
    };
    assert_eq!(open(engine.as_ref(), 0, 9), [0; 0]);
    stored(engine.as_ref(), numbered(of, 0..8)).await;
    for ended in [0, 1, 3, 6] {
        stored(
            engine.as_ref(),
            vec![settle(of, ended, NewSettlement::Delivered)],
        )
        .await;
    }
    let engine = reopened(engine, place).await;
    assert_eq!(open(engine.as_ref(), 0, 9), [2, 4, 5, 7]);
    assert_eq!(open(engine.as_ref(), 0, 2), [2, 4]);
    assert_eq!(open(engine.as_ref(), 5, 9), [5, 7]);
    assert_eq!(open(engine.as_ref(), 8, 9), [0; 0]);
    assert_eq!(open(engine.as_ref(), u64::MAX, 9), [0; 0]);
    if engine.caps().trim {
        engine.trim(of, Offset(5)).await.unwrap();
        assert_eq!(open(engine.as_ref(), 0, 9), [5, 7]);
    }
    let elsewhere = PartitionId {
        partition: Partition(9),
        ..of
    };
    assert!(engine.open_offsets(elsewhere, Offset(0), 1).is_err());
    reopened(engine, place).await;
}

pub(crate) async fn a_record_ends_once(place: &dyn EngineHome) {
    let mut engine = place.open();
    let of = one_partition(engine.as_ref()).await;
    stored(engine.as_ref(), numbered(of, 0..3)).await;
    stored(
        engine.as_ref(),
        vec![settle(of, 1, NewSettlement::Delivered)],
    )
    .await;
    for _ in 0..2 {
        for end in [NewSettlement::Delivered, NewSettlement::Discarded] {
            let error = refused(engine.as_ref(), vec![settle(of, 1, end)]).await;
            assert!(
                matches!(error, CommitError::AlreadySettled { of: at, offset: Offset(1) } if at == of),
                "{error}"
            );
        }
        let twice = vec![
            settle(of, 2, NewSettlement::Delivered),
            settle(of, 2, NewSettlement::Delivered),
        ];
        let error = refused(engine.as_ref(), twice).await;
        assert!(
            matches!(error, CommitError::AlreadySettled { .. }),
            "{error}"
        );
        assert_eq!(ended(engine.as_ref(), of), [1]);
        engine = reopened(engine, place).await;
    }
    assert_eq!(engine.status(of).unwrap().counts.delivered, 1);
}

pub(crate) async fn a_routed_record_and_its_copy_are_one_commit(place: &dyn EngineHome) {
    let engine = place.open();
    if !engine.caps().settle_atomic {
        return;
    }
    let source = make(engine.as_ref(), "src", 2).await;
    let errors = make(engine.as_ref(), "errors", 2).await;
    let (origin, copy) = (part(&source, 1), part(&errors, 1));
    stored(engine.as_ref(), numbered(origin, 0..4)).await;
    stored(engine.as_ref(), numbered(copy, 0..1)).await;

    let mut first = append(copy, vec![record("copy of 2")]);
    first.kind = AppendKind::Routed;
    let mut second = first.clone();
    second.records = vec![record("copy of 0"), record("and more")];
    let routed = Commit {
        appends: vec![first, second],
        settles: vec![
            settle(origin, 0, NewSettlement::Routed { append: 1 }),
            settle(origin, 2, NewSettlement::Routed { append: 0 }),
        ],
        ..Commit::default()
    };
    let committed = stored(engine.as_ref(), routed).await;
    assert_eq!(committed.appends[0].first, Offset(1));
    assert_eq!(committed.appends[1].first, Offset(2));

    let mut again = append(copy, vec![record("copy of 2, again")]);
    again.kind = AppendKind::Moved;
    let moved = Commit {
        appends: vec![again],
        settles: vec![settle(copy, 1, NewSettlement::Moved { append: 0 })],
        ..Commit::default()
    };
    stored(engine.as_ref(), moved.clone()).await;
    let error = refused(engine.as_ref(), moved).await;
    assert!(
        matches!(error, CommitError::AlreadySettled { .. }),
        "{error}"
    );

    let engine = reopened(engine, place).await;
    let moved = |offset| Settlement::Moved {
        copy: Some((copy.stream, Offset(offset))),
    };
    let told = [(0, moved(2)), (2, moved(1))];
    assert_eq!(settled(engine.as_ref(), origin, 0..9).await, told);
    assert_eq!(settled(engine.as_ref(), copy, 0..9).await, [(1, moved(4))]);
    let (origin, copy) = (
        engine.status(origin).unwrap(),
        engine.status(copy).unwrap().counts,
    );
    assert_eq!((origin.counts.routed, origin.counts.open_len()), (2, 2));
    assert_eq!(origin.low_mark, Offset(1));
    assert_eq!(copy.appended, [1, 3, 1, 0, 0]);
    assert_eq!((copy.moved, copy.open_len()), (1, 4));
}

pub(crate) async fn settle_soon_is_stored_with_the_next_write(place: &dyn EngineHome) {
    let engine = place.open();
    let of = one_partition(engine.as_ref()).await;
    stored(engine.as_ref(), numbered(of, 0..20)).await;
    for offset in 0..10 {
        let end = settle(of, offset, NewSettlement::Delivered);
        engine.settle_soon(end).unwrap();
        let committed = stored(engine.as_ref(), change("t/a", Some("1"), None)).await;
        assert!(committed.appends.is_empty());
        assert_eq!(engine.status(of).unwrap().low_mark, Offset(offset + 1));
    }
    // What is queued at close is stored, too.
    engine
        .settle_soon(settle(of, 15, NewSettlement::Filtered))
        .unwrap();
    let engine = reopened(engine, place).await;
    assert!(ended(engine.as_ref(), of).contains(&15));
    assert_eq!(engine.status(of).unwrap().counts.filtered, 1);
}

pub(crate) async fn settle_soon_needs_no_other_write(place: &dyn EngineHome) {
    let engine = place.open();
    let of = one_partition(engine.as_ref()).await;
    stored(engine.as_ref(), numbered(of, 0..20)).await;
    for offset in 0..20 {
        let end = settle(of, offset, NewSettlement::Delivered);
        engine.settle_soon(end).unwrap();
    }
    eventually("all ends", || {
        engine.status(of).unwrap().low_mark == Offset(20)
    })
    .await;
    let engine = reopened(engine, place).await;
    assert_eq!(engine.status(of).unwrap().counts.delivered, 20);
}

pub(crate) async fn a_refused_settle_soon_harms_nothing(place: &dyn EngineHome) {
    let engine = place.open();
    let stream = make(engine.as_ref(), "src", 1).await;
    let of = part(&stream, 0);
    stored(engine.as_ref(), numbered(of, 0..5)).await;
    stored(
        engine.as_ref(),
        vec![settle(of, 0, NewSettlement::Delivered)],
    )
    .await;
    let delivered = |offset| settle(of, offset, NewSettlement::Delivered);
    let all = [
        delivered(0),  // has an end
        delivered(1),  // good
        delivered(1),  // twice
        delivered(99), // never written
        Settle {
            epoch: Epoch(2),
            ..delivered(2)
        },
        settle(part(&stream, 7), 0, NewSettlement::Delivered),
        delivered(3), // good
    ];
    for end in all {
        // Refused now or dropped later: both are allowed.
        let _refused = engine.settle_soon(end);
    }
    let committed = stored(engine.as_ref(), numbered(of, 5..6)).await;
    assert_eq!(committed.appends[0].first, Offset(5));
    assert_eq!(ended(engine.as_ref(), of), [0, 1, 3]);
    let engine = reopened(engine, place).await;
    assert_eq!(engine.status(of).unwrap().counts.delivered, 3);
}

pub(crate) async fn ends_are_found_over_many_thousand_records(place: &dyn EngineHome) {
    const COUNT: u64 = 40_000;
    let engine = place.open();
    let of = one_partition(engine.as_ref()).await;
    for first in (0..COUNT).step_by(1_000) {
        stored(engine.as_ref(), numbered(of, first..first + 1_000)).await;
    }
    let open = [0, 63, 64, 16_383, 16_384, 32_767, 32_800, COUNT - 1];
    let ends: Vec<_> = (0..COUNT)
        .filter(|offset| !open.contains(offset))
        .map(|offset| settle(of, offset, NewSettlement::Delivered))
        .collect();
    for ends in ends.chunks(700) {
        stored(engine.as_ref(), ends.to_vec()).await;
    }
    let engine = reopened(engine, place).await;
    let status = engine.status(of).unwrap();
    assert_eq!(status.low_mark, Offset(0));
    assert_eq!(status.counts.open_len(), open.len() as u64);
    for range in [0..COUNT, 16_000..17_000, 16_384..16_385, 32_767..32_801] {
        let settled = engine
            .settled_offsets(of, Offset(range.start)..Offset(range.end))
            .unwrap();
        for offset in range {
            assert_eq!(settled.contains(Offset(offset)), !open.contains(&offset));
        }
    }
    let rest = open[..6].iter();
    let rest: Vec<_> = rest
        .map(|n| settle(of, *n, NewSettlement::Filtered))
        .collect();
    stored(engine.as_ref(), rest).await;
    assert_eq!(engine.status(of).unwrap().low_mark, Offset(32_800));
    let before = Content::of(engine.as_ref()).await;
    let engine = reopened(engine, place).await;
    before.assert_same(&Content::of(engine.as_ref()).await, "at the end");
}
