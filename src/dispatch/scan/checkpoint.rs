//! Checkpoints: where the scanner of a partition may begin after a restart, kept as a value of the engine.
//!
//! A checkpoint says: every record below `scanned` that had no end belongs to one of these targets, and none of them lies before
//! where the target's own cursor is to begin. Ends are never taken back, so what was true once is true for ever: a checkpoint
//! that is old only makes a start read more. It is no more than a checkpoint all the same: what is open below `scanned` is
//! looked for as the region is read (see `lagging`), whatever the checkpoint says.
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
/// Targets in one checkpoint: those that are the farthest behind. With the longest names they take a third of what a value may.
const TARGETS_MAX: usize = 256;

/// What is known about the records below an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dispatch) struct Checkpoint {
    /// All below belongs to one of `lagging`, or has an end.
    pub(in crate::dispatch) scanned: Offset,
    /// The targets, each with the first of its records that may be open; by offset.
    pub(in crate::dispatch) lagging: Vec<(Option<Origin>, Offset)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    version: u32,
    scanned: u64,
    /// Stored under the name that it has always had.
    #[serde(rename = "behind")]
    lagging: Vec<StoredTarget>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredTarget {
    target: Option<String>,
    from: u64,
}

impl Checkpoint {
    /// A checkpoint about all that are lagging. What is the farthest behind stays in; where the first one that does not begins,
    /// the scanner has to begin too.
    pub(in crate::dispatch) fn new(
        scanned: Offset,
        lagging: impl IntoIterator<Item = (Option<Origin>, Offset)>,
    ) -> Option<Self> {
        let lagging = lagging.into_iter().filter(|(_, from)| *from < scanned);
        let mut lagging: Vec<_> = lagging.collect();
        lagging.sort_by_key(|(_, from)| *from);
        let checkpoint = Self { scanned, lagging }.of_at_most(TARGETS_MAX);
        (!checkpoint.lagging.is_empty()).then_some(checkpoint)
    }

    /// Leaves out all but the first targets.
    pub(in crate::dispatch) fn of_at_most(mut self, len: usize) -> Self {
        if let Some((_, from)) = self.lagging.get(len) {
            self.scanned = *from;
        }
        self.lagging.truncate(len);
        self
    }

    /// Returns the checkpoint about a partition, if there is one that can be understood.
    pub(in crate::dispatch) async fn load(engine: &dyn Engine, of: PartitionId) -> Option<Self> {
        let stored = engine.get(&key(of)).await?;
        match Self::decode(&stored.value) {
            Ok(checkpoint) => Some(checkpoint),
            Err(reason) => {
                tracing::warn!(%of, reason, "the checkpoint about targets that are lagging is of no use");
                None
            }
        }
    }

    /// Stores a checkpoint, or removes the one there is.
    pub(in crate::dispatch) async fn store(
        checkpoint: Option<&Self>,
        engine: &dyn Engine,
        of: PartitionId,
    ) -> Result<(), CommitError> {
        let change = StateChange {
            key: key(of),
            value: checkpoint.map(|checkpoint| checkpoint.encode().into()),
            expected: None,
        };
        change_state(engine, vec![change]).await
    }

    fn encode(&self) -> String {
        let lagging = self.lagging.iter().map(|(origin, from)| StoredTarget {
            target: origin.as_ref().map(ToString::to_string),
            from: from.0,
        });
        let stored = Stored {
            version: VERSION,
            scanned: self.scanned.0,
            lagging: lagging.collect(),
        };
        serde_json::json!(stored).to_string()
    }

    fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let stored: Stored = serde_json::from_slice(bytes).map_err(|_| "it is malformed")?;
        if stored.version != VERSION {
            return Err("it is of another version");
        }
        let mut lagging = Vec::new();
        for StoredTarget { target, from } in stored.lagging {
            let origin = target.as_deref().map(Origin::bare).transpose();
            let origin = origin.map_err(|_| "it names something that is no target")?;
            lagging.push((origin, Offset(from)));
        }
        Self::new(Offset(stored.scanned), lagging).ok_or("it says nothing")
    }
}

/// Removes the checkpoints about streams that are gone.
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
        tracing::debug!(%error, "checkpoints about streams that are gone stay for now");
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
    fn a_checkpoint_is_read_back_as_it_was_and_any_other_text_is_refused() {
        let lagging = [(origin(1), Offset(30)), (None, Offset(17))];
        let checkpoint = Checkpoint::new(Offset(900), lagging).unwrap();
        let text = checkpoint.encode();
        let expected = r#"{"version":1,"scanned":900,"behind":[{"target":null,"from":17},{"target":"http://t1.example:80","from":30}]}"#;
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            value,
            serde_json::from_str::<serde_json::Value>(expected).unwrap()
        );
        assert_eq!(Checkpoint::decode(text.as_bytes()), Ok(checkpoint));
        for len in 0..text.len() {
            assert!(
                Checkpoint::decode(&text.as_bytes()[..len]).is_err(),
                "{len}"
            );
        }
        for (from, to) in [
            ("\"version\":1", "\"version\":2"),
            ("http://t1.example:80", "http://t1.example/x"),
            ("17", "-17"),
            ("900", "17"),
        ] {
            assert!(Checkpoint::decode(text.replace(from, to).as_bytes()).is_err());
        }
    }

    #[test]
    fn the_scanner_begins_where_the_first_target_does_that_has_no_place() {
        let lagging = (0..300).map(|number| (origin(number), Offset(1000 - number as u64)));
        let checkpoint = Checkpoint::new(Offset(2000), lagging).unwrap();
        assert_eq!(checkpoint.lagging.len(), TARGETS_MAX);
        assert_eq!(checkpoint.lagging[0], (origin(299), Offset(701)));
        assert_eq!(checkpoint.scanned, Offset(701 + 256));
        let checkpoint = checkpoint.of_at_most(2);
        assert_eq!(
            (checkpoint.lagging.len(), checkpoint.scanned),
            (2, Offset(703))
        );
        assert_eq!(Checkpoint::new(Offset(5), [(None, Offset(5))]), None);
    }
}
