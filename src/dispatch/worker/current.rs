//! The settings that a worker goes by.

use std::sync::Arc;

use crate::dispatch::{
    DispatchContext,
    job::Job,
    queue::target_queue::TargetQueue,
    settings::{Settings, TargetSettings},
};
use crate::runtime::live::Followed;

/// Settings that a worker uses from one job to the next.
pub(super) struct Current {
    pub(super) all: Followed<Settings>,
    /// Settings of the queue's target.
    own: Arc<TargetSettings>,
}

impl Current {
    pub(super) fn new(shared: &DispatchContext, queue: &TargetQueue) -> Self {
        let all = shared.settings.follow();
        let own = own(all.get(), queue).clone();
        Self { all, own }
    }

    /// Takes new settings; returns whether there were any.
    pub(super) fn renew(&mut self, queue: &TargetQueue) -> bool {
        let renewed = self.all.renew();
        if renewed {
            self.own = own(self.all.get(), queue).clone();
        }
        renewed
    }

    /// Returns the settings of a job's target. On the shared queue they differ from job to job.
    pub(super) fn of(&self, queue: &TargetQueue, job: &Job) -> &TargetSettings {
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
