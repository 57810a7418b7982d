//! Memory for what waits, over all targets together.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts the bytes that wait on all queues, up to a bound.
///
/// A refused caller sets `wanted` and looks at `bytes` again; a freeing one changes `bytes` and then looks at `wanted`. One of
/// the two sees the other, which takes the order of all four: hence `SeqCst`.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes: AtomicUsize,
    bytes_max: AtomicUsize,
    wanted: AtomicBool,
    /// Fires when there is room again after [`Budget::enter`] said no, and when a queue that was full has room.
    pub(crate) freed: Notify,
}

impl Budget {
    /// One of `bytes_max` bytes.
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
    /// A refusal leaves the count as it was. To add first and step back after would refuse others meanwhile, and to step
    /// back would look like room that was made: a caller who waits for that would be woken by its own refusal, without end.
    pub(crate) fn enter(&self, bytes: usize) -> bool {
        if self.try_enter(bytes) {
            return true;
        }
        // Said before the second look: bytes that were freed between the two looks told nobody.
        self.wanted.store(true, Ordering::SeqCst);
        self.try_enter(bytes)
    }

    fn try_enter(&self, bytes: usize) -> bool {
        let bytes_max = self.bytes_max.load(Ordering::SeqCst);
        let with = |before: usize| before.checked_add(bytes).filter(|sum| *sum <= bytes_max);
        let (set, fetch) = (Ordering::SeqCst, Ordering::SeqCst);
        self.bytes.fetch_update(set, fetch, with).is_ok()
    }

    /// Counts bytes that have to be there.
    pub(crate) fn enter_anyhow(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::SeqCst);
    }

    /// Returns whether it is worth to come with more; if not, [`Budget::freed`] fires once it is.
    pub(crate) fn is_worth_it(&self) -> bool {
        // Said before looking: who frees some after the look sees it.
        if !self.has_space() {
            self.wanted.store(true, Ordering::SeqCst);
        }
        self.has_space()
    }

    /// Returns whether a quarter is free, so that whoever waits does not come for each single record.
    fn has_space(&self) -> bool {
        self.bytes.load(Ordering::SeqCst) <= self.bytes_max.load(Ordering::SeqCst) / 4 * 3
    }

    /// Gives bytes back.
    pub(crate) fn leave(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::SeqCst);
        self.tell();
    }

    /// Changes the bound. What is there stays, be it more.
    pub(crate) fn set_bytes_max(&self, bytes_max: usize) {
        self.bytes_max.store(bytes_max, Ordering::SeqCst);
        self.tell();
    }

    /// Tells who was refused, if there is room by now.
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
    async fn who_was_refused_is_told_once_a_quarter_is_free() {
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

        // It has room, but not for so many bytes. That is no news for who waits for room, be it the same caller.
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
