//! The rules of a queue under its lock: which jobs may start, which worker wakes, which jobs are due. No code here
//! waits.

use std::{collections::hash_map::Entry, time::Duration};

use tokio::time::Instant;

use super::{Delayed, State, Taken, Wake, Worker, WorkerState};
use crate::dispatch::{
    job::{Job, Lane, Wait},
    pace::Slots,
    queue::{lane::Share, waiting::WaitsFor},
    settings::Limits,
    target_id::TargetId,
};

/// A lane may always hold this part of its queue, because leaving out a shorter lane saves nothing.
const SHARE_LEAST: usize = 64;

impl Limits {
    fn wait_max(&self, wait: Wait) -> Duration {
        match wait {
            Wait::Backoff => self.backoff_max,
            Wait::Asked => self.retry_after_max.max(self.backoff_max),
            Wait::Paced => Duration::MAX,
        }
    }

    /// Returns the end of a wait, cut to the longest wait of its kind.
    fn cut(&self, until: Instant, wait: Wait, now: Instant) -> Instant {
        let latest = now.checked_add(self.wait_max(wait));
        latest.map_or(until, |latest| until.min(latest))
    }
}

impl State {
    pub(super) fn wake(&mut self) -> Option<Wake> {
        let keep_time = self.timekeeper.is_none() && self.first_due().is_some();
        if self.startable_len() + usize::from(keep_time) <= self.waking {
            return None;
        }
        if let Some(slot) = self.idle.pop() {
            self.waking += 1;
            self.workers[slot].state = WorkerState::Waking;
            if self.timekeeper == Some(slot) {
                self.timekeeper = None;
            }
            return Some(Wake::Sleeping(self.workers[slot].wake.clone()));
        }
        if self.workers_len >= self.workers_max() {
            return None;
        }
        self.workers_len += 1;
        self.waking += 1;
        let absent = |worker: &Worker| worker.state == WorkerState::Absent;
        let slot = self.workers.iter().position(absent).unwrap_or_else(|| {
            self.workers.push(Worker::default());
            self.workers.len() - 1
        });
        self.workers[slot].state = WorkerState::Waking;
        Some(Wake::New(slot))
    }

    pub(super) fn workers_max(&self) -> usize {
        if self.is_gone {
            return 0;
        }
        self.settings.in_flight_max.max(1)
    }

