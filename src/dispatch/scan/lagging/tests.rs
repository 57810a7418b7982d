use std::{hash::RandomState, time::Duration};

use super::*;

/// A target with two lanes; the scanner is at 100.
struct Fixture {
    lagging: Lagging,
    origin: Option<TargetId>,
    lanes: [Lane; 2],
}

fn fixture() -> Fixture {
    let origin = TargetId::of("http://a");
    let state = RandomState::new();
    let lane = |key: &[u8]| Lane::new(&state, &origin, key);
    Fixture {
        lanes: [lane(b"hot"), lane(b"other")],
        origin: Some(origin),
        lagging: Lagging::default(),
    }
}

impl Fixture {
    fn round(&mut self, space: impl Fn(Option<Lane>) -> Space) -> Option<u64> {
        let space = |_: Option<&TargetId>, lane| space(lane);
        self.lagging.begin_round(Instant::now(), space, |_, _| true);
        self.lagging.next_page().map(|at| at.0)
    }

    /// Returns which offsets of a lane are taken.
    fn taken(&mut self, lane: usize, offsets: std::ops::Range<u64>) -> Vec<u64> {
        let (origin, lane) = (self.origin.clone(), self.lanes[lane]);
        let mut takes = |at| self.lagging.takes(Offset(at), &origin, || Some(lane));
        offsets.filter(|at| takes(*at).is_some()).collect()
    }

    fn end_page(&mut self, reached: u64) {
        self.lagging.end_page(Offset(reached), Offset(100));
    }
}

#[test]
fn a_lane_reads_up_to_its_target_and_the_target_goes_on_with_both() {
    let mut all = fixture();
    let (origin, hot) = (all.origin.clone(), all.lanes[0]);
    assert!(all.lagging.lane_full(hot, &origin, Offset(40)));
    assert!(all.lagging.start_lagging(origin, Offset(70), None, 1));
    // Only the lane has room: what is behind the target's cursor is not its own.
    let lane_only = |lane: Option<Lane>| lane.map_or(Space::None, |_| Space::Enough);
    assert_eq!(all.round(lane_only), Some(40));
    assert_eq!(all.taken(0, 38..72), (40..70).collect::<Vec<_>>());
    assert_eq!(all.taken(1, 38..72), [0; 0]);
    all.end_page(72);
    assert_eq!(all.lagging.cursors().count(), 1, "the lane has met it");
    assert_eq!(all.round(|_| Space::Enough), Some(70));
    assert_eq!(all.taken(0, 68..72), [70, 71]);
    assert_eq!(all.taken(1, 68..72), [70, 71]);
    all.end_page(100);
    assert!(all.lagging.is_empty() && all.lagging.has_moved());
}

#[test]
fn on_one_page_each_record_is_taken_once() {
    let mut all = fixture();
    let (origin, hot) = (all.origin.clone(), all.lanes[0]);
    assert!(all.lagging.lane_full(hot, &origin, Offset(40)));
    assert!(
        all.lagging
            .start_lagging(origin.clone(), Offset(70), None, 1)
    );
    assert_eq!(all.round(|_| Space::Enough), Some(40));
    assert_eq!(all.taken(0, 40..71), (40..71).collect::<Vec<_>>());
    assert_eq!(all.taken(1, 69..71), [70]);
    // The queue refuses what comes from 71 on, be it the lane's or not.
    all.lagging.target_full(&origin, Offset(71), None);
    assert_eq!(all.taken(0, 71..90), [0; 0]);
    assert_eq!(all.taken(1, 71..90), [0; 0]);
    all.end_page(90);
    assert_eq!(all.round(|_| Space::Enough), Some(71));
    assert_eq!(all.taken(0, 71..73), [71, 72]);
    // The lane has its share again, the others go on.
    assert!(all.lagging.lane_full(hot, &origin, Offset(73)));
    assert_eq!(all.taken(0, 73..75), [0; 0]);
    assert_eq!(all.taken(1, 73..75), [73, 74]);
    all.end_page(90);
    let at: Vec<_> = all.lagging.cursors().map(|cursor| cursor.at.0).collect();
    assert_eq!(at, [90, 73]);
}

