//! Work on large bodies, without blocking the other tasks of a serving thread.
//!
//! Reading a body of 8 MiB takes tens of milliseconds, and its digest some more. All other clients of that thread would
//! wait. So the runtime first moves the thread's other tasks to another one, for at most four bodies at a time.

use std::sync::Arc;

use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use crate::storage::CommitError;

/// Work on fewer bytes takes less than a millisecond; moving the other tasks would cost more.
const LIGHT_BYTES_MAX: usize = 64 << 10;
/// Large bodies under work at the same time.
const HEAVY_LEN_MAX: usize = 4;

/// Runs work on bodies. Clones share the bound.
#[derive(Clone, Debug)]
pub(super) struct Heavy(Arc<Semaphore>);

impl Default for Heavy {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(HEAVY_LEN_MAX)))
    }
}

impl Heavy {
    #[cfg(test)]
    pub(super) async fn all_turns(&self) -> tokio::sync::SemaphorePermit<'_> {
        let all = u32::try_from(HEAVY_LEN_MAX).unwrap();
        self.0.acquire_many(all).await.unwrap()
    }

    /// Runs `work` on a body of that many bytes. Work on a large body waits for its turn until `by`.
    ///
    /// # Errors
    /// [`CommitError::Busy`]: its turn did not come in time; `work` did not run.
    pub(super) async fn run<T>(
        &self,
        bytes: usize,
        by: Instant,
        work: impl FnOnce() -> T,
    ) -> Result<T, CommitError> {
        if bytes <= LIGHT_BYTES_MAX {
            return Ok(work());
        }
        let turn = timeout_at(by, self.0.acquire()).await;
        let _turn = turn.ok().and_then(Result::ok).ok_or(CommitError::Busy)?;
        // A runtime of one thread, which only tests use, cannot move its tasks.
        Ok(match Handle::current().runtime_flavor() {
            RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
            _ => work(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;
    use crate::runtime::tasks::{Part, Tasks};

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn other_tasks_of_the_only_thread_go_on_meanwhile() {
        let (tell, told) = mpsc::channel();
        let tasks = Tasks::new();
        let by = Instant::now() + Duration::from_secs(60);
        let working = tasks.run_to_end(Part::Commit, async move {
            let other = Tasks::new();
            other.spawn("other", async move { tell.send("done").unwrap() });
            let work = move || told.recv_timeout(Duration::from_secs(60));
            Heavy::default().run(LIGHT_BYTES_MAX + 1, by, work).await
        });
        let done = working.await.expect("no panic").unwrap();
        assert_eq!(done, Ok("done"));
    }

    #[tokio::test(start_paused = true)]
    async fn large_work_waits_for_its_turn_and_not_for_ever() {
        let heavy = Heavy::default();
        let turns = heavy.all_turns().await;
        let by = || Instant::now() + Duration::from_secs(1);
        let light = heavy.run(LIGHT_BYTES_MAX, by(), || 1).await;
        assert_eq!(light.unwrap(), 1);
        let late = heavy.run(LIGHT_BYTES_MAX + 1, by(), || 1).await;
        assert!(matches!(late, Err(CommitError::Busy)));
        drop(turns);
        let large = heavy.run(LIGHT_BYTES_MAX + 1, by(), || 1).await;
        assert_eq!(large.unwrap(), 1);
    }
}