    /// Every job that no worker has.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Box<Job>> {
        let delayed = self.delayed.values().map(|delayed| &delayed.job);
        self.lanes.iter().chain(&self.ends).chain(delayed)
    }

    /// Takes a job that may begin now.
    pub(super) fn take(&mut self, slot: usize) -> Option<Box<Job>> {
        if let Some(end) = self.ends.pop_front() {
            return Some(end);
        }
        if self.startable_len() == 0 {
            return None;
        }
        let job = self.lanes.take()?;
        let worker = &mut self.workers[slot];
        worker.call = Some(self.breaker.begin());
        if let Some(rate) = &mut self.rate {
            let before = *rate;
            let taken = rate.take(Instant::now());
            debug_assert!(taken.is_ok(), "what may start has its slot");
            worker.rate_slot = Some((before, rate.last_taken()));
        }
        Some(job)
    }

    /// Jobs that may begin now.
    pub(super) fn startable_len(&self) -> usize {
        let admitted_len = self.breaker.admits(self.lanes.ready_len(), Instant::now);
        let calls_len = match &self.rate {
            Some(rate) if admitted_len > 0 => usize::from(rate.opens_at() <= Instant::now()),
            _ => admitted_len,
        };
        self.ends.len() + calls_len
    }

    /// When a ready job may begin, if it only waits for the breaker's pause or the rate.
    pub(super) fn next_call_at(&self) -> Option<Instant> {
        if self.lanes.ready_len() == 0 {
            return None;
        }
        let opens_at = self.rate.as_ref().map(Slots::opens_at);
        let slot_at = opens_at.filter(|at| *at > Instant::now());
        match (self.breaker.opens_at(), slot_at) {
            (None, slot_at) => slot_at.filter(|_| self.breaker.admits(1, Instant::now) > 0),
            (probe_at, slot_at) => probe_at.max(slot_at),
        }
    }

    /// What a ready job waits for that has `before` ready jobs before it.
    pub(super) fn ready_waits_for(
        &self,
        before: usize,
        now: Instant,
    ) -> (WaitsFor, Option<Instant>) {
        if self.breaker.is_open() {
            // The end of a probe under way is unknown.
            let until = self.breaker.open_until(now).filter(|until| *until > now);
            return (WaitsFor::TargetOpen, until);
        }
        match &self.rate {
            Some(rate) if rate.opens_at() > now => (WaitsFor::Rate, rate.opens_at_behind(before)),
            _ => (WaitsFor::Turn, None),
        }
    }

    /// What a job in backoff waits for: the breaker, if its wait is longer.
    pub(super) fn delayed_waits_for(
        &self,
        due: Instant,
        delayed: &Delayed,
        now: Instant,
    ) -> (WaitsFor, Instant) {
        if delayed.job.unstored.is_some() {
            return (WaitsFor::Log, due);
        }
        match self.breaker.open_until(now) {
            Some(until) if until > due => (WaitsFor::TargetOpen, until),
            _ => (delayed.wait.into(), due),
        }
    }

    /// When the first job is due that may not begin now.
    pub(super) fn first_due(&self) -> Option<Instant> {
        let delayed = self.delayed.first_key_value().map(|((due, _), _)| *due);
        delayed.into_iter().chain(self.next_call_at()).min()
    }

    /// Notes that a worker is awake and has asked for a job.
    pub(super) fn awake(&mut self, slot: usize) {
        match self.workers[slot].state {
            WorkerState::Idle => {
                self.idle.retain(|idle| *idle != slot);
                if self.timekeeper == Some(slot) {
                    self.timekeeper = None;
                }
            }
            WorkerState::Waking => self.waking -= 1,
            WorkerState::Absent | WorkerState::Busy(_) => {}
        }
    }

    /// Ends a job; returns whether its lane was full and has room now.
    pub(super) fn end(&mut self, taken: Taken) -> bool {
        if let Some(target) = taken.sharing {
            self.unshare(target);
        }
        self.lanes.end(taken.lane)
    }

    /// Removes a job of a target from the counts of the shared queue.
    pub(super) fn unshare(&mut self, target: TargetId) {
        if let Entry::Occupied(mut jobs) = self.sharing.entry(target) {
            *jobs.get_mut() -= 1;
            if *jobs.get() == 0 {
                jobs.remove();
            }
        }
    }

    /// A lane may hold as much as it leaves free for all others: half of the queue if only one lane is long, a third if
    /// there are two. So long lanes never fill a queue.
    pub(super) fn lane_is_full(&mut self, lane: Lane, bytes: usize) -> bool {
        let limits = self.limits;
        let part = |max: usize, queued| max.saturating_sub(queued).max(max / SHARE_LEAST);
        let share = Share {
            len: part(limits.queue_len_max, self.queued_len),
            bytes: part(limits.queue_bytes_max, self.queued_bytes),
        };
        self.lanes.is_full(lane, bytes, share)
    }

    pub(super) fn delay(&mut self, job: Box<Job>, until: Instant, wait: Wait) {
        // The call may have begun under settings with longer waits.
        let until = self.limits.cut(until, wait, Instant::now());
        let first = self.delayed.first_key_value();
        if first.is_none_or(|((due, _), _)| until < *due) {
            // The timekeeper would sleep too long, so another worker takes over.
            self.timekeeper = None;
        }
        self.queued_len += 1;
        self.queued_bytes += job.record.bytes_len();
        self.delayed_count += 1;
        let delayed = Delayed { job, wait };
        self.delayed.insert((until, self.delayed_count), delayed);
    }

    pub(super) fn resume_due(&mut self) {
        if self.delayed.is_empty() {
            return;
        }
        let now = Instant::now();
        while let Some(first) = self.delayed.first_entry() {
            if first.key().0 > now {
                return;
            }
            let job = first.remove().job;
            match job.unstored {
                Some(_) => self.ends.push_back(job),
                None => self.lanes.resume(job),
            }
        }
    }

    /// Cuts waits that are longer than the settings allow now; the order of due times stays.
    pub(super) fn cut_waits(&mut self) {
        let (now, limits) = (Instant::now(), self.limits);
        let (own, asked) = (limits.backoff_max, limits.retry_after_max);
        self.breaker.cut(now + own, now + asked);
        let shortest = own.min(asked);
        for ((due, count), delayed) in self.delayed.split_off(&(now + shortest, 0)) {
            let due = limits.cut(due, delayed.wait, now);
            self.delayed.insert((due, count), delayed);
        }
    }

    /// Takes out the jobs that are over; returns whether a full lane has room by that.
    #[expect(clippy::vec_box, reason = "jobs stay boxed while they wait")]
    pub(super) fn take_over(&mut self, is_over: impl Fn(&Job) -> bool) -> (Vec<Box<Job>>, bool) {
        // Waiting jobs first, so that none of them becomes ready when the jobs before them are taken.
        let (mut jobs, mut has_room) = self.lanes.take_waiting(|job| is_over(job));
        let mut heads = self.lanes.take_ready(|job| is_over(job));
        for (due, delayed) in std::mem::take(&mut self.delayed) {
            match is_over(&delayed.job) {
                true => heads.push(delayed.job),
                false => drop(self.delayed.insert(due, delayed)),
            }
        }
        for head in &heads {
            has_room |= self.lanes.end(head.lane);
        }
        jobs.append(&mut heads);
        for job in &jobs {
            self.taken_out(job);
        }
        (jobs, has_room)
    }

    /// Removes a job from the counts of waiting jobs.
    pub(super) fn taken_out(&mut self, job: &Job) {
        self.queued_len -= 1;
        self.queued_bytes -= job.record.bytes_len();
    }

    /// Wake waiting readers only when a quarter of the queue is free, because each wake-up costs a context switch.
    pub(super) fn has_space(&self) -> bool {
        self.queued_len <= self.limits.queue_len_max / 4 * 3
            && self.queued_bytes <= self.limits.queue_bytes_max / 4 * 3
    }
}