#[test]
fn a_reader_with_little_room_reads_along_only_if_the_page_begins_before_it() {
    for (own, taken) in [(39, vec![]), (41, vec![41, 42])] {
        let mut all = fixture();
        let (origin, [hot, other]) = (all.origin.clone(), all.lanes);
        assert!(all.lagging.lane_full(hot, &origin, Offset(40)));
        assert!(all.lagging.lane_full(other, &origin, Offset(own)));
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
    assert!(all.lagging.lane_full(hot, &origin, Offset(40)));
    assert_eq!(all.round(|_| Space::Little), None, "nothing is read for it");
}

#[test]
fn so_many_may_be_behind_and_no_more() {
    let mut all = fixture();
    let (origin, state) = (all.origin.clone(), RandomState::new());
    let lane = |key: usize| Lane::new(&state, origin.as_ref().unwrap(), &key.to_be_bytes());
    for key in 0..LANES_MAX {
        assert!(all.lagging.lane_full(lane(key), &origin, Offset(1)));
    }
    assert!(!all.lagging.lane_full(lane(LANES_MAX), &origin, Offset(2)));
    assert!(all.lagging.lane_full(lane(0), &origin, Offset(2)), "it is");
    assert!(!all.lagging.start_lagging(origin, Offset(2), None, 0));
}

#[test]
fn a_page_that_cannot_be_read_stops_only_who_needs_it() {
    let mut all = fixture();
    let (origin, [hot, other]) = (all.origin.clone(), all.lanes);
    assert!(all.lagging.lane_full(hot, &origin, Offset(40)));
    assert!(all.lagging.lane_full(other, &origin, Offset(60)));
    let start = Instant::now();
    let mut page = |at| {
        let now = start + Duration::from_millis(at);
        all.lagging
            .begin_round(now, |_, _| Space::Enough, |_, _| true);
        let from = all.lagging.next_page().unwrap();
        if from == Offset(40) {
            all.lagging.cannot_read(from, now);
        }
        from.0
    };
    let waits = [0, 1, 99, 100, 101, 299, 300].map(&mut page);
    assert_eq!(waits, [40, 60, 60, 40, 60, 60, 40]);
    let again = start + Duration::from_millis(700);
    assert_eq!(all.lagging.read_again_at(), Some(again));
}

/// Lets a cursor of a page, or the scanner, come to a record that has to wait.
#[track_caller]
fn check_hold(all: &mut Fixture, taker: Option<Taker>, at: u64, wait: Wait, holds: bool) {
    let held = all.lagging.hold(taker, &all.origin, Offset(at), wait, 1);
    assert_eq!(held, holds);
}

impl Fixture {
    /// A round in which there is room for all, but nothing that was waited for has come about.
    fn round_in_vain(&mut self) -> Option<u64> {
        let space = |_: Option<&_>, _| Space::Enough;
        self.lagging
            .begin_round(Instant::now(), space, |_, _| false);
        self.lagging.next_page().map(|at| at.0)
    }
}

#[test]
fn a_target_that_has_to_wait_reads_again_from_there_when_the_wait_is_over() {
    let mut all = fixture();
    let wait = Wait::for_target(all.lanes[0]);
    check_hold(&mut all, None, 40, wait, true);
    assert_eq!(all.round_in_vain(), None, "nothing is read");
    assert_eq!(all.round(|_| Space::Enough), Some(40));
    assert_eq!(all.taken(1, 40..42), [40, 41]);
    check_hold(&mut all, Some(Taker::Cursor), 42, wait, true);
    assert_eq!(all.taken(1, 42..44), [0; 0], "its target waits");
    all.end_page(50);
    assert_eq!(all.round_in_vain(), None);
    assert_eq!(all.round(|_| Space::Enough), Some(42));
    all.end_page(100);
    assert!(all.lagging.is_empty());
}

#[test]
fn a_lane_that_has_to_wait_leaves_its_target_alone() {
    let mut all = fixture();
    let wait = Wait::for_lane(all.lanes[0]);
    check_hold(&mut all, None, 40, wait, true);
    let (origin, [hot, other]) = (all.origin.clone(), all.lanes);
    assert!(all.lagging.is_passed_over(&origin, || Some(hot)));
    assert!(!all.lagging.is_passed_over(&origin, || Some(other)));
    assert_eq!(all.round_in_vain(), None);
    // The lane is lagging already, for whatever it waits.
    assert_eq!(all.round(|_| Space::Enough), Some(40));
    let wait = Wait::for_target(hot);
    check_hold(&mut all, Some(Taker::Cursor), 41, wait, true);
    all.end_page(50);
    assert!(!all.lagging.is_passed_over(&origin, || Some(other)));
    assert_eq!(all.round(|_| Space::Enough), Some(41));
}

#[test]
fn with_no_place_for_one_more_the_scanner_stops_at_what_has_to_wait() {
    let mut all = fixture();
    let (state, origin) = (RandomState::new(), all.origin.clone());
    assert!(all.lagging.start_lagging(None, Offset(3), None, 1));
    let lane = |key: usize| Lane::new(&state, origin.as_ref().unwrap(), &key.to_be_bytes());
    for key in 0..LANES_MAX {
        let wait = Wait::for_lane(lane(key));
        check_hold(&mut all, None, 40, wait, true);
    }
    check_hold(&mut all, None, 40, Wait::for_lane(lane(LANES_MAX)), false);
    check_hold(&mut all, None, 40, Wait::for_target(lane(LANES_MAX)), false);
}
