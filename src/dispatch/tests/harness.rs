//! A log with a dispatcher over it, in a directory of its own.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::stub::{until, within};
use crate::{
    config::Config,
    dispatch::{
        Credential, CredentialError, Credentials, Deps, Dispatcher, NewestVersions, Settings, Stats,
    },
    log::Streams,
    model::{
        ids::{Offset, Partition, PartitionId, Position},
        record::{HeadersBuilder, Record, StoredRecord},
        target::Origin,
    },
    runtime::{clock::Clock, tasks::Tasks},
    storage::{
        Append, AppendKind, Commit, Counts, Engine, Log, Stream, StreamConfig,
        embedded::Embedded,
        local::{Options, RealDisk},
    },
};

pub(crate) const SOURCE: &str = "DataSyncStream";
pub(crate) const UNAVAILABLE: &str = "ServerUnavailableStream";
pub(crate) const INTERNAL: &str = "InternalserverErrorStream";
pub(crate) const UNRECOVERABLE: &str = "UnrecoverableErrorStream";
pub(crate) const DEFAULT: &str = "DefaultErrorStream";

/// A log, and what runs over it.
pub(crate) struct Harness {
    pub(crate) dir: TempDir,
    pub(crate) engine: Arc<Embedded>,
    pub(crate) streams: Streams,
    pub(crate) config: Config,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) stats: Arc<Stats>,
    pub(crate) tasks: Tasks,
    pub(crate) stop: CancellationToken,
}

impl Harness {
    /// Starts with streams of one partition.
    pub(crate) async fn start(set: impl FnOnce(&mut Config)) -> Self {
        Self::start_in(TempDir::new().unwrap(), 1, set).await
    }

    /// Starts with a resolver of the test's own.
    pub(crate) async fn start_finding(
        find: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
        set: impl FnOnce(&mut Config),
    ) -> Self {
        let start = |settings, deps, tasks: &Tasks, stop| {
            Dispatcher::start_finding(find, settings, deps, tasks, stop)
        };
        Self::start_by(start, TempDir::new().unwrap(), 1, set).await
    }

    /// Starts in a directory, with streams of that many partitions if they are not there.
    pub(crate) async fn start_in(
        dir: TempDir,
        partitions: u16,
        set: impl FnOnce(&mut Config),
    ) -> Self {
        Self::start_by(Dispatcher::start, dir, partitions, set).await
    }

    async fn start_by(
        start: impl FnOnce(Settings, Deps, &Tasks, CancellationToken) -> Dispatcher,
        dir: TempDir,
        partitions: u16,
        set: impl FnOnce(&mut Config),
    ) -> Self {
        let mut config = Config::default();
        config.log.segment_bytes = 1 << 20;
        config.server.grace_ms = 5_000;
        set(&mut config);
        let options = Options {
            dir: dir.path().to_owned(),
            log: config.log.clone(),
        };
        let engine = Embedded::open(options, Arc::new(RealDisk), Clock::system()).unwrap();
        for name in [SOURCE, UNAVAILABLE, INTERNAL, UNRECOVERABLE, DEFAULT] {
            let name = name.parse().unwrap();
            if engine.stream(&name).is_none() {
                let made = engine.create_stream(name, partitions, StreamConfig::default());
                made.await.unwrap();
            }
        }
        let streams = Streams::new(engine.clone() as Arc<dyn Engine>);
        let (tasks, stop) = (Tasks::new(), CancellationToken::new());
        let stats = Arc::new(Stats::default());
        let deps = Deps {
            streams: streams.clone(),
            credentials: Arc::new(TestSecrets),
            clock: Clock::system(),
            stats: stats.clone(),
        };
        let settings = settings(&config);
        let dispatcher = start(settings, deps, &tasks, stop.clone());
        Self {
            dir,
            engine,
            streams,
            config,
            dispatcher,
            stats,
            tasks,
            stop,
        }
    }

    /// Replaces the settings of the dispatcher.
    pub(crate) fn reload(&mut self, set: impl FnOnce(&mut Config)) {
        set(&mut self.config);
        self.dispatcher.reload(settings(&self.config));
    }

    /// Drains and gives the directory back.
    pub(crate) async fn stop(self) -> TempDir {
        self.stop.cancel();
        assert_eq!(
            self.tasks.join(Duration::from_secs(20)).await,
            0,
            "all tasks end"
        );
        self.engine.close().await;
        self.dir
    }

