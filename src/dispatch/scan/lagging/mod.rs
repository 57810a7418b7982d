//! Lagging targets and lanes: the scanner passes their records over, and a reader of each reads them again. Pure: the
//! room of queues and the time are given.
//!
//! ```text
//! offset      ... 40 ........ 70 ............ 95
//!                 ^           ^               ^
//!            lane of X      target X       scanner
//! ```
//!
//! A reader stands at its first record that may be on no queue. The reader of a lane is never past the reader of its
//! target, which is never past the scanner. When a lagging target's reader reaches the scanner, the target stops
//! lagging and its reader is removed. Until a lane's reader is removed, only it takes records of the lane.
//!
//! After a restart the scanner begins where the [`Checkpoint`] says, and the targets in it are lagging at once. One
//! more reader, the *sweep*, reads below that offset along with the others. It takes open records that belong to no
//! other reader. A right checkpoint leaves none; with a wrong one no record is lost.
//!
//! Readers read in *rounds*: each reader with room gets one page. A page serves all readers whose records may be in it,
//! so readers that are near each other cost one read.

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
    job::Lane,
    queue::lane::Space,
    target_id::{Prefixes, TargetId},
};
use crate::model::{ids::Offset, target::Origin};

/// Lanes of a partition that may have readers of their own. Each may cost a pass over the log, so the whole target of
/// the next lane becomes lagging.
const LANES_MAX: usize = 32;

/// The lagging targets and lanes of one partition.
#[derive(Debug, Default)]
pub(in crate::dispatch) struct Lagging {
    /// `None` stands for records that name no target.
    targets: HashMap<Option<TargetId>, TargetCursor>,
    lanes: HashMap<Lane, LaneCursor>,
    sweep: Option<Sweep>,
    /// A reader has moved since the last call of [`Lagging::has_moved`].
    moved: bool,
}

#[derive(Debug)]
struct TargetCursor {
    cursor: LaggingReader,
    /// The lane that would be lagging but for [`LANES_MAX`].
    stopped_by: Option<Lane>,
}

#[derive(Debug)]
struct LaneCursor {
    cursor: LaggingReader,
    origin: Option<TargetId>,
}

/// Looks for open records that the checkpoint missed.
#[derive(Debug)]
struct Sweep {
    cursor: LaggingReader,
    /// Start of the scanner.
    until: Offset,
    /// Starts of the readers of lagging targets, by origin.
    begun: HashMap<Option<Origin>, Offset>,
    /// The target whose queue refused a record.
    stopped_by: Option<Option<TargetId>>,
}

/// The reader that takes a record of a page that is not the scanner's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dispatch) enum Taker {
    /// The reader of its target or lane.
    Cursor,
    /// The sweep: the checkpoint missed the record.
    Sweep,
}

impl Lagging {
    /// The targets that are lagging at the start, from a checkpoint; `low` is the first open record. A checkpoint names
    /// origins. Every target of such an origin is lagging, because its prefixes may have changed since.
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

    /// Returns the checkpoint for the next start, if a target or lane is lagging. `for_each_open` names the target and
    /// offset of each queued record.
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

    /// Returns whether no target or lane is lagging and no sweep is left.
    pub(in crate::dispatch) fn is_empty(&self) -> bool {
        self.targets.is_empty() && self.lanes.is_empty() && self.sweep.is_none()
    }

    /// Returns whether the scanner leaves a record to a lagging reader.
    pub(in crate::dispatch) fn is_passed_over(
        &self,
        origin: &Option<TargetId>,
        lane: impl FnOnce() -> Option<Lane>,
    ) -> bool {
        !self.targets.is_empty() && self.targets.contains_key(origin)
            || !self.lanes.is_empty() && lane().is_some_and(|lane| self.lanes.contains_key(&lane))
    }

    /// Makes a target lagging from an offset on; `lane` is the lane that caused it, if one did. Returns `false` if
    /// `targets_max` targets are lagging already.
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

    /// Makes a lane lagging that has filled its share; returns `false` if [`LANES_MAX`] lanes are lagging already.
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

    /// Stops the readers of a target at an offset, because its queue has no room.
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

    /// Makes the lane or the target of a record lagging that has to wait for a growth barrier. Returns `false` if it
    /// may not be lagging; the scanner has to stop there then.
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

    /// Returns how many events each reader is past; `events` counts the events at or below an offset.
    pub(in crate::dispatch) fn passed(
        &self,
        scanner: Offset,
        events: impl Fn(Offset) -> usize,
    ) -> Passed {
        // Records without a target have no lane, and no record waits for them.
        let targets = self.targets.iter().filter_map(|(origin, target)| {
            let origin = origin.clone()?;
            Some((origin, events(target.cursor.at)))
        });
        let lanes = self.lanes.iter();
        let lanes = lanes.map(|(lane, lagging)| (*lane, events(lagging.cursor.at)));
        Passed::new(events(scanner), targets, lanes)
    }

    /// Begins a round with the readers that have room and whose waits are over.
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
        // The sweep reads alone only if no other reader is before it; else it waits and reads along.
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
        // Readers before the page sit this round out, because no page is read for them alone.
        for cursor in self.cursors_mut().filter(|cursor| cursor.at < from) {
            cursor.space = Space::None;
        }
        Some(from)
    }

    /// Returns which reader takes a record of the page read in this round.
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
            // Every record below the target's reader is queued, because the page begins no later than the lane's
            // reader.
        }
        target.is_some_and(|target| target.reads() && target.at <= at)
    }

    /// Stops the sweep at an offset, because the queue of the record's target has no room.
    pub(in crate::dispatch) fn sweep_full(&mut self, origin: Option<TargetId>, at: Offset) {
        if let Some(sweep) = &mut self.sweep {
            self.moved |= sweep.cursor.stop(at);
            sweep.stopped_by = Some(origin);
        }
    }

    /// Returns whether a reader still has room at the end of a page.
    pub(in crate::dispatch) fn is_reading(&self, reached: Offset) -> bool {
        self.cursors()
            .any(|cursor| cursor.space == Space::Enough && cursor.at < reached)
    }

    /// Ends a page: its readers move to its end. A reader that has reached the one ahead of it is removed, and its
    /// target or lane stops lagging.
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

    /// Ends a page that could not be read: its readers pause.
    pub(in crate::dispatch) fn cannot_read(&mut self, from: Offset, now: Instant) {
        for cursor in self.cursors_mut() {
            if cursor.reads() && cursor.at == from {
                cursor.space = Space::None;
                cursor.pause.failed(now);
            }
        }
    }

    /// Returns when the first reader with a failed read tries again.
    pub(in crate::dispatch) fn read_again_at(&self) -> Option<Instant> {
        self.cursors()
            .filter_map(|cursor| cursor.pause.until())
            .min()
    }

    /// Returns whether a reader has moved since the last call.
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
