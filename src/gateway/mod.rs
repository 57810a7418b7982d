//! The composition root: builds every part from the configuration, starts the tasks, drains them in order.
//!
//! No other part reads the configuration or knows all parts. `gateway/reload.rs` builds new settings for the parts
//! and applies them.

mod books;
mod check;
pub(crate) mod credentials;
mod masks;
mod measured;
#[cfg(test)]
mod panics;
mod push;
mod readers;
mod reload;
pub(crate) mod streams;
mod targets;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, time::Instant};
use tokio_util::sync::CancellationToken;

pub(crate) use self::check::check;
use self::{
    books::Books,
    credentials::FromSecrets,
    measured::MeasuredDisk,
    readers::Readers,
    reload::{LastReload, Reloader},
    targets::Targets,
};
pub use self::{
    reload::Reload,
    streams::{EnsureError, Shrink},
};
use crate::{
    api::{self, Api, ListenRefused},
    config::{Config, ConfigErrors, Loaded},
    dispatch::{self, Dispatcher},
    ingest::Ingest,
    log::Streams,
    push::Push,
    retention::Retention,
    retry::Retrier,
    runtime::{clock::Clock, descriptors::Shares, live::Live, tasks::Tasks},
    secrets::{self, Found, Kept, KeyFile, KeySource, MasterKey, MasterKeyError, Secrets},
    status::{self, Status},
    storage::{CommitError, Engine, embedded::Embedded, local},
    telemetry::{LogLevel, Metrics, Source, metrics},
    users::{self, Users},
};

/// How long the engine may take to close after the grace time, because it writes its queue.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

/// Below this limit of open files, a few hundred clients and targets would wait for descriptors.
const LOW_LIMIT: usize = 4_096;

/// Part of the grace time for requests alone (a quarter), before dispatch stops taking records.
const REQUESTS_SHARE: u32 = 4;

/// A gateway with its address bound and its log open; [`Gateway::run`] serves.
#[derive(Debug)]
pub struct Gateway {
    listener: TcpListener,
    address: SocketAddr,
    engine: Arc<dyn Engine>,
    api: Api,
    push: Push,
    /// Tasks of the edge, awaited first.
    edge: Tasks,
    /// Tasks of dispatch, awaited once no request needs them.
    dispatching: Tasks,
    dispatch_stop: CancellationToken,
    grace: Arc<Live<Duration>>,
    reload: Reload,
    reloader: Reloader,
}

