//! `syncgate retry STREAM`: dispatches records of a stream again, a call or a loop of calls, for people and for cron.
//!
//! Each partition has an offset of its own, so `--partition '*'` is a loop over the partitions.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    Failure, Gateway, Output,
    client::Client,
    offset_file::OffsetFile,
    output::{self, Table, counted},
    when,
};
use crate::config::Unit;

/// The longest time budget that a gateway can be configured to, and an hour for what was in flight at its end.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(25 * 3_600);
/// So many calls without a record read, and the loop gives up: the time budget is too short for even one.
const IDLE_CALLS_MAX: u32 = 3;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Name or id of the stream.
    stream: String,
    #[command(flatten)]
    gateway: Gateway,
    /// Calls again, from the last offset read, until the end that the stream had at first.
    #[arg(long = "loop")]
    until_end: bool,
    /// The partition; `*` means all of them, one behind the other.
    #[arg(long, value_name = "P", default_value = "0")]
    partition: String,
    /// Reads after this offset; -1 means from the earliest record. Of several partitions, in each.
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        conflicts_with = "offset_file"
    )]
    after: Option<i64>,
    /// Goes on where the last call with this group came to, and keeps in the gateway how far this one came. With --after it
    /// begins there and takes the group along.
    #[arg(long, value_name = "NAME", conflicts_with = "offset_file")]
    group: Option<String>,
    /// Records of one call.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    max: u64,
    /// Where failures of a status or cause go, such as 404=UnrecoverableErrorStream; can be given several times.
    #[arg(long, value_name = "CAUSE=STREAM", value_parser = mapping)]
    map: Vec<(String, String)>,
    /// Only records of which this is true: target, cause, key, operation, from or to; can be given several times, and of
    /// several with one name one must be true. Such as cause=503, cause=network, target=https://orders.example,
    /// from=2026-12-01, to="1h ago".
    #[arg(long, value_name = "NAME=VALUE", value_parser = condition)]
    filter: Vec<(String, String)>,
    /// Calls that begin in a second, at most.
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// Only counts; nothing is called.
    #[arg(long)]
    dry_run: bool,
    /// Also dispatches records again that were delivered or moved already.
    #[arg(long)]
    redeliver: bool,
    /// Milliseconds that one call may take, or a time with a unit, such as 30s.
    #[arg(long, value_name = "MS", value_parser = milliseconds)]
    time_budget_ms: Option<u64>,
    /// Keeps the last offset read in this file after each call, and begins behind it the next time.
    #[arg(long, value_name = "FILE")]
    offset_file: Option<PathBuf>,
}

fn mapping(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((cause, stream)) if !cause.is_empty() && !stream.is_empty() => {
            Ok((cause.into(), stream.into()))
        }
        _ => Err("give CAUSE=STREAM, such as 404=UnrecoverableErrorStream".into()),
    }
}

fn milliseconds(text: &str) -> Result<u64, String> {
    Unit::Milliseconds.read(text)
}

/// Names and values are for the gateway to judge, times aside. A key may be empty.
fn condition(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name @ ("from" | "to"), value)) => Ok((name.into(), when::time(value)?)),
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("give NAME=VALUE, such as cause=503".into()),
    }
}

/// Returns the conditions as the gateway takes them.
fn filter(conditions: &[(String, String)]) -> Value {
    let mut members = BTreeMap::<&str, Vec<&str>>::new();
    for (name, value) in conditions {
        members.entry(name).or_default().push(value);
    }
    let member = |(name, values): (&str, Vec<&str>)| match values[..] {
        [only] => (name.to_owned(), json!(only)),
        _ => (name.to_owned(), json!(values)),
    };
    Value::Object(members.into_iter().map(member).collect())
}

