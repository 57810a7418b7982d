//! The status report: problems with the command that helps, targets, open records, disk, ledger, readers.
//!
//! A report serves all requests of half a second ([`KEPT`]). One task at a time reads the disk, and a report waits for it for
//! at most [`LOOK_WAIT`]. So a report is available even if the disk hangs; it then has the last count of open records.
//!
//! `api` calls it for `GET /v1/status`. `census.rs` counts open records, `problems.rs` finds problems and their commands.

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
/// How long a report waits for reads of the disk.
const LOOK_WAIT: Duration = Duration::from_secs(5);

/// The parts that a report asks.
#[derive(Debug)]
pub struct Deps {
    /// The log.
    pub streams: Streams,
    /// For the states of targets.
    pub dispatcher: Dispatcher,
    /// For the readers of data streams.
    pub push: Push,
    /// For the running retries.
    pub retrier: Retrier,
    /// The source stream. Open records of other streams wait for a retry.
    pub source: StreamName,
    /// The data directory, as commands name it.
    pub dir: PathBuf,
    /// For ages.
    pub clock: Clock,
    /// Starts the reading task.
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

/// Facts that are read from the disk.
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

    /// Returns a report that is at most half a second old.
    ///
    /// # Cancel safety
    /// Nothing is lost when the call is dropped.
    pub async fn report(&self) -> Arc<Report> {
        // A concurrent caller waits here for the report that is being made.
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

    /// Reads the facts on the disk; `None` if that takes too long.
    async fn look(&self) -> Option<Seen> {
        // An earlier read may still hold the census: its caller has gone away, or the disk hangs.
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

    /// Returns every target that had a queue within the last hour, is in the configuration, or has open records.
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

    /// Returns the running retries, one for each stream.
    fn retries(&self) -> Vec<Retry> {
        let engine = self.deps.streams.engine();
        let mut retries: BTreeMap<StreamName, Retry> = BTreeMap::new();
        for running in self.deps.retrier.running() {
            // For a partition that the retry has not reached, count its open records.
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
        // A stable sort keeps the order of readers with equal lag.
        readers.sort_by_key(|reader| Reverse(reader.lag));
        readers
    }
}
