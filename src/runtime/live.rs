//! Settings that a reload replaces while other tasks use them.
//!
//! A value is never changed, only replaced as a whole, so a reader sees settings that belong together. [`Live::get`]
//! copies a pointer under a short lock. Code that runs for each call of a target uses [`Followed`] instead, which
//! costs one comparison of a version number.

use std::sync::Arc;

use tokio::sync::watch;

/// A value that can be replaced.
#[derive(Debug)]
pub struct Live<T>(watch::Sender<Arc<T>>);

/// A reader's own copy of the pointer.
#[derive(Debug)]
pub struct Followed<T> {
    news: watch::Receiver<Arc<T>>,
    value: Arc<T>,
}

impl<T> From<Arc<T>> for Live<T> {
    fn from(value: Arc<T>) -> Self {
        Self(watch::Sender::new(value))
    }
}

impl<T> Live<T> {
    /// Holds a value.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self::from(Arc::new(value))
    }

    /// Returns the current value.
    #[must_use]
    pub fn get(&self) -> Arc<T> {
        self.0.borrow().clone()
    }

    /// Replaces the value. Readers keep the old one until they ask again.
    pub fn set(&self, value: Arc<T>) {
        self.0.send_replace(value);
    }

    /// Returns a reader that copies the pointer only after a replacement.
    #[must_use]
    pub fn follow(&self) -> Followed<T> {
        let mut news = self.0.subscribe();
        let value = news.borrow_and_update().clone();
        Followed { news, value }
    }
}

impl<T> Followed<T> {
    /// Takes the current value; returns whether it was replaced since the last call.
    pub fn renew(&mut self) -> bool {
        // An error means that every [`Live`] is gone, so the value stays.
        if !self.news.has_changed().unwrap_or(false) {
            return false;
        }
        self.value = self.news.borrow_and_update().clone();
        true
    }

    /// Waits until the value is replaced, and takes the new one. Never returns once every [`Live`] is gone.
    ///
    /// # Cancel safety
    /// A wait that is dropped has taken nothing.
    pub async fn changed(&mut self) {
        if self.news.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.value = self.news.borrow_and_update().clone();
    }

    /// Returns the value that was last taken.
    #[must_use]
    pub fn get(&self) -> &Arc<T> {
        &self.value
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_taken_value_stays_and_the_next_get_returns_the_new_one() {
        let live = Live::new(1);
        let (taken, mut followed) = (live.get(), live.follow());
        assert!(!followed.renew());
        live.set(Arc::new(2));
        assert_eq!((*taken, *live.get(), **followed.get()), (1, 2, 1));
        assert!(followed.renew() && !followed.renew());
        assert_eq!(**followed.get(), 2);
        assert!(followed.changed().now_or_never().is_none());
        live.set(Arc::new(3));
        assert!(followed.changed().now_or_never().is_some());
        assert_eq!(**followed.get(), 3);
        drop(live);
        assert!(followed.changed().now_or_never().is_none());
        assert!(!followed.renew());
    }
}
