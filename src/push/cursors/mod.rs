//! Named cursors: how far a client has come, kept for it (`push-decisions.md` §9).
//!
//! ```text
//! push/cursor/STREAM/NAME   JSON: the position up to which every record is acknowledged, and when it was last used
//! ```
//!
//! All cursors lie in memory. One commit stores the acknowledgements of all cursors, [`STORE_AFTER`] after the first of
//! them, so a thousand clients cost as many syncs as one. A crash loses the acknowledgements of that time: the client gets
//! those records again.

mod cursor;
mod name;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::OwnedMutexGuard, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    log::Streams,
    runtime::{
        clock::{Clock, Timestamp},
        tasks::{Part, Tasks},
    },
    storage::{Commit, CommitError, StateChange},
};

use super::{
    position::{ClientPosition, PositionKey},
    resource::ResourceName,
};

use self::cursor::{Cursor, Id};

pub use cursor::CursorInUse;
pub(super) use cursor::{At, Held, State};
pub use name::{CursorName, CursorNameInvalid};

const CURSORS: &str = "push/cursor/";
/// Cursors of all data streams: each costs its position in memory, 200 bytes or, with 256 partitions, 4 KiB.
pub(super) const LEN_MAX: usize = 4096;
/// How long an acknowledgement waits so that one commit stores many; `push-decisions.md` allows 100 ms in all.
const STORE_AFTER: Duration = Duration::from_millis(40);
const SWEEP_EVERY: Duration = Duration::from_secs(3600);

/// Handle to all cursors. Clones share everything.
#[derive(Clone, Debug)]
pub(super) struct Cursors(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    streams: Streams,
    clock: Clock,
    key: PositionKey,
    tasks: Tasks,
    known: Mutex<BTreeMap<Id, Arc<Cursor>>>,
    unstored: Mutex<Unstored>,
    /// Locked to make, store or remove a cursor, so that stored state and memory change in the same order.
    changes: Arc<tokio::sync::Mutex<()>>,
}

/// Cursors that have moved since they were stored.
#[derive(Debug, Default)]
struct Unstored {
    ids: BTreeSet<Id>,
    /// A task that will store them is scheduled.
    is_scheduled: bool,
}

