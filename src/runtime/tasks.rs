//! Tasks: started by name, awaited at drain, with a stop of the gateway when one of them panics.
//!
//! A panic in a task that owns the state of the log or of a partition stops the gateway ([`Tasks::spawn`]), because
//! that state may be half changed. A panic in work for one client ends that work only ([`Tasks::spawn_guarded`],
//! [`Panics::guard`]); it is counted and logged.

use std::{future::Future, panic::AssertUnwindSafe, pin::pin, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use prometheus_client::metrics::{counter::Counter, family::Family};
use tokio::sync::oneshot;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The one label of the counters, `part`.
type PartLabel = [(&'static str, String); 1];

/// Starts tasks and waits for them. Clones share one set of tasks.
#[derive(Clone, Debug, Default)]
pub struct Tasks(Arc<Set>);

#[derive(Debug, Default)]
struct Set {
    tracker: TaskTracker,
    failed: CancellationToken,
    panics: Panics,
}

/// Kinds of work for one client or one target: the values of the label `part` of the metric of panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// An HTTP connection.
    Connection,
    /// One request on a connection; its client gets 500.
    Request,
    /// A WebSocket session; it is closed with 1011.
    WebSocket,
    /// An answer of Server-Sent Events; it ends with the event `close` and 1011.
    Sse,
    /// A page of records that push reads ahead; it is read again when it is needed.
    Page,
    /// A frame of push; each subscriber that waits for it is closed with 1011.
    Frame,
    /// A pass of a retry; its caller gets 500.
    Retry,
    /// A change that runs to its end without its caller: of a data stream, a cursor, or a purge. The caller's answer
    /// is that it may have been stored.
    Change,
    /// The commit of a submission that has an idempotency key; its caller gets 503 `maybe_stored`.
    Commit,
    /// The HTTP/2 connection to one target; its calls fail as if the connection was lost.
    Target,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Connection,
        Self::Request,
        Self::WebSocket,
        Self::Sse,
        Self::Page,
        Self::Frame,
        Self::Retry,
        Self::Change,
        Self::Commit,
        Self::Target,
    ];

    /// Returns the label's value.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Request => "request",
            Self::WebSocket => "websocket",
            Self::Sse => "sse",
            Self::Page => "page",
            Self::Frame => "frame",
            Self::Retry => "retry",
            Self::Change => "change",
            Self::Commit => "commit",
            Self::Target => "target",
        }
    }
}

/// Counts panics in work for one client or target. Clones share the counters.
#[derive(Clone, Debug)]
pub struct Panics(Family<PartLabel, Counter>);

impl Default for Panics {
    fn default() -> Self {
        let panics = Self(Family::default());
        // Each part is shown at zero from the start, because an alert cannot see a series that is not there yet.
        for part in Part::ALL {
            drop(panics.counter(part));
        }
        panics
    }
}

impl Panics {
    /// Returns the counters, by `part`.
    #[must_use]
    pub fn counters(&self) -> &Family<PartLabel, Counter> {
        &self.0
    }

    /// Runs work for one client; returns `None` if it panicked, which is counted and logged.
    ///
    /// State that the work has borrowed may be half changed after a panic. The caller drops it, or only closes it.
    ///
    /// # Cancel safety
    /// That of the work.
    pub async fn guard<T>(&self, part: Part, work: impl Future<Output = T>) -> Option<T> {
        // Pinned here, because each move of the future would copy its whole state.
        let work = pin!(work);
        match AssertUnwindSafe(work).catch_unwind().await {
            Ok(done) => Some(done),
            // The text of a panic may hold a payload, so it is not logged here.
            Err(_said) => {
                self.counter(part).inc();
                tracing::error!(
                    part = part.word(),
                    "a panic has ended the work of one client or target"
                );
                None
            }
        }
    }

    /// Returns the number of panics.
    #[cfg(test)]
    pub(crate) fn count(&self, part: Part) -> u64 {
        self.counter(part).get()
    }

    fn counter(&self, part: Part) -> Counter {
        self.0
            .get_or_create_owned(&[("part", part.word().to_owned())])
    }
}

impl Tasks {
    /// Returns an empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns another set of tasks that shares the counters of panics.
    #[must_use]
    pub fn sibling(&self) -> Self {
        Self(Arc::new(Set {
            panics: self.0.panics.clone(),
            ..Set::default()
        }))
    }