/// Why a gateway does not start. It has served no request and called no target.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is not loopback.
    #[error(transparent)]
    Listen(#[from] ListenRefused),
    /// The address cannot be bound.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The log does not open.
    #[error(transparent)]
    Log(#[from] local::OpenError),
    /// The master key cannot be had.
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    /// The secrets do not open.
    #[error(transparent)]
    Secrets(#[from] secrets::OpenError),
    /// The data streams do not open.
    #[error(transparent)]
    Push(#[from] crate::push::OpenError),
    /// The users do not open, or the first administrator cannot be made.
    #[error(transparent)]
    Users(#[from] users::OpenError),
    /// The settings do not fit this machine, the data directory, or the lack of users.
    #[error(transparent)]
    Settings(#[from] ConfigErrors),
    /// A stream cannot be made or changed.
    #[error(transparent)]
    Streams(EnsureError),
    /// The former secret headers cannot be stored.
    #[error("cannot store the former secret headers")]
    Masks(#[source] CommitError),
}

impl StartError {
    /// Returns whether the settings are the cause, so that another start with them would fail too.
    #[must_use]
    pub fn is_of_settings(&self) -> bool {
        matches!(self, Self::Listen(_) | Self::Settings(_))
    }
}

/// Why a gateway stopped by itself. Every acknowledged record is in the log.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A task has panicked.
    #[error("a task has panicked; the log lines before this one name it")]
    TaskFailed,
    /// The listener has failed.
    #[error("cannot serve")]
    Listener(#[from] io::Error),
}

impl Gateway {
    /// Binds the address, opens the log, makes the configured streams and starts to dispatch. Reloads set `level`.
    ///
    /// Connections wait in the kernel's queue until [`Gateway::run`].
    ///
    /// # Cancel safety
    /// A dropped call leaves the directory as a crash would, and the next start recovers it. Work on another thread
    /// goes on until the process ends.
    ///
    /// # Errors
    /// Each variant of [`StartError`] says what to change.
    pub async fn bind(mut loaded: Loaded, level: LogLevel) -> Result<Self, StartError> {
        let config = &loaded.config;
        let clock = Clock::system();
        api::check_listen(config.server.listen)?;
        let listener = TcpListener::bind(config.server.listen).await;
        let bound = |source| StartError::Bind {
            address: config.server.listen,
            source,
        };
        let listener = listener.map_err(bound)?;
        let address = listener.local_addr().map_err(bound)?;
        let (clients, calls) = (config.server.connections_max, config.dispatch.in_flight_max);
        let shares = Shares::of_process();
        if let Some(cut) = shares.cuts(clients, calls) {
            match shares.limit < LOW_LIMIT {
                true => tracing::warn!("{cut}"),
                false => tracing::info!("{cut}"),
            }
        }
        let (mut settings, edge) = settings_of(&loaded, address)?;
        let edge = Arc::new(Live::new(edge));

        let disk = MeasuredDisk::default();
        let log = open_log(config, disk.clone(), clock.clone()).await?;
        let append_seconds = log.append_seconds().clone();
        let engine: Arc<dyn Engine> = log;
        let streams = Streams::new(engine.clone());
        let ensured = streams::ensure(&streams, config).await;
        ensured.map_err(|error| match error.of_settings(&loaded) {
            Ok(wrong) => StartError::Settings(wrong),
            Err(error) => StartError::Streams(error),
        })?;
        masks::remember(&*engine, &mut loaded.config)
            .await
            .map_err(StartError::Masks)?;
        let config = &loaded.config;
        settings.masked_headers = config.masked_headers();
        let (master, new_file) = find_key(config, &*engine).await?;
        let secrets = Secrets::open(engine.clone(), &master).await;
        let secrets = secrets.map_err(|error| match error {
            secrets::OpenError::WrongKey => MasterKeyError::Wrong {
                from: KeySource::of(&config.secrets, &config.data.dir).to_string(),
                data_dir: config.data.dir.clone(),
            }
            .into(),
            error @ secrets::OpenError::Commit(_) => StartError::from(error),
        })?;
        let users = Users::open(engine.clone(), loaded.administrator.as_ref()).await?;
        if users.is_none() {
            loaded.check_open_mode()?;
        }
        let has_users = users.is_some();
        let edge_tasks = Tasks::new();
        let settings_of_push = crate::push::Settings::from(config);
        let push = Push::open(
            streams.clone(),
            clock.clone(),
            settings_of_push,
            &edge_tasks,
        )
        .await?;
        // A new key is stored last, because a refused start must leave no key, and nothing is sealed with the key
        // yet.
        if let Some(file) = new_file {
            off_this_thread(move || master.keep(&file)).await?;
        }

        let stats = Arc::new(dispatch::Stats::default());
        let dispatching = edge_tasks.sibling();
        let dispatch_stop = CancellationToken::new();
        let deps = dispatch::Deps {
            streams: streams.clone(),
            credentials: Arc::new(FromSecrets(secrets.clone())),
            clock: clock.clone(),
            stats: stats.clone(),
        };
        let dispatcher = Dispatcher::start(settings, deps, &dispatching, dispatch_stop.clone());

        let kept = Arc::new(Live::new(config.retention.clone()));
        let retention = Retention::new(
            streams.clone(),
            config.roles.source.clone(),
            &kept,
            clock.clone(),
        );
        dispatching.spawn("retention", retention.run(dispatch_stop.clone()));

        let metrics = Metrics::new(&clock);
        metrics.adopt(metrics::PUSH_GAPS, push.gaps().clone());
        metrics.adopt(metrics::SECRETS_GONE, secrets.gone().clone());
        metrics.adopt(metrics::LOST_ENDS, stats.lost_ends.clone());
        let panics = edge_tasks.panics().counters().clone();
        metrics.adopt(metrics::PANICS, panics);
        metrics.adopt(metrics::ATTEMPTS, stats.attempts.clone());
        metrics.adopt(metrics::TARGET_ATTEMPTS, stats.target_attempts.clone());
        metrics.adopt(metrics::TARGET_FAILURES, stats.target_failures.clone());
        metrics.adopt(metrics::DISPATCH_READ_RECORDS, stats.read_records.clone());
        metrics.adopt(metrics::LOOKUPS, stats.lookups.clone());
        metrics.adopt(metrics::LOOKUPS_WAITING, stats.lookups_waiting.clone());
        let unreadable = stats.unreadable_partitions.clone();
        metrics.adopt(metrics::UNREADABLE_PARTITIONS, unreadable);
        metrics.adopt(metrics::ATTEMPT_SECONDS, stats.attempt_seconds.clone());
        metrics.adopt(metrics::APPEND_SECONDS, append_seconds);
        metrics.adopt(metrics::FSYNC_SECONDS, disk.sync_seconds.clone());
        metrics.adopt(metrics::JOURNAL_BYTES, disk.written_bytes.clone());
        let dropped_lines = level.dropped_lines().clone();
        metrics.adopt(metrics::LOG_LINES_DROPPED, dropped_lines);
        let books = Books {
            streams: streams.clone(),
            source: config.roles.source.clone(),
            clock: clock.clone(),
            secrets: secrets.clone(),
        };
        let targets = Targets {
            dispatcher: dispatcher.clone(),
            clock: clock.clone(),
        };
        let readers = Readers { push: push.clone() };
        let sources: Vec<Arc<dyn Source>> =
            vec![Arc::new(books), Arc::new(targets), Arc::new(readers)];
        let last_reload = LastReload::new(clock.clone());
        metrics.adopt(
            metrics::RELOAD_SUCCESSFUL,
            last_reload.is_successful.clone(),
        );
        metrics.adopt(metrics::RELOAD_TIME_SECONDS, last_reload.seconds.clone());
        let ingest = Ingest::new(streams.clone(), secrets, config, &edge_tasks);
        let retrier = Retrier::new(&dispatcher, config.retry.clone());
        let status = Status::new(status::Deps {
            streams: streams.clone(),
            dispatcher: dispatcher.clone(),
            push: push.clone(),
            retrier: retrier.clone(),
            source: config.roles.source.clone(),
            // Commands may run in another working directory.
            dir: std::path::absolute(&config.data.dir).unwrap_or_else(|_| config.data.dir.clone()),
            clock,
            tasks: edge_tasks.clone(),
        });
        let (reload, asked) = reload::channel();
        let parts = api::ApiParts {
            push: push.clone(),
            ingest: ingest.clone(),
            retrier: Arc::new(retrier.clone()),
            waits: Arc::new(dispatcher.clone()),
            reloads: Arc::new(reload.clone()),
            reports: Arc::new(status),
            streams: streams.clone(),
            users,
            metrics,
            sources,
        };
        let api = Api::new(parts, edge.clone(), &config.roles);
        let grace = Duration::from_millis(config.server.grace_ms);
        let grace = Arc::new(Live::new(grace));
        let reloader = Reloader {
            running: loaded,
            asked,
            address,
            has_users,
            streams,
            ingest,
            dispatcher,
            retrier,
            push: push.clone(),
            kept,
            edge,
            grace: grace.clone(),
            level,
            last: last_reload,
        };
        Ok(Self {
            listener,
            address,
            engine,
            api,
            push,
            edge: edge_tasks,
            dispatching,
            dispatch_stop,
            grace,
            reload,
            reloader,
        })
    }

    /// Returns the bound address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns whether there are users; otherwise the gateway is in open mode.
    #[must_use]
    pub fn has_users(&self) -> bool {
        self.reloader.has_users
    }

    /// Returns the handle that asks for reloads. They begin once the gateway serves.
    #[must_use]
    pub fn reload(&self) -> Reload {
        self.reload.clone()
    }

    /// Serves until `stop` fires, then drains in this order. Readiness goes off and no connection is accepted;
    /// requests end; dispatch takes no more records and its attempts end; the queue is written; the engine closes.
    /// Requests and attempts share the grace time. Records whose attempt is cut are dispatched again at the next
    /// start.
    ///
    /// # Errors
    /// [`RunError`], after the same drain, if the gateway stops by itself.
    pub async fn run(self, stop: CancellationToken) -> Result<(), RunError> {
        let edge_stop = stop.child_token();
        let reloader = self.reloader.run(edge_stop.clone());
        self.edge.spawn("reloader", reloader);
        let sweep = self.push.sweep(edge_stop.clone());
        self.edge.spawn("unused cursors", sweep);
        let serving = self.api.serve(self.listener, edge_stop.clone(), &self.edge);
        let mut serving = std::pin::pin!(serving);
        let ended = tokio::select! {
            biased;
            () = self.edge.failed() => Err(RunError::TaskFailed),
            () = self.dispatching.failed() => Err(RunError::TaskFailed),
            served = &mut serving => served.map_err(RunError::from),
        };
        let grace = *self.grace.get();
        let deadline = Instant::now() + grace;
        match &ended {
            Ok(()) => tracing::info!("draining"),
            Err(error) => tracing::error!(%error, "draining"),
        }
        if matches!(ended, Err(RunError::TaskFailed)) {
            // This closes the listener and tells open connections.
            edge_stop.cancel();
            if let Err(error) = serving.await {
                tracing::warn!(%error, "the listener closed with an error");
            }
        }
        let left = || deadline.saturating_duration_since(Instant::now());
        // Requests end within milliseconds, except retries, which end early once dispatch takes no more records.
        self.edge.join(grace / REQUESTS_SHARE).await;
        self.dispatch_stop.cancel();
        let cut_len = self.edge.join(left()).await;
        if cut_len > 0 {
            tracing::warn!(cut_len, "connections were cut at the end of the grace time");
        }
        let cut_len = self.dispatching.join(left()).await;
        if cut_len > 0 {
            tracing::warn!(cut_len, "dispatch was cut at the end of the grace time");
        }
        if tokio::time::timeout(CLOSE_TIMEOUT, self.engine.close())
            .await
            .is_err()
        {
            tracing::error!("the log did not close in time; the next start recovers it");
        }
        tracing::info!("stopped");
        ended
    }
}

/// Returns the settings of dispatch and of the edge, for a gateway at this address.
fn settings_of(
    loaded: &Loaded,
    address: SocketAddr,
) -> Result<(dispatch::Settings, api::Settings), ConfigErrors> {
    let config = &loaded.config;
    let dispatch = dispatch::Settings::new(config, &[address]).map_err(|wrong| {
        let wrong = wrong.iter().map(|one| loaded.error(&one.key, &*one.reason));
        ConfigErrors(wrong.collect())
    });
    let edge = api::Settings::new(config)
        .map_err(|wrong| ConfigErrors(vec![loaded.error("sync.token_header", wrong.to_string())]));
    let (mut dispatch, edge) = (dispatch?, edge?);
    dispatch.grace -= dispatch.grace / REQUESTS_SHARE;
    Ok((dispatch, edge))
}

async fn open_log(
    config: &Config,
    disk: MeasuredDisk,
    clock: Clock,
) -> Result<Arc<Embedded>, StartError> {
    let options = local::Options {
        dir: config.data.dir.clone(),
        log: config.log.clone(),
    };
    let opened = off_this_thread(move || Embedded::open(options, Arc::new(disk), clock));
    Ok(opened.await?)
}

/// Finds the master key. If its file is missing and no token is sealed, a new key is made for that file. Over sealed
/// tokens a new key would hide that the right one is missing.
async fn find_key(
    config: &Config,
    engine: &dyn Engine,
) -> Result<(MasterKey, Option<KeyFile>), StartError> {
    let source = KeySource::of(&config.secrets, &config.data.dir);
    // A start that is cancelled ends the command that it waits for.
    let starting = CancellationToken::new();
    let given_up = starting.clone().drop_guard();
    let found = off_this_thread(move || source.find(&starting)).await?;
    given_up.disarm();
    let file = match found {
        Found::Key(master) => return Ok((master, None)),
        Found::Missing(file) => file,
    };
    let sealed_len = Kept::in_engine(engine).await.tokens_len();
    if sealed_len > 0 {
        let missing = MasterKeyError::Missing {
            path: file.path().into(),
            sealed_len,
            data_dir: config.data.dir.clone(),
        };
        return Err(missing.into());
    }
    Ok((MasterKey::random()?, Some(file)))
}

/// Runs work that may block for long off the runtime: recovery of the journal, a command for the master key.
/// Meanwhile the start can react to signals.
async fn off_this_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}
