//! Named values.

use bytes::Bytes;

use super::{EngineHome, change, refused, reopened, stored};
use crate::storage::{
    AppendKind, Commit, CommitError, Engine, STATE_BYTES_MAX, StateChange, shares::share_of,
};

async fn keys(engine: &dyn Engine, prefix: &str) -> Vec<String> {
    let list = engine.list(prefix).await;
    list.iter().map(|(key, _)| key.to_string()).collect()
}

pub(crate) async fn values_are_set_found_listed_and_removed(place: &dyn EngineHome) {
    let mut engine = place.open();
    for key in ["t/b/2", "t/a", "t/b/1", "t/c", "t0"] {
        stored(engine.as_ref(), change(key, Some("one"), None)).await;
    }
    let together = Commit {
        state: vec![
            change("t/c", None, None),
            change("t/never", None, None),
            change("t/a", Some("two"), None),
            change("t/empty", Some(""), None),
        ],
        ..Commit::default()
    };
    stored(engine.as_ref(), together).await;
    for _ in 0..3 {
        for (prefix, wanted) in [
            ("t/", &["t/a", "t/b/1", "t/b/2", "t/empty"][..]),
            ("t/b/", &["t/b/1", "t/b/2"]),
            ("t/b/1", &["t/b/1"]),
            ("t/b/11", &[]),
            ("t", &["t/a", "t/b/1", "t/b/2", "t/empty", "t0"]),
        ] {
            assert_eq!(keys(engine.as_ref(), prefix).await, wanted, "{prefix}");
        }
        assert_eq!(engine.get("t/a").await.unwrap().value, "two");
        assert_eq!(engine.get("t/b/1").await.unwrap().value, "one");
        assert_eq!(engine.get("t/empty").await.unwrap().value, "");
        for absent in ["t/c", "t/never", "t/", "T/A"] {
            assert_eq!(engine.get(absent).await, None, "{absent}");
        }
        engine = reopened(engine, place).await;
    }
}

pub(crate) async fn revisions_guard_a_value(place: &dyn EngineHome) {
    let mut engine = place.open();
    let mut last = 0;
    for round in 0..3 {
        stored(engine.as_ref(), change("t/a", Some("1"), Some(0))).await;
        let first = engine.get("t/a").await.unwrap().revision;
        assert!(first > last, "{first} after {last}");
        let error = refused(engine.as_ref(), change("t/a", Some("2"), Some(0))).await;
        assert!(
            matches!(&error, CommitError::StateConflict { key } if &**key == "t/a"),
            "{error}"
        );
        stored(engine.as_ref(), change("t/other", Some("1"), None)).await;
        stored(engine.as_ref(), change("t/a", Some("2"), Some(first))).await;
        let second = engine.get("t/a").await.unwrap().revision;
        assert!(second > engine.get("t/other").await.unwrap().revision);
        assert!(second > first);
        let error = refused(engine.as_ref(), change("t/a", None, Some(first))).await;
        assert!(
            matches!(error, CommitError::StateConflict { .. }),
            "{error}"
        );
        if round == 0 {
            engine = reopened(engine, place).await;
        }
        assert_eq!(engine.get("t/a").await.unwrap().value, "2");
        stored(engine.as_ref(), change("t/a", None, Some(second))).await;
        assert_eq!(engine.get("t/a").await, None);
        if round == 1 {
            // The count goes on though nothing is left that shows it.
            stored(engine.as_ref(), change("t/other", None, None)).await;
            engine = reopened(engine, place).await;
        }
        last = second;
    }
    reopened(engine, place).await;
}

pub(crate) async fn values_of_the_greatest_size_are_kept(place: &dyn EngineHome) {
    let engine = place.open();
    let key = "t/".to_owned() + &"k".repeat(510);
    let value = (0..=255).cycle().take(STATE_BYTES_MAX).collect::<Bytes>();
    let put = |key: &str| StateChange {
        key: key.into(),
        value: Some(value.clone()),
        expected: Some(0),
    };
    stored(engine.as_ref(), put(&key)).await;
    stored(engine.as_ref(), put("t/second")).await;
    let engine = reopened(engine, place).await;
    let engine = reopened(engine, place).await;
    assert!(engine.get(&key).await.unwrap().value == value);
}

pub(crate) async fn watchers_hear_of_their_prefix_alone(place: &dyn EngineHome) {
    let engine = place.open();
    let mut mine = engine.changed("t/a/");
    let mut all = engine.changed("");
    let mut seen = (*mine.borrow_and_update(), *all.borrow_and_update());
    for (key, value, is_mine) in [
        ("t/a/1", Some("1"), true),
        ("t/b/1", Some("1"), false),
        ("t/a", Some("1"), false),
        ("t/a/1", None, true),
        ("t/a/2", Some("2"), true),
    ] {
        stored(engine.as_ref(), change(key, value, None)).await;
        assert_eq!(mine.has_changed().unwrap(), is_mine, "{key}");
        assert!(all.has_changed().unwrap(), "{key}");
        let now = (*mine.borrow_and_update(), *all.borrow_and_update());
        assert!(now.1 > seen.1 && (now.0 > seen.0) == is_mine, "{key}");
        seen = now;
    }
    refused(engine.as_ref(), change("t/a/2", None, Some(0))).await;
    assert!(!mine.has_changed().unwrap(), "a refused change is none");
}

