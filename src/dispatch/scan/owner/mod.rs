//! The owner of a partition: reads it from the first record without an end on, and puts each record on the board of its
//! target.
//!
//! One *scanner* passes over the log. A target whose board is full is *behind* from then on: the scanner goes on for the
//! others and passes its records over, and a cursor of the target's own reads them again as its board gets room, until
//! it meets the scanner. A lane that has filled its share of the board is behind in the same way, so that it costs the
//! other lanes of its target nothing either. What is not on a board yet is in the log only.
//!
//! A record whose key has come here by the growth of its stream, and which has to wait for its older ones, makes its target
//! or its lane behind as well: see `fence`.
//!
//! While someone is behind, a hint is stored now and then, so that after a restart the others need not wait until the
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
    checkpoint::Hint,
    growth_barrier::{Fence, Wait},
    lagging::{Behind, Pause, Taker},
};
use crate::dispatch::{
    Shared,
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
/// The least that is read for those who are behind: they read less when they had room for less.
const PAGE_BYTES_LEAST: usize = 4 * 1024;
/// Records given to a board together; those that it refuses were copied in vain.
const RUN_LEN_MAX: usize = 64;
/// How often a hint may be stored; tests have no time.
const HINT_EVERY: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 1_000 });
/// Ends looked at together when finished records are skipped.
const SKIP_LEN: u64 = 16_384;
/// Dispatches a partition until its lease is gone, its stream is deleted, or the gateway stops.
pub(in crate::dispatch) async fn own(shared: Arc<Shared>, owned: Arc<Owned>) {
    let stop = owned.stop.clone();
    let of = owned.lease.of;
    let fence = Fence::new(&shared.streams, &shared.progress, of);
    let mut owner = Owner {
        of,
        shared,
        owned: owned.clone(),
        next: Offset(0),
        pause: Pause::default(),
        behind: Behind::default(),
        fence,
        page_bytes: PAGE_BYTES,
        hint: None,
        hint_at: None,
        stuck: [false; 2],
    };
    let ended = stop.run_until_cancelled(owner.run()).await;
    // Before any job is dropped without an end because of that.
    let hint = owner.new_hint();
    owner.fence.withdraw();
    owned.is_over.store(true, Ordering::Release);
    owner.shared.sweep_over();
    if ended.is_none() {
        owner.store_hint(hint).await;
    }
    if let Some(Err(error)) = ended {
        tracing::debug!(%of, %error, "partition is not dispatched any more");
    }
}

struct Owner {
    shared: Arc<Shared>,
    of: PartitionId,
    owned: Arc<Owned>,
    /// Where the scanner is.
    next: Offset,
    /// The scanner's, when it cannot read.
    pause: Pause,
    behind: Behind,
    fence: Fence,
    /// What is read at a time for those who are behind.
    page_bytes: usize,
    /// As it is stored.
    hint: Option<Hint>,
    /// When it is looked at again.
    hint_at: Option<Instant>,
    /// Something cannot be read: by the scanner, by those who are behind.
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
        self.take_hint(status.bounds.tail).await;
        loop {
            // Before the boards are asked, so that room made in between is not missed.
            let mut freed = pin!(shared.targets.budget.freed.notified());
            freed.as_mut().enable();
            self.fence.renew();
            let caught_up = self.catch_up().await?;
            let there_is_more = *tail.borrow_and_update() > self.next;
            let scanned = there_is_more && self.scan().await?;
            self.fence.show(&self.behind, self.next);
            if self.hint_at.is_some_and(|at| at <= Instant::now()) {
                self.renew_hint().await;
            }
            if caught_up || scanned {
                if self.hint.is_some() || !self.behind.is_empty() {
                    self.hint_at.get_or_insert(Instant::now() + HINT_EVERY);
                }
                continue;
            }
            let from = self.next;
            let scan_at = self.pause.until().filter(|_| there_is_more);
            let again_at = self.behind.read_again_at().into_iter();
            let again_at = again_at.chain(scan_at).chain(self.hint_at).min();
            let waits = self.fence.is_open() && (there_is_more || !self.behind.is_empty());
            tokio::select! {
                () = freed => {}
                () = self.fence.news(waits) => {}
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
            let finished = self.shared.streams.engine().finished(self.of, next..end)?;
            let open = (next.0..end.0)
                .map(Offset)
                .find(|at| !finished.contains(*at));
            match open {
                Some(open) => return Ok(open),
                None => next = end,
            }
            tokio::task::yield_now().await;
        }
        Ok(next)
    }

