//! One pass: reads, gives records to the boards, collects the answers, and keeps the position up to which all is done.

use std::{ops::Range, pin::pin, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::{
    sync::oneshot,
    task::{coop::consume_budget, yield_now},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    Error, PartitionReport, RedriveReport, Stopped,
    collect::LOOK_EVERY,
    failing::Failing,
    filter::Filter,
    group::Standing,
    in_flight::InFlight,
    open::OpenTargets,
    progress::Progress,
    rate::Rate,
    reader::{Read, Reader, unread},
};
use crate::{
    dispatch::{
        Shared, TargetId,
        job::{Errand, Mapping, Redriven, Start},
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

/// What a pass gets to come further at all, however short its time budget is.
pub(super) const TIME_LEAST: Duration = Duration::from_secs(2);
/// How long a pass that has left records looks for one of another target.
const SEARCH_MAX: Duration = Duration::from_secs(2);

/// Why a pass gives out no more records of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeftOff {
    /// There is nothing more to call.
    Done,
    /// The cap, the time, or the gateway stops.
    Bound,
}

/// What became of a record that was to be given to its board.
enum Given {
    Taken,
    /// Its target is shut.
    Shut,
    /// There was no room in time.
    Late,
}

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
    /// But until then if none was settled or passed over.
    pub(super) least_by: Instant,
    pub(super) mapping: Arc<Mapping>,
    pub(super) redeliver: bool,
    pub(super) dry_run: bool,
    pub(super) rate: Option<Rate>,
    pub(super) failing: Failing,
    pub(super) open: OpenTargets,
    /// When to look again whether targets are open that records wait for.
    pub(super) look_at: Instant,
    /// A bound has ended the pass in a partition, and not that there was nothing more to call.
    pub(super) is_cut: bool,
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
        let tail = bounds.tail;
        let in_time = self.in_time_of_filter(of, start..tail.max(start)).await?;
        let mut progress = Progress::from(in_time.start);
        progress.trimmed = start.0 - asked.0;
        self.report.unmatched += in_time.start.0 - start.0;
        let mut in_flight = InFlight::new(self.shared.clone());
        let mut reader = Reader::new(of, in_time.start, in_time.end);
        let panics = self.shared.tasks.panics().clone();
        let given = self.give(&mut reader, epoch, &mut progress, &mut in_flight);
        let passed = panics.guard(Part::Retry, given).await;
        if passed.is_none() {
            // What was given out is collected as if the time were over.
            self.by = self.by.min(Instant::now());
            self.least_by = self.by;
        }
        let passed = passed.unwrap_or(Err(Error::Panicked));
        let passed = passed.map(|left_off| self.is_cut |= left_off == LeftOff::Bound);
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
            trimmed: progress.trimmed,
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

    /// Gives records to the boards until there is nothing more to call, or a bound of the pass.
    async fn give(
        &mut self,
        reader: &mut Reader,
        epoch: Option<Epoch>,
        progress: &mut Progress,
        in_flight: &mut InFlight,
    ) -> Result<LeftOff, Error> {
        let mut at = progress.next;
        let mut useful_at = Instant::now();
        let mut looked_at = 0;
        while at < reader.tail {
            if progress.has_left() && (self.calls_again() || useful_at.elapsed() > SEARCH_MAX) {
                break;
            }
            if reader.wants_ends(at) {
                reader.look_up_ends(&self.shared, at)?;
                tokio::task::yield_now().await;
                // One slow record must not let the list of what is done behind it grow with the stream.
                while progress.ahead_len() >= AHEAD_LEN_MAX && !in_flight.is_empty() {
                    if !self.collect(progress, in_flight).await? {
                        return Ok(LeftOff::Bound);
                    }
                }
                if self.is_over() {
                    return Ok(LeftOff::Bound);
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
                return Ok(LeftOff::Bound);
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
                    progress.trimmed += earliest.0.min(reader.tail.0) - at.0;
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
                return Ok(LeftOff::Bound);
            }
            if self.dry_run {
                self.report.attempted += 1;
                progress.done(at);
                at = at.next();
                continue;
            }
            let target = self.shared.target_of(&stored.record);
            if !self.is_shut(target.as_ref()) {
                while in_flight.len() >= self.in_flight_max {
                    if !self.collect(progress, in_flight).await? {
                        return Ok(LeftOff::Bound);
                    }
                }
                if !self.has_slot(progress, in_flight).await? {
                    return Ok(LeftOff::Bound);
                }
                if self.calls_again() && in_flight.outlasts(Instant::now(), self.by) {
                    return Ok(LeftOff::Bound);
                }
                // One before it may have been left meanwhile.
                if self.calls_again() && progress.has_left() {
                    break;
                }
            }
            let given = match self.is_shut(target.as_ref()) {
                true => Given::Shut,
                false => {
                    let ends = epoch.filter(|_| !finished);
                    let target = target.clone();
                    self.give_one(reader.of, &stored, target, ends, in_flight)
                        .await
                }
            };
            match given {
                Given::Taken => useful_at = Instant::now(),
                Given::Shut => self.leave(at, target.as_ref(), progress),
                Given::Late => return Ok(LeftOff::Bound),
            }
            at = at.next();
            while let Some(Some(answered)) = in_flight.next().now_or_never() {
                self.count(answered, progress, in_flight)?;
            }
            // A long stretch of records that are left is no reason to keep others waiting.
            consume_budget().await;
        }
        Ok(LeftOff::Done)
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
            let slot = sleep_until(at);
            tokio::select! {
                biased;
                collected = self.collect(progress, in_flight) => {
                    if !collected? {
                        return Ok(false);
                    }
                }
                () = slot => {}
            }
            if self.is_over() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Gives a record to its board, which may be full for as long as the pass lasts.
    async fn give_one(
        &mut self,
        of: PartitionId,
        stored: &StoredRecord,
        target: Option<TargetId>,
        ends: Option<Epoch>,
        in_flight: &mut InFlight,
    ) -> Given {
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
        let job = self.shared.job(of, stored, target.clone(), errand);
        let shared = self.shared.clone();
        let mut taken = pin!(shared.enqueue(Box::new(job)));
        loop {
            // While it waits for room its target may turn out to be open.
            tokio::select! {
                biased;
                () = &mut taken => break,
                () = sleep_until(self.deadline()) => return Given::Late,
                () = self.shared.stop.cancelled() => return Given::Late,
                () = sleep(LOOK_EVERY) => {}
            }
            if self.is_shut(target.as_ref()) {
                return Given::Shut;
            }
        }
        self.report.attempted += 1;
        in_flight.add(stored.offset, target, start, answered);
        Given::Taken
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
    pub(super) fn calls_again(&self) -> bool {
        self.replay || self.redeliver
    }

    fn is_full(&self) -> bool {
        self.report.attempted >= self.records_max
    }

    pub(super) fn is_over(&self) -> bool {
        self.shared.stop.is_cancelled() || Instant::now() >= self.deadline()
    }

    /// Returns when the time is over. A pass that has not come further gets more than a short budget, since a loop of such
    /// passes would never end.
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
