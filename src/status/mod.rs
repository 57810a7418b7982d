//! How the gateway is, in one look: problems with the commands that come next, targets, open records, disk, books, readers.
//!
//! A report is made for a request, and serves all requests of the next half second ([`KEPT`]). A task reads the disk: one at a
//! time, and a report waits for it for [`LOOK_WAIT`] at most. So a disk that hangs does not keep the page away that tells of
//! it; the report then has the open records that were counted before.
//!
//! Callers: `api`, for `GET /v1/status`. `census` counts open records, `problems` finds problems and their commands.

mod census;
mod problems;
mod report;
#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{Mutex, oneshot},
    time::{Instant, timeout},
};

use self::census::{Census, Dispatch};
pub(crate) use self::problems::size;
pub use self::{
    census::{Aim, Counted, Group},
    problems::Problem,
    report::{Books, Open, Reader, ReaderKind, Report, Retry, Target},
};
use crate::{
    dispatch::{BreakerState, Dispatcher, LastFailure, TargetId},
    log::Streams,
    model::{ids::StreamName, record::Record},
    push::Push,
    retry::{self, Retrier},
    runtime::{
        clock::{Clock, Timestamp},
        tasks::{Part, Tasks},
    },
    storage::{Space, StreamLedger, ledger::Balance},
};

/// How long a report serves.
const KEPT: Duration = Duration::from_millis(500);
/// How long a report waits for what has to be read.
const LOOK_WAIT: Duration = Duration::from_secs(5);

/// The parts that a report is made of.
#[derive(Debug)]
pub struct Deps {
    /// The log.
    pub streams: Streams,
    /// Knows the targets.
    pub dispatcher: Dispatcher,
    /// Knows the readers of data streams.
    pub push: Push,
    /// Knows the retries that run.
    pub retrier: Retrier,
    /// The stream that is dispatched; the records of all others wait for a retry.
    pub source: StreamName,
    /// The data directory, for commands.
    pub dir: PathBuf,
    /// For ages.
    pub clock: Clock,
    /// The set that the reading task belongs to.
    pub tasks: Tasks,
}

/// Makes reports. Clones share them.
#[derive(Clone, Debug)]
pub struct Status(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    deps: Deps,
    started_at: Timestamp,
    census: Arc<Mutex<Census>>,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    report: Option<(Instant, Arc<Report>)>,
    seen: Seen,
}

/// The facts that had to be read from the disk.
#[derive(Clone, Debug, Default)]
struct Seen {
    counted: Counted,
    space: Option<Space>,
}

impl Status {
    /// Reports of a gateway that starts now.
    #[must_use]
    pub fn new(deps: Deps) -> Self {
        Self(Arc::new(Inner {
            started_at: deps.clock.now(),
            deps,
            census: Arc::default(),
            last: Mutex::default(),
        }))
    }

    /// Returns how the gateway is, or was at most half a second ago.
    ///
    /// # Cancel safety
    /// Nothing is lost when the call is dropped.
    pub async fn report(&self) -> Arc<Report> {
        // A caller that comes while a report is made waits for that report.
        let mut last = self.0.last.lock().await;
        if let Some((made, report)) = &last.report
            && made.elapsed() < KEPT
        {
            return report.clone();
        }
        if let Some(seen) = self.look().await {
            last.seen = seen;
        } else {
            last.seen.counted.is_complete = false;
            last.seen.space = None;
        }
        let report = Arc::new(self.0.report(last.seen.clone()).await);
        last.report = Some((Instant::now(), report.clone()));
        report
    }

    /// Reads what has to be read; `None` if that is not done in time.
    async fn look(&self) -> Option<Seen> {
        // The last look may still be under way: its caller has gone away, or the disk hangs.
        let census = self.0.census.clone().lock_owned();
        let mut census = timeout(LOOK_WAIT, census).await.ok()?;
        let (tell, told) = oneshot::channel();
        let inner = self.0.clone();
        self.0.deps.tasks.spawn_guarded(Part::Request, async move {
            let seen = inner.look(&mut census).await;
            drop(census);
            // Ignore send errors: the caller may have gone away.
            let _told = tell.send(seen).is_ok();
        });
        timeout(LOOK_WAIT, told).await.ok()?.ok()
    }
}

impl Inner {
    async fn look(&self, census: &mut Census) -> Seen {
        let Deps {
            streams,
            dispatcher,
            source,
            ..
        } = &self.deps;
        let engine = streams.engine();
        let dispatch = Dispatch {
            source,
            target_of: &|record: &Record| dispatcher.target_of(record),
            waiting: dispatcher.waiting_causes(),
        };
        let space = engine.space().await;
        Seen {
            counted: census.count(&**engine, &dispatch).await,
            space: space.ok(),
        }
    }

