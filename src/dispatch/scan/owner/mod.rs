//! The owner of a partition reads it from its first open record on, and puts each open record on the queue of its
//! target.
//!
//! One *scanner* passes over the log. A target whose queue is full becomes *lagging*: the scanner passes its records
//! over and goes on for other targets. A reader of the lagging target reads these records again when the queue has
//! room. When it reaches the scanner, the target stops lagging. A lane that has filled its share of the queue becomes
//! lagging in the same way, so that it does not hold up other lanes of its target. Records that are on no queue are in
//! the log only.
//!
//! After a growth of the stream, a record may have to wait for older records of its key in another partition. Its lane
//! or its target is lagging meanwhile: see `growth_barrier`.
//!
//! While a target is lagging, the owner stores a checkpoint at most every second. After a restart the scanner begins
//! there, so that other targets need not wait while it passes over the records of lagging ones.

mod checkpoints;

use std::{
    collections::VecDeque,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use super::{
    checkpoint::Checkpoint,
    growth_barrier::{GrowthBarrier, Wait},
    lagging::{Lagging, Pause, Taker},
};
use crate::dispatch::{
    DispatchContext,
    job::{Errand, Job, Owned, Tried},
    target_id::TargetId,
};
use crate::{
    model::{
        ids::{Offset, PartitionId},
        record::StoredRecord,
    },
    storage::ReadError,
};

/// Size of a page of the scanner.
const PAGE_BYTES: usize = 256 * 1024;
/// Smallest page for lagging readers. A page that their queues had no room for halves the next one.
const PAGE_BYTES_LEAST: usize = 4 * 1024;
/// Records put on a queue together. The copies of those that the queue refuses are wasted.
const RUN_LEN_MAX: usize = 64;
/// Shortest time between two stored checkpoints; short in tests.
const CHECKPOINT_EVERY: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 1_000 });
/// Offsets whose settlements are looked up together when settled records are skipped.
const SKIP_LEN: u64 = 16_384;
/// Dispatches a partition until its lease is gone, its stream is deleted, or the gateway stops.
pub(in crate::dispatch) async fn own(shared: Arc<DispatchContext>, owned: Arc<Owned>) {
    let stop = owned.stop.clone();
    let of = owned.lease.of;
    let barrier = GrowthBarrier::new(&shared.streams, &shared.progress, of);
    let mut owner = Owner {
        of,
        shared,
        owned: owned.clone(),
        next: Offset(0),
        pause: Pause::default(),
        lagging: Lagging::default(),
        barrier,
        page_bytes: PAGE_BYTES,
        checkpoint: None,
        checkpoint_at: None,
        stuck: [false; 2],
    };
    let ended = stop.run_until_cancelled(owner.run()).await;
    // Made before jobs are dropped without a settlement, so that it still names their records.
    let checkpoint = owner.new_checkpoint();
    owner.barrier.withdraw();
    owned.is_over.store(true, Ordering::Release);
    owner.shared.sweep_over();
    if ended.is_none() {
        owner.store_checkpoint(checkpoint).await;
    }
    if let Some(Err(error)) = ended {
        tracing::debug!(%of, %error, "stopped dispatching a partition");
    }
}

struct Owner {
    shared: Arc<DispatchContext>,
    of: PartitionId,
    owned: Arc<Owned>,
    /// Position of the scanner.
    next: Offset,
    /// Wait of the scanner after a failed read.
    pause: Pause,
    lagging: Lagging,
    barrier: GrowthBarrier,
    /// Size of a page for lagging readers.
    page_bytes: usize,
    /// The stored checkpoint.
    checkpoint: Option<Checkpoint>,
    /// When a new checkpoint is due.
    checkpoint_at: Option<Instant>,
    /// A read failed: of the scanner, of a lagging reader.
    stuck: [bool; 2],
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.set_stuck(For::Scanner, false);
        self.set_stuck(For::Cursors, false);
    }
}

/// The reader of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For {
    /// The scanner, for all targets that are not lagging.
    Scanner,
    /// The lagging readers that take part in this round.
    Cursors,
}

