//! Checkpoints of an owner: loaded at its start, stored while a target is lagging.

use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::{
    super::{checkpoint::Checkpoint, lagging::Lagging},
    CHECKPOINT_EVERY, Owner,
};
use crate::{model::ids::Offset, storage::Health};

impl Owner {
    /// Begins where the stored checkpoint says.
    pub(super) async fn take_checkpoint(&mut self, tail: Offset) {
        let engine = self.shared.streams.engine();
        self.checkpoint = Checkpoint::load(&**engine, self.of).await;
        let Some(checkpoint) = self.checkpoint.clone() else {
            return;
        };
        let checkpoint = checkpoint.of_at_most(self.shared.settings.get().targets_max);
        if checkpoint.scanned > tail {
            tracing::warn!(of = %self.of, %tail, "the checkpoint of lagging targets is past the tail; it is ignored");
        } else if checkpoint.scanned > self.next {
            let low = std::mem::replace(&mut self.next, checkpoint.scanned);
            self.lagging = Lagging::at_start(checkpoint, low, &self.shared.targets.prefixes);
        }
    }

    /// Returns the checkpoint for the next start.
    pub(super) fn new_checkpoint(&self) -> Option<Checkpoint> {
        let targets = &self.shared.targets;
        let open = |name: &mut dyn FnMut(&Option<_>, _)| targets.for_each_open(self.of, name);
        self.lagging.checkpoint(self.next, open)
    }

    /// Stores a new checkpoint if it has changed, and sets the time of the next one.
    pub(super) async fn renew_checkpoint(&mut self) {
        let began = Instant::now();
        let checkpoint = self.new_checkpoint();
        // A look through the queues holds their locks, so it takes at most a hundredth of the time.
        let pause = CHECKPOINT_EVERY.max(began.elapsed() * 100);
        let is_whole = checkpoint
            .as_ref()
            .is_none_or(|checkpoint| checkpoint.scanned == self.next);
        let stored = self.store_checkpoint(checkpoint).await;
        self.checkpoint_at = (!is_whole || !stored).then(|| Instant::now() + pause);
    }

    /// Returns whether the checkpoint is stored now.
    ///
    /// The writer stores settlements that were queued before no later than the checkpoint. So after a crash no record
    /// is open that the checkpoint takes for settled.
    pub(super) async fn store_checkpoint(&mut self, checkpoint: Option<Checkpoint>) -> bool {
        let engine = self.shared.streams.engine().clone();
        if self.owned.lost_end.load(Ordering::Acquire) {
            // A job was lost without its settlement, so only the checkpoint stored before that is right.
            return true;
        }
        if *engine.health().borrow() != Health::Running {
            return false;
        }
        if checkpoint == self.checkpoint || engine.stream_by_id(self.of.stream).is_none() {
            return true;
        }
        match Checkpoint::store(checkpoint.as_ref(), &*engine, self.of).await {
            Ok(()) => {
                self.checkpoint = checkpoint;
                true
            }
            Err(error) => {
                tracing::debug!(of = %self.of, %error, "the checkpoint of lagging targets was not stored");
                false
            }
        }
    }
}
