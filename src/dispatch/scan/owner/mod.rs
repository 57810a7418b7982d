//! The owner of a partition: reads it from the first record without an end on, and puts each record on the queue of its
//! target.
//!
//! One *scanner* passes over the log. A target whose queue is full is *lagging* from then on: the scanner goes on for the
//! others and passes its records over, and a cursor of the target's own reads them again as its queue gets room, until
//! it meets the scanner. A lane that has filled its share of the queue is lagging in the same way, so that it costs the
//! other lanes of its target nothing either. What is not on a queue yet is in the log only.
//!
//! A record whose key has come here by the growth of its stream, and which has to wait for its older ones, makes its target
//! or its lane behind as well: see `barrier`.
//!
//! While someone is lagging, a checkpoint is stored now and then, so that after a restart the others need not wait until the
//! scanner has come through what waits of those.

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
    queue::job::{Errand, Job, Owned, Tried},
    target_id::TargetId,
};
use crate::{
    model::{
        ids::{Offset, PartitionId},
        record::StoredRecord,
    },
    storage::ReadError,
};

/// What is read at a time.
const PAGE_BYTES: usize = 256 * 1024;
/// The least that is read for those who are lagging: they read less when they had room for less.
const PAGE_BYTES_LEAST: usize = 4 * 1024;
/// Records given to a queue together; those that it refuses were copied in vain.
const RUN_LEN_MAX: usize = 64;
/// How often a checkpoint may be stored; tests have no time.
const CHECKPOINT_EVERY: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 1_000 });
/// Ends looked at together when settled records are skipped.
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
    // Before any job is dropped without an end because of that.
    let checkpoint = owner.new_checkpoint();
    owner.barrier.withdraw();
    owned.is_over.store(true, Ordering::Release);
    owner.shared.sweep_over();
    if ended.is_none() {
        owner.store_checkpoint(checkpoint).await;
    }
    if let Some(Err(error)) = ended {
        tracing::debug!(%of, %error, "partition is not dispatched any more");
    }
}

struct Owner {
    shared: Arc<DispatchContext>,
    of: PartitionId,
    owned: Arc<Owned>,
    /// Where the scanner is.
    next: Offset,
    /// The scanner's, when it cannot read.
    pause: Pause,
    lagging: Lagging,
    barrier: GrowthBarrier,
    /// What is read at a time for those who are lagging.
    page_bytes: usize,
    /// As it is stored.
    checkpoint: Option<Checkpoint>,
    /// When it is looked at again.
    checkpoint_at: Option<Instant>,
    /// Something cannot be read: by the scanner, by those who are lagging.
    stuck: [bool; 2],
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.set_stuck(For::Scanner, false);
        self.set_stuck(For::Cursors, false);
    }
}

/// For whom a page is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For {
    /// All that are not behind.
    Scanner,
    /// Those who are, and take part in this round.
    Cursors,
}

impl Owner {
    /// Never returns `Ok`; an error means that the partition is gone.
    async fn run(&mut self) -> Result<(), ReadError> {
        let engine = self.shared.streams.engine().clone();
        let shared = self.shared.clone();
        let mut tail = engine.tail(self.of)?;
        let status = engine.status(self.of)?;
        self.next = status.low_mark.max(status.bounds.earliest);
        self.take_checkpoint(status.bounds.tail).await;
        loop {
            // Before the queues are asked, so that room made in between is not missed.
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
                // With more to read the scanner waits for room alone.
                moved = tail.wait_for(|tail| *tail > from), if !there_is_more => {
                    moved.map_err(|_closed| ReadError::PartitionUnknown(self.of))?;
                }
                () = sleep_until(again_at.unwrap_or_else(Instant::now)), if again_at.is_some() => {}
            }
        }
    }

    /// Returns the first record without an end.
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

    /// Gives the next page to the queues; returns whether the scanner has moved.
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

    /// Lets each that is lagging and has room read a page; returns whether any of them came further.
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
                    // As much as they have room for: what is read behind that is read again.
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
        tracing::error!(of = %self.of, %offset, %error, "cannot read; what lies there is not dispatched for now");
        Ok(())
    }

    /// Reads a page and gives its open records before `until` to the queues. Returns how far it came: past the page, up to
    /// `until`, or up to a record that the scanner may neither give to its queue nor pass over.
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
                // Perhaps not any more: what was just refused may be of the same target.
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
            // There may be many more of these.
            false => self.first_open(reached, page.bounds.tail.min(until)).await,
        }
    }

    /// Returns who takes a record to give it to its queue now.
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

    /// Returns what a record has to wait for.
    fn held(&self, stored: &StoredRecord, origin: &Option<TargetId>) -> Option<Wait> {
        let key = &stored.record.key;
        let lane = || self.shared.targets.lane(origin.as_ref(), key);
        self.barrier.wait_of(stored.offset, key, origin, lane)
    }

    /// Gives a run to its queue. If that has no room for all of it, the target is lagging from there on, and a lane that has
    /// filled its share is; if the target may not be, nothing behind the first refused record can be passed over, and
    /// that one is returned.
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
            tracing::warn!(of = %self.of, %offset, "a checkpoint knew nothing of a record that is open; it is dispatched now");
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

/// Records of one target, one after the other: they take their queue's lock together.
#[derive(Default)]
struct Run {
    origin: Option<TargetId>,
    /// `None` stands for the scanner.
    taker: Option<Taker>,
    jobs: VecDeque<Box<Job>>,
}

impl DispatchContext {
    /// Makes a job of a record: copies it out of what was read. All about its message but its origin is the worker's to
    /// find out, so that many cores do it, each where it needs it.
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
