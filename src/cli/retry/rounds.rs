//! The calls of a retry: one for each partition, or rounds over them until each is at its end.
//!
//! A round takes the partitions one behind the other. Records that it leaves because their target is not called for now
//! wait for the next round, which begins when the first of these targets may be called.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{
    Arguments,
    pass::Pass,
    progress::Progress,
    request,
    stopped::{Stopped, Waits, stopped},
};
use crate::{
    cli::{
        Failure,
        client::{Client, Error, Refusal},
        offset_file::OffsetFile,
        output::cell,
    },
    clock::Clock,
};

/// The longest time budget that a gateway can be configured to, and an hour for what was in flight at its end.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(25 * 3_600);
/// A call of a loop, so that its progress is seen and Ctrl-C is heeded soon.
const LOOP_BUDGET_MS: u64 = 3_000;
/// Counting the records of a loop takes so long at most; more are not worth the time.
const COUNT_MAX: Duration = Duration::from_secs(2);
/// A loop waits for targets until nothing was delivered for so long. It is three times the longest pause of a breaker, and
/// less than the time between two runs of cron.
const IDLE_MAX: Duration = Duration::from_secs(90);
/// The shortest wait for a target: the clocks of the gateway and of this machine may differ.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// Dispatch and retries share the calls that a target takes at the same time.
const NO_TURN: &str = "waiting for a turn: new messages take all calls of the targets";
/// How long another retry of the partition is waited for.
const RUNNING_MAX: Duration = Duration::from_secs(3_600);
/// How often that is looked for.
const RUNNING_AGAIN: Duration = Duration::from_millis(500);

/// The calls of a retry.
#[derive(Debug)]
pub(super) struct Rounds<'a> {
    client: &'a Client,
    arguments: &'a Arguments,
    offsets: Option<OffsetFile>,
    /// `timeBudgetMs` of the calls.
    time_budget_ms: Option<u64>,
    pub(super) passes: Vec<Pass>,
    pub(super) progress: Progress,
    /// When a record was delivered last, or the first call began.
    delivered_at: Instant,
}

/// Why there are no more calls for a partition in this round.
enum Ended {
    /// It is at its end, or there was to be one call only.
    Done,
    /// The gateway has left records of a target that is not called for now.
    Waits(Waits),
}

impl<'a> Rounds<'a> {
    pub(super) fn new(
        client: &'a Client,
        arguments: &'a Arguments,
        offsets: Option<OffsetFile>,
    ) -> Self {
        let of_loop = arguments.until_end.then_some(LOOP_BUDGET_MS);
        Self {
            client,
            arguments,
            offsets,
            time_budget_ms: arguments.time_budget_ms.or(of_loop),
            passes: Vec::new(),
            progress: Progress::new(),
            delivered_at: Instant::now(),
        }
    }

    /// Makes all calls.
    ///
    /// # Cancel safety
    /// `passes` holds what was answered so far.
    pub(super) async fn run(&mut self) -> Result<(), Failure> {
        self.passes = self.survey().await?;
        if self.arguments.until_end && !self.arguments.dry_run {
            let total = self.count().await?;
            self.progress.of(total);
        }
        self.delivered_at = Instant::now();
        loop {
            let mut first: Option<Waits> = None;
            for at in 0..self.passes.len() {
                if self.passes[at].end_of_stream {
                    continue;
                }
                if let Ended::Waits(waits) = self.pass(at).await? {
                    first = Some(match first {
                        Some(first) if first.until <= waits.until => first,
                        _ => waits,
                    });
                }
            }
            let Some(waits) = first else { return Ok(()) };
            self.wait_for(&waits).await?;
        }
    }

    /// Returns the partitions that are asked for, each with the end that it has now.
    async fn survey(&self) -> Result<Vec<Pass>, Failure> {
        let named = &self.arguments.partition;
        let begin = |partition: String, end: Option<u64>| {
            let kept = self
                .offsets
                .as_ref()
                .and_then(|file| file.after(&partition));
            let after = self.arguments.after.or(kept).unwrap_or(-1);
            Pass::new(partition, after, end.filter(|_| self.arguments.until_end))
        };
        if named != "*" && !self.arguments.until_end {
            return Ok(vec![begin(named.clone(), None)]);
        }
        let answer = self.send(&request::survey(self.arguments)).await?;
        let tail = |of: &Value| of.get("tail").and_then(Value::as_u64);
        let mut all = match answer.get("partitions").and_then(Value::as_object) {
            Some(all) if named == "*" => {
                let all = all.iter().map(|(name, of)| begin(name.clone(), tail(of)));
                all.collect()
            }
            None if named != "*" => vec![begin(named.clone(), tail(&answer))],
            _ => return Err(self.no_report()),
        };
        // "10" is behind "9".
        all.sort_by_key(|pass| pass.partition.parse::<u16>().unwrap_or(u16::MAX));
        match self.arguments.after {
            Some(after @ 0..) if all.len() > 1 => Err(Failure::usage(format!(
                "--after {after} is an offset of one partition, and {} has {}: give --partition P too",
                self.arguments.stream,
                all.len()
            ))),
            _ => Ok(all),
        }
    }

    /// Returns how many records the loop is about; `None` if to count them takes too long.
    async fn count(&mut self) -> Result<Option<u64>, Failure> {
        let by = Instant::now() + COUNT_MAX;
        let mut total = 0;
        for mut pass in self.passes.clone() {
            while !pass.end_of_stream {
                if Instant::now() >= by || pass.is_stuck() {
                    return Ok(None);
                }
                self.progress.show(0, "counting records");
                self.call(&mut pass, true).await?;
            }
            total += pass.attempted;
        }
        Ok(Some(total))
    }

