//! Who is behind: the targets and lanes whose records the scanner passes over, each with a cursor of its own that reads
//! them again. Pure: what there is room for, and the time, are given.
//!
//! ```text
//! offset      ... 40 ........ 70 ............ 95
//!                 ^           ^               ^
//!            lane of X      target X       scanner
//! ```
//!
//! A cursor is the first of its records that may not be on a board. That of a lane is never past that of its target, and
//! that of a target never past the scanner; where they meet, the one that was behind is so no more. Until then a lane's
//! records are its own cursor's, whoever comes by.
//!
//! After a restart the scanner begins where a [`Hint`] says, and who was behind then is so at once. One more cursor, the
//! *sweep*, comes along where the others read below that: it takes what is open there and nobody's. There is no such
//! record if the hint is right; if it is wrong, nothing is lost by that.
//!
//! Cursors read in *rounds*: each for whom there is room gets one page. A page is read for all whose records may be in it,
//! so cursors that are near each other cost one read together.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::{
    hint::Hint,
    lane::{Lane, Space},
};
use crate::{place::Offset, target::Origin};

/// Lanes of a partition that have cursors of their own. With more of them the target of the next one is behind as a whole:
/// each lane may cost a pass over the log.
const LANES_MAX: usize = 32;
/// First wait after a read has failed.
const READ_AGAIN_FIRST: Duration = Duration::from_millis(100);
/// Longest such wait.
const READ_AGAIN_MAX: Duration = Duration::from_secs(30);

/// Who is behind in one partition.
#[derive(Debug, Default)]
pub(super) struct Behind {
    /// `None` stands for records that name no target.
    targets: HashMap<Option<Origin>, TargetCursor>,
    lanes: HashMap<Lane, LaneCursor>,
    sweep: Option<Sweep>,
    /// A cursor has come further since this was last asked.
    moved: bool,
}

#[derive(Debug)]
struct TargetCursor {
    cursor: Cursor,
    /// The lane that would be behind if one more could be.
    stopped_by: Option<Lane>,
}

#[derive(Debug)]
struct LaneCursor {
    cursor: Cursor,
    origin: Option<Origin>,
    /// It has met the cursor of its target on this page: what comes now is the target's.
    met: bool,
}

/// Looks for open records that a hint knows nothing of.
#[derive(Debug)]
struct Sweep {
    cursor: Cursor,
    /// Where the scanner began.
    until: Offset,
    /// Where the targets began that were behind.
    begun: HashMap<Option<Origin>, Offset>,
    /// The target whose board has refused one.
    stopped_by: Option<Option<Origin>>,
}

/// Who takes a record of a page that is not the scanner's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taker {
    /// Whose it is.
    Cursor,
    /// The sweep: nobody knows of it.
    Sweep,
}

#[derive(Debug)]
struct Cursor {
    at: Offset,
    /// What there is room for in this round, until it is refused or has had its page.
    space: Space,
    pause: Pause,
}

/// The wait after reads that have failed.
#[derive(Debug)]
pub(super) struct Pause {
    until: Option<Instant>,
    next: Duration,
}

impl Behind {
    /// Who is behind at the start, by a hint; `low` is the first record without an end.
    pub(super) fn at_start(hint: Hint, low: Offset) -> Self {
        let behind = hint.behind.into_iter();
        let begun: HashMap<_, _> = behind
            .map(|(origin, from)| (origin, from.max(low)))
            .collect();
        let target = |at| TargetCursor {
            cursor: Cursor::new(at),
            stopped_by: None,
        };
        Self {
            targets: begun
                .iter()
                .map(|(origin, at)| (origin.clone(), target(*at)))
                .collect(),
            sweep: Some(Sweep {
                cursor: Cursor::new(low),
                until: hint.scanned,
                begun,
                stopped_by: None,
            }),
            ..Self::default()
        }
    }

