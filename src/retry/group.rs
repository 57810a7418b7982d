//! Groups: how far retries have come in a stream, kept under a name for the next one.
//!
//! A group is a state value: for each partition the first offset that is not done. It is made before its first pass calls
//! anyone, and stored when a pass has ended in a partition; a crash before that leaves it where it was, and records that
//! ended meanwhile are skipped by the next pass. Passes over different partitions may go on with one group at a time: each
//! change builds on what is stored then (compare-and-set).
//!
//! A group never holds back trimming. It goes with its stream; since streams have ids, one that is made again under the
//! name of another finds none of its groups. A stream has [`GROUPS_LEN_MAX`] groups: a new one takes the place of one that
//! was not used for [`UNUSED_MAX`], or is refused.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::{
    task::yield_now,
    time::{Instant, sleep},
};

use super::{Error, GroupReport};
use crate::{
    dispatch::DispatchContext,
    model::ids::{Offset, Partition, PartitionId, StreamId},
    runtime::clock::Timestamp,
    storage::{Commit, CommitError, Engine, StateChange, StateEntry},
};

/// Groups of one stream.
pub const GROUPS_LEN_MAX: usize = 50;
/// A group that was not used for so long may be forgotten when its place is needed.
pub(super) const UNUSED_MAX: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Changes of others that one change may lose against.
const RACES_MAX: usize = 300;
/// How long a log that refuses for now is asked again.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long in between.
const AGAIN: Duration = Duration::from_millis(100);
/// Open records that the log names at a time, so that its writer does not wait.
const STEP_LEN: usize = 16_384;
/// State of all groups of all streams.
const PREFIX: &str = "redrive/";

/// Name of a group: `^[A-Za-z][A-Za-z0-9_.-]{0,63}$`, as that of a cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupName(Arc<str>);

/// A text that is no name of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a group's name has 1 to 64 characters: a letter, then letters, digits, '_', '.' and '-'")]
pub struct GroupNameInvalid;

impl FromStr for GroupName {
    type Err = GroupNameInvalid;

    fn from_str(text: &str) -> Result<Self, GroupNameInvalid> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let first = text.bytes().next();
        match first.is_some_and(|byte| byte.is_ascii_alphabetic()) {
            true if text.len() <= 64 && text.bytes().all(legal) => Ok(Self(text.into())),
            _ => Err(GroupNameInvalid),
        }
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is asked of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name; the first use makes it.
    pub name: GroupName,
    /// The pass begins where the request says, and takes the group there; if not, it begins where the group stands.
    pub moves: bool,
}

/// Where a group stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStand {
    /// Its name.
    pub name: String,
    /// The first offset that is not done; a partition that no pass has looked at is not there.
    pub next: BTreeMap<Partition, Offset>,
}

impl GroupStand {
    /// Returns how many records of these partitions the group has yet to retry: those without an end from where it stands
    /// on. What has an end is passed over, so a group that stands before it is not behind.
    pub async fn lag(
        &self,
        engine: &dyn Engine,
        partitions: impl IntoIterator<Item = PartitionId>,
    ) -> u64 {
        let mut lag = 0;
        for of in partitions {
            let next = self.next.get(&of.partition).copied().unwrap_or_default();
            lag += open_len(engine, of, next).await;
        }
        lag
    }
}

/// Returns how many records from an offset on have no end; none of a partition that has just gone.
async fn open_len(engine: &dyn Engine, of: PartitionId, mut from: Offset) -> u64 {
    let Ok(status) = engine.status(of) else {
        return 0;
    };
    if from <= status.low_mark {
        return status.counts.open_len();
    }
    let mut len = 0;
    while let Ok(open) = engine.open_offsets(of, from, STEP_LEN)
        && let Some(last) = open.last()
    {
        (len, from) = (len + open.len() as u64, last.next());
        yield_now().await;
    }
    len
}