pub(super) async fn run(arguments: Arguments, output: Output) -> Result<(), Failure> {
    let client = arguments.gateway.client()?;
    let mut offsets = match &arguments.offset_file {
        Some(path) => Some(OffsetFile::open(path, &arguments.stream)?),
        None => None,
    };
    let partitions = match arguments.partition.as_str() {
        "*" => partitions(&client, &arguments.stream).await?,
        partition => vec![partition.to_owned()],
    };
    let bar = spinner();
    let mut passes = Vec::new();
    let mut waits = None;
    for partition in partitions {
        let kept = offsets
            .as_ref()
            .and_then(|offsets| offsets.after(&partition));
        let mut pass = Pass::new(partition, arguments.after.or(kept).unwrap_or(-1));
        let ended = pass.run(&client, &arguments, offsets.as_mut(), &bar).await;
        passes.push(pass);
        if let Ok(Ended::Waits(why)) = &ended {
            // The records of other partitions may be of other targets.
            waits.get_or_insert(Failure::failed(why.clone()));
        }
        if let Err(failure) = ended {
            bar.finish_and_clear();
            // What was done until then is told all the same: the calls were made.
            if output == Output::Json || passes.iter().any(|pass| pass.calls > 0) {
                print(&passes, &arguments, output)?;
            }
            return Err(failure);
        }
    }
    bar.finish_and_clear();
    print(&passes, &arguments, output)?;
    waits.map_or(Ok(()), Err)
}

/// Why there are no more calls for a partition.
#[derive(Debug)]
enum Ended {
    /// At the end, or there was to be one call only.
    Done,
    /// The gateway has left records, for this reason: their target is open.
    Waits(String),
}

/// What became of one partition.
#[derive(Debug)]
struct Pass {
    partition: String,
    after: i64,
    calls: u64,
    attempted: u64,
    delivered: u64,
    failed: u64,
    skipped: u64,
    unmatched: u64,
    end_of_stream: bool,
    /// The tail that the first call of a loop found: where the loop ends.
    loop_end: Option<u64>,
    /// Where the next call begins.
    next: u64,
    last_answer: Value,
}

impl Pass {
    fn new(partition: String, after: i64) -> Self {
        Self {
            partition,
            after,
            calls: 0,
            attempted: 0,
            delivered: 0,
            failed: 0,
            skipped: 0,
            unmatched: 0,
            end_of_stream: false,
            loop_end: None,
            next: 0,
            last_answer: Value::Null,
        }
    }

    async fn run(
        &mut self,
        client: &Client,
        arguments: &Arguments,
        mut offsets: Option<&mut OffsetFile>,
        bar: &ProgressBar,
    ) -> Result<Ended, Failure> {
        let mut idle_calls = 0;
        loop {
            let before = self.reach();
            self.call(client, arguments).await?;
            if let (Some(offsets), false) = (&mut offsets, arguments.dry_run) {
                offsets.store(&self.partition, self.after)?;
            }
            bar.set_message(format!(
                "partition {}: offset {}, {} delivered, {} failed",
                self.partition, self.after, self.delivered, self.failed
            ));
            bar.tick();
            match stopped(&self.last_answer) {
                Some(Stopped::Fails(why)) => return Err(Failure::failed(why)),
                Some(Stopped::Waits(why)) => return Ok(Ended::Waits(why)),
                None => {}
            }
            if self.end_of_stream || !arguments.until_end {
                return Ok(Ended::Done);
            }
            // Behind records that wait for their target, records of others are settled while the offset stands.
            idle_calls = match self.reach() == before {
                true => idle_calls + 1,
                false => 0,
            };
            if idle_calls == IDLE_CALLS_MAX {
                return Err(Failure::failed(format!(
                    "{IDLE_CALLS_MAX} calls in a row settled nothing of partition {}, and it is not at its end; \
                     is --time-budget-ms or --max too small?",
                    self.partition
                )));
            }
        }
    }

    /// How far it has come: each call that is worth it changes that.
    fn reach(&self) -> (i64, u64) {
        (self.after, self.delivered + self.failed)
    }

