//! Hints: where the scanner of a partition may begin after a restart, kept as a value of the engine.
//!
//! A hint says: every record below `scanned` that had no end belongs to one of these targets, and none of them lies before
//! where the target's own cursor is to begin. Ends are never taken back, so what was true once is true for ever: a hint
//! that is old only makes a start read more. It is no more than a hint all the same: what is open below `scanned` is
//! looked for as the region is read (see `behind`), whatever the hint says.
//!
//! ```text
//! behind/<stream id>/<partition>
//! {"version":1,"scanned":900,"behind":[{"target":"http://a:80","from":17}, {"target":null,"from":30}]}
//! ```

use std::{collections::HashSet, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    log::Streams,
    model::{
        ids::{Offset, PartitionId, StreamId},
        target::Origin,
    },
    storage::{Commit, CommitError, Engine, StateChange},
};

/// All their names begin so.
const PREFIX: &str = "behind/";
const VERSION: u32 = 1;
/// Targets in one hint: those that are the farthest behind. With the longest names they take a third of what a value may.
const TARGETS_MAX: usize = 256;

/// What is known about the records below an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dispatch) struct Hint {
    /// All below belongs to one of `behind`, or has an end.
    pub(in crate::dispatch) scanned: Offset,
    /// The targets, each with the first of its records that may be open; by offset.
    pub(in crate::dispatch) behind: Vec<(Option<Origin>, Offset)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    version: u32,
    scanned: u64,
    behind: Vec<StoredTarget>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredTarget {
    target: Option<String>,
    from: u64,
}

impl Hint {
    /// A hint about all that are behind. What is the farthest behind stays in; where the first one that does not begins,
    /// the scanner has to begin too.
    pub(in crate::dispatch) fn new(
        scanned: Offset,
        behind: impl IntoIterator<Item = (Option<Origin>, Offset)>,
    ) -> Option<Self> {
        let behind = behind.into_iter().filter(|(_, from)| *from < scanned);
        let mut behind: Vec<_> = behind.collect();
        behind.sort_by_key(|(_, from)| *from);
        let hint = Self { scanned, behind }.of_at_most(TARGETS_MAX);
        (!hint.behind.is_empty()).then_some(hint)
    }

    /// Leaves out all but the first targets.
    pub(in crate::dispatch) fn of_at_most(mut self, len: usize) -> Self {
        if let Some((_, from)) = self.behind.get(len) {
            self.scanned = *from;
        }
        self.behind.truncate(len);
        self
    }

    /// Returns the hint about a partition, if there is one that can be understood.
    pub(in crate::dispatch) async fn load(engine: &dyn Engine, of: PartitionId) -> Option<Self> {
        let stored = engine.get(&key(of)).await?;
        match Self::decode(&stored.value) {
            Ok(hint) => Some(hint),
            Err(reason) => {
                tracing::warn!(%of, reason, "the hint about targets that are behind is of no use");
                None
            }
        }
    }

    /// Stores a hint, or removes the one there is.
    pub(in crate::dispatch) async fn store(
        hint: Option<&Self>,
        engine: &dyn Engine,
        of: PartitionId,
    ) -> Result<(), CommitError> {
        let change = StateChange {
            key: key(of),
            value: hint.map(|hint| hint.encode().into()),
            expected: None,
        };
        change_state(engine, vec![change]).await
    }

    fn encode(&self) -> String {
        let behind = self.behind.iter().map(|(origin, from)| StoredTarget {
            target: origin.as_ref().map(ToString::to_string),
            from: from.0,
        });
        let stored = Stored {
            version: VERSION,
            scanned: self.scanned.0,
            behind: behind.collect(),
        };
        serde_json::json!(stored).to_string()
    }

    fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let stored: Stored = serde_json::from_slice(bytes).map_err(|_| "it is malformed")?;
        if stored.version != VERSION {
            return Err("it is of another version");
        }
        let mut behind = Vec::new();
        for StoredTarget { target, from } in stored.behind {
            let origin = target.as_deref().map(Origin::bare).transpose();
            let origin = origin.map_err(|_| "it names something that is no target")?;
            behind.push((origin, Offset(from)));
        }
        Self::new(Offset(stored.scanned), behind).ok_or("it says nothing")
    }
}

/// Removes the hints about streams that are gone.
pub(in crate::dispatch) async fn tidy(streams: &Streams) {
    let engine = &**streams.engine();
    let there: HashSet<_> = engine.streams().iter().map(|stream| stream.id).collect();
    let is_gone = |key: &str| !there.iter().any(|id| key.starts_with(&prefix(*id)));
    let keys = engine.list(PREFIX).await.into_iter().map(|(key, _)| key);
    let gone: Vec<_> = keys
        .filter(|key| is_gone(key))
        .map(|key| StateChange {
            key,
            value: None,
            expected: None,
        })
        .collect();
    if !gone.is_empty()
        && let Err(error) = change_state(engine, gone).await
    {
        tracing::debug!(%error, "hints about streams that are gone stay for now");
    }
}

async fn change_state(engine: &dyn Engine, state: Vec<StateChange>) -> Result<(), CommitError> {
    let commit = Commit {
        state,
        ..Commit::default()
    };
    engine.commit(commit).await.map(drop)
}

fn prefix(id: StreamId) -> String {
    format!("{PREFIX}{id}/")
}

fn key(of: PartitionId) -> Arc<str> {
    format!("{PREFIX}{of}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(number: usize) -> Option<Origin> {
        Some(Origin::of(&format!("http://t{number}.example")).unwrap())
    }

    #[test]
    fn a_hint_is_read_back_as_it_was_and_any_other_text_is_refused() {
        let behind = [(origin(1), Offset(30)), (None, Offset(17))];
        let hint = Hint::new(Offset(900), behind).unwrap();
        let text = hint.encode();
        let expected = r#"{"version":1,"scanned":900,"behind":[{"target":null,"from":17},{"target":"http://t1.example:80","from":30}]}"#;
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            value,
            serde_json::from_str::<serde_json::Value>(expected).unwrap()
        );
        assert_eq!(Hint::decode(text.as_bytes()), Ok(hint));
        for len in 0..text.len() {
            assert!(Hint::decode(&text.as_bytes()[..len]).is_err(), "{len}");
        }
        for (from, to) in [
            ("\"version\":1", "\"version\":2"),
            ("http://t1.example:80", "http://t1.example/x"),
            ("17", "-17"),
            ("900", "17"),
        ] {
            assert!(Hint::decode(text.replace(from, to).as_bytes()).is_err());
        }
    }

    #[test]
    fn the_scanner_begins_where_the_first_target_does_that_has_no_place() {
        let behind = (0..300).map(|number| (origin(number), Offset(1000 - number as u64)));
        let hint = Hint::new(Offset(2000), behind).unwrap();
        assert_eq!(hint.behind.len(), TARGETS_MAX);
        assert_eq!(hint.behind[0], (origin(299), Offset(701)));
        assert_eq!(hint.scanned, Offset(701 + 256));
        let hint = hint.of_at_most(2);
        assert_eq!((hint.behind.len(), hint.scanned), (2, Offset(703)));
        assert_eq!(Hint::new(Offset(5), [(None, Offset(5))]), None);
    }
}
