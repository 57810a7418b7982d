//! Calls of workers: take the next job, end or stay, and report the verdict of a call.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::{Done, Next, Retirement, TargetQueue, Wake, WorkerState};
use crate::dispatch::{outcome::Verdict, queue::breaker::Change};

/// How long a queue is kept after the pause of its open breaker, so that the next call is a probe. Retries may come up
/// to an hour apart.
pub(super) const OPEN_KEPT: Duration = Duration::from_secs(3_600);

impl TargetQueue {
    /// Takes a worker's last job back; returns its next step and a worker to wake. If one was woken, more may be
    /// needed: see [`TargetQueue::wake`].
    pub(crate) fn next(&self, slot: usize, done: Option<Done>) -> (Next, Option<Wake>) {
        let mut state = self.lock();
        state.awake(slot);
        state.workers[slot].open = None;
        state.workers[slot].rate_slot = None;
        if let Some(call) = state.workers[slot].call.take() {
            state.breaker.end(call);
        }
        match done {
            Some(Done::Ended(taken)) => {
                let lane_has_room = state.end(taken);
                if lane_has_room {
                    self.budget.freed.notify_waiters();
                }
            }
            Some(Done::Later { job, until, wait }) => {
                self.budget.enter_anyhow(job.record.bytes_len());
                state.delay(job, until, wait);
            }
            None => {}
        }
        if state.workers_len > state.workers_max() {
            // Surplus workers end here one by one; busy ones when they ask for their next job.
            state.workers[slot].state = WorkerState::Absent;
            state.workers_len -= 1;
            return (Next::End, state.wake());
        }
        state.resume_due();
        if let Some(job) = state.take(slot) {
            state.taken_out(&job);
            self.budget.leave(job.record.bytes_len());
            state.workers[slot].state = WorkerState::Busy(job.time);
            state.workers[slot].open = self.open(&job);
            self.tell_space(&mut state);
            return (Next::Job(job), state.wake());
        }
        let keep_connection = state.idle.len() < state.limits.idle_connections_max;
        state.workers[slot].state = WorkerState::Idle;
        state.idle.push(slot);
        let until = state.first_due().filter(|_| state.timekeeper.is_none());
        if until.is_some() {
            state.timekeeper = Some(slot);
        }
        let sleep = Next::Sleep {
            until,
            keep_connection,
        };
        (sleep, state.wake())
    }

    /// Gives the rate slot of a worker's job back, because no call is made; returns a worker to wake.
    pub(crate) fn give_rate_back(&self, slot: usize) -> Option<Wake> {
        let mut state = self.lock();
        let (before, taken) = state.workers[slot].rate_slot.take()?;
        state.rate.as_mut()?.give_back(before, taken);
        // The timekeeper may sleep too long now, so another worker takes over.
        state.timekeeper = None;
        state.wake()
    }

    /// Returns a worker to wake, if more jobs may start than workers are on their way.
    pub(crate) fn wake(&self) -> Option<Wake> {
        self.lock().wake()
    }

    /// Returns the notification that wakes a worker.
    pub(crate) fn waker(&self, slot: usize) -> Arc<Notify> {
        self.lock().workers[slot].wake.clone()
    }

    /// Ends a worker after its idle time, unless it is needed. The last worker stays until [`OPEN_KEPT`] after the
    /// pause of an open breaker.
    pub(crate) fn retire(&self, slot: usize, now: Instant) -> Retirement {
        let mut state = self.lock();
        let needed = state.workers[slot].state != WorkerState::Idle
            || state.timekeeper == Some(slot) && state.first_due().is_some();
        if needed {
            return Retirement::Needed;
        }
        let opens_at = state.breaker.opens_at().filter(|_| !state.is_gone);
        if state.workers_len == 1 && opens_at.is_some_and(|at| now < at + OPEN_KEPT) {
            return Retirement::Rests;
        }
        state.awake(slot);
        state.workers[slot].state = WorkerState::Absent;
        state.workers_len -= 1;
        Retirement::Over
    }

    /// Closes the queue if it is empty and all workers sleep; returns whether it did. No caller may push afterwards.
    pub(crate) fn give_way(&self) -> bool {
        let mut state = self.lock();
        if state.queued_len > 0 || state.workers_len > state.idle.len() {
            return false;
        }
        state.is_gone = true;
        for slot in &state.idle {
            state.workers[*slot].wake.notify_one();
        }
        true
    }

    /// Tells the breaker the verdict of a worker's call; returns the change of the breaker and a worker to wake.
    /// `at_once` opens the breaker without further evidence. `pause` returns our own pause after a number of openings
    /// in a row. The shared queue has no breaker.
    pub(crate) fn judge(
        &self,
        slot: usize,
        verdict: Verdict,
        at_once: bool,
        pause: impl FnOnce(u32) -> Duration,
    ) -> (Option<Change>, Option<Wake>) {
        let matters = match verdict {
            Verdict::Unknown => false,
            Verdict::Answers => self.answers_matter.load(Ordering::Relaxed),
            Verdict::Silent | Verdict::Unavailable { .. } => true,
        };
        if !matters || self.origin.is_none() {
            return (None, None);
        }
        let mut state = self.lock();
        let Some(call) = state.workers[slot].call else {
            return (None, None);
        };
        let now = Instant::now();
        let change = state.breaker.judge(call, verdict, at_once, now, pause);
        // Stored under the lock. If a success were not reported, the breaker would neither close nor get its slots
        // back.
        let matters = !state.breaker.is_calm();
        self.answers_matter.store(matters, Ordering::Relaxed);
        if let Some(Change::Opened { .. }) = change {
            // The timekeeper may sleep too long now, so another worker takes over.
            state.timekeeper = None;
            // The call may have begun under settings with longer waits.
            state.cut_waits();
        }
        (change, state.wake())
    }
}
