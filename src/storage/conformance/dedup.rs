//! A repeated append is recognised.

use super::{Content, Place, make, numbered, one_partition, part, reopened, stored};
use crate::{
    place::Offset,
    storage::{Append, Appended, Commit, DedupId},
};

fn marked(append: Append, id: u8) -> Append {
    Append {
        dedup: Some(DedupId([id; 16])),
        ..append
    }
}

fn duplicate(first: u64) -> Appended {
    Appended {
        first: Offset(first),
        duplicate: true,
    }
}

fn new(first: u64) -> Appended {
    Appended {
        first: Offset(first),
        duplicate: false,
    }
}

pub(crate) async fn a_repeated_append_is_answered_with_the_first_place(place: &dyn Place) {
    let mut engine = place.open();
    if !engine.caps().dedup {
        return;
    }
    let of = one_partition(engine.as_ref()).await;
    stored(engine.as_ref(), numbered(of, 0..1)).await;
    let first = marked(numbered(of, 1..3), 1);
    let committed = stored(engine.as_ref(), first.clone()).await;
    assert_eq!(committed.appends, [new(1)]);
    for _ in 0..3 {
        let before = Content::of(engine.as_ref()).await;
        let again = stored(engine.as_ref(), first.clone()).await;
        assert_eq!(again.appends, [duplicate(1)]);
        before.assert_same(&Content::of(engine.as_ref()).await, "after a repetition");
        engine = reopened(engine, place).await;
    }
    let other = stored(engine.as_ref(), marked(numbered(of, 3..4), 2)).await;
    assert_eq!(other.appends, [new(3)]);
    let unmarked = stored(engine.as_ref(), numbered(of, 4..5)).await;
    assert_eq!(unmarked.appends, [new(4)]);
}

pub(crate) async fn repetitions_are_seen_within_a_commit_and_between_neighbours(place: &dyn Place) {
    let engine = place.open();
    if !engine.caps().dedup {
        return;
    }
    let of = one_partition(engine.as_ref()).await;
    let mixed = Commit {
        appends: vec![
            marked(numbered(of, 0..2), 1),
            marked(numbered(of, 0..2), 1),
            numbered(of, 2..3),
            marked(numbered(of, 3..4), 2),
        ],
        ..Commit::default()
    };
    let committed = stored(engine.as_ref(), mixed.clone()).await;
    assert_eq!(committed.appends, [new(0), duplicate(0), new(2), new(3)]);
    let again = stored(engine.as_ref(), mixed).await;
    assert_eq!(
        again.appends,
        [duplicate(0), duplicate(0), new(4), duplicate(3)]
    );
    // Queued together, so that one write may hold several of them.
    let same = (0..20).map(|n| engine.commit(marked(numbered(of, 5..6), 3 + n % 2).into()));
    let same = futures_util::future::join_all(same).await;
    let stored = same.into_iter().map(|answer| answer.unwrap().appends[0]);
    let (repeated, first): (Vec<_>, Vec<_>) = stored.partition(|append| append.duplicate);
    assert_eq!((first.len(), repeated.len()), (2, 18));
    let engine = reopened(engine, place).await;
    assert_eq!(engine.status(of).unwrap().bounds.tail, Offset(7));
}

pub(crate) async fn an_id_goes_with_its_stream(place: &dyn Place) {
    let mut engine = place.open();
    if !engine.caps().dedup {
        return;
    }
    for round in 0..3 {
        let stream = make(engine.as_ref(), "src", 1).await;
        let of = part(&stream, 0);
        let committed = stored(engine.as_ref(), marked(numbered(of, 0..1), round)).await;
        assert_eq!(committed.appends, [new(0)], "round {round}");
        engine = reopened(engine, place).await;
        // The one before has taken its ids along.
        let before = marked(numbered(of, 1..2), round.wrapping_sub(1));
        let committed = stored(engine.as_ref(), before).await;
        assert_eq!(committed.appends, [new(1)], "round {round}");
        engine
            .delete_stream(stream.id, None, crate::storage::OpenRecords::Drop)
            .await
            .unwrap();
        engine = reopened(engine, place).await;
    }
}
