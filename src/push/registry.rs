//! Every data stream that there is: made, changed and deleted here, and kept in the log's state.
//!
//! ```text
//! push/key               secret of the positions, made once
//! push/stream/NAME       configuration, as JSON
//! push/document/NAME     the AsyncAPI document that a person has given it
//! ```

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicUsize},
};

use bytes::Bytes;
use zeroize::Zeroizing;

use crate::{
    clock::Clock,
    ingest::{FieldCode, FieldError},
    live::Live,
    log::Streams,
    random,
    storage::{Commit, CommitError, STATE_BYTES_MAX, StateChange, StateEntry, Stream},
};

use super::{
    begin::{Begin, BeginInvalid},
    data_stream::{DataStream, Ended},
    document::{self, Layout, Listed, Protocol, Server},
    encode::Encoder,
    hub::{Hub, Parts},
    position::{Contract, PositionKey},
    resource::{ObjectName, Resource, ResourceName, View, merge_patch},
    settings::Settings,
    start::{self, StartRefused},
    subscription::{Seat, Subscription},
};

const KEY: &str = "push/key";
const STREAMS: &str = "push/stream/";
const DOCUMENTS: &str = "push/document/";
/// Data streams at most: each costs its configuration in memory.
const LEN_MAX: usize = 1024;

/// Handle to push. Clones share everything.
#[derive(Clone, Debug)]
pub struct Push(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    streams: Streams,
    clock: Clock,
    key: PositionKey,
    settings: Arc<Live<Settings>>,
    known: Mutex<BTreeMap<ResourceName, Arc<DataStream>>>,
    /// By clients, those of earlier configurations among them.
    seats_taken: Arc<AtomicUsize>,
    /// Held by whoever changes one: state and `known` change in the same order.
    changes: tokio::sync::Mutex<()>,
}

/// Why push cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There are no random numbers.
    #[error("cannot make the key of positions: {0}")]
    Random(getrandom::Error),
    /// The log does not take it.
    #[error("cannot store the key of positions")]
    Commit(#[from] CommitError),
    /// What is stored was made by another version.
    #[error(
        "the stored configuration of data stream {0} does not read; an older version cannot open it"
    )]
    Unreadable(String),
}

/// Why a data stream is not made, changed or deleted. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// There is one of that name.
    #[error("there is a data stream of that name")]
    Exists,
    /// There is none of that name.
    #[error("there is no data stream of that name")]
    Unknown,
    /// It has changed since the caller looked.
    #[error("the data stream has changed meanwhile")]
    ChangedMeanwhile,
    /// The configuration is wrong.
    #[error("the configuration is invalid")]
    Invalid(Vec<FieldError>),
    /// What a patch would make of it is wrong.
    #[error("the patched configuration is invalid")]
    PatchedInvalid(Vec<FieldError>),
    /// It is longer than it may be.
    #[error("a configuration or a document has at most {STATE_BYTES_MAX} bytes")]
    TooLarge,
    /// There are as many as there may be.
    #[error("there are {LEN_MAX} data streams, which is the most")]
    TooMany,
    /// What the log said.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Why a client cannot read a data stream.
