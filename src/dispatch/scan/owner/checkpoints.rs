//! What an owner stores for the next start, and begins with.

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
            tracing::warn!(of = %self.of, %tail, "the checkpoint about targets that are lagging is past the tail; it is not used");
        } else if checkpoint.scanned > self.next {
            let low = std::mem::replace(&mut self.next, checkpoint.scanned);
            self.lagging = Lagging::at_start(checkpoint, low, &self.shared.targets.prefixes);
        }
    }

    /// Returns what the next start can begin with.
    pub(super) fn new_checkpoint(&self) -> Option<Checkpoint> {
        let targets = &self.shared.targets;
        let open = |name: &mut dyn FnMut(&Option<_>, _)| targets.for_each_open(self.of, name);
        self.lagging.checkpoint(self.next, open)
    }

    /// Stores a new checkpoint if it says something else, and says when to look again.
    pub(super) async fn renew_checkpoint(&mut self) {
        let began = Instant::now();
        let checkpoint = self.new_checkpoint();
        // To look through the queues is to hold them up: no more than a hundredth of the time.
        let pause = CHECKPOINT_EVERY.max(began.elapsed() * 100);
        let is_whole = checkpoint
            .as_ref()
            .is_none_or(|checkpoint| checkpoint.scanned == self.next);
        let stored = self.store_checkpoint(checkpoint).await;
        self.checkpoint_at = (!is_whole || !stored).then(|| Instant::now() + pause);
    }

    /// Returns whether the checkpoint is stored now.
    ///
    /// Ends that were queued before are stored before it, or with it: so it cannot say of a record that it has ended that
    /// is open after a crash.
    pub(super) async fn store_checkpoint(&mut self, checkpoint: Option<Checkpoint>) -> bool {
        let engine = self.shared.streams.engine().clone();
        if self.owned.lost_end.load(Ordering::Acquire) {
            // What is stored was true before that.
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
                tracing::debug!(of = %self.of, %error, "the checkpoint about targets that are lagging was not stored");
                false
            }
        }
    }
}
