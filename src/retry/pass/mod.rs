//! One pass: in one partition after the other it queues records (`give.rs`), collects the answers (`collect.rs`), and
//! keeps the position up to which all records are done (`progress.rs`).

pub(super) mod collect;
pub(super) mod give;
pub(super) mod in_flight;
pub(super) mod progress;
pub(super) mod rate;
pub(super) mod reader;

use std::{ops::Range, sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Error, PartitionReport, RetryReport, Stopped,
    failing::Failing,
    filter::Filter,
    group::Standing,
    open::OpenTargets,
    pass::{
        give::LeftOff,
        in_flight::InFlight,
        progress::Progress,
        rate::Rate,
        reader::{PassReader, unread},
    },
    running::{Here, Running},
};
use crate::{
    dispatch::{DispatchContext, job::Mapping},
    model::ids::{Offset, PartitionId},
    runtime::tasks::Part,
    storage::{Epoch, LeaseEvent, Stream},
};

/// How long after its time budget a pass may still call records that later calls have overtaken.
pub(super) const HOLES_PATIENCE: Duration = Duration::from_secs(30);
/// How long a pass waits for a lease.
const LEASE_PATIENCE: Duration = Duration::from_secs(5);

/// Least time of a pass that has not advanced, even with a shorter budget.
pub(super) const TIME_LEAST: Duration = Duration::from_secs(2);

/// A pass over one or several partitions of a stream.
pub(super) struct Pass {
    pub(super) shared: Arc<DispatchContext>,
    /// Fires when the gateway stops, or the caller goes away.
    pub(super) stop: CancellationToken,
    pub(super) stream: Arc<Stream>,
    /// The stream is the source stream, which is replayed: no record is settled, and open records are skipped.
    pub(super) replay: bool,
    pub(super) after: Option<Offset>,
    /// The pass ends before this offset.
    pub(super) before: Option<Offset>,
    /// The group of the request: its position is the start and is updated at the end.
    pub(super) group: Option<Standing>,
    pub(super) filter: Filter,
    pub(super) records_max: u64,
    pub(super) in_flight_max: usize,
    /// No record is queued after this instant.
    pub(super) by: Instant,
    /// Later deadline for a pass that has settled or skipped no record.
    pub(super) least_by: Instant,
    pub(super) mapping: Arc<Mapping>,
    pub(super) redeliver: bool,
    pub(super) dry_run: bool,
    pub(super) rate: Option<Rate>,
    pub(super) failing: Failing,
    pub(super) open: OpenTargets,
    /// When to check the breakers of waiting records again.
    pub(super) look_at: Instant,
    /// A bound has ended the pass in a partition before its end.
    pub(super) is_cut: bool,
    /// The report so far.
    pub(super) report: RetryReport,
    /// Shows the progress of the pass; `None` in a dry run.
    pub(super) running: Option<Arc<Running>>,
    /// The same for the present partition.
    pub(super) here: Option<Here>,
}

impl Pass {
    pub(super) async fn run(mut self, partitions: &[PartitionId]) -> Result<RetryReport, Error> {
        // All tails are read first, because copies that the pass appends to one partition are not for it in another.
        let status = |of: &PartitionId| self.shared.streams.engine().status(*of);
        let tails = partitions.iter().map(|of| Ok(status(of)?.bounds.tail));
        let tails: Vec<_> = tails.collect::<Result<_, _>>().map_err(unread)?;
        for (of, tail) in partitions.iter().zip(tails) {
            let partition = self.partition(*of, tail).await?;
            self.report.trimmed += partition.trimmed;
            self.report.partitions.push(partition);
        }
        let report = &mut self.report;
        report.group = self.group.as_ref().map(|group| group.report(partitions));
        report.end_of_stream = report.partitions.iter().all(|one| one.end_of_stream);
        self.tell_open_targets();
        let report = &mut self.report;
        if report.end_of_stream {
            report.stopped = None;
        }
        if let [only] = report.partitions[..] {
            report.last_read_offset = only.last_read_offset;
            report.start_offset = only.start_offset;
            report.next_offset = only.next_offset;
        } else {
            let asked = self.after.map(Offset::next).unwrap_or_default();
            report.last_read_offset = self.after;
            (report.start_offset, report.next_offset) = (asked, asked);
        }
        tracing::info!(
            stream = %self.stream.name,
            attempted = report.attempted,
            processed = report.processed,
            failed = report.failed,
            skipped = report.skipped,
            unmatched = report.unmatched,
            trimmed = report.trimmed,
            end_of_stream = report.end_of_stream,
            stopped = report.stopped.as_ref().map(Stopped::reason),
            target = report.stopped.as_ref().map(|stopped| stopped.target().to_string()),
            waiting = report.waiting.iter().map(|waiting| waiting.count).sum::<u64>(),
            dry_run = self.dry_run,
            hung_up = self.stop.is_cancelled() && !self.shared.stop.is_cancelled(),
            "retry done"
        );
        Ok(self.report)
    }

