//! The memory budget of waiting records, over all targets together.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts the bytes that wait on all queues, up to a bound.
///
/// A refused caller sets `wanted` and reads `bytes` again; a freeing caller changes `bytes` and then reads `wanted`. At
/// least one of the two must see the other's write. That needs one order of all four accesses, hence `SeqCst`.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes: AtomicUsize,
    bytes_max: AtomicUsize,
    wanted: AtomicBool,
    /// Fires when there is room again after a refusal of [`Budget::enter`], and when a full queue has room.
    pub(crate) freed: Notify,
}

impl Budget {
    /// An empty budget of `bytes_max` bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            bytes: AtomicUsize::new(0),
            bytes_max: AtomicUsize::new(bytes_max),
            wanted: AtomicBool::new(false),
            freed: Notify::new(),
        }
    }

    /// Counts bytes if they fit; `false` if they do not.
    ///
    /// A refusal does not touch the count. Adding first and subtracting after would refuse others meanwhile. The
    /// subtraction would also look like freed room, so a waiting caller would wake itself without end.
    pub(crate) fn enter(&self, bytes: usize) -> bool {
        if self.try_enter(bytes) {
            return true;
        }
        // Set before the second try, because bytes freed between the two tries woke no caller.
        self.wanted.store(true, Ordering::SeqCst);
        self.try_enter(bytes)
    }

    fn try_enter(&self, bytes: usize) -> bool {
        let bytes_max = self.bytes_max.load(Ordering::SeqCst);
        let with = |before: usize| before.checked_add(bytes).filter(|sum| *sum <= bytes_max);
        let (set, fetch) = (Ordering::SeqCst, Ordering::SeqCst);
        self.bytes.fetch_update(set, fetch, with).is_ok()
    }

    /// Counts bytes without a check, for records that must be kept.
    pub(crate) fn enter_anyhow(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::SeqCst);
    }

    /// Returns whether there is room enough to come with more; if not, [`Budget::freed`] fires once there is.
    pub(crate) fn is_worth_it(&self) -> bool {
        // Set before the second look, so that a caller that frees bytes after the look sees it.
        if !self.has_space() {
            self.wanted.store(true, Ordering::SeqCst);
        }
        self.has_space()
    }

    /// Returns whether a quarter is free. A lower bound would wake waiting readers for each record.
    fn has_space(&self) -> bool {
        self.bytes.load(Ordering::SeqCst) <= self.bytes_max.load(Ordering::SeqCst) / 4 * 3
    }

    /// Gives bytes back.
    pub(crate) fn leave(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::SeqCst);
        self.tell();
    }

    /// Changes the bound. Counted bytes stay counted, even if they are more.
    pub(crate) fn set_bytes_max(&self, bytes_max: usize) {
        self.bytes_max.store(bytes_max, Ordering::SeqCst);
        self.tell();
    }

    /// Wakes refused callers if there is room.
    fn tell(&self) {
        if self.wanted.load(Ordering::SeqCst)
            && self.has_space()
            && self.wanted.swap(false, Ordering::SeqCst)
        {
            self.freed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_refused_caller_is_woken_once_a_quarter_is_free() {
        let budget = Budget::new(100);
        assert!(budget.enter(60) && budget.enter(40));
        let mut freed = pin!(budget.freed.notified());
        freed.as_mut().enable();
        assert!(!budget.enter(1), "full");
        budget.leave(10);
        assert!(freed.as_mut().now_or_never().is_none(), "too little");
        budget.leave(15);
        assert!(freed.now_or_never().is_some());
        budget.enter_anyhow(200);
        assert!(!budget.enter(1), "what has to be there counts");
        budget.leave(275);
        assert!(budget.enter(100), "all was given back");

        // It has room, but not for so many bytes. A refusal must not wake callers that wait for room.
        assert!(budget.enter(0) && !budget.enter(101));
        budget.leave(40);
        let mut freed = pin!(budget.freed.notified());
        freed.as_mut().enable();
        assert!(!budget.enter(50));
        assert!(freed.as_mut().now_or_never().is_none(), "nothing was freed");
        budget.leave(10);
        assert!(freed.now_or_never().is_some(), "it may fit now");
        assert!(budget.enter(50));

        let mut freed = pin!(budget.freed.notified());
        freed.as_mut().enable();
        assert!(!budget.enter(1));
        budget.set_bytes_max(120);
        assert!(freed.as_mut().now_or_never().is_none(), "too little");
        budget.set_bytes_max(200);
        assert!(freed.now_or_never().is_some());
        assert!(budget.enter(1));
        budget.set_bytes_max(50);
        assert!(!budget.enter(1), "fewer than there are");
    }
}