    /// Returns what a next start can begin with, if anyone is behind; `for_each_open` names the target and offset of each
    /// record that is on a board.
    pub(super) fn hint(
        &self,
        scanner: Offset,
        for_each_open: impl FnOnce(&mut dyn FnMut(&Option<Origin>, Offset)),
    ) -> Option<Hint> {
        let mut behind: HashMap<Option<Origin>, Offset> = HashMap::new();
        let targets = self.targets.iter();
        let targets = targets.map(|(origin, target)| (origin, target.cursor.at));
        let lanes = self
            .lanes
            .values()
            .map(|lane| (&lane.origin, lane.cursor.at));
        for (origin, at) in targets.chain(lanes) {
            let from = behind.entry(origin.clone()).or_insert(at);
            *from = at.min(*from);
        }
        if behind.is_empty() {
            return None;
        }
        let mut scanned = scanner;
        for_each_open(&mut |origin, at| {
            let from = behind.get_mut(origin).unwrap_or(&mut scanned);
            *from = at.min(*from);
        });
        Hint::new(scanned, behind)
    }

    /// Returns whether nobody is.
    pub(super) fn is_empty(&self) -> bool {
        self.targets.is_empty() && self.lanes.is_empty() && self.sweep.is_none()
    }

    /// Returns whether the scanner leaves a record to a cursor.
    pub(super) fn is_passed_over(
        &self,
        origin: &Option<Origin>,
        lane: impl FnOnce() -> Option<Lane>,
    ) -> bool {
        !self.targets.is_empty() && self.targets.contains_key(origin)
            || !self.lanes.is_empty() && lane().is_some_and(|lane| self.lanes.contains_key(&lane))
    }

    /// Notes that the scanner found no room for a target from an offset on, for want of a place for `lane` if that is
    /// given; `false` if no more than `targets_max` may be behind.
    pub(super) fn fall_behind(
        &mut self,
        origin: Option<Origin>,
        at: Offset,
        lane: Option<Lane>,
        targets_max: usize,
    ) -> bool {
        if self.targets.len() >= targets_max {
            return false;
        }
        let target = TargetCursor {
            cursor: Cursor::new(at),
            stopped_by: lane,
        };
        self.targets.insert(origin, target);
        true
    }

    /// Notes that a lane has filled its share, whoever reads for it; `false` if it may not be left out.
    pub(super) fn lane_full(&mut self, lane: Lane, origin: &Option<Origin>, at: Offset) -> bool {
        if let Some(known) = self.lanes.get_mut(&lane) {
            self.moved |= known.cursor.stop(at);
            known.met = false;
            return true;
        }
        let free = self.lanes.len() < LANES_MAX;
        if free {
            let lane_cursor = LaneCursor {
                cursor: Cursor::new(at),
                origin: origin.clone(),
                met: false,
            };
            self.lanes.insert(lane, lane_cursor);
        }
        free
    }

    /// Notes that a board had no room for what cursors had for it, from an offset on.
    pub(super) fn target_full(&mut self, origin: &Option<Origin>, at: Offset, lane: Option<Lane>) {
        if let Some(target) = self.targets.get_mut(origin)
            && target.cursor.reads()
        {
            self.moved |= target.cursor.stop(at);
            target.stopped_by = lane;
        }
        for lane in self.lanes.values_mut() {
            if lane.cursor.reads() && lane.origin == *origin {
                self.moved |= lane.cursor.stop(at);
                lane.met = false;
            }
        }
    }

