//! Dispatch: calls the target of each record of the source stream, in order per key, and settles the record.
//!
//! ```text
//! log ──► owner (one per partition) ──► queue (one per target) ──► workers (a slot each) ──► target
//!                                         lanes, backoff               │
//! retry ────────────────────────────────┘                            └──► settle, or error record + settle
//! ```
//!
//! Promises:
//! - A lane is the records of one target and one key. The calls of a lane follow one after the other, in the order of
//!   the queue, for first dispatches and retries alike. A call begins when the record before it is delivered or its
//!   error record is stored. A record in backoff keeps its lane busy but takes no slot. Records without a key have no
//!   lane.
//! - A stream may grow while records wait in it. A record whose key moved to another partition is queued after all
//!   records of its lane in older partitions (`scan/growth_barrier`).
//! - A failure's error record and the settlement of its origin are one commit. If a crash loses the settlement of a
//!   delivered record, the record is delivered again with the same `Idempotency-Key`.
//! - Memory: a queue holds at most `queue_len_max` records of `queue_bytes_max` bytes, and `in_flight_max` in flight.
//!   All queues together hold `queues_bytes_max`, and beyond that one record each. When a queue is full, its target is
//!   lagging: the owners read on for other targets, and read again for this one when its queue has room. A lane that
//!   has filled its share of the queue is lagging too. The share is as much as the lane leaves free for other lanes.
//! - The breaker of a target opens when half of its last calls found it unavailable. It closes when its pause is over
//!   and the target answers a probe (`queue/breaker`). Retries take their records back and do not wait for an open
//!   breaker.
//! - No call begins while the log takes no settlements, because a restart would repeat the call.
//! - At most `targets_max` targets have a queue of their own; all others share one queue and its slots.
//! - Settings can be replaced at any time. An attempt and the settlement of its record use the settings of the
//!   attempt's start.
//! - A panic while a record is handled is the outcome `internal` of that record.
//! - No call begins for a purged record. The outcome of a call that was under way settles nothing.
//!
//! `gateway` starts the dispatcher; `retry` puts its records on the same queues. Files: `scan/` reads partitions,
//! `enqueue` puts jobs on queues, `queue/` holds them, `worker/` makes the attempts with `call/`, and `outcome/`
//! classifies and settles them.

pub(crate) mod backoff;
pub(crate) mod call;
mod enqueue;
pub(crate) mod job;
pub(crate) mod outcome;
pub(crate) mod pace;
pub(crate) mod queue;
mod scan;
mod secret;
mod settings;
mod stats;
mod target_id;
#[cfg(test)]
pub(crate) mod tests;
mod worker;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
};

pub use call::credentials::{Credential, CredentialError, Credentials, NewestVersions};
pub use outcome::Cause;
pub use outcome::table::KeyInvalid;
pub use queue::state::{BreakerState, LastFailure, TargetState};
pub use queue::waiting::WaitsFor;
pub use settings::{SettingInvalid, Settings};
pub use stats::{OutcomeLabel, Stats, TargetStatus};
pub use target_id::TargetId;
use tokio::time::{Instant, timeout};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use self::{
    call::connect::Connector,
    job::Owned,
    queue::{state::Moment, targets::Targets, waiting::Search},
    scan::growth_barrier::Progress,
};
use crate::{
    log::Streams,
    model::{
        ids::{Offset, Partition, PartitionId, StreamId},
        record::Record,
    },
    runtime::{
        clock::{Clock, Timestamp},
        live::Live,
        tasks::Tasks,
    },
    storage::{Epoch, Lease, LeaseEvent, Stream},
};

/// Handle to the dispatcher. Clones share everything.
#[derive(Clone)]
pub struct Dispatcher {
    pub(crate) shared: Arc<DispatchContext>,
}

/// An open record of the source stream, and the condition that it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitingRecord {
    /// Its partition.
    pub partition: Partition,
    /// Its offset.
    pub offset: Offset,
    /// What it waits for.
    pub waits_for: WaitsFor,
    /// What the last call failed with, if there was any.
    pub cause: Option<Cause>,
    /// Calls since the record was last queued. A restart begins at 0 again.
    pub attempts: u32,
    /// Earliest time of its next call, if known.
    pub due: Option<Timestamp>,
}