    async fn call(&mut self, client: &Client, arguments: &Arguments) -> Result<(), Failure> {
        let request = client
            .request(Method::POST, &["stream", "retry"], &[])
            .timeout(ANSWER_TIMEOUT)
            .json(&self.body(arguments));
        let answer = client.send(request).await?;
        let number = |name: &str| answer.get(name).and_then(Value::as_u64).unwrap_or(0);
        let (Some(last), Some(end)) = (
            answer.get("lastReadOffset").and_then(Value::as_i64),
            answer.get("endOfStream").and_then(Value::as_bool),
        ) else {
            return Err(Failure::failed(format!(
                "{} answered something else than a report of a retry",
                client.base()
            )));
        };
        self.calls += 1;
        self.attempted += number("attempted");
        self.delivered += number("processedmessages");
        self.failed += number("failedMessages");
        self.skipped += number("skipped");
        self.unmatched += number("unmatched");
        self.after = last;
        self.next = number("nextOffset");
        if arguments.until_end && self.loop_end.is_none() {
            self.loop_end = answer.get("tail").and_then(Value::as_u64);
        }
        // What fails may come back behind the end; a loop that went on until there is none would run after it.
        self.end_of_stream = end || self.loop_end.is_some_and(|end| self.next >= end);
        self.last_answer = answer;
        Ok(())
    }

    fn body(&self, arguments: &Arguments) -> Value {
        let mapping: Vec<_> = arguments
            .map
            .iter()
            .map(|(cause, stream)| json!({"responsecode": cause, "stream": stream}))
            .collect();
        let left = self
            .loop_end
            .map_or(u64::MAX, |end| end.saturating_sub(self.next).max(1));
        let mut body = json!({
            "streamOCIDToRetry": arguments.stream,
            "noOfMessagesToProcess": arguments.max.min(left),
            "readPartition": self.partition,
            "errormapping": mapping,
        });
        if let Some(group) = &arguments.group {
            body["group"] = group.as_str().into();
        }
        if self.says_offset(arguments) {
            body["readAfterOffset"] = self.after.into();
        }
        if arguments.dry_run {
            body["dryRun"] = true.into();
        }
        if arguments.redeliver {
            body["redeliver"] = true.into();
        }
        if !arguments.filter.is_empty() {
            body["filter"] = filter(&arguments.filter);
        }
        if let Some(rate) = arguments.rate {
            body["ratePerSecond"] = rate.into();
        }
        if let Some(ms) = arguments.time_budget_ms {
            body["timeBudgetMs"] = ms.into();
        }
        body
    }

    /// A group knows where it stands, but for a dry run, which leaves it where it was.
    fn says_offset(&self, arguments: &Arguments) -> bool {
        match (&arguments.group, self.calls) {
            (None, _) => true,
            (Some(_), 0) => arguments.after.is_some(),
            (Some(_), _) => arguments.dry_run,
        }
    }

    fn row(&self, counts: impl IntoIterator<Item = String>) -> Vec<String> {
        let end = if self.end_of_stream { "yes" } else { "no" };
        let mut row = vec![self.partition.clone()];
        row.extend(counts);
        row.extend([self.after.to_string(), end.to_owned()]);
        row
    }

    fn json(&self) -> Value {
        json!({
            "partition": self.partition,
            "calls": self.calls,
            "attempted": self.attempted,
            "processedmessages": self.delivered,
            "failedMessages": self.failed,
            "skipped": self.skipped,
            "unmatched": self.unmatched,
            "lastReadOffset": self.after,
            "endOfStream": self.end_of_stream,
            "lastAnswer": self.last_answer,
        })
    }
}

/// Why the gateway has ended a call before any of its bounds.
#[derive(Debug, PartialEq)]
enum Stopped {
    /// Calls to a target only fail.
    Fails(String),
    /// A target is open.
    Waits(String),
}

fn stopped(answer: &Value) -> Option<Stopped> {
    let stopped = answer.get("stopped")?;
    let text = |name: &str| stopped.get(name).and_then(Value::as_str).unwrap_or("?");
    let target = text("target");
    if text("reason") == "target_open" {
        let (own, others) = left(answer, target);
        let more = match others {
            0 => String::new(),
            _ => format!(", and {} for other targets", counted(others, "record")),
        };
        let until = text("until");
        return Some(Stopped::Waits(format!(
            "{target} is not called before {until}: stopped, {}{} left for it{more}",
            at_least(answer),
            counted(own, "record")
        )));
    }
    let calls = stopped.get("calls").and_then(Value::as_u64).unwrap_or(0);
    Some(Stopped::Fails(format!(
        "the first {calls} calls to {target} all came to {}: stopped, what is behind them stays as it is",
        text("cause")
    )))
}

