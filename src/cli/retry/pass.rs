//! The results of one partition, call by call.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Arguments, request::Call, stopped::Waits};
use crate::cli::client::Refusal;

/// After so many calls without a record the loop gives up, because the time budget is too short for one record.
const IDLE_CALLS_MAX: u32 = 3;

/// The results of one partition.
#[derive(Clone, Debug)]
pub(super) struct Pass {
    pub(super) partition: String,
    /// The last offset read.
    pub(super) after: i64,
    pub(super) calls: u64,
    pub(super) attempted: u64,
    pub(super) delivered: u64,
    pub(super) failed: u64,
    pub(super) skipped: u64,
    pub(super) unmatched: u64,
    /// How many failed records each stream got.
    pub(super) moved_to: BTreeMap<String, u64>,
    pub(super) end_of_stream: bool,
    pub(super) last_answer: Value,
    /// The tail of the partition when the command began, where the loop stops; `None` for a single call.
    pub(super) end: Option<u64>,
    /// Why the next call waits.
    pub(super) rest: Rest,
    /// Calls in a row that settled nothing.
    idle_calls: u32,
}

/// Why the next call of a partition waits.
#[derive(Clone, Debug)]
pub(super) enum Rest {
    /// It does not wait.
    None,
    /// The breaker of a target is open, and the gateway left its records.
    Target(Waits),
    /// New records take all slots of the targets.
    Turn,
    /// Another retry of the partition runs.
    Other(Other),
}

/// Another retry of a partition.
#[derive(Clone, Debug)]
pub(super) struct Other {
    pub(super) refusal: Box<Refusal>,
    /// When the wait began.
    pub(super) since: Instant,
}

impl Pass {
    pub(super) fn new(partition: String, after: i64, end: Option<u64>) -> Self {
        Self {
            partition,
            after,
            calls: 0,
            attempted: 0,
            delivered: 0,
            failed: 0,
            skipped: 0,
            unmatched: 0,
            moved_to: BTreeMap::new(),
            end_of_stream: false,
            last_answer: Value::Null,
            end,
            rest: Rest::None,
            idle_calls: 0,
        }
    }

    /// Returns the next call.
    pub(super) fn call(
        &self,
        arguments: &Arguments,
        dry_run: bool,
        time_budget_ms: Option<u64>,
    ) -> Call<'_> {
        // The gateway knows the offset of a group. A dry run does not move the group, so its next call names the offset.
        let says_offset = match (&arguments.group, self.calls) {
            (None, _) => true,
            (Some(_), 0) => arguments.after.is_some(),
            (Some(_), _) => dry_run,
        };
        Call {
            partition: &self.partition,
            after: says_offset.then_some(self.after),
            before: self.end,
            records_max: arguments.max,
            time_budget_ms,
            dry_run,
        }
    }

    /// Adds an answer; `None` if it is not a retry's report.
    pub(super) fn add(&mut self, answer: Value) -> Option<()> {
        let before = (self.after, self.settled());
        let number = |name: &str| answer.get(name).and_then(Value::as_u64).unwrap_or(0);
        let last = answer.get("lastReadOffset").and_then(Value::as_i64)?;
        let end = answer.get("endOfStream").and_then(Value::as_bool)?;
        self.calls += 1;
        self.attempted += number("attempted");
        self.delivered += number("processedmessages");
        self.failed += number("failedMessages");
        self.skipped += number("skipped");
        self.unmatched += number("unmatched");
        let moved = answer.get("movedTo").and_then(Value::as_object);
        for (stream, len) in moved.into_iter().flatten() {
            *self.moved_to.entry(stream.clone()).or_default() += len.as_u64().unwrap_or(0);
        }
        self.after = last;
        self.end_of_stream = end;
        self.last_answer = answer;
        // The offset stays before records that wait for their target, while later records of other targets are settled.
        let moves = before != (self.after, self.settled());
        self.idle_calls = if moves { 0 } else { self.idle_calls + 1 };
        Some(())
    }

    /// Returns how many records were delivered or failed.
    pub(super) fn settled(&self) -> u64 {
        self.delivered + self.failed
    }

    /// Resets the count of idle calls after a wait.
    pub(super) fn has_waited(&mut self) {
        self.idle_calls = 0;
    }

    /// Returns whether the last call settled nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.idle_calls > 0
    }

    /// Returns whether the last calls settled nothing.
    pub(super) fn is_stuck(&self) -> bool {
        self.idle_calls >= IDLE_CALLS_MAX
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "partition": self.partition,
            "calls": self.calls,
            "attempted": self.attempted,
            "processedmessages": self.delivered,
            "failedMessages": self.failed,
            "movedTo": self.moved_to,
            "skipped": self.skipped,
            "unmatched": self.unmatched,
            "lastReadOffset": self.after,
            "endOfStream": self.end_of_stream,
            "lastAnswer": self.last_answer,
        })
    }
}
