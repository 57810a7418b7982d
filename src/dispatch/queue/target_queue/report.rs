//! Reads of a queue for operators, metrics and the owners of partitions. No code here changes the queue.

use std::{collections::HashMap, sync::PoisonError};

use tokio::time::Instant;

use super::{TargetQueue, Worker, WorkerState};
use crate::dispatch::{
    outcome::Cause,
    queue::{
        breaker::Stand,
        past::Stood,
        state::{Moment, TargetState},
        waiting::{Found, Search, WaitsFor},
    },
    settings::TargetSettings,
    stats::TargetStatus,
    target_id::TargetId,
};
use crate::model::ids::{Offset, PartitionId};

impl TargetQueue {
    /// Names target and offset of each record of a partition that is queued or in flight for its first dispatch. Once a
    /// record is no longer named, its settlement is queued at the writer.
    pub(crate) fn for_each_open(
        &self,
        of: PartitionId,
        name: &mut dyn FnMut(&Option<TargetId>, Offset),
    ) {
        let state = self.lock();
        for job in state.waiting() {
            if job.is_first() && job.of == of {
                name(&job.origin, job.offset);
            }
        }
        for open in state
            .workers
            .iter()
            .filter_map(|worker| worker.open.as_ref())
        {
            if open.of == of {
                let own = self.origin.is_some();
                name(if own { &self.origin } else { &open.origin }, open.offset);
            }
        }
    }

    /// Adds the cause of the last failure of each record that waits for its next call.
    pub(crate) fn add_causes(&self, causes: &mut HashMap<(PartitionId, Offset), Cause>) {
        let state = self.lock();
        let delayed = state.delayed.values().map(|delayed| &delayed.job);
        let lanes = state.lanes.ready().chain(state.lanes.behind());
        for job in lanes.chain(&state.ends).chain(delayed) {
            if let (true, Some(cause)) = (job.is_first(), job.tried.cause) {
                causes.insert((job.of, job.offset), cause);
            }
        }
    }

    /// Adds each record that is queued or in flight for its first dispatch, with what it waits for.
    ///
    /// Looks at every waiting job, so it is too slow for each call.
    pub(crate) fn search(&self, search: &mut Search<'_>) {
        let state = self.lock();
        let now = Instant::now();
        for (at, job) in state.lanes.ready().enumerate() {
            let (waits_for, due) = state.ready_waits_for(at, now);
            search.job(job, waits_for, due);
        }
        for job in state.lanes.behind() {
            search.job(job, WaitsFor::Key, None);
        }
        for job in &state.ends {
            search.job(job, WaitsFor::Log, None);
        }
        for ((due, _), delayed) in &state.delayed {
            let (waits_for, due) = state.delayed_waits_for(*due, delayed, now);
            search.job(&delayed.job, waits_for, Some(due));
        }
        for worker in &state.workers {
            if let (WorkerState::Busy(time), Some(open)) = (worker.state, &worker.open) {
                search.record(open.of, open.offset, time, || Found {
                    waits_for: WaitsFor::Answer,
                    calls: open.calls,
                    due: None,
                });
            }
        }
    }

    /// Returns the numbers of the queue.
    pub(crate) fn status(&self) -> TargetStatus {
        let state = self.lock();
        let busy = state
            .workers
            .iter()
            .filter_map(|worker| match worker.state {
                WorkerState::Busy(time) => Some(time),
                WorkerState::Absent | WorkerState::Waking | WorkerState::Idle => None,
            });
        let waiting = state.waiting();
        TargetStatus {
            target: self.name_by(&state.settings),
            is_closed: state.breaker.is_open(),
            in_flight: busy.clone().count(),
            queued_len: state.queued_len,
            queued_bytes: state.queued_bytes,
            oldest: busy.chain(waiting.map(|job| job.time)).min(),
        }
    }

    /// Returns the state of the target; `None` for the shared queue.
    pub(in crate::dispatch) fn state(&self, now: Moment) -> Option<TargetState> {
        let id = self.origin.clone()?;
        let last = self.last_failure.lock();
        let last_failure = last.unwrap_or_else(PoisonError::into_inner).clone();
        let state = self.lock();
        let (stand, since) = state.breaker.stand(now.instant);
        let is_busy = |worker: &&Worker| matches!(worker.state, WorkerState::Busy(_));
        Some(TargetState {
            id,
            breaker: now.breaker(stand),
            since: since.map(|since| now.time_of(since)),
            in_flight: state.workers.iter().filter(is_busy).count(),
            last_failure,
        })
    }

    /// Returns the state of the target to keep when the queue is removed.
    pub(in crate::dispatch::queue) fn stood(&self, now: Instant) -> Stood {
        let last = self.last_failure.lock();
        let last_failure = last.unwrap_or_else(PoisonError::into_inner).clone();
        let (stand, since) = self.lock().breaker.stand(now);
        Stood {
            closed: since.filter(|_| matches!(stand, Stand::Closed)),
            last_failure,
        }
    }

    /// Returns the name of the target in logs and metrics.
    pub(crate) fn name(&self) -> String {
        self.name_by(&self.lock().settings)
    }

    fn name_by(&self, settings: &TargetSettings) -> String {
        match (&settings.name, &self.origin) {
            (_, None) => "*".into(),
            (Some(name), _) => name.clone(),
            (None, Some(origin)) => origin.to_string(),
        }
    }
}