/// Returns the groups of a stream, by name.
pub async fn groups(engine: &dyn Engine, stream: StreamId) -> Vec<GroupStand> {
    let prefix = prefix(stream);
    let all = engine.list(&prefix).await.into_iter();
    let stand = |(key, entry): (Arc<str>, StateEntry)| {
        let next = read(&entry)?.next.into_iter();
        let next = next.map(|(partition, next)| (Partition(partition), Offset(next)));
        Some(GroupStand {
            name: key.strip_prefix(&prefix)?.to_owned(),
            next: next.collect(),
        })
    };
    all.filter_map(stand).collect()
}

/// A group that a pass goes on with.
pub(super) struct Standing {
    shared: Arc<DispatchContext>,
    stream: StreamId,
    asked: Group,
    key: Arc<str>,
    content: Content,
}

/// As stored. Members are only ever added.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Content {
    /// In microseconds.
    used_at: u64,
    /// The first offset that is not done, by partition.
    next: BTreeMap<u16, u64>,
}

impl Standing {
    /// Finds a group, or makes it; in a dry run it is not made. `making` is held by whoever makes one, so that their
    /// number is exact.
    pub(super) async fn open(
        shared: &Arc<DispatchContext>,
        making: &tokio::sync::Mutex<()>,
        stream: StreamId,
        asked: Group,
        dry_run: bool,
    ) -> Result<Self, Error> {
        let mut standing = Self {
            shared: shared.clone(),
            stream,
            key: format!("{PREFIX}{stream}/{}", asked.name).into(),
            asked,
            content: Content::default(),
        };
        if dry_run {
            standing.look().await?;
        } else if standing.look().await? == 0 {
            let _making = making.lock().await;
            standing.make().await?;
        }
        Ok(standing)
    }

    /// Returns the offset that a pass begins with; `None` if that is for the request to say, or the earliest one.
    pub(super) fn begins_with(&self, partition: Partition) -> Option<Offset> {
        let next = self.content.next.get(&partition.0);
        next.filter(|_| !self.asked.moves).copied().map(Offset)
    }

    /// Stores that everything of a partition below `next` is done.
    pub(super) async fn store(&mut self, of: PartitionId, next: Offset) -> Result<(), Error> {
        for _ in 0..RACES_MAX {
            if self.is_orphan() {
                tidy(&self.shared).await;
                return Ok(());
            }
            let expected = self.look().await?;
            self.content.next.insert(of.partition.0, next.0);
            match self.commit(vec![self.put(expected)]).await {
                Err(CommitError::StateConflict { .. }) => {}
                stored => {
                    // Whoever tidies up after the stream may have been here just before.
                    if self.is_orphan() {
                        tidy(&self.shared).await;
                    }
                    return stored.map_err(Error::GroupNotStored);
                }
            }
        }
        Err(Error::GroupNotStored(CommitError::Busy))
    }

    /// Returns where the group stands in some partitions.
    pub(super) fn report(&self, partitions: &[PartitionId]) -> GroupReport {
        let stands = |of: &PartitionId| {
            let next = self.content.next.get(&of.partition.0);
            let last = next.and_then(|next| next.checked_sub(1)).map(Offset);
            (of.partition, last)
        };
        GroupReport {
            name: self.asked.name.clone(),
            positions: partitions.iter().map(stands).collect(),
        }
    }

    /// Takes over what is stored; returns its revision, 0 if there is nothing.
    async fn look(&mut self) -> Result<u64, Error> {
        let Some(entry) = self.engine().get(&self.key).await else {
            return Ok(0);
        };
        self.content = read(&entry).ok_or_else(|| self.unreadable())?;
        Ok(entry.revision)
    }

    async fn make(&mut self) -> Result<(), Error> {
        for _ in 0..RACES_MAX {
            if self.look().await? > 0 {
                return Ok(());
            }
            let mut changes = vec![self.put(0)];
            changes.extend(self.make_room().await?);
            match self.commit(changes).await {
                Err(CommitError::StateConflict { .. }) => {}
                made => return made.map_err(Error::LogRefuses),
            }
        }
        Err(Error::LogRefuses(CommitError::Busy))
    }