    /// Calls for a partition as far as it goes in this round.
    async fn pass(&mut self, at: usize) -> Result<Ended, Failure> {
        self.passes[at].has_waited();
        loop {
            let note = self.note(at);
            self.progress.show(self.done(), &note);
            let mut pass = self.passes[at].clone();
            self.call(&mut pass, self.arguments.dry_run).await?;
            if pass.delivered > self.passes[at].delivered {
                self.delivered_at = Instant::now();
            }
            let (partition, after) = (pass.partition.clone(), pass.after);
            self.passes[at] = pass;
            if let (Some(offsets), false) = (&mut self.offsets, self.arguments.dry_run) {
                offsets.store(&partition, after)?;
            }
            self.progress.show(self.done(), &note);
            let pass = &self.passes[at];
            if pass.end_of_stream {
                return Ok(Ended::Done);
            }
            match stopped(&pass.last_answer) {
                Some(Stopped::Fails(why)) => return Err(Failure::failed(why)),
                Some(Stopped::Waits(waits)) => return Ok(Ended::Waits(waits)),
                None if !self.arguments.until_end => return Ok(Ended::Done),
                None => {}
            }
            if pass.is_stuck() && self.had_no_turn(at) {
                if self.delivered_at.elapsed() > IDLE_MAX {
                    return Err(Failure::failed(format!(
                        "no record of partition {partition} was called for {} s, because new messages take all calls of its \
                         targets; run this again later",
                        IDLE_MAX.as_secs()
                    )));
                }
                self.progress.show(self.done(), NO_TURN);
                sleep(PAUSE_MIN).await;
                continue;
            }
            if pass.is_stuck() {
                return Err(Failure::failed(format!(
                    "calls in a row settled nothing of partition {partition}, and it is not at its end; \
                     is --time-budget-ms or --max too small?"
                )));
            }
        }
    }

    /// Returns whether a loop's last call for a partition has called nothing, although it had time for that.
    fn had_no_turn(&self, at: usize) -> bool {
        let attempted = self.passes[at].last_answer.get("attempted");
        let has_time = self.arguments.time_budget_ms.is_none() && self.arguments.until_end;
        has_time && attempted.and_then(Value::as_u64) == Some(0)
    }

    /// Waits until a target may be called, if that is worth it.
    async fn wait_for(&mut self, waits: &Waits) -> Result<(), Failure> {
        let now = Clock::system().now();
        let pause = waits.until.since(now).max(PAUSE_MIN);
        let is_late = Instant::now() + pause > self.delivered_at + IDLE_MAX;
        if !self.arguments.until_end || is_late {
            return Err(Failure::failed(waits.why.clone()));
        }
        let target = &waits.target;
        let why = |secs| format!("paused for another {secs} s: {target} is not called until then");
        self.progress.pause(pause, why).await;
        Ok(())
    }

    /// Makes one call; where it is refused because of another retry, a loop waits for that.
    async fn call(&mut self, pass: &mut Pass, dry_run: bool) -> Result<(), Failure> {
        let waits_until = Instant::now() + RUNNING_MAX;
        let mut told = false;
        loop {
            let call = pass.call(self.arguments, dry_run, self.time_budget_ms);
            let body = request::body(self.arguments, call);
            match self.send(&body).await {
                Ok(answer) => return pass.add(answer).ok_or_else(|| self.no_report()),
                Err(Error::Refused(refusal))
                    if self.arguments.until_end
                        && refusal.code == "retry_running"
                        && Instant::now() < waits_until =>
                {
                    self.wait_for_other(pass, &refusal, &mut told).await;
                }
                Err(Error::Refused(refusal)) if self.has_too_long_a_budget(&refusal) => {
                    self.time_budget_ms = None;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits a little for another retry of the partition; the first time, says whose it is.
    async fn wait_for_other(&mut self, pass: &Pass, refusal: &Refusal, told: &mut bool) {
        let partition = &pass.partition;
        let since = cell(&refusal.body, "/since");
        let by = match cell(&refusal.body, "/by") {
            by if by.is_empty() => by,
            by => format!(", by {by}"),
        };
        let why = format!(
            "waiting for another retry of partition {partition}, which has been running since {since}{by}"
        );
        match std::mem::replace(told, true) {
            false => self.progress.announce(&why),
            true => self.progress.show(self.done(), &why),
        }
        sleep(RUNNING_AGAIN).await;
        // That one may have delivered what this one waits to deliver.
        self.delivered_at = Instant::now();
    }

    /// Returns whether the gateway allows less time than a loop takes by itself.
    fn has_too_long_a_budget(&self, refusal: &Refusal) -> bool {
        let is_about_budget = |(pointer, _): &(String, String)| pointer == "/timeBudgetMs";
        self.arguments.time_budget_ms.is_none()
            && self.time_budget_ms.is_some()
            && refusal.members.iter().any(is_about_budget)
    }

    async fn send(&self, body: &Value) -> Result<Value, Error> {
        let request = self
            .client
            .request(Method::POST, &["stream", "retry"], &[])
            .timeout(ANSWER_TIMEOUT)
            .json(body);
        self.client.send(request).await
    }

    fn done(&self) -> u64 {
        let done = |pass: &Pass| match self.arguments.dry_run {
            true => pass.attempted,
            false => pass.delivered + pass.failed,
        };
        self.passes.iter().map(done).sum()
    }

    fn note(&self, at: usize) -> String {
        let rate = match self.arguments.rate {
            Some(rate) => format!(", at most {rate}/s by --rate"),
            None => String::new(),
        };
        format!("partition {}{rate}", self.passes[at].partition)
    }

    fn no_report(&self) -> Failure {
        Failure::failed(format!(
            "{} answered something else than a report of a retry",
            self.client.base()
        ))
    }
}