    pub(crate) fn stream(&self, name: &str) -> Arc<Stream> {
        self.streams.by_name(&name.parse().unwrap()).unwrap()
    }

    pub(crate) fn partition(&self, name: &str, partition: u16) -> PartitionId {
        self.stream(name).partition(Partition(partition)).unwrap()
    }

    /// Appends to partition 0 of the source stream.
    pub(crate) async fn sync(&self, key: &str, message: &Value) -> Offset {
        self.append(SOURCE, 0, vec![record(key, message, &[])])
            .await
    }

    /// Appends; returns the offset of the first record.
    pub(crate) async fn append(
        &self,
        stream: &str,
        partition: u16,
        records: Vec<Record>,
    ) -> Offset {
        let append = Append {
            of: self.partition(stream, partition),
            records,
            kind: AppendKind::Accepted,
            refers: Vec::new(),
        };
        let commit = Commit {
            appends: vec![append],
            ..Commit::default()
        };
        self.engine.commit(commit).await.unwrap().appends[0].first
    }

    /// Waits for the record at an offset of partition 0.
    pub(crate) async fn record_at(&self, stream: &str, offset: u64) -> StoredRecord {
        let of = self.partition(stream, 0);
        let position = Position::At(Offset(offset));
        let mut cursor = self.streams.cursor(of, position).unwrap();
        within("a record", cursor.ready()).await.unwrap();
        cursor.read(1).await.unwrap().records.remove(0)
    }

    pub(crate) fn counts(&self, stream: &str) -> Counts {
        self.engine
            .status(self.partition(stream, 0))
            .unwrap()
            .counts
    }

    /// Waits until every record of the source's partition 0 is settled.
    pub(crate) async fn settled(&self) -> Counts {
        // Ends of deliveries move no tail that one could wait for.
        let open_len = || self.counts(SOURCE).open_len();
        until("all records to end", || open_len() == 0).await;
        self.counts(SOURCE)
    }
}

pub(super) fn settings(config: &Config) -> Settings {
    Settings::new(config, &[OWN_ADDRESS.parse().unwrap()]).unwrap()
}

/// Where the gateway says that it listens.
pub(crate) const OWN_ADDRESS: &str = "127.0.0.1:9002";

pub(crate) fn record(key: &str, message: &Value, headers: &[(&str, &str)]) -> Record {
    let mut builder = HeadersBuilder::default();
    for (name, value) in headers {
        builder.push(name, value);
    }
    Record {
        key: key.to_owned().into(),
        value: message.to_string().into(),
        headers: builder.build(),
    }
}

pub(crate) fn message(address: SocketAddr, path: &str) -> Value {
    json!({"targetRestApi": format!("http://{address}{path}"), "targetRestApiOperation": "POST",
           "targetRestApiPayload": {"path": path}})
}

/// Value of a header of a record; a dash if there is none.
pub(crate) fn header<'a>(stored: &'a StoredRecord, name: &str) -> &'a str {
    stored.record.headers.get(name).unwrap_or("-")
}

/// Knows the secret `good`; panics at `panics`.
#[derive(Debug)]
pub(super) struct TestSecrets;

#[async_trait]
impl Credentials for TestSecrets {
    async fn reveal(
        &self,
        _source: &str,
        name: &str,
        version: Option<u32>,
        _target: &Origin,
    ) -> Result<Credential, CredentialError> {
        match name {
            "good" => Ok(Credential::new(format!("Bearer {}", version.unwrap_or(9)))),
            "long" => Ok(Credential::new("Bearer token-of-the-target".into())),
            "crlf" => Ok(Credential::new("a\r\nb: c".into())),
            "foreign" => Err(CredentialError::NotForTarget),
            "sealed" => Err(CredentialError::Unreadable),
            "panics" => panic!("on purpose"),
            _ => Err(CredentialError::Unknown),
        }
    }

    async fn newest(&self, _: &str, name: &str, _: &Origin) -> Option<NewestVersions> {
        let for_target = match name {
            "good" | "sealed" => Some(9),
            "foreign" => None,
            // A version that is newer than 4 is for other targets.
            "long" => Some(4),
            _ => return None,
        };
        let of_all = 9;
        Some(NewestVersions { of_all, for_target })
    }

    fn state_keys(&self, _: &str, _: &str, _: Option<u32>) -> Vec<Arc<str>> {
        Vec::new()
    }
}