    /// Returns what has to go so that there is room for one more group, if anything.
    async fn make_room(&self) -> Result<Option<StateChange>, Error> {
        let all = self.engine().list(&prefix(self.stream)).await;
        if all.len() < GROUPS_LEN_MAX {
            return Ok(None);
        }
        let used_at = |entry: &StateEntry| read(entry).map(|content| Timestamp(content.used_at));
        let oldest = all
            .into_iter()
            .filter_map(|(key, entry)| Some((used_at(&entry)?, key, entry.revision)))
            .min();
        let now = self.shared.clock.now();
        let (_, key, revision) = oldest
            .filter(|(used_at, ..)| now.since(*used_at) >= UNUSED_MAX)
            .ok_or(Error::GroupsFull)?;
        tracing::info!(
            group = &*key,
            "a retry group is forgotten: it was not used for long"
        );
        Ok(Some(StateChange {
            key,
            value: None,
            expected: Some(revision),
        }))
    }

    /// Returns the change that stores the group as used now.
    fn put(&self, expected: u64) -> StateChange {
        let content = Content {
            used_at: self.shared.clock.now().0,
            ..self.content.clone()
        };
        let value = serde_json::to_vec(&content).expect("numbers become JSON");
        StateChange {
            key: self.key.clone(),
            value: Some(Bytes::from(value)),
            expected: Some(expected),
        }
    }

    /// Commits; what is refused for now is offered again for a while, unless the gateway stops.
    async fn commit(&self, changes: Vec<StateChange>) -> Result<(), CommitError> {
        let by = Instant::now() + PATIENCE;
        loop {
            let commit = Commit {
                state: changes.clone(),
                ..Commit::default()
            };
            let refused = match self.engine().commit(commit).await {
                Err(refused @ (CommitError::Busy | CommitError::DiskFull)) => refused,
                stored => return stored.map(drop),
            };
            let waited = self.shared.stop.run_until_cancelled(sleep(AGAIN)).await;
            if waited.is_none() || Instant::now() >= by {
                return Err(refused);
            }
        }
    }

    fn is_orphan(&self) -> bool {
        self.engine().stream_by_id(self.stream).is_none()
    }

    fn engine(&self) -> &Arc<dyn Engine> {
        self.shared.streams.engine()
    }

    fn unreadable(&self) -> Error {
        Error::GroupUnreadable(self.asked.name.clone())
    }
}

fn prefix(stream: StreamId) -> String {
    format!("{PREFIX}{stream}/")
}

fn read(entry: &StateEntry) -> Option<Content> {
    serde_json::from_slice(&entry.value).ok()
}

/// Removes the groups of streams that are gone, now and whenever a stream goes.
pub(super) async fn keep_tidy(shared: Arc<DispatchContext>) {
    let mut changed = shared.streams.engine().streams_changed();
    loop {
        changed.mark_unchanged();
        tidy(&shared).await;
        if changed.changed().await.is_err() {
            return;
        }
    }
}

async fn tidy(shared: &DispatchContext) {
    let engine = shared.streams.engine();
    // In this order: a stream is there before its groups.
    let groups = engine.list(PREFIX).await;
    let streams = engine.streams();
    let streams: HashSet<_> = streams.iter().map(|stream| prefix(stream.id)).collect();
    let of = |key: &str| key.rfind('/').map_or(0, |slash| slash + 1);
    let gone = groups
        .into_iter()
        .map(|(key, _)| key)
        .filter(|key| !streams.contains(&key[..of(key)]));
    let state: Vec<_> = gone
        .map(|key| StateChange {
            key,
            value: None,
            expected: None,
        })
        .collect();
    if state.is_empty() {
        return;
    }
    let commit = Commit {
        state,
        ..Commit::default()
    };
    if let Err(error) = engine.commit(commit).await {
        // The next stream that comes or goes, or the next start, tries again.
        tracing::warn!(%error, "the retry groups of a stream that is gone were not removed");
    }
}