    /// Returns the counters of panics.
    #[must_use]
    pub fn panics(&self) -> &Panics {
        &self.0.panics
    }

    /// Starts a task for one client: a panic ends this task only.
    pub fn spawn_guarded(&self, part: Part, task: impl Future<Output = ()> + Send + 'static) {
        let panics = self.0.panics.clone();
        self.spawn(part.word(), async move {
            let _ended = panics.guard(part, task).await;
        });
    }

    /// Starts a task that runs until drain. If it panics, [`Tasks::failed`] fires and the gateway stops.
    #[expect(clippy::disallowed_methods, reason = "the one place that starts tasks")]
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let failed = self.0.failed.clone();
        let tracked = self.0.tracker.track_future(task);
        tokio::spawn(async move {
            let guard = PanicGuard { name, failed };
            tracked.await;
            std::mem::forget(guard);
        });
    }

    /// Runs `work` as a task, to its end even if this call is dropped, for changes of several steps. Returns `None`
    /// if it panicked.
    pub async fn run_to_end<T: Send + 'static>(
        &self,
        part: Part,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (tell, told) = oneshot::channel();
        self.spawn_guarded(part, async move {
            // Ignore send errors: the caller may have gone away.
            let _told = tell.send(work.await).is_ok();
        });
        told.await.ok()
    }

    /// Fires when a task has panicked.
    pub async fn failed(&self) {
        self.0.failed.cancelled().await;
    }

    /// Waits until every task has ended, at most `grace`; returns the number of those still running.
    pub async fn join(&self, grace: Duration) -> usize {
        self.0.tracker.close();
        let _elapsed = tokio::time::timeout(grace, self.0.tracker.wait()).await;
        self.0.tracker.len()
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

/// Panics if `text` asks for it: with this a test has a panic where it needs one, in a build for tests only.
#[cfg(test)]
pub(crate) fn provoke(part: Part, text: &[u8]) {
    let wanted = format!("panic-on-purpose:{}.", part.word());
    let is_wanted = |part: &[u8]| part == wanted.as_bytes();
    assert!(!text.windows(wanted.len()).any(is_wanted), "on purpose");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn run_to_end_finishes_after_its_call_is_dropped() {
        let tasks = Tasks::new();
        let (tell, mut told) = oneshot::channel();
        {
            let work = tasks.run_to_end(Part::Change, async move {
                tokio::task::yield_now().await;
                tell.send("done").unwrap();
            });
            let mut work = std::pin::pin!(work);
            let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(work.as_mut().poll(cx)));
            assert!(polled.await.is_pending());
        }
        assert_eq!(tasks.join(Duration::from_secs(5)).await, 0);
        assert_eq!(told.try_recv(), Ok("done"));
        assert_eq!(
            Tasks::new().run_to_end(Part::Change, async { 1 }).await,
            Some(1)
        );
    }

    #[tokio::test]
    async fn a_panic_fires_failed_and_a_finished_task_does_not() {
        let tasks = Tasks::new();
        tasks.spawn("ends", async {});
        assert_eq!(tasks.join(Duration::from_secs(5)).await, 0);
        let tasks = Tasks::new();
        tasks.spawn("panics", async { panic!("on purpose") });
        tasks.failed().await;
    }
    #[tokio::test]
    async fn a_panic_in_the_work_of_one_client_is_counted_and_does_not_fire_failed() {
        let tasks = Tasks::new();
        let other = tasks.sibling();
        tasks.spawn_guarded(Part::Page, async { panic!("on purpose") });
        other.spawn_guarded(Part::Page, async { panic!("on purpose") });
        tasks.spawn_guarded(Part::Frame, async {});
        let none = tasks.run_to_end(Part::Change, async { panic!("on purpose") });
        assert_eq!(none.await, None::<()>);
        for tasks in [&tasks, &other] {
            assert_eq!(tasks.join(Duration::from_secs(5)).await, 0);
            assert!(tasks.failed().now_or_never().is_none());
        }
        let counted = Part::ALL.map(|part| tasks.panics().count(part));
        let expected = Part::ALL.map(|part| match part {
            Part::Page => 2,
            Part::Change => 1,
            _ => 0,
        });
        assert_eq!(counted, expected);
    }
}
