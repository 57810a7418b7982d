//! A worker is one slot of a target, with a connection of its own. It takes a job, makes the attempt, settles the
//! record and takes the next job.

mod again;
mod attempt;
mod current;

use std::{
    future::poll_fn, panic::AssertUnwindSafe, pin::pin, sync::Arc, task::Poll, time::Duration,
};

use futures_util::FutureExt;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use self::{
    again::{again, has_called},
    current::Current,
};
use super::{
    DispatchContext,
    call::{
        connection::{Connection, Timer},
        renew::renew,
        sockets::Socket,
    },
    job::{Begin, Job, Wait},
    outcome::{Cause, Failure, Outcome, settle::settle},
    queue::{
        breaker::Change,
        state::LastFailure,
        target_queue::{Done, Next, Retirement, Taken, TargetQueue},
    },
    settings::Settings,
    stats::{self, TargetStats},
    target_id::TargetId,
};
use crate::{
    model::target::Origin,
    runtime::random,
    storage::{Health, Stream},
};

/// Wait of a record whose call could not begin for want of a descriptor or a look-up.
const NOT_BEGUN_WAIT: Duration = Duration::from_millis(200);

/// Wait of a record whose settlement the log did not take, before it is offered again.
const UNSTORED_WAIT: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 5_000 });

impl DispatchContext {
    /// Starts a worker of a queue for a free slot.
    pub(super) fn start_worker(self: &Arc<Self>, queue: &Arc<TargetQueue>, slot: usize) {
        let worker = Worker::new(self.clone(), queue.clone(), slot);
        // A child token, because each poll of a wait takes the lock of its token.
        let cut = self.cut.child_token();
        // Boxed, because each enclosing future would copy it, and it is large.
        let work = Box::pin(worker.work());
        let work = self.workers.track_future(async move {
            // A record whose attempt the grace time cuts is dispatched again at the next start.
            cut.run_until_cancelled(work).await;
        });
        self.tasks.spawn("worker", work);
    }
}

struct Worker {
    shared: Arc<DispatchContext>,
    queue: Arc<TargetQueue>,
    /// Counters of the queue's target, under its name at the start of the worker.
    stats: TargetStats,
    slot: usize,
    wake: Arc<Notify>,
    connection: Option<(Origin, Connection)>,
    /// The descriptor of the connection; held whenever there is a connection.
    socket: Option<Socket>,
    timer: Timer,
    /// A child token, because asking a token takes its lock.
    stop: CancellationToken,
    health: watch::Receiver<Health>,
    /// The log took settlements when `health` was last read.
    log_runs: bool,
    /// Counts up when a stream has changed, also by a purge.
    streams_changed: watch::Receiver<u64>,
    /// The stream of the last first dispatch, as read after its last change.
    source: Option<Arc<Stream>>,
}

impl Worker {
    fn new(shared: Arc<DispatchContext>, queue: Arc<TargetQueue>, slot: usize) -> Self {
        Self {
            stop: shared.stop.child_token(),
            health: shared.streams.engine().health(),
            log_runs: false,
            streams_changed: shared.streams.engine().streams_changed(),
            source: None,
            wake: queue.waker(slot),
            timer: Timer::new(Instant::now() + shared.settings.get().idle_timeout),
            stats: shared.stats.of_target(queue.name()),
            shared,
            queue,
            slot,
            connection: None,
            socket: None,
        }
    }

    async fn work(mut self) {
        let mut done = None;
        // Not a field of the worker, so that `handle` can borrow both.
        let mut current = Current::new(&self.shared, &self.queue);
        while !self.stop.is_cancelled() {
            let (next, wake) = self.queue.next(self.slot, done.take());
            self.shared.wake(&self.queue, wake);
            match next {
                Next::Job(job) => {
                    if !self.log_takes_ends().await {
                        return;
                    }
                    self.renew(&mut current);
                    if !self.takes_socket(&job).await {
                        return;
                    }
                    done = Some(self.handle(job, &current).await);
                }
                Next::Sleep {
                    until,
                    keep_connection,
                } => {
                    self.renew(&mut current);
                    if !keep_connection || self.shared.connector.sockets.are_scarce() {
                        self.connection = None;
                    }
                    if self.connection.is_none() {
                        self.socket = None;
                    }
                    if self.sleep(until, current.all.get().idle_timeout).await {
                        self.connection = None;
                        match self.queue.retire(self.slot, Instant::now()) {
                            Retirement::Needed => {}
                            Retirement::Rests => self.shared.targets.rest(&self.queue),
                            Retirement::Over => {
                                self.shared.targets.tidy(&self.queue);
                                return;
                            }
                        }
                    }
                }
                Next::End => return,
            }
        }
    }

