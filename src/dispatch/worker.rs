//! A worker: one slot of a target, with a connection of its own. Takes a job, makes the attempt, settles it, takes the next.

use std::{
    collections::{HashMap, VecDeque},
    future::poll_fn,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderValue, Request};
use http_body_util::Full;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    DispatchContext,
    call::{
        connection::{Answer, Connection, Deadlines, Exchange, Timer},
        credentials::CredentialError,
        redact::redact,
        renew::renew,
        request::{Call, Invalid, SecretRef, absolute, credentials},
        sockets::Socket,
    },
    outcome::{Cause, Failure, Outcome, retry_after, settle::settle},
    queue::{
        breaker::Change,
        job::{Begin, Job},
        state::LastFailure,
        target_queue::{Done, LeaveOut, Next, Retirement, Taken, TargetQueue, Wait, Wake},
    },
    settings::{Settings, TargetSettings},
    stats::{self, TargetStats},
    target_id::TargetId,
};
use crate::{
    model::{
        record::{Record, header as record_header},
        target::Origin,
    },
    runtime::{live::Followed, random},
    storage::{Health, Stream},
};

/// How long a record waits whose call could not begin, because something of ours was not free.
const NOT_BEGUN_WAIT: Duration = Duration::from_millis(200);

impl DispatchContext {
    /// Puts a job on its target's queue; waits as long as that is full.
    ///
    /// # Cancel safety
    /// A job whose call is dropped was not taken.
    pub(crate) async fn enqueue(self: &Arc<Self>, job: Box<Job>) {
        let mut jobs = VecDeque::from([job]);
        loop {
            // Before asking, so that room made in between is not missed.
            let mut freed = pin!(self.targets.budget.freed.notified());
            freed.as_mut().enable();
            self.try_enqueue(&mut jobs, None);
            if jobs.is_empty() {
                return;
            }
            freed.await;
        }
    }

    /// Puts jobs of one target on its queue as far as that has room; once a queue has refused one, `Budget::freed` fires
    /// when it has room again. Lanes are bounded by their share if `leave_out` is there to be told of it.
    pub(crate) fn try_enqueue(
        self: &Arc<Self>,
        jobs: &mut VecDeque<Box<Job>>,
        leave_out: Option<LeaveOut<'_>>,
    ) {
        if let Some((queue, wake)) = self.targets.push(jobs, leave_out) {
            self.wake(&queue, wake);
        }
    }

    /// Lets go of what retries have taken back of a target, so that it waits neither for the target's breaker nor for its
    /// rate.
    pub(crate) fn sweep(self: &Arc<Self>, target: &TargetId) {
        let (queue, wake) = self.targets.sweep(target);
        self.wake(&queue, wake);
    }

    /// Lets go of what waits on any queue and is over: a purge has ended the record, or its owner is gone. It would hold its
    /// lane up until it is due.
    pub(super) fn sweep_over(self: &Arc<Self>) {
        // Then each owner ends: the next record of a lane must not begin because of that.
        if self.stop.is_cancelled() {
            return;
        }
        let streams = self.streams.engine().streams();
        let streams: HashMap<_, _> = streams.iter().map(|stream| (stream.id, stream)).collect();
        let is_purged = |job: &Job| {
            let stream = streams.get(&job.of.stream);
            stream.is_some_and(|stream| job.offset < stream.purged_below(job.of.partition))
        };
        let is_over = |job: &Job| job.is_abandoned() || job.is_first() && is_purged(job);
        for (queue, wake) in self.targets.sweep_all(is_over) {
            self.wake(&queue, wake);
        }
    }

    /// Brings as many workers to a queue as it has use for; `first` is one that it has named already.
    fn wake(self: &Arc<Self>, queue: &Arc<TargetQueue>, first: Option<Wake>) {
        let mut next = first;
        while let Some(wake) = next {
            match wake {
                Wake::Sleeping(worker) => worker.notify_one(),
                Wake::New(slot) => self.start_worker(queue, slot),
            }
            next = queue.wake();
        }
    }

