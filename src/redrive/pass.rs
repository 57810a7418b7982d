//! One pass: reads, gives records to the boards, collects the answers, and keeps the position up to which all is done.

use std::{future::Future, ops::Range, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::{
    sync::oneshot,
    task::{coop::consume_budget, yield_now},
    time::{Instant, sleep_until, timeout},
};

use super::{
    Error, PartitionReport, RedriveReport,
    failing::Failing,
    filter::Filter,
    group::Standing,
    in_flight::InFlight,
    progress::Progress,
    rate::Rate,
    reader::{Read, Reader, unread},
};
use crate::{
    dispatch::{
        Shared, call,
        job::{Errand, Mapping, Redone, Redriven, Start},
    },
    place::{Offset, PartitionId},
    record::StoredRecord,
    storage::{Epoch, LeaseEvent, ReadError, Stream},
    tasks::Part,
};

/// After so many bytes of records that were looked at others have their turn: reading them takes less than a millisecond.
const TURN_BYTES: usize = 256 << 10;
/// Offsets remembered that are done behind one that is not.
const AHEAD_LEN_MAX: usize = 65_536;
/// How much longer than its time budget a pass may call what it has called records behind of.
pub(super) const HOLES_PATIENCE: Duration = Duration::from_secs(30);
/// How long after the last call may begin the log has to take an end.
const COMMIT_PATIENCE: Duration = Duration::from_secs(10);
/// How long a lease is waited for.
const LEASE_PATIENCE: Duration = Duration::from_secs(5);

/// A pass over one or several partitions of a stream.
pub(super) struct Pass {
    pub(super) shared: Arc<Shared>,
    pub(super) stream: Arc<Stream>,
    /// The source stream is replayed: nothing ends, and what still waits is left alone.
    pub(super) replay: bool,
    pub(super) after: Option<Offset>,
    /// Says where to begin, if it knows, and is told how far the pass came.
    pub(super) group: Option<Standing>,
    pub(super) filter: Filter,
    pub(super) records_max: u64,
    pub(super) in_flight_max: usize,
    /// No record is given to the boards after this.
    pub(super) by: Instant,
    pub(super) mapping: Arc<Mapping>,
    pub(super) redeliver: bool,
    pub(super) dry_run: bool,
    pub(super) rate: Option<Rate>,
    pub(super) failing: Failing,
    /// What has come of it so far.
    pub(super) report: RedriveReport,
}

impl Pass {
    pub(super) async fn run(mut self, partitions: &[PartitionId]) -> Result<RedriveReport, Error> {
        for of in partitions {
            let partition = self.partition(*of).await?;
            self.report.trimmed += partition.trimmed;
            self.report.partitions.push(partition);
        }
        let report = &mut self.report;
        report.group = self.group.as_ref().map(|group| group.report(partitions));
        report.end_of_stream = report.partitions.iter().all(|one| one.end_of_stream);
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
            target_failing = report.stopped.as_ref().map(|stopped| stopped.target.as_str()),
            dry_run = self.dry_run,
            "redrive done"
        );
        Ok(self.report)
    }

    async fn partition(&mut self, of: PartitionId) -> Result<PartitionReport, Error> {
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
        let mut trimmed = start.0 - asked.0;
        let tail = bounds.tail;
        let in_time = self.in_time_of_filter(of, start..tail.max(start)).await?;
        let mut progress = Progress::from(in_time.start);
        self.report.unmatched += in_time.start.0 - start.0;
        let mut in_flight = InFlight::default();
        let mut reader = Reader::new(of, in_time.start, in_time.end);
        let panics = self.shared.tasks.panics().clone();
        let given = self.give(
            &mut reader,
            epoch,
            &mut progress,
            &mut in_flight,
            &mut trimmed,
        );
        let passed = panics.guard(Part::Retry, given).await;
        if passed.is_none() {
            // What was given out is collected as if the time were over.
            self.by = self.by.min(Instant::now());
        }
        let passed = passed.unwrap_or(Err(Error::Panicked));
        let collected = self.collect_rest(&mut progress, &mut in_flight).await;
        if progress.next >= in_time.end && tail > in_time.end {
            self.report.unmatched += tail.0 - in_time.end.0;
            progress.done_below(tail);
        }
        let mut stored = Ok(());
        if let Some(group) = &mut self.group
            && !self.dry_run
        {
            // Also after a failure: what is done is done. Beyond the tail there is nothing that could be.
            stored = group.store(of, progress.next.min(tail)).await;
        }
        match passed.and(collected) {
            // What was done before a place that cannot be read is worth its report; the next pass begins there.
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
            trimmed,
            end_of_stream: progress.next >= tail,
        })
    }

    /// Returns which of some offsets the filter's time leaves.
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

    /// Gives records to the boards until the tail, the cap, the time, or a stop.
    async fn give(
        &mut self,
        reader: &mut Reader,
        epoch: Option<Epoch>,
        progress: &mut Progress,
        in_flight: &mut InFlight,
        trimmed: &mut u64,
    ) -> Result<(), Error> {
        let mut at = progress.next;
        let mut looked_at = 0;
        while at < reader.tail {
            if reader.wants_ends(at) {
                reader.look_up_ends(&self.shared, at)?;
                tokio::task::yield_now().await;
                // One slow record must not let the list of what is done behind it grow with the stream.
                while progress.ahead_len() >= AHEAD_LEN_MAX && !in_flight.is_empty() {
                    match self.in_time(in_flight.next()).await {
                        Some(Some(answered)) => self.count(answered, progress, in_flight)?,
                        Some(None) | None => return Ok(()),
                    }
                }
                if self.is_over() {
                    return Ok(());
                }
            }
            let finished = reader.has_ended(at);
            if self.skips(finished) {
                self.report.skipped += 1;
                progress.done(at);
                at = at.next();
                continue;
            }
            let looks = self.filter.looks_at_records();
            if self.is_over() || !looks && self.is_full() {
                return Ok(());
            }
            if self.dry_run && !looks {
                self.report.attempted += 1;
                progress.done(at);
                at = at.next();
                continue;
            }
            let stored = match reader.read(&self.shared, at).await {
                Ok(Read::Record(stored)) => stored,
                Ok(Read::Lost(until)) => {
                    while at < until.min(reader.tail) {
                        self.report.skipped += 1;
                        progress.done(at);
                        at = at.next();
                    }
                    continue;
                }
                Err(ReadError::Trimmed { earliest, .. }) if earliest > at => {
                    *trimmed += earliest.0.min(reader.tail.0) - at.0;
                    while at < earliest.min(reader.tail) {
                        progress.done(at);
                        at = at.next();
                    }
                    continue;
                }
                Err(error) => return Err(unread(error)),
            };
            #[cfg(test)]
            crate::tasks::provoke(Part::Retry, &stored.record.value);
            let is_met = self.filter.is_met_by(&stored.record);
            if looks {
                // A long stretch of such records is no reason to keep others waiting.
                looked_at += stored.record.bytes_len();
                if looked_at >= TURN_BYTES {
                    looked_at = 0;
                    yield_now().await;
                }
                consume_budget().await;
            }
            if !is_met {
                self.report.unmatched += 1;
                progress.done(at);
                at = at.next();
                continue;
            }
            if self.is_full() {
                return Ok(());
            }
            if self.dry_run {
                self.report.attempted += 1;
                progress.done(at);
                at = at.next();
                continue;
            }
            while in_flight.len() >= self.in_flight_max {
                match self.in_time(in_flight.next()).await {
                    Some(Some(answered)) => self.count(answered, progress, in_flight)?,
                    Some(None) | None => return Ok(()),
                }
            }
            if !self.has_slot(progress, in_flight).await? {
                return Ok(());
            }
            if self.calls_again() && in_flight.outlasts(Instant::now(), self.by) {
                return Ok(());
            }
            let ends = epoch.filter(|_| !finished);
            if !self.give_one(reader.of, &stored, ends, in_flight).await {
                return Ok(());
            }
            at = at.next();
            while let Some(Some(answered)) = in_flight.next().now_or_never() {
                self.count(answered, progress, in_flight)?;
            }
        }
        Ok(())
    }

    /// Waits for a slot of the rate; `false` if the pass is over before there is one.
    async fn has_slot(
        &mut self,
        progress: &mut Progress,
        in_flight: &mut InFlight,
    ) -> Result<bool, Error> {
        while let Some(rate) = &mut self.rate
            && let Err(at) = rate.take(Instant::now())
        {
            tokio::select! {
                biased;
                () = self.shared.stop.cancelled() => {}
                answered = in_flight.next(), if !in_flight.is_empty() => {
                    if let Some(answered) = answered {
                        self.count(answered, progress, in_flight)?;
                    }
                }
                () = sleep_until(at.min(self.by)) => {}
            }
            if self.is_over() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns whether the board has taken the record in time.
    async fn give_one(
        &mut self,
        of: PartitionId,
        stored: &StoredRecord,
        ends: Option<Epoch>,
        in_flight: &mut InFlight,
    ) -> bool {
        let (answer, answered) = oneshot::channel();
        let start = Start::default();
        let errand = Errand::Redrive(Redriven {
            stream: self.stream.clone(),
            mapping: self.mapping.clone(),
            ends,
            start: start.clone(),
            pace: self.rate.as_ref().map(|rate| rate.pace.clone()),
            waiting: None,
            commit_by: self.by + HOLES_PATIENCE + COMMIT_PATIENCE,
            answer,
        });
        let origin = call::origin(&stored.record);
        let job = self.shared.job(of, stored, origin.clone(), errand);
        let taken = self.shared.enqueue(Box::new(job));
        if self.in_time(taken).await.is_none() {
            return false;
        }
        self.report.attempted += 1;
        in_flight.add(stored.offset, origin, start, answered);
        true
    }

    /// Takes back what has not begun if the time is over, and waits for the rest.
    ///
    /// In a stream whose records end with their redrive anything can be taken back: what was done behind it is skipped
    /// next time. Where records are called again, the next pass would call those, too. So there only what nothing that
    /// was called is behind is taken back at once; the holes have some time yet to be called.
    pub(super) async fn collect_rest(
        &mut self,
        progress: &mut Progress,
        in_flight: &mut InFlight,
    ) -> Result<(), Error> {
        let mut result = Ok(());
        let holes_by = self.by + HOLES_PATIENCE;
        while !in_flight.is_empty() {
            let over = self.is_over();
            let stopped = self.shared.stop.is_cancelled();
            // When the gateway stops, boards give nothing out any more.
            let fills =
                self.calls_again() && !stopped && result.is_ok() && Instant::now() < holes_by;
            if over || result.is_err() {
                self.report.attempted -= in_flight.withdraw(fills);
                if in_flight.is_empty() {
                    break;
                }
            }
            // What has begun is waited for in any case, its own timeouts bound it.
            let until = match (over, fills) {
                (false, _) => Some(self.by),
                (true, true) => Some(holes_by),
                (true, false) => None,
            };
            tokio::select! {
                biased;
                answered = in_flight.next() => {
                    let Some(answered) = answered else { break };
                    result = result.and(self.count(answered, progress, in_flight));
                }
                () = sleep_until(until.unwrap_or(self.by)), if until.is_some() => {}
                () = self.shared.stop.cancelled(), if !stopped => {}
            }
        }
        result
    }

    fn count(
        &mut self,
        (offset, answer): (Offset, Option<Redone>),
        progress: &mut Progress,
        in_flight: &mut InFlight,
    ) -> Result<(), Error> {
        let called = matches!(
            answer,
            Some(Redone::Delivered { .. } | Redone::Failed { .. })
        );
        let Some(given) = in_flight.end(offset, called) else {
            // It was taken back.
            return Ok(());
        };
        let mut failed = None;
        let report = &mut self.report;
        let by_status = match answer {
            Some(Redone::Delivered { status }) => {
                report.processed += 1;
                status.to_string()
            }
            Some(Redone::Failed { cause, copied }) => {
                report.failed += 1;
                report.requeued += u64::from(copied);
                failed = Some(cause);
                cause.to_string()
            }
            Some(Redone::NotStored(error)) => {
                report.attempted -= 1;
                return Err(Error::NotStored(error));
            }
            // Cut by a stop.
            None => {
                report.attempted -= 1;
                return Ok(());
            }
        };
        *report.by_status.entry(by_status).or_default() += 1;
        progress.done(offset);
        let target = given.target.as_ref();
        if let Some(stopped) = target.and_then(|target| self.failing.note(target, failed)) {
            report.stopped.get_or_insert(stopped);
            self.by = self.by.min(Instant::now());
        }
        Ok(())
    }

    /// A record that waits for its first dispatch is left to it; one that is resolved is called again only if asked for.
    fn skips(&self, finished: bool) -> bool {
        if self.replay {
            !finished
        } else {
            finished && !self.redeliver
        }
    }

    /// Whether a later pass calls again what this one has called.
    fn calls_again(&self) -> bool {
        self.replay || self.redeliver
    }

    fn is_full(&self) -> bool {
        self.report.attempted >= self.records_max
    }

    fn is_over(&self) -> bool {
        self.shared.stop.is_cancelled() || Instant::now() >= self.by
    }

    /// Waits; `None` when the time is over or the gateway stops.
    async fn in_time<T>(&self, wait: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = wait => Some(done),
            () = sleep_until(self.by) => None,
            () = self.shared.stop.cancelled() => None,
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
