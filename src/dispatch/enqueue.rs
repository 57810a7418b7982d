//! Puts jobs on the queues of their targets, takes off them what is over, and wakes workers for the rest.

use std::{
    collections::{HashMap, VecDeque},
    pin::pin,
    sync::Arc,
};

use super::{
    DispatchContext,
    job::Job,
    queue::target_queue::{LeaveOut, TargetQueue, Wake},
    settings::Settings,
    target_id::TargetId,
};

impl DispatchContext {
    /// Puts a job on its target's queue; waits while the queue is full.
    ///
    /// # Cancel safety
    /// A job whose call is dropped was not taken.
    pub(crate) async fn enqueue(self: &Arc<Self>, job: Box<Job>) {
        let mut jobs = VecDeque::from([job]);
        loop {
            // Enabled before the push, so that room made in between is not missed.
            let mut freed = pin!(self.targets.budget.freed.notified());
            freed.as_mut().enable();
            self.try_enqueue(&mut jobs, None);
            if jobs.is_empty() {
                return;
            }
            freed.await;
        }
    }

    /// Puts jobs of one target on its queue as far as it has room. After a refusal, `Budget::freed` fires when the
    /// queue has room again. With `leave_out`, lanes are bounded by their share.
    pub(crate) fn try_enqueue(
        self: &Arc<Self>,
        jobs: &mut VecDeque<Box<Job>>,
        leave_out: Option<LeaveOut<'_>>,
    ) {
        if let Some((queue, wake)) = self.targets.push(jobs, leave_out) {
            self.wake(&queue, wake);
        }
    }

    /// Drops the jobs of a target that retries have taken back, so that they wait neither for the breaker nor for the
    /// rate.
    pub(crate) fn sweep(self: &Arc<Self>, target: &TargetId) {
        let (queue, wake) = self.targets.sweep(target);
        self.wake(&queue, wake);
    }

    /// Drops waiting jobs whose record was purged or whose owner is gone. Otherwise each would keep its lane busy until
    /// it is due.
    pub(super) fn sweep_over(self: &Arc<Self>) {
        // At a stop every owner ends. A sweep then would let the next record of a lane begin.
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

    /// Wakes or starts as many workers as a queue needs; `first` is one that it has named already.
    pub(super) fn wake(self: &Arc<Self>, queue: &Arc<TargetQueue>, first: Option<Wake>) {
        let mut next = first;
        while let Some(wake) = next {
            match wake {
                Wake::Sleeping(worker) => worker.notify_one(),
                Wake::New(slot) => self.start_worker(queue, slot),
            }
            next = queue.wake();
        }
    }

    /// Replaces the settings of all queues.
    pub(crate) fn adjust_queues(self: &Arc<Self>, settings: Arc<Settings>) {
        for queue in self.targets.adjust(settings) {
            let wake = queue.wake();
            self.wake(&queue, wake);
        }
    }
}