    /// Takes new settings, and drops the connection then, because they may forbid it.
    fn renew(&mut self, current: &mut Current) {
        if current.renew(&self.queue) {
            self.connection = None;
        }
    }

    /// Waits while the log takes no settlements, because a restart would repeat a call without one. Returns `false` if
    /// the gateway stops meanwhile.
    async fn log_takes_ends(&mut self) -> bool {
        if self.log_runs && !self.health.has_changed().unwrap_or(false) {
            return true;
        }
        let takes_ends = |health: &Health| matches!(health, Health::Running | Health::SpaceLow);
        let runs = self.health.wait_for(takes_ends);
        self.log_runs = self.stop.run_until_cancelled(runs).await.is_some();
        self.log_runs
    }

    /// Waits for a descriptor if the job needs a new connection; `false` if the gateway stops meanwhile. The time of
    /// the attempt begins after this wait.
    async fn takes_socket(&mut self, job: &Job) -> bool {
        let origin = job.origin.as_ref().filter(|_| job.unstored.is_none());
        let Some(origin) = origin.map(TargetId::origin) else {
            return true;
        };
        let is_open = self.connection.as_ref();
        if is_open.is_some_and(|(open, _)| open == origin) {
            return true;
        }
        self.connection = None;
        // Given back first, so that targets with fewer connections come before this one.
        self.socket = None;
        let taken = self.shared.connector.sockets.take(origin);
        self.socket = self.stop.run_until_cancelled(taken).await;
        self.socket.is_some()
    }

    /// Sleeps until woken, until `until`, or until the idle time is over, which returns `true`.
    async fn sleep(&mut self, until: Option<Instant>, idle_timeout: Duration) -> bool {
        let Self {
            stop,
            wake,
            connection,
            socket,
            timer,
            ..
        } = self;
        let idle_by = Instant::now() + idle_timeout;
        let wake_by = until.map_or(idle_by, |until| until.min(idle_by));
        let mut woken = pin!(wake.notified());
        let mut stop = pin!(stop.cancelled());
        poll_fn(|cx| {
            if woken.as_mut().poll(cx).is_ready() || stop.as_mut().poll(cx).is_ready() {
                return Poll::Ready(false);
            }
            if connection
                .as_mut()
                .is_some_and(|(_, open)| !open.poll_open(cx))
            {
                *connection = None;
                *socket = None;
            }
            timer.poll(cx, wake_by).map(|()| wake_by == idle_by)
        })
        .await
    }

    async fn handle(&mut self, mut job: Box<Job>, current: &Current) -> Done {
        let taken = self.queue.taken(&job);
        if self.is_purged(&job) {
            self.calls_nothing();
            return Done::Ended(taken);
        }
        let began = Instant::now();
        match job.begin(began) {
            Begin::Now => {}
            Begin::Later(until) => {
                self.calls_nothing();
                let wait = Wait::Paced;
                return Done::Later { job, until, wait };
            }
            Begin::Never => {
                self.calls_nothing();
                return Done::Ended(taken);
            }
        }
        let (all, settings) = (current.all.get(), current.of(&self.queue, &job));
        if let Some(outcome) = job.unstored.take() {
            return self.end(all, job, *outcome, taken).await;
        }
        let now = self.shared.clock.now();
        let attempted = {
            // Pinned here, because each move of this large future copies the state of a whole call.
            let attempt = pin!(async {
                let unbound = match job.is_first() {
                    true => None,
                    // Boxed, as it is large and rare.
                    false => Box::pin(renew(&*self.shared.credentials, &mut job)).await,
                };
                let outcome = self.attempt(&job, all, settings).await;
                match unbound {
                    Some(unbound) => unbound.tell(outcome),
                    None => outcome,
                }
            });
            AssertUnwindSafe(attempt).catch_unwind().await
        };
        let outcome = attempted.unwrap_or_else(|_panic| {
            // The connection may be in the middle of an exchange.
            self.connection = None;
            Outcome::Failed(Failure::new(
                Cause::Internal,
                "handling the record panicked",
            ))
        });
        if let Outcome::Failed(failure) = &outcome
            && failure.not_begun
        {
            self.calls_nothing();
            job.put_back();
            // The wait holds no slot, and a retry can take its record back meanwhile.
            let until = Instant::now() + NOT_BEGUN_WAIT;
            let wait = Wait::Backoff;
            return Done::Later { job, until, wait };
        }
        job.tried.first_at.get_or_insert(now);
        job.tried.last_at = Some(now);
        job.tried.began.get_or_insert(began);
        let has_called = has_called(&outcome);
        job.tried.attempts += u32::from(has_called);
        if !has_called {
            self.calls_nothing();
        }
        // Before the settlement is stored, because other calls of the target may begin meanwhile.
        self.judge(all, &job, &outcome);
        self.shared
            .stats
            .count(&self.stats, &outcome, began.elapsed());
        self.log(&job, &outcome);
        if let Outcome::Failed(failure) = &outcome {
            self.queue.note_failure(LastFailure {
                cause: failure.cause,
                reason: failure.reason.to_string(),
                at: now,
            });
        }
        if let Outcome::Failed(failure) = &outcome
            && let Some((until, wait)) = again(&mut job, failure, all, settings)
        {
            if self.is_purged(&job) || job.is_abandoned() {
                // The sweep ran while the call was in flight, so no later one will drop this job.
                return Done::Ended(taken);
            }
            job.tried.cause = Some(failure.cause);
            return Done::Later { job, until, wait };
        }
        self.end(all, job, outcome, taken).await
    }

