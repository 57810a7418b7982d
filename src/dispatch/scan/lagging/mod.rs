//! Who is lagging: the targets and lanes whose records the scanner passes over, each with a cursor of its own that reads
//! them again. Pure: what there is room for, and the time, are given.
//!
//! ```text
//! offset      ... 40 ........ 70 ............ 95
//!                 ^           ^               ^
//!            lane of X      target X       scanner
//! ```
//!
//! A cursor is the first of its records that may not be on a queue. That of a lane is never past that of its target, and
//! that of a target never past the scanner; where they meet, the one that was lagging is so no more. Until then a lane's
//! records are its own cursor's, whoever comes by.
//!
//! After a restart the scanner begins where a [`Checkpoint`] says, and who was lagging then is so at once. One more cursor, the
//! *sweep*, comes along where the others read below that: it takes what is open there and nobody's. There is no such
//! record if the checkpoint is right; if it is wrong, nothing is lost by that.
//!
//! Cursors read in *rounds*: each for whom there is room gets one page. A page is read for all whose records may be in it,
//! so cursors that are near each other cost one read together.

mod cursor;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use tokio::time::Instant;

use self::cursor::LaggingReader;
pub(in crate::dispatch) use self::cursor::Pause;
use super::{
    checkpoint::Checkpoint,
    growth_barrier::{Passed, Wait},
};
use crate::dispatch::{
    queue::lane::{Lane, Space},
    target_id::{Prefixes, TargetId},
};
use crate::model::{ids::Offset, target::Origin};

/// Lanes of a partition that have cursors of their own. With more of them the target of the next one is lagging as a whole:
/// each lane may cost a pass over the log.
const LANES_MAX: usize = 32;

/// Who is lagging in one partition.
#[derive(Debug, Default)]
pub(in crate::dispatch) struct Lagging {
    /// `None` stands for records that name no target.
    targets: HashMap<Option<TargetId>, TargetCursor>,
    lanes: HashMap<Lane, LaneCursor>,
    sweep: Option<Sweep>,
    /// A cursor has come further since this was last asked.
    moved: bool,
}

#[derive(Debug)]
struct TargetCursor {
    cursor: LaggingReader,
    /// The lane that would be lagging if one more could be.
    stopped_by: Option<Lane>,
}

#[derive(Debug)]
struct LaneCursor {
    cursor: LaggingReader,
    origin: Option<TargetId>,
}

/// Looks for open records that a checkpoint knows nothing of.
#[derive(Debug)]
struct Sweep {
    cursor: LaggingReader,
    /// Where the scanner began.
    until: Offset,
    /// Where the targets began that were lagging, by their origins.
    begun: HashMap<Option<Origin>, Offset>,
    /// The target whose queue has refused one.
    stopped_by: Option<Option<TargetId>>,
}

/// Who takes a record of a page that is not the scanner's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dispatch) enum Taker {
    /// Whose it is.
    Cursor,
    /// The sweep: nobody knows of it.
    Sweep,
}

impl Lagging {
    /// The targets that are lagging at the start, by a checkpoint; `low` is the first record without an end. A checkpoint knows origins: each target of
    /// them is lagging, since the prefixes may have been others when it was stored.
    pub(in crate::dispatch) fn at_start(
        checkpoint: Checkpoint,
        low: Offset,
        prefixes: &Prefixes,
    ) -> Self {
        let lagging = checkpoint.lagging.into_iter();
        let begun: HashMap<_, _> = lagging
            .map(|(origin, from)| (origin, from.max(low)))
            .collect();
        let target = |at| TargetCursor {
            cursor: LaggingReader::new(at),
            stopped_by: None,
        };
        let mut targets = HashMap::new();
        for (origin, at) in &begun {
            match origin {
                None => drop(targets.insert(None, target(*at))),
                Some(origin) => {
                    targets.extend(prefixes.targets(origin).map(|of| (Some(of), target(*at))))
                }
            }
        }
        Self {
            targets,
            sweep: Some(Sweep {
                cursor: LaggingReader::new(low),
                until: checkpoint.scanned,
                begun,
                stopped_by: None,
            }),
            ..Self::default()
        }
    }

