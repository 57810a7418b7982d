//! Repeated commits are recognised by their ids.

use bytes::Bytes;

use super::{
    Content, EngineHome, change, make, numbered, one_partition, part, refused, reopened, settle,
    stored,
};
use crate::{
    model::ids::{Offset, PartitionId},
    storage::{
        Append, Appended, Commit, CommitError, Committed, Dedup, DedupId, Engine, NewSettlement,
        OpenRecords, REPLY_BYTES_MAX,
    },
};

fn marked(appends: impl Into<Vec<Append>>, id: u8, reply: impl Into<Bytes>) -> Commit {
    Commit {
        appends: appends.into(),
        dedup: Some(Dedup {
            id: DedupId([id; 16]),
            reply: reply.into(),
        }),
        ..Commit::default()
    }
}

fn at(of: PartitionId, first: u64, len: u64) -> Appended {
    Appended {
        of,
        first: Offset(first),
        len,
    }
}

/// Checks that a commit changes nothing, and is answered as `first` was, with its reply.
async fn check_repeats(engine: &dyn Engine, commit: Commit, first: &Committed, reply: &str) {
    let before = Content::of(engine).await;
    let stream = commit.appends[0].of.stream;
    let id = commit.dedup.as_ref().unwrap().id;
    let found = engine.committed(stream, id).expect("it is remembered");
    let again = stored(engine, commit).await;
    assert_eq!(again, found);
    assert_eq!((again.time, &again.appends), (first.time, &first.appends));
    assert_eq!(again.repeats.as_deref(), Some(reply.as_bytes()));
    before.assert_same(&Content::of(engine).await, "after a repetition");
}

pub(crate) async fn a_repeated_commit_is_answered_as_the_first_one_was(place: &dyn EngineHome) {
    let mut engine = place.open();
    if !engine.caps().dedup {
        return;
    }
    let stream = make(engine.as_ref(), "src", 3).await;
    let part = |partition| part(&stream, partition);
    stored(engine.as_ref(), numbered(part(1), 0..1)).await;
    assert!(engine.committed(stream.id, DedupId([1; 16])).is_none());
    let appends = [numbered(part(2), 1..2), numbered(part(1), 2..5)];
    let first = stored(engine.as_ref(), marked(appends.clone(), 1, "told")).await;
    assert_eq!(first.appends, [at(part(2), 0, 1), at(part(1), 1, 3)]);
    assert_eq!(first.repeats, None);
    for _ in 0..3 {
        let same = marked(appends.clone(), 1, "told");
        check_repeats(engine.as_ref(), same, &first, "told").await;
        // Whatever else is asked for, it is the same commit.
        let elsewhere = Commit {
            settles: vec![settle(part(1), 0, NewSettlement::Delivered)],
            state: vec![change("k", Some("v"), Some(7))],
            ..marked([numbered(part(0), 0..9)], 1, "else")
        };
        check_repeats(engine.as_ref(), elsewhere, &first, "told").await;
        engine = reopened(engine, place).await;
    }
    let other = stored(engine.as_ref(), marked([numbered(part(1), 3..4)], 2, "")).await;
    assert_eq!(other.appends, [at(part(1), 4, 1)]);
    let again = marked([numbered(part(1), 3..4)], 2, "");
    check_repeats(engine.as_ref(), again, &other, "").await;
    let unmarked = stored(engine.as_ref(), numbered(part(1), 4..5)).await;
    assert_eq!(unmarked.appends, [at(part(1), 5, 1)]);
}

pub(crate) async fn repetitions_are_seen_between_neighbours(place: &dyn EngineHome) {
    let engine = place.open();
    if !engine.caps().dedup {
        return;
    }
    let of = one_partition(engine.as_ref()).await;
    // Queued together, so that one write may hold several of them.
    let same = (0..20u8).map(|n| {
        let commit = marked([numbered(of, 5..7)], n % 2, n.to_string());
        engine.commit(commit)
    });
    let same = futures_util::future::join_all(same).await;
    let same: Vec<_> = same.into_iter().map(Result::unwrap).collect();
    for id in 0..2 {
        let mut all = same.iter().skip(id).step_by(2);
        let first = all.next().unwrap();
        assert_eq!(first.repeats, None);
        for again in all {
            assert_eq!((&again.appends, again.time), (&first.appends, first.time));
            assert_eq!(again.repeats.as_deref(), Some(id.to_string().as_bytes()));
        }
    }
    let engine = reopened(engine, place).await;
    assert_eq!(engine.status(of).unwrap().bounds.tail, Offset(4));
}

pub(crate) async fn a_refused_commit_is_not_remembered(place: &dyn EngineHome) {
    let engine = place.open();
    if !engine.caps().dedup {
        return;
    }
    let of = one_partition(engine.as_ref()).await;
    let commit = |expected| Commit {
        state: vec![change("k", Some("v"), Some(expected))],
        ..marked([numbered(of, 0..1)], 1, "")
    };
    let error = refused(engine.as_ref(), commit(7)).await;
    assert!(matches!(error, CommitError::StateConflict { .. }));
    let first = stored(engine.as_ref(), commit(0)).await;
    assert_eq!(first.repeats, None);
    check_repeats(engine.as_ref(), commit(7), &first, "").await;

    let other = make(engine.as_ref(), "other", 1).await;
    let both = [numbered(of, 0..1), numbered(part(&other, 0), 0..1)];
    for wrong in [
        marked([], 2, ""),
        marked(both, 2, ""),
        marked([numbered(of, 0..1)], 2, vec![0; REPLY_BYTES_MAX + 1]),
    ] {
        let error = refused(engine.as_ref(), wrong).await;
        assert!(matches!(error, CommitError::TooLarge { .. }), "{error}");
    }
    let largest = marked([numbered(of, 1..2)], 2, vec![7; REPLY_BYTES_MAX]);
    stored(engine.as_ref(), largest).await;
    let engine = reopened(engine, place).await;
    let found = engine.committed(of.stream, DedupId([2; 16])).unwrap();
    assert_eq!(found.repeats.unwrap(), vec![7; REPLY_BYTES_MAX]);
}

pub(crate) async fn an_id_goes_with_its_stream(place: &dyn EngineHome) {
    let mut engine = place.open();
    if !engine.caps().dedup {
        return;
    }
    for round in 0..3 {
        let stream = make(engine.as_ref(), "src", 1).await;
        let of = part(&stream, 0);
        let committed = stored(engine.as_ref(), marked([numbered(of, 0..1)], round, "")).await;
        assert_eq!(committed.appends, [at(of, 0, 1)], "round {round}");
        engine = reopened(engine, place).await;
        // The one before has taken its ids along.
        let before = marked([numbered(of, 1..2)], round.wrapping_sub(1), "");
        let committed = stored(engine.as_ref(), before).await;
        assert_eq!(committed.repeats, None, "round {round}");
        assert_eq!(committed.appends, [at(of, 1, 1)], "round {round}");
        engine
            .delete_stream(stream.id, None, OpenRecords::Drop)
            .await
            .unwrap();
        assert!(engine.committed(stream.id, DedupId([round; 16])).is_none());
        engine = reopened(engine, place).await;
    }
}