    /// Gives all queues other settings.
    pub(crate) fn adjust_queues(self: &Arc<Self>, settings: Arc<Settings>) {
        for queue in self.targets.adjust(settings) {
            let wake = queue.wake();
            self.wake(&queue, wake);
        }
    }

    fn start_worker(self: &Arc<Self>, queue: &Arc<TargetQueue>, slot: usize) {
        let worker = Worker::new(self.clone(), queue.clone(), slot);
        // A token of its own: each poll of a wait takes the token's lock.
        let cut = self.cut.child_token();
        // Boxed, as each future around it would hold it twice: it is read at every step of a call.
        let work = Box::pin(worker.work());
        let work = self.workers.track_future(async move {
            // What the grace time cuts is dispatched again at the next start.
            cut.run_until_cancelled(work).await;
        });
        self.tasks.spawn("worker", work);
    }
}

/// How long a record waits whose end the log did not take, before that is offered again.
const UNSTORED_WAIT: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 5_000 });

struct Worker {
    shared: Arc<DispatchContext>,
    queue: Arc<TargetQueue>,
    /// Those of the queue's target, by the name that it had when the worker began.
    stats: TargetStats,
    slot: usize,
    wake: Arc<Notify>,
    connection: Option<(Origin, Connection)>,
    /// What the connection lives on; there is one whenever there is a connection.
    socket: Option<Socket>,
    timer: Timer,
    /// Of its own: to ask a token is to take its lock.
    stop: CancellationToken,
    health: watch::Receiver<Health>,
    /// The log took ends when `health` was last looked at.
    log_runs: bool,
    /// Counts up when a stream has changed, by a purge too.
    streams_changed: watch::Receiver<u64>,
    /// The stream of the last first dispatch, as it was after the last change.
    source: Option<Arc<Stream>>,
}

/// What a worker goes by from one job to the next.
struct Current {
    all: Followed<Settings>,
    /// Those of the queue's target.
    own: Arc<TargetSettings>,
}

impl Current {
    fn new(shared: &DispatchContext, queue: &TargetQueue) -> Self {
        let all = shared.settings.follow();
        let own = own(all.get(), queue).clone();
        Self { all, own }
    }

    /// Takes settings that are new; returns whether they are.
    fn renew(&mut self, queue: &TargetQueue) -> bool {
        let renewed = self.all.renew();
        if renewed {
            self.own = own(self.all.get(), queue).clone();
        }
        renewed
    }

    /// The shared queue's settings are those of no target in particular.
    fn of(&self, queue: &TargetQueue, job: &Job) -> &TargetSettings {
        match (&queue.origin, &job.origin) {
            (None, Some(target)) => self.all.get().target(target),
            _ => &self.own,
        }
    }
}

