//! Named values.

use bytes::Bytes;

use super::{Place, change, refused, reopened, stored};
use crate::storage::{Commit, CommitError, Engine, STATE_BYTES_MAX, StateChange};

async fn keys(engine: &dyn Engine, prefix: &str) -> Vec<String> {
    let list = engine.list(prefix).await;
    list.iter().map(|(key, _)| key.to_string()).collect()
}

pub(crate) async fn values_are_set_found_listed_and_removed(place: &dyn Place) {
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

pub(crate) async fn revisions_guard_a_value(place: &dyn Place) {
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

pub(crate) async fn values_of_the_greatest_size_are_kept(place: &dyn Place) {
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

pub(crate) async fn watchers_hear_of_their_prefix_alone(place: &dyn Place) {
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