/// Parts that the dispatcher needs.
#[derive(Debug)]
pub struct Deps {
    /// The log.
    pub streams: Streams,
    /// Opens secrets.
    pub credentials: Arc<dyn Credentials>,
    /// For stamps in error records, and dates in `Retry-After`.
    pub clock: Clock,
    /// Counters of dispatch; telemetry registers them.
    pub stats: Arc<Stats>,
}

/// State that owners, workers and retries share.
pub(crate) struct DispatchContext {
    pub(crate) streams: Streams,
    pub(crate) settings: Live<Settings>,
    pub(crate) tasks: Tasks,
    /// Fires when no new attempt may begin.
    pub(crate) stop: CancellationToken,
    credentials: Arc<dyn Credentials>,
    pub(crate) clock: Clock,
    stats: Arc<Stats>,
    connector: Connector,
    targets: Targets,
    /// Fires when the grace time is over.
    cut: CancellationToken,
    workers: TaskTracker,
    leases: Mutex<HashMap<PartitionId, Epoch>>,
    /// Progress of each partition, for the growth barriers of the others.
    progress: Progress,
}

impl Dispatcher {
    /// Starts dispatching the stream of the role `source`, also after the stream was deleted and created again.
    ///
    /// When `stop` fires, no new attempt begins, and attempts in flight have [`Settings::grace`] to end.
    #[must_use]
    pub fn start(settings: Settings, deps: Deps, tasks: &Tasks, stop: CancellationToken) -> Self {
        let connector = Connector::new(tasks.clone(), deps.stats.clone());
        Self::start_with(settings, deps, tasks, stop, connector)
    }

    /// Starts with targets in a network that a test makes up.
    #[cfg(test)]
    pub(crate) fn start_on(
        network: call::connect::Network,
        settings: Settings,
        deps: Deps,
        tasks: &Tasks,
        stop: CancellationToken,
    ) -> Self {
        let mut connector = Connector::new(tasks.clone(), deps.stats.clone());
        connector.network = Some(network);
        Self::start_with(settings, deps, tasks, stop, connector)
    }

    /// Starts with a resolver that a test makes up.
    #[cfg(test)]
    pub(crate) fn start_finding(
        find: impl Fn(&str) -> std::io::Result<Vec<std::net::IpAddr>> + Send + Sync + 'static,
        settings: Settings,
        deps: Deps,
        tasks: &Tasks,
        stop: CancellationToken,
    ) -> Self {
        let connector = Connector::finding(find, tasks.clone(), deps.stats.clone());
        Self::start_with(settings, deps, tasks, stop, connector)
    }

    fn start_with(
        settings: Settings,
        deps: Deps,
        tasks: &Tasks,
        stop: CancellationToken,
        connector: Connector,
    ) -> Self {
        let settings = Arc::new(settings);
        let shared = Arc::new(DispatchContext {
            targets: Targets::new(settings.clone()),
            streams: deps.streams,
            settings: Live::from(settings),
            tasks: tasks.clone(),
            stop,
            credentials: deps.credentials,
            clock: deps.clock,
            stats: deps.stats,
            connector,
            cut: CancellationToken::new(),
            workers: TaskTracker::new(),
            leases: Mutex::default(),
            progress: Progress::default(),
        });
        tasks.spawn("dispatcher", supervise(shared.clone()));
        tasks.spawn("purged records", follow_purges(shared.clone()));
        Self { shared }
    }

    /// Replaces the settings. An attempt under way and the settlement of its record keep the old ones. Everything else
    /// uses the new ones from now on, also waiting records and the pauses of breakers.
    pub fn reload(&self, settings: Settings) {
        let settings = Arc::new(settings);
        // Set before the queues are adjusted, so that a worker woken by its queue sees the new settings.
        self.shared.settings.set(settings.clone());
        self.shared.adjust_queues(settings);
    }

