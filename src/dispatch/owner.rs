//! The owner of a partition: reads it from the first record without an end on, and puts each record on the board of its
//! target.
//!
//! One *scanner* passes over the log. A target whose board is full is *behind* from then on: the scanner goes on for the
//! others and passes its records over, and a cursor of the target's own reads them again as its board gets room, until
//! it meets the scanner. So a target that hangs costs the others nothing but that the log is read twice. What is not on
//! a board yet is in the log only.

use std::{
    collections::{HashMap, VecDeque},
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::sleep;

use super::{
    Shared, call,
    job::{Errand, Job, Owned, Tried},
};
use crate::{
    place::{Offset, PartitionId},
    record::StoredRecord,
    storage::ReadError,
    target::Origin,
};

/// What is read at a time.
const PAGE_BYTES: usize = 256 * 1024;
/// Records given to a board together; those that it refuses were copied in vain.
const RUN_LEN_MAX: usize = 64;
/// Ends looked at together when finished records are skipped.
const SKIP_LEN: u64 = 16_384;
/// First wait after a read has failed.
const READ_AGAIN_FIRST: Duration = Duration::from_millis(100);
/// Longest such wait.
const READ_AGAIN_MAX: Duration = Duration::from_secs(30);

/// Dispatches a partition until its lease is gone, its stream is deleted, or the gateway stops.
pub(super) async fn own(shared: Arc<Shared>, owned: Arc<Owned>) {
    let stop = owned.stop.clone();
    let of = owned.lease.of;
    let owner = Owner {
        of,
        shared,
        owned: owned.clone(),
        next: Offset(0),
        behind: HashMap::new(),
    };
    let ended = stop.run_until_cancelled(owner.run()).await;
    owned.is_over.store(true, Ordering::Release);
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
    /// The targets that are behind, each with the first of its records that may not be on a board; at most `targets_max`.
    /// `None` stands for records that name no target.
    behind: HashMap<Option<Origin>, Offset>,
}

/// How far a page brought a reader.
enum Step {
    /// Past the whole page, or up to where it was to go.
    Done(Offset),
    /// Up to a record that its board refused.
    Refused(Offset),
}

impl Owner {
    /// Never returns `Ok`; an error means that the partition is gone.
    async fn run(mut self) -> Result<(), ReadError> {
        let engine = self.shared.streams.engine().clone();
        let shared = self.shared.clone();
        let mut tail = engine.tail(self.of)?;
        let status = engine.status(self.of)?;
        self.next = status.low_mark.max(status.bounds.earliest);
        let mut again = READ_AGAIN_FIRST;
        loop {
            // Before the boards are asked, so that room made in between is not missed.
            let mut freed = pin!(shared.targets.room.freed.notified());
            freed.as_mut().enable();
            let caught_up = self.catch_up().await;
            // Only what was stored before this start can have an end already in great numbers.
            if self.next < status.bounds.tail {
                self.next = self.first_open(self.next, status.bounds.tail).await?;
            }
            let there_is_more = *tail.borrow_and_update() > self.next;
            let scanned = match there_is_more {
                true => self.scan().await,
                false => Ok(false),
            };
            match (caught_up, scanned) {
                (Ok(caught_up), Ok(scanned)) => {
                    again = READ_AGAIN_FIRST;
                    if !caught_up && !scanned {
                        let from = self.next;
                        tokio::select! {
                            () = freed => {}
                            // With more to read the scanner waits for room alone.
                            moved = tail.wait_for(|tail| *tail > from), if !there_is_more => {
                                moved.map_err(|_closed| ReadError::PartitionUnknown(self.of))?;
                            }
                        }
                    }
                }
                (Err(gone @ ReadError::PartitionUnknown(_)), _)
                | (_, Err(gone @ ReadError::PartitionUnknown(_))) => return Err(gone),
                (Err(error), _) | (_, Err(error)) => {
                    tracing::error!(of = %self.of, offset = self.next.0, %error, "cannot read; dispatch of this partition waits");
                    sleep(again).await;
                    again = (again * 2).min(READ_AGAIN_MAX);
                }
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
        let from = self.next;
        let (Step::Done(reached) | Step::Refused(reached)) =
            self.step(from, None, Offset(u64::MAX)).await?;
        self.next = reached;
        Ok(reached > from)
    }

    /// Lets each target that is behind and has room read a page; returns whether any of them came further.
    async fn catch_up(&mut self) -> Result<bool, ReadError> {
        let has_room = |origin: &Option<_>| self.shared.targets.has_room(origin.as_ref());
        let ready = self.behind.iter().filter(|(origin, _)| has_room(origin));
        let ready: Vec<_> = ready.map(|(origin, at)| (origin.clone(), *at)).collect();
        let mut moved = false;
        for (origin, from) in ready {
            match self.step(from, Some(&origin), self.next).await? {
                Step::Done(reached) if reached >= self.next => {
                    self.behind.remove(&origin);
                    moved = true;
                }
                Step::Done(reached) | Step::Refused(reached) => {
                    self.behind.insert(origin, reached);
                    moved |= reached > from;
                }
            }
        }
        Ok(moved)
    }

    /// Reads a page and gives its open records before `until` to the boards: those of one target that is behind, or those
    /// of all that are not.
    async fn step(
        &mut self,
        from: Offset,
        only: Option<&Option<Origin>>,
        until: Offset,
    ) -> Result<Step, ReadError> {
        let engine = self.shared.streams.engine().clone();
        let page = match engine.read(self.of, from, PAGE_BYTES).await {
            Ok(page) => page,
            Err(ReadError::Trimmed { earliest, .. }) => return Ok(Step::Done(earliest.max(from))),
            Err(error) => return Err(error),
        };
        let finished = engine.finished(self.of, from..page.next)?;
        let mut run = Run::default();
        for stored in page.records {
            if stored.offset >= until {
                break;
            }
            if finished.contains(stored.offset) {
                continue;
            }
            let origin = call::origin(&stored.record);
            if (run.origin != origin || run.jobs.len() == RUN_LEN_MAX)
                && let Some(refused) = self.give(&mut run, only.is_some())
            {
                return Ok(Step::Refused(refused));
            }
            let passed_over = match only {
                Some(only) => *only != origin,
                None => !self.behind.is_empty() && self.behind.contains_key(&origin),
            };
            if !passed_over {
                let errand = Errand::First(self.owned.clone());
                let job = self.shared.job(self.of, &stored, origin.clone(), errand);
                run.jobs.push_back(Box::new(job));
                run.origin = origin;
            }
        }
        match self.give(&mut run, only.is_some()) {
            Some(refused) => Ok(Step::Refused(refused)),
            None => Ok(Step::Done(page.next.min(until))),
        }
    }

    /// Gives a run to its board. If that has no room for all of it, the target is behind from there on; if it may not
    /// be, nothing behind the first refused record can be passed over, and that one is returned.
    fn give(&mut self, run: &mut Run, is_behind: bool) -> Option<Offset> {
        self.shared.try_enqueue(&mut run.jobs);
        let refused = run.jobs.front()?.offset;
        run.jobs.clear();
        if is_behind || self.behind.len() >= self.shared.settings.get().targets_max {
            return Some(refused);
        }
        self.behind.insert(run.origin.take(), refused);
        None
    }
}

/// Records of one target, one after the other: they take their board's lock together.
#[derive(Default)]
struct Run {
    origin: Option<Origin>,
    jobs: VecDeque<Box<Job>>,
}

impl Shared {
    /// Makes a job of a record: copies it out of what was read. All about its message but its origin is the worker's to
    /// find out, so that many cores do it, each where it needs it.
    pub(crate) fn job(
        &self,
        of: PartitionId,
        stored: &StoredRecord,
        origin: Option<Origin>,
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
        }
    }
}