    /// Begins a round: all take part for whom there is room, or come along.
    pub(super) fn begin_round(
        &mut self,
        now: Instant,
        space: impl Fn(Option<&Origin>, Option<Lane>) -> Space,
    ) {
        let begin = |cursor: &mut Cursor, origin: Option<&Origin>, lane| {
            let over = cursor.pause.is_over(now);
            cursor.space = if over {
                space(origin, lane)
            } else {
                Space::None
            };
        };
        for (origin, target) in &mut self.targets {
            begin(&mut target.cursor, origin.as_ref(), target.stopped_by);
        }
        for (lane, behind) in &mut self.lanes {
            begin(&mut behind.cursor, behind.origin.as_ref(), Some(*lane));
        }
        let Some(mut sweep) = self.sweep.take() else {
            return;
        };
        let target = sweep.stopped_by.as_ref();
        let space = target.map_or(Space::Enough, |origin| space(origin.as_ref(), None));
        // Where another one will come by, it waits for that.
        let is_alone = self.cursors().all(|other| other.at > sweep.cursor.at);
        sweep.cursor.space = match (is_alone, sweep.cursor.pause.is_over(now)) {
            (_, false) => Space::None,
            (true, true) => space,
            (false, true) => space.min(Space::Little),
        };
        self.sweep = Some(sweep);
    }

    /// Returns where the next page of the round begins.
    pub(super) fn next_page(&mut self) -> Option<Offset> {
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
    pub(super) fn takes(
        &mut self,
        at: Offset,
        origin: &Option<Origin>,
        lane: impl FnOnce() -> Option<Lane>,
    ) -> Option<Taker> {
        if self.is_its_own(at, origin, lane) {
            return Some(Taker::Cursor);
        }
        let sweep = self.sweep.as_ref()?;
        let begun = sweep.begun.get(origin).unwrap_or(&sweep.until);
        let takes = sweep.cursor.reads() && (sweep.cursor.at..*begun).contains(&at);
        takes.then_some(Taker::Sweep)
    }

    fn is_its_own(
        &mut self,
        at: Offset,
        origin: &Option<Origin>,
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
            lane.met = true;
        }
        target.is_some_and(|target| target.reads() && target.at <= at)
    }

    /// Notes that a board had no room for what the sweep had found, from an offset on.
    pub(super) fn sweep_full(&mut self, origin: Option<Origin>, at: Offset) {
        if let Some(sweep) = &mut self.sweep {
            self.moved |= sweep.cursor.stop(at);
            sweep.stopped_by = Some(origin);
        }
    }

    /// Returns whether someone still has room at the end of a page.
    pub(super) fn is_reading(&self, reached: Offset) -> bool {
        self.cursors()
            .any(|cursor| cursor.space == Space::Enough && cursor.at < reached)
    }

    /// Ends a page: all that have read it stand behind it, and who has met the one before is not behind any more.
    pub(super) fn end_page(&mut self, reached: Offset, scanner: Offset) {
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
    pub(super) fn cannot_read(&mut self, from: Offset, now: Instant) {
        for cursor in self.cursors_mut() {
            if cursor.reads() && cursor.at == from {
                cursor.space = Space::None;
                cursor.pause.failed(now);
            }
        }
    }

    /// Returns when the first of those that could not read wants to try again.
    pub(super) fn read_again_at(&self) -> Option<Instant> {
        self.cursors().filter_map(|cursor| cursor.pause.until).min()
    }

    /// Returns whether a cursor has come further since this was last asked.
    pub(super) fn has_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    fn cursors(&self) -> impl Iterator<Item = &Cursor> {
        let targets = self.targets.values().map(|target| &target.cursor);
        let lanes = self.lanes.values().map(|lane| &lane.cursor);
        let sweep = self.sweep.iter().map(|sweep| &sweep.cursor);
        targets.chain(lanes).chain(sweep)
    }

    fn cursors_mut(&mut self) -> impl Iterator<Item = &mut Cursor> {
        let targets = self.targets.values_mut().map(|target| &mut target.cursor);
        let lanes = self.lanes.values_mut().map(|lane| &mut lane.cursor);
        let sweep = self.sweep.iter_mut().map(|sweep| &mut sweep.cursor);
        targets.chain(lanes).chain(sweep)
    }
}

impl Cursor {
    fn new(at: Offset) -> Self {
        Self {
            at,
            space: Space::None,
            pause: Pause::default(),
        }
    }

    /// Returns whether it takes what it finds.
    fn reads(&self) -> bool {
        self.space > Space::None
    }