/// Returns what the caller can do about a call that was stopped.
fn way_on(answer: &Value) -> Option<String> {
    let stopped = answer.get("stopped")?;
    let text = |name: &str| stopped.get(name).and_then(Value::as_str).unwrap_or("?");
    let target = text("target");
    if text("reason") == "target_open" {
        let (own, _) = left(answer, target);
        return Some(format!(
            "{}{} left for {target}; call again after {}",
            at_least(answer),
            counted(own, "record"),
            text("until")
        ));
    }
    Some(format!(
        "calls to {target} failed alike ({}); call again when it answers otherwise",
        text("cause")
    ))
}

/// Returns how many records an answer names as left for `target`, and for all others.
fn left(answer: &Value, target: &str) -> (u64, u64) {
    let waiting = answer.get("waiting").and_then(Value::as_array);
    let (mut own, mut others) = (0, 0);
    for waiting in waiting.into_iter().flatten() {
        let count = waiting.get("count").and_then(Value::as_u64).unwrap_or(0);
        match waiting.get("target").and_then(Value::as_str) == Some(target) {
            true => own += count,
            false => others += count,
        }
    }
    (own, others)
}

/// Returns `at least ` unless the counts of an answer show that it has read up to the tail: a call that a bound has cut
/// counts only what it has come to.
fn at_least(answer: &Value) -> &'static str {
    let number = |name: &str| answer.get(name).and_then(Value::as_u64);
    let (own, others) = left(answer, "");
    // Not `trimmed`, part of which lies before the start.
    let read = [
        "processedmessages",
        "failedMessages",
        "skipped",
        "unmatched",
    ]
    .map(|name| number(name).unwrap_or(0));
    let read = read.iter().sum::<u64>() + own + others;
    match (number("startOffset"), number("tail")) {
        (Some(start), Some(tail)) if start + read >= tail => "",
        _ => "at least ",
    }
}

async fn partitions(client: &Client, stream: &str) -> Result<Vec<String>, Failure> {
    let answer = client.get(&["v1", "streams", stream], &[]).await?;
    let count = answer
        .get("partitions")
        .and_then(Value::as_u64)
        .ok_or_else(|| {
            Failure::failed(format!(
                "{} did not say how many partitions {stream} has",
                client.base()
            ))
        })?;
    Ok((0..count).map(|partition| partition.to_string()).collect())
}