    /// Returns what a next start can begin with, if anyone is lagging; `for_each_open` names the target and offset of each
    /// record that is on a queue.
    pub(in crate::dispatch) fn checkpoint(
        &self,
        scanner: Offset,
        for_each_open: impl FnOnce(&mut dyn FnMut(&Option<TargetId>, Offset)),
    ) -> Option<Checkpoint> {
        let origin_of = |of: &Option<TargetId>| of.as_ref().map(|of| of.origin().clone());
        let mut lagging: HashMap<Option<Origin>, Offset> = HashMap::new();
        let targets = self.targets.iter();
        let targets = targets.map(|(origin, target)| (origin, target.cursor.at));
        let lanes = self
            .lanes
            .values()
            .map(|lane| (&lane.origin, lane.cursor.at));
        for (origin, at) in targets.chain(lanes) {
            let from = lagging.entry(origin_of(origin)).or_insert(at);
            *from = at.min(*from);
        }
        if lagging.is_empty() {
            return None;
        }
        let mut scanned = scanner;
        for_each_open(&mut |origin, at| {
            let from = lagging.get_mut(&origin_of(origin));
            let from = from.unwrap_or(&mut scanned);
            *from = at.min(*from);
        });
        Checkpoint::new(scanned, lagging)
    }

    /// Returns whether nobody is.
    pub(in crate::dispatch) fn is_empty(&self) -> bool {
        self.targets.is_empty() && self.lanes.is_empty() && self.sweep.is_none()
    }

    /// Returns whether the scanner leaves a record to a cursor.
    pub(in crate::dispatch) fn is_passed_over(
        &self,
        origin: &Option<TargetId>,
        lane: impl FnOnce() -> Option<Lane>,
    ) -> bool {
        !self.targets.is_empty() && self.targets.contains_key(origin)
            || !self.lanes.is_empty() && lane().is_some_and(|lane| self.lanes.contains_key(&lane))
    }

    /// Notes that the scanner found no room for a target from an offset on, for want of a place for `lane` if that is
    /// given; `false` if no more than `targets_max` may be lagging.
    pub(in crate::dispatch) fn start_lagging(
        &mut self,
        origin: Option<TargetId>,
        at: Offset,
        lane: Option<Lane>,
        targets_max: usize,
    ) -> bool {
        if self.targets.len() >= targets_max {
            return false;
        }
        let target = TargetCursor {
            cursor: LaggingReader::new(at),
            stopped_by: lane,
        };
        self.targets.insert(origin, target);
        true
    }

    /// Notes that a lane has filled its share, whoever reads for it; `false` if it may not be left out.
    pub(in crate::dispatch) fn lane_full(
        &mut self,
        lane: Lane,
        origin: &Option<TargetId>,
        at: Offset,
    ) -> bool {
        if let Some(known) = self.lanes.get_mut(&lane) {
            self.moved |= known.cursor.stop(at);
            return true;
        }
        let free = self.lanes.len() < LANES_MAX;
        if free {
            let lane_cursor = LaneCursor {
                cursor: LaggingReader::new(at),
                origin: origin.clone(),
            };
            self.lanes.insert(lane, lane_cursor);
        }
        free
    }

    /// Notes that a queue had no room for what cursors had for it, from an offset on.
    pub(in crate::dispatch) fn target_full(
        &mut self,
        origin: &Option<TargetId>,
        at: Offset,
        lane: Option<Lane>,
    ) {
        if let Some(target) = self.targets.get_mut(origin)
            && target.cursor.reads()
        {
            self.moved |= target.cursor.stop(at);
            target.stopped_by = lane;
        }
        for lane in self.lanes.values_mut() {
            if lane.cursor.reads() && lane.origin == *origin {
                self.moved |= lane.cursor.stop(at);
            }
        }
    }