    /// Gives the job's slot of the target's rate back.
    fn calls_nothing(&self) {
        let wake = self.queue.give_rate_back(self.slot);
        self.shared.wake(&self.queue, wake);
    }

    /// Settles a record. If the log does not take the settlement, the job waits and only its settlement is offered
    /// again.
    async fn end(&self, all: &Settings, job: Box<Job>, outcome: Outcome, taken: Taken) -> Done {
        match settle(&self.shared, all, job, outcome).await {
            None => Done::Ended(taken),
            Some(job) => Done::Later {
                job,
                until: Instant::now() + UNSTORED_WAIT,
                wait: Wait::Backoff,
            },
        }
    }

    /// Returns whether the record is purged. No call begins for it once the purge was answered.
    fn is_purged(&mut self, job: &Job) -> bool {
        if !job.is_first() {
            return false;
        }
        if self.streams_changed.has_changed().unwrap_or(false) {
            // Marked before the stream is read, so that the next check sees a later change.
            self.streams_changed.mark_unchanged();
            self.source = None;
        }
        let known = self.source.take();
        let known = known.filter(|known| known.id == job.of.stream);
        let engine = self.shared.streams.engine();
        self.source = known.or_else(|| engine.stream_by_id(job.of.stream));
        let stream = self.source.as_ref();
        stream.is_some_and(|stream| job.offset < stream.purged_below(job.of.partition))
    }

    /// Tells the target's breaker the verdict of an attempt.
    ///
    /// If the target asks a retry to come later, the breaker opens at once, because it would refuse the next records of
    /// the pass too.
    fn judge(&self, all: &Settings, job: &Job, outcome: &Outcome) {
        let asks_for_later =
            matches!(outcome, Outcome::Failed(failure) if failure.asks_for_later());
        let at_once = asks_for_later && !job.is_first() && all.deferred_max.is_some();
        let pause = |openings| {
            let random = random::u64().unwrap_or(u64::MAX);
            all.backoff.pause(openings, random)
        };
        let verdict = outcome.verdict();
        let (change, wake) = self.queue.judge(self.slot, verdict, at_once, pause);
        self.shared.wake(&self.queue, wake);
        match change {
            Some(Change::Opened { until, again }) => {
                let wait = until.saturating_duration_since(Instant::now());
                tracing::warn!(
                    target = self.queue.name(),
                    outcome = stats::word(outcome),
                    status = outcome.status(),
                    wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                    again,
                    "breaker opened: the target is not called for now"
                );
            }
            Some(Change::Closed) => {
                tracing::info!(
                    target = self.queue.name(),
                    "breaker closed: the target answers"
                );
            }
            None => {}
        }
    }

    fn log(&self, job: &Job, outcome: &Outcome) {
        let word = stats::word(outcome);
        let status = outcome.status();
        let attempt = job.tried.attempts;
        match outcome {
            Outcome::Delivered { .. } => tracing::debug!(
                message_id = %job.message_id(),
                stream = %job.stream().name,
                partition = job.of.partition.0,
                offset = job.offset.0,
                target = self.queue.name(),
                outcome = word,
                status,
                attempt,
                "record delivered"
            ),
            Outcome::Failed(failure) => tracing::info!(
                message_id = %job.message_id(),
                stream = %job.stream().name,
                partition = job.of.partition.0,
                offset = job.offset.0,
                target = self.queue.name(),
                outcome = word,
                status,
                attempt,
                reason = %failure.reason,
                "attempt failed"
            ),
        }
    }
}