pub(crate) async fn each_kind_keeps_to_its_share(place: &dyn EngineHome) {
    let mut engine = place.open();
    let large = "x".repeat(200 << 10);
    let put = |key: String, value: &str| StateChange {
        key: key.into(),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        expected: None,
    };
    let mut len = 0;
    let full = loop {
        let change = put(format!("user/{len}"), &large);
        match engine.commit(change.into()).await {
            Ok(_) => len += 1,
            Err(error) => break error,
        }
    };
    let CommitError::StateFull { kind, bytes_max } = full else {
        panic!("{full}");
    };
    assert_eq!((kind, bytes_max), ("users", 1 << 20));
    assert_eq!(len, bytes_max / large.len());
    for round in 0..2 {
        // Nobody else's share is smaller by that, and nothing of a refused commit is stored.
        let other = format!("retention/{round}");
        stored(engine.as_ref(), put(other, &large)).await;
        let both = Commit {
            state: vec![
                put("retention/half".into(), "1"),
                put("user/more".into(), &large),
            ],
            ..Commit::default()
        };
        let error = refused(engine.as_ref(), both).await;
        assert!(
            matches!(error, CommitError::StateFull { kind: "users", .. }),
            "{error}"
        );
        assert_eq!(engine.get("retention/half").await, None);
        let bytes = engine.share_bytes();
        let users = bytes[share_of("user/")];
        assert!((len * large.len()..=bytes_max).contains(&users), "{users}");
        // What is there can be replaced, and one can go for another.
        stored(engine.as_ref(), put("user/0".into(), &large)).await;
        let swap = Commit {
            state: vec![change("user/1", None, None), put("user/1".into(), &large)],
            ..Commit::default()
        };
        stored(engine.as_ref(), swap).await;
        engine = reopened(engine, place).await;
        assert_eq!(engine.share_bytes(), bytes);
    }
    stored(engine.as_ref(), put("user/0".into(), "small")).await;
    stored(engine.as_ref(), put("user/more".into(), &large)).await;
    reopened(engine, place).await;
}

pub(crate) async fn a_record_from_outside_refers_to_what_is_there(place: &dyn EngineHome) {
    let engine = place.open();
    let of = super::one_partition(engine.as_ref()).await;
    let referring = |kind, changes: Vec<StateChange>| {
        let mut append = super::numbered(of, 0..1);
        append.kind = kind;
        append.refers = vec!["secret/a".into()];
        Commit {
            appends: vec![append],
            state: changes,
            ..Commit::default()
        }
    };
    let is_conflict = |error: &CommitError| matches!(error, CommitError::StateConflict { key } if **key == *"secret/a");
    for kind in AppendKind::ALL {
        let commit = referring(kind, Vec::new());
        match kind.is_from_outside() {
            true => {
                let error = refused(engine.as_ref(), commit).await;
                assert!(is_conflict(&error), "{error}");
            }
            // Its origin had it.
            false => drop(stored(engine.as_ref(), commit).await),
        }
    }
    let put = || change("secret/a", Some("1"), None);
    stored(
        engine.as_ref(),
        referring(AppendKind::Accepted, vec![put()]),
    )
    .await;
    stored(engine.as_ref(), referring(AppendKind::Accepted, Vec::new())).await;
    let removed = vec![change("secret/a", None, None)];
    let error = refused(engine.as_ref(), referring(AppendKind::Accepted, removed)).await;
    assert!(is_conflict(&error), "{error}");
    reopened(engine, place).await;
}

pub(crate) async fn a_value_that_a_record_refers_to_since_does_not_go(place: &dyn EngineHome) {
    let engine = place.open();
    let of = super::one_partition(engine.as_ref()).await;
    let refer = |keys: &[&str], kind| {
        let mut append = super::numbered(of, 0..1);
        append.kind = kind;
        append.refers = keys.iter().map(|key| (*key).into()).collect();
        append
    };
    for key in ["secret/a", "secret/b", "secret/c"] {
        stored(engine.as_ref(), change(key, Some("1"), None)).await;
    }
    stored(engine.as_ref(), refer(&["secret/a"], AppendKind::Accepted)).await;
    let since = stored(engine.as_ref(), Commit::default()).await.time;
    stored(engine.as_ref(), refer(&["secret/b"], AppendKind::Accepted)).await;
    stored(engine.as_ref(), refer(&["secret/c"], AppendKind::Routed)).await;
    let gone = |keys: &[&str], since| Commit {
        state: keys.iter().map(|key| change(key, None, None)).collect(),
        unreferred_since: since,
        ..Commit::default()
    };
    for keys in [&["secret/b"][..], &["secret/c"], &["secret/a", "secret/b"]] {
        let error = refused(engine.as_ref(), gone(keys, Some(since))).await;
        assert!(
            matches!(error, CommitError::StateConflict { .. }),
            "{error}"
        );
    }
    // Setting a value is no removal, and without a time it is the caller's to know.
    let set = Commit {
        state: vec![change("secret/b", Some("2"), None)],
        unreferred_since: Some(since),
        ..Commit::default()
    };
    stored(engine.as_ref(), set).await;
    stored(engine.as_ref(), gone(&["secret/a"], Some(since))).await;
    let later = stored(engine.as_ref(), Commit::default()).await.time;
    stored(engine.as_ref(), gone(&["secret/b"], Some(later))).await;
    stored(engine.as_ref(), gone(&["secret/c"], None)).await;
    assert!(engine.list("secret/").await.is_empty());
    reopened(engine, place).await;
}