    /// Notes that a record has to wait for a barrier, whoever has come to it, so that what is behind it of its lane, or of
    /// its target, is left out; `false` if that may not be, and the scanner has to stop there.
    pub(in crate::dispatch) fn hold(
        &mut self,
        taker: Option<Taker>,
        origin: &Option<TargetId>,
        at: Offset,
        wait: Wait,
        targets_max: usize,
    ) -> bool {
        let lane = wait.lane;
        if taker == Some(Taker::Sweep) {
            self.sweep_full(origin.clone(), at);
            if let Some(sweep) = &mut self.sweep {
                sweep.cursor.wait = Some(wait);
            }
            return true;
        }
        let is_alone = wait.for_lane || self.lanes.contains_key(&lane);
        if is_alone && self.lane_full(lane, origin, at) {
            if let Some(lane) = self.lanes.get_mut(&lane) {
                lane.cursor.wait = Some(wait);
            }
            return true;
        }
        match taker {
            Some(_) => self.target_full(origin, at, None),
            None if !self.start_lagging(origin.clone(), at, None, targets_max) => return false,
            None => {}
        }
        if let Some(target) = self.targets.get_mut(origin) {
            target.cursor.wait = Some(wait);
        }
        true
    }

    /// Returns what all are past; `events` says how many of them lie at or below an offset.
    pub(in crate::dispatch) fn passed(
        &self,
        scanner: Offset,
        events: impl Fn(Offset) -> usize,
    ) -> Passed {
        // Who names no target has no lane, and nobody waits for it.
        let targets = self.targets.iter().filter_map(|(origin, target)| {
            let origin = origin.clone()?;
            Some((origin, events(target.cursor.at)))
        });
        let lanes = self.lanes.iter();
        let lanes = lanes.map(|(lane, lagging)| (*lane, events(lagging.cursor.at)));
        Passed::new(events(scanner), targets, lanes)
    }

    /// Begins a round: all take part for whom there is room, or come along, and that need not wait any more.
    pub(in crate::dispatch) fn begin_round(
        &mut self,
        now: Instant,
        space: impl Fn(Option<&TargetId>, Option<Lane>) -> Space,
        is_over: impl Fn(&Wait, &TargetId) -> bool,
    ) {
        let may_read = |cursor: &mut LaggingReader, origin: Option<&TargetId>| {
            cursor
                .wait
                .take_if(|wait| origin.is_some_and(|origin| is_over(wait, origin)));
            cursor.pause.is_over(now) && cursor.wait.is_none()
        };
        let begin = |cursor: &mut LaggingReader, origin: Option<&TargetId>, lane| {
            cursor.space = match may_read(cursor, origin) {
                true => space(origin, lane),
                false => Space::None,
            };
        };
        for (origin, target) in &mut self.targets {
            begin(&mut target.cursor, origin.as_ref(), target.stopped_by);
        }
        for (lane, lagging) in &mut self.lanes {
            begin(&mut lagging.cursor, lagging.origin.as_ref(), Some(*lane));
        }
        let Some(mut sweep) = self.sweep.take() else {
            return;
        };
        let target = sweep.stopped_by.as_ref();
        let may_read = may_read(&mut sweep.cursor, target.and_then(Option::as_ref));
        let space = target.map_or(Space::Enough, |origin| space(origin.as_ref(), None));
        // Where another one will come by, it waits for that.
        let is_alone = self.cursors().all(|other| other.at > sweep.cursor.at);
        sweep.cursor.space = match (is_alone, may_read) {
            (_, false) => Space::None,
            (true, true) => space,
            (false, true) => space.min(Space::Little),
        };
        self.sweep = Some(sweep);
    }

    /// Returns where the next page of the round begins.
    pub(in crate::dispatch) fn next_page(&mut self) -> Option<Offset> {
        let enough = self
            .cursors()
            .filter(|cursor| cursor.space == Space::Enough);
        let from = enough.map(|cursor| cursor.at).min()?;
        // No page is read for what comes along, and this one begins too late for it.
        for cursor in self.cursors_mut().filter(|cursor| cursor.at < from) {
            cursor.space = Space::None;
        }
        Some(from)
    }

