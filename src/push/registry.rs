//! The data streams: made, changed and deleted here, and stored in the log's state.
//!
//! ```text
//! push/key               secret of the positions, made once
//! push/stream/NAME       configuration, as JSON
//! push/document/NAME     the AsyncAPI document that an operator stored
//! push/cursor/NAME/…     its cursors (`cursors`)
//! ```

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicUsize},
};

use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use zeroize::Zeroizing;

use crate::{
    json::{
        faults::{FieldCode, FieldError},
        nearest::nearest,
    },
    log::Streams,
    runtime::{
        clock::{Clock, Timestamp},
        random,
        tasks::{Part, Tasks},
    },
    storage::{Commit, CommitError, STATE_BYTES_MAX, StateChange, StateEntry, Stream},
};

use super::{
    cursors::Cursors,
    data_stream::{DataStream, Ended},
    feed::{frames::Shares, gaps::Gaps},
    position::PositionKey,
    resource::{Resource, ResourceName, merge_patch},
    settings::Settings,
};

const KEY: &str = "push/key";
const STREAMS: &str = "push/stream/";
const DOCUMENTS: &str = "push/document/";
/// The number of data streams, at most; each costs its configuration in memory.
const LEN_MAX: usize = 1024;

/// Handle to push. Clones share everything.
#[derive(Clone, Debug)]
pub struct Push(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) streams: Streams,
    pub(super) clock: Clock,
    pub(super) key: PositionKey,
    pub(super) cursors: Cursors,
    settings: Arc<Settings>,
    pub(super) tasks: Tasks,
    known: Mutex<BTreeMap<ResourceName, Arc<DataStream>>>,
    /// Seats of all clients, also of those that still read an earlier configuration.
    pub(super) seats_taken: Arc<AtomicUsize>,
    pub(super) gaps: Gaps,
    pub(super) shares: Shares,
    /// Locked by each change, so that stored state and `known` change in the same order.
    changes: tokio::sync::Mutex<()>,
}

/// Why push cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system gave no random numbers.
    #[error("cannot make the key of positions: {0}")]
    Random(getrandom::Error),
    /// The log refused the commit.
    #[error("cannot store the key of positions")]
    Commit(#[from] CommitError),
    /// This version cannot read a stored configuration.
    #[error(
        "the stored configuration of data stream {0} cannot be read; a newer release may have written it"
    )]
    Unreadable(String),
    /// This version cannot read a stored cursor.
    #[error("the stored cursor {0} cannot be read; a newer release may have written it")]
    CursorUnreadable(String),
}

