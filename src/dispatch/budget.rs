//! Memory for what waits, over all targets together.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts the bytes that wait on all boards, up to a bound.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes: AtomicUsize,
    bytes_max: AtomicUsize,
    wanted: AtomicBool,
    /// Fires when there is room again after [`Budget::enter`] said no, and when a board that was full has room.
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
    pub(crate) fn enter(&self, bytes: usize) -> bool {
        // Several may step over the bound together for a moment; each of them steps back.
        let before = self.bytes.fetch_add(bytes, Ordering::AcqRel);
        if before + bytes <= self.bytes_max.load(Ordering::Acquire) {
            return true;
        }
        // Said before the bytes are given back: who frees some from now on sees it.
        self.wanted.store(true, Ordering::Release);
        self.leave(bytes);
        false
    }

    /// Counts bytes that have to be there.
    pub(crate) fn enter_anyhow(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Returns whether it is worth to come with more; if not, [`Budget::freed`] fires once it is.
    pub(crate) fn is_worth_it(&self) -> bool {
        // Said before looking: who frees some after the look sees it.
        if !self.has_space() {
            self.wanted.store(true, Ordering::Release);
        }
        self.has_space()
    }

    /// Returns whether a quarter is free, so that whoever waits does not come for each single record.
    fn has_space(&self) -> bool {
        self.bytes.load(Ordering::Acquire) <= self.bytes_max.load(Ordering::Acquire) / 4 * 3
    }

    /// Gives bytes back.
    pub(crate) fn leave(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.tell();
    }

    /// Changes the bound. What is there stays, be it more.
    pub(crate) fn set_bytes_max(&self, bytes_max: usize) {
        self.bytes_max.store(bytes_max, Ordering::Release);
        self.tell();
    }

    /// Tells who was refused, if there is room by now.
    fn tell(&self) {
        if self.wanted.load(Ordering::Acquire)
            && self.has_space()
            && self.wanted.swap(false, Ordering::AcqRel)
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
