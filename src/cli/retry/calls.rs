//! Requests of a retry to the gateway, and their answers.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use tokio::time::Instant;

use super::{pass::Pass, progress::Done, refused, request, rounds::Rounds};
use crate::cli::{
    Failure,
    client::{Error, Refusal},
};

/// The longest time budget that a gateway allows (24 h), and an hour for attempts in flight at its end.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(25 * 3_600);
/// Longest time for counting the records of a loop; without the count the progress shows no total.
const COUNT_MAX: Duration = Duration::from_secs(2);
/// Longest time for counting the open records at the end; the report does without.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

impl Rounds<'_> {
    /// Returns the partitions to retry, each with its present tail.
    pub(super) async fn survey(&self) -> Result<Vec<Pass>, Failure> {
        let named = &self.arguments.partition;
        let begin = |partition: String, end: Option<u64>| {
            let kept = self
                .offsets
                .as_ref()
                .and_then(|file| file.after(&partition));
            let after = self.arguments.after.or(kept).unwrap_or(-1);
            Pass::new(partition, after, end)
        };
        if named != "*" && !self.arguments.until_end {
            return Ok(vec![begin(named.clone(), None)]);
        }
        let answer = self.send(&request::survey(self.arguments)).await;
        let answer = answer.map_err(|error| refused::failure(error, self.arguments))?;
        let tail = |of: &Value| of.get("tail").and_then(Value::as_u64);
        let mut all = match answer.get("partitions").and_then(Value::as_object) {
            Some(all) if named == "*" => {
                let all = all.iter().map(|(name, of)| begin(name.clone(), tail(of)));
                all.collect()
            }
            None if named != "*" => vec![begin(named.clone(), tail(&answer))],
            _ => return Err(self.no_report()),
        };
        // By number, so that 10 comes after 9.
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

    /// Counts the records of the loop by dry runs; `None` if that takes too long.
    pub(super) async fn count(&mut self) -> Result<Option<u64>, Failure> {
        let by = Instant::now() + COUNT_MAX;
        let mut total = 0;
        for mut pass in self.passes.clone() {
            while !pass.end_of_stream {
                if Instant::now() >= by || pass.is_stuck() {
                    return Ok(None);
                }
                self.progress.show(Done::default(), "counting records");
                if self.call(&mut pass, true).await?.is_some() {
                    return Ok(None);
                }
            }
            total += pass.attempted;
        }
        Ok(Some(total))
    }

    /// Returns how many records of the partitions are open; `None` if that is unknown, and for the main stream.
    pub(super) async fn open_len(&self) -> Option<u64> {
        let request = self
            .client
            .request(Method::GET, &["v1", "streams", &self.arguments.stream], &[])
            .timeout(OPEN_TIMEOUT);
        let answer = self.client.send(request).await.ok()?;
        // Open records of the main stream wait for their dispatch, not for a retry.
        let roles = answer.get("roles").and_then(Value::as_array);
        if roles.is_some_and(|roles| roles.iter().any(|role| role == "source")) {
            return None;
        }
        let is_ours = |of: &&Value| {
            let named = of.get("partition").and_then(Value::as_str);
            let mut passes = self.passes.iter();
            passes.any(|pass| Some(&*pass.partition) == named)
        };
        let bounds = answer.get("bounds")?.as_array()?;
        let open = bounds.iter().filter(is_ours);
        open.map(|of| of.get("open")?.as_u64()).sum()
    }

    /// Makes one call; returns the refusal if another retry of the partition runs.
    pub(super) async fn call(
        &mut self,
        pass: &mut Pass,
        dry_run: bool,
    ) -> Result<Option<Box<Refusal>>, Failure> {
        loop {
            let call = pass.call(self.arguments, dry_run, self.time_budget_ms);
            let body = request::body(self.arguments, call);
            match self.send(&body).await {
                Ok(answer) => {
                    pass.add(answer).ok_or_else(|| self.no_report())?;
                    return Ok(None);
                }
                Err(Error::Refused(refusal)) if refusal.code == "retry_running" => {
                    return Ok(Some(refusal));
                }
                Err(Error::Refused(refusal)) if self.has_too_long_a_budget(&refusal) => {
                    self.time_budget_ms = None;
                }
                Err(error) => return Err(refused::failure(error, self.arguments)),
            }
        }
    }

    /// Returns whether the gateway refused the loop's default time budget as too long.
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

    fn no_report(&self) -> Failure {
        self.client.not_a_gateway("a report of a retry").into()
    }
}
