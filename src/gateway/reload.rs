//! Reloads, one after the other, each all or nothing.
//!
//! Steps that can fail come first: the sources are read and checked as at the start. Then streams are made and
//! changed, because the outcome table may name them. Last, the parts get their settings, which cannot fail. If the
//! log refuses a stream, the streams before it stay, no setting is applied, and the next reload goes on.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use async_trait::async_trait;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{masks, off_this_thread, settings_of, streams};
use crate::{
    api::{self, ReloadError, Reloaded},
    config::{self, ConfigErrors, Loaded},
    dispatch::{self, Dispatcher},
    ingest::Ingest,
    log::Streams,
    push::Push,
    retry::Retrier,
    runtime::{clock::Clock, live::Live},
    telemetry::LogLevel,
};

/// Reloads that may wait for the running one.
const WAITING_LEN_MAX: usize = 16;

/// Asks for reloads. Clones ask the same reloader.
#[derive(Clone, Debug)]
pub struct Reload(mpsc::Sender<Ask>);

/// The receiver of the result; `None` logs it only.
type Ask = Option<oneshot::Sender<Result<Reloaded, ReloadError>>>;

impl Reload {
    /// Asks for a reload. Its result is logged.
    pub fn ask(&self) {
        // If the queue is full, a waiting reload will read the present files.
        if self.0.try_send(None).is_err() {
            tracing::debug!(
                "the queue of reloads is full; a waiting reload reads the present files"
            );
        }
    }
}

#[async_trait]
impl api::Reloads for Reload {
    async fn reload(&self) -> Result<Reloaded, ReloadError> {
        let (answer, answered) = oneshot::channel();
        let asked = self.0.send(Some(answer)).await;
        asked.map_err(|_gone| ReloadError::Stopping)?;
        answered.await.unwrap_or(Err(ReloadError::Stopping))
    }
}

/// Owns the loaded configuration, and applies it to the parts.
#[derive(Debug)]
pub(super) struct Reloader {
    pub(super) running: Loaded,
    pub(super) asked: mpsc::Receiver<Ask>,
    pub(super) address: SocketAddr,
    pub(super) has_users: bool,
    pub(super) streams: Streams,
    pub(super) ingest: Ingest,
    pub(super) dispatcher: Dispatcher,
    pub(super) retrier: Retrier,
    pub(super) push: Push,
    pub(super) kept: Arc<Live<config::Retention>>,
    pub(super) edge: Arc<Live<api::Settings>>,
    pub(super) grace: Arc<Live<Duration>>,
    pub(super) level: LogLevel,
    pub(super) last: LastReload,
}

/// Metrics of the last reload.
#[derive(Clone, Debug)]
pub(super) struct LastReload {
    /// 1 if it was applied.
    pub(super) is_successful: Gauge,
    /// When settings were last applied, in seconds since 1970.
    pub(super) seconds: Gauge<f64, AtomicU64>,
    clock: Clock,
}

impl LastReload {
    /// The start counts as an applied reload.
    pub(super) fn new(clock: Clock) -> Self {
        let last = Self {
            is_successful: Gauge::default(),
            seconds: Gauge::default(),
            clock,
        };
        last.came(true);
        last
    }

    fn came(&self, is_successful: bool) {
        self.is_successful.set(is_successful.into());
        if is_successful {
            let now = Duration::from_micros(self.clock.now().0);
            self.seconds.set(now.as_secs_f64());
        }
    }
}

/// The settings of the parts, made from a checked configuration.
struct Prepared {
    read: config::Reloaded,
    dispatch: dispatch::Settings,
    edge: api::Settings,
}

/// Returns the handle and the reloader's end of the queue.
pub(super) fn channel() -> (Reload, mpsc::Receiver<Ask>) {
    let (ask, asked) = mpsc::channel(WAITING_LEN_MAX);
    (Reload(ask), asked)
}