    /// Returns what the open records of a stream wait for that are queued or in flight. Of the records that `is_sought`
    /// accepts, the result has the `len_max` that were stored first.
    #[must_use]
    pub fn waiting(
        &self,
        stream: StreamId,
        is_sought: &dyn Fn(Partition, Offset) -> bool,
        len_max: usize,
    ) -> Vec<WaitingRecord> {
        let mut search = Search::new(stream, is_sought, len_max);
        self.shared.targets.search(&mut search);
        // Both clocks are read once, so that records with the same due time show the same time.
        let time_of = self.time_of();
        let record = |(partition, offset, found): (_, _, queue::waiting::Found)| WaitingRecord {
            partition,
            offset,
            waits_for: found.waits_for,
            cause: found.calls.cause,
            attempts: found.calls.attempts,
            due: found.due.map(&time_of),
        };
        search.found().map(record).collect()
    }

    /// Returns what an open record waits for that is in no queue, and until when at least. It waits for the breaker of
    /// its target, or for its turn to be read.
    #[must_use]
    pub fn unqueued(&self, record: &Record) -> (WaitsFor, Option<Timestamp>) {
        let target = self.shared.target_of(record);
        match target.and_then(|target| self.shared.open_until(&target)) {
            Some(until) => {
                let is_ahead = until > Instant::now();
                let until = is_ahead.then(|| self.time_of()(until));
                (WaitsFor::TargetOpen, until)
            }
            None => (WaitsFor::Turn, None),
        }
    }

    /// Returns a function from a future instant to its time of day.
    fn time_of(&self) -> impl Fn(Instant) -> Timestamp + use<> {
        let (now, instant) = (self.shared.clock.now(), Instant::now());
        move |ahead| {
            let wait = ahead.saturating_duration_since(instant);
            now.plus_micros(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX))
        }
    }

    /// Returns the cause of the last failure of each record that waits for its next call, over all partitions of the
    /// source stream.
    #[must_use]
    pub fn waiting_causes(&self) -> HashMap<(PartitionId, Offset), Cause> {
        self.shared.targets.waiting_causes()
    }

    /// Returns the state of every target that has a queue of its own, had one within the last hour, or has a
    /// configuration entry.
    #[must_use]
    pub fn target_states(&self) -> Vec<TargetState> {
        let now = Moment {
            time: self.shared.clock.now(),
            instant: Instant::now(),
        };
        self.shared.targets.states(now)
    }

    /// Returns the target of a record; `None` if it names none that can be called.
    #[must_use]
    pub fn target_of(&self, record: &Record) -> Option<TargetId> {
        self.shared.target_of(record)
    }

    /// Returns a target's name in logs and metrics: its name in the configuration, else the target itself.
    #[must_use]
    pub fn target_name(&self, target: &TargetId) -> String {
        let settings = self.shared.settings.get();
        let name = settings.target(target).name.clone();
        name.unwrap_or_else(|| target.to_string())
    }

    /// Returns how many partitions are stopped at an unreadable record.
    #[must_use]
    pub fn unreadable_partitions(&self) -> u64 {
        let count = self.shared.stats.unreadable_partitions.get();
        u64::try_from(count).unwrap_or_default()
    }

    /// Returns the numbers of every queue.
    #[must_use]
    pub fn targets(&self) -> Vec<TargetStatus> {
        self.shared.targets.status()
    }
}

impl fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatcher").finish_non_exhaustive()
    }
}

impl DispatchContext {
    /// Returns until when an open breaker keeps calls of a target back. A past instant means that a probe is under way.
    /// `None` means that a call may begin now, possibly the probe.
    pub(crate) fn open_until(&self, target: &TargetId) -> Option<Instant> {
        self.targets.open_until(target)
    }

    /// Returns the target of a record; `None` if it names none that can be called.
    pub(crate) fn target_of(&self, record: &Record) -> Option<TargetId> {
        self.targets.of(record)
    }

    /// Returns the epoch of the lease that we hold on a partition of the source stream.
    pub(crate) fn epoch(&self, of: PartitionId) -> Option<Epoch> {
        self.leases().get(&of).copied()
    }