    /// Returns who takes a record of the page that is read for this round.
    pub(in crate::dispatch) fn takes(
        &mut self,
        at: Offset,
        origin: &Option<TargetId>,
        lane: impl FnOnce() -> Option<Lane>,
    ) -> Option<Taker> {
        if self.is_its_own(at, origin, lane) {
            return Some(Taker::Cursor);
        }
        let sweep = self.sweep.as_ref()?;
        let origin = origin.as_ref().map(|of| of.origin().clone());
        let begun = sweep.begun.get(&origin).unwrap_or(&sweep.until);
        let takes = sweep.cursor.reads() && (sweep.cursor.at..*begun).contains(&at);
        takes.then_some(Taker::Sweep)
    }

    fn is_its_own(
        &mut self,
        at: Offset,
        origin: &Option<TargetId>,
        lane: impl FnOnce() -> Option<Lane>,
    ) -> bool {
        let target = self.targets.get(origin).map(|target| &target.cursor);
        if !self.lanes.is_empty()
            && let Some(lane) = lane()
            && let Some(lane) = self.lanes.get_mut(&lane)
        {
            let reads = lane.cursor.reads();
            if target.is_none_or(|target| at < target.at) {
                return reads && lane.cursor.at <= at;
            }
            if !reads {
                return false;
            }
            // All below the target's cursor was given, as the page begins no later than the lane's.
        }
        target.is_some_and(|target| target.reads() && target.at <= at)
    }

    /// Notes that a queue had no room for what the sweep had found, from an offset on.
    pub(in crate::dispatch) fn sweep_full(&mut self, origin: Option<TargetId>, at: Offset) {
        if let Some(sweep) = &mut self.sweep {
            self.moved |= sweep.cursor.stop(at);
            sweep.stopped_by = Some(origin);
        }
    }

    /// Returns whether someone still has room at the end of a page.
    pub(in crate::dispatch) fn is_reading(&self, reached: Offset) -> bool {
        self.cursors()
            .any(|cursor| cursor.space == Space::Enough && cursor.at < reached)
    }

    /// Ends a page: all that have read it stand behind it, and who has met the one before is not behind any more.
    pub(in crate::dispatch) fn end_page(&mut self, reached: Offset, scanner: Offset) {
        let mut moved = false;
        self.targets.retain(|_, target| {
            if target.cursor.ends_page(reached) {
                moved = true;
                target.stopped_by = None;
            }
            target.cursor.at < scanner
        });
        let targets = &self.targets;
        self.lanes.retain(|_, lane| {
            moved |= lane.cursor.ends_page(reached);
            let target = targets.get(&lane.origin);
            lane.cursor.at < target.map_or(scanner, |target| target.cursor.at)
        });
        if let Some(sweep) = &mut self.sweep
            && sweep.cursor.ends_page(reached)
        {
            moved = true;
            sweep.stopped_by = None;
        }
        self.sweep.take_if(|sweep| sweep.cursor.at >= sweep.until);
        self.moved |= moved;
    }

    /// Ends a page that could not be read: who needs it waits.
    pub(in crate::dispatch) fn cannot_read(&mut self, from: Offset, now: Instant) {
        for cursor in self.cursors_mut() {
            if cursor.reads() && cursor.at == from {
                cursor.space = Space::None;
                cursor.pause.failed(now);
            }
        }
    }

    /// Returns when the first of those that could not read wants to try again.
    pub(in crate::dispatch) fn read_again_at(&self) -> Option<Instant> {
        self.cursors()
            .filter_map(|cursor| cursor.pause.until())
            .min()
    }

    /// Returns whether a cursor has come further since this was last asked.
    pub(in crate::dispatch) fn has_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    fn cursors(&self) -> impl Iterator<Item = &LaggingReader> {
        let targets = self.targets.values().map(|target| &target.cursor);
        let lanes = self.lanes.values().map(|lane| &lane.cursor);
        let sweep = self.sweep.iter().map(|sweep| &sweep.cursor);
        targets.chain(lanes).chain(sweep)
    }

    fn cursors_mut(&mut self) -> impl Iterator<Item = &mut LaggingReader> {
        let targets = self.targets.values_mut().map(|target| &mut target.cursor);
        let lanes = self.lanes.values_mut().map(|lane| &mut lane.cursor);
        let sweep = self.sweep.iter_mut().map(|sweep| &mut sweep.cursor);
        targets.chain(lanes).chain(sweep)
    }
}
