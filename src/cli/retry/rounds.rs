//! The calls of a retry: one for each partition, or rounds over them until each is at its end.
//!
//! A round takes the partitions in turn. A partition rests while the breaker of its target is open, while new records take
//! all slots, or while another retry of it runs; the other partitions go on. When all rest, the next round begins as soon
//! as one of them may go on.

use serde_json::Value;
use tokio::time::Instant;

use super::{
    Arguments,
    pass::{Other, Pass, Rest},
    progress::{Done, Progress},
    refused,
    stopped::{self, Stopped, stopped},
    waiting::{Told, pause_for},
};
use crate::cli::{Failure, client::Client, tail::offset_file::OffsetFile};

/// Time budget of a loop's call: short, for progress and a quick Ctrl-C.
const LOOP_BUDGET_MS: u64 = 3_000;

/// The calls of a retry.
#[derive(Debug)]
pub(super) struct Rounds<'a> {
    pub(super) client: &'a Client,
    pub(super) arguments: &'a Arguments,
    pub(super) offsets: Option<OffsetFile>,
    /// `timeBudgetMs` of the calls.
    pub(super) time_budget_ms: Option<u64>,
    pub(super) passes: Vec<Pass>,
    pub(super) progress: Progress,
    /// Open records of these partitions at the end; `None` if they were not counted.
    pub(super) open: Option<u64>,
    /// Time of the last delivery, or of the first call.
    pub(super) delivered_at: Instant,
    /// The reason for waiting that was last written to standard error.
    pub(super) told: Told,
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
            open: None,
            delivered_at: Instant::now(),
            told: Told::Nothing,
        }
    }

    /// Makes all calls, then counts the open records.
    ///
    /// # Cancel safety
    /// `passes` holds the answers so far.
    pub(super) async fn run(&mut self) -> Result<(), Failure> {
        let ended = self.make_calls().await;
        let any = self.passes.iter().any(|pass| pass.calls > 0);
        if any && !self.arguments.dry_run {
            self.open = self.open_len().await;
        }
        ended
    }

    async fn make_calls(&mut self) -> Result<(), Failure> {
        self.passes = self.survey().await?;
        if self.arguments.until_end && !self.arguments.dry_run {
            let total = self.count().await?;
            self.progress.of(total);
        }
        self.delivered_at = Instant::now();
        loop {
            let settled = self.done().settled();
            for at in 0..self.passes.len() {
                if !self.passes[at].end_of_stream && !self.rests(at) {
                    self.passes[at].rest = self.pass(at).await?;
                }
            }
            if self.passes.iter().all(|pass| pass.end_of_stream) {
                return Ok(());
            }
            if !self.arguments.until_end {
                return self.ended_once();
            }
            if self.done().settled() > settled {
                self.told = Told::Nothing;
            }
            self.wait().await?;
        }
    }

    /// Returns whether the partition's target must not be called yet.
    fn rests(&self, at: usize) -> bool {
        match &self.passes[at].rest {
            Rest::Target(waits) => !pause_for(waits).is_zero(),
            Rest::None | Rest::Turn | Rest::Other(_) => false,
        }
    }

    /// Fails if the single call of a partition was stopped by another retry or an open breaker.
    fn ended_once(&self) -> Result<(), Failure> {
        let other = |pass: &Pass| match &pass.rest {
            Rest::Other(other) => Some(other.refusal.clone()),
            Rest::None | Rest::Turn | Rest::Target(_) => None,
        };
        if let Some(refusal) = self.passes.iter().find_map(other) {
            return Err(refused::refused(&refusal, self.arguments));
        }
        match stopped::waits(&self.passes) {
            Some(first) => Err(Failure::failed(stopped::given_up(&first, &self.passes))),
            None => Ok(()),
        }
    }

    /// Makes the calls of a partition in this round; returns why it rests, if it is not at its end.
    async fn pass(&mut self, at: usize) -> Result<Rest, Failure> {
        self.passes[at].has_waited();
        loop {
            let note = self.note(at);
            self.progress.show(self.done(), &note);
            let mut pass = self.passes[at].clone();
            if let Some(refusal) = self.call(&mut pass, self.arguments.dry_run).await? {
                let since = match &pass.rest {
                    Rest::Other(other) => other.since,
                    Rest::None | Rest::Turn | Rest::Target(_) => Instant::now(),
                };
                return Ok(Rest::Other(Other { refusal, since }));
            }
            if pass.delivered > self.passes[at].delivered {
                self.delivered_at = Instant::now();
            }
            pass.rest = Rest::None;
            let (partition, after) = (pass.partition.clone(), pass.after);
            self.passes[at] = pass;
            if let (Some(offsets), false) = (&mut self.offsets, self.arguments.dry_run) {
                offsets.store(&partition, after)?;
            }
            self.progress.show(self.done(), &note);
            let pass = &self.passes[at];
            if pass.end_of_stream {
                return Ok(Rest::None);
            }
            match stopped(&pass.last_answer) {
                Some(Stopped::Fails(why)) => return Err(Failure::failed(why)),
                Some(Stopped::Waits(waits)) => return Ok(Rest::Target(waits)),
                None if !self.arguments.until_end => return Ok(Rest::None),
                None => {}
            }
            if pass.is_idle() && self.had_no_turn(at) {
                return Ok(Rest::Turn);
            }
            if pass.is_stuck() {
                return Err(Failure::failed(format!(
                    "calls in a row settled nothing of partition {partition}, and it is not at its end; \
                     is --time-budget-ms or --max too small?"
                )));
            }
        }
    }

    /// Returns whether the last call of a loop made no attempt, although it had time for one.
    fn had_no_turn(&self, at: usize) -> bool {
        let attempted = self.passes[at].last_answer.get("attempted");
        let has_time = self.arguments.time_budget_ms.is_none() && self.arguments.until_end;
        has_time && attempted.and_then(Value::as_u64) == Some(0)
    }

    pub(super) fn done(&self) -> Done {
        let sum = |of: fn(&Pass) -> u64| self.passes.iter().map(of).sum();
        match self.arguments.dry_run {
            true => Done {
                would_be_sent: sum(|pass| pass.attempted),
                ..Done::default()
            },
            false => Done {
                delivered: sum(|pass| pass.delivered),
                failed: sum(|pass| pass.failed),
                would_be_sent: 0,
            },
        }
    }

    fn note(&self, at: usize) -> String {
        let rate = match self.arguments.rate {
            Some(rate) => format!(", at most {rate}/s by --rate"),
            None => String::new(),
        };
        format!("partition {}{rate}", self.passes[at].partition)
    }
}