impl Owner {
    /// Never returns `Ok`; an error means that the partition was deleted.
    async fn run(&mut self) -> Result<(), ReadError> {
        let engine = self.shared.streams.engine().clone();
        let shared = self.shared.clone();
        let mut tail = engine.tail(self.of)?;
        let status = engine.status(self.of)?;
        self.next = status.low_mark.max(status.bounds.earliest);
        self.take_checkpoint(status.bounds.tail).await;
        loop {
            // Enabled before the queues are asked for room, so that room made in between is not missed.
            let mut freed = pin!(shared.targets.budget.freed.notified());
            freed.as_mut().enable();
            self.barrier.renew();
            let caught_up = self.catch_up().await?;
            let there_is_more = *tail.borrow_and_update() > self.next;
            let scanned = there_is_more && self.scan().await?;
            self.barrier.show(&self.lagging, self.next);
            if self.checkpoint_at.is_some_and(|at| at <= Instant::now()) {
                self.renew_checkpoint().await;
            }
            if caught_up || scanned {
                if self.checkpoint.is_some() || !self.lagging.is_empty() {
                    self.checkpoint_at
                        .get_or_insert(Instant::now() + CHECKPOINT_EVERY);
                }
                continue;
            }
            let from = self.next;
            let scan_at = self.pause.until().filter(|_| there_is_more);
            let again_at = self.lagging.read_again_at().into_iter();
            let again_at = again_at.chain(scan_at).chain(self.checkpoint_at).min();
            let waits = self.barrier.is_open() && (there_is_more || !self.lagging.is_empty());
            tokio::select! {
                () = freed => {}
                () = self.barrier.news(waits) => {}
                // With more to read the scanner only waits for room.
                moved = tail.wait_for(|tail| *tail > from), if !there_is_more => {
                    moved.map_err(|_closed| ReadError::PartitionUnknown(self.of))?;
                }
                () = sleep_until(again_at.unwrap_or_else(Instant::now)), if again_at.is_some() => {}
            }
        }
    }

    /// Returns the first open record from an offset on.
    async fn first_open(&self, from: Offset, tail: Offset) -> Result<Offset, ReadError> {
        let mut next = from;
        while next < tail {
            let end = next.plus(SKIP_LEN).min(tail);
            let settled = self
                .shared
                .streams
                .engine()
                .settled_offsets(self.of, next..end)?;
            let open = (next.0..end.0)
                .map(Offset)
                .find(|at| !settled.contains(*at));
            match open {
                Some(open) => return Ok(open),
                None => next = end,
            }
            tokio::task::yield_now().await;
        }
        Ok(next)
    }

    /// Puts the records of the next page on queues; returns whether the scanner has moved.
    async fn scan(&mut self) -> Result<bool, ReadError> {
        if !self.pause.is_over(Instant::now()) {
            return Ok(false);
        }
        let from = self.next;
        match self.step(from, Offset(u64::MAX), For::Scanner).await {
            Ok(reached) => {
                self.next = reached;
                self.pause = Pause::default();
                self.set_stuck(For::Scanner, false);
            }
            Err(error) => {
                self.cannot_read(from, error)?;
                self.set_stuck(For::Scanner, true);
                self.pause.failed(Instant::now());
            }
        }
        Ok(self.next > from)
    }

    /// Lets each lagging reader whose queue has room read a page; returns whether any of them moved.
    async fn catch_up(&mut self) -> Result<bool, ReadError> {
        if self.lagging.is_empty() {
            self.set_stuck(For::Cursors, false);
            return Ok(false);
        }
        let targets = &self.shared.targets;
        let space = |origin: Option<&_>, lane| targets.space(origin, lane);
        let is_over = |wait: &_, origin: &_| self.barrier.is_over(wait, origin);
        self.lagging.begin_round(Instant::now(), space, is_over);
        while let Some(from) = self.lagging.next_page() {
            match self.step(from, self.next, For::Cursors).await {
                Ok(reached) => {
                    // Adapted to the room of the queues, because records past it are read again later.
                    self.page_bytes = match self.lagging.is_reading(reached) {
                        true => (self.page_bytes * 2).min(PAGE_BYTES),
                        false => (self.page_bytes / 2).max(PAGE_BYTES_LEAST),
                    };
                    self.lagging.end_page(reached, self.next);
                }
                Err(error) => {
                    self.cannot_read(from, error)?;
                    self.lagging.cannot_read(from, Instant::now());
                }
            }
        }
        let stuck = self.lagging.read_again_at().is_some();
        self.set_stuck(For::Cursors, stuck);
        Ok(self.lagging.has_moved())
    }

    fn set_stuck(&mut self, by: For, stuck: bool) {
        let before = self.stuck.contains(&true);
        self.stuck[usize::from(by == For::Cursors)] = stuck;
        let partitions = &self.shared.stats.unreadable_partitions;
        match (before, self.stuck.contains(&true)) {
            (false, true) => drop(partitions.inc()),
            (true, false) => drop(partitions.dec()),
            _ => {}
        }
    }

    fn cannot_read(&self, offset: Offset, error: ReadError) -> Result<(), ReadError> {
        if let ReadError::PartitionUnknown(_) = error {
            return Err(error);
        }
        tracing::error!(of = %self.of, %offset, %error, "read failed; records from this offset on are not dispatched until a read succeeds");
        Ok(())
    }