fn print(passes: &[Pass], arguments: &Arguments, output: Output) -> Result<(), Failure> {
    if output == Output::Json {
        let list: Vec<_> = passes.iter().map(Pass::json).collect();
        return output::print_json(
            &json!({"stream": arguments.stream, "dryRun": arguments.dry_run, "partitions": list}),
        );
    }
    let table = if arguments.dry_run {
        let mut table = Table::new(&[
            "PARTITION",
            ">CALLS",
            ">WOULD BE SENT",
            ">SKIPPED",
            ">LAST OFFSET",
            "END",
        ]);
        for pass in passes {
            let counts = [pass.calls, pass.attempted, pass.skipped].map(|count| count.to_string());
            table.row(pass.row(counts));
        }
        table
    } else {
        let mut table = Table::new(&[
            "PARTITION",
            ">CALLS",
            ">DELIVERED",
            ">FAILED",
            ">SKIPPED",
            ">LAST OFFSET",
            "END",
        ]);
        for pass in passes {
            let counts = [pass.calls, pass.delivered, pass.failed, pass.skipped]
                .map(|count| count.to_string());
            table.row(pass.row(counts));
        }
        table
    };
    let open = passes.iter().filter(|pass| !pass.end_of_stream);
    let mut text = table.text();
    // To go on at once would end in the same way where a target has stopped the call.
    let (stopped, open): (Vec<_>, Vec<_>) =
        open.partition(|pass| pass.last_answer.get("stopped").is_some());
    for pass in stopped {
        if let Some(way) = way_on(&pass.last_answer) {
            text = format!("{text}partition {} not at the end: {way}\n", pass.partition);
        }
    }
    if let ([pass], false) = (&open[..], arguments.until_end) {
        let on = match &arguments.group {
            Some(group) => format!("--group {group}"),
            None => format!("--after {}", pass.after),
        };
        text = format!("{text}not at the end: go on with {on}, or take --loop\n");
    } else if !open.is_empty() {
        let count = u64::try_from(open.len()).unwrap_or(u64::MAX);
        text = format!("{text}{} not at the end\n", counted(count, "partition"));
    }
    output::print(&text)
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    match ProgressStyle::with_template("{spinner} {msg}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_cause_and_stream() {
        assert_eq!(mapping("404=A-b"), Ok(("404".into(), "A-b".into())));
        assert!(mapping("404").is_err());
        assert!(mapping("=A").is_err());
        assert!(mapping("404=").is_err());
    }

    #[test]
    fn a_call_that_was_stopped_says_why_and_until_when() {
        assert_eq!(stopped(&json!({"endOfStream": false})), None);
        let failing = json!({"stopped": {"reason": "target_failing", "target": "http://a:80", "cause": "404", "calls": 50}});
        let said = "the first 50 calls to http://a:80 all came to 404: stopped, what is behind them stays as it is";
        assert_eq!(stopped(&failing), Some(Stopped::Fails(said.into())));
        assert_eq!(
            way_on(&failing).unwrap(),
            "calls to http://a:80 failed alike (404); call again when it answers otherwise"
        );
        let mut open = json!({
            "stopped": {"reason": "target_open", "target": "http://a:80", "until": "2026-01-02T03:04:05.000000Z"},
            "waiting": [{"target": "http://a:80", "count": 1}], "startOffset": 4, "tail": 7, "skipped": 1, "unmatched": 1
        });
        let said = "http://a:80 is not called before 2026-01-02T03:04:05.000000Z: stopped, 1 record left for it";
        assert_eq!(stopped(&open), Some(Stopped::Waits(said.into())));
        let said = "1 record left for http://a:80; call again after 2026-01-02T03:04:05.000000Z";
        assert_eq!(way_on(&open).unwrap(), said);
        open["waiting"] = json!([
            {"target": "http://a:80", "count": 2}, {"target": "http://b:80", "count": 2}, {"target": "*", "count": 1}
        ]);
        let said = "http://a:80 is not called before 2026-01-02T03:04:05.000000Z: stopped, 2 records left for it, \
                    and 3 records for other targets";
        assert_eq!(stopped(&open), Some(Stopped::Waits(said.into())));
        // A bound has cut the call: seven of eight records were read.
        open["tail"] = json!(12);
        let said = "http://a:80 is not called before 2026-01-02T03:04:05.000000Z: stopped, at least 2 records left for it, \
                    and 3 records for other targets";
        assert_eq!(stopped(&open), Some(Stopped::Waits(said.into())));
        let said =
            "at least 2 records left for http://a:80; call again after 2026-01-02T03:04:05.000000Z";
        assert_eq!(way_on(&open).unwrap(), said);
    }

    #[test]
    fn a_filter_is_made_of_names_and_values() {
        let conditions = [
            "cause=503",
            "key=",
            "cause=network",
            "key=a=b",
            "from=2026-12-01",
        ];
        let conditions = conditions.map(|text| condition(text).unwrap());
        let expected = json!({
            "cause": ["503", "network"], "key": ["", "a=b"], "from": "2026-12-01T00:00:00.000000Z"
        });
        assert_eq!(filter(&conditions), expected);
        for wrong in ["cause", "=503", "from=x"] {
            assert!(condition(wrong).is_err(), "{wrong}");
        }
    }
}