    fn leases(&self) -> std::sync::MutexGuard<'_, HashMap<PartitionId, Epoch>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts an owner for each granted lease and stops it when the lease is lost. At the end it waits for attempts in
/// flight.
async fn supervise(shared: Arc<DispatchContext>) {
    let stop = shared.stop.clone();
    stop.run_until_cancelled(follow_source(&shared)).await;
    shared.workers.close();
    let grace = shared.settings.get().grace;
    if timeout(grace, shared.workers.wait()).await.is_err() {
        let cut_len = shared.workers.len();
        tracing::warn!(
            cut_len,
            "attempts were cut; their records are dispatched again"
        );
    }
    shared.cut.cancel();
}

/// Sweeps the queues whenever a stream has changed, because it may have been purged. Changes are rare.
async fn follow_purges(shared: Arc<DispatchContext>) {
    let mut changed = shared.streams.engine().streams_changed();
    let stop = shared.stop.clone();
    while let Some(Ok(())) = stop.run_until_cancelled(changed.changed()).await {
        shared.sweep_over();
    }
}

/// Never returns, because a deleted source stream may be created again.
async fn follow_source(shared: &Arc<DispatchContext>) {
    let mut changed = shared.streams.engine().streams_changed();
    loop {
        changed.mark_unchanged();
        scan::checkpoint::tidy(&shared.streams).await;
        let source = shared.settings.get().roles.source.clone();
        if let Some(stream) = shared.streams.by_name(&source) {
            follow_leases(shared, &stream).await;
        } else if changed.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Returns when the stream is deleted. Each owner stops when its guard is dropped. At a stop of the gateway that must
/// be after the workers were told to stop. Otherwise a worker could drop a job whose owner is gone and begin the next
/// job of its lane, from another partition.
async fn follow_leases(shared: &Arc<DispatchContext>, stream: &Arc<Stream>) {
    let mut leases = shared.streams.engine().leases(stream.id);
    let mut changed = shared.streams.engine().streams_changed();
    let mut owners = HashMap::new();
    loop {
        let is_there = || shared.streams.engine().stream_by_id(stream.id).is_some();
        let event = tokio::select! {
            event = leases.recv() => event,
            told = changed.changed() => {
                if told.is_ok() && is_there() {
                    continue;
                }
                None
            }
        };
        match event {
            Some(LeaseEvent::Granted(lease)) => {
                shared.leases().insert(lease.of, lease.epoch);
                let before = owners.remove(&lease.of);
                drop(before);
                owners.insert(lease.of, start_owner(shared, stream, lease));
            }
            Some(LeaseEvent::Lost(of)) => {
                shared.leases().remove(&of);
                drop(owners.remove(&of));
            }
            Some(LeaseEvent::Revoking(of, done)) => {
                shared.leases().remove(&of);
                let jobs = owners.remove(&of).map(|(_owner, jobs)| jobs);
                shared.tasks.spawn("revoked lease", async move {
                    if let Some(jobs) = jobs {
                        jobs.close();
                        jobs.wait().await;
                    }
                    if done.send(()).is_err() {
                        tracing::debug!(%of, "the engine dropped its wait for the revoked lease");
                    }
                });
            }
            None => {
                for of in owners.into_keys() {
                    shared.leases().remove(&of);
                }
                // The leases can end a moment before the stream is deleted.
                while is_there() && changed.changed().await.is_ok() {}
                return;
            }
        }
    }
}

fn start_owner(
    shared: &Arc<DispatchContext>,
    stream: &Arc<Stream>,
    lease: Lease,
) -> (DropGuard, TaskTracker) {
    let stop = CancellationToken::new();
    let jobs = TaskTracker::new();
    let owned = Owned {
        stream: stream.clone(),
        lease,
        stop: stop.clone(),
        is_over: AtomicBool::new(false),
        lost_end: AtomicBool::new(false),
        _alive: jobs.token(),
    };
    let owner = scan::owner::own(shared.clone(), Arc::new(owned));
    shared.tasks.spawn("owner", owner);
    (stop.drop_guard(), jobs)
}