    /// Reads a page and puts its open records before `until` on queues. Returns the offset reached: the end of the
    /// page, `until`, or a record that the scanner can neither queue nor pass over.
    async fn step(&mut self, from: Offset, until: Offset, by: For) -> Result<Offset, ReadError> {
        let engine = self.shared.streams.engine().clone();
        let page_bytes = match by {
            For::Scanner => PAGE_BYTES,
            For::Cursors => self.page_bytes,
        };
        let page = match engine.read(self.of, from, page_bytes).await {
            Ok(page) => page,
            Err(ReadError::Trimmed { earliest, .. }) => return Ok(earliest.max(from)),
            Err(error) => return Err(error),
        };
        self.shared.stats.read(page.records.len());
        self.barrier.renew();
        let settled = engine.settled_offsets(self.of, from..page.next)?;
        let mut run = Run::default();
        let mut any_open = false;
        for stored in page.records {
            if stored.offset >= until {
                break;
            }
            if settled.contains(stored.offset) {
                continue;
            }
            any_open = true;
            let origin = self.shared.target_of(&stored.record);
            let Some(mut taker) = self.taker(&stored, &origin, by) else {
                continue;
            };
            let held = self.held(&stored, &origin);
            let goes_on = held.is_none() && (&run.origin, run.taker) == (&origin, taker);
            if !run.jobs.is_empty() && (!goes_on || run.jobs.len() == RUN_LEN_MAX) {
                if let Some(refused) = self.give(&mut run) {
                    return Ok(refused);
                }
                // Asked again, because the refused record may be of the same target, which is lagging now.
                match self.taker(&stored, &origin, by) {
                    Some(now) => taker = now,
                    None => continue,
                }
            }
            if let Some(wait) = held {
                let targets_max = self.shared.settings.get().targets_max;
                let at = stored.offset;
                if !self.lagging.hold(taker, &origin, at, wait, targets_max) {
                    return Ok(at);
                }
                continue;
            }
            let errand = Errand::First(self.owned.clone());
            let job = self.shared.job(self.of, &stored, origin.clone(), errand);
            run.jobs.push_back(Box::new(job));
            (run.origin, run.taker) = (origin, taker);
        }
        if let Some(refused) = self.give(&mut run) {
            return Ok(refused);
        }
        let reached = page.next.min(until);
        match any_open {
            true => Ok(reached),
            // Many settled records may follow; skip them without reading.
            false => self.first_open(reached, page.bounds.tail.min(until)).await,
        }
    }

    /// Returns which reader takes a record for its queue now; the inner `None` is the scanner.
    fn taker(
        &mut self,
        stored: &StoredRecord,
        origin: &Option<TargetId>,
        by: For,
    ) -> Option<Option<Taker>> {
        let targets = &self.shared.targets;
        let lane = || targets.lane(origin.as_ref(), &stored.record.key);
        match by {
            For::Scanner => (!self.lagging.is_passed_over(origin, lane)).then_some(None),
            For::Cursors => self.lagging.takes(stored.offset, origin, lane).map(Some),
        }
    }

    /// Returns the growth barrier that a record has to wait for.
    fn held(&self, stored: &StoredRecord, origin: &Option<TargetId>) -> Option<Wait> {
        let key = &stored.record.key;
        let lane = || self.shared.targets.lane(origin.as_ref(), key);
        self.barrier.wait_of(stored.offset, key, origin, lane)
    }

    /// Puts a run on its queue. A lane that has filled its share becomes lagging, and a target whose queue is full
    /// does. If too many targets are lagging already, the scanner has to stop at the first refused record; that offset
    /// is returned.
    fn give(&mut self, run: &mut Run) -> Option<Offset> {
        let Run {
            origin,
            taker,
            jobs,
        } = run;
        let mut no_place_for = None;
        let mut leave_out = |lane, at| {
            let left_out = self.lagging.lane_full(lane, origin, at);
            if !left_out {
                no_place_for = Some(lane);
            }
            left_out
        };
        if *taker == Some(Taker::Sweep) {
            let offset = jobs.front()?.offset;
            tracing::warn!(of = %self.of, %offset, "the checkpoint missed an open record; it is dispatched now");
            self.shared.try_enqueue(jobs, None);
        } else {
            self.shared.try_enqueue(jobs, Some(&mut leave_out));
        }
        let refused = jobs.front()?.offset;
        jobs.clear();
        match taker {
            None => {
                let targets_max = self.shared.settings.get().targets_max;
                let origin = origin.take();
                let fell = self
                    .lagging
                    .start_lagging(origin, refused, no_place_for, targets_max);
                return (!fell).then_some(refused);
            }
            Some(Taker::Cursor) => self.lagging.target_full(origin, refused, no_place_for),
            Some(Taker::Sweep) => self.lagging.sweep_full(origin.take(), refused),
        }
        None
    }
}

/// Successive records of one target, which take the lock of their queue once for all.
#[derive(Default)]
struct Run {
    origin: Option<TargetId>,
    /// `None` stands for the scanner.
    taker: Option<Taker>,
    jobs: VecDeque<Box<Job>>,
}

impl DispatchContext {
    /// Makes a job of a record, with a copy of the record. The owner reads only the origin of the message. Workers read
    /// the rest, because they run on many cores.
    pub(crate) fn job(
        &self,
        of: PartitionId,
        stored: &StoredRecord,
        origin: Option<TargetId>,
        errand: Errand,
    ) -> Job {
        Job {
            lane: self.targets.lane(origin.as_ref(), &stored.record.key),
            of,
            offset: stored.offset,
            time: stored.time,
            origin,
            record: stored.record.detached(),
            tried: Tried::default(),
            errand,
            unstored: None,
            came_back: false,
        }
    }
}