    async fn report(&self, seen: Seen) -> Report {
        let Deps {
            streams,
            dispatcher,
            source,
            dir,
            clock,
            ..
        } = &self.deps;
        let Seen { counted, space } = seen;
        let ledger = streams.engine().ledger();
        let balance = Balance::of(&ledger, Some(source));
        let has_open = |stream: &StreamLedger| {
            let open = (stream.stream.clone(), stream.open);
            (stream.open > 0).then_some(open)
        };
        let mut report = Report {
            at: clock.now(),
            started_at: self.started_at,
            problems: Vec::new(),
            targets: self.targets(&counted),
            readers: self.readers(&counted).await,
            retries: self.retries(),
            open: Open {
                streams: ledger.streams.iter().filter_map(has_open).collect(),
                counted,
            },
            dir: dir.clone(),
            space,
            health: streams.engine().health().borrow().clone(),
            unreadable_partitions: dispatcher.unreadable_partitions(),
            ledger: Books::of(&balance),
        };
        report.problems = problems::find(&report, source);
        report
    }

    /// Returns every target that has a queue or had one within the last hour, has an entry in the configuration, or has open
    /// records.
    fn targets(&self, counted: &Counted) -> Vec<Target> {
        let mut targets = HashMap::new();
        let dispatcher = &self.deps.dispatcher;
        let named = |id: &TargetId| Target {
            name: dispatcher.target_name(id),
            id: id.clone(),
            breaker: BreakerState::Closed,
            since: None,
            in_flight: 0,
            pending: 0,
            in_error_streams: 0,
            oldest: None,
            last_failure: None,
        };
        for state in dispatcher.target_states() {
            let target = Target {
                breaker: state.breaker,
                since: state.since,
                in_flight: state.in_flight,
                last_failure: state.last_failure,
                ..named(&state.id)
            };
            targets.insert(state.id, target);
        }
        for group in &counted.groups {
            let Aim::Target(id) = &group.aim else {
                continue;
            };
            let target = targets.entry(id.clone()).or_insert_with(|| named(id));
            match group.is_source {
                true => target.pending += group.len,
                false => target.in_error_streams += group.len,
            }
            target.oldest = target.oldest.into_iter().chain([group.first]).min();
            if let (Some(cause), Some(reason)) = (group.cause, &group.reason)
                && target
                    .last_failure
                    .as_ref()
                    .is_none_or(|last| last.at < group.last)
            {
                target.last_failure = Some(LastFailure {
                    cause,
                    reason: reason.to_string(),
                    at: group.last,
                });
            }
        }
        let mut targets: Vec<_> = targets.into_values().collect();
        targets.sort_unstable_by(|a, b| a.rank().cmp(&b.rank()).then_with(|| a.name.cmp(&b.name)));
        targets
    }

    /// Returns the retries that run, by stream: a retry of several partitions is one.
    fn retries(&self) -> Vec<Retry> {
        let engine = self.deps.streams.engine();
        let mut retries: BTreeMap<StreamName, Retry> = BTreeMap::new();
        for running in self.deps.retrier.running() {
            // A partition that the call has not come to yet has its open records before it.
            let open = || Some(engine.status(running.of).ok()?.counts.open_len());
            let total = running.total.or_else(open).unwrap_or_default();
            let retry = retries.entry(running.stream.clone());
            let retry = retry.or_insert_with(|| Retry {
                stream: running.stream,
                since: running.since,
                by: running.by.clone(),
                done: 0,
                total: 0,
            });
            if running.since < retry.since {
                (retry.since, retry.by) = (running.since, running.by);
            }
            retry.done += running.done;
            retry.total += total;
        }
        retries.into_values().collect()
    }

    async fn readers(&self, counted: &Counted) -> Vec<Reader> {
        let engine = self.deps.streams.engine();
        let mut readers = Vec::new();
        for stream in engine.streams() {
            let is_source = stream.name == self.deps.source;
            let groups = retry::groups(&**engine, stream.id).await;
            if !is_source && groups.is_empty() {
                continue;
            }
            let statuses = stream
                .all_partitions()
                .filter_map(|of| Some((of, engine.status(of).ok()?)));
            let statuses: Vec<_> = statuses.collect();
            let reader = |kind, lag, oldest| Reader {
                kind,
                stream: Some(stream.name.clone()),
                lag: Some(lag),
                oldest,
            };
            if is_source {
                readers.extend(statuses.iter().map(|(of, status)| {
                    let oldest = counted.oldest.get(of).copied();
                    let kind = ReaderKind::Dispatch(of.partition);
                    reader(kind, status.counts.open_len(), oldest)
                }));
            }
            for group in groups {
                let lag = group.lag(&**engine, stream.all_partitions()).await;
                readers.push(reader(ReaderKind::Retry(group.name), lag, None));
            }
        }
        for data_stream in self.deps.push.readers() {
            let name = data_stream.name.to_string();
            if data_stream.clients_len > 0 {
                readers.push(Reader {
                    kind: ReaderKind::Subscribers {
                        data_stream: name.clone(),
                        len: data_stream.clients_len,
                    },
                    stream: data_stream.log.clone(),
                    lag: None,
                    oldest: None,
                });
            }
            readers.extend(data_stream.cursors.into_iter().map(|cursor| Reader {
                kind: ReaderKind::Cursor {
                    data_stream: name.clone(),
                    name: cursor.name.to_string(),
                    is_connected: cursor.is_connected,
                },
                stream: data_stream.log.clone(),
                lag: Some(cursor.records_behind),
                oldest: None,
            }));
        }
        // Stable, so that those that are lagging alike stay in order.
        readers.sort_by_key(|reader| Reverse(reader.lag));
        readers
    }
}