    async fn partition(&mut self, of: PartitionId, tail: Offset) -> Result<PartitionReport, Error> {
        let status = self.shared.streams.engine().status(of).map_err(unread)?;
        let epoch = if self.replay || self.dry_run {
            None
        } else {
            Some(self.epoch(of).await?)
        };
        let bounds = status.bounds;
        let stands = self.group.as_ref();
        let stands = stands.and_then(|group| group.begins_with(of.partition));
        let after = match stands {
            Some(next) => next.0.checked_sub(1).map(Offset),
            None => self.after,
        };
        let asked = stands.or(self.after.map(Offset::next));
        let asked = asked.unwrap_or(bounds.earliest);
        let start = asked.max(bounds.earliest);
        let end = self.before.map_or(tail, |before| before.min(tail));
        let in_time = self.in_time_of_filter(of, start..end.max(start)).await?;
        if let Some(running) = &self.running {
            let total = match self.calls_again() {
                true => end.0.saturating_sub(start.0),
                false => status.counts.open_len(),
            };
            self.here = Some(running.comes_to(of, total));
        }
        let mut progress = Progress::from(in_time.start);
        progress.trimmed = start.0 - asked.0;
        self.report.unmatched += in_time.start.0 - start.0;
        let mut in_flight = InFlight::new(self.shared.clone());
        let mut reader = PassReader::new(of, in_time.start, in_time.end);
        let panics = self.shared.tasks.panics().clone();
        let given = self.give(&mut reader, epoch, &mut progress, &mut in_flight);
        let passed = panics.guard(Part::Retry, given).await;
        if passed.is_none() {
            // After a panic, collect the queued records as if the time were over.
            self.by = self.by.min(Instant::now());
            self.least_by = self.by;
        }
        let passed = passed.unwrap_or(Err(Error::Panicked));
        let passed = passed.map(|left_off| self.is_cut |= left_off == LeftOff::Bound);
        let collected = self.collect_rest(&mut progress, &mut in_flight).await;
        if progress.next >= in_time.end && end > in_time.end {
            self.report.unmatched += end.0 - in_time.end.0;
            progress.done_below(end);
        }
        let mut stored = Ok(());
        if let Some(group) = &mut self.group
            && !self.dry_run
        {
            // Stored after an error too, because the records below `next` are done.
            stored = group.store(of, progress.next.min(tail)).await;
        }
        match passed.and(collected) {
            // Report the records done before an unreadable one; the next pass begins there and returns the error.
            Err(Error::Read(_) | Error::PartitionUnknown(_)) if progress.next > start => {}
            other => other?,
        }
        stored?;
        let moved = progress.next > start;
        let last = progress.next.0.checked_sub(1).map(Offset);
        Ok(PartitionReport {
            of,
            last_read_offset: if moved { last } else { after },
            start_offset: start,
            next_offset: progress.next,
            tail,
            trimmed: progress.trimmed,
            end_of_stream: progress.next >= end,
        })
    }

    /// Returns the part of some offsets that is within the filter's time.
    async fn in_time_of_filter(
        &self,
        of: PartitionId,
        offsets: Range<Offset>,
    ) -> Result<Range<Offset>, Error> {
        let engine = self.shared.streams.engine();
        let Range { mut start, mut end } = offsets;
        if let Some(time) = self.filter.from {
            let first = engine.offset_at(of, time).await.map_err(unread)?;
            start = first.clamp(start, end);
        }
        if let Some(time) = self.filter.to {
            let behind = engine.offset_at(of, time).await.map_err(unread)?;
            end = behind.clamp(start, end);
        }
        Ok(start..end)
    }

    /// Returns whether a later pass repeats the calls of this one.
    pub(super) fn calls_again(&self) -> bool {
        self.replay || self.redeliver
    }

    pub(super) fn is_over(&self) -> bool {
        self.stop.is_cancelled() || Instant::now() >= self.deadline()
    }

    /// Returns the deadline. A pass that has not advanced gets more than a short budget, because a loop of such passes
    /// would never end.
    pub(super) fn deadline(&self) -> Instant {
        let report = &self.report;
        let read = report.processed + report.failed + report.skipped + report.unmatched;
        match read > 0 || self.open.first().is_some() || self.dry_run {
            true => self.by,
            false => self.by.max(self.least_by),
        }
    }

    /// A lease on a partition of the source stream covers that partition of every other stream.
    async fn epoch(&self, of: PartitionId) -> Result<Epoch, Error> {
        let source = self
            .shared
            .streams
            .by_name(&self.shared.settings.get().roles.source);
        let covering = source.and_then(|source| source.partition(of.partition));
        if let Some(epoch) = covering.and_then(|of| self.shared.epoch(of)) {
            return Ok(epoch);
        }
        let mut leases = self.shared.streams.engine().leases(of.stream);
        let granted = async {
            loop {
                match leases.recv().await {
                    Some(LeaseEvent::Granted(lease)) if lease.of == of => return Some(lease.epoch),
                    Some(_) => {}
                    None => return None,
                }
            }
        };
        let granted = timeout(LEASE_PATIENCE, granted).await;
        granted.ok().flatten().ok_or(Error::NotLeased(of))
    }
}