impl Reloader {
    /// Reloads on request, until `stop` fires.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            let ask = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                ask = self.asked.recv() => ask,
            };
            let Some(ask) = ask else { return };
            let came = self.reload().await;
            tell(&came);
            self.last.came(came.is_ok());
            if let Some(answer) = ask {
                // Ignore send errors: the caller may have gone away.
                drop(answer.send(came));
            }
        }
    }

    async fn reload(&mut self) -> Result<Reloaded, ReloadError> {
        let (running, address, has_users) = (self.running.clone(), self.address, self.has_users);
        let prepared = off_this_thread(move || Prepared::new(&running, address, has_users)).await;
        let Prepared {
            mut read,
            mut dispatch,
            edge,
        } = prepared.map_err(ReloadError::Invalid)?;
        for warning in &read.loaded.warnings {
            tracing::warn!("{warning}");
        }
        let of_streams = |key: &String| key.starts_with("streams[") || key.starts_with("outcomes.");
        // Held until the parts know the streams: a source stream that grows must not lack partitions in a new error
        // stream.
        let mut pause = None;
        if read.applied.iter().any(of_streams) {
            pause = Some(self.ingest.pause().await?);
            self.change_streams(&read.loaded).await?;
        }
        // Stored before any message with such a header can be stored under the new settings.
        let remembered = masks::remember(&**self.streams.engine(), &mut read.loaded.config).await;
        remembered.map_err(|error| {
            let what = format!("the former secret headers could not be stored: {error}");
            ReloadError::Invalid(ConfigErrors(vec![read.loaded.error("targets", what)]))
        })?;
        let config = &read.loaded.config;
        dispatch.masked_headers = config.masked_headers();
        self.dispatcher.reload(dispatch);
        self.retrier.reload(config.retry.clone());
        self.kept.set(Arc::new(config.retention.clone()));
        self.ingest.reload(config);
        self.push.reload(config.masked_headers());
        self.edge.set(Arc::new(edge));
        let grace = Duration::from_millis(config.server.grace_ms);
        self.grace.set(Arc::new(grace));
        self.level.set(&config.logging);
        drop(pause);
        self.running = read.loaded;
        Ok(Reloaded {
            applied: read.applied.into_iter().collect(),
            needs_restart: read.needs_restart.into_iter().collect(),
        })
    }

    async fn change_streams(&self, loaded: &Loaded) -> Result<(), ReloadError> {
        let ensured = streams::ensure(&self.streams, &loaded.config).await;
        ensured.map_err(|error| match error.of_settings(loaded) {
            Ok(wrong) => ReloadError::Invalid(wrong),
            Err(streams::EnsureError::Stream { name, source }) => {
                ReloadError::Stream { name, source }
            }
            Err(error) => ReloadError::Invalid(ConfigErrors(vec![
                loaded.error("streams", error.to_string()),
            ])),
        })
    }
}

impl Prepared {
    fn new(running: &Loaded, address: SocketAddr, has_users: bool) -> Result<Self, ConfigErrors> {
        let read = running.reload()?;
        let loaded = &read.loaded;
        if !has_users {
            loaded.check_open_mode()?;
        }
        let (dispatch, edge) = settings_of(loaded, address)?;
        Ok(Self {
            read,
            dispatch,
            edge,
        })
    }
}

fn tell(came: &Result<Reloaded, ReloadError>) {
    match came {
        Ok(reloaded) => tracing::info!(
            applied = reloaded.applied.join(", "),
            needs_restart = reloaded.needs_restart.join(", "),
            "configuration reloaded"
        ),
        Err(ReloadError::Invalid(wrong)) => {
            for error in &wrong.0 {
                tracing::error!("{error}");
            }
            tracing::error!("the configuration is wrong: nothing of it is applied");
        }
        Err(error @ ReloadError::Stream { source, .. }) => {
            tracing::error!(cause = %source, "{error}");
        }
        Err(error @ ReloadError::Busy(_)) => tracing::error!("{error}"),
        Err(error @ ReloadError::Stopping) => tracing::info!("{error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        config::{Overrides, Sources},
        gateway::Gateway,
    };

    const BEFORE: &str = "[server]\nlisten = \"127.0.0.1:0\"\n";
    const AFTER: &str = "[server]\nlisten = \"127.0.0.1:0\"\ngrace_ms = 7\n[retention]\nerror_hours = 3\n\
                         [sync]\nanswer = \"text\"\n[[streams]]\nname = \"New\"\n";

    #[tokio::test]
    async fn a_stream_that_the_log_refuses_leaves_every_part_with_the_settings_it_had() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("syncgate.toml");
        fs::write(&file, BEFORE).unwrap();
        let sources = Sources {
            file: Some(file.clone()),
            overrides: Overrides {
                data: Some(dir.path().join("data")),
                listen: None,
            },
            ..Sources::default()
        };
        let loaded = config::load(sources).unwrap();
        let mut gateway = Gateway::bind(loaded, LogLevel::default()).await.unwrap();
        let reloader = &mut gateway.reloader;
        let (kept, edge, grace) = (
            reloader.kept.get(),
            reloader.edge.get(),
            reloader.grace.get(),
        );
        fs::write(&file, AFTER).unwrap();
        // A log that has stopped takes no stream.
        gateway.engine.close().await;
        let refused = reloader.reload().await.unwrap_err();
        let of_new = matches!(&refused, ReloadError::Stream { name, .. } if name.as_str() == "New");
        assert!(of_new, "{refused:?}");
        assert!(Arc::ptr_eq(&kept, &reloader.kept.get()), "retention");
        assert!(Arc::ptr_eq(&edge, &reloader.edge.get()), "the edge");
        assert!(Arc::ptr_eq(&grace, &reloader.grace.get()), "grace time");
        // The next reload finds all of it new.
        let found = reloader.running.reload().unwrap();
        let keys = [
            "retention.error_hours",
            "server.grace_ms",
            "streams[0]",
            "sync.answer",
        ];
        assert_eq!(found.applied.into_iter().collect::<Vec<_>>(), keys);
    }
}
