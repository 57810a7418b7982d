//! Groups: named positions of retries in a stream, stored for the next retry.
//!
//! A group is a state value: the first offset not done, for each partition. It is created before the first call of its
//! first pass, and stored at the end of a pass in a partition. After a crash before that, the next pass skips the
//! records that are settled. Passes over different partitions may use one group at the same time, because each change
//! is a compare-and-set.
//!
//! A group does not hold back trimming. It is removed with its stream. Keys have the stream's id, so a new stream of
//! the same name has no groups. A stream has at most [`GROUPS_LEN_MAX`] groups. A further one replaces the group unused
//! for longest, if that is [`UNUSED_MAX`], or is refused.

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
/// After this time without use, a new group may replace a group.
pub(super) const UNUSED_MAX: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Lost compare-and-set races before a change is given up.
const RACES_MAX: usize = 300;
/// How long a commit is offered to a busy or full log.
const PATIENCE: Duration = Duration::from_secs(10);
/// Wait between two offers.
const AGAIN: Duration = Duration::from_millis(100);
/// Open records read at a time, so that the writer of the log need not wait.
const STEP_LEN: usize = 16_384;
/// Prefix of the keys of all groups. The stored word cannot change, because older directories have it.
const PREFIX: &str = "redrive/";

/// Name of a group: `^[A-Za-z][A-Za-z0-9_.-]{0,63}$`, as of a cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupName(Arc<str>);

/// A text that is not a name of a group.
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

/// The group of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name; the first use creates the group.
    pub name: GroupName,
    /// The pass begins at the request's position and moves the group there; else it begins at the group's position.
    pub moves: bool,
}

/// The position of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStand {
    /// Its name.
    pub name: String,
    /// The first offset not done, by partition; without the partitions that no pass has visited.
    pub next: BTreeMap<Partition, Offset>,
}

impl GroupStand {
    /// Returns how many records of these partitions the group has yet to retry: the open ones from its position on.
    /// Settled records do not count, because a pass skips them.
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

/// Returns how many records from an offset on are open; 0 if the partition was deleted.
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

/// The group of a pass.
pub(super) struct Standing {
    shared: Arc<DispatchContext>,
    stream: StreamId,
    asked: Group,
    key: Arc<str>,
    content: Content,
}

/// The stored form. Members may be added, never removed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Content {
    /// In microseconds.
    used_at: u64,
    /// The first offset not done, by partition.
    next: BTreeMap<u16, u64>,
}

impl Standing {
    /// Reads a group, or creates it unless this is a dry run. `making` is locked meanwhile, so that the count of groups
    /// is exact.
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

    /// Returns the offset that a pass begins with; `None` leaves it to the request.
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
                    // The removal of orphaned groups may have run just before this commit.
                    if self.is_orphan() {
                        tidy(&self.shared).await;
                    }
                    return stored.map_err(Error::GroupNotStored);
                }
            }
        }
        Err(Error::GroupNotStored(CommitError::Busy))
    }

    /// Returns the positions of the group in some partitions.
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

    /// Reads the stored group; returns its revision, 0 if there is none.
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

    /// Returns the removal that makes room for one more group, if one is needed.
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
            "removed a retry group that was unused for 30 days, to make room for a new one"
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

    /// Commits, and offers the commit again for [`PATIENCE`] while the log is busy or full, unless the gateway stops.
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

/// Removes the groups of deleted streams, now and after each change of streams.
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
    // Groups are listed before streams, because a stream exists before its groups.
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
        // The next change of streams, or the next start, tries again.
        tracing::warn!(%error, "the retry groups of a deleted stream were not removed");
    }
}
