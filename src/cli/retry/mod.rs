//! `syncgate retry STREAM`: dispatches records of a stream again, by one call or a loop of calls, for people and for cron.
//!
//! Each partition has its own offset, so a retry of a whole stream makes calls for each of its partitions.
//!
//! Ctrl-C closes the connection of the present call. The gateway then begins no further attempt of it.

mod calls;
mod pass;
mod progress;
mod refused;
mod report;
mod request;
mod rounds;
mod stopped;
mod waiting;

use std::{future::Future, path::PathBuf};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use self::{report::Report, rounds::Rounds};
use super::{Failure, Gateway, Output, tail::offset_file::OffsetFile};

/// The meaning of the columns and of the exit code, at the end of the help.
const HELP: &str = "\
Columns:
  REQUESTS     requests to the gateway; each may call targets many times
  DELIVERED    records that their target took
  FAILED       records that failed again; MOVED TO names their streams
  SKIPPED      records that were settled before
  LAST OFFSET  last offset read; - if none was
  END          yes: all records of the partition were read

Exit codes:
  0    records were delivered, or there was nothing to do
  1    records failed and none was delivered, the retry was stopped, or a
       request failed
  2    an argument is wrong
  130  Ctrl-C ended the retry";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct Arguments {
    /// Name or id of the stream.
    stream: String,
    #[command(flatten)]
    gateway: Gateway,
    /// Repeats the call, a few seconds each, up to the tail that the stream had at the start. Waits up to 90 seconds for a
    /// target whose breaker is open, and for another retry of the stream.
    #[arg(long = "loop")]
    until_end: bool,
    /// The partition; `*` means all of them.
    #[arg(long, value_name = "P", default_value = "*")]
    partition: String,
    /// Reads after this offset of one partition; -1 means from the earliest record.
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        conflicts_with = "offset_file"
    )]
    after: Option<i64>,
    /// Goes on where the last call with this group stopped, and stores the new offset in the gateway. With --after it begins
    /// there and moves the group.
    #[arg(long, value_name = "NAME", conflicts_with = "offset_file")]
    group: Option<String>,
    /// Records of one call.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    max: u64,
    /// Error stream for failures with a status or cause, such as 404=UnrecoverableErrorStream; can be given several times.
    /// Failures that no --map names go to the default stream. Without any --map the outcome table of the gateway decides, so
    /// a record that fails with 503 stays in the stream for unavailable targets.
    #[arg(long, value_name = "CAUSE=STREAM", value_parser = request::mapping)]
    map: Vec<(String, String)>,
    /// Only records that match: target, cause, key, operation, from or to. Can be given several times; values of one name
    /// are alternatives. Such as cause=503, cause=network, target=https://orders.example,
    /// from=2026-12-01, to="1h ago".
    #[arg(long, value_name = "NAME=VALUE", value_parser = request::condition)]
    filter: Vec<(String, String)>,
    /// Calls per second at most.
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// Only counts the records; calls nothing.
    #[arg(long)]
    dry_run: bool,
    /// Also dispatches records that were delivered or moved already.
    #[arg(long)]
    redeliver: bool,
    /// Time that one call may take, in milliseconds or with a unit, such as 30s; the default with --loop is 3000.
    #[arg(long, value_name = "MS", value_parser = request::milliseconds)]
    time_budget_ms: Option<u64>,
    /// Keeps the last offset read of each partition in this file, and begins after it the next time.
    #[arg(long, value_name = "FILE")]
    offset_file: Option<PathBuf>,
}

pub(super) async fn run(arguments: Arguments, output: Output) -> Result<(), Failure> {
    let client = arguments.gateway.client()?;
    let offsets = match &arguments.offset_file {
        Some(path) => Some(OffsetFile::open(path, &arguments.stream)?),
        None => None,
    };
    let interrupted = interrupted()?;
    let mut rounds = Rounds::new(&client, &arguments, offsets);
    let ended = tokio::select! {
        ended = rounds.run() => Some(ended),
        () = interrupted => None,
    };
    rounds.progress.clear();
    let passes = &rounds.passes;
    let ended = ended.unwrap_or_else(|| {
        let done = rounds.progress.text();
        Err(report::interrupted(&done, passes, &arguments))
    });
    // Report after a failure too, because calls were made.
    let any = passes.iter().any(|pass| pass.calls > 0);
    if ended.is_ok() || any || output == Output::Json && !passes.is_empty() {
        let report = Report {
            client: &client,
            arguments: &arguments,
            passes,
            total: rounds.progress.total(),
            open: rounds.open,
        };
        report.print(output)?;
    }
    ended.and_then(|()| report::check(passes))
}

/// Returns a future that ends with Ctrl-C.
fn interrupted() -> Result<impl Future<Output = ()>, Failure> {
    let mut interrupts = signal(SignalKind::interrupt())
        .map_err(|error| Failure::failed(format!("Ctrl-C cannot be waited for: {error}")))?;
    Ok(async move {
        interrupts.recv().await;
    })
}