/// Why a data stream is not made, changed or deleted. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// A data stream has that name.
    #[error("there is a data stream of that name")]
    Exists,
    /// No data stream has that name.
    #[error("there is no data stream of that name")]
    Unknown,
    /// Another request changed it after the caller read it.
    #[error("the data stream was changed by another request")]
    ChangedMeanwhile,
    /// The configuration is wrong.
    #[error("the configuration is invalid")]
    Invalid(Vec<FieldError>),
    /// The patched configuration would be wrong.
    #[error("the patched configuration is invalid")]
    PatchedInvalid(Vec<FieldError>),
    /// The configuration or document is too long.
    #[error("a configuration or a document has at most {STATE_BYTES_MAX} bytes")]
    TooLarge,
    /// There are [`LEN_MAX`] data streams.
    #[error("there are {LEN_MAX} data streams, which is the most; delete one first")]
    TooMany,
    /// The log refused the commit.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Push {
    /// Returns the time of push's clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// Reads the stored data streams. Changes run as tasks of `tasks`, to their end even if the caller has gone,
    /// because stored state and memory must change together.
    ///
    /// # Errors
    /// [`OpenError`] says what cannot be read or stored.
    pub async fn open(
        streams: Streams,
        clock: Clock,
        settings: Settings,
        tasks: &Tasks,
    ) -> Result<Self, OpenError> {
        let key = key(&streams).await?;
        let mut known = BTreeMap::new();
        for (at, entry) in streams.engine().list(STREAMS).await {
            let name = at.strip_prefix(STREAMS).unwrap_or_default();
            let unreadable = || OpenError::Unreadable(name.to_owned());
            let named: ResourceName = name.parse().map_err(|_| unreadable())?;
            let resource = Resource::parse(&entry.value).map_err(|_| unreadable())?;
            let document = streams.engine().get(&format!("{DOCUMENTS}{name}")).await;
            let made = made(named.clone(), entry.revision, resource, document);
            known.insert(named, Arc::new(made));
        }
        let cursors = Cursors::open(streams.clone(), clock.clone(), key.clone(), tasks.clone());
        let cursors = cursors.await.map_err(OpenError::CursorUnreadable)?;
        Ok(Self(Arc::new(Inner {
            streams,
            clock,
            key,
            cursors,
            settings: Arc::new(settings),
            tasks: tasks.clone(),
            known: Mutex::new(known),
            seats_taken: Arc::default(),
            gaps: Gaps::default(),
            shares: Shares::default(),
            changes: tokio::sync::Mutex::default(),
        })))
    }

    /// Returns every data stream, by name.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<DataStream>> {
        self.known().values().cloned().collect()
    }

    /// Returns the data stream of that name.
    #[must_use]
    pub fn get(&self, name: &ResourceName) -> Option<Arc<DataStream>> {
        self.known().get(name).cloned()
    }

    /// Returns the settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Applies a reload: the masked headers, from the next frame on.
    pub fn reload(&self, masked_headers: Vec<String>) {
        self.settings().masked_headers.set(Arc::new(masked_headers));
    }

    /// Returns the counter of gaps that clients continued after.
    #[must_use]
    pub fn gaps(&self) -> &Counter {
        self.0.gaps.counter()
    }

    /// Returns the log stream that a trail names: by name, else by alias.
    #[must_use]
    pub fn trail(&self, trail: &str) -> Option<Arc<Stream>> {
        let streams = &self.0.streams;
        let named = trail.parse().ok().and_then(|name| streams.by_name(&name));
        named.or_else(|| {
            let settings = self.settings();
            settings
                .trails
                .get(trail)
                .and_then(|name| streams.by_name(name))
        })
    }

    /// Returns why a trail is unknown, with the nearest name.
    fn trail_unknown(&self, trail: &str) -> String {
        let streams = self.0.streams.engine().streams();
        let names = streams.iter().map(|stream| stream.name.as_str());
        let settings = self.settings();
        let aliases = settings.trails.keys().map(String::as_str);
        let what = "this names no stream, and no alias of [push.trails]";
        match nearest(trail, names.chain(aliases)) {
            Some(meant) => format!("{what}; did you mean `{meant}`?"),
            None => what.to_owned(),
        }
    }

    /// Makes a data stream, durably.
    ///
    /// # Errors
    /// [`ChangeError::Exists`], [`ChangeError::Invalid`], [`ChangeError::TooLarge`], [`ChangeError::TooMany`].
    pub async fn create(
        &self,
        name: ResourceName,
        body: &[u8],
    ) -> Result<Arc<DataStream>, ChangeError> {
        let resource = self.read(body)?;
        let push = self.clone();
        self.whole(async move {
            let _one = push.0.changes.lock().await;
            if push.get(&name).is_some() {
                return Err(ChangeError::Exists);
            }
            if push.known().len() >= LEN_MAX {
                return Err(ChangeError::TooMany);
            }
            push.put(name, resource, 0).await
        })
        .await
    }

    /// Changes top-level members of a configuration, durably, and disconnects its clients. A document that an
    /// operator stored is removed.
    ///
    /// # Errors
    /// [`ChangeError::Unknown`], [`ChangeError::ChangedMeanwhile`] if it is not at `revision`, and as
    /// [`Push::create`].
    pub async fn change(
        &self,
        name: &ResourceName,
        patch: &[u8],
        revision: Option<u64>,
    ) -> Result<Arc<DataStream>, ChangeError> {
        let (push, name, patch) = (self.clone(), name.clone(), patch.to_vec());
        self.whole(async move {
            let _one = push.0.changes.lock().await;
            let old = push.seen(&name, revision)?;
            let merged = merge_patch(&old.config, &patch).map_err(ChangeError::Invalid)?;
            let resource = push.read(&merged).map_err(|error| match error {
                ChangeError::Invalid(faults) => ChangeError::PatchedInvalid(faults),
                error => error,
            })?;
            let new = push.put(name.clone(), resource, old.revision).await?;
            old.end_as(Ended::Changed);
            Ok(new)
        })
        .await
    }

    /// Deletes a data stream with its cursors, durably, and disconnects its clients. The log stream stays.
    ///
    /// # Errors
    /// [`ChangeError::Unknown`], [`ChangeError::ChangedMeanwhile`].
    pub async fn delete(
        &self,
        name: &ResourceName,
        revision: Option<u64>,
    ) -> Result<(), ChangeError> {
        let (push, name) = (self.clone(), name.clone());
        self.whole(async move {
            let _one = push.0.changes.lock().await;
            let old = push.seen(&name, revision)?;
            let gone = |prefix: &str| StateChange {
                key: format!("{prefix}{name}").into(),
                value: None,
                expected: None,
            };
            let cursors = push.0.cursors.removal_of(&name).await;
            let mut gone = vec![gone(STREAMS), gone(DOCUMENTS)];
            gone.extend(cursors.changes());
            push.commit(gone).await?;
            cursors.done();
            push.known().remove(&name);
            old.end_as(Ended::Deleted);
            Ok(())
        })
        .await
    }

    /// Stores an operator's document for a data stream, durably.
    ///
    /// # Errors
    /// [`ChangeError::Unknown`], [`ChangeError::TooLarge`].
    pub async fn document(&self, name: &ResourceName, text: &str) -> Result<(), ChangeError> {
        if text.len() > STATE_BYTES_MAX {
            return Err(ChangeError::TooLarge);
        }
        let (push, name, text) = (self.clone(), name.clone(), text.to_owned());
        self.whole(async move {
            let _one = push.0.changes.lock().await;
            let known = push.seen(&name, None)?;
            let change = StateChange {
                key: format!("{DOCUMENTS}{name}").into(),
                value: Some(Bytes::copy_from_slice(text.as_bytes())),
                expected: None,
            };
            push.commit(vec![change]).await?;
            known.set_document(&text);
            Ok(())
        })
        .await
    }

    /// Reads a configuration and checks that its trail exists.
    fn read(&self, body: &[u8]) -> Result<Resource, ChangeError> {
        if body.len() > STATE_BYTES_MAX {
            return Err(ChangeError::TooLarge);
        }
        let resource = Resource::parse(body).map_err(ChangeError::Invalid)?;
        let Some(log) = self.trail(&resource.trail) else {
            return Err(ChangeError::Invalid(vec![FieldError {
                pointer: "/source/trail".into(),
                code: FieldCode::WrongType,
                detail: self.trail_unknown(&resource.trail),
            }]));
        };
        let append = self.settings().append_table(Some(&log.name));
        let checked = resource.check_append_table(&append);
        checked.map_err(|fault| ChangeError::Invalid(vec![fault]))?;
        Ok(resource)
    }

    /// Returns the data stream, if it still is at the caller's revision.
    fn seen(
        &self,
        name: &ResourceName,
        revision: Option<u64>,
    ) -> Result<Arc<DataStream>, ChangeError> {
        let known = self.get(name).ok_or(ChangeError::Unknown)?;
        match revision.is_none_or(|revision| revision == known.revision) {
            true => Ok(known),
            false => Err(ChangeError::ChangedMeanwhile),
        }
    }

    async fn put(
        &self,
        name: ResourceName,
        resource: Resource,
        expected: u64,
    ) -> Result<Arc<DataStream>, ChangeError> {
        let key: Arc<str> = format!("{STREAMS}{name}").into();
        let config = Bytes::from(resource.to_json());
        if config.len() > STATE_BYTES_MAX {
            return Err(ChangeError::TooLarge);
        }
        let put = StateChange {
            key: key.clone(),
            value: Some(config),
            expected: Some(expected),
        };
        let no_document = StateChange {
            key: format!("{DOCUMENTS}{name}").into(),
            value: None,
            expected: None,
        };
        self.commit(vec![put, no_document]).await?;
        let stored = self.0.streams.engine().get(&key).await;
        let revision = stored.map_or(0, |entry| entry.revision);
        let new = Arc::new(made(name.clone(), revision, resource, None));
        self.known().insert(name, new.clone());
        Ok(new)
    }

    /// Runs a change to its end, even if the caller has gone.
    async fn whole<T: Send + 'static>(
        &self,
        change: impl Future<Output = Result<T, ChangeError>> + Send + 'static,
    ) -> Result<T, ChangeError> {
        let ended = || CommitError::MaybeStored("the task of the change has ended".into());
        let done = self.0.tasks.run_to_end(Part::Change, change).await;
        done.unwrap_or_else(|| Err(ended().into()))
    }

    async fn commit(&self, state: Vec<StateChange>) -> Result<(), ChangeError> {
        let commit = Commit {
            state,
            ..Commit::default()
        };
        match self.0.streams.engine().commit(commit).await {
            Ok(_stored) => Ok(()),
            Err(CommitError::StateConflict { .. }) => Err(ChangeError::ChangedMeanwhile),
            Err(error) => Err(error.into()),
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<ResourceName, Arc<DataStream>>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn made(
    name: ResourceName,
    revision: u64,
    resource: Resource,
    document: Option<StateEntry>,
) -> DataStream {
    let config = Bytes::from(resource.to_json());
    let made = DataStream::new(name, revision, resource, config);
    if let Some(document) = document {
        made.set_document(&String::from_utf8_lossy(&document.value));
    }
    made
}

/// Returns the key of positions; the first call makes it.
async fn key(streams: &Streams) -> Result<PositionKey, OpenError> {
    if let Some(entry) = streams.engine().get(KEY).await {
        return Ok(PositionKey::new(&entry.value));
    }
    let mut secret = Zeroizing::new([0; PositionKey::LEN]);
    random::fill(&mut *secret).map_err(OpenError::Random)?;
    let put = StateChange {
        key: KEY.into(),
        value: Some(Bytes::copy_from_slice(&*secret)),
        expected: Some(0),
    };
    let commit = Commit {
        state: vec![put],
        ..Commit::default()
    };
    streams.engine().commit(commit).await?;
    Ok(PositionKey::new(&*secret))
}
