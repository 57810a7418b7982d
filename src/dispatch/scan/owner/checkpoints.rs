//! What an owner stores for the next start, and begins with.

use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::{
    super::{checkpoint::Hint, lagging::Behind},
    HINT_EVERY, Owner,
};
use crate::{model::ids::Offset, storage::Health};

impl Owner {
    /// Begins where the stored hint says.
    pub(super) async fn take_hint(&mut self, tail: Offset) {
        let engine = self.shared.streams.engine();
        self.hint = Hint::load(&**engine, self.of).await;
        let Some(hint) = self.hint.clone() else {
            return;
        };
        let hint = hint.of_at_most(self.shared.settings.get().targets_max);
        if hint.scanned > tail {
            tracing::warn!(of = %self.of, %tail, "the hint about targets that are behind is past the tail; it is not used");
        } else if hint.scanned > self.next {
            let low = std::mem::replace(&mut self.next, hint.scanned);
            self.behind = Behind::at_start(hint, low, &self.shared.targets.prefixes);
        }
    }

    /// Returns what the next start can begin with.
    pub(super) fn new_hint(&self) -> Option<Hint> {
        let targets = &self.shared.targets;
        let open = |name: &mut dyn FnMut(&Option<_>, _)| targets.for_each_open(self.of, name);
        self.behind.hint(self.next, open)
    }

    /// Stores a new hint if it says something else, and says when to look again.
    pub(super) async fn renew_hint(&mut self) {
        let began = Instant::now();
        let hint = self.new_hint();
        // To look through the boards is to hold them up: no more than a hundredth of the time.
        let pause = HINT_EVERY.max(began.elapsed() * 100);
        let is_whole = hint.as_ref().is_none_or(|hint| hint.scanned == self.next);
        let stored = self.store_hint(hint).await;
        self.hint_at = (!is_whole || !stored).then(|| Instant::now() + pause);
    }

    /// Returns whether the hint is stored now.
    ///
    /// Ends that were queued before are stored before it, or with it: so it cannot say of a record that it has ended that
    /// is open after a crash.
    pub(super) async fn store_hint(&mut self, hint: Option<Hint>) -> bool {
        let engine = self.shared.streams.engine().clone();
        if self.owned.lost_end.load(Ordering::Acquire) {
            // What is stored was true before that.
            return true;
        }
        if *engine.health().borrow() != Health::Running {
            return false;
        }
        if hint == self.hint || engine.stream_by_id(self.of.stream).is_none() {
            return true;
        }
        match Hint::store(hint.as_ref(), &*engine, self.of).await {
            Ok(()) => {
                self.hint = hint;
                true
            }
            Err(error) => {
                tracing::debug!(of = %self.of, %error, "the hint about targets that are behind was not stored");
                false
            }
        }
    }
}
