//! Dispatch: calls the target of each record of the source stream, in order per key, and ends the record.
//!
//! ```text
//! log ──► owner (one per partition) ──► queue (one per target) ──► workers (a slot each) ──► target
//!                                         lanes, backoff               │
//! retry ────────────────────────────────┘                            └──► settle, or error record + settle
//! ```
//!
//! Promises:
//! - A lane is the records of one target and one key. Calls of a lane are strictly one after the other, in the order in
//!   which they were put on the queue, first dispatches and retries alike; the next begins when the one before has
//!   ended: delivered, or its error record is stored. A record in backoff holds its lane, not a slot. Records without a
//!   key have no lane.
//! - The stream may grow whatever waits in it: a record whose key has another partition from then on is put on the queue
//!   behind all those of its lane that lie in older ones (`barrier`).
//! - A failure's error record and the end of its origin are one commit. A delivered end that a crash forgets is delivered
//!   again with the same `Idempotency-Key`.
//! - Memory: a queue holds at most `queue_len_max` records of `queue_bytes_max` bytes, and `in_flight_max` in flight;
//!   all queues together `queues_bytes_max`, and beyond that one record each. When a queue is full its target is lagging:
//!   the partitions are read on for the others, and again for it as it gets room. So is a lane that has filled its share
//!   of the queue: as much as it leaves free for the other lanes.
//! - A target of whose last calls half were unavailable is not called until its pause is over and a probe is answered
//!   (`breaker`). Retries do not wait for that long: they take their records back.
//! - While the log takes nothing no call begins: its end could not be stored, and it would be made again.
//! - At most `targets_max` targets have a queue of their own; the others share one, with its slots.
//! - Settings can be replaced at any time; an attempt and the end of its record are under those of its beginning.
//! - A panic while a record is handled is the outcome `internal` of that record.
//! - Of what was purged no call begins; the outcome of one that was under way ends nothing any more.
//!
//! Who calls it: `gateway` starts it; `retry` puts its records on the same queues.

pub(crate) mod call;
pub(crate) mod outcome;
mod past;
pub(crate) mod queue;
mod scan;
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
    queue::{job::Owned, state::Moment, targets::Targets, waiting::Search},
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

/// An open record of the source stream, and what it waits for.
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
    /// Calls since the record was last taken up, which a restart does anew.
    pub attempts: u32,
    /// When it can go on at the earliest, if that is known.
    pub due: Option<Timestamp>,
}

/// What dispatch needs of others.
#[derive(Debug)]
pub struct Deps {
    /// The log.
    pub streams: Streams,
    /// Opens secrets.
    pub credentials: Arc<dyn Credentials>,
    /// For stamps in error records, and dates in `Retry-After`.
    pub clock: Clock,
    /// Counted here, registered by whoever shows it.
    pub stats: Arc<Stats>,
}

/// What owners, workers and retries share.
pub(crate) struct DispatchContext {
    pub(crate) streams: Streams,
    pub(crate) settings: Live<Settings>,
    pub(crate) tasks: Tasks,
    /// Fires when nothing new is to begin.
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
    /// What the owners show of their partitions to each other.
    progress: Progress,
}

impl Dispatcher {
    /// Starts dispatching the stream of the role `source`, now and whenever it is made again.
    ///
    /// When `stop` fires no new attempt begins, those in flight have [`Settings::grace`] to end.
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

    /// Takes other settings. What has begun goes on with those that it began with: an attempt, and the end of its
    /// record. All else has the new ones from here on: a record that waits and the pause of a target too.
    pub fn reload(&self, settings: Settings) {
        let settings = Arc::new(settings);
        // First, so that whoever is woken for its queue's sake sees them.
        self.shared.settings.set(settings.clone());
        self.shared.adjust_queues(settings);
    }

    /// Returns what open records of a stream wait for that are in the queue of their target or called just now: of those that
    /// `is_sought` names, the `len_max` that were stored first.
    #[must_use]
    pub fn waiting(
        &self,
        stream: StreamId,
        is_sought: &dyn Fn(Partition, Offset) -> bool,
        len_max: usize,
    ) -> Vec<WaitingRecord> {
        let mut search = Search::new(stream, is_sought, len_max);
        self.shared.targets.search(&mut search);
        // One look at both clocks, so that records with the same due time show the same.
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

    /// Returns what an open record waits for that is in no queue, and until when at least: the breaker of its target, or
    /// its turn to be read.
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

    /// Returns what gives the time of day of an instant that lies ahead.
    fn time_of(&self) -> impl Fn(Instant) -> Timestamp + use<> {
        let (now, instant) = (self.shared.clock.now(), Instant::now());
        move |ahead| {
            let wait = ahead.saturating_duration_since(instant);
            now.plus_micros(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX))
        }
    }

    /// Returns what the last call of each record failed with that waits to be called again: of every partition of the source
    /// stream.
    #[must_use]
    pub fn waiting_causes(&self) -> HashMap<(PartitionId, Offset), Cause> {
        self.shared.targets.waiting_causes()
    }

    /// Returns how every target stands that has a queue of its own, had one within the last hour, or has an entry in the
    /// configuration.
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

    /// Returns how a target is called in logs and metrics: by its name in the configuration, else by what it is.
    #[must_use]
    pub fn target_name(&self, target: &TargetId) -> String {
        let settings = self.shared.settings.get();
        let name = settings.target(target).name.clone();
        name.unwrap_or_else(|| target.to_string())
    }

    /// Returns how many partitions wait at a record that cannot be read.
    #[must_use]
    pub fn unreadable_partitions(&self) -> u64 {
        let count = self.shared.stats.unreadable_partitions.get();
        u64::try_from(count).unwrap_or_default()
    }

    /// Returns every target in numbers.
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
    /// Returns until when no call of a target begins since its breaker is open. An instant that is over means that a probe
    /// is under way, whose end nobody knows; `None`, that a call may begin now, be it the probe.
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

/// Starts owners as leases come, ends them as they go; at the end waits for the attempts in flight.
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

/// Sweeps the queues whenever a stream has changed, which is rare: it may have been purged.
async fn follow_purges(shared: Arc<DispatchContext>) {
    let mut changed = shared.streams.engine().streams_changed();
    let stop = shared.stop.clone();
    while let Some(Ok(())) = stop.run_until_cancelled(changed.changed()).await {
        shared.sweep_over();
    }
}

/// Never returns: a stream of the source's name may always come back.
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

/// Returns when the stream is gone. Owners end with their guards: when the gateway stops that is after all workers were
/// told, so that no worker drops a job whose owner is gone and then begins the next one of its lane, from another partition.
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
                        tracing::debug!(%of, "nobody waits for the lease any more");
                    }
                });
            }
            None => {
                for of in owners.into_keys() {
                    shared.leases().remove(&of);
                }
                // Its leases can end a moment before the stream is gone.
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