    /// It was refused there; returns whether it has come further.
    fn stop(&mut self, at: Offset) -> bool {
        self.space = Space::None;
        self.go_to(at)
    }

    fn ends_page(&mut self, reached: Offset) -> bool {
        let has_read = self.reads() && self.at < reached;
        if has_read {
            self.space = Space::None;
            self.go_to(reached);
        }
        has_read
    }

    fn go_to(&mut self, at: Offset) -> bool {
        let moves = at > self.at;
        if moves {
            self.at = at;
            self.pause = Pause::default();
        }
        moves
    }
}

impl Default for Pause {
    fn default() -> Self {
        Self {
            until: None,
            next: READ_AGAIN_FIRST,
        }
    }
}

impl Pause {
    /// Notes that a read has failed.
    pub(super) fn failed(&mut self, now: Instant) {
        self.until = Some(now + self.next);
        self.next = (self.next * 2).min(READ_AGAIN_MAX);
    }

    /// Returns whether it is time to read; says so once.
    pub(super) fn is_over(&mut self, now: Instant) -> bool {
        let over = self.until.is_none_or(|until| until <= now);
        if over {
            self.until = None;
        }
        over
    }

    /// Returns when it is over, if it is not.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use std::hash::RandomState;

    use super::*;

    /// A target with two lanes; the scanner is at 100.
    struct Fixture {
        behind: Behind,
        origin: Option<Origin>,
        lanes: [Lane; 2],
    }

    fn fixture() -> Fixture {
        let origin = Origin::of("http://a").unwrap();
        let state = RandomState::new();
        let lane = |key: &[u8]| Lane::new(&state, &origin, key);
        Fixture {
            lanes: [lane(b"hot"), lane(b"other")],
            origin: Some(origin),
            behind: Behind::default(),
        }
    }

    impl Fixture {
        fn round(&mut self, space: impl Fn(Option<Lane>) -> Space) -> Option<u64> {
            let space = |_: Option<&Origin>, lane| space(lane);
            self.behind.begin_round(Instant::now(), space);
            self.behind.next_page().map(|at| at.0)
        }

        /// Returns which offsets of a lane are taken.
        fn taken(&mut self, lane: usize, offsets: std::ops::Range<u64>) -> Vec<u64> {
            let (origin, lane) = (self.origin.clone(), self.lanes[lane]);
            let mut takes = |at| self.behind.takes(Offset(at), &origin, || Some(lane));
            offsets.filter(|at| takes(*at).is_some()).collect()
        }

        fn end_page(&mut self, reached: u64) {
            self.behind.end_page(Offset(reached), Offset(100));
        }
    }

    #[test]
    fn a_lane_reads_up_to_its_target_and_the_target_goes_on_with_both() {
        let mut all = fixture();
        let (origin, hot) = (all.origin.clone(), all.lanes[0]);
        assert!(all.behind.lane_full(hot, &origin, Offset(40)));
        assert!(all.behind.fall_behind(origin, Offset(70), None, 1));
        // Only the lane has room: what is behind the target's cursor is not its own.
        let lane_only = |lane: Option<Lane>| lane.map_or(Space::None, |_| Space::Enough);
        assert_eq!(all.round(lane_only), Some(40));
        assert_eq!(all.taken(0, 38..72), (40..70).collect::<Vec<_>>());
        assert_eq!(all.taken(1, 38..72), [0; 0]);
        all.end_page(72);
        assert_eq!(all.behind.cursors().count(), 1, "the lane has met it");
        assert_eq!(all.round(|_| Space::Enough), Some(70));
        assert_eq!(all.taken(0, 68..72), [70, 71]);
        assert_eq!(all.taken(1, 68..72), [70, 71]);
        all.end_page(100);
        assert!(all.behind.is_empty() && all.behind.has_moved());
    }