#[derive(Debug, thiserror::Error)]
pub enum SubscribeError {
    /// There is none of that name.
    #[error("there is no data stream of that name")]
    Unknown,
    /// There are as many clients as there may be.
    #[error("there are as many clients as there may be")]
    Full,
    /// It cannot start there.
    #[error(transparent)]
    Begin(#[from] BeginInvalid),
    /// It cannot start there any more.
    #[error(transparent)]
    Start(#[from] StartRefused),
}

impl Push {
    /// Reads what is stored.
    ///
    /// # Errors
    /// Each variant of [`OpenError`] says what is wrong.
    pub async fn open(
        streams: Streams,
        clock: Clock,
        settings: Arc<Live<Settings>>,
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
        Ok(Self(Arc::new(Inner {
            streams,
            clock,
            key,
            settings,
            known: Mutex::new(known),
            seats_taken: Arc::default(),
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

    /// Returns the settings as they are now.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        self.0.settings.get()
    }

    /// Returns the log stream that a trail names: by name, else by alias.
    #[must_use]
    pub fn trail(&self, trail: &str) -> Option<Arc<Stream>> {
        let streams = &self.0.streams;
        let named = trail.parse().ok().and_then(|name| streams.by_name(&name));
        named.or_else(|| {
            let settings = self.0.settings.get();
            settings
                .trails
                .get(trail)
                .and_then(|name| streams.by_name(name))
        })
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
        let _one = self.0.changes.lock().await;
        if self.get(&name).is_some() {
            return Err(ChangeError::Exists);
        }
        if self.known().len() >= LEN_MAX {
            return Err(ChangeError::TooMany);
        }
        self.put(name, resource, 0).await
    }

    /// Changes top-level members of a configuration, durably; clients are told to come again. A document that a person
    /// has given is gone then.
    ///
    /// # Errors
    /// [`ChangeError::Unknown`], [`ChangeError::ChangedMeanwhile`] if it is not at `revision`, and as [`Push::create`].
    pub async fn change(
        &self,
        name: &ResourceName,
        patch: &[u8],
        revision: Option<u64>,
    ) -> Result<Arc<DataStream>, ChangeError> {
        let _one = self.0.changes.lock().await;
        let old = self.seen(name, revision)?;
        let merged = merge_patch(&old.config, patch).map_err(ChangeError::Invalid)?;
        let resource = self.read(&merged).map_err(|error| match error {
            ChangeError::Invalid(faults) => ChangeError::PatchedInvalid(faults),
            error => error,
        })?;
        let new = self.put(name.clone(), resource, old.revision).await?;
        old.end_as(Ended::Changed);
        Ok(new)
    }

    /// Deletes a data stream, durably; its clients are told so. The log stream stays.
    ///
    /// # Errors
    /// [`ChangeError::Unknown`], [`ChangeError::ChangedMeanwhile`].
    pub async fn delete(
        &self,
        name: &ResourceName,
        revision: Option<u64>,
    ) -> Result<(), ChangeError> {
        let _one = self.0.changes.lock().await;
        let old = self.seen(name, revision)?;
        let gone = |prefix: &str| StateChange {
            key: format!("{prefix}{name}").into(),
            value: None,
            expected: None,
        };
        self.commit(vec![gone(STREAMS), gone(DOCUMENTS)]).await?;
        self.known().remove(name);
        old.end_as(Ended::Deleted);
        Ok(())
    }

    /// Keeps a document that a person has given, durably.
    ///
    /// # Errors
    /// [`ChangeError::Unknown`], [`ChangeError::TooLarge`].
    pub async fn document(&self, name: &ResourceName, text: &str) -> Result<(), ChangeError> {
        if text.len() > STATE_BYTES_MAX {
            return Err(ChangeError::TooLarge);
        }
        let _one = self.0.changes.lock().await;
        let known = self.seen(name, None)?;
        let change = StateChange {
            key: format!("{DOCUMENTS}{name}").into(),
            value: Some(Bytes::copy_from_slice(text.as_bytes())),
            expected: None,
        };
        self.commit(vec![change]).await?;
        known.set_document(text);
        Ok(())
    }

    /// Returns the document that we make for a data stream; `base` is the address under which the reader reaches us.
    #[must_use]
    pub fn document_of(&self, stream: &DataStream, base: &str, layout: Layout) -> String {
        let settings = self.0.settings.get();
        let append = self.append_table(stream);
        let listed = Listed {
            name: &stream.name,
            resource: &stream.resource,
            append: &append,
        };
        document::of_one(&server(base, &settings), &listed, layout)
    }

    /// Returns the document of all data streams.
    #[must_use]
    pub fn document_of_all(&self, base: &str) -> String {
        let settings = self.0.settings.get();
        let all = self.list();
        let tables: Vec<_> = all.iter().map(|stream| self.append_table(stream)).collect();
        let listed = all.iter().zip(&tables).map(|(stream, append)| Listed {
            name: &stream.name,
            resource: &stream.resource,
            append,
        });
        document::of_all(&server(base, &settings), &Vec::from_iter(listed))
    }

    /// Returns the append table of the log stream that a data stream shows.
    fn append_table(&self, stream: &DataStream) -> ObjectName {
        let settings = self.0.settings.get();
        let trail = &stream.resource.trail;
        let log = self.trail(trail).map(|log| log.name.clone());
        // The stream may be gone; then its name is all that is left of it.
        let log = log.or_else(|| settings.trails.get(trail).cloned());
        let log = log.or_else(|| trail.parse().ok());
        settings.append_table(log.as_ref())
    }

    /// Lets a client read a data stream from where it wants; `begin` is already percent-decoded.
    ///
    /// # Errors
    /// Each variant of [`SubscribeError`] is told before anything is sent.
    pub async fn subscribe(
        &self,
        name: &ResourceName,
        begin: Option<&str>,
    ) -> Result<Subscription, SubscribeError> {
        let stream = self.get(name).ok_or(SubscribeError::Unknown)?;
        // Taken before anything is read: many may come at once.
        let len_max = self.0.settings.get().clients_max;
        let seat = Seat::take(&self.0.seats_taken, len_max).ok_or(SubscribeError::Full)?;
        let begin = match begin {
            None => Begin::Earliest,
            Some(text) => Begin::parse(text, &self.0.key)?,
        };
        let resource = &stream.resource;
        let log = self
            .trail(&resource.trail)
            .ok_or(StartRefused::StreamGone)?;
        let contract = self.contract(&stream, &log);
        let streams = &self.0.streams;
        let quality = resource.quality_of_service;
        let start = start::start(streams, log.id, &begin, contract, quality).await?;
        let fits = |hub: &Hub| hub.parts().stream == log.id && hub.incarnation() == log.incarnation;
        let hub = stream.hub(fits, || self.hub(&stream, &log, contract));
        Ok(Subscription::new(stream, hub, start, seat))
    }

    fn hub(&self, stream: &DataStream, log: &Arc<Stream>, contract: Contract) -> Hub {
        let parts = Parts {
            streams: self.0.streams.clone(),
            stream: log.id,
            encode: Box::new(Encoder::new(stream, log, &self.0.settings.get())),
            key: self.0.key.clone(),
            contract,
            quality: stream.resource.quality_of_service,
            frame_bytes: usize::try_from(stream.resource.buffer_size).unwrap_or(usize::MAX),
            clock: self.0.clock.clone(),
        };
        Hub::new(parts, log)
    }

    fn contract(&self, stream: &DataStream, log: &Stream) -> Contract {
        let view = match stream.resource.view {
            View::Append => "append",
            View::Operations(_) => "operations",
        };
        Contract::new(stream.name.as_str(), log.name.as_str(), view)
    }

    /// Reads a configuration, and looks whether its trail is one.
    fn read(&self, body: &[u8]) -> Result<Resource, ChangeError> {
        if body.len() > STATE_BYTES_MAX {
            return Err(ChangeError::TooLarge);
        }
        let resource = Resource::parse(body).map_err(ChangeError::Invalid)?;
        let Some(log) = self.trail(&resource.trail) else {
            return Err(ChangeError::Invalid(vec![FieldError {
                pointer: "/source/trail".into(),
                code: FieldCode::WrongType,
                detail: "this names no stream, and no alias of [push.trails]".into(),
            }]));
        };
        let append = self.0.settings.get().append_table(Some(&log.name));
        let checked = resource.check_append_table(&append);
        checked.map_err(|fault| ChangeError::Invalid(vec![fault]))?;
        Ok(resource)
    }

    /// Returns what is known, if the caller has seen it as it is.
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

/// Returns the server that a reader reaches at `base`.
fn server<'a>(base: &'a str, settings: &'a Settings) -> Server<'a> {
    let (protocol, host) = match base.split_once("://") {
        Some(("https", host)) => (Protocol::Wss, host),
        Some((_, host)) => (Protocol::Ws, host),
        None => (Protocol::Ws, base),
    };
    Server {
        protocol,
        host,
        base_path: "",
        event_prefix: &settings.event_type_prefix,
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

/// Returns the key of positions; it is made once.
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
