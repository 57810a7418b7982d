//! Tasks: started by name, awaited at the end, and a stop for everyone when one of them ends early.

use std::{future::Future, time::Duration};

use tokio::sync::oneshot;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Starts tasks and waits for them. Clones share one set.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    failed: CancellationToken,
}

impl Tasks {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task that lives until drain: if it panics, the gateway must not go on as if nothing had happened, so
    /// [`Tasks::failed`] fires.
    #[expect(clippy::disallowed_methods, reason = "the one place that starts tasks")]
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let failed = self.failed.clone();
        let tracked = self.tracker.track_future(task);
        tokio::spawn(async move {
            let guard = PanicGuard { name, failed };
            tracked.await;
            std::mem::forget(guard);
        });
    }

    /// Runs `work` as a task, to its end also if the call is dropped meanwhile: for changes whose halves belong together.
    /// Returns `None` if it panicked.
    pub async fn finish<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (tell, told) = oneshot::channel();
        self.spawn(name, async move {
            // Nobody may be waiting any more; that changes nothing.
            let _told = tell.send(work.await).is_ok();
        });
        told.await.ok()
    }

    /// Fires when a task has panicked.
    pub async fn failed(&self) {
        self.failed.cancelled().await;
    }

    /// Waits until every task has ended, `grace` at most; returns how many had not.
    pub async fn join(&self, grace: Duration) -> usize {
        self.tracker.close();
        let _elapsed = tokio::time::timeout(grace, self.tracker.wait()).await;
        self.tracker.len()
    }
}

struct PanicGuard {
    name: &'static str,
    failed: CancellationToken,
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(task = self.name, "task panicked");
            self.failed.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_begun_ends_though_nobody_waits() {
        let tasks = Tasks::new();
        let (tell, mut told) = oneshot::channel();
        {
            let work = tasks.finish("work", async move {
                tokio::task::yield_now().await;
                tell.send("done").unwrap();
            });
            let mut work = std::pin::pin!(work);
            let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(work.as_mut().poll(cx)));
            assert!(polled.await.is_pending());
        }
        assert_eq!(tasks.join(Duration::from_secs(5)).await, 0);
        assert_eq!(told.try_recv(), Ok("done"));
        assert_eq!(Tasks::new().finish("work", async { 1 }).await, Some(1));
    }

    #[tokio::test]
    async fn a_panic_is_told_and_a_finished_task_is_not() {
        let tasks = Tasks::new();
        tasks.spawn("ends", async {});
        assert_eq!(tasks.join(Duration::from_secs(5)).await, 0);
        let tasks = Tasks::new();
        tasks.spawn("panics", async { panic!("on purpose") });
        tasks.failed().await;
    }
}