    #[test]
    fn on_one_page_each_record_is_taken_once() {
        let mut all = fixture();
        let (origin, hot) = (all.origin.clone(), all.lanes[0]);
        assert!(all.behind.lane_full(hot, &origin, Offset(40)));
        assert!(all.behind.fall_behind(origin.clone(), Offset(70), None, 1));
        assert_eq!(all.round(|_| Space::Enough), Some(40));
        assert_eq!(all.taken(0, 40..71), (40..71).collect::<Vec<_>>());
        assert_eq!(all.taken(1, 69..71), [70]);
        // The board refuses what comes from 71 on, be it the lane's or not.
        all.behind.target_full(&origin, Offset(71), None);
        assert_eq!(all.taken(0, 71..90), [0; 0]);
        assert_eq!(all.taken(1, 71..90), [0; 0]);
        all.end_page(90);
        assert_eq!(all.round(|_| Space::Enough), Some(71));
        assert_eq!(all.taken(0, 71..73), [71, 72]);
        // The lane has its share again, the others go on.
        assert!(all.behind.lane_full(hot, &origin, Offset(73)));
        assert_eq!(all.taken(0, 73..75), [0; 0]);
        assert_eq!(all.taken(1, 73..75), [73, 74]);
        all.end_page(90);
        let at: Vec<_> = all.behind.cursors().map(|cursor| cursor.at.0).collect();
        assert_eq!(at, [90, 73]);
    }

    #[test]
    fn who_has_little_room_comes_along_only_if_the_page_begins_before_it() {
        for (own, taken) in [(39, vec![]), (41, vec![41, 42])] {
            let mut all = fixture();
            let (origin, [hot, other]) = (all.origin.clone(), all.lanes);
            assert!(all.behind.lane_full(hot, &origin, Offset(40)));
            assert!(all.behind.lane_full(other, &origin, Offset(own)));
            let space = move |lane| match lane == Some(hot) {
                true => Space::Enough,
                false => Space::Little,
            };
            assert_eq!(all.round(space), Some(40));
            assert_eq!(all.taken(1, 38..43), taken);
            assert_eq!(all.taken(0, 38..43), [40, 41, 42]);
        }
        let mut all = fixture();
        let (origin, hot) = (all.origin.clone(), all.lanes[0]);
        assert!(all.behind.lane_full(hot, &origin, Offset(40)));
        assert_eq!(all.round(|_| Space::Little), None, "nothing is read for it");
    }

    #[test]
    fn so_many_may_be_behind_and_no_more() {
        let mut all = fixture();
        let (origin, state) = (all.origin.clone(), RandomState::new());
        let lane = |key: usize| Lane::new(&state, origin.as_ref().unwrap(), &key.to_be_bytes());
        for key in 0..LANES_MAX {
            assert!(all.behind.lane_full(lane(key), &origin, Offset(1)));
        }
        assert!(!all.behind.lane_full(lane(LANES_MAX), &origin, Offset(2)));
        assert!(all.behind.lane_full(lane(0), &origin, Offset(2)), "it is");
        assert!(!all.behind.fall_behind(origin, Offset(2), None, 0));
    }

    #[test]
    fn a_page_that_cannot_be_read_stops_only_who_needs_it() {
        let mut all = fixture();
        let (origin, [hot, other]) = (all.origin.clone(), all.lanes);
        assert!(all.behind.lane_full(hot, &origin, Offset(40)));
        assert!(all.behind.lane_full(other, &origin, Offset(60)));
        let start = Instant::now();
        let mut page = |at| {
            let now = start + Duration::from_millis(at);
            all.behind.begin_round(now, |_, _| Space::Enough);
            let from = all.behind.next_page().unwrap();
            if from == Offset(40) {
                all.behind.cannot_read(from, now);
            }
            from.0
        };
        let waits = [0, 1, 99, 100, 101, 299, 300].map(&mut page);
        assert_eq!(waits, [40, 60, 60, 40, 60, 60, 40]);
        let again = start + Duration::from_millis(700);
        assert_eq!(all.behind.read_again_at(), Some(again));
    }
}
