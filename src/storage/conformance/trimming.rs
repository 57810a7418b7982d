//! Trims of a partition.

use super::{
    Content, EngineHome, append, make, numbered, one_partition, part, record, refused, reopened,
    settle, stored,
};
use crate::{
    model::ids::Offset,
    storage::{Bounds, CommitError, Keep, NewSettlement, ReadError},
};

pub(crate) async fn a_trim_removes_what_is_below_and_counts_what_was_open(place: &dyn EngineHome) {
    let mut engine = place.open();
    let stream = make(engine.as_ref(), "src", 2).await;
    let of = part(&stream, 0);
    stored(engine.as_ref(), numbered(of, 0..10)).await;
    stored(engine.as_ref(), numbered(part(&stream, 1), 0..2)).await;
    let ends = [1, 2, 3, 8].map(|offset| settle(of, offset, NewSettlement::Delivered));
    stored(engine.as_ref(), ends.to_vec()).await;
    // below, then: earliest, low mark, expired
    for (below, earliest, low_mark, expired) in [
        (0, 0, 0, 0),
        (1, 1, 4, 1),
        (3, 3, 4, 1),
        (3, 3, 4, 1),
        (2, 3, 4, 1),
        (6, 6, 6, 3),
        (9, 9, 9, 5),
        (99, 10, 10, 6),
        (u64::MAX, 10, 10, 6),
    ] {
        engine.trim(of, Offset(below)).await.unwrap();
        let status = engine.status(of).unwrap();
        let bounds = Bounds {
            earliest: Offset(earliest),
            tail: Offset(10),
        };
        assert_eq!(status.bounds, bounds, "below {below}");
        assert_eq!(status.low_mark, Offset(low_mark), "below {below}");
        let counts = status.counts;
        assert_eq!(
            (counts.expired, counts.delivered),
            (expired, 4),
            "below {below}"
        );
        if let Some(wanted) = earliest.checked_sub(1).map(Offset) {
            let error = engine.read(of, wanted, 1).await.unwrap_err();
            let Offset(earliest) = bounds.earliest;
            assert!(
                matches!(error, ReadError::Trimmed { wanted: w, earliest: e } if w == wanted && e.0 == earliest),
                "{error:?}"
            );
        }
        engine = reopened(engine, place).await;
    }
    let other = engine.status(part(&stream, 1)).unwrap();
    assert_eq!(other.bounds.earliest, Offset(0));
}

pub(crate) async fn offsets_go_on_after_everything_was_trimmed(place: &dyn EngineHome) {
    let mut engine = place.open();
    let of = one_partition(engine.as_ref()).await;
    for round in 0..4 {
        let first = round * 5;
        let committed = stored(engine.as_ref(), numbered(of, first..first + 5)).await;
        assert_eq!(committed.appends[0].first, Offset(first));
        engine.trim(of, Offset(u64::MAX)).await.unwrap();
        let page = engine.read(of, Offset(first + 5), 1_000).await.unwrap();
        assert!(page.records.is_empty());
        if round > 0 {
            engine = reopened(engine, place).await;
        }
    }
    let status = engine.status(of).unwrap();
    assert_eq!(status.bounds.earliest, Offset(20));
    assert_eq!(status.counts.expired, 20);
}

pub(crate) async fn a_trimmed_record_cannot_end(place: &dyn EngineHome) {
    let engine = place.open();
    let of = one_partition(engine.as_ref()).await;
    stored(engine.as_ref(), numbered(of, 0..4)).await;
    engine.trim(of, Offset(2)).await.unwrap();
    let before = Content::of(engine.as_ref()).await;
    let error = refused(
        engine.as_ref(),
        vec![settle(of, 1, NewSettlement::Delivered)],
    )
    .await;
    assert!(
        matches!(error, CommitError::AlreadySettled { .. }),
        "{error}"
    );
    // An end that was on its way when the trim came.
    let _refused = engine.settle_soon(settle(of, 0, NewSettlement::Delivered));
    engine.trim(of, Offset(2)).await.unwrap();
    let engine = reopened(engine, place).await;
    before.assert_same(&Content::of(engine.as_ref()).await, "after refusals");
}

pub(crate) async fn what_is_kept_is_at_least_what_was_asked_for(place: &dyn EngineHome) {
    let clock = place.clock();
    let mut engine = place.open();
    let stream = make(engine.as_ref(), "src", 2).await;
    let mut times = Vec::new();
    let value = "v".repeat(30_000);
    for number in 0..20 {
        clock.set(clock.now().plus_micros(1_000_000));
        let of = part(&stream, number % 2);
        let committed = stored(engine.as_ref(), append(of, vec![record(value.clone())])).await;
        times.push(committed.time);
    }
    let total = 20 * value.len() as u64;
    for _ in 0..2 {
        let now = clock.now();
        let kept = async |since, bytes_max| {
            let keep = Keep {
                since,
                now,
                bytes_max,
            };
            engine.first_kept(stream.id, keep).await.unwrap()
        };
        assert_eq!(kept(None, None).await, [Offset(0); 2]);
        assert_eq!(kept(None, Some(u64::MAX)).await, [Offset(0); 2]);
        for (number, time) in (0..).zip(&times) {
            let begins = kept(Some(*time), None).await;
            let wanted = [Offset(u64::div_ceil(number, 2)), Offset(number / 2)];
            assert!(
                begins[0] <= wanted[0] && begins[1] <= wanted[1],
                "{begins:?} {wanted:?}"
            );
        }
        for bytes_max in [0, 100_000, 200_000, 500_000, total] {
            let begins = kept(None, Some(bytes_max)).await;
            let left: u64 = begins.iter().map(|begin| 10 - begin.0).sum();
            assert!(left * 30_200 >= bytes_max, "{begins:?} of {bytes_max}");
            let both = kept(Some(times[10]), Some(bytes_max)).await;
            assert!(both.iter().zip(&begins).all(|(both, begin)| both >= begin));
        }
        engine = reopened(engine, place).await;
    }
}
