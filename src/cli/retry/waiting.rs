//! The wait of a loop when all of its partitions rest: for another retry, a turn beside new records, or a target.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    pass::{Pass, Rest},
    refused,
    rounds::Rounds,
    stopped::{self, Waits},
};
use crate::{
    cli::{Failure, output::cell},
    runtime::clock::Clock,
};

/// A loop gives up waiting for targets after so long without a delivery. That is three times the longest pause of a
/// breaker, and less than the time between two runs of cron.
const IDLE_MAX: Duration = Duration::from_secs(90);
/// The shortest wait for a target, because the clocks of the gateway and of this machine may differ.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// Dispatch and retries share the slots of a target.
const NO_TURN: &str = "waiting for a turn: new messages take all calls of the targets";
/// Longest wait for another retry of the partition.
const RUNNING_MAX: Duration = Duration::from_secs(3_600);
/// Interval between calls while another retry runs.
const RUNNING_AGAIN: Duration = Duration::from_millis(500);

/// The reason for waiting that was last written to standard error; a pipe gets one line for each reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Nothing,
    Turn,
    Other,
}

impl Rounds<'_> {
    /// Waits until a partition may go on; fails if nothing was delivered for too long.
    pub(super) async fn wait(&mut self) -> Result<(), Failure> {
        let open = self.passes.iter().filter(|pass| !pass.end_of_stream);
        let (mut turn, mut target, mut other) = (None, None::<Waits>, None);
        for pass in open {
            match &pass.rest {
                Rest::None => return Ok(()),
                Rest::Turn => turn = Some(pass.partition.clone()),
                Rest::Target(waits) => {
                    let is_first = target
                        .as_ref()
                        .is_none_or(|first| waits.until < first.until);
                    target = if is_first {
                        Some(waits.clone())
                    } else {
                        target
                    };
                }
                Rest::Other(_) => other = other.or(Some(pass)),
            }
        }
        if let Some(pass) = other.cloned() {
            return self.wait_for_other(&pass).await;
        }
        if let Some(partition) = turn {
            return self.wait_for_turn(&partition).await;
        }
        match target {
            Some(waits) => self.wait_for_target(&waits).await,
            None => Ok(()),
        }
    }

    /// Returns whether the time without a delivery is too long after this pause.
    fn is_late(&self, pause: Duration) -> bool {
        Instant::now() + pause > self.delivered_at + IDLE_MAX
    }

    async fn wait_for_target(&mut self, waits: &Waits) -> Result<(), Failure> {
        let pause = pause_for(waits).max(PAUSE_MIN);
        if self.is_late(pause) {
            return Err(Failure::failed(stopped::given_up(waits, &self.passes)));
        }
        let target = &waits.target;
        let why = |secs| format!("paused for another {secs} s: {target} is not called until then");
        self.progress.pause(pause, why).await;
        Ok(())
    }

    async fn wait_for_turn(&mut self, partition: &str) -> Result<(), Failure> {
        if self.is_late(Duration::ZERO) {
            return Err(Failure::failed(format!(
                "no record of partition {partition} was called for {} s, because new messages take all calls of its \
                 targets; run this again later",
                IDLE_MAX.as_secs()
            )));
        }
        self.tell(Told::Turn, NO_TURN);
        sleep(PAUSE_MIN).await;
        Ok(())
    }

    /// Waits half a second for another retry of a partition; the first time, names its user.
    async fn wait_for_other(&mut self, pass: &Pass) -> Result<(), Failure> {
        let Rest::Other(other) = &pass.rest else {
            return Ok(());
        };
        if other.since.elapsed() >= RUNNING_MAX {
            return Err(refused::refused(&other.refusal, self.arguments));
        }
        let by = match cell(&other.refusal.body, "/by") {
            by if by.is_empty() => by,
            by => format!(" by {by}"),
        };
        self.tell(
            Told::Other,
            &format!(
                "waiting for another retry of partition {}{by}, whose present call began at {}",
                pass.partition,
                cell(&other.refusal.body, "/since")
            ),
        );
        sleep(RUNNING_AGAIN).await;
        // The other retry may have delivered records, so the time without a delivery starts again.
        self.delivered_at = Instant::now();
        Ok(())
    }

    /// Shows why the loop waits; a pipe gets the line once.
    fn tell(&mut self, what: Told, why: &str) {
        match std::mem::replace(&mut self.told, what) == what {
            true => self.progress.show(self.done(), why),
            false => self.progress.announce(why),
        }
    }
}

/// Returns the time until a target may be called.
pub(super) fn pause_for(waits: &Waits) -> Duration {
    waits.until.since(Clock::system().now())
}