/// Why a cursor is not made, moved or removed.
#[derive(Debug, thiserror::Error)]
pub enum CursorError {
    /// There is no cursor with that name.
    #[error("there is no cursor of that name")]
    Unknown,
    /// A client holds it.
    #[error(transparent)]
    InUse(#[from] CursorInUse),
    /// There are [`LEN_MAX`] cursors.
    #[error("there are {LEN_MAX} cursors, which is the most; delete one first")]
    TooMany,
    /// The log refused the change.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Cursors {
    /// Reads the stored cursors.
    ///
    /// # Errors
    /// The name of the cursor that cannot be read.
    pub(super) async fn open(
        streams: Streams,
        clock: Clock,
        key: PositionKey,
        tasks: Tasks,
    ) -> Result<Self, String> {
        let mut known = BTreeMap::new();
        for (at, entry) in streams.engine().list(CURSORS).await {
            let unreadable = || at.to_string();
            let names = at.strip_prefix(CURSORS).and_then(|at| at.split_once('/'));
            let id =
                names.and_then(|(stream, name)| Some((stream.parse().ok()?, name.parse().ok()?)));
            let id: Id = id.ok_or_else(unreadable)?;
            let state = State::read(&entry.value, &key).ok_or_else(unreadable)?;
            known.insert(id.clone(), Arc::new(Cursor::new(id, state)));
        }
        Ok(Self(Arc::new(Inner {
            streams,
            clock,
            key,
            tasks,
            known: Mutex::new(known),
            unstored: Mutex::default(),
            changes: Arc::default(),
        })))
    }

    /// Returns the cursors of a data stream, by name.
    pub(super) fn list(&self, stream: &ResourceName) -> Vec<(CursorName, State)> {
        let of = self.of(stream);
        let state = |cursor: Arc<Cursor>| (cursor.id.1.clone(), cursor.state().clone());
        of.into_iter().map(state).collect()
    }

    /// Returns the cursors of all data streams, by data stream and name.
    pub(super) fn all(&self) -> Vec<(ResourceName, CursorName, State)> {
        let known = self.known();
        let all = known.values().map(|cursor| {
            let (stream, name) = cursor.id.clone();
            (stream, name, cursor.state().clone())
        });
        all.collect()
    }

    /// Returns the state of a cursor.
    pub(super) fn get(&self, stream: &ResourceName, name: &CursorName) -> Option<State> {
        let cursor = self.find(stream, name)?;
        let state = cursor.state().clone();
        Some(state)
    }

    /// Gives a cursor to a client.
    pub(super) fn take(
        &self,
        stream: &ResourceName,
        name: &CursorName,
        takeover: bool,
    ) -> Result<(Held, At), CursorError> {
        let cursor = self.find(stream, name).ok_or(CursorError::Unknown)?;
        let (held, at) = Held::take(self, &cursor, takeover, self.now())?;
        // `used_at` has changed.
        self.store_soon(&cursor.id);
        Ok((held, at))
    }

    /// Makes a cursor, durably; an existing one stays as it is.
    pub(super) async fn make(
        &self,
        stream: &ResourceName,
        name: &CursorName,
        at: At,
    ) -> Result<(), CursorError> {
        let (cursors, id) = (self.clone(), (stream.clone(), name.clone()));
        self.whole(async move {
            let _one = cursors.0.changes.lock().await;
            if cursors.known().contains_key(&id) {
                return Ok(());
            }
            if cursors.known().len() >= LEN_MAX {
                return Err(CursorError::TooMany);
            }
            let state = State::new(at, cursors.now());
            cursors.commit(vec![cursors.change(&id, &state)]).await?;
            let cursor = Arc::new(Cursor::new(id.clone(), state));
            cursors.known().insert(id, cursor);
            Ok(())
        })
        .await
    }

    /// Moves a cursor anywhere, durably; one that does not exist is made.
    pub(super) async fn put(
        &self,
        stream: &ResourceName,
        name: &CursorName,
        at: At,
    ) -> Result<(), CursorError> {
        let Some(cursor) = self.find(stream, name) else {
            return self.make(stream, name, at).await;
        };
        let cursors = self.clone();
        self.whole(async move {
            let _one = cursors.0.changes.lock().await;
            cursor.begin_move()?;
            let moved = State::new(at, cursors.now());
            let stored = cursors
                .commit(vec![cursors.change(&cursor.id, &moved)])
                .await;
            cursor.end_move(stored.is_ok().then_some(moved));
            Ok(stored?)
        })
        .await
    }

    /// Moves a cursor forward, durably, for a client that cannot acknowledge on its connection.
    pub(super) async fn ack(
        &self,
        stream: &ResourceName,
        name: &CursorName,
        position: ClientPosition,
    ) -> Result<(), CursorError> {
        let cursor = self.find(stream, name).ok_or(CursorError::Unknown)?;
        let news = Cursor::advance(&mut cursor.state(), position, self.now());
        if news {
            self.store_soon(&cursor.id);
        }
        Ok(self.store().await?)
    }

    /// Removes a cursor, durably.
    pub(super) async fn remove(
        &self,
        stream: &ResourceName,
        name: &CursorName,
    ) -> Result<(), CursorError> {
        let cursor = self.find(stream, name).ok_or(CursorError::Unknown)?;
        let cursors = self.clone();
        self.whole(async move {
            let removal = cursors
                .removal(vec![cursor], |state| !state.is_held())
                .await;
            if removal.cursors.is_empty() {
                return Err(CursorInUse.into());
            }
            cursors.commit(removal.changes()).await?;
            removal.done();
            Ok(())
        })
        .await
    }

    /// Prepares the removal of all cursors of a data stream, also of those that clients hold.
    pub(super) async fn removal_of(&self, stream: &ResourceName) -> Removal {
        self.removal(self.of(stream), |_| true).await
    }

    /// Removes cursors that were unused for `unused_max`, at intervals, until `stop` fires.
    pub(super) async fn sweep(self, unused_max: Duration, stop: CancellationToken) {
        let mut looked = (Instant::now(), self.now());
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(SWEEP_EVERY) => {}
            }
            let now = (Instant::now(), self.now());
            // A clock that was set forward does not age cursors.
            let jumped = now.1.since(looked.1).saturating_sub(now.0 - looked.0);
            looked = now;
            if jumped > SWEEP_EVERY {
                let jumped = u64::try_from(jumped.as_micros()).unwrap_or(u64::MAX);
                for cursor in self.known().values() {
                    let mut state = cursor.state();
                    state.used_at = state.used_at.plus_micros(jumped);
                }
            }
            let cursors = self.clone();
            let swept = self.whole(async move { cursors.remove_unused(unused_max).await });
            if let Err(error) = swept.await {
                tracing::warn!(%error, "unused cursors could not be removed; the next sweep tries again");
            }
        }
    }

    async fn remove_unused(&self, unused_max: Duration) -> Result<(), CursorError> {
        let now = self.now();
        let unused = |state: &State| !state.is_held() && now.since(state.used_at) > unused_max;
        let found = self.known().values().cloned().collect();
        let removal = self.removal(found, unused).await;
        if removal.cursors.is_empty() {
            return Ok(());
        }
        self.commit(removal.changes()).await?;
        for cursor in &removal.cursors {
            let (data_stream, cursor) = &cursor.id;
            tracing::info!(%data_stream, %cursor, "an unused cursor was removed");
        }
        removal.done();
        Ok(())
    }

    /// Takes the cursors for which `goes` is true out of use; they come back unless the removal is done.
    async fn removal(&self, cursors: Vec<Arc<Cursor>>, goes: impl Fn(&State) -> bool) -> Removal {
        let one = self.0.changes.clone().lock_owned().await;
        let out = |cursor: &Arc<Cursor>| {
            let mut state = cursor.state();
            let goes = !state.removed && goes(&state);
            state.removed |= goes;
            goes
        };
        Removal {
            cursors: cursors.into_iter().filter(out).collect(),
            all: self.clone(),
            is_done: false,
            _one: one,
        }
    }

    /// Schedules the storing of a cursor.
    fn store_soon(&self, id: &Id) {
        let mut unstored = self.unstored();
        unstored.ids.insert(id.clone());
        if std::mem::replace(&mut unstored.is_scheduled, true) {
            return;
        }
        drop(unstored);
        let cursors = self.clone();
        self.0.tasks.spawn_guarded(Part::Change, async move {
            tokio::time::sleep(STORE_AFTER).await;
            cursors.unstored().is_scheduled = false;
            if let Err(error) = cursors.store_all().await {
                tracing::warn!(%error, "acknowledgements could not be stored; the next acknowledgement stores them too");
            }
        });
    }

    /// Returns once every acknowledgement so far is durable.
    async fn store(&self) -> Result<(), CommitError> {
        let cursors = self.clone();
        let stored = self.whole(async move { Ok(cursors.store_all().await?) });
        stored.await.map_err(|error| match error {
            CursorError::Commit(error) => error,
            error => CommitError::MaybeStored(error.to_string().into()),
        })
    }

    async fn store_all(&self) -> Result<(), CommitError> {
        let _one = self.0.changes.lock().await;
        let mut taken = Taken {
            cursors: self,
            ids: std::mem::take(&mut self.unstored().ids),
        };
        let cursors: Vec<_> = {
            let known = self.known();
            let cursors = taken.ids.iter().filter_map(|id| known.get(id).cloned());
            cursors.collect()
        };
        let change = |cursor: &Arc<Cursor>| self.change(&cursor.id, &cursor.state());
        let changes: Vec<_> = cursors.iter().map(change).collect();
        if !changes.is_empty() {
            self.commit(changes).await?;
        }
        taken.ids.clear();
        Ok(())
    }

    fn change(&self, id: &Id, state: &State) -> StateChange {
        StateChange {
            key: key(id),
            value: Some(Bytes::from(state.write(&self.0.key))),
            expected: None,
        }
    }

    async fn commit(&self, state: Vec<StateChange>) -> Result<(), CommitError> {
        let commit = Commit {
            state,
            ..Commit::default()
        };
        let stored = self.0.streams.engine().commit(commit).await;
        stored.map(|_| ())
    }

    /// Runs a change to its end, even if the caller has gone.
    async fn whole<T: Send + 'static>(
        &self,
        change: impl Future<Output = Result<T, CursorError>> + Send + 'static,
    ) -> Result<T, CursorError> {
        let ended = || CommitError::MaybeStored("the task of the change has ended".into());
        let done = self.0.tasks.run_to_end(Part::Change, change).await;
        done.unwrap_or_else(|| Err(ended().into()))
    }

    fn find(&self, stream: &ResourceName, name: &CursorName) -> Option<Arc<Cursor>> {
        self.known().get(&(stream.clone(), name.clone())).cloned()
    }

    fn of(&self, stream: &ResourceName) -> Vec<Arc<Cursor>> {
        let known = self.known();
        let of = known.values().filter(|cursor| cursor.id.0 == *stream);
        of.cloned().collect()
    }

    fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Id, Arc<Cursor>>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unstored(&self) -> MutexGuard<'_, Unstored> {
        let unstored = self.0.unstored.lock();
        unstored.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Cursors that are being stored. Those left when it is dropped are unstored again: the commit failed, or its task