fn own<'a>(settings: &'a Settings, queue: &TargetQueue) -> &'a Arc<TargetSettings> {
    let own = queue.origin.as_ref().map(|origin| settings.target(origin));
    own.unwrap_or(&settings.other_targets)
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
        // Beside the worker, so that a job can use both.
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

    /// Looks for new settings. A connection that may not have come about under them is not used under them.
    fn renew(&mut self, current: &mut Current) {
        if current.renew(&self.queue) {
            self.connection = None;
        }
    }

    /// Waits while the log takes no ends, so that nothing is called whose end would be lost by a restart; `false` if the
    /// gateway stops meanwhile.
    async fn log_takes_ends(&mut self) -> bool {
        if self.log_runs && !self.health.has_changed().unwrap_or(false) {
            return true;
        }
        let takes_ends = |health: &Health| matches!(health, Health::Running | Health::SpaceLow);
        let runs = self.health.wait_for(takes_ends);
        self.log_runs = self.stop.run_until_cancelled(runs).await.is_some();
        self.log_runs
    }

    /// Waits for a descriptor if the job needs a connection that is not open; `false` if the gateway stops meanwhile. The
    /// attempt begins behind this.
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
        // Given back first, so that others with fewer connections come before this one.
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
            // Pinned here, because each move of it copies all that a call may need at any of its steps.
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
            // The connection may be in the middle of something.
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
            // No slot is held meanwhile, and a retry that is over by then takes its record back.
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
        // At once, before the record's end is stored: others are about to begin.
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
                // It is so since the call began: nobody comes to sweep it up any more.
                return Done::Ended(taken);
            }
            job.tried.cause = Some(failure.cause);
            return Done::Later { job, until, wait };
        }
        self.end(all, job, outcome, taken).await
    }

    /// Leaves the job's slot of the target's rate to another.
    fn calls_nothing(&self) {
        let wake = self.queue.give_rate_back(self.slot);
        self.shared.wake(&self.queue, wake);
    }

    /// Ends a job; one whose end the log does not take comes back, and nothing is called for it again.
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

    /// Returns whether a purge has ended the record. No call begins for one once the purge was answered.
    fn is_purged(&mut self, job: &Job) -> bool {
        if !job.is_first() {
            return false;
        }
        if self.streams_changed.has_changed().unwrap_or(false) {
            // Before the look, so that a change behind it is seen by the next one.
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

    /// Tells the target's breaker what an attempt has shown.
    ///
    /// A retry's call that the target wants later opens it at once: what comes behind it in that pass would be refused too.
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

    async fn attempt(&mut self, job: &Job, all: &Settings, settings: &TargetSettings) -> Outcome {
        let id = job.message_id();
        let secret_header = &settings.secret_header;
        let new_call = || Call::new(&job.record, id, secret_header, settings.body_always);
        let call = match new_call() {
            Ok(call) => call,
            Err(invalid) => return Outcome::Failed(Failure::new(Cause::Invalid, invalid.0)),
        };
        let Call {
            secret,
            origin,
            request,
            names,
        } = call;
        let secret = match &secret {
            Some(secret) => match self.reveal(secret, &origin).await {
                Ok(value) => Some(value),
                Err(failure) => return Outcome::Failed(failure),
            },
            None => None,
        };
        let mut made = Some((request, names));
        // A second one is rare, so the record is read again for it, and no request is copied in case.
        let request = || {
            let (mut request, names) = match made.take() {
                Some(made) => made,
                None => new_call().map(|call| (call.request, call.names))?,
            };
            if let Some(value) = &secret {
                let headers = request.headers_mut();
                headers.insert(secret_header.name.clone(), value.clone());
            }
            Ok((request, names))
        };
        let to = (&origin, &job.record);
        match self.exchange(to, request, all, settings).await {
            Ok(answer) if all.outcomes.delivers(answer.status) => Outcome::Delivered {
                status: answer.status,
            },
            Ok(answer) => {
                let asked = answer.retry_after.as_ref();
                let now = self.shared.clock.now();
                let date = answer.date.as_ref().map(HeaderValue::as_bytes);
                let asked = asked.and_then(|value| retry_after(value.as_bytes(), date, now));
                let asked = asked.map(|asked| asked.min(all.retry_after_max));
                let failure = Failure::answered(answer.status, answer.body, asked);
                let own = credentials(&job.record, &all.masked_headers);
                let sent = own.iter().map(|value| &value[..]);
                let sent = sent.chain(secret.as_ref().map(HeaderValue::as_bytes));
                Outcome::Failed(redact(failure, sent))
            }
            Err(failure) => Outcome::Failed(failure),
        }
    }

    async fn reveal(&self, secret: &SecretRef, target: &Origin) -> Result<HeaderValue, Failure> {
        let SecretRef {
            source,
            name,
            version,
        } = secret;
        let failure = |reason| Failure::new(Cause::Secret, reason);
        let revealed = self
            .shared
            .credentials
            .reveal(source, name, *version, target)
            .await
            .map_err(|error| {
                failure(match error {
                    CredentialError::Unknown => "the secret is not known",
                    CredentialError::NotForTarget => "the secret is not for this target",
                    CredentialError::Unreadable => "the secret cannot be opened",
                })
            })?;
        let mut value = HeaderValue::from_bytes(revealed.as_bytes())
            .map_err(|_| failure("the secret is no header value"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// Calls the target. If the connection was used before and ends before an answer, the call is made once more, with the
    /// same request on a fresh one: the target may have closed it while the request was on its way.
    async fn exchange(
        &mut self,
        (origin, record): (&Origin, &Record),
        mut request: impl FnMut() -> Result<(Request<Full<Bytes>>, Vec<Bytes>), Invalid>,
        all: &Settings,
        settings: &TargetSettings,
    ) -> Result<Answer, Failure> {
        let began = Instant::now();
        let mut by = began + settings.attempt_timeout;
        let mut connected = began;
        if self
            .connection
            .as_ref()
            .is_some_and(|(open, _)| open != origin)
        {
            self.connection = None;
        }
        loop {
            let (_, connection) = match &mut self.connection {
                Some(open) => open,
                none => {
                    let left = by.saturating_duration_since(Instant::now());
                    let within = settings.connect_timeout.min(left);
                    let source = record.headers.get(record_header::SOURCE);
                    let source = source.unwrap_or("default");
                    // Boxed, as it is large and rare.
                    let connector = &self.shared.connector;
                    let opened = Box::pin(connector.connect(&all.outward, origin, source, within));
                    let (opened, waited) = opened.await.map_err(Failure::unconnected)?;
                    by += waited;
                    connected = Instant::now();
                    none.insert((origin.clone(), opened))
                }
            };
            let was_used = connection.is_used();
            let (request, names) =
                request().map_err(|invalid| Failure::new(Cause::Invalid, invalid.0))?;
            let request = match connection.is_http2() {
                true => absolute(request, origin),
                false => request,
            };
            let deadlines = Deadlines {
                response_by: connected + settings.response_timeout,
                by,
            };
            let wanted = |status| !all.outcomes.delivers(status);
            let exchange = connection.exchange(request, names, &mut self.timer, deadlines, wanted);
            match exchange.await {
                Exchange::Answered(answer) if was_used && answer.is_farewell() => {
                    self.connection = None;
                }
                Exchange::Answered(answer) => {
                    if !answer.reusable {
                        self.connection = None;
                    }
                    return Ok(answer);
                }
                Exchange::Ended(_) if was_used => self.connection = None,
                Exchange::Ended(failure) => {
                    self.connection = None;
                    return Err(Failure {
                        ended_unanswered: true,
                        ..failure
                    });
                }
                Exchange::Failed(failure) => {
                    self.connection = None;
                    return Err(failure);
                }
            }
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

/// Returns when a record whose call has failed is called again, if it is: because the target has put it off, or for the
/// next of its attempts.
fn again(
    job: &mut Job,
    failure: &Failure,
    all: &Settings,
    settings: &TargetSettings,
) -> Option<(Instant, Wait)> {
    let (now, asked) = (Instant::now(), failure.retry_after);
    let random = random::u64().unwrap_or(u64::MAX);
    if failure.asks_for_later()
        && let Some(deferred_max) = all.deferred_max
    {
        let own = |deferred| all.backoff.pause(deferred, random);
        let due = job.defer(asked, own, deferred_max, now);
        if due.is_some() {
            return due;
        }
    }
    if !failure.cause.is_transient() {
        return None;
    }
    let own = all
        .backoff
        .delay(job.may_try_again(settings.attempts_max)?, random);
    match asked.filter(|asked| *asked > own) {
        Some(asked) => Some((now + asked, Wait::Asked)),
        None => Some((now + own, Wait::Backoff)),
    }
}

/// Whether the target was tried: what is invalid, blocked or without its secret never gets that far.
fn has_called(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Delivered { .. } => true,
        Outcome::Failed(failure) => !matches!(
            failure.cause,
            Cause::Invalid | Cause::Secret | Cause::Blocked
        ),
    }
}