    /// Gives the next page to the boards; returns whether the scanner has moved.
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

    /// Lets each that is behind and has room read a page; returns whether any of them came further.
    async fn catch_up(&mut self) -> Result<bool, ReadError> {
        if self.behind.is_empty() {
            self.set_stuck(For::Cursors, false);
            return Ok(false);
        }
        let targets = &self.shared.targets;
        let space = |origin: Option<&_>, lane| targets.space(origin, lane);
        let is_over = |wait: &_, origin: &_| self.fence.is_over(wait, origin);
        self.behind.begin_round(Instant::now(), space, is_over);
        while let Some(from) = self.behind.next_page() {
            match self.step(from, self.next, For::Cursors).await {
                Ok(reached) => {
                    // As much as they have room for: what is read behind that is read again.
                    self.page_bytes = match self.behind.is_reading(reached) {
                        true => (self.page_bytes * 2).min(PAGE_BYTES),
                        false => (self.page_bytes / 2).max(PAGE_BYTES_LEAST),
                    };
                    self.behind.end_page(reached, self.next);
                }
                Err(error) => {
                    self.cannot_read(from, error)?;
                    self.behind.cannot_read(from, Instant::now());
                }
            }
        }
        let stuck = self.behind.read_again_at().is_some();
        self.set_stuck(For::Cursors, stuck);
        Ok(self.behind.has_moved())
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

    /// Reads a page and gives its open records before `until` to the boards. Returns how far it came: past the page, up to
    /// `until`, or up to a record that the scanner may neither give to its board nor pass over.
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
        self.fence.renew();
        let finished = engine.finished(self.of, from..page.next)?;
        let mut run = Run::default();
        let mut any_open = false;
        for stored in page.records {
            if stored.offset >= until {
                break;
            }
            if finished.contains(stored.offset) {
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
                if !self.behind.hold(taker, &origin, at, wait, targets_max) {
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

    /// Returns who takes a record to give it to its board now.
    fn taker(
        &mut self,
        stored: &StoredRecord,
        origin: &Option<TargetId>,
        by: For,
    ) -> Option<Option<Taker>> {
        let targets = &self.shared.targets;
        let lane = || targets.lane(origin.as_ref(), &stored.record.key);
        match by {
            For::Scanner => (!self.behind.is_passed_over(origin, lane)).then_some(None),
            For::Cursors => self.behind.takes(stored.offset, origin, lane).map(Some),
        }
    }

    /// Returns what a record has to wait for.
    fn held(&self, stored: &StoredRecord, origin: &Option<TargetId>) -> Option<Wait> {
        let key = &stored.record.key;
        let lane = || self.shared.targets.lane(origin.as_ref(), key);
        self.fence.wait_of(stored.offset, key, origin, lane)
    }

    /// Gives a run to its board. If that has no room for all of it, the target is behind from there on, and a lane that has
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
            let left_out = self.behind.lane_full(lane, origin, at);
            if !left_out {
                no_place_for = Some(lane);
            }
            left_out
        };
        if *taker == Some(Taker::Sweep) {
            let offset = jobs.front()?.offset;
            tracing::warn!(of = %self.of, %offset, "a hint knew nothing of a record that is open; it is dispatched now");
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
                    .behind
                    .fall_behind(origin, refused, no_place_for, targets_max);
                return (!fell).then_some(refused);
            }
            Some(Taker::Cursor) => self.behind.target_full(origin, refused, no_place_for),
            Some(Taker::Sweep) => self.behind.sweep_full(origin.take(), refused),
        }
        None
    }
}

/// Records of one target, one after the other: they take their board's lock together.
#[derive(Default)]
struct Run {
    origin: Option<TargetId>,
    /// `None` stands for the scanner.
    taker: Option<Taker>,
    jobs: VecDeque<Box<Job>>,
}

impl Shared {
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
