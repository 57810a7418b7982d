//! Checkpoints: where the scanner of a partition begins after a restart. Each is a value in the engine.
//!
//! A checkpoint says: every open record below `scanned` belongs to one of these targets, at or after the target's
//! `from`. Settlements are never taken back, so an old checkpoint stays true and only makes a start read more. Dispatch
//! does not rely on it: the sweep (see `lagging`) finds open records below `scanned` that the checkpoint missed.
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

/// Prefix of the keys of all checkpoints.
const PREFIX: &str = "behind/";
const VERSION: u32 = 1;
/// Targets in one checkpoint: those with the lowest offsets. With the longest names they take a third of the largest
/// value.
const TARGETS_MAX: usize = 256;

/// Where the open records below an offset may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dispatch) struct Checkpoint {
    /// Every record below belongs to one of `lagging`, or is settled.
    pub(in crate::dispatch) scanned: Offset,
    /// The targets, each with the offset of its first record that may be open; in order of offsets.
    pub(in crate::dispatch) lagging: Vec<(Option<Origin>, Offset)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    version: u32,
    scanned: u64,
    /// The stored name cannot change, because older directories have it.
    #[serde(rename = "behind")]
    lagging: Vec<StoredTarget>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredTarget {
    target: Option<String>,
    from: u64,
}

impl Checkpoint {
    /// A checkpoint of all lagging targets. Targets with the lowest offsets stay in; the scanner begins at the first
    /// one left out.
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

    /// Keeps the first `len` targets.
    pub(in crate::dispatch) fn of_at_most(mut self, len: usize) -> Self {
        if let Some((_, from)) = self.lagging.get(len) {
            self.scanned = *from;
        }
        self.lagging.truncate(len);
        self
    }

    /// Returns the stored checkpoint of a partition, if it is readable.
    pub(in crate::dispatch) async fn load(engine: &dyn Engine, of: PartitionId) -> Option<Self> {
        let stored = engine.get(&key(of)).await?;
        match Self::decode(&stored.value) {
            Ok(checkpoint) => Some(checkpoint),
            Err(reason) => {
                tracing::warn!(%of, reason, "the checkpoint of lagging targets is unreadable; the scanner begins at the first open record");
                None
            }
        }
    }

    /// Stores a checkpoint, or removes the stored one.
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

/// Removes the checkpoints of deleted streams.
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
        tracing::debug!(%error, "checkpoints of deleted streams were not removed");
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