/// ended.
struct Taken<'a> {
    cursors: &'a Cursors,
    ids: BTreeSet<Id>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let ids = std::mem::take(&mut self.ids);
        self.cursors.unstored().ids.extend(ids);
    }
}

/// Cursors that are being removed. Nothing else is stored until it is dropped; they come back unless
/// [`Removal::done`] was called.
#[derive(Debug)]
pub(super) struct Removal {
    all: Cursors,
    cursors: Vec<Arc<Cursor>>,
    is_done: bool,
    _one: OwnedMutexGuard<()>,
}

impl Removal {
    /// Returns the changes to commit.
    pub(super) fn changes(&self) -> Vec<StateChange> {
        let gone = |cursor: &Arc<Cursor>| StateChange {
            key: key(&cursor.id),
            value: None,
            expected: None,
        };
        self.cursors.iter().map(gone).collect()
    }

    /// Forgets the cursors, after the commit was stored.
    pub(super) fn done(mut self) {
        self.is_done = true;
        let mut known = self.all.known();
        for cursor in &self.cursors {
            known.remove(&cursor.id);
        }
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        if !self.is_done {
            for cursor in &self.cursors {
                cursor.state().removed = false;
            }
        }
    }
}

fn key((stream, name): &Id) -> Arc<str> {
    format!("{CURSORS}{stream}/{name}").into()
}
