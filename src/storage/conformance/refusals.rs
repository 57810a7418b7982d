//! A commit is stored together or not at all.

use bytes::Bytes;

use super::{Content, EngineHome, change, make, numbered, part, refused, reopened, settle, stored};
use crate::{
    model::ids::{Offset, PartitionId, StreamId},
    storage::{
        Append, Commit, CommitError, Engine, Epoch, NewSettlement, STATE_BYTES_MAX, Settle,
        StateChange, Stream,
    },
};

/// A part that makes its commit impossible.
#[derive(Clone, Debug)]
enum Bad {
    Append(Append),
    Settle(Settle),
    State(StateChange),
}

pub(crate) async fn a_refused_part_refuses_all(place: &dyn EngineHome) {
    let engine = place.open();
    let stream = make(engine.as_ref(), "src", 2).await;
    let of = part(&stream, 0);
    let gone = make(engine.as_ref(), "gone", 1).await;
    stored(engine.as_ref(), numbered(part(&gone, 0), 0..1)).await;
    engine
        .delete_stream(gone.id, None, crate::storage::OpenRecords::Drop)
        .await
        .unwrap();
    stored(engine.as_ref(), numbered(of, 0..10)).await;
    stored(
        engine.as_ref(),
        vec![settle(of, 5, NewSettlement::Filtered)],
    )
    .await;
    engine.trim(of, Offset(2)).await.unwrap();
    stored(engine.as_ref(), change("t/a", Some("1"), None)).await;
    stored(engine.as_ref(), change("t/gone", Some("1"), None)).await;
    stored(engine.as_ref(), change("t/gone", None, None)).await;

    let before = Content::of(engine.as_ref()).await;
    for (what, bad) in bad_parts(engine.as_ref(), &stream, &gone).await {
        for first in [false, true] {
            let error = refused(engine.as_ref(), around(of, bad.clone(), first)).await;
            assert!(is_right(what, &error), "{bad:?}: {error:?}");
            before.assert_same(&Content::of(engine.as_ref()).await, what);
        }
    }
    let engine = reopened(engine, place).await;
    before.assert_same(&Content::of(engine.as_ref()).await, "after a reopen");

    // The good parts alone are fine.
    let mut good = around(of, Bad::State(change("t/b", Some("2"), None)), false);
    good.settles.retain(|settle| settle.offset == Offset(7));
    let committed = stored(engine.as_ref(), good).await;
    assert_eq!(committed.appends[0].first, Offset(10));
}

/// Good parts of every kind, and a bad one before or behind its like.
fn around(of: PartitionId, bad: Bad, first: bool) -> Commit {
    let mut commit = Commit {
        appends: vec![numbered(of, 10..12)],
        settles: vec![settle(of, 7, NewSettlement::Delivered)],
        state: vec![change("t/new", Some("new"), Some(0))],
        ..Commit::default()
    };
    fn put<T>(list: &mut Vec<T>, bad: T, first: bool) {
        list.insert(if first { 0 } else { list.len() }, bad);
    }
    match bad {
        Bad::Append(append) => put(&mut commit.appends, append, first),
        Bad::Settle(settle) => put(&mut commit.settles, settle, first),
        Bad::State(change) => put(&mut commit.state, change, first),
    }
    commit
}

async fn bad_parts(
    engine: &dyn Engine,
    stream: &Stream,
    gone: &Stream,
) -> Vec<(&'static str, Bad)> {
    let of = part(stream, 0);
    let nowhere = Stream {
        id: StreamId([9; 16]),
        ..stream.clone()
    };
    let end = |of, offset| Bad::Settle(settle(of, offset, NewSettlement::Delivered));
    let epoch = |epoch| {
        Bad::Settle(Settle {
            epoch: Epoch(epoch),
            ..settle(of, 6, NewSettlement::Delivered)
        })
    };
    let revision = engine.get("t/a").await.unwrap().revision;
    let mut bad = vec![
        ("settled", end(of, 5)),  // has one
        ("settled", end(of, 7)),  // has one in the same commit
        ("settled", end(of, 1)),  // trimmed
        ("settled", end(of, 50)), // never written
        ("settled", end(part(stream, 1), 0)),
        ("unknown", end(part(stream, 2), 0)),
        ("unknown", end(part(gone, 0), 0)),
        ("unknown", end(part(&nowhere, 0), 0)),
        ("fenced", epoch(0)),
        ("fenced", epoch(2)),
        ("fenced", epoch(u64::MAX)),
    ];
    for of in [part(stream, 2), part(gone, 0), part(&nowhere, 0)] {
        bad.push(("unknown", Bad::Append(numbered(of, 0..1))));
    }
    for (key, expected) in [
        ("t/a", 0),
        ("t/a", revision + 1),
        ("t/a", revision - 1),
        ("t/gone", 1),
        ("t/never", 1),
    ] {
        for value in [Some("2"), None] {
            bad.push(("conflict", Bad::State(change(key, value, Some(expected)))));
        }
    }
    let large = StateChange {
        key: "t/large".into(),
        value: Some(Bytes::from(vec![1; STATE_BYTES_MAX + 1])),
        expected: None,
    };
    bad.push(("large", Bad::State(large)));
    bad.push((
        "large",
        Bad::State(change(&"k".repeat(513), Some("1"), None)),
    ));
    bad
}

fn is_right(what: &str, error: &CommitError) -> bool {
    match what {
        "settled" => matches!(error, CommitError::AlreadySettled { .. }),
        "unknown" => matches!(error, CommitError::PartitionUnknown(_)),
        "fenced" => matches!(error, CommitError::Fenced(_)),
        "conflict" => matches!(error, CommitError::StateConflict { .. }),
        "large" => matches!(error, CommitError::TooLarge { .. }),
        _ => unreachable!("{what}"),
    }
}
